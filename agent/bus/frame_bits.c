/* SPDX-License-Identifier: Apache-2.0 */
/* Bit streams: see frame_bits.h. Pure. */
#include "bus/frame_bits.h"

#include <stdlib.h>

static unsigned int significant(uint64_t v)
{
	return v ? 64 - (unsigned int)__builtin_clzll(v) : 0;
}

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

void frame_bits_put(struct frame_bits_writer *w, uint64_t value, unsigned int bits)
{
	while (bits && !w->failed) {
		unsigned int room = w->used ? 8 - w->used : 0, n;

		if (!room) {
			if (w->size == w->cap) {
				size_t cap = w->cap ? w->cap * 2 : 256;
				uint8_t *data = realloc(w->data, cap);

				if (!data) {
					w->failed = true;
					return;
				}
				w->data = data;
				w->cap = cap;
			}
			w->data[w->size++] = 0;
			room = 8;
		}
		n = bits < room ? bits : room;
		w->data[w->size - 1] |=
			(uint8_t)((value >> (bits - n) & ((1u << n) - 1)) << (room - n));
		w->used = (8 - room + n) & 7;
		bits -= n;
	}
}

void frame_bits_put_code(struct frame_bits_writer *w, uint64_t v, unsigned int k)
{
	unsigned int c;

	if (k == FRAME_BITS_K_LENGTH) {
		c = significant(v);
		frame_bits_put(w, c, 7);
		if (c > 1)
			frame_bits_put(w, v, c - 1);
		return;
	}
	c = significant(v >> k);
	frame_bits_put(w, 0, c);
	frame_bits_put(w, 1, 1);
	if (c > 1)
		frame_bits_put(w, v >> k, c - 1);
	frame_bits_put(w, v, k);
}

void frame_bits_cost_add(struct frame_bits_cost *cost, uint64_t v)
{
	unsigned int bits = significant(v);

	for (unsigned int k = 0; k <= FRAME_BITS_K_MOST; k++) {
		unsigned int c = bits > k ? bits - k : 0;

		cost->bits[k] += c + 1 + (c > 1 ? c - 1 : 0) + k;
	}
	cost->length_bits += 7 + (bits > 1 ? bits - 1 : 0);
}

unsigned int frame_bits_best(const struct frame_bits_cost *cost)
{
	unsigned int best = 0;

	for (unsigned int k = 1; k <= FRAME_BITS_K_MOST; k++)
		if (cost->bits[k] < cost->bits[best])
			best = k;
	return cost->length_bits < cost->bits[best] ? FRAME_BITS_K_LENGTH : best;
}

void frame_bits_open(struct frame_bits_reader *r, const uint8_t *data, size_t size)
{
	*r = (struct frame_bits_reader){.data = data, .bits = (uint64_t)size * 8};
}

uint64_t frame_bits_get(struct frame_bits_reader *r, unsigned int bits)
{
	uint64_t v = 0;

	if (r->failed || bits > r->bits - r->at) {
		r->failed = true;
		return 0;
	}
	while (bits) {
		unsigned int room = 8 - (unsigned int)(r->at & 7), n = bits < room ? bits : room;
		unsigned int byte = r->data[r->at >> 3];

		v = v << n | (byte >> (room - n) & ((1u << n) - 1));
		r->at += n;
		bits -= n;
	}
	return v;
}

uint64_t frame_bits_get_code(struct frame_bits_reader *r, unsigned int k)
{
	unsigned int c = 0;
	uint64_t u;

	if (k == FRAME_BITS_K_LENGTH) {
		c = (unsigned int)frame_bits_get(r, 7);
		if (c > 64)
			r->failed = true;
		k = 0;
	} else {
		while (!r->failed && !frame_bits_get(r, 1))
			if (++c > 64 - k)
				r->failed = true;
	}
	if (r->failed)
		return 0;
	u = c ? (uint64_t)1 << (c - 1) : 0;
	if (c > 1)
		u |= frame_bits_get(r, c - 1);
	return k ? u << k | frame_bits_get(r, k) : u;
}

unsigned int frame_bits_get_k(struct frame_bits_reader *r)
{
	unsigned int k = (unsigned int)frame_bits_get(r, FRAME_BITS_K_BITS);

	if (k > FRAME_BITS_K_MOST && k != FRAME_BITS_K_LENGTH)
		r->failed = true;
	return k;
}

bool frame_bits_is_done(const struct frame_bits_reader *r)
{
	uint64_t left = r->bits - r->at;

	return !r->failed && left < 8 && (!left || !(r->data[r->at >> 3] & ((1u << left) - 1)));
}
