/* SPDX-License-Identifier: Apache-2.0 */
#include "outlet/query_math.h"

#include <math.h>
#include <stdlib.h>

#define MINUTE_MS 60000u

/* Points up to and with time_ms. */
static size_t count_until(const struct point *points, size_t n, uint64_t time_ms)
{
	size_t low = 0, high = n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (points[middle].time_ms <= time_ms)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

bool query_at(const struct point *points, size_t n, uint64_t time_ms, uint64_t lookback_ms,
	      double *ret)
{
	const struct point *p;

	n = count_until(points, n, time_ms);
	if (!n)
		return false;
	p = &points[n - 1];
	lookback_ms += p->is_minute ? MINUTE_MS : 0;
	if (p->is_absent || time_ms - p->time_ms > lookback_ms)
		return false;
	*ret = p->value;
	return true;
}

struct window {
	const struct point *first, *last;
	size_t count;
	double increase;
};

static void window_read(const struct point *points, size_t n, uint64_t start_ms, uint64_t end_ms,
			struct window *ret)
{
	*ret = (struct window){0};
	for (size_t i = start_ms ? count_until(points, n, start_ms - 1) : 0; i < n; i++) {
		const struct point *p = &points[i];

		if (p->time_ms > end_ms)
			break;
		if (p->is_absent)
			continue;
		if (!ret->first)
			ret->first = p;
		else
			ret->increase += p->value < ret->last->value ? p->value
								     : p->value - ret->last->value;
		ret->last = p;
		ret->count++;
	}
}

bool query_increase(const struct point *points, size_t n, uint64_t end_ms, uint64_t range_ms,
		    double *ret)
{
	uint64_t start_ms = end_ms > range_ms ? end_ms - range_ms : 0;
	double before, after, span, step, whole;
	struct window w;

	window_read(points, n, start_ms, end_ms, &w);
	if (w.count < 2 || w.last->time_ms == w.first->time_ms)
		return false;
	before = (double)(w.first->time_ms - start_ms);
	after = (double)(end_ms - w.last->time_ms);
	whole = span = (double)(w.last->time_ms - w.first->time_ms);
	step = span / (double)(w.count - 1);
	/* At this pace it would have been 0 then: it cannot have begun earlier. */
	if (w.increase > 0 && w.first->value >= 0 && span * w.first->value / w.increase < before)
		before = span * w.first->value / w.increase;
	whole += before < step * 1.1 ? before : step / 2;
	whole += after < step * 1.1 ? after : step / 2;
	*ret = w.increase * whole / span;
	return true;
}

static int compare(const void *a, const void *b)
{
	const struct query_bucket *x = a, *y = b;

	return (x->le > y->le) - (x->le < y->le);
}

double query_quantile(double q, struct query_bucket *buckets, size_t n)
{
	double rank, low, count;
	size_t b = 0;

	if (isnan(q) || n < 2)
		return NAN;
	if (q < 0)
		return -INFINITY;
	if (q > 1)
		return INFINITY;
	qsort(buckets, n, sizeof(*buckets), compare);
	if (buckets[n - 1].le < INFINITY)
		return NAN;
	/* Rates of buckets scraped at different times may fall: a rounding, not a value. */
	for (size_t i = 1; i < n; i++)
		if (buckets[i].count < buckets[i - 1].count)
			buckets[i].count = buckets[i - 1].count;
	if (!(buckets[n - 1].count > 0))
		return NAN;
	rank = q * buckets[n - 1].count;
	while (b < n - 1 && buckets[b].count < rank)
		b++;
	if (b == n - 1)
		return buckets[n - 2].le;
	if (b == 0 && buckets[0].le <= 0)
		return buckets[0].le;
	low = b ? buckets[b - 1].le : 0;
	count = buckets[b].count - (b ? buckets[b - 1].count : 0);
	rank -= b ? buckets[b - 1].count : 0;
	return low + (buckets[b].le - low) * (rank / count);
}
