/* SPDX-License-Identifier: Apache-2.0 */
/* A fold that dies after any number of its stores, any number of times, ends with exact sums. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static jmp_buf dead;
static long stores_left;

#define STORE(field, value)                                            \
	do {                                                           \
		if (stores_left-- == 0)                                \
			longjmp(dead, 1);                              \
		__atomic_store_n(&(field), (value), __ATOMIC_RELEASE); \
	} while (0)

#include "../../agent/segment/fold.c"

#define CELLS 7

/* The dead process's values by number of the addition, and the cell each goes to: two of them to
 * the same one, and one of nothing. */
static const uint64_t values[] = {3, 5, 0, 11, 13, 17, 19};
static const uint64_t targets[] = {0, 1, 2, 1, 4, 6, 0};
#define ADDITIONS (sizeof(values) / sizeof(values[0]))

static struct segment_header header;
static uint64_t cells[CELLS];

static void fold_all(uint64_t life)
{
	struct fold f;

	fold_begin(&f, &header, cells, life);
	for (uint64_t n = 0; n < ADDITIONS; n++)
		fold_add(&f, n, targets[n], values[n]);
	fold_end(&f);
}

/* Returns whether it came to the end. */
static int fold_until(long stores, uint64_t life)
{
	stores_left = stores;
	if (setjmp(dead))
		return 0;
	fold_all(life);
	return 1;
}

static void setup(void)
{
	header = (struct segment_header){.cells_used = CELLS};
	for (size_t i = 0; i < CELLS; i++)
		cells[i] = 100 * i;
}

static void check(uint64_t times)
{
	uint64_t want[CELLS];

	for (size_t i = 0; i < CELLS; i++)
		want[i] = 100 * i;
	for (size_t n = 0; n < ADDITIONS; n++)
		want[targets[n]] += times * values[n];
	for (size_t i = 0; i < CELLS; i++)
		assert_int_equal(cells[i], want[i]);
}

static void test_dies_anywhere(void **state)
{
	long most = 0;

	(void)state;
	for (long first = 0;; first++) {
		setup();
		if (fold_until(first, 77))
			break;
		most = first;
		/* fold_end had begun: all was counted, only the file is to be removed. */
		if (header.fold_life == 77) {
			assert_true(fold_until(-1, 77));
		} else if (first < 2) {
			assert_true(fold_until(-1, 77));
		}
		check(1);
	}
	assert_true(most > 20);
}

static void test_dies_twice(void **state)
{
	(void)state;
	for (long first = 2; first < 26; first++) {
		for (long second = 0; second < 26; second++) {
			setup();
			assert_false(fold_until(first, 77));
			if (!fold_until(second, 77) && header.fold_life == 77)
				assert_true(fold_until(-1, 77));
			check(1);
		}
	}
}

static void test_next_life_counts_too(void **state)
{
	(void)state;
	setup();
	assert_true(fold_until(-1, 77));
	assert_true(fold_until(-1, 78));
	check(2);
	assert_int_equal(header.fold_life, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dies_anywhere),
		cmocka_unit_test(test_dies_twice),
		cmocka_unit_test(test_next_life_counts_too),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
