/* SPDX-License-Identifier: Apache-2.0 */
/* Byte strings of varints and texts: what records of the commit log are made of. Pure. Reading
 * never leaves the buffer: after the first bad item all further ones read as 0 and is_bad says it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pack {
	uint8_t *data;
	size_t size, capacity;
	bool has_failed; /* no memory */
};

void pack_fini(struct pack *p);
void pack_reset(struct pack *p);
void pack_u64(struct pack *p, uint64_t v);
void pack_double(struct pack *p, double v);
void pack_bytes(struct pack *p, const void *data, size_t size);
void pack_text(struct pack *p, const char *s);

struct unpack {
	const uint8_t *at, *end;
	bool is_bad;
};

void unpack_init(struct unpack *u, const uint8_t *data, size_t size);
uint64_t unpack_u64(struct unpack *u);
/* Values above max are bad. */
uint64_t unpack_u64_max(struct unpack *u, uint64_t max);
double unpack_double(struct unpack *u);
/* Borrowed; NULL when bad. */
const uint8_t *unpack_bytes(struct unpack *u, size_t size);
/* Borrowed, NUL-terminated in place; "" when bad. */
const char *unpack_text(struct unpack *u);
