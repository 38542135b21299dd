/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bit streams of the frame codec: most significant bit first. Internal to frame_*.c. Pure.
 *
 * Code of a value v with parameter k < 63: u = v >> k; c = number of significant bits of u (0 for
 * 0); c zeros and a one; the c - 1 bits of u below its highest; the k low bits of v. With k = 63:
 * 7 bits with the number of significant bits of v, then those below the highest.
 */
#pragma once

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define FRAME_BITS_K_LENGTH  63u
#define FRAME_BITS_K_TRAINED 62u /* the trained code of the place: bus/frame_code.h */
#define FRAME_BITS_K_MOST    40u
#define FRAME_BITS_K_BITS    6u
#define FRAME_BITS_WORD      56u /* what one word holds wherever in a byte it begins */
#define FRAME_BITS_K_COUNT   5u  /* parameter of a section's first value, its number of items */

struct frame_bits_writer {
	uint8_t *data;
	size_t size, cap;
	unsigned int used; /* bits of the last byte */
	bool failed;       /* no memory */
};

void frame_bits_reset(struct frame_bits_writer *w);
void frame_bits_fini(struct frame_bits_writer *w);
void frame_bits_put(struct frame_bits_writer *w, uint64_t value, unsigned int bits);
void frame_bits_put_code(struct frame_bits_writer *w, uint64_t v, unsigned int k);

/* Collects how long values are; frame_bits_best() is the parameter under which they cost least. */
struct frame_bits_cost {
	uint64_t values[65]; /* by significant bits */
};

void frame_bits_cost_add(struct frame_bits_cost *cost, uint64_t v);
unsigned int frame_bits_best(const struct frame_bits_cost *cost, uint64_t *ret_bits);

struct frame_bits_reader {
	const uint8_t *data;
	uint64_t bits, at; /* length and position in bits */
	bool failed;       /* read beyond the end, or no valid code */
};

static inline unsigned int frame_bits_significant(uint64_t v)
{
	return v ? 64 - (unsigned int)__builtin_clzll(v) : 0;
}

/* At least FRAME_BITS_WORD bits from here on, the first one highest; 0 beyond the end. */
static inline uint64_t frame_bits_peek(const struct frame_bits_reader *r)
{
	size_t byte = r->at >> 3, size = r->bits >> 3;
	uint64_t word = 0;

	if (byte + 8 <= size)
		memcpy(&word, r->data + byte, sizeof(word));
	else if (byte < size)
		memcpy(&word, r->data + byte, size - byte);
	return be64toh(word) << (r->at & 7);
}

/* Bits that were peeked; fails the reader when there are fewer. */
static inline void frame_bits_skip(struct frame_bits_reader *r, unsigned int bits)
{
	if (bits > r->bits - r->at)
		r->failed = true;
	else
		r->at += bits;
}

void frame_bits_open(struct frame_bits_reader *r, const uint8_t *data, size_t size);
uint64_t frame_bits_get(struct frame_bits_reader *r, unsigned int bits);
uint64_t frame_bits_get_code(struct frame_bits_reader *r, unsigned int k);
/* A parameter (FRAME_BITS_K_TRAINED too); fails the reader when it is none. */
unsigned int frame_bits_get_k(struct frame_bits_reader *r);
/* Length code: that of FRAME_BITS_K_LENGTH. */
uint64_t frame_bits_get_length(struct frame_bits_reader *r);
/* Less than a byte is left and it is zero. */
bool frame_bits_is_done(const struct frame_bits_reader *r);
