/* SPDX-License-Identifier: Apache-2.0 */
/* Prometheus text and OpenMetrics: exact output of literal series, hostile names, limits. */
#include "outlet/prometheus.h"

#include "base/cleanup.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

struct list {
	const struct prometheus_series *items;
	size_t count;
};

static bool list_get(const void *data, size_t index, struct prometheus_series *ret)
{
	const struct list *l = data;

	assert_true(index < l->count);
	*ret = l->items[index];
	return ret->name;
}

/* A line at a time, into a buffer that moves: the same bytes, or the same error. */
static int render_in_steps(const struct prometheus_source *source, enum prometheus_format format,
			   const struct strbuf *want)
{
	_cleanup_(strbuf_fini) struct strbuf out;
	struct prometheus_job *job;
	struct strbuf moved;
	int r;

	strbuf_init(&out, want->limit);
	r = prometheus_begin(source, 1, format, &moved, &job);
	if (r < 0)
		return r;
	strbuf_init(&moved, want->limit);
	do {
		strbuf_fini(&out);
		out = moved;
		prometheus_set_output(job, &out);
		r = prometheus_step(job, 1, NULL);
		moved = out;
		memset(&out, 0, sizeof(out));
	} while (r > 0);
	out = moved;
	prometheus_end(job);
	if (r == 0)
		assert_string_equal(out.data ? out.data : "", want->data ? want->data : "");
	return r;
}

static int render(const struct prometheus_series *items, size_t n, enum prometheus_format format,
		  struct strbuf *out, struct prometheus_result *result)
{
	struct list l = {items, n};
	struct prometheus_source source = {.count = n, .get = list_get, .data = &l};
	int r;

	r = prometheus_render(&source, 1, format, out, result);
	assert_int_equal(render_in_steps(&source, format, out), r);
	return r;
}

static void expect(const struct prometheus_series *items, size_t n, enum prometheus_format format,
		   const char *want)
{
	_cleanup_(strbuf_fini) struct strbuf out;

	strbuf_init(&out, 1 << 20);
	assert_int_equal(render(items, n, format, &out, NULL), 0);
	assert_string_equal(out.data ? out.data : "", want);
}

#define LABELS(...)                                            \
	.labels = (const struct segment_label[]){__VA_ARGS__}, \
	.label_count =                                         \
		sizeof((const struct segment_label[]){__VA_ARGS__}) / sizeof(struct segment_label)

static void test_interleaved_families_are_grouped(void **state)
{
	const struct prometheus_series items[] = {
		{.name = "a_total", .unit = "", .help = "A.", .counter = 1, LABELS({"x", "1"})},
		{.name = "b", .unit = "", .help = "B.", .kind = METRIC_GAUGE, .gauge = 0.5},
		{.name = "a_total", .unit = "", .help = "A.", .counter = 2, LABELS({"x", "2"})},
		{.name = NULL},
		{.name = "a_total",
		 .unit = "",
		 .help = "A.",
		 .counter = UINT64_MAX,
		 LABELS({"x", "3"}, {"y", ""})},
	};

	(void)state;
	expect(items, ARRAY_LEN(items), PROMETHEUS_TEXT,
	       "# HELP a_total A.\n# TYPE a_total counter\n"
	       "a_total{x=\"1\"} 1\na_total{x=\"2\"} 2\n"
	       "a_total{x=\"3\",y=\"\"} 18446744073709551615\n"
	       "# HELP b B.\n# TYPE b gauge\nb 0.5\n");
	expect(items, ARRAY_LEN(items), PROMETHEUS_OPENMETRICS,
	       "# HELP a A.\n# TYPE a counter\n"
	       "a_total{x=\"1\"} 1\na_total{x=\"2\"} 2\n"
	       "a_total{x=\"3\",y=\"\"} 18446744073709551615\n"
	       "# HELP b B.\n# TYPE b gauge\nb 0.5\n# EOF\n");
	expect(NULL, 0, PROMETHEUS_TEXT, "");
	expect(NULL, 0, PROMETHEUS_OPENMETRICS, "# EOF\n");
}

static void test_nanoseconds_are_shown_in_seconds(void **state)
{
	const struct prometheus_series items[] = {
		{.name = "t_busy_seconds_total",
		 .unit = "nanoseconds",
		 .help = "",
		 .counter = 1500000001},
		{.name = "t_busy_seconds_total",
		 .unit = "nanoseconds",
		 .help = "",
		 .counter = 2000000000,
		 LABELS({"w", "1"})},
		{.name = "t_busy_seconds_total",
		 .unit = "nanoseconds",
		 .help = "",
		 .counter = 120000000,
		 LABELS({"w", "2"})},
	};

	(void)state;
	expect(items, ARRAY_LEN(items), PROMETHEUS_TEXT,
	       "# TYPE t_busy_seconds_total counter\nt_busy_seconds_total 1.500000001\n"
	       "t_busy_seconds_total{w=\"1\"} 2\nt_busy_seconds_total{w=\"2\"} 0.12\n");
	expect(items, 1, PROMETHEUS_OPENMETRICS,
	       "# TYPE t_busy_seconds counter\n# UNIT t_busy_seconds seconds\n"
	       "t_busy_seconds_total 1.500000001\n# EOF\n");
}

static void test_histogram(void **state)
{
	static uint64_t cells[HIST_CELLS];
	const struct prometheus_series item = {
		.name = "h_seconds",
		.unit = "seconds",
		.help = "H.",
		.kind = METRIC_HISTOGRAM,
		.cells = cells,
		LABELS({"k", "v"}),
	};
	_cleanup_(strbuf_fini) struct strbuf out;

	(void)state;
	/* Exactly at, one below and one above boundaries. */
	cells[histogram_index(5000000)]++;
	cells[histogram_index(5000001)]++;
	cells[histogram_index(10000000)]++;
	cells[histogram_index(1000000000)]++;
	cells[histogram_index(9999999999)]++;
	cells[histogram_index(10000000001)]++;
	cells[HIST_CELLS - 1] += 2;
	strbuf_init(&out, 1 << 20);
	assert_int_equal(render(&item, 1, PROMETHEUS_TEXT, &out, NULL), 0);
	assert_non_null(strstr(out.data, "# TYPE h_seconds histogram\n"
					 "h_seconds_bucket{k=\"v\",le=\"0.005\"} 1\n"
					 "h_seconds_bucket{k=\"v\",le=\"0.01\"} 3\n"
					 "h_seconds_bucket{k=\"v\",le=\"0.025\"} 3\n"));
	assert_non_null(strstr(out.data, "le=\"0.75\"} 3\n"
					 "h_seconds_bucket{k=\"v\",le=\"1\"} 4\n"));
	assert_non_null(strstr(out.data, "le=\"7.5\"} 4\n"
					 "h_seconds_bucket{k=\"v\",le=\"10\"} 5\n"
					 "h_seconds_bucket{k=\"v\",le=\"+Inf\"} 8\n"
					 "h_seconds_sum{k=\"v\"} "));
	assert_non_null(strstr(out.data, "\nh_seconds_count{k=\"v\"} 8\n"));
	strbuf_reset(&out);
	assert_int_equal(render(&item, 1, PROMETHEUS_OPENMETRICS, &out, NULL), 0);
	assert_non_null(strstr(out.data, "# UNIT h_seconds seconds\n"));
	assert_non_null(strstr(out.data, "le=\"1.0\"} 4\n"));
	assert_non_null(strstr(out.data, "le=\"10.0\"} 5\n"));
}

static void test_escaping(void **state)
{
	const struct prometheus_series item = {
		.name = "e",
		.unit = "",
		.help = "back\\slash \"quote\"\nline",
		.kind = METRIC_GAUGE,
		LABELS({"v", "a\\b\"c\nd"}, {"u", "\xc3\xa9\xff\xc0\x80\xed\xa0\x80\xe2\x82"}),
	};
#define BAD "\xef\xbf\xbd"

	(void)state;
	expect(&item, 1, PROMETHEUS_TEXT,
	       "# HELP e back\\\\slash \"quote\"\\nline\n# TYPE e gauge\n"
	       "e{v=\"a\\\\b\\\"c\\nd\",u=\"\xc3\xa9" BAD BAD BAD BAD BAD BAD BAD BAD "\"} 0\n");
	expect(&item, 1, PROMETHEUS_OPENMETRICS,
	       "# HELP e back\\\\slash \\\"quote\\\"\\nline\n# TYPE e gauge\n"
	       "e{v=\"a\\\\b\\\"c\\nd\",u=\"\xc3\xa9" BAD BAD BAD BAD BAD BAD BAD BAD
	       "\"} 0\n# EOF\n");
}

static void test_gauges(void **state)
{
	static const struct {
		double v;
		const char *text;
	} rows[] = {
		{0, "g 0\n"},
		{-0.1, "g -0.1\n"},
		{1e300, "g 1e+300\n"},
		{4294967296, "g 4294967296\n"},
		{0.1 + 0.2, "g 0.30000000000000004\n"},
		{NAN, "g NaN\n"},
		{INFINITY, "g +Inf\n"},
		{-INFINITY, "g -Inf\n"},
	};
	char want[128];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		const struct prometheus_series item = {.name = "g",
						       .unit = "",
						       .help = "",
						       .kind = METRIC_GAUGE,
						       .gauge = rows[i].v};

		snprintf(want, sizeof(want), "# TYPE g gauge\n%s", rows[i].text);
		expect(&item, 1, PROMETHEUS_TEXT, want);
	}
}

static void test_what_would_spoil_a_scrape_is_refused(void **state)
{
	static const uint64_t cells[HIST_CELLS];
	const struct prometheus_series items[] = {
		{.name = "ok", .unit = "", .help = "", LABELS({"a", "1"})},
		{.name = "", .unit = "", .help = ""},
		{.name = "1x", .unit = "", .help = ""},
		{.name = "x y", .unit = "", .help = ""},
		{.name = "x\n# TYPE", .unit = "", .help = ""},
		{.name = "ok", .unit = "", .help = "", LABELS({"a-b", "1"})},
		{.name = "ok", .unit = "", .help = "", LABELS({"", "1"})},
		{.name = "ok", .unit = "", .help = "", LABELS({"__name__", "1"})},
		{.name = "ok", .unit = "", .help = "", LABELS({"a", "1"}, {"a", "2"})},
		{.name = "ok", .unit = "", .help = "", LABELS({"a", "1"})},
		{.name = "ok", .unit = "", .help = "", .kind = METRIC_GAUGE},
		{.name = "h",
		 .unit = "",
		 .help = "",
		 .kind = METRIC_HISTOGRAM,
		 .cells = cells,
		 LABELS({"le", "1"})},
	};
	_cleanup_(strbuf_fini) struct strbuf out;
	struct prometheus_result result;

	(void)state;
	strbuf_init(&out, 1 << 20);
	assert_int_equal(render(items, ARRAY_LEN(items), PROMETHEUS_TEXT, &out, &result), 0);
	assert_string_equal(out.data, "# TYPE ok counter\nok{a=\"1\"} 0\n");
	assert_int_equal(result.series, 1);
	assert_int_equal(result.refused, 11);
}

/* One script's names must not spoil the scrape of all. */
static void test_names_of_another_metrics_samples_are_refused(void **state)
{
	static const uint64_t cells[HIST_CELLS];
	const struct prometheus_series items[] = {
		{.name = "x_seconds_count", .unit = "", .help = "", .kind = METRIC_GAUGE},
		{.name = "x_seconds",
		 .unit = "",
		 .help = "",
		 .kind = METRIC_HISTOGRAM,
		 .cells = cells},
		{.name = "x_seconds_sum", .unit = "", .help = "", .kind = METRIC_GAUGE},
		{.name = "x_seconds_bucket", .unit = "", .help = "", .kind = METRIC_GAUGE},
		{.name = "y_total", .unit = "", .help = ""},
		{.name = "y_created", .unit = "", .help = "", .kind = METRIC_GAUGE},
		{.name = "y_count", .unit = "", .help = "", .kind = METRIC_GAUGE},
	};
	_cleanup_(strbuf_fini) struct strbuf out;
	struct prometheus_result result;

	(void)state;
	strbuf_init(&out, 1 << 20);
	assert_int_equal(render(items, ARRAY_LEN(items), PROMETHEUS_TEXT, &out, &result), 0);
	assert_int_equal(result.series, 4);
	assert_int_equal(result.refused, 3);
	assert_null(strstr(out.data, "TYPE x_seconds_"));
	assert_non_null(strstr(out.data, "x_seconds_count 0\n# TYPE y_total counter\n"));
	assert_non_null(strstr(out.data, "TYPE y_created gauge\n"));
	strbuf_reset(&out);
	assert_int_equal(render(items, ARRAY_LEN(items), PROMETHEUS_OPENMETRICS, &out, &result), 0);
	assert_int_equal(result.refused, 4);
	assert_null(strstr(out.data, "y_created"));
	assert_non_null(strstr(out.data, "TYPE y_count gauge\n"));
}

static void test_output_is_limited(void **state)
{
	const struct prometheus_series item = {.name = "x", .unit = "", .help = "help"};
	struct prometheus_source big = {.count = (size_t)1 << 40, .get = list_get};
	_cleanup_(strbuf_fini) struct strbuf out;

	(void)state;
	strbuf_init(&out, 20);
	assert_int_equal(render(&item, 1, PROMETHEUS_TEXT, &out, NULL), -E2BIG);
	assert_int_equal(prometheus_render(&big, 1, PROMETHEUS_TEXT, &out, NULL), -E2BIG);
}

/* Enough families and series that every table grows; two sources follow each other. */
static void test_many(void **state)
{
	enum { N = 2000, NAMES = 500 };
	static struct prometheus_series items[N];
	static struct segment_label labels[N];
	static char names[NAMES][16], values[N][16];
	struct list lists[2] = {{items, N / 2}, {items + N / 2, N / 2}};
	struct prometheus_source sources[2] = {
		{.count = N / 2, .get = list_get, .data = &lists[0]},
		{.count = N / 2, .get = list_get, .data = &lists[1]},
	};
	_cleanup_(strbuf_fini) struct strbuf out;
	struct prometheus_result result;
	unsigned int types = 0, lines = 0;

	(void)state;
	for (unsigned int i = 0; i < NAMES; i++)
		snprintf(names[i], sizeof(names[i]), "m%u", i);
	for (unsigned int i = 0; i < N; i++) {
		snprintf(values[i], sizeof(values[i]), "%u", i);
		labels[i] = (struct segment_label){"i", values[i]};
		items[i] = (struct prometheus_series){
			.name = names[i % NAMES],
			.unit = "",
			.help = "",
			.counter = i,
			.labels = &labels[i],
			.label_count = 1,
		};
	}
	strbuf_init(&out, 1 << 20);
	assert_int_equal(prometheus_render(sources, 2, PROMETHEUS_TEXT, &out, &result), 0);
	assert_int_equal(result.series, N);
	assert_int_equal(result.refused, 0);
	for (const char *p = out.data; p && *p; p = strchr(p, '\n') + 1) {
		types += str_starts(p, "# TYPE ");
		lines++;
	}
	assert_int_equal(types, NAMES);
	assert_int_equal(lines, N + NAMES);
	assert_non_null(strstr(out.data, "m499{i=\"499\"} 499\nm499{i=\"999\"} 999\n"
					 "m499{i=\"1499\"} 1499\nm499{i=\"1999\"} 1999\n"));
}

static void test_accept(void **state)
{
	(void)state;
	assert_int_equal(prometheus_accepted(NULL), PROMETHEUS_TEXT);
	assert_int_equal(prometheus_accepted("text/plain;version=0.0.4;q=0.5,*/*;q=0.1"),
			 PROMETHEUS_TEXT);
	assert_int_equal(prometheus_accepted("application/openmetrics-text;version=1.0.0,*/*"),
			 PROMETHEUS_OPENMETRICS);
	assert_non_null(strstr(prometheus_content_type(PROMETHEUS_TEXT), "version=0.0.4"));
	assert_non_null(strstr(prometheus_content_type(PROMETHEUS_OPENMETRICS), "openmetrics"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_interleaved_families_are_grouped),
		cmocka_unit_test(test_nanoseconds_are_shown_in_seconds),
		cmocka_unit_test(test_histogram),
		cmocka_unit_test(test_escaping),
		cmocka_unit_test(test_gauges),
		cmocka_unit_test(test_what_would_spoil_a_scrape_is_refused),
		cmocka_unit_test(test_names_of_another_metrics_samples_are_refused),
		cmocka_unit_test(test_output_is_limited),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_accept),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
