/* SPDX-License-Identifier: Apache-2.0 */
/* Files of gateway processes become app.seg: sums, ends, overflow, and what is refused. The writers
 * are libtidegate's, in this process or in children that are killed. */
#include "segment/gather.h"

#include "tidegate.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "gatherer.h"

static bool is_known = true;

static bool owner(void *data, const struct gather_writer *w, struct gather_owner *ret)
{
	(void)data;
	if (!is_known || w->uid != getuid())
		return false;
	strcpy(ret->gateway, "nginx");
	strcpy(ret->instance, "host/1");
	return true;
}

static void agent_start(uint32_t series)
{
	const struct gather_options g = {
		.dir = app_dir, .files = 64, .bytes = 8 << 20, .owner = owner};

	gatherer_start(series, 1 << 16, &g);
}

static bool is_ours(const struct segment_series *s, const char *last)
{
	return strcmp(s->labels[0].value, "nginx") == 0 &&
	       strcmp(s->labels[1].value, "host/1") == 0 &&
	       (!*last || strcmp(s->labels[s->label_count - 1].value, last) == 0);
}

/* Value of a series by name and the value of its last label ("": any); -1: not there. */
static double value_of(const char *name, const char *last)
{
	return value_where(name, is_ours, last);
}

static int setup(void **state)
{
	(void)state;
	is_known = true;
	return gatherer_setup("/dev/shm/tidegate-gather-XXXXXX");
}

static int teardown(void **state)
{
	(void)state;
	return gatherer_teardown();
}

static struct tidegate *gateway_open(uint32_t series)
{
	const struct tidegate_options o = {
		.size = sizeof(o), .runtime_dir = dir, .series = series, .histograms = 4};
	struct tidegate *t;

	assert_int_equal(tidegate_open(&o, &t), 0);
	return t;
}

static const char *const route[] = {"route"};

static uint64_t *counter(struct tidegate *t, const char *name, const char *value)
{
	const char *const values[] = {value};
	struct tidegate_metric *m;
	uint64_t *cell;

	assert_int_equal(tidegate_counter(t, name, "help", route, 1, &m), 0);
	tidegate_with(m, values, &cell);
	return cell;
}

/* A process that counts, says so, and waits for its end. */
static pid_t child_start(uint64_t by)
{
	int ready[2];
	char byte;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (pid == 0) {
		struct tidegate *t = gateway_open(64);
		struct tidegate_metric *h;
		uint64_t *cells;

		tidegate_add(counter(t, "orders_total", "/pay"), by);
		if (tidegate_histogram(t, "wait_seconds", "", NULL, 0, &h) == 0 &&
		    tidegate_with(h, NULL, &cells) == 0)
			for (uint64_t i = 0; i < by; i++)
				tidegate_observe_ns(cells, i * 1000);
		if (write(ready[1], "x", 1) == 1)
			pause();
		_exit(1);
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	close(ready[1]);
	return pid;
}

static void child_kill(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static unsigned int files(void)
{
	struct gather_stats s;

	gather_stats(gather, &s);
	return s.files;
}

static uint64_t refused(enum gather_refusal why)
{
	struct gather_stats s;

	gather_stats(gather, &s);
	return s.refused[why];
}

static void test_processes_are_summed(void **state)
{
	struct tidegate *a, *b;
	struct tidegate_metric *m;
	uint64_t *cell;

	(void)state;
	agent_start(256);
	a = gateway_open(64);
	b = gateway_open(64);
	tidegate_add(counter(a, "orders_total", "/pay"), 3);
	tidegate_add(counter(b, "orders_total", "/pay"), 5);
	tidegate_inc(counter(b, "orders_total", "/cart"));
	assert_int_equal(tidegate_gauge(a, "depth", "", TIDEGATE_MAX, NULL, 0, &m), 0);
	assert_int_equal(tidegate_with(m, NULL, &cell), 0);
	tidegate_set(cell, 2.5);
	assert_int_equal(tidegate_gauge(b, "depth", "", TIDEGATE_MAX, NULL, 0, &m), 0);
	assert_int_equal(tidegate_with(m, NULL, &cell), 0);
	tidegate_set(cell, 1.5);
	tick();
	assert_int_equal(files(), 2);
	assert_true(value_of("orders_total", "/pay") == 8);
	assert_true(value_of("orders_total", "/cart") == 1);
	assert_true(value_of("depth", "") == 2.5);
	tidegate_inc(counter(a, "orders_total", "/pay"));
	tick();
	assert_true(value_of("orders_total", "/pay") == 9);
	tidegate_close(a);
	tidegate_close(b);
	tick();
	assert_true(value_of("orders_total", "/pay") == 9);
	assert_true(value_of("depth", "") == -1);
	assert_int_equal(files(), 0);
}

static void test_killed_ones_count_once(void **state)
{
	uint64_t total = 0;

	(void)state;
	agent_start(256);
	for (uint64_t i = 1; i <= 30; i++) {
		pid_t pid = child_start(i);

		total += i;
		if (i % 3)
			tick();
		if (i % 3)
			assert_true(value_of("orders_total", "/pay") == (double)total);
		child_kill(pid);
		if (i % 4 == 0) { /* the agent is away while it ends */
			agent_stop();
			agent_start(256);
		}
		tick();
		assert_true(value_of("orders_total", "/pay") == (double)total);
		assert_true(value_of("wait_seconds", "") == (double)total);
		assert_int_equal(files(), 0);
	}
}

static void test_unknown_owner_waits(void **state)
{
	pid_t pid;

	(void)state;
	agent_start(256);
	is_known = false;
	pid = child_start(7);
	tick();
	assert_true(value_of("orders_total", "/pay") == -1);
	child_kill(pid);
	tick();
	is_known = true;
	tick();
	assert_true(value_of("orders_total", "/pay") == 7);
}

static void test_restart_begins_at_zero(void **state)
{
	struct tidegate *t;
	uint64_t *cell;
	pid_t pid;

	(void)state;
	agent_start(256);
	pid = child_start(11);
	t = gateway_open(64);
	cell = counter(t, "orders_total", "/pay");
	tidegate_add(cell, 100);
	tick();
	assert_true(value_of("orders_total", "/pay") == 111);
	assert_int_equal(segment_writer_restart(writer, NULL), 0);
	tick();
	assert_true(value_of("orders_total", "/pay") == 0);
	tidegate_add(cell, 2);
	child_kill(pid);
	tick();
	assert_true(value_of("orders_total", "/pay") == 2);
	agent_stop();
	agent_start(256);
	tidegate_close(t);
	tick();
	assert_true(value_of("orders_total", "/pay") == 2);
}

static void test_no_room_goes_to_overflow(void **state)
{
	struct tidegate *t;
	char value[32];

	(void)state;
	agent_start(64); /* of these, 20 are kept free for overflow and the agent */
	t = gateway_open(256);
	for (unsigned int i = 0; i < 100; i++) {
		snprintf(value, sizeof(value), "/%u", i);
		tidegate_inc(counter(t, "orders_total", value));
	}
	tick();
	assert_true(value_of("orders_total", "/0") == 1);
	assert_true(value_of("orders_total", "/99") == -1);
	assert_int_equal(refused(GATHER_SERIES), 56);
	assert_true(value_of("orders_total", "_overflow") == 56);
	tidegate_close(t);
	tick();
	assert_true(value_of("orders_total", "_overflow") == 56);
	/* And the gateway's own limit. */
	t = gateway_open(16);
	for (unsigned int i = 0; i < 20; i++) {
		snprintf(value, sizeof(value), "/%u", i);
		tidegate_inc(counter(t, "orders_total", value));
	}
	tick();
	assert_float_equal(value_of("orders_total", "_overflow"), 56 + 5, 0);
	assert_true(value_of("tidegate_app_overflow_total", "") == 5);
	tidegate_close(t);
	tick();
	assert_true(value_of("tidegate_app_overflow_total", "") == 5);
}

static void test_names_and_kinds_are_checked(void **state)
{
	struct tidegate *a, *b;
	struct tidegate_metric *m;
	uint64_t *cell;

	(void)state;
	agent_start(256);
	a = gateway_open(64);
	b = gateway_open(64);
	tidegate_inc(counter(a, "tidegate_requests_total", "/"));
	tidegate_inc(counter(a, "orders_total", "bad\xff\nvalue"));
	assert_int_equal(tidegate_gauge(b, "orders_total", "", TIDEGATE_SUM, NULL, 0, &m), 0);
	assert_int_equal(tidegate_with(m, NULL, &cell), 0);
	tick();
	assert_int_equal(refused(GATHER_NAME), 1);
	assert_int_equal(refused(GATHER_KIND), 1);
	assert_true(value_of("tidegate_requests_total", "") == -1);
	assert_true(value_of("orders_total", "bad??value") == 1);
	tidegate_close(a);
	tidegate_close(b);
}

/* Every byte of header and directory, damaged in turn: refused or read, never more than said. */
static void test_damaged_files_harm_nobody(void **state)
{
	unsigned char image[8192], other[8192];
	char path[320];
	struct tidegate *t;
	ssize_t n;
	int fd;

	(void)state;
	agent_start(256);
	t = gateway_open(16);
	tidegate_inc(counter(t, "orders_total", "/pay"));
	tick();
	snprintf(path, sizeof(path), "find %s -name '*.seg' -exec cp {} %s/copy \\;", app_dir, dir);
	assert_int_equal(system(path), 0);
	tidegate_close(t);
	tick();
	snprintf(path, sizeof(path), "%s/copy", dir);
	fd = open(path, O_RDONLY);
	n = read(fd, image, sizeof(image));
	close(fd);
	assert_true(n == sizeof(image));
	for (size_t at = 0; at < 6800; at += at < 320 || at > 6660 ? 1 : 97) {
		memcpy(other, image, sizeof(other));
		other[at] ^= 0xff;
		snprintf(path, sizeof(path), "%s/1-%016zx.seg", app_dir, at);
		fd = open(path, O_RDWR | O_CREAT, 0600);
		assert_true(write(fd, other, sizeof(other)) == (ssize_t)sizeof(other));
		assert_int_equal(ftruncate(fd, 65536), 0);
		close(fd);
		tick();
		if (access(path, F_OK) == 0)
			fail_msg("byte %zu", at);
	}
	assert_true(refused(GATHER_DAMAGED) > 50);
	/* No segment at all, a link, a directory, a fifo. */
	snprintf(path, sizeof(path),
		 "cd %s; echo hello >a.seg; ln -s a.seg b.seg; mkdir c.seg; mkfifo "
		 "d.seg; : >e.seg",
		 app_dir);
	assert_int_equal(system(path), 0);
	tick();
	tick();
	assert_int_equal(files(), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_processes_are_summed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_killed_ones_count_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unknown_owner_waits, setup, teardown),
		cmocka_unit_test_setup_teardown(test_restart_begins_at_zero, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_room_goes_to_overflow, setup, teardown),
		cmocka_unit_test_setup_teardown(test_names_and_kinds_are_checked, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged_files_harm_nobody, setup, teardown),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
