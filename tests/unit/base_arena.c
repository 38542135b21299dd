/* SPDX-License-Identifier: Apache-2.0 */
/* base/arena: aligned pieces, a counted refusal when it is full, all back at reset. */
#include "base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void pieces_are_aligned_and_apart(void **state)
{
	struct arena a;
	unsigned char *p[4];

	(void)state;
	assert_int_equal(arena_init(&a, 256), 0);
	for (size_t i = 0; i < 4; i++) {
		p[i] = arena_alloc(&a, i + 1);
		assert_non_null(p[i]);
		assert_int_equal((uintptr_t)p[i] % 16, 0);
		memset(p[i], (int)i, i + 1);
	}
	for (size_t i = 0; i < 4; i++)
		for (size_t j = 0; j <= i; j++)
			assert_int_equal(p[i][j], i);
	arena_fini(&a);
}

static void full_refuses_and_counts(void **state)
{
	struct arena a;
	void *first;

	(void)state;
	assert_int_equal(arena_init(&a, 64), 0);
	assert_null(arena_alloc(&a, 65));
	assert_int_equal(a.refused, 1);
	first = arena_alloc(&a, 64);
	assert_non_null(first);
	assert_null(arena_alloc(&a, 1));
	assert_null(arena_alloc(&a, SIZE_MAX)); /* rounding it up would wrap around */
	assert_null(arena_alloc(&a, SIZE_MAX - 8));
	assert_int_equal(a.refused, 4);
	arena_reset(&a);
	assert_ptr_equal(arena_alloc(&a, 64), first);
	assert_int_equal(a.refused, 4);
	arena_fini(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pieces_are_aligned_and_apart),
		cmocka_unit_test(full_refuses_and_counts),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("arena", tests, NULL, NULL);
}
