/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Rows of cells for what can be much and mostly is little: which pair of method and code, or of call and
 * error, is counted where. Runs in the watched thread.
 */
#pragma once

#include "slot.bpf.h"

/* Row + 1 of a pair. Rows are taken in order and never given back, so that threads which look for the
 * same pair at once find the same. */
static __always_inline u32 row_take(u8 *row, u64 *pairs, const u32 rows, u64 pair)
{
	u64 had;

#pragma clang loop unroll(disable)
	for (u32 i = 0; i < rows; i++) {
		had = __sync_val_compare_and_swap(&pairs[i], 0, pair + 1);
		if (!had || had == pair + 1) {
			*row = i + 1;
			return i + 1;
		}
	}
	*row = ROW_NONE;
	return ROW_NONE;
}

GLOBAL int request_row_take(u32 pair)
{
	return pair < REQUEST_PAIRS ? row_take(&control.request_row[pair], control.request_pairs,
					       REQUEST_ROWS, pair)
				    : ROW_NONE;
}

GLOBAL int error_row_take(u32 pair)
{
	return pair < ERROR_PAIRS
		       ? row_take(&control.error_row[pair], control.error_pairs, ERROR_ROWS, pair)
		       : ROW_NONE;
}

static __always_inline void request_row_count(struct slot *s, u32 method, u32 code)
{
	u32 pair = method * HTTP_CODES + code, row;

	if (pair >= REQUEST_PAIRS)
		return;
	row = control.request_row[pair];
	if (!row)
		row = request_row_take(pair);
	row--;
	if (row < REQUEST_ROWS)
		s->cells.requests[row]++;
	else
		lost(LOST_ROWS);
}

static __always_inline void error_row_count(struct slot *s, u32 id, u32 error)
{
	u32 pair = id * ERRNOS + error, row;

	if (pair >= ERROR_PAIRS)
		return;
	row = control.error_row[pair];
	if (!row)
		row = error_row_take(pair);
	row--;
	if (row < ERROR_ROWS)
		s->cells.syscall_errors[row]++;
	else
		lost(LOST_ROWS);
}
