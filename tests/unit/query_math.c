/* SPDX-License-Identifier: Apache-2.0 */
/* Expected values are worked out by hand from Prometheus's documented rules. */
#include "outlet/query_math.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define QUERY_LOOKBACK_MS  300000u
#define EXACT              1e-9
#define near(is, want, by) assert_true(fabs((is) - (want)) <= (by))

static void an_instant_looks_back(void **state)
{
	static const struct point p[] = {{1000, 1, false, false},
					 {2000, 2, false, false},
					 {3000, 0, true, false},
					 {4000, 4, false, false}};
	double v = -1;

	(void)state;
	assert_false(query_at(p, 4, 999, QUERY_LOOKBACK_MS, &v));
	assert_true(query_at(p, 4, 1000, QUERY_LOOKBACK_MS, &v));
	near(v, 1, EXACT);
	assert_true(query_at(p, 4, 2999, QUERY_LOOKBACK_MS, &v));
	near(v, 2, EXACT);
	assert_false(query_at(p, 4, 3500, QUERY_LOOKBACK_MS, &v)); /* absent is no value */
	assert_true(query_at(p, 4, 4000 + QUERY_LOOKBACK_MS, QUERY_LOOKBACK_MS, &v));
	near(v, 4, EXACT);
	assert_false(query_at(p, 4, 4001 + QUERY_LOOKBACK_MS, QUERY_LOOKBACK_MS, &v));
	assert_false(query_at(p, 0, 4000, QUERY_LOOKBACK_MS, &v));
}

static void increases(void **state)
{
	static const struct point even[] = {{60000, 100, false, false},
					    {75000, 130, false, false},
					    {90000, 160, false, false},
					    {105000, 190, false, false}};
	static const struct point restart[] = {{60000, 100, false, false},
					       {75000, 130, false, false},
					       {90000, 20, false, false},
					       {105000, 50, false, false}};
	static const struct point young[] = {{62000, 1, false, false}, {72000, 21, false, false}};
	static const struct point gone[] = {
		{60000, 100, false, false}, {70000, 0, true, false}, {75000, 130, false, false}};
	double v = -1;

	(void)state;
	/* 90 in 45 s, and 15 s to the end that are within 1.1 steps: 90 * 60 / 45. */
	assert_true(query_increase(even, 4, 120000, 60000, &v));
	near(v, 120, EXACT);
	/* 100 s from the last point: half a step only. 90 * 52.5 / 45. */
	assert_true(query_increase(even, 4, 205000, 145000, &v));
	near(v, 105, EXACT);
	/* 30 + 20 + 30 in 45 s of 60. */
	assert_true(query_increase(restart, 4, 120000, 60000, &v));
	near(v, 80 * 60 / 45.0, EXACT);
	/* It was 0 half a second before its first point: 20 * (10 + 0.5 + 3) / 10. */
	assert_true(query_increase(young, 2, 75000, 15000, &v));
	near(v, 27, EXACT);
	/* What is absent in between counts on. */
	assert_true(query_increase(gone, 3, 75000, 15000, &v));
	near(v, 30, EXACT);
	v = -1;
	assert_false(query_increase(even, 4, 74000, 60000, &v)); /* one point */
	assert_false(query_increase(even, 4, 50000, 60000, &v));
	assert_false(query_increase(even, 0, 120000, 60000, &v));
	near(v, -1, 0); /* untouched */
}

/* From the definition, point by point. */
static bool increase_of(const struct point *p, size_t n, uint64_t from_ms, uint64_t to_ms,
			double *ret)
{
	const struct point *last = NULL;
	size_t count = 0;

	*ret = 0;
	for (size_t i = 0; i < n; i++) {
		if (p[i].is_absent || p[i].time_ms < from_ms || p[i].time_ms > to_ms)
			continue;
		if (last)
			*ret += p[i].value < last->value ? p[i].value : p[i].value - last->value;
		last = &p[i];
		count++;
	}
	return count > 1;
}

/* A window that goes along says what one that is made anew says, to the bit. */
static void windows_that_move(void **state)
{
	static const uint64_t ranges[] = {1000, 7000, 60000}, steps[] = {300, 5000, 90000};
	static struct point p[500];
	unsigned int known = 0;

	(void)state;
	srand(7);
	for (size_t i = 0; i < 500; i++) {
		p[i].time_ms = 1000 * i + 20000 + (uint64_t)rand() % 900;
		p[i].is_absent = rand() % 10 == 0;
		p[i].value = i && rand() % 25 ? p[i - 1].value + rand() % 100 / 7.0 : 0.1;
	}
	for (size_t k = 0; k < 9; k++) {
		uint64_t range = ranges[k / 3];
		struct query_window w;

		query_window_init(&w, p, 500, range);
		for (uint64_t at = 500; at < 600000; at += steps[k % 3]) {
			uint64_t from = at > range ? at - range : 0;
			double moved = 0, anew = 0, increase;
			bool is_there = query_window_increase(&w, at, &moved);

			assert_int_equal(is_there, query_increase(p, 500, at, range, &anew));
			assert_memory_equal(&moved, &anew, sizeof(anew));
			assert_int_equal(is_there, increase_of(p, 500, from, at, &increase));
			if (!is_there)
				continue;
			known++;
			/* Extrapolated, by as much as the window is longer than its points. */
			assert_true(moved >= increase - 1e-6 && moved <= 3 * increase + 1e-6);
			near(w.points[w.last].value - w.points[w.first].value +
				     (w.falls ? w.fallen : 0),
			     increase, 1e-6);
		}
	}
	assert_true(known > 1000);
}

static void quantiles(void **state)
{
	struct query_bucket b[] = {{INFINITY, 100}, {0.1, 50}, {0.5, 90}, {0.2, 80}};
	struct query_bucket falling[] = {{1, 10}, {2, 9}, {3, 12}, {INFINITY, 12}};
	struct query_bucket empty[] = {{1, 0}, {INFINITY, 0}};
	struct query_bucket open[] = {{1, 5}, {2, 10}};

	(void)state;
	near(query_quantile(0.5, b, 4), 0.1, EXACT);
	near(query_quantile(0.65, b, 4), 0.15, EXACT);
	near(query_quantile(0.25, b, 4), 0.05, EXACT);
	near(query_quantile(0.99, b, 4), 0.5, EXACT); /* the highest that is known */
	near(query_quantile(0.9, falling, 4), 2.4, EXACT);
	assert_true(isnan(query_quantile(0.5, empty, 2)));
	assert_true(isnan(query_quantile(0.5, open, 2)));
	assert_true(isnan(query_quantile(0.5, b, 1)));
	assert_true(isnan(query_quantile(NAN, b, 4)));
	assert_true(query_quantile(1.1, b, 4) == INFINITY);
	assert_true(query_quantile(-0.1, b, 4) == -INFINITY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_instant_looks_back),
		cmocka_unit_test(increases),
		cmocka_unit_test(windows_that_move),
		cmocka_unit_test(quantiles),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
