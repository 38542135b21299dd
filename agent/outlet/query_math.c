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

void query_window_init(struct query_window *w, const struct point *points, size_t n,
		       uint64_t range_ms)
{
	*w = (struct query_window){.points = points, .n = n, .range_ms = range_ms};
}

static void window_enter(struct query_window *w, uint64_t start_ms, uint64_t end_ms)
{
	if (!w->count) {
		size_t from = start_ms ? count_until(w->points, w->n, start_ms - 1) : 0;

		w->end = from > w->end ? from : w->end;
	}
	for (; w->end < w->n && w->points[w->end].time_ms <= end_ms; w->end++) {
		const struct point *p = &w->points[w->end];

		if (p->is_absent)
			continue;
		if (!w->count) {
			w->first = w->end;
		} else if (p->value < w->points[w->last].value) {
			w->falls++;
			w->is_summed = false;
		}
		w->last = w->end;
		w->count++;
	}
}

static void window_leave(struct query_window *w, uint64_t start_ms)
{
	while (w->count && w->points[w->first].time_ms < start_ms) {
		double was = w->points[w->first].value;

		if (!--w->count)
			break;
		do
			w->first++;
		while (w->points[w->first].is_absent);
		if (w->points[w->first].value < was) {
			w->falls--;
			w->is_summed = false;
		}
	}
}

/* Added up anew where the falls in the window are others: subtracting those that left would leave
 * their rounding behind. */
static double window_fallen(struct query_window *w)
{
	double before = w->points[w->first].value;

	if (w->is_summed || !w->falls)
		return w->falls ? w->fallen : 0;
	w->fallen = 0;
	for (size_t i = w->first; i <= w->last; i++) {
		if (w->points[i].is_absent)
			continue;
		if (w->points[i].value < before)
			w->fallen += before;
		before = w->points[i].value;
	}
	w->is_summed = true;
	return w->fallen;
}

bool query_window_increase(struct query_window *w, uint64_t end_ms, double *ret)
{
	uint64_t start_ms = end_ms > w->range_ms ? end_ms - w->range_ms : 0;
	double before, after, span, step, whole, increase;
	const struct point *first, *last;

	window_enter(w, start_ms, end_ms);
	window_leave(w, start_ms);
	first = &w->points[w->first];
	last = &w->points[w->last];
	if (w->count < 2 || last->time_ms == first->time_ms)
		return false;
	increase = last->value - first->value + window_fallen(w);
	before = (double)(first->time_ms - start_ms);
	after = (double)(end_ms - last->time_ms);
	whole = span = (double)(last->time_ms - first->time_ms);
	step = span / (double)(w->count - 1);
	/* At this pace it would have been 0 then: it cannot have begun earlier. */
	if (increase > 0 && first->value >= 0 && span * first->value / increase < before)
		before = span * first->value / increase;
	whole += before < step * 1.1 ? before : step / 2;
	whole += after < step * 1.1 ? after : step / 2;
	*ret = increase * whole / span;
	return true;
}

bool query_increase(const struct point *points, size_t n, uint64_t end_ms, uint64_t range_ms,
		    double *ret)
{
	struct query_window w;

	query_window_init(&w, points, n, range_ms);
	return query_window_increase(&w, end_ms, ret);
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
