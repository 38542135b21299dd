/* SPDX-License-Identifier: Apache-2.0 */
#include "outlet/pattern.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void is(const char *text, const char *value, bool want)
{
	struct err e = {{0}};
	struct pattern *p = NULL;
	int r = pattern_new(text, &p, &e);

	if (r < 0 || pattern_matches(p, value) != want)
		print_message("# %s against \"%s\": %s\n", text, value, e.text);
	assert_int_equal(r, 0);
	assert_int_equal(pattern_matches(p, value), want);
	pattern_free(p);
}

static void refused(const char *text, int why, const char *says)
{
	struct err e = {{0}};
	struct pattern *p = NULL;
	int r = pattern_new(text, &p, &e);

	if (r != why || !strstr(e.text, says))
		print_message("# %s: %d %s\n", text, r, e.text);
	assert_int_equal(r, why);
	assert_null(p);
	assert_non_null(strstr(e.text, says));
}

static void whole_values(void **state)
{
	(void)state;
	is("abc", "abc", true);
	is("abc", "abcd", false);
	is("abc", "xabc", false);
	is("abc", "ab", false);
	is("", "", true);
	is("", "a", false);
	is("a|bc|", "a", true);
	is("a|bc|", "bc", true);
	is("a|bc|", "", true);
	is("a|bc|", "abc", false);
	is("a|b|c|d", "c", true);
	is("x(a|b)y", "xby", true);
	is("x(?:a|b)y", "xy", false);
}

static void repetition(void **state)
{
	(void)state;
	is("a*", "", true);
	is("a*", "aaa", true);
	is("a*", "aab", false);
	is("a+", "", false);
	is("a+", "aaa", true);
	is("a?b", "b", true);
	is("a?b", "ab", true);
	is("a?b", "aab", false);
	is("(ab|c)*d", "abcabd", true);
	is("(ab|c)*d", "abad", false);
	is("(a|b)+c", "ababc", true);
	is("tidegate_.+_total", "tidegate_requests_total", true);
	is("tidegate_.+_total", "tidegate__total", false);
	is("(a*)*", "aaa", true); /* a loop around nothing ends */
}

static void characters(void **state)
{
	(void)state;
	is("a.c", "abc", true);
	is("a.c", "a\nc", false);
	is("a.c",
	   "a\xc3\xa9"
	   "c",
	   true); /* one character, two bytes */
	is("a..c",
	   "a\xc3\xa9"
	   "c",
	   false);
	is("\xc3\xa9+", "\xc3\xa9\xc3\xa9", true);
	is("a.c",
	   "a\xff"
	   "c",
	   true); /* not UTF-8: a character by itself */
	is("\\.", ".", true);
	is("\\.", "a", false);
	is("\\d+", "012", true);
	is("\\d+", "01a", false);
	is("\\D\\W\\S", "a-b", true);
	is("\\w+\\s\\w", "aZ_9 b", true);
	is("[a-c]", "b", true);
	is("[a-c]", "d", false);
	is("[^a-c]", "d", true);
	is("[^a-c]", "\xc3\xa9", true);
	is("[a-c]", "\xc3\xa9", false);
	is("[]a]", "]", true);
	is("[a-]", "-", true);
	is("[\\d.]+", "1.2", true);
	is("5..", "503", true);
}

static void what_is_not_in_it(void **state)
{
	(void)state;
	refused("(a", -EINVAL, "( without )");
	refused("a)", -EINVAL, ") without (");
	refused("[a", -EINVAL, "[ without ]");
	refused("[", -EINVAL, "[ without ]");
	refused("[c-a]", -EINVAL, "falls");
	refused("[[:alpha:]]", -EINVAL, "[:");
	refused("[\xc3\xa9]", -EINVAL, "ASCII");
	refused("*a", -EINVAL, "after nothing");
	refused("a|*", -EINVAL, "after nothing");
	refused("a**", -EINVAL, "two operators");
	refused("a+?", -EINVAL, "two operators");
	refused("a{2}", -EINVAL, "a count");
	refused("^a$", -EINVAL, "whole value");
	refused("(?i)a", -EINVAL, "(?");
	refused("\\", -EINVAL, "escape");
	refused("\\q", -EINVAL, "escape");
	refused("[\\", -EINVAL, "escape");
}

static void limits(void **state)
{
	char text[PATTERN_TEXT_MAX + 2], value[20001];
	struct pattern *p;

	(void)state;
	memset(text, 'a', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	refused(text, -E2BIG, "512 bytes");
	text[PATTERN_TEXT_MAX] = '\0';
	refused(text, -E2BIG, "512 steps"); /* one is needed for the end */
	is(text + 1, text + 1, true);
	memset(text, '|', PATTERN_TEXT_MAX);
	refused(text, -E2BIG, "512 steps");
	memset(text, '(', PATTERN_DEPTH_MAX + 1);
	refused(text, -E2BIG, "16 brackets");

	/* What makes others count to 2^n: it returns at all. */
	memset(value, 'a', sizeof(value) - 1);
	value[sizeof(value) - 1] = '\0';
	assert_int_equal(pattern_new("((a?a?)*(a|a)*)*b", &p, NULL), 0);
	assert_false(pattern_matches(p, value));
	value[sizeof(value) - 2] = 'b';
	assert_true(pattern_matches(p, value));
	pattern_free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whole_values), cmocka_unit_test(repetition),
		cmocka_unit_test(characters),   cmocka_unit_test(what_is_not_in_it),
		cmocka_unit_test(limits),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
