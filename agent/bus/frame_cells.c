/* SPDX-License-Identifier: Apache-2.0 */
/* Histogram cells as bits: see frame_cells.h. Pure. */
#include "bus/frame_cells.h"

#include "metrics.h"

#include <assert.h>

#define CONTEXTS 7u

static_assert(FRAME_CODE_CELL7 == FRAME_CODE_CELL1 + CONTEXTS - 1, "codes by context in order");

/* The three counts before, nearest first. */
struct neighbours {
	uint64_t p1, p2, p3;
};

static void neighbours_add(struct neighbours *b, uint64_t v)
{
	*b = (struct neighbours){v, b->p1, b->p2};
}

static unsigned int context_of(const struct neighbours *b)
{
	return frame_bits_significant(2 * b->p1 + 2 * b->p2 + b->p3);
}

static enum frame_code code_of(unsigned int q)
{
	return FRAME_CODE_CELL1 + (q < CONTEXTS ? q : CONTEXTS) - 1;
}

static unsigned int shift_of(unsigned int q)
{
	return q > CONTEXTS ? q - CONTEXTS : 0;
}

static uint64_t divisor_of(const uint64_t *counts, unsigned int n)
{
	uint64_t d = n > 1 ? counts[0] : 1; /* of one alone it saves nothing */

	for (unsigned int i = 1; i < n && d > 1; i++) {
		uint64_t a = counts[i];

		while (a) {
			uint64_t rest = d % a;

			d = a;
			a = rest;
		}
	}
	return d;
}

static uint64_t zigzag(int v)
{
	return v < 0 ? (uint64_t)-v * 2 - 1 : (uint64_t)v * 2;
}

void frame_cells_put(struct frame_bits_writer *w, const uint16_t *cells, const uint64_t *counts,
		     unsigned int n, unsigned int *start)
{
	struct neighbours b = {0};
	unsigned int next;
	uint64_t d;

	frame_code_put_shifted(w, FRAME_CODE_LENGTH, n, 0);
	if (!n)
		return;
	d = divisor_of(counts, n);
	frame_code_put_shifted(w, FRAME_CODE_START, zigzag((int)cells[0] - (int)*start), 0);
	frame_bits_put_code(w, d - 1, 0);
	frame_code_put_shifted(w, FRAME_CODE_FIRST, counts[0] / d - 1, 0);
	neighbours_add(&b, counts[0] / d);
	*start = cells[0];
	next = cells[0] + 1u;
	for (unsigned int i = 1; i < n; i++) {
		uint64_t v = d > 1 ? counts[i] / d : counts[i];
		unsigned int q;

		while ((q = context_of(&b)) && next < cells[i]) {
			frame_code_put_shifted(w, code_of(q), 0, shift_of(q));
			neighbours_add(&b, 0);
			next++;
		}
		if (q) {
			frame_code_put_shifted(w, code_of(q), v, shift_of(q));
		} else {
			frame_code_put_shifted(w, FRAME_CODE_RUN, cells[i] - next, 0);
			frame_code_put_shifted(w, FRAME_CODE_AFTER, v - 1, 0);
			b.p1 = b.p2 = b.p3 = 0;
		}
		neighbours_add(&b, v);
		next = cells[i] + 1u;
	}
}

unsigned int frame_cells_get_length(struct frame_bits_reader *r)
{
	uint64_t n = frame_code_get(r, FRAME_CODE_LENGTH);

	if (n > HIST_CELLS)
		r->failed = true;
	return r->failed ? 0 : (unsigned int)n;
}

/* count / d to count; it must fit. */
static uint64_t whole(struct frame_bits_reader *r, uint64_t v, uint64_t d)
{
	uint64_t count = 0;

	if (__builtin_mul_overflow(v, d, &count))
		r->failed = true;
	return count;
}

/* One more than what is read: it must fit. */
static uint64_t get_from_one(struct frame_bits_reader *r, enum frame_code code)
{
	uint64_t v = frame_code_get_shifted(r, code, 0) + 1;

	r->failed |= !v;
	return v;
}

/* All cells from the first one, whose count / d is v, on. */
static void get_cells(struct frame_bits_reader *reader, uint16_t *cells, uint64_t *counts,
		      unsigned int n, uint64_t at, uint64_t v, uint64_t d)
{
	struct frame_bits_reader r = *reader; /* its own stays in registers */
	struct neighbours b = {0};

	for (unsigned int i = 0; !r.failed;) {
		unsigned int q;

		if (v) {
			cells[i] = (uint16_t)at;
			counts[i] = whole(&r, v, d);
			if (++i == n)
				break;
		}
		neighbours_add(&b, v);
		q = context_of(&b);
		at++;
		if (q) {
			v = frame_code_get_shifted(&r, code_of(q), shift_of(q));
		} else {
			v = frame_code_get_shifted(&r, FRAME_CODE_RUN, 0);
			at = v < HIST_CELLS ? at + v : HIST_CELLS;
			b = (struct neighbours){0};
			v = get_from_one(&r, FRAME_CODE_AFTER);
		}
		if (at >= HIST_CELLS)
			r.failed = true;
	}
	*reader = r;
}

void frame_cells_get(struct frame_bits_reader *r, uint16_t *cells, uint64_t *counts, unsigned int n,
		     unsigned int *start)
{
	uint64_t d, v, at, turned;

	if (!n)
		return;
	turned = frame_code_get(r, FRAME_CODE_START);
	at = *start + (turned & 1 ? -(turned / 2) - 1 : turned / 2);
	d = frame_bits_get_code(r, 0) + 1;
	v = get_from_one(r, FRAME_CODE_FIRST);
	if (at >= HIST_CELLS || !d)
		r->failed = true;
	*start = (unsigned int)at;
	get_cells(r, cells, counts, n, at, v, d);
}
