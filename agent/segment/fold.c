/* SPDX-License-Identifier: Apache-2.0 */
/* What fold.h says. Stores of a process are seen in their order by whoever maps the file after its
 * death; the compiler must keep that order. */
#include "segment/fold.h"

#ifndef STORE /* the test dies at each of them */
#define STORE(field, value) __atomic_store_n(&(field), (value), __ATOMIC_RELEASE)
#endif

/* fold_at: additions done, times two, plus which of the two assignments the last of them is. The
 * other one is free to be written. */
#define AT(n, which) ((n) << 1 | (which))

void fold_begin(struct fold *f, struct segment_header *h, uint64_t *cells, uint64_t life)
{
	uint64_t which = h->fold_at & 1;

	*f = (struct fold){.h = h, .cells = cells};
	if (h->fold_life != life) {
		STORE(h->fold_at, 0);
		STORE(h->fold_life, life);
		return;
	}
	f->done = h->fold_at >> 1;
	if (f->done && h->fold_cell[which] < h->cells_used)
		STORE(cells[h->fold_cell[which]], h->fold_value[which]);
}

void fold_add(struct fold *f, uint64_t n, uint64_t cell, uint64_t by)
{
	uint64_t which = ~f->h->fold_at & 1;

	if (n < f->done || !by)
		return;
	STORE(f->h->fold_cell[which], cell);
	STORE(f->h->fold_value[which], f->cells[cell] + by);
	STORE(f->h->fold_at, AT(n + 1, which));
	STORE(f->cells[cell], f->h->fold_value[which]);
}

void fold_end(struct fold *f)
{
	STORE(f->h->fold_life, 0);
	STORE(f->h->fold_at, 0);
}
