/* SPDX-License-Identifier: Apache-2.0 */
/* The set of sequences against a plain array of flags. */
#include "fleet/sequence.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N 400

static void compare(const struct sequence_set *set, const bool *flags)
{
	uint64_t highest = 0, missing = 0;

	for (uint64_t i = 1; i <= N; i++) {
		assert_int_equal(sequence_has(set, i), flags[i]);
		if (flags[i])
			highest = i;
	}
	for (uint64_t i = 1; i < highest; i++)
		missing += !flags[i];
	assert_int_equal(sequence_highest(set), highest);
	assert_int_equal(sequence_missing(set), missing);
	for (uint32_t i = 0; i < set->count; i++) {
		assert_true(set->ranges[i].first <= set->ranges[i].last);
		assert_true(set->ranges[i].first >
			    (i ? set->ranges[i - 1].last : set->watermark) + 1);
	}
}

static void test_against_flags(void **state)
{
	(void)state;
	srand(11);
	for (unsigned int round = 0; round < 200; round++) {
		struct sequence_set set = {0};
		bool flags[N + 1] = {false};

		for (unsigned int i = 0; i < 600; i++) {
			uint64_t s = (uint64_t)rand() % N + 1;

			assert_int_equal(sequence_add(&set, s), !flags[s]);
			flags[s] = true;
			if (i % 97 == 0) {
				uint64_t upto = (uint64_t)rand() % (N / 4), missing = 0;

				for (uint64_t k = 1; k <= upto; k++) {
					missing += !flags[k];
					flags[k] = true;
				}
				assert_int_equal(sequence_settle(&set, upto), missing);
			}
			if (i % 20 == 0)
				compare(&set, flags);
		}
		compare(&set, flags);
		sequence_fini(&set);
	}
}

static void test_limits(void **state)
{
	struct sequence_set set = {0};

	(void)state;
	assert_int_equal(sequence_add(&set, 0), -EINVAL);
	assert_int_equal(sequence_add(&set, UINT64_MAX), -EINVAL);
	for (uint64_t i = 0; i < SEQUENCE_RANGES_MAX; i++)
		assert_int_equal(sequence_add(&set, 10 + 2 * i), 1);
	assert_int_equal(sequence_add(&set, 100000), -ENOSPC);
	assert_int_equal(sequence_add(&set, 11), 1);
	assert_int_equal(set.count, SEQUENCE_RANGES_MAX - 1);
	sequence_fini(&set);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_against_flags),
		cmocka_unit_test(test_limits),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
