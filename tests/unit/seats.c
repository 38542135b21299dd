/* SPDX-License-Identifier: Apache-2.0 */
/* Who sits where, and hops that name nobody any more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bus/seats.h"

#include <stdbool.h>

static int a, b, c;

static void late_replies_find_nobody(void **state)
{
	struct seats s;
	uint32_t first, second, hop;

	(void)state;
	assert_int_equal(seats_init(&s, 2), 0);
	first = seats_take(&s, &a);
	second = seats_take(&s, &b);
	assert_int_equal(seats_take(&s, &c), SEATS_NONE);
	hop = seats_hop(&s, first);
	assert_int_equal(hop >> 31, 0);
	assert_ptr_equal(seats_find(&s, hop), &a);
	assert_ptr_equal(seats_find(&s, seats_hop(&s, second)), &b);
	seats_give_back(&s, first);
	assert_null(seats_find(&s, hop));
	assert_null(seats_at(&s, first));
	assert_int_equal(seats_take(&s, &c), first);
	assert_null(seats_find(&s, hop));
	assert_ptr_equal(seats_find(&s, seats_hop(&s, first)), &c);
	/* Never given, and with the bit that ends a backtrace. */
	assert_null(seats_find(&s, 2));
	assert_null(seats_find(&s, SEATS_MOST));
	assert_null(seats_find(&s, seats_hop(&s, first) | 0x80000000u));
	seats_fini(&s);
}

/* The count of a place comes round after 2,048 guests, and no earlier. */
static void each_guest_has_a_hop(void **state)
{
	struct seats s;
	uint32_t seat, old;

	(void)state;
	assert_int_equal(seats_init(&s, 1), 0);
	seat = seats_take(&s, &a);
	old = seats_hop(&s, seat);
	for (unsigned int i = 1; i < 2048; i++) {
		seats_give_back(&s, seat);
		assert_int_equal(seats_take(&s, &b), seat);
		assert_null(seats_find(&s, old));
		assert_int_equal(seats_hop(&s, seat) >> 31, 0);
	}
	seats_give_back(&s, seat);
	seats_take(&s, &b);
	assert_ptr_equal(seats_find(&s, old), &b);
	seats_fini(&s);
}

/* Of 16 processes all in one is chance once in 2^165. */
static void each_process_has_hops(void **state)
{
	struct seats s;
	uint32_t first = 0;
	bool differ = false;

	(void)state;
	for (unsigned int i = 0; i < 16; i++) {
		uint32_t hop;

		assert_int_equal(seats_init(&s, 1), 0);
		hop = seats_hop(&s, seats_take(&s, &a));
		assert_int_equal(hop >> 31, 0);
		if (!i)
			first = hop;
		differ |= hop != first;
		seats_fini(&s);
	}
	assert_true(differ);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(late_replies_find_nobody),
		cmocka_unit_test(each_guest_has_a_hop),
		cmocka_unit_test(each_process_has_hops),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
