/* SPDX-License-Identifier: Apache-2.0 */
/* What functions of the query language calculate, with Prometheus's rules (as of 2.42), so that a
 * dashboard shows the same over both. Pure. "No value" is false, never 0 or NaN. */
#pragma once

#include "base/point.h"

#include <stddef.h>

/* Points are ordered by time. A value holds for lookback_ms, that of a minute for a minute more. */
bool query_at(const struct point *points, size_t n, uint64_t time_ms, uint64_t lookback_ms,
	      double *ret);
/* Increase of a counter within [end - range, end]: falls are restarts from 0; extrapolated to the
 * ends of the range, at most by half a step beyond what the points tell, and not below 0. Needs two
 * points. rate() is this by the seconds of the range. */
bool query_increase(const struct point *points, size_t n, uint64_t end_ms, uint64_t range_ms,
		    double *ret);

/* The same, of one series at times that ascend: the window goes along, so that all of them cost
 * about as much as the points. Borrows the points. */
struct query_window {
	const struct point *points;
	size_t n;
	uint64_t range_ms;
	size_t end;         /* points before it were looked at */
	size_t first, last; /* of those in the window that have a value */
	size_t count;       /* of them */
	size_t falls;       /* between them */
	double fallen;      /* what the counter had come to before each */
	bool is_summed;     /* fallen is that of this window */
};

void query_window_init(struct query_window *w, const struct point *points, size_t n,
		       uint64_t range_ms);
bool query_window_increase(struct query_window *w, uint64_t end_ms, double *ret);

struct query_bucket {
	double le, count; /* cumulative */
};

/* NAN without observations, or without the bucket of infinity. Sorts the buckets. */
double query_quantile(double q, struct query_bucket *buckets, size_t n);
