/* SPDX-License-Identifier: Apache-2.0 */
/* The threshold policy, row by row. */
#include "scale/threshold.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define S 1000000000ULL

static const struct scale_policy policy = {.name = "p",
					   .metric = "m",
					   .target = 0.7,
					   .tolerance = 0.1,
					   .min = 1,
					   .max = 100,
					   .stale_ns = 30 * S};

static void test_table(void **state)
{
	static const struct {
		enum scale_aggregation aggregation;
		double value;
		uint32_t replicas, reporting, expected, desired;
		int r;
		const char *reason;
	} rows[] = {
		{SCALE_MEAN, 0.7, 10, 10, 10, 10, 0, "within tolerance"},
		{SCALE_MEAN, 0.76, 10, 10, 10, 10, 0, "within tolerance"},
		{SCALE_MEAN, 0.64, 10, 10, 10, 10, 0, "within tolerance"},
		{SCALE_MEAN, 0.78, 10, 10, 10, 12, 0, "above target"},
		{SCALE_MEAN, 1.4, 10, 10, 10, 20, 0, "above target"},
		{SCALE_MEAN, 0.35, 10, 10, 10, 5, 0, "below target"},
		{SCALE_MEAN, 0.36, 10, 10, 10, 6, 0, "below target"},
		{SCALE_MEAN, 0, 10, 10, 10, 1, 0, "held at the minimum"},
		{SCALE_MEAN, 70, 10, 10, 10, 100, 0, "held at the maximum"},
		{SCALE_MEAN, 0.35, 10, 9, 10, 5, 0, "below target"},
		{SCALE_MEAN, 0.35, 10, 8, 10, 10, 0, "too few"},
		{SCALE_MEAN, 1.4, 10, 5, 10, 20, 0, "above target"},
		{SCALE_MEAN, 1.4, 10, 4, 10, 0, -ENODATA, "4 of 10"},
		{SCALE_MEAN, 0, 10, 0, 10, 0, -ENODATA, "unknown"},
		{SCALE_MEAN, NAN, 10, 10, 10, 0, -ENODATA, "unknown"},
		{SCALE_MEAN, -1, 10, 10, 10, 0, -ENODATA, "unknown"},
		{SCALE_SUM, 7, 10, 1, 1, 10, 0, "within tolerance"},
		{SCALE_SUM, 14, 10, 1, 1, 20, 0, "above target"},
		{SCALE_SUM, 14, 0, 1, 1, 20, 0, "above target"},
		{SCALE_SUM, 1e300, 10, 1, 1, 100, 0, "held at the maximum"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct scale_policy p = policy;
		struct scale_input in = {rows[i].value, 100 * S, rows[i].replicas,
					 rows[i].reporting, rows[i].expected};
		struct scale_decision d = {0};
		struct err e = {{0}};
		int r;

		p.aggregation = rows[i].aggregation;
		r = scale_threshold(&p, &in, 110 * S, &d, &e);
		assert_int_equal(r, rows[i].r);
		assert_non_null(strstr(r ? e.text : d.reason, rows[i].reason));
		assert_int_equal(d.desired, rows[i].desired);
		if (!r)
			assert_int_equal(d.age_ns, 10 * S);
	}
}

static void test_stale_is_an_error(void **state)
{
	struct scale_input in = {0.1, 100 * S, 10, 10, 10};
	struct scale_decision d;
	struct err e = {{0}};

	(void)state;
	assert_int_equal(scale_threshold(&policy, &in, 130 * S, &d, &e), 0);
	assert_int_equal(scale_threshold(&policy, &in, 131 * S, &d, &e), -ESTALE);
	/* A clock that stepped back makes nothing old. */
	assert_int_equal(scale_threshold(&policy, &in, 1 * S, &d, &e), 0);
	assert_int_equal(d.age_ns, 0);
}

static void test_bad_policies(void **state)
{
	struct scale_input in = {0.1, 0, 10, 10, 10};
	struct scale_decision d;
	struct scale_policy p;
	struct err e = {{0}};

	(void)state;
	p = policy, p.target = 0;
	assert_int_equal(scale_threshold(&p, &in, 0, &d, &e), -EINVAL);
	p = policy, p.target = NAN;
	assert_int_equal(scale_threshold(&p, &in, 0, &d, &e), -EINVAL);
	p = policy, p.tolerance = 1;
	assert_int_equal(scale_threshold(&p, &in, 0, &d, &e), -EINVAL);
	p = policy, p.min = 200;
	assert_int_equal(scale_threshold(&p, &in, 0, &d, &e), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_stale_is_an_error),
		cmocka_unit_test(test_bad_policies),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
