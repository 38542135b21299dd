/* SPDX-License-Identifier: Apache-2.0 */
/* Folding an ended slot exactly once, whenever the keeper dies. Plain memory. */
#include "probe/set.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SLOTS 2

struct world {
	struct bank banks[2];
	struct slot slots[SLOTS];
	uint32_t active;
};

static struct world *w;

static int setup(void **state)
{
	(void)state;
	w = aligned_alloc(4096, sizeof(*w));
	if (!w)
		return -1;
	memset(w, 0, sizeof(*w));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	free(w);
	return 0;
}

static void live(unsigned int i, uint64_t reads, uint64_t pending)
{
	struct slot *s = &w->slots[i];

	s->state = SLOT_EXITED;
	s->tid = s->tgid = 100 + i;
	s->cells.syscalls[SYSCALL_read] = reads;
	s->cells.gc_cycles = reads * 3;
	s->in_flight.s = (uint64_t)-1000 * pending;
	s->in_flight.n = pending;
}

static uint64_t reads_total(void)
{
	uint64_t n = w->banks[w->active & 1].cells.syscalls[SYSCALL_read];

	for (unsigned int i = 0; i < SLOTS; i++)
		n += w->slots[i].cells.syscalls[SYSCALL_read];
	return n;
}

static bool fold(unsigned int i, unsigned int *steps)
{
	struct bank *const banks[2] = {&w->banks[0], &w->banks[1]};

	return retire_slot(banks, &w->active, &w->slots[i], i, steps);
}

static void test_whole(void **state)
{
	const struct bank *bank;

	(void)state;
	live(0, 7, 0);
	live(1, 11, 2);
	assert_true(fold(0, NULL));
	assert_true(fold(1, NULL));
	bank = &w->banks[w->active & 1];
	assert_int_equal(bank->cells.syscalls[SYSCALL_read], 18);
	assert_int_equal(bank->cells.gc_cycles, 54);
	assert_int_equal(bank->in_flight_n, 2);
	assert_int_equal(bank->in_flight_s, (uint64_t)-2000);
	assert_int_equal(w->slots[0].state, SLOT_FREE);
	assert_int_equal(w->slots[0].generation, 1);
	assert_int_equal(w->slots[0].cells.syscalls[SYSCALL_read], 0);
	assert_int_equal(w->slots[0].tid, 0);
}

/* Killed after every number of steps, once or twice, then run to the end. */
static void test_killed(void **state)
{
	unsigned int most = 0;

	(void)state;
	for (unsigned int first = 0; first < 2 * RETIRE_STEPS; first++) {
		for (unsigned int second = 0; second < 2 * RETIRE_STEPS; second++) {
			unsigned int a = first, b = second;

			memset(w, 0, sizeof(*w));
			live(1, 5, 1);
			assert_true(fold(1, NULL));
			live(0, 7, 1);
			if (fold(0, &a))
				most = first > most ? first : most;
			else if (w->slots[0].state == SLOT_EXITED && !fold(0, &b) &&
				 w->slots[0].state == SLOT_EXITED)
				assert_true(fold(0, NULL));
			/* A keeper that finds it folded but not freed only frees it. */
			if (w->slots[0].state == SLOT_EXITED)
				assert_true(fold(0, NULL));
			assert_int_equal(reads_total(), 12);
			assert_int_equal(w->banks[w->active & 1].in_flight_n, 2);
			/* the slot's next life counts as well */
			live(0, 100, 0);
			assert_true(fold(0, NULL));
			assert_int_equal(reads_total(), 112);
		}
	}
	assert_true(most >= RETIRE_STEPS - 1);
}

/* The same connection, applied again after a death at any point, is counted once. */
static void test_connection(void **state)
{
	struct slot *s = &w->slots[0];

	(void)state;
	live(0, 0, 3);
	s->cells.requests_lost = 4;
	retire_connection_begin(s, 42, 2, RETIRE_LOST, 5000);
	retire_connection_apply(s);
	retire_connection_apply(s);
	retire_connection_end(s);
	assert_int_equal(s->cells.requests_lost, 6);
	assert_int_equal(s->cells.closes, 1);
	assert_int_equal(s->in_flight.n, 1);
	assert_int_equal(s->in_flight.s, (uint64_t)-3000 + 10000);
	retire_connection_begin(s, 43, 1, RETIRE_UNCOUNTED, 6000);
	retire_connection_apply(s);
	retire_connection_end(s);
	assert_int_equal(s->cells.requests_lost, 6);
	assert_int_equal(s->in_flight.n, 0);
}

/* Whether it was the client who left, and what never counted: applied again, all counts once. */
static void test_kinds(void **state)
{
	static const struct {
		enum retire_as as;
		uint64_t lost, aborted, closes, n;
	} rows[] = {
		{RETIRE_UNCOUNTED, 0, 0, 1, (uint64_t)-2},
		{RETIRE_LOST, 2, 0, 1, (uint64_t)-2},
		{RETIRE_ABORTED, 0, 2, 1, (uint64_t)-2},
		{RETIRE_UPSTREAM, 0, 0, 0, 0},
	};
	struct slot *s = &w->slots[0];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		/* deaths: before it applied, in the middle, before it ended */
		for (unsigned int times = 1; times < 4; times++) {
			memset(w, 0, sizeof(*w));
			s->tgid = LEDGER_TGID;
			retire_connection_begin(s, 42, 2, rows[i].as, 7000);
			assert_int_equal(s->cells.closes, 0);
			for (unsigned int k = 0; k < times; k++) {
				assert_int_equal(s->intent.key, 42);
				retire_connection_apply(s);
			}
			retire_connection_end(s);
			assert_int_equal(s->intent.key, 0);
			assert_int_equal(s->cells.requests_lost, rows[i].lost);
			assert_int_equal(s->cells.requests_aborted, rows[i].aborted);
			assert_int_equal(s->cells.closes, rows[i].closes);
			assert_int_equal(s->in_flight.n, rows[i].n);
			assert_int_equal(s->in_flight.s, -rows[i].n * 7000);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_whole, setup, teardown),
		cmocka_unit_test_setup_teardown(test_killed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_connection, setup, teardown),
		cmocka_unit_test_setup_teardown(test_kinds, setup, teardown),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
