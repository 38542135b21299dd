/* SPDX-License-Identifier: Apache-2.0 */
/* Varints are little-endian base 128; texts carry their length and their NUL. */
#include "fleet/pack.h"

#include <stdlib.h>
#include <string.h>

void pack_fini(struct pack *p)
{
	free(p->data);
	*p = (struct pack){0};
}

void pack_reset(struct pack *p)
{
	p->size = 0;
	p->has_failed = false;
}

static uint8_t *pack_room(struct pack *p, size_t size)
{
	size_t capacity = p->capacity ? p->capacity : 4096;
	uint8_t *data;

	if (p->has_failed)
		return NULL;
	if (p->size + size > p->capacity) {
		while (capacity < p->size + size)
			capacity *= 2;
		data = realloc(p->data, capacity);
		if (!data) {
			p->has_failed = true;
			return NULL;
		}
		p->data = data;
		p->capacity = capacity;
	}
	p->size += size;
	return p->data + p->size - size;
}

void pack_u64(struct pack *p, uint64_t v)
{
	uint8_t bytes[10];
	size_t n = 0;

	do {
		bytes[n++] = (uint8_t)((v & 127) | (v > 127 ? 128 : 0));
		v >>= 7;
	} while (v);
	pack_bytes(p, bytes, n);
}

void pack_double(struct pack *p, double v)
{
	uint64_t bits;
	uint8_t bytes[8];

	memcpy(&bits, &v, sizeof(bits));
	for (unsigned int i = 0; i < 8; i++)
		bytes[i] = (uint8_t)(bits >> 8 * i);
	pack_bytes(p, bytes, sizeof(bytes));
}

void pack_bytes(struct pack *p, const void *data, size_t size)
{
	uint8_t *at = pack_room(p, size);

	if (at && size)
		memcpy(at, data, size);
}

void pack_text(struct pack *p, const char *s)
{
	size_t n = strlen(s);

	pack_u64(p, n);
	pack_bytes(p, s, n + 1);
}

void unpack_init(struct unpack *u, const uint8_t *data, size_t size)
{
	*u = (struct unpack){.at = data, .end = data + size};
}

uint64_t unpack_u64(struct unpack *u)
{
	uint64_t v = 0;

	for (unsigned int shift = 0; !u->is_bad && shift < 64 && u->at < u->end; shift += 7) {
		uint8_t byte = *u->at++;

		v |= (uint64_t)(byte & 127) << shift;
		if (!(byte & 128))
			return v;
	}
	u->is_bad = true;
	return 0;
}

uint64_t unpack_u64_max(struct unpack *u, uint64_t max)
{
	uint64_t v = unpack_u64(u);

	if (v <= max)
		return v;
	u->is_bad = true;
	return 0;
}

const uint8_t *unpack_bytes(struct unpack *u, size_t size)
{
	const uint8_t *at = u->at;

	if (u->is_bad || (size_t)(u->end - u->at) < size) {
		u->is_bad = true;
		return NULL;
	}
	u->at += size;
	return at;
}

double unpack_double(struct unpack *u)
{
	const uint8_t *bytes = unpack_bytes(u, 8);
	uint64_t bits = 0;
	double v;

	for (unsigned int i = 0; bytes && i < 8; i++)
		bits |= (uint64_t)bytes[i] << 8 * i;
	memcpy(&v, &bits, sizeof(v));
	return v;
}

const char *unpack_text(struct unpack *u)
{
	uint64_t n = unpack_u64_max(u, 1u << 16);
	const uint8_t *bytes = unpack_bytes(u, n + 1);

	if (bytes && strnlen((const char *)bytes, n + 1) == n)
		return (const char *)bytes;
	u->is_bad = true;
	return "";
}
