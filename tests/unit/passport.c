/* SPDX-License-Identifier: Apache-2.0 */
/* Which certificate speaks for which agent, and the way of that knowledge to the core. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/str.h"
#include "bus/passport.h"

#include <errno.h>
#include <string.h>

static struct passport named(void)
{
	struct passport p;

	passport_init(&p, PASSPORT_NAMED, "192.0.2.7:51544");
	return p;
}

static int dns(struct passport *p, const char *name)
{
	return passport_add_dns(p, name, strlen(name));
}

static int uri(struct passport *p, const char *name)
{
	return passport_add_uri(p, name, strlen(name));
}

static void covers(void **state)
{
	static const struct {
		const char *name, *id;
		bool is_covered;
	} rows[] = {
		{"team-a", "team-a", true},
		{"team-a", "team-a/pod-1", true},
		{"team-a", "team-a/x/y", true},
		{"team-a", "team-ab", false},
		{"team-a", "team-a-/x", false},
		{"team-a", "team-", false},
		{"team-a", "team-a/", false},
		{"team-a", "Team-a", false},
		{"team-a", "xteam-a", false},
		{"team-a", "", false},
		{"team-a/", "team-a", false},
		{"team-a/", "team-a/", false},
		{"team-a/", "team-a/pod-1", true},
		{"team-a/", "team-b/pod-1", false},
		{"team-a/x", "team-a/x", true},
		{"team-a/x", "team-a/xy", false},
		{"team-a/x", "team-a", false},
		{"", "anybody", true},
		{"", "any/body", true},
		{"a.example", "a.example", true},
		{"a.example", "axexample", false},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		if (passport_name_covers(rows[i].name, rows[i].id) != rows[i].is_covered)
			fail_msg("\"%s\" and \"%s\"", rows[i].name, rows[i].id);
}

static void names(void **state)
{
	struct passport p = named();

	(void)state;
	assert_false(passport_allows(&p, "team-a"));
	assert_false(passport_allows(&p, ""));
	assert_int_equal(dns(&p, "team-a"), 0);
	assert_int_equal(uri(&p, "tidegate://agent/team-b/"), 0);
	assert_true(passport_allows(&p, "team-a"));
	assert_true(passport_allows(&p, "team-a/1"));
	assert_true(passport_allows(&p, "team-b/1"));
	assert_false(passport_allows(&p, "team-b"));
	assert_false(passport_allows(&p, "team-c"));
	assert_int_equal(uri(&p, "tidegate://agent/"), 0);
	assert_true(passport_allows(&p, "team-c"));
}

/* Who may speak for an id may not say that it is an aggregator, nor the other way. */
static void aggregators(void **state)
{
	struct passport p = named(), q;
	const char *const only[] = {"east", "*east"};
	uint8_t bytes[PASSPORT_BYTES_MAX];

	(void)state;
	assert_int_equal(uri(&p, "tidegate://agent/east"), 0);
	assert_int_equal(dns(&p, "west"), 0);
	assert_false(passport_allows_sums(&p, "east"));
	p = named();
	assert_int_equal(uri(&p, "tidegate://aggregator/east"), 0);
	assert_false(passport_allows_sums(&p, "east"));
	assert_false(passport_allows(&p, "east"));
	assert_false(passport_allows(&p, "*east"));
	assert_false(passport_is_under(&p, only, 2));
	assert_int_equal(uri(&p, "tidegate://agent/"), 0);
	assert_true(passport_allows_sums(&p, "east"));
	assert_true(passport_allows_sums(&p, "east/1"));
	assert_false(passport_allows_sums(&p, "west"));
	assert_int_equal(passport_unpack(bytes, passport_pack(&p, bytes), &q),
			 (int)passport_pack(&p, bytes));
	assert_true(passport_allows_sums(&q, "east"));
	assert_false(passport_allows_sums(&q, "west"));
	assert_int_equal(uri(&q, "tidegate://aggregator/"), 0);
	assert_true(passport_allows_sums(&q, "west"));
	assert_int_equal(uri(&q, "tidegate://aggregator//"), -EINVAL);
	assert_int_equal(uri(&q, "tidegate://aggregator/*"), -EINVAL);
	assert_int_equal(uri(&q, "tidegate://aggregator"), -EINVAL);
	assert_int_equal(uri(&q, "tidegate://agent/*east"), -EINVAL);
	passport_init(&p, PASSPORT_LOCAL, "");
	assert_true(passport_allows_sums(&p, "east"));
}

static void useless_names(void **state)
{
	struct passport p = named();

	(void)state;
	assert_int_equal(dns(&p, ""), -EINVAL);
	assert_int_equal(dns(&p, "*"), -EINVAL);
	assert_int_equal(dns(&p, "*.example"), -EINVAL);
	assert_int_equal(dns(&p, "team-a/x"), -EINVAL);
	assert_int_equal(passport_add_dns(&p, "team-a\0x", 8), -EINVAL);
	assert_int_equal(dns(&p, "team-a\n"), -EINVAL);
	assert_int_equal(dns(&p, "t\xc3\xa4m"), -EINVAL);
	assert_int_equal(uri(&p, "https://agent/team-a"), -EINVAL);
	assert_int_equal(uri(&p, "tidegate://agent"), -EINVAL);
	assert_int_equal(uri(&p, "tidegate://agents/team-a"), -EINVAL);
	assert_int_equal(uri(&p, "TIDEGATE://agent/team-a"), -EINVAL);
	assert_int_equal(uri(&p, "tidegate://agent//"), -EINVAL);
	assert_int_equal(uri(&p, "tidegate://agent/team%2da"), -EINVAL);
	assert_int_equal(uri(&p, "tidegate://agent/team-a?x"), -EINVAL);
	assert_int_equal(p.size, 0);
	assert_false(passport_allows(&p, "team-a"));
}

static void local(void **state)
{
	struct passport p;
	const char *const only[] = {"ops"};

	(void)state;
	passport_init(&p, PASSPORT_LOCAL, "");
	assert_true(passport_allows(&p, "anybody"));
	assert_true(passport_is_under(&p, only, 1));
}

static void subscribers(void **state)
{
	struct passport p = named();
	const char *const only[] = {"ops", "dash/"};

	(void)state;
	assert_true(passport_is_under(&p, NULL, 0));
	assert_false(passport_is_under(&p, only, 2));
	dns(&p, "team-a");
	assert_false(passport_is_under(&p, only, 2));
	uri(&p, "tidegate://agent/dash/wall");
	assert_true(passport_is_under(&p, only, 2));
	p = named();
	/* Speaking for everybody is not being one of these. */
	uri(&p, "tidegate://agent/");
	assert_false(passport_is_under(&p, only, 2));
}

static void full(void **state)
{
	char name[256];
	struct passport p = named();
	unsigned int fit = 0;

	(void)state;
	memset(name, 'x', sizeof(name));
	while (passport_add_dns(&p, name, 101) == 0)
		fit++;
	assert_int_equal(fit, PASSPORT_NAMES_MAX / 102);
	assert_int_equal(passport_add_dns(&p, name, 101), -ENOBUFS);
	assert_int_equal(p.size, fit * 102);
}

static void travels(void **state)
{
	uint8_t bytes[PASSPORT_BYTES_MAX + 8];
	struct passport p = named(), q;
	size_t n;

	(void)state;
	dns(&p, "team-a");
	uri(&p, "tidegate://agent/team-b/");
	n = passport_pack(&p, bytes);
	memcpy(bytes + n, "payload", 8);
	assert_int_equal(passport_unpack(bytes, n + 8, &q), n);
	assert_string_equal(q.peer, "192.0.2.7:51544");
	assert_true(passport_allows(&q, "team-b/9"));
	assert_false(passport_allows(&q, "team-c"));
	for (size_t cut = 0; cut < n; cut++)
		assert_int_equal(passport_unpack(bytes, cut, &q), -EBADMSG);
	bytes[0] = 2;
	assert_int_equal(passport_unpack(bytes, n, &q), -EBADMSG);
	bytes[0] = PASSPORT_NAMED;
	bytes[n - 1] = 'x';
	assert_int_equal(passport_unpack(bytes, n, &q), -EBADMSG);
}

static void fills_exactly(void **state)
{
	uint8_t bytes[PASSPORT_BYTES_MAX];
	char name[PASSPORT_NAMES_MAX];
	struct passport p, q;

	(void)state;
	memset(name, 'x', sizeof(name));
	name[100] = '\0';
	passport_init(&p, PASSPORT_NAMED, name);
	assert_int_equal(strlen(p.peer), PASSPORT_PEER_MAX);
	name[100] = 'x';
	assert_int_equal(passport_add_dns(&p, name, PASSPORT_NAMES_MAX), -ENOBUFS);
	assert_int_equal(passport_add_dns(&p, name, PASSPORT_NAMES_MAX - 1), 0);
	assert_int_equal(passport_pack(&p, bytes), PASSPORT_BYTES_MAX);
	assert_int_equal(passport_unpack(bytes, sizeof(bytes), &q), PASSPORT_BYTES_MAX);
	assert_int_equal(q.size, PASSPORT_NAMES_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(covers),        cmocka_unit_test(names),
		cmocka_unit_test(aggregators),   cmocka_unit_test(useless_names),
		cmocka_unit_test(local),         cmocka_unit_test(subscribers),
		cmocka_unit_test(full),          cmocka_unit_test(travels),
		cmocka_unit_test(fills_exactly),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
