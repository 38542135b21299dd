/* SPDX-License-Identifier: Apache-2.0 */
/*
 * As bytes: u32 CRC32C (little-endian) of what follows | version | start in minutes | n frames, by
 * sequence { gap of sequences, offset in ms * 2 + is it a key frame, size, bytes }. All numbers are
 * varints.
 */
#include "fleet/sheaf.h"

#include "base/crc32c.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define VERSION 1u

struct sheaf_frame {
	uint64_t sequence;
	uint32_t offset_ms, start, size;
	bool is_key;
};

struct sheaf {
	uint64_t start_ms;
	struct sheaf_frame *frames;
	uint8_t *data;
	uint32_t count, capacity, size, data_capacity;
	bool is_sorted;
};

int sheaf_new(uint64_t start_ms, struct sheaf **ret)
{
	struct sheaf *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->start_ms = start_ms;
	s->is_sorted = true;
	*ret = s;
	return 0;
}

struct sheaf *sheaf_free(struct sheaf *s)
{
	if (!s)
		return NULL;
	free(s->frames);
	free(s->data);
	free(s);
	return NULL;
}

uint64_t sheaf_start_ms(const struct sheaf *s)
{
	return s->start_ms;
}

size_t sheaf_frames(const struct sheaf *s)
{
	return s->count;
}

uint64_t sheaf_sequence(const struct sheaf *s, size_t index)
{
	return s->frames[index].sequence;
}

bool sheaf_has(const struct sheaf *s, uint64_t sequence)
{
	/* From the end: frames come in order. */
	for (uint32_t i = s->count; i-- > 0;)
		if (s->frames[i].sequence == sequence)
			return true;
	return false;
}

size_t sheaf_bytes(const struct sheaf *s)
{
	return sizeof(*s) + s->capacity * sizeof(*s->frames) + s->data_capacity;
}

static int reserve(struct sheaf *s, size_t size)
{
	uint32_t capacity = s->capacity ? s->capacity : 8;
	uint32_t room = s->data_capacity ? s->data_capacity : 1024;
	void *grown;

	if (s->count == MINUTE_TICKS_MAX || size > SHEAF_BYTES_MAX - s->size)
		return -ENOSPC;
	if (s->count == s->capacity) {
		capacity = s->capacity ? s->capacity * 2 : 8;
		grown = reallocarray(s->frames, capacity, sizeof(*s->frames));
		if (!grown)
			return -ENOMEM;
		s->frames = grown;
		s->capacity = capacity;
	}
	if (s->size + size <= s->data_capacity)
		return 0;
	/* By half, not twice: ten thousand of them are open at a time. */
	while (room < s->size + size)
		room += room / 2;
	grown = realloc(s->data, room);
	if (!grown)
		return -ENOMEM;
	s->data = grown;
	s->data_capacity = room;
	return 0;
}

int sheaf_add(struct sheaf *s, uint64_t sequence, uint64_t time_ms, bool is_key,
	      const uint8_t *data, size_t size)
{
	int r;

	if (time_ms < s->start_ms || time_ms - s->start_ms >= MINUTE_MS)
		return -ERANGE;
	if (!size)
		return -EBADMSG;
	if (sheaf_has(s, sequence))
		return 0;
	r = reserve(s, size);
	if (r < 0)
		return r;
	s->is_sorted = s->is_sorted && (!s->count || s->frames[s->count - 1].sequence < sequence);
	s->frames[s->count++] = (struct sheaf_frame){.sequence = sequence,
						     .offset_ms = (uint32_t)(time_ms - s->start_ms),
						     .start = s->size,
						     .size = (uint32_t)size,
						     .is_key = is_key};
	memcpy(s->data + s->size, data, size);
	s->size += (uint32_t)size;
	return 1;
}

int sheaf_merge(struct sheaf *s, const struct sheaf *from)
{
	int added = 0;

	if (s->start_ms != from->start_ms)
		return -ERANGE;
	for (uint32_t i = 0; i < from->count; i++) {
		const struct sheaf_frame *f = &from->frames[i];
		int r = sheaf_add(s, f->sequence, s->start_ms + f->offset_ms, f->is_key,
				  from->data + f->start, f->size);

		if (r < 0 && r != -ENOSPC) /* a smaller one may still fit */
			return r;
		added += r > 0;
	}
	return added;
}

int sheaf_copy(const struct sheaf *s, struct sheaf **ret)
{
	struct sheaf *copy;
	int r = sheaf_new(s->start_ms, &copy);

	if (r < 0)
		return r;
	r = sheaf_merge(copy, s);
	if (r < 0) {
		sheaf_free(copy);
		return r;
	}
	*ret = copy;
	return 0;
}

static int compare(const void *a, const void *b)
{
	const struct sheaf_frame *x = a, *y = b;

	return (x->sequence > y->sequence) - (x->sequence < y->sequence);
}

static void sort(struct sheaf *s)
{
	if (!s->is_sorted)
		qsort(s->frames, s->count, sizeof(*s->frames), compare);
	s->is_sorted = true;
}

int sheaf_encode(struct sheaf *s, struct pack *out)
{
	static const uint8_t room[4];
	size_t at = out->size;
	uint64_t sequence = 0;
	uint32_t crc;

	sort(s);
	pack_bytes(out, room, sizeof(room));
	pack_u64(out, VERSION);
	pack_u64(out, s->start_ms / MINUTE_MS);
	pack_u64(out, s->count);
	for (uint32_t i = 0; i < s->count; i++) {
		const struct sheaf_frame *f = &s->frames[i];

		pack_u64(out, f->sequence - sequence);
		pack_u64(out, f->offset_ms * 2u + f->is_key);
		pack_u64(out, f->size);
		pack_bytes(out, s->data + f->start, f->size);
		sequence = f->sequence;
	}
	if (out->has_failed)
		return -ENOMEM;
	crc = crc32c(0, out->data + at + 4, out->size - at - 4);
	for (unsigned int i = 0; i < 4; i++)
		out->data[at + i] = (uint8_t)(crc >> (8 * i));
	return 0;
}

static int decode_frames(struct unpack *u, struct sheaf *s)
{
	uint64_t sequence = 0, n = unpack_u64_max(u, MINUTE_TICKS_MAX);

	for (uint64_t i = 0; i < n; i++) {
		uint64_t next = sequence + unpack_u64(u);
		uint64_t offset = unpack_u64_max(u, 2 * MINUTE_MS - 1);
		uint64_t size = unpack_u64_max(u, SHEAF_BYTES_MAX);
		const uint8_t *data = unpack_bytes(u, size);
		int r;

		if (u->is_bad || next < sequence || (i && next == sequence))
			return -EBADMSG;
		r = sheaf_add(s, next, s->start_ms + offset / 2, offset % 2, data, size);
		if (r < 0)
			return r == -ENOSPC ? -EBADMSG : r;
		sequence = next;
	}
	return n && !u->is_bad && u->at == u->end ? 0
						  : -EBADMSG; /* an empty one is never written */
}

int sheaf_decode(const uint8_t *data, size_t size, struct sheaf **ret)
{
	struct sheaf *s;
	struct unpack u;
	uint32_t crc = 0;
	uint64_t version;
	int r;

	if (size < 4)
		return -EBADMSG;
	for (unsigned int i = 0; i < 4; i++)
		crc |= (uint32_t)data[i] << (8 * i);
	if (crc != crc32c(0, data + 4, size - 4))
		return -EBADMSG;
	unpack_init(&u, data + 4, size - 4);
	version = unpack_u64(&u);
	if (u.is_bad || version != VERSION)
		return u.is_bad ? -EBADMSG : -EPROTONOSUPPORT;
	r = sheaf_new(unpack_u64_max(&u, UINT64_MAX / MINUTE_MS - 1) * MINUTE_MS, &s);
	if (r < 0)
		return r;
	r = decode_frames(&u, s);
	if (r < 0) {
		sheaf_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

/* The last key frame at or before; one that was too large for a frame is continued in the next: the
 * first of them. s->count: none. */
static uint32_t key_at(const struct sheaf *s, uint64_t from_ms)
{
	uint32_t found = s->count;

	for (uint32_t i = 0; i < s->count && s->start_ms + s->frames[i].offset_ms <= from_ms; i++) {
		const struct sheaf_frame *f = &s->frames[i];
		bool is_rest = i && f[-1].is_key && f[-1].sequence + 1 == f->sequence;

		if (f->is_key && !is_rest)
			found = i;
	}
	return found;
}

bool sheaf_has_key(struct sheaf *s, uint64_t from_ms)
{
	sort(s);
	return key_at(s, from_ms) < s->count;
}

int sheaf_minute(struct sheaf *s, uint64_t from_ms, uint64_t until_ms, struct minute **ret)
{
	struct minute *m;
	int r = minute_new(s->start_ms, &m), unread = 0;
	uint32_t first;

	sort(s);
	first = key_at(s, from_ms);
	for (uint32_t i = first < s->count ? first : 0; i < s->count && r >= 0; i++) {
		const struct sheaf_frame *f = &s->frames[i];
		struct frame *frame;

		if (s->start_ms + f->offset_ms > until_ms)
			continue;
		r = frame_decode(s->data + f->start, f->size, &frame, NULL);
		if (r >= 0) {
			r = minute_add(m, frame);
			frame_free(frame);
		}
		if (r < 0 && r != -ENOMEM) {
			unread++;
			r = 0;
		}
		if (r < 0)
			minute_free(m);
	}
	if (r < 0)
		return r;
	*ret = m;
	return unread;
}
