/* SPDX-License-Identifier: Apache-2.0 */
/* Who waits for a handshake and who gives way, what is counted, and what the door tells of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "bus/turnstile.h"
#include "cmd/door_page.h"
#include "cmd/door_refusals.h"

#include <stdio.h>
#include <string.h>

struct guest {
	struct turnstile_place place;
	struct turnstile *turnstile;
	unsigned int evicted;
};

static void evict(struct turnstile_place *place)
{
	struct guest *g = (struct guest *)(void *)place;

	g->evicted++;
	turnstile_leave(g->turnstile, place);
}

static void guest_enter(struct guest *g, struct turnstile *t, uint64_t now_ns)
{
	*g = (struct guest){.place = {.evict = evict}, .turnstile = t};
	turnstile_enter(t, &g->place, now_ns);
}

static void oldest_gives_way(void **state)
{
	const uint64_t silent = TURNSTILE_SILENT_NS, spoken = TURNSTILE_SPOKEN_NS;
	struct turnstile t = {.half_most = 3};
	struct guest g[4];

	(void)state;
	for (unsigned int i = 0; i < 3; i++) {
		assert_true(turnstile_has_room(&t, 100 + i));
		guest_enter(&g[i], &t, 100 + i);
	}
	turnstile_heard(&t, &g[0].place, 110);
	turnstile_heard(&t, &g[0].place, 111 + silent);
	/* Nobody had his time yet: the next one waits, and nobody is hurt. */
	assert_false(turnstile_has_room(&t, 100 + silent));
	assert_int_equal(g[1].evicted, 0);
	/* Who spoke has more time than who did not. */
	assert_true(turnstile_has_room(&t, 101 + silent));
	assert_int_equal(g[1].evicted, 1);
	assert_int_equal(t.half, 2);
	guest_enter(&g[3], &t, 101 + silent);
	/* One of them is done; twice is once. */
	turnstile_leave(&t, &g[2].place);
	turnstile_leave(&t, &g[2].place);
	assert_int_equal(t.half, 2);
	guest_enter(&g[1], &t, 102 + silent);
	turnstile_heard(&t, &g[3].place, 103 + silent);
	turnstile_heard(&t, &g[1].place, 104 + silent);
	/* All spoke: the first to speak goes, at last. */
	assert_false(turnstile_has_room(&t, 109 + spoken));
	assert_true(turnstile_has_room(&t, 110 + spoken));
	assert_int_equal(g[0].evicted, 1);
	assert_int_equal(g[3].evicted, 0);
	turnstile_leave(&t, &g[1].place);
	turnstile_leave(&t, &g[3].place);
	assert_int_equal(t.half, 0);
	assert_null(t.silent.oldest);
	assert_null(t.silent.newest);
	assert_null(t.spoken.oldest);
	assert_null(t.spoken.newest);
}

static enum turnstile_reason seen;
static char seen_why[128];

static void on_refused(void *data, enum turnstile_reason reason, const char *where,
		       const char *peer, const char *why)
{
	(void)data;
	assert_string_equal(where, "requests");
	assert_string_equal(peer, "192.0.2.1:7");
	seen = reason;
	snprintf(seen_why, sizeof(seen_why), "%s", why);
}

static void everything_is_counted(void **state)
{
	struct turnstile_counts shared = {0}, copy;
	struct turnstile t = {.counts = &shared, .on_refused = on_refused};

	(void)state;
	for (unsigned int reason = 0; reason < TURNSTILE_REASONS; reason++) {
		assert_non_null(turnstile_reason_names[reason]);
		assert_true(strlen(turnstile_reason_texts[reason]) > 5);
		for (unsigned int i = 0; i <= reason; i++)
			turnstile_refuse(&t, (enum turnstile_reason)reason, "requests",
					 "192.0.2.1:7", "");
		assert_int_equal(seen, reason);
		assert_string_equal(seen_why, turnstile_reason_texts[reason]);
	}
	turnstile_refuse(&t, TURNSTILE_TLS, "requests", "192.0.2.1:7", "it is HTTP");
	assert_string_equal(seen_why, "it is HTTP");
	turnstile_gone(&t);
	turnstile_accepted(&t);
	turnstile_secured(&t, false);
	turnstile_secured(&t, true);
	turnstile_secured(&t, true);
	turnstile_counts_read(&shared, &copy);
	assert_int_equal(copy.refused[TURNSTILE_TLS], 2);
	assert_int_equal(copy.refused[TURNSTILE_GONE], TURNSTILE_GONE + 2);
	for (unsigned int i = 1; i < TURNSTILE_GONE; i++)
		assert_int_equal(copy.refused[i], i + 1);
	assert_int_equal(copy.accepted, 1);
	assert_int_equal(copy.handshakes_full, 1);
	assert_int_equal(copy.handshakes_resumed, 2);
	/* A courier's own bus has none. */
	turnstile_refuse(NULL, TURNSTILE_TLS, "bus", "", "");
	turnstile_enter(NULL, NULL, 0);
	assert_true(turnstile_has_room(NULL, 0));
}

static void hosts_that_fail_are_shut_out(void **state)
{
	static struct turnstile t;
	struct guest half[3];
	uint64_t now = 1000 * NS_PER_S;
	char peer[64];

	(void)state;
	t = (struct turnstile){.half_most = 12};
	for (unsigned int i = 0; i < 3; i++)
		guest_enter(&half[i], &t, now);
	for (unsigned int i = 0; i < TURNSTILE_DEBT_MOST; i++) {
		assert_true(turnstile_is_free(&t, "192.0.2.1:99", now));
		turnstile_charge(&t, "192.0.2.1:7", now);
		turnstile_charge(&t, "[2001:db8:0:1::5]:7", now);
	}
	assert_false(turnstile_is_free(&t, "192.0.2.1:100", now));
	assert_true(turnstile_is_free(&t, "192.0.2.2:100", now));
	/* Of IPv6 a host has the half of an address for itself. */
	assert_false(turnstile_is_free(&t, "[2001:db8:0:1:ffff::9]:1", now));
	assert_true(turnstile_is_free(&t, "[2001:db8:0:2::5]:1", now));
	/* The same host, where one listener has both; its neighbours are others. */
	assert_false(turnstile_is_free(&t, "[::ffff:192.0.2.1]:100", now));
	assert_true(turnstile_is_free(&t, "[::ffff:192.0.2.2]:100", now));
	/* Where few are at it everybody comes in. */
	turnstile_leave(&t, &half[0].place);
	assert_true(turnstile_is_free(&t, "192.0.2.1:100", now));
	guest_enter(&half[0], &t, now);
	assert_false(turnstile_is_free(&t, "192.0.2.1:100", now));
	/* It comes down by itself, and does not grow beyond. */
	for (unsigned int i = 0; i < 100; i++)
		turnstile_charge(&t, "192.0.2.1:7", now);
	now += NS_PER_S / TURNSTILE_DEBT_A_S;
	assert_true(turnstile_is_free(&t, "192.0.2.1:100", now));
	turnstile_charge(&t, "192.0.2.1:7", now);
	assert_false(turnstile_is_free(&t, "192.0.2.1:100", now));
	/* Strangers from everywhere do not make it forget who owes most. */
	for (unsigned int i = 0; i < 20000; i++) {
		snprintf(peer, sizeof(peer), "10.%u.%u.1:5", i / 250, i % 250);
		turnstile_charge(&t, peer, now);
		assert_true(turnstile_is_free(&t, peer, now));
	}
	assert_false(turnstile_is_free(&t, "192.0.2.1:100", now));
	/* Over ipc, and what is no address, there are no hosts. */
	turnstile_charge(&t, "", now);
	turnstile_charge(&t, "[::zz]:1", now);
	turnstile_charge(NULL, "192.0.2.1:7", now);
	assert_true(turnstile_is_free(&t, "", now));
	assert_true(turnstile_is_free(NULL, "192.0.2.1:100", now));
}

/* Behind one address there are honest ones, too. */
static void hosts_that_came_in_are_not_charged(void **state)
{
	static struct turnstile t;
	uint64_t now = 1000 * NS_PER_S;
	struct guest half;
	char peer[64];

	(void)state;
	t = (struct turnstile){.half_most = 4};
	guest_enter(&half, &t, now);
	for (unsigned int i = 0; i < TURNSTILE_DEBT_MOST; i++)
		turnstile_charge(&t, "192.0.2.1:7", now);
	assert_false(turnstile_is_free(&t, "192.0.2.1:8", now));
	/* That others come in helps it not. */
	for (unsigned int i = 0; i < 20000; i++) {
		snprintf(peer, sizeof(peer), "10.%u.%u.1:5", i / 250, i % 250);
		turnstile_trust(&t, peer, now);
	}
	assert_false(turnstile_is_free(&t, "192.0.2.1:8", now));
	turnstile_trust(&t, "[::ffff:192.0.2.1]:9", now);
	assert_true(turnstile_is_free(&t, "192.0.2.1:8", now));
	now += TURNSTILE_TRUST_NS - 1;
	for (unsigned int i = 0; i <= TURNSTILE_DEBT_MOST; i++)
		turnstile_charge(&t, "192.0.2.1:7", now);
	assert_true(turnstile_is_free(&t, "192.0.2.1:8", now));
	now++;
	for (unsigned int i = 0; i < TURNSTILE_DEBT_MOST; i++)
		turnstile_charge(&t, "192.0.2.1:7", now);
	assert_false(turnstile_is_free(&t, "192.0.2.1:8", now));
	turnstile_trust(NULL, "192.0.2.1:7", now);
	turnstile_trust(&t, "", now);
}

static void page_is_series(void **state)
{
	struct door_page *page = door_page_new(), copy = {0};
	struct prometheus_series s = {0};
	size_t n;
	double sum = 0;

	(void)state;
	assert_non_null(page);
	for (unsigned int i = 0; i < TURNSTILE_REASONS; i++)
		page->counts.refused[i] = 1;
	page->counts.handshakes_resumed = 100;
	door_page_set(&page->clients, 1000);
	door_page_read(page, &copy);
	n = door_page_series(&copy);
	for (size_t i = 0; i < n; i++) {
		assert_true(door_page_get(&copy, i, &s));
		assert_true(strncmp(s.name, "tidegate_door_", 14) == 0);
		assert_string_not_equal(s.name, "tidegate_door_certificate_expires_seconds");
		sum += s.gauge;
	}
	assert_int_equal((int)sum, TURNSTILE_REASONS + 1100);
	door_page_set(&page->expires_s, 2000000000);
	door_page_read(page, &copy);
	assert_int_equal(door_page_series(&copy), n + 1);
	assert_true(door_page_get(&copy, n, &s));
	assert_string_equal(s.name, "tidegate_door_certificate_expires_seconds");
	assert_true(s.gauge == 2000000000.0);
}

static void each_is_told_once(void **state)
{
	static struct refusals r;
	uint64_t now = 5 * NS_PER_S, silent = 99;
	unsigned int lines = 0;
	char peer[64];

	(void)state;
	assert_true(refusals_allow(&r, TURNSTILE_TLS, "192.0.2.1:5000", now, &silent));
	assert_int_equal(silent, 0);
	/* Another port is the same stranger; another reason is news. */
	assert_false(refusals_allow(&r, TURNSTILE_TLS, "192.0.2.1:5001", now, &silent));
	assert_true(refusals_allow(&r, TURNSTILE_SIZE, "192.0.2.1:5002", now, &silent));
	assert_int_equal(silent, 1);
	assert_true(refusals_allow(&r, TURNSTILE_TLS, "[2001:db8::1]:1", now, &silent));
	assert_false(refusals_allow(&r, TURNSTILE_TLS, "[2001:db8::1]:2", now, &silent));
	assert_true(refusals_allow(&r, TURNSTILE_TLS, "[2001:db8::2]:2", now, &silent));
	assert_true(refusals_allow(&r, TURNSTILE_PROTOCOL, "", now, &silent));
	/* No more lines in this second, whoever it is. */
	assert_false(refusals_allow(&r, TURNSTILE_TLS, "198.51.100.1:1", now, &silent));
	now += NS_PER_S;
	assert_true(refusals_allow(&r, TURNSTILE_TLS, "198.51.100.1:1", now, &silent));
	assert_int_equal(silent, 1);
	now += REFUSALS_AGAIN_NS;
	assert_true(refusals_allow(&r, TURNSTILE_TLS, "192.0.2.1:9", now, &silent));
	/* From everywhere: a bounded number of lines, and none is forgotten. */
	now += NS_PER_S;
	for (unsigned int i = 0; i < 1000; i++) {
		snprintf(peer, sizeof(peer), "203.0.%u.%u:443", i / 250, i % 250);
		lines += refusals_allow(&r, TURNSTILE_TLS, peer, now, &silent);
	}
	assert_int_equal(lines, REFUSALS_LINES);
	now += NS_PER_S;
	assert_true(refusals_allow(&r, TURNSTILE_FULL, "192.0.2.9:1", now, &silent));
	assert_int_equal(silent, 1000 - REFUSALS_LINES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(oldest_gives_way),
		cmocka_unit_test(everything_is_counted),
		cmocka_unit_test(hosts_that_fail_are_shut_out),
		cmocka_unit_test(hosts_that_came_in_are_not_charged),
		cmocka_unit_test(page_is_series),
		cmocka_unit_test(each_is_told_once),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
