/* SPDX-License-Identifier: Apache-2.0 */
/* Bit streams: see frame_bits.h. Pure. */
#include "bus/frame_bits.h"

#include <stdlib.h>

void frame_bits_reset(struct frame_bits_writer *w)
{
	w->size = 0;
	w->used = 0;
	w->failed = false;
}

void frame_bits_fini(struct frame_bits_writer *w)
{
	free(w->data);
	*w = (struct frame_bits_writer){0};
}

/* Room for a word behind what is there. */
static bool has_room(struct frame_bits_writer *w)
{
	size_t cap = w->cap ? w->cap * 2 : 256;
	uint8_t *data;

	if (w->size + 8 <= w->cap)
		return true;
	data = realloc(w->data, cap);
	if (!data) {
		w->failed = true;
		return false;
	}
	w->data = data;
	w->cap = cap;
	return true;
}

void frame_bits_put(struct frame_bits_writer *w, uint64_t value, unsigned int bits)
{
	unsigned int used = w->used;
	size_t byte = w->size - (used != 0);
	uint64_t word;

	if (bits > FRAME_BITS_WORD) {
		frame_bits_put(w, value >> FRAME_BITS_WORD, bits - FRAME_BITS_WORD);
		frame_bits_put(w, value, FRAME_BITS_WORD);
		return;
	}
	if (!bits || w->failed || !has_room(w))
		return;
	word = value << (64 - bits) >> used;
	if (used)
		word |= (uint64_t)w->data[byte] << 56;
	word = htobe64(word);
	memcpy(w->data + byte, &word, sizeof(word));
	used += bits;
	w->size = byte + (used + 7) / 8;
	w->used = used & 7;
}

void frame_bits_put_code(struct frame_bits_writer *w, uint64_t v, unsigned int k)
{
	unsigned int c;

	if (k == FRAME_BITS_K_LENGTH) {
		c = frame_bits_significant(v);
		frame_bits_put(w, c, 7);
		if (c > 1)
			frame_bits_put(w, v, c - 1);
		return;
	}
	c = frame_bits_significant(v >> k);
	frame_bits_put(w, 0, c);
	frame_bits_put(w, 1, 1);
	if (c > 1)
		frame_bits_put(w, v >> k, c - 1);
	frame_bits_put(w, v, k);
}

void frame_bits_cost_add(struct frame_bits_cost *cost, uint64_t v)
{
	cost->values[frame_bits_significant(v)]++;
}

static uint64_t cost_of(const struct frame_bits_cost *cost, unsigned int k, unsigned int most)
{
	uint64_t bits = 0;

	for (unsigned int b = 0; b <= most; b++) {
		unsigned int c = b > k ? b - k : 0;

		bits += cost->values[b] * (c + 1 + (c > 1 ? c - 1 : 0) + k);
	}
	return bits;
}

unsigned int frame_bits_best(const struct frame_bits_cost *cost, uint64_t *ret_bits)
{
	unsigned int best = 0, most = 64;
	uint64_t least, length_bits = 0;

	while (most && !cost->values[most])
		most--;
	least = cost_of(cost, 0, most);
	/* Beyond the longest value a parameter only costs. */
	for (unsigned int k = 1; k <= most && k <= FRAME_BITS_K_MOST; k++) {
		uint64_t bits = cost_of(cost, k, most);

		if (bits < least) {
			least = bits;
			best = k;
		}
	}
	for (unsigned int b = 0; b <= most; b++)
		length_bits += cost->values[b] * (7 + (b > 1 ? b - 1 : 0));
	*ret_bits = length_bits < least ? length_bits : least;
	return length_bits < least ? FRAME_BITS_K_LENGTH : best;
}

void frame_bits_open(struct frame_bits_reader *r, const uint8_t *data, size_t size)
{
	*r = (struct frame_bits_reader){.data = data, .bits = (uint64_t)size * 8};
}

uint64_t frame_bits_get(struct frame_bits_reader *r, unsigned int bits)
{
	uint64_t v;

	if (r->failed || bits > r->bits - r->at) {
		r->failed = true;
		return 0;
	}
	if (!bits)
		return 0;
	if (bits > FRAME_BITS_WORD) {
		v = frame_bits_get(r, bits - FRAME_BITS_WORD) << FRAME_BITS_WORD;
		return v | frame_bits_get(r, FRAME_BITS_WORD);
	}
	v = frame_bits_peek(r) >> (64 - bits);
	r->at += bits;
	return v;
}

/* A code whose length does not fit into a word. */
static uint64_t get_long_code(struct frame_bits_reader *r, unsigned int k)
{
	unsigned int c = 0;
	uint64_t u;

	while (!r->failed && !frame_bits_get(r, 1))
		if (++c > 64 - k)
			r->failed = true;
	if (r->failed)
		return 0;
	u = c ? (uint64_t)1 << (c - 1) : 0;
	if (c > 1)
		u |= frame_bits_get(r, c - 1);
	return k ? u << k | frame_bits_get(r, k) : u;
}

uint64_t frame_bits_get_length(struct frame_bits_reader *r)
{
	unsigned int c = (unsigned int)frame_bits_get(r, 7);

	if (c > 64) {
		r->failed = true;
		return 0;
	}
	if (r->failed || !c)
		return 0;
	return (uint64_t)1 << (c - 1) | frame_bits_get(r, c - 1);
}

uint64_t frame_bits_get_code(struct frame_bits_reader *r, unsigned int k)
{
	unsigned int c, low, all;
	uint64_t word;

	if (k == FRAME_BITS_K_LENGTH)
		return frame_bits_get_length(r);
	word = frame_bits_peek(r);
	if (!word)
		return get_long_code(r, k);
	c = (unsigned int)__builtin_clzll(word);
	low = k + (c > 1 ? c - 1 : 0); /* bits behind the one */
	all = c + 1 + low;
	if (all > FRAME_BITS_WORD)
		return get_long_code(r, k);
	if (r->failed || all > r->bits - r->at) {
		r->failed = true;
		return 0;
	}
	r->at += all;
	word = low ? word << (c + 1) >> (64 - low) : 0;
	return c ? word | (uint64_t)1 << low : word;
}

unsigned int frame_bits_get_k(struct frame_bits_reader *r)
{
	unsigned int k = (unsigned int)frame_bits_get(r, FRAME_BITS_K_BITS);

	if (k > FRAME_BITS_K_MOST && k != FRAME_BITS_K_LENGTH && k != FRAME_BITS_K_TRAINED)
		r->failed = true;
	return k;
}

bool frame_bits_is_done(const struct frame_bits_reader *r)
{
	uint64_t left = r->bits - r->at;

	return !r->failed && left < 8 && (!left || !(r->data[r->at >> 3] & ((1u << left) - 1)));
}
