/* SPDX-License-Identifier: Apache-2.0 */
/* `tidegate metrics` as its user sees it: output, exit codes, one-line errors. */
#include "cmd/verbs.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/str.h"
#include "segment/writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "verb.h"

static char dir[64], host[96], app[96];

static int run(const char *a, const char *b, const char *c)
{
	const char *const words[] = {"metrics", a, b, c, NULL};

	return verb_run(metrics_verb, dir, words);
}

static void expect_err(const char *want)
{
	expect_err_of("metrics", want);
}

static void make_segment(const char *path, enum segment_kind kind, enum metric_id metric,
			 uint64_t mono_ns)
{
	const char *labels[][2] = {{"gateway", "nginx"}};
	struct segment_options o = {
		.path = path,
		.kind = kind,
		.group = (gid_t)-1,
		.series = 4,
		.histograms = 1,
		.heap_bytes = 1024,
	};
	struct segment_writer *w = NULL;
	struct err e = {0};
	bool continued;
	int s;

	if (segment_writer_open(&o, &w, &continued, &e) < 0)
		fail_msg("%s", e.text);
	s = segment_writer_series(w, &metric_descs[metric], labels, 1);
	assert_true(s >= 0);
	segment_writer_tick_begin(w);
	segment_writer_counter(w, s, 42);
	segment_writer_tick_end(w, mono_ns, 1, 1);
	segment_writer_close(w);
}

static int setup(void **state)
{
	(void)state;
	unlink(host);
	unlink(app);
	setenv("TIDEGATE_RUNTIME_DIR", dir, 1);
	return 0;
}

static void test_both_segments(void **state)
{
	(void)state;
	make_segment(host, SEGMENT_HOST, METRIC_ID_ACCEPTS, clock_mono_ns());
	assert_int_equal(run(NULL, NULL, NULL), EXIT_DONE);
	assert_string_equal(err, "");
	assert_non_null(strstr(out, "tidegate_accepts_total{gateway=\"nginx\"} 42\n"));
	make_segment(app, SEGMENT_APP, METRIC_ID_GC_CYCLES, clock_mono_ns());
	assert_int_equal(run(NULL, NULL, NULL), EXIT_DONE);
	assert_non_null(strstr(out, "tidegate_accepts_total{gateway=\"nginx\"} 42\n"));
	assert_non_null(strstr(out, "tidegate_gc_cycles_total{gateway=\"nginx\"} 42\n"));
	/* A damaged app.seg is said and hides nothing. */
	assert_int_equal(truncate(app, 10), 0);
	assert_int_equal(run(NULL, NULL, NULL), EXIT_DONE);
	expect_err("app.seg");
	assert_non_null(strstr(out, "tidegate_accepts_total{gateway=\"nginx\"} 42\n"));
}

static void test_one_segment_without_configuration(void **state)
{
	(void)state;
	make_segment(host, SEGMENT_HOST, METRIC_ID_ACCEPTS, clock_mono_ns());
	setenv("TIDEGATE_RUNTIME_DIR", "/nowhere", 1);
	assert_int_equal(run("--segment", host, "--openmetrics"), EXIT_DONE);
	assert_string_equal(err, "");
	assert_non_null(strstr(out, "# TYPE tidegate_accepts counter\n"));
	assert_true(str_ends(out, "# EOF\n"));
}

static void test_failures(void **state)
{
	(void)state;
	assert_int_equal(run(NULL, NULL, NULL), EXIT_FAILED);
	expect_err(dir);
	assert_string_equal(out, "");
	assert_int_equal(run("--segment", "/etc/passwd", NULL), EXIT_FAILED);
	expect_err("/etc/passwd");
	assert_int_equal(run("--segment", host, NULL), EXIT_FAILED);
	expect_err("No such file");
	make_segment(host, SEGMENT_HOST, METRIC_ID_ACCEPTS, 1);
	assert_int_equal(run(NULL, NULL, NULL), EXIT_DONE);
	if (clock_mono_ns() > 40 * NS_PER_S)
		expect_err("is its agent running?");
}

static void test_usage(void **state)
{
	(void)state;
	assert_int_equal(run("--segmnt", "x", NULL), EXIT_USAGE);
	expect_err("--segment");
	assert_int_equal(run("--segment", NULL, NULL), EXIT_USAGE);
	expect_err("needs a value");
	assert_int_equal(run("stray", NULL, NULL), EXIT_USAGE);
	expect_err("stray");
	assert_int_equal(run("--config", "/nonexistent.yaml", NULL), EXIT_USAGE);
	expect_err("/nonexistent.yaml");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_both_segments, setup),
		cmocka_unit_test_setup(test_one_segment_without_configuration, setup),
		cmocka_unit_test_setup(test_failures, setup),
		cmocka_unit_test_setup(test_usage, setup),
	};
	char lock[112];
	int failed;

	snprintf(dir, sizeof(dir), "/dev/shm/tidegate-metrics-XXXXXX");
	if (!mkdtemp(dir))
		return 1;
	snprintf(host, sizeof(host), "%s/host.seg", dir);
	snprintf(app, sizeof(app), "%s/app.seg", dir);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(host);
	unlink(app);
	snprintf(lock, sizeof(lock), "%s.lock", host);
	unlink(lock);
	snprintf(lock, sizeof(lock), "%s.lock", app);
	unlink(lock);
	rmdir(dir);
	return failed;
}
