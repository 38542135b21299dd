/* SPDX-License-Identifier: Apache-2.0 */
/* Folded stacks: merging, limits, hostile input; the flame graph: escaping, the same bytes. */
#include "outlet/stacks.h"
#include "outlet/flame.h"

#include "base/cleanup.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

DEFINE_CLEANUP(struct stacks *, stacks_free)

static struct stacks *merged(const char *const *texts, size_t n)
{
	struct stacks *s;

	assert_int_equal(stacks_new(&s), 0);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(stacks_add(s, texts[i], strlen(texts[i])), 0);
	return s;
}

static struct stacks_stats stats_of(const struct stacks *s)
{
	struct stacks_stats stats;

	stacks_stats(s, &stats);
	return stats;
}

static void expect(const char *const *texts, size_t n, const char *want, uint64_t samples,
		   uint64_t refused)
{
	_cleanup_(stacks_free_p) struct stacks *s = merged(texts, n);
	_cleanup_(strbuf_fini) struct strbuf out;

	strbuf_init(&out, 1 << 20);
	assert_int_equal(stacks_print(s, &out), 0);
	assert_string_equal(out.data ? out.data : "", want);
	assert_int_equal(stats_of(s).samples, samples);
	assert_int_equal(stats_of(s).refused, refused);
}

#define EXPECT(want, samples, refused, ...)                                                      \
	expect((const char *const[]){__VA_ARGS__},                                               \
	       sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *), want, samples, \
	       refused)

static void test_files_are_merged(void **state)
{
	(void)state;
	EXPECT("a 7\na;b 5\na;b;c 2\nd 1\n", 15, 0, "a;b 2\na 7\nd 1\n", "a;b;c 2\na;b 3");
	EXPECT("a b;c d:12 4\n", 4, 0, "a b;c d:12 4\n");
	EXPECT("b;a 1\nb;a;a 2\n", 3, 0, "b;a;a 1\n", "b;a 1\nb;a;a 1\n");
	EXPECT("", 0, 0, "");
}

static void test_lines_that_are_no_stacks(void **state)
{
	(void)state;
	EXPECT("a 1\n", 1, 8, "a 1\n", "a\n", "1\n", " 1\n", "a x\n", "a 0\n", "a -1\n",
	       "a 1000000001\n\n\n", "a 99999999999999999999999\n");
}

static void test_bytes_that_are_no_text(void **state)
{
	(void)state;
	EXPECT("?[31m;?;\xc3\xa9;?? 1\n", 1, 0, "\x1b[31m;\x7f;\xc3\xa9;\xc3\xc3 1\n");
	EXPECT("?? 1\n", 1, 0, "\xc2\x9b 1\n");      /* C1: a terminal would obey */
	EXPECT("??? 1\n", 1, 0, "\xef\xbf\xbe 1\n"); /* no character of XML */
	EXPECT("\xef\xbf\xbd 1\n", 1, 0, "\xef\xbf\xbd 1\n");
	EXPECT("?;a;?;? 1\n", 1, 0, ";a;; 1\n");
}

static void test_depth_has_a_limit(void **state)
{
	_cleanup_(stacks_free_p) struct stacks *s = NULL;
	_cleanup_(strbuf_fini) struct strbuf in;

	(void)state;
	strbuf_init(&in, 1 << 20);
	for (int i = 0; i < 10000; i++)
		strbuf_puts(&in, i ? ";f" : "f");
	strbuf_puts(&in, " 13\n");
	assert_int_equal(stacks_new(&s), 0);
	assert_int_equal(stacks_add(s, in.data, in.len), 0);
	assert_int_equal(stats_of(s).samples, 13);
	assert_int_equal(stats_of(s).shortened, 13);
	assert_int_equal(stats_of(s).depth, STACKS_DEPTH);
	assert_int_equal(stats_of(s).frames, STACKS_DEPTH);
}

static bool sum_own(void *data, const struct stacks_frame *f)
{
	*(uint64_t *)data += f->own;
	return true;
}

static void test_number_of_frames_has_a_limit(void **state)
{
	_cleanup_(stacks_free_p) struct stacks *s = NULL;
	const unsigned int n = STACKS_FRAMES + 1000;
	uint64_t own = 0;
	char line[64];

	(void)state;
	assert_int_equal(stacks_new(&s), 0);
	for (unsigned int i = 0; i < n; i++) {
		int size = snprintf(line, sizeof(line), "a;%x 3\n", i);

		assert_int_equal(stacks_add(s, line, (size_t)size), 0);
	}
	assert_int_equal(stats_of(s).samples, 3ull * n);
	assert_true(stats_of(s).frames < STACKS_FRAMES);
	assert_true(stats_of(s).frames > STACKS_FRAMES - 100);
	assert_int_equal(stats_of(s).shortened, 3ull * (n + 1 - stats_of(s).frames));
	assert_int_equal(stacks_walk(s, sum_own, &own), 0);
	assert_int_equal(own, 3ull * n);
}

static void test_a_long_name_is_cut_between_characters(void **state)
{
	_cleanup_(stacks_free_p) struct stacks *s = NULL;
	_cleanup_(strbuf_fini) struct strbuf in, out;

	(void)state;
	strbuf_init(&in, 1 << 20);
	strbuf_init(&out, 1 << 20);
	for (int i = 0; i < 1000; i++)
		strbuf_puts(&in, "\xe2\x82\xac");
	strbuf_puts(&in, " 1\n");
	assert_int_equal(stacks_new(&s), 0);
	assert_int_equal(stacks_add(s, in.data, in.len), 0);
	assert_int_equal(stacks_print(s, &out), 0);
	assert_int_equal(out.len, (STACKS_NAME - 1) / 3 * 3 + 3);
}

static void test_full_output_is_an_error(void **state)
{
	const char *texts[] = {"abc;def 1\nghi 2\n"};
	_cleanup_(stacks_free_p) struct stacks *s = merged(texts, 1);
	_cleanup_(strbuf_fini) struct strbuf out;

	(void)state;
	strbuf_init(&out, 12);
	assert_int_equal(stacks_print(s, &out), -E2BIG);
	strbuf_reset(&out);
	assert_int_equal(flame_print(s, "t", &out), -E2BIG);
}

static unsigned int count_of(const char *text, const char *part)
{
	unsigned int n = 0;

	for (const char *at = text; (at = strstr(at, part)); at += strlen(part))
		n++;
	return n;
}

static void test_graph_escapes_and_repeats(void **state)
{
	const char *texts[] = {"main;</title><script>alert(1)</script> 3\nmain;\"&'a]]> 1\n"};
	_cleanup_(stacks_free_p) struct stacks *s = merged(texts, 1);
	_cleanup_(strbuf_fini) struct strbuf out, again;

	(void)state;
	strbuf_init(&out, FLAME_BYTES);
	strbuf_init(&again, FLAME_BYTES);
	assert_int_equal(flame_print(s, "profile of <b>&\"edge\"", &out), 0);
	assert_int_equal(flame_print(s, "profile of <b>&\"edge\"", &again), 0);
	assert_string_equal(out.data, again.data);
	assert_non_null(strstr(out.data, "profile of &lt;b&gt;&amp;&quot;edge&quot;"));
	assert_non_null(strstr(out.data,
			       "&lt;/title&gt;&lt;script&gt;alert(1)&lt;/script&gt; (3 samples, "
			       "75.00 %)"));
	assert_non_null(strstr(out.data, "&quot;&amp;'a]]&gt; (1 samples, 25.00 %)"));
	assert_int_equal(count_of(out.data, "<script>"), 1);
	assert_int_equal(count_of(out.data, "]]>"), 1);
	assert_int_equal(count_of(out.data, "<g class=\"f\""), 4); /* all, main, two leaves */
	assert_null(strstr(out.data, "href"));
}

static void test_graph_of_nothing(void **state)
{
	_cleanup_(stacks_free_p) struct stacks *s = merged(NULL, 0);
	_cleanup_(strbuf_fini) struct strbuf out;

	(void)state;
	strbuf_init(&out, FLAME_BYTES);
	assert_int_equal(flame_print(s, "t", &out), 0);
	assert_non_null(strstr(out.data, "No samples."));
	assert_int_equal(count_of(out.data, "<g class"), 0);
}

/* Beside each other at their caller's left edge; what is narrower than a hair is left out. */
static void test_graph_places(void **state)
{
	const char *texts[] = {"a;b 100000\na;c 100000\nd 200000\nz;z 1\n"};
	_cleanup_(stacks_free_p) struct stacks *s = merged(texts, 1);
	_cleanup_(strbuf_fini) struct strbuf out;

	(void)state;
	strbuf_init(&out, FLAME_BYTES);
	assert_int_equal(flame_print(s, "t", &out), 0);
	assert_non_null(strstr(out.data, "data-x=\"0\" data-w=\"400001\" data-d=\"0\""));
	assert_non_null(strstr(out.data, "data-x=\"0\" data-w=\"200000\" data-d=\"1\"><title>a "));
	assert_non_null(
		strstr(out.data, "data-x=\"100000\" data-w=\"100000\" data-d=\"2\"><title>c "));
	assert_non_null(
		strstr(out.data, "data-x=\"200000\" data-w=\"200000\" data-d=\"1\"><title>d "));
	assert_null(strstr(out.data, "<title>z"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_files_are_merged),
		cmocka_unit_test(test_lines_that_are_no_stacks),
		cmocka_unit_test(test_bytes_that_are_no_text),
		cmocka_unit_test(test_depth_has_a_limit),
		cmocka_unit_test(test_number_of_frames_has_a_limit),
		cmocka_unit_test(test_a_long_name_is_cut_between_characters),
		cmocka_unit_test(test_full_output_is_an_error),
		cmocka_unit_test(test_graph_escapes_and_repeats),
		cmocka_unit_test(test_graph_of_nothing),
		cmocka_unit_test(test_graph_places),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
