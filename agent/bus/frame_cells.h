/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changed cells of one histogram as bits. Internal to frame_*.c. Pure. T(v) is the trained code T of
 * v (bus/frame_code.h), T(v, k) the shifted one.
 *
 *   histogram = LENGTH(n) | START(zigzag(first cell - first cell of the histogram before, or 0))
 *               | C0(d - 1) | FIRST(count / d - 1) | the other cells; nothing more when n is 0
 *
 * d divides all counts (a histogram that samples one in 8 counts eights). Then follow, cell by cell,
 * all counts / d, also those of unchanged cells in between, until the n-th: counts of neighbours are
 * alike, so the code of one is chosen by the three before it, p1 the nearest:
 *   q = significant bits of 2 p1 + 2 p2 + p3 (mod 2^64)
 *   q = 0:  RUN(unchanged cells before the next changed one) | AFTER(its count / d - 1)
 *   q <= 7: CELLq(count / d)     q > 7: CELL7(count / d, q - 7)
 */
#pragma once

#include "bus/frame_code.h"

/* cells ascend below HIST_CELLS, counts are not 0; *start is that of the histogram before. */
void frame_cells_put(struct frame_bits_writer *w, const uint16_t *cells, const uint64_t *counts,
		     unsigned int n, unsigned int *start);
/* n as the stream says, checked; then the cells. The reader fails on what no encoder writes. */
unsigned int frame_cells_get_length(struct frame_bits_reader *r);
void frame_cells_get(struct frame_bits_reader *r, uint16_t *cells, uint64_t *counts, unsigned int n,
		     unsigned int *start);
