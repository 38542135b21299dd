/* SPDX-License-Identifier: Apache-2.0 */
/* One system call in how many is timed, by what that costs. */
#include "probe/sample.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void budget_holds(void **state)
{
	(void)state;
	/* 250,000 calls of 150 ns more in a second of CPU: 3.75 %. */
	assert_int_equal(sample_wanted(250000, 150, NS_PER_S, 1), 1);
	assert_int_equal(sample_wanted(250000, 150, NS_PER_S, 0.0375), 1);
	assert_int_equal(sample_wanted(250000, 150, NS_PER_S, 0.0374), 2);
	assert_int_equal(sample_wanted(250000, 150, NS_PER_S, 0.01), 4);
	assert_int_equal(sample_wanted(250000, 150, NS_PER_S, 0.005), 8);
	for (uint64_t calls = 1; calls < 100000000; calls *= 3) {
		uint32_t n = sample_wanted(calls, 150, NS_PER_S, 0.005);
		double ratio = (double)calls * 150 / n / (double)NS_PER_S;

		assert_true(n == SAMPLE_MOST || ratio <= 0.005);
		assert_true(n == 1 || ratio > 0.0025 || n == SAMPLE_MOST);
	}
}

static void absurd_numbers(void **state)
{
	(void)state;
	assert_int_equal(sample_wanted(0, 150, 0, 0.005), 1);
	assert_int_equal(sample_wanted(1, 150, 0, 0.005), SAMPLE_MOST);
	assert_int_equal(sample_wanted(UINT64_MAX, UINT64_MAX, 1, 0.005), SAMPLE_MOST);
	assert_int_equal(sample_wanted(1000, 0, NS_PER_S, 0.005), 1);
}

static void up_at_once_down_by_halves(void **state)
{
	struct sample s = {.every = SAMPLE_START};

	(void)state;
	sample_next(&s, 256);
	assert_int_equal(s.every, 256);
	for (unsigned int i = 1; i < SAMPLE_CALM; i++) {
		sample_next(&s, 1);
		assert_int_equal(s.every, 256);
	}
	sample_next(&s, 1);
	assert_int_equal(s.every, 128);
	for (unsigned int i = 0; i < 7 * SAMPLE_CALM; i++)
		sample_next(&s, 1);
	assert_int_equal(s.every, 1);
	sample_next(&s, 1);
	assert_int_equal(s.every, 1);
}

/* A load that comes and goes faster than it is believed to be gone. */
static void no_flapping(void **state)
{
	struct sample s = {.every = 8};
	unsigned int changes = 0;

	(void)state;
	for (unsigned int i = 0; i < 1000; i++) {
		uint32_t before = s.every;

		sample_next(&s, i % SAMPLE_CALM ? 4 : 8);
		changes += s.every != before;
	}
	assert_int_equal(changes, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(budget_holds),
		cmocka_unit_test(absurd_numbers),
		cmocka_unit_test(up_at_once_down_by_halves),
		cmocka_unit_test(no_flapping),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
