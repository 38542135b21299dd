/* SPDX-License-Identifier: Apache-2.0 */
/* Queries over series that are known: what comes out is what Prometheus's documentation says. */
#include "outlet/query_eval.h"
#include "outlet/query_json.h"

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define POINTS 13 /* a minute, every five seconds */

struct stored {
	const char *owner, *name;
	struct segment_label labels[4];
	size_t label_count;
	double first, step;
	unsigned int begins, ends; /* points [begins, ends) are there */
};

/* Counters that rise evenly from 100 s to 160 s; one whose owner began anew in the middle. */
static const struct stored series[] = {
	{"a", "up", {{"code", "200"}, {"instance", "a/1"}}, 2, 0, 10, 0, POINTS},
	{"a", "up", {{"code", "500"}, {"instance", "a/1"}}, 2, 0, 5, 0, POINTS},
	{"b", "up", {{"code", "200"}, {"instance", "b/1"}}, 2, 1000, 20, 0, 7},
	{"b", "up", {{"code", "200"}, {"instance", "b/1"}}, 2, 0, 20, 7, POINTS},
	{"a", "busy", {{"instance", "a/1"}}, 1, 3, 0, 0, POINTS},
	{"b", "busy", {{"instance", "b/1"}}, 1, 8, 0, 0, 5},
	{"a", "idle", {{"instance", "a/1"}}, 1, 5, 0, 0, POINTS},
	{"a", "d_bucket", {{"instance", "a/1"}, {"le", "0.1"}}, 2, 0, 5, 0, POINTS},
	{"a", "d_bucket", {{"instance", "a/1"}, {"le", "1"}}, 2, 0, 10, 0, POINTS},
	{"a", "d_bucket", {{"instance", "a/1"}, {"le", "+Inf"}}, 2, 0, 10, 0, POINTS},
	{"b", "d_bucket", {{"instance", "b/1"}, {"le", "0.1"}}, 2, 0, 0, 0, POINTS},
	{"b", "d_bucket", {{"instance", "b/1"}, {"le", "1"}}, 2, 0, 10, 0, POINTS},
	{"b", "d_bucket", {{"instance", "b/1"}, {"le", "+Inf"}}, 2, 0, 10, 0, POINTS},
};

static int select_series(void *data, const struct query_selection *what, query_series_fn fn,
			 void *fn_data, struct err *e)
{
	static const char *const owners[] = {"a", "b"};
	struct point points[POINTS];
	int r = 0;

	(void)data;
	(void)e;
	for (size_t o = 0; o < 2; o++) {
		for (size_t i = 0; i < sizeof(series) / sizeof(series[0]) && r >= 0; i++) {
			const struct stored *s = &series[i];
			struct query_series out = {.owner = s->owner,
						   .name = s->name,
						   .labels = s->labels,
						   .label_count = s->label_count,
						   .points = points};

			if (strcmp(s->owner, owners[o]) != 0 ||
			    !query_filter_name(what->filter, s->name) ||
			    !query_filter_labels(what->filter, s->labels, s->label_count))
				continue;
			for (unsigned int k = s->begins; k < s->ends; k++)
				points[out.point_count++] =
					(struct point){.time_ms = 100000 + k * 5000,
						       .value = s->first + s->step * k};
			r = fn(fn_data, &out);
		}
	}
	return r;
}

/* How often it is asked whether it is over, and from which question on it is. */
static unsigned int asked, patience = UINT_MAX;

static bool is_over(void *data)
{
	(void)data;
	return ++asked >= patience;
}

static const struct query_source source = {select_series, NULL, is_over};

/* The JSON of the answer, or the error. */
static const char *ask(const char *text, uint64_t start_ms, uint64_t end_ms, uint64_t step_ms)
{
	static char answer[8192];
	struct query_times times;
	struct err e = {{0}};
	struct query *query;
	struct strbuf out;
	struct matrix m;
	int r = query_parse(text, &query, &e);

	asked = 0;
	if (r < 0)
		return strcpy(answer, e.text);
	r = query_times_set(start_ms, end_ms, step_ms, 10000, &times, &e);
	if (r >= 0)
		r = query_eval(query_root(query), &times, &source, &m, &e);
	strbuf_init(&out, sizeof(answer) - 1);
	if (r >= 0) {
		const char *result;

		assert_int_equal(
			query_json_answer(&out, &m, query_root(query)->type, &times, step_ms != 0),
			0);
		matrix_fini(&m);
		result = strstr(out.data, "\"result\":");
		snprintf(answer, sizeof(answer), "%s", result + strlen("\"result\":"));
		answer[strlen(answer) - 3] = '\0'; /* }}\n */
	} else {
		snprintf(answer, sizeof(answer), "%s", e.text);
	}
	strbuf_fini(&out);
	query_free(query);
	return answer;
}

static void is(const char *text, const char *want)
{
	assert_string_equal(ask(text, 160000, 160000, 0), want);
}

static void instants(void **state)
{
	(void)state;
	is("1+1", "[160,\"2\"]");
	is("-(2-5)*4/3", "[160,\"4\"]");
	is("busy",
	   "[{\"metric\":{\"__name__\":\"busy\",\"instance\":\"a/1\"},\"value\":[160,\"3\"]}]");
	is("busy{instance=\"b/1\"}", "[]"); /* it ended 40 s ago */
	is("nothing", "[]");
	is("sum(busy)", "[{\"metric\":{},\"value\":[160,\"3\"]}]");
	is("-busy", "[{\"metric\":{\"instance\":\"a/1\"},\"value\":[160,\"-3\"]}]");
	is("busy * 2 + 1", "[{\"metric\":{\"instance\":\"a/1\"},\"value\":[160,\"7\"]}]");
	is("1 / busy{instance=~\"a.*\"} * 6",
	   "[{\"metric\":{\"instance\":\"a/1\"},\"value\":[160,\"2\"]}]");
	is("up{code!~\"2..\"} / up{code=\"500\"}",
	   "[{\"metric\":{\"code\":\"500\",\"instance\":\"a/1\"},\"value\":[160,\"1\"]}]");
}

static void rates(void **state)
{
	(void)state;
	is("rate(up{code=\"500\"}[1m])",
	   "[{\"metric\":{\"code\":\"500\",\"instance\":\"a/1\"},\"value\":[160,\"1\"]}]");
	is("increase(up{code=\"500\"}[1m])",
	   "[{\"metric\":{\"code\":\"500\",\"instance\":\"a/1\"},\"value\":[160,\"60\"]}]");
	is("sum by (code) (rate(up{instance=\"a/1\"}[30s]))",
	   "[{\"metric\":{\"code\":\"200\"},\"value\":[160,\"2\"]},\n"
	   "{\"metric\":{\"code\":\"500\"},\"value\":[160,\"1\"]}]");
	is("sum(rate(up{code=\"200\"}[30s]))", "[{\"metric\":{},\"value\":[160,\"6\"]}]");
	is("sum without (instance, code) (rate(up[30s]))",
	   "[{\"metric\":{},\"value\":[160,\"7\"]}]");
	is("count(rate(up[30s]))", "[{\"metric\":{},\"value\":[160,\"3\"]}]");
	is("avg(rate(up{instance=\"a/1\"}[30s]))", "[{\"metric\":{},\"value\":[160,\"1.5\"]}]");
	is("max(rate(up[30s])) - min(rate(up[30s]))", "[{\"metric\":{},\"value\":[160,\"3\"]}]");
	/* Both lives of b lie in the window, and their increases add up: 120 in 30 s and 100 in 25 s,
	 * each half a step longer where the window goes on. */
	is("increase(up{instance=\"b/1\"}[2m])",
	   "[{\"metric\":{\"code\":\"200\",\"instance\":\"b/1\"},\"value\":[160,\"250\"]}]");
}

static void quantiles(void **state)
{
	(void)state;
	/* Half of a's are in the first bucket. */
	is("histogram_quantile(0.5, rate(d_bucket{instance=\"a/1\"}[30s]))",
	   "[{\"metric\":{\"instance\":\"a/1\"},\"value\":[160,\"0.1\"]}]");
	is("histogram_quantile(0.25, rate(d_bucket[30s]))",
	   "[{\"metric\":{\"instance\":\"a/1\"},\"value\":[160,\"0.05\"]},\n"
	   "{\"metric\":{\"instance\":\"b/1\"},\"value\":[160,\"0.325\"]}]");
	/* Of both together a quarter is. */
	is("histogram_quantile(0.25, sum by (le) (rate(d_bucket[30s])))",
	   "[{\"metric\":{},\"value\":[160,\"0.1\"]}]");
	is("histogram_quantile(0.5, up)", "[]");
}

static void ranges(void **state)
{
	(void)state;
	assert_string_equal(ask("busy", 110000, 140000, 10000),
			    "[{\"metric\":{\"__name__\":\"busy\",\"instance\":\"a/1\"},\"values\":"
			    "[[110,\"3\"],[120,\"3\"],[130,\"3\"],[140,\"3\"]]},\n"
			    "{\"metric\":{\"__name__\":\"busy\",\"instance\":\"b/1\"},\"values\":"
			    "[[110,\"8\"],[120,\"8\"],[130,\"8\"]]}]");
	assert_string_equal(ask("count(busy)", 90000, 150000, 20000),
			    "[{\"metric\":{},\"values\":[[110,\"2\"],[130,\"2\"],[150,\"1\"]]}]");
	assert_string_equal(ask("2", 1500, 2500, 500),
			    "[{\"metric\":{},\"values\":[[1.500,\"2\"],[2,\"2\"],[2.500,\"2\"]]}]");
}

static void what_makes_no_sense(void **state)
{
	(void)state;
	is("rate({__name__=~\"idle|busy\"}[30s])",
	   "vector cannot contain metrics with the same labelset");
	is("up[5m]", "a range (name[5m]) is no answer; use rate or increase");
	is("busy + {__name__=~\"idle|busy\"}",
	   "found duplicate series for the match group: two series differ only in their names");
	assert_non_null(strstr(ask("up", 0, 11000000, 1000), "exceeded maximum resolution"));
	assert_non_null(strstr(ask("up", 5, 4, 1), "end timestamp"));
	assert_non_null(strstr(ask("up{code=~\"(\"}", 5, 5, 0), "pattern"));
}

static void time_is_bounded(void **state)
{
	(void)state;
	ask("sum(rate(up[20s]))", 100000, 160000, 1000);
	assert_in_range(asked, 4 * 2, 4 * 61);
	patience = 6;
	assert_string_equal(ask("rate(up[20s])", 100000, 160000, 1000),
			    "it takes too long; ask for less");
	assert_int_equal(asked, patience);
	assert_string_equal(ask("sum(up)", 100000, 160000, 1000),
			    "it takes too long; ask for less");
	assert_int_equal(asked, patience);
	patience = UINT_MAX;
}

static void memory_is_bounded(void **state)
{
	char number[16];
	struct segment_label label = {"n", number};
	struct matrix_series *s;
	struct matrix m;
	size_t used = MATRIX_BYTES_MAX - 10000;
	bool is_new;
	int r = 0;

	(void)state;
	matrix_init(&m, 100000);
	for (unsigned int i = 0; r >= 0 && i < 1000; i++) {
		sprintf(number, "%u", i);
		r = matrix_find(&m, &label, 1, &s, &is_new);
	}
	assert_int_equal(r, -E2BIG);
	assert_int_equal(m.count, MATRIX_VALUES_MAX / 100000);
	strcpy(number, "7");
	assert_int_equal(matrix_find(&m, &label, 1, &s, &is_new), 0);
	assert_false(is_new);
	matrix_fini(&m);
	/* Series of an instant have one value each: labels count, and all matrices of a query. */
	matrix_init(&m, 1);
	m.shared = &used;
	for (r = 0; r >= 0 && m.count < 100;) {
		sprintf(number, "%zu", m.count);
		r = matrix_find(&m, &label, 1, &s, &is_new);
	}
	assert_int_equal(r, -E2BIG);
	assert_in_range(m.count, 10, 30);
	assert_in_range(used, MATRIX_BYTES_MAX - 1000, MATRIX_BYTES_MAX);
	matrix_fini(&m);
	assert_int_equal(used, MATRIX_BYTES_MAX - 10000);
}

static void times(void **state)
{
	static const struct {
		const char *text;
		uint64_t want_ms;
	} good[] = {
		{"0", 0},
		{"1700000000", 1700000000000},
		{"1700000000.123", 1700000000123},
		{"1.7e9", 1700000000000},
		{"2023-11-14T22:13:20Z", 1700000000000},
		{"2023-11-14T22:13:20.5Z", 1700000000500},
		{"2023-11-15T00:13:20+02:00", 1700000000000},
	};
	static const char *const bad[] = {"",
					  "x",
					  "nan",
					  "0x10",
					  "-1",
					  "1e20",
					  "2023-11-14",
					  "2023-11-14T22:13:20",
					  "2023-13-14T22:13:20Z",
					  "2023-11-14T22:13:20+2",
					  "2023-11-14T22:13:20Zx"};

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		uint64_t ms = 1;

		assert_int_equal(query_time(good[i].text, &ms), 0);
		assert_int_equal(ms, good[i].want_ms);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		uint64_t ms;

		if (query_time(bad[i], &ms) != -EINVAL)
			fail_msg("\"%s\" was taken", bad[i]);
	}
}

static void texts(void **state)
{
	struct strbuf out;

	(void)state;
	strbuf_init(&out, 1000);
	query_json_string(&out, "a\"b\\c\nd\x80\xc3\xa9");
	assert_string_equal(out.data, "\"a\\\"b\\\\c\\u000ad\\ufffd\xc3\xa9\"");
	strbuf_reset(&out);
	query_json_error(&out, "bad_data", "no \"x\"");
	assert_string_equal(out.data, "{\"status\":\"error\",\"errorType\":\"bad_data\","
				      "\"error\":\"no \\\"x\\\"\"}\n");
	strbuf_fini(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(instants),
		cmocka_unit_test(rates),
		cmocka_unit_test(quantiles),
		cmocka_unit_test(ranges),
		cmocka_unit_test(what_makes_no_sense),
		cmocka_unit_test(time_is_bounded),
		cmocka_unit_test(memory_is_bounded),
		cmocka_unit_test(times),
		cmocka_unit_test(texts),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
