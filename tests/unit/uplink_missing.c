/* SPDX-License-Identifier: Apache-2.0 */
/* When frames whose definitions are missing are given up: after rounds in vain, not before. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bus/uplink_missing.h"

static const uint8_t names[6][FRAME_INCARNATION_BYTES] = {"a", "b", "c", "d", "e", "f"};

static unsigned int note(struct uplink_missing *m, int name, uint64_t first, uint64_t last)
{
	uint64_t sequences[64];
	size_t n = 0;

	for (uint64_t s = first; s <= last; s++)
		sequences[n++] = s;
	return uplink_missing_note(m, names[name], sequences, n);
}

static void rounds_of_the_same(void **state)
{
	struct uplink_missing m = {0};

	(void)state;
	assert_int_equal(note(&m, 0, 5, 9), 1);
	assert_int_equal(note(&m, 0, 5, 9), 2);
	assert_int_equal(note(&m, 0, 9, 20), 3); /* one of them is enough */
	assert_true(uplink_missing_covers(&m, names[0], 9));
	assert_false(uplink_missing_covers(&m, names[0], 10)); /* for the first time only now */
	assert_int_equal(note(&m, 0, 10, 20), 1);
	assert_true(uplink_missing_covers(&m, names[0], 20));
	assert_false(uplink_missing_covers(&m, names[0], 5));
}

/* What killed frames before: forgotten definitions three times, each time other frames. */
static void others_count_apart(void **state)
{
	struct uplink_missing m = {0};

	(void)state;
	for (uint64_t i = 0; i < 50; i++)
		assert_int_equal(note(&m, 0, i * 10, i * 10 + 9), 1);
	assert_int_equal(note(&m, 1, 490, 499), 1); /* of another incarnation */
	assert_int_equal(note(&m, 0, 490, 499), 2);
	assert_int_equal(note(&m, 1, 490, 499), 2);
}

static void taken_is_not_unknown(void **state)
{
	struct uplink_missing m = {0};

	(void)state;
	note(&m, 0, 5, 9);
	note(&m, 0, 5, 9);
	uplink_missing_taken(&m, names[0], 4);
	uplink_missing_taken(&m, names[1], 7);
	assert_int_equal(note(&m, 0, 5, 9), 3);
	uplink_missing_taken(&m, names[0], 7);
	assert_int_equal(note(&m, 0, 5, 9), 1);
	uplink_missing_forget(&m, names[0]);
	assert_int_equal(note(&m, 0, 5, 9), 1);
}

static void first_round_widens(void **state)
{
	struct uplink_missing m = {0};
	const uint64_t more[] = {2, 30};

	(void)state;
	uplink_missing_widen(&m, names[0], more, 2); /* of none: nothing */
	assert_false(uplink_missing_covers(&m, names[0], 2));
	note(&m, 0, 5, 9);
	uplink_missing_widen(&m, names[0], more, 2);
	assert_true(uplink_missing_covers(&m, names[0], 2));
	assert_true(uplink_missing_covers(&m, names[0], 30));
	assert_int_equal(note(&m, 0, 5, 9), 2);
	uplink_missing_widen(&m, names[0], (const uint64_t[]){31}, 1);
	assert_false(uplink_missing_covers(&m, names[0], 31));
}

static void the_oldest_makes_room(void **state)
{
	struct uplink_missing m = {0};

	(void)state;
	for (int i = 0; i < 4; i++)
		note(&m, i, 1, 2);
	note(&m, 0, 1, 2);
	assert_int_equal(note(&m, 4, 1, 2), 1); /* in place of 1 */
	assert_int_equal(note(&m, 0, 1, 2), 3);
	assert_int_equal(note(&m, 1, 1, 2), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rounds_of_the_same),    cmocka_unit_test(others_count_apart),
		cmocka_unit_test(taken_is_not_unknown),  cmocka_unit_test(first_round_widens),
		cmocka_unit_test(the_oldest_makes_room),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
