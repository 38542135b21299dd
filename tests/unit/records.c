/* SPDX-License-Identifier: Apache-2.0 */
/* What is read out of a slow request's record: bytes are hostile, queries may hold secrets. */
#include "probe/records.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define TRACE "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

static struct probe_slow slow;

static void read_record(unsigned int method, const char *line, const char *trace, bool is_query)
{
	struct record r = {.gateway = 3, .code = 404, .method = (uint8_t)method};
	size_t n = strlen(line);

	/* What lies behind the known bytes is of another request. */
	memset(r.path, '!', sizeof(r.path));
	memset(r.trace, '!', sizeof(r.trace));
	r.path_len = (uint8_t)(n < PATH_BYTES ? n : PATH_BYTES);
	memcpy(r.path, line, r.path_len);
	memcpy(r.trace, trace, strlen(trace) + 1 < TRACE_BYTES ? strlen(trace) + 1 : TRACE_BYTES);
	probe_slow_read(&r, is_query, &slow);
}

static void query_is_cut_unless_wanted(void **state)
{
	(void)state;
	read_record(HTTP_GET, "/a?token=x HTTP/1.1", "", false);
	assert_string_equal(slow.path, "/a");
	assert_false(slow.is_cut);
	read_record(HTTP_GET, "/a?token=x HTTP/1.1", "", true);
	assert_string_equal(slow.path, "/a?token=x");
	assert_int_equal(slow.code, 404);
	assert_int_equal(slow.gateway, 3);
}

static void path_ends_with_what_is_known(void **state)
{
	char line[300];

	(void)state;
	read_record(HTTP_GET, "/part", "", false);
	assert_string_equal(slow.path, "/part");
	assert_true(slow.is_cut);
	memset(line, '\xff', sizeof(line) - 1);
	line[sizeof(line) - 1] = '\0';
	read_record(HTTP_GET, line, "", false);
	assert_int_equal(strlen(slow.path), 3 * PATH_BYTES);
	assert_true(slow.is_cut);
	read_record(HTTP_GET, "", "", false);
	assert_string_equal(slow.path, "");
	assert_false(slow.is_cut);
}

static void bytes_are_printable(void **state)
{
	(void)state;
	read_record(HTTP_GET, "/\x1b[2J\x7f\xc3\x28\"\\\t HTTP/1.1", "", false);
	assert_string_equal(slow.path, "/%1B[2J%7F%C3(\"\\%09");
}

static void unknown_methods_name_themselves(void **state)
{
	(void)state;
	read_record(HTTP_OTHER | PENDING_HEALTH, "M-SEARCH /x HTTP/1.1", "", false);
	assert_string_equal(slow.method, "M-SEARCH");
	assert_string_equal(slow.path, "/x");
	assert_true(slow.is_health);
	read_record(HTTP_OTHER,
		    "b\xff"
		    "d /x HTTP/1.1",
		    "", false);
	assert_string_equal(slow.method, "_OTHER");
	assert_string_equal(slow.path, "/x");
	read_record(HTTP_OTHER, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "", false);
	assert_string_equal(slow.method, "_OTHER");
	assert_string_equal(slow.path, "");
	read_record(0x7f, "/x ", "", false);
	assert_string_equal(slow.method, "_OTHER");
}

static void traceparent_is_one_or_none(void **state)
{
	(void)state;
	read_record(HTTP_GET, "/ ", TRACE "\r\n", false);
	assert_string_equal(slow.traceparent, TRACE);
	read_record(HTTP_GET, "/ ", " \t" TRACE, false);
	assert_string_equal(slow.traceparent, TRACE);
	read_record(HTTP_GET, "/ ", "           " TRACE, false); /* beyond what was kept */
	assert_string_equal(slow.traceparent, "");
	read_record(HTTP_GET, "/ ", "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		    false);
	assert_string_equal(slow.traceparent, "");
	read_record(HTTP_GET, "/ ", "", false);
	assert_string_equal(slow.traceparent, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(query_is_cut_unless_wanted),
		cmocka_unit_test(path_ends_with_what_is_known),
		cmocka_unit_test(bytes_are_printable),
		cmocka_unit_test(unknown_methods_name_themselves),
		cmocka_unit_test(traceparent_is_one_or_none),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("records", tests, NULL, NULL);
}
