/* SPDX-License-Identifier: Apache-2.0 */
/* Names of upstreams: what a gateway may connect to, and that two never share a name. */
#include "probe/probe.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

static char name[PROBE_UPSTREAM_BYTES];

static const char *inet_name(int family, const char *ip, uint16_t port)
{
	struct upstream_address a = {.family = (uint16_t)family, .port = htons(port)};

	assert_int_equal(inet_pton(family, ip, a.bytes), 1);
	probe_upstream_name(&a, name);
	return name;
}

static const char *unix_name(const char *bytes, size_t n)
{
	struct upstream_address a = {.family = AF_UNIX};

	memcpy(a.bytes, bytes, n);
	probe_upstream_name(&a, name);
	return name;
}

static void test_inet(void **state)
{
	(void)state;
	assert_string_equal(inet_name(AF_INET, "10.0.0.1", 8080), "10.0.0.1:8080");
	assert_string_equal(inet_name(AF_INET, "255.255.255.255", 65535), "255.255.255.255:65535");
	assert_string_equal(inet_name(AF_INET6, "::1", 80), "[::1]:80");
	assert_string_equal(inet_name(AF_INET6, "2001:db8::a", 443), "[2001:db8::a]:443");
}

static void test_unix(void **state)
{
	char longest[108];

	(void)state;
	assert_string_equal(unix_name("/run/app.sock", 13), "unix:/run/app.sock");
	assert_string_equal(unix_name("\0app", 4), "unix:@app");
	/* A path may begin with what marks a name without one. */
	assert_string_equal(unix_name("@app", 4), "unix:%40app");
	assert_string_equal(unix_name("a b%\"\\\n\xff", 8), "unix:a%20b%25%22%5C%0A%FF");
	assert_string_equal(unix_name("\0a\0b", 4), "unix:@a%00b");
	memset(longest, '\n', sizeof(longest));
	assert_int_equal(strlen(unix_name(longest, sizeof(longest))), 5 + 3 * 108);
}

static void test_other(void **state)
{
	struct upstream_address a = {.gateway = 3};

	(void)state;
	probe_upstream_name(&a, name);
	assert_string_equal(name, "other");
	assert_string_equal(probe_upstream_error_name(UPSTREAM_REFUSED), "refused");
	assert_string_equal(probe_upstream_error_name(UPSTREAM_CLOSED), "closed");
	assert_string_equal(probe_upstream_error_name(UPSTREAM_ERRORS), "other");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_inet),
		cmocka_unit_test(test_unix),
		cmocka_unit_test(test_other),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("upstreams", tests, NULL, NULL);
}
