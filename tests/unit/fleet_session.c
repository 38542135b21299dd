/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions: found while they live, never after, and never taken for those of another state. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fleet/ingest.h"
#include "fleet/snapshot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AGENTS 3001u

static const struct fleet_limits limits = {
	.agents = 4 * AGENTS, .agent_series = 16, .series = 100000};

static struct fleet *fleet_of(uint64_t life)
{
	struct fleet *f;

	assert_int_equal(fleet_new(&limits, &f), 0);
	fleet_set_life(f, life);
	return f;
}

static uint32_t hello(struct fleet *f, unsigned int agent, unsigned int life, uint64_t now_ms)
{
	uint8_t incarnation[FRAME_INCARNATION_BYTES] = {0};
	const struct fleet_hello h = {.incarnation = incarnation, .labels = {"", "", "", ""}};
	struct fleet_hello named = h;
	uint32_t session = 0;
	char id[16];

	snprintf(id, sizeof(id), "agent-%u", agent);
	named.agent = id;
	memcpy(incarnation, &agent, sizeof(agent));
	memcpy(incarnation + 8, &life, sizeof(life));
	assert_int_equal(fleet_say_hello(f, &named, 0, now_ms, &session, NULL), 0);
	assert_true(session);
	return session;
}

static bool is_of(const struct fleet *f, uint32_t session, unsigned int agent)
{
	const char *name = fleet_session_agent(f, session);
	char id[16];

	snprintf(id, sizeof(id), "agent-%u", agent);
	return name && strcmp(name, id) == 0;
}

static void another_state_knows_none(void **state)
{
	struct fleet *a = fleet_of(0x1111), *b = fleet_of(0x2222), *same = fleet_of(0x1111);
	unsigned int equal = 0;

	(void)state;
	for (unsigned int i = 0; i < AGENTS; i++)
		hello(b, i, 0, 1);
	for (unsigned int i = 0; i < AGENTS; i++) {
		uint32_t session = hello(a, i, 0, 1);

		assert_null(fleet_session_agent(b, session));
		equal += session == hello(same, i, 0, 1);
	}
	assert_int_equal(equal, AGENTS); /* nothing else that makes them differ */
	assert_null(fleet_session_agent(a, 0));
	fleet_free(a);
	fleet_free(b);
	fleet_free(same);
}

/* Those that depart leave holes among those that stay. */
static void the_living_are_found(void **state)
{
	static uint32_t sessions[AGENTS];
	struct fleet *f = fleet_of(0x3333);

	(void)state;
	for (unsigned int i = 0; i < AGENTS; i++)
		sessions[i] = hello(f, i, 0, 1000);
	for (unsigned int i = 0; i < AGENTS; i++)
		if (i % 3)
			assert_int_equal(hello(f, i, 0, 2000), sessions[i]);
	fleet_depart(f, 2000, 500); /* every third was silent */
	for (unsigned int i = 0; i < AGENTS; i++) {
		assert_int_equal(is_of(f, sessions[i], i), i % 3 != 0);
		if (i % 3 == 0)
			assert_null(fleet_session_agent(f, sessions[i]));
	}
	for (unsigned int i = 0; i < AGENTS; i += 3)
		sessions[i] = hello(f, i, 1, 2000); /* in another incarnation */
	for (unsigned int i = 0; i < AGENTS; i++)
		assert_true(is_of(f, sessions[i], i));
	fleet_free(f);
}

static int copy_record(void *data, uint32_t type, const void *payload, size_t size)
{
	return snapshot_load(data, type, payload, size);
}

static void a_snapshot_keeps_them(void **state)
{
	static uint32_t sessions[AGENTS];
	struct fleet *f = fleet_of(0x4444), *copy = fleet_of(0);

	(void)state;
	for (unsigned int i = 0; i < AGENTS; i++)
		sessions[i] = hello(f, i, 0, 1);
	assert_int_equal(snapshot_save(f, copy_record, copy), 0);
	assert_true(fleet_life(copy) == 0x4444);
	for (unsigned int i = 0; i < AGENTS; i++) {
		assert_true(is_of(copy, sessions[i], i));
		assert_int_equal(hello(copy, i, 0, 2), sessions[i]);
	}
	/* New ones are none of those. */
	for (unsigned int i = 0; i < AGENTS; i++)
		assert_true(is_of(copy, hello(copy, i, 1, 2), i));
	for (unsigned int i = 0; i < AGENTS; i++)
		assert_true(is_of(copy, sessions[i], i));
	fleet_free(f);
	fleet_free(copy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(another_state_knows_none),
		cmocka_unit_test(the_living_are_found),
		cmocka_unit_test(a_snapshot_keeps_them),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
