/* SPDX-License-Identifier: Apache-2.0 */
/* `tidegate top` as its user sees it without a terminal: output, exit codes, one-line errors. */
#include "cmd/verbs.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/str.h"
#include "segment/writer.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "verb.h"

static char dir[64], host[96];

static int run(const char *a, const char *b, const char *c, const char *d)
{
	const char *const words[] = {"top", a, b, c, d, NULL};

	return verb_run(top_verb, dir, words);
}

static void expect_err(const char *want)
{
	expect_err_of("top", want);
}

static struct segment_writer *writer_open(const char *path, enum segment_kind kind)
{
	struct segment_options o = {
		.path = path,
		.kind = kind,
		.group = (gid_t)-1,
		.series = 8,
		.histograms = 1,
		.heap_bytes = 4096,
	};
	struct segment_writer *w = NULL;
	struct err e = {0};
	bool continued;

	if (segment_writer_open(&o, &w, &continued, &e) < 0)
		fail_msg("%s", e.text);
	return w;
}

static void write_tick(struct segment_writer *w, const char *name, uint64_t requests,
		       uint64_t mono_ns)
{
	const char *labels[][2] = {
		{"gateway", name}, {"instance", "h/1"}, {"method", "GET"}, {"code", "200"}};
	int s = segment_writer_series(w, &metric_descs[METRIC_ID_REQUESTS],
				      (const char *const(*)[2])labels, 4);

	assert_true(s >= 0);
	segment_writer_tick_begin(w);
	segment_writer_counter(w, s, requests);
	segment_writer_tick_end(w, mono_ns, clock_real_ns(), NS_PER_S);
}

/* A host with one gateway that had these requests at that moment, and whose writer is away since. */
static void make_host(const char *name, uint64_t requests, uint64_t mono_ns)
{
	struct segment_writer *w = writer_open(host, SEGMENT_HOST);
	int g = segment_writer_gateway(w, name, "h/1");
	struct segment_gateway *record;

	assert_true(g >= 0);
	record = segment_writer_gateway_at(w, (unsigned int)g);
	segment_writer_change_begin(w);
	record->state = SEGMENT_GATEWAY_LIVE;
	record->master_pid = 4711;
	record->requests_known = 1;
	segment_writer_change_end(w);
	write_tick(w, name, requests, mono_ns);
	segment_writer_close(w);
}

static int setup(void **state)
{
	(void)state;
	unlink(host);
	setenv("TIDEGATE_RUNTIME_DIR", dir, 1);
	return 0;
}

static void test_once(void **state)
{
	(void)state;
	/* Nobody writes: what there is, at once, and how old it is. */
	make_host("web", 42, clock_mono_ns() - 100 * NS_PER_S);
	assert_int_equal(run("--once", NULL, NULL, NULL), EXIT_DONE);
	assert_string_equal(err, "");
	assert_non_null(strstr(out, "no rates yet"));
	assert_non_null(strstr(out, "OLD: is the agent"));
	assert_non_null(strstr(out, "\nweb     live "));
}

static void test_once_json(void **state)
{
	json_t *root, *gateway, *requests;
	json_error_t je;

	(void)state;
	make_host("web", 42, clock_mono_ns() - 100 * NS_PER_S);
	setenv("TIDEGATE_RUNTIME_DIR", "/nowhere", 1);
	assert_int_equal(run("--once", "--json", "--segment", host), EXIT_DONE);
	assert_string_equal(err, "");
	root = json_loads(out, 0, &je);
	if (!root)
		fail_msg("%s: %s", je.text, out);
	assert_true(json_is_true(json_object_get(root, "stale")));
	assert_true(json_real_value(json_object_get(root, "age_seconds")) >= 100);
	/* No second tick, no rates: no keys. */
	assert_null(json_object_get(root, "window_seconds"));
	gateway = json_array_get(json_object_get(root, "gateways"), 0);
	assert_string_equal(json_string_value(json_object_get(gateway, "gateway")), "web");
	assert_int_equal(json_integer_value(json_object_get(gateway, "master_pid")), 4711);
	assert_null(json_object_get(gateway, "requests_per_second"));
	requests = json_array_get(json_object_get(gateway, "requests"), 0);
	assert_string_equal(json_string_value(json_object_get(requests, "code")), "200");
	assert_int_equal(json_integer_value(json_object_get(requests, "total")), 42);
	json_decref(root);
}

/* While we look, ticks go on. */
static void test_rates_between_two_ticks(void **state)
{
	json_t *root, *gateway;
	uint64_t begin = clock_mono_ns(), requests = 1000;
	int go[2];
	char byte;
	pid_t pid;

	(void)state;
	make_host("web", requests, begin);
	assert_int_equal(pipe2(go, O_CLOEXEC | O_NONBLOCK), 0);
	pid = fork();
	if (pid == 0) {
		struct segment_writer *w = writer_open(host, SEGMENT_HOST);

		/* 100 a second by the ticks' own clock, until the pipe ends. */
		close(go[1]);
		while (read(go[0], &byte, 1) < 0) {
			begin += NS_PER_S / 10;
			requests += 10;
			write_tick(w, "web", requests, begin);
			usleep(100000);
		}
		_exit(0);
	}
	close(go[0]);
	assert_int_equal(run("--once", "--json", "--interval", "0.2"), EXIT_DONE);
	close(go[1]);
	waitpid(pid, NULL, 0);
	root = json_loads(out, 0, NULL);
	assert_non_null(root);
	gateway = json_array_get(json_object_get(root, "gateways"), 0);
	assert_true(fabs(json_number_value(json_object_get(gateway, "requests_per_second")) - 100) <
		    1e-6);
	assert_true(json_number_value(json_object_get(root, "window_seconds")) > 0.09);
	json_decref(root);
}

static void test_hostile_names_are_shown_harmless(void **state)
{
	(void)state;
	make_host("\033[2J\302\233\nweb", 42, clock_mono_ns());
	assert_int_equal(run("--once", "--interval", "0.1", NULL), EXIT_DONE);
	assert_non_null(strstr(out, "?[2J"));
	assert_non_null(strstr(out, "?web"));
	for (const char *p = out; *p; p++)
		assert_true((unsigned char)*p >= 0x20 || *p == '\n');
}

static void test_failures(void **state)
{
	(void)state;
	assert_int_equal(run("--once", NULL, NULL, NULL), EXIT_FAILED);
	expect_err("the agent is not running there");
	assert_string_equal(out, "");
	assert_int_equal(run("--once", "--segment", "/etc/passwd", NULL), EXIT_FAILED);
	expect_err("/etc/passwd");
	assert_int_equal(run("--once", "--segment", host, NULL), EXIT_FAILED);
	expect_err("No such file");
	segment_writer_close(writer_open(host, SEGMENT_APP));
	assert_int_equal(run("--once", "--segment", host, NULL), EXIT_FAILED);
	expect_err("not of a host");
}

static void test_usage(void **state)
{
	(void)state;
	make_host("web", 42, clock_mono_ns());
	assert_int_equal(run(NULL, NULL, NULL, NULL), EXIT_USAGE);
	expect_err("no terminal: use --once");
	assert_int_equal(run("--json", NULL, NULL, NULL), EXIT_USAGE);
	expect_err("--json needs --once");
	assert_int_equal(run("--onec", NULL, NULL, NULL), EXIT_USAGE);
	expect_err("--once");
	assert_int_equal(run("stray", NULL, NULL, NULL), EXIT_USAGE);
	expect_err("stray");
	for (size_t i = 0; i < 6; i++) {
		static const char *const wrong[] = {"", "x", "0", "-1", "nan", "1s"};

		assert_int_equal(run("--once", "--interval", wrong[i], NULL), EXIT_USAGE);
		expect_err("0.1 to 3600");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_once, setup),
		cmocka_unit_test_setup(test_once_json, setup),
		cmocka_unit_test_setup(test_rates_between_two_ticks, setup),
		cmocka_unit_test_setup(test_hostile_names_are_shown_harmless, setup),
		cmocka_unit_test_setup(test_failures, setup),
		cmocka_unit_test_setup(test_usage, setup),
	};
	char lock[112];
	int failed;

	snprintf(dir, sizeof(dir), "/dev/shm/tidegate-top-XXXXXX");
	if (!mkdtemp(dir))
		return 1;
	snprintf(host, sizeof(host), "%s/host.seg", dir);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(host);
	snprintf(lock, sizeof(lock), "%s.lock", host);
	unlink(lock);
	rmdir(dir);
	return failed;
}
