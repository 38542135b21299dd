/* SPDX-License-Identifier: Apache-2.0 */
/* base/log: one line a message whatever is in it, whole JSON even when cut, repeats limited. */
#include "base/log.h"

#include "base/clock.h"

#include <fcntl.h>
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char said[8192];
static int pipe_fds[2], saved;

/* Standard error goes through a pipe, which holds far more than one line. */
static void listen_begin(void)
{
	assert_int_equal(pipe2(pipe_fds, O_NONBLOCK), 0);
	saved = dup(STDERR_FILENO);
	dup2(pipe_fds[1], STDERR_FILENO);
}

static const char *listen_end(void)
{
	ssize_t n = read(pipe_fds[0], said, sizeof(said) - 1);

	dup2(saved, STDERR_FILENO);
	close(saved);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	said[n > 0 ? n : 0] = '\0';
	return said;
}

static size_t lines(const char *s)
{
	size_t n = 0;

	for (; *s; s++)
		n += *s == '\n';
	return n;
}

static json_t *parsed(const char *line)
{
	json_error_t error;
	json_t *json = json_loads(line, JSON_REJECT_DUPLICATES, &error);

	if (!json)
		print_error("%s: %s\n", error.text, line);
	assert_non_null(json);
	return json;
}

static const char *value(json_t *json, const char *key)
{
	return json_string_value(json_object_get(json, key));
}

static void text_has_level_module_message_fields(void **state)
{
	(void)state;
	log_setup(LOG_INFO, LOG_FORMAT_TEXT);
	listen_begin();
	log_info("drain", "lease taken", "deadline_s=%d gateway=%s", 30, "nginx");
	assert_string_equal(listen_end(), "info drain lease taken deadline_s=30 gateway=nginx\n");
	listen_begin();
	log_warning("drain", "nothing to say", "%s", "");
	assert_string_equal(listen_end(), "warning drain nothing to say\n");
}

static void less_than_the_least_level_is_silent(void **state)
{
	(void)state;
	log_setup(LOG_WARNING, LOG_FORMAT_TEXT);
	listen_begin();
	log_debug("a", "b", "c=%d", 1);
	log_info("a", "b", "c=%d", 1);
	assert_string_equal(listen_end(), "");
	listen_begin();
	log_error("a", "b", "c=%d", 1);
	assert_string_equal(listen_end(), "error a b c=1\n");
}

static void hostile_value_stays_in_its_line(void **state)
{
	(void)state;
	log_setup(LOG_INFO, LOG_FORMAT_TEXT);
	listen_begin();
	log_info("http", "request", "path=\"%s\"", "/\r\nerror fake line\x1b[2J\x7f");
	assert_int_equal(lines(listen_end()), 1);
	assert_null(strchr(said, '\x1b'));
	assert_null(strchr(said, '\x7f'));
}

static void long_line_is_cut_and_ended(void **state)
{
	char text[6000];

	(void)state;
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	log_setup(LOG_INFO, LOG_FORMAT_TEXT);
	listen_begin();
	log_info("a", text, "b=%s", text);
	assert_int_equal(lines(listen_end()), 1);
	assert_true(strlen(said) <= 2048);
}

static void json_holds_the_pairs(void **state)
{
	json_t *json;

	(void)state;
	log_setup(LOG_INFO, LOG_FORMAT_JSON);
	log_set_process("keeper");
	listen_begin();
	log_info("probe", "attached \"it\"", "n=%d why=\"two words\" last=%s", 3, "x");
	json = parsed(listen_end());
	assert_string_equal(value(json, "level"), "info");
	assert_string_equal(value(json, "process"), "keeper");
	assert_string_equal(value(json, "module"), "probe");
	assert_string_equal(value(json, "message"), "attached \"it\"");
	assert_string_equal(value(json, "n"), "3");
	assert_string_equal(value(json, "why"), "two words");
	assert_string_equal(value(json, "last"), "x");
	assert_int_equal(strlen(value(json, "time")), strlen("2026-01-01T00:00:00.000Z"));
	json_decref(json);
}

static void json_survives_quotes_control_bytes_and_bad_utf8(void **state)
{
	static const char *const bad[] = {"a\"b",
					  "\"",
					  "\\",
					  "\n\t\x01\x7f",
					  "\xff\xfe",
					  "\xc3",
					  "\xed\xa0\x80",
					  "\xf4\x90\x80\x80",
					  "\xc0\xaf",
					  "ä€𝄞",
					  "a\" b",
					  "=",
					  "\xe2\x82",
					  "",
					  " ",
					  "\xe0\x80\x80"};

	(void)state;
	log_setup(LOG_INFO, LOG_FORMAT_JSON);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		json_t *json;

		listen_begin();
		log_info("http", bad[i], "path=\"%s\" code=200", bad[i]);
		json = parsed(listen_end());
		assert_int_equal(lines(said), 1);
		assert_string_equal(value(json, "code"), "200");
		json_decref(json);
	}
	listen_begin();
	log_info("http", "request", "path=\"%s\"", "ä€𝄞");
	assert_non_null(strstr(listen_end(), "\"path\":\"ä€𝄞\""));
}

static void cut_json_is_whole(void **state)
{
	static const char *const fills[] = {"x", "\"", "\x01", "ä", "a=b ", "\" a=\"", "\xff"};
	char text[4000];
	json_error_t error;
	json_t *json;

	(void)state;
	log_setup(LOG_INFO, LOG_FORMAT_JSON);
	for (size_t i = 0; i < sizeof(fills) / sizeof(*fills); i++) {
		for (size_t size = 1200; size < 2300; size += 7) {
			size_t n = strlen(fills[i]), len = 0;

			for (; len + n < size; len += n)
				memcpy(text + len, fills[i], n);
			text[len] = '\0';
			listen_begin();
			log_info("a", size % 2 ? text : "m", "b=\"%s\"", text);
			json = json_loads(listen_end(), 0, &error);
			if (!json)
				print_error("%s: %s\n", error.text, said);
			assert_non_null(json);
			assert_int_equal(lines(said), 1);
			json_decref(json);
		}
	}
}

static void repeats_are_limited_and_counted(void **state)
{
	struct log_limit limit = {.interval_ns = NS_PER_S};
	uint64_t swallowed = 99;

	(void)state;
	assert_true(log_allowed(&limit, 0, &swallowed));
	assert_int_equal(swallowed, 0);
	swallowed = 99;
	assert_false(log_allowed(&limit, NS_PER_S / 2, &swallowed));
	assert_false(log_allowed(&limit, NS_PER_S - 1, &swallowed));
	assert_int_equal(swallowed, 99);
	assert_true(log_allowed(&limit, NS_PER_S + 1, &swallowed));
	assert_int_equal(swallowed, 2);
	assert_false(log_allowed(&limit, NS_PER_S + 2, &swallowed));
	assert_true(log_allowed(&limit, 3 * NS_PER_S, &swallowed));
	assert_int_equal(swallowed, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text_has_level_module_message_fields),
		cmocka_unit_test(less_than_the_least_level_is_silent),
		cmocka_unit_test(hostile_value_stays_in_its_line),
		cmocka_unit_test(long_line_is_cut_and_ended),
		cmocka_unit_test(json_holds_the_pairs),
		cmocka_unit_test(json_survives_quotes_control_bytes_and_bad_utf8),
		cmocka_unit_test(cut_json_is_whole),
		cmocka_unit_test(repeats_are_limited_and_counted),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
