/* SPDX-License-Identifier: Apache-2.0 */
/* libtidegate: what it refuses and why, fork, places that are not there (yet), overflow, the cell of
 * a duration, the draining flag. */
#include "tidegate.h"

#include "base/clock.h"
#include "metrics.h"
#include "segment/writer.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
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

static char dir[64], app_dir[96];

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/dev/shm/tidegate-library-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(app_dir, sizeof(app_dir), "%s/app", dir);
	return mkdir(app_dir, 0700);
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

static struct tidegate_options options(void)
{
	return (struct tidegate_options){.size = sizeof(struct tidegate_options),
					 .runtime_dir = dir};
}

static struct tidegate *open_one(void)
{
	struct tidegate_options o = options();
	struct tidegate *t;

	assert_int_equal(tidegate_open(&o, &t), 0);
	return t;
}

static unsigned int segments(void)
{
	char command[160], line[32] = "";
	FILE *f;

	snprintf(command, sizeof(command), "ls -A %s | wc -l", app_dir);
	f = popen(command, "r");
	assert_non_null(fgets(line, sizeof(line), f));
	pclose(f);
	return (unsigned int)atoi(line);
}

/* An agent's segment in which the gateway of this master is being drained. */
static struct segment_writer *host_draining(pid_t master)
{
	char path[96];
	const struct segment_options so = {.path = path,
					   .kind = SEGMENT_HOST,
					   .group = (gid_t)-1,
					   .series = 8,
					   .heap_bytes = 4096};
	uint64_t now = clock_mono_ns();
	struct segment_gateway *g;
	struct segment_writer *w;
	bool is_continued;

	snprintf(path, sizeof(path), "%s/host.seg", dir);
	assert_int_equal(segment_writer_open(&so, &w, &is_continued, NULL), 0);
	segment_writer_tick_begin(w);
	segment_writer_tick_end(w, now, now, NS_PER_S);
	g = segment_writer_gateway_at(w, (unsigned int)segment_writer_gateway(w, "nginx", "h/1"));
	g->state = SEGMENT_GATEWAY_LIVE;
	g->master_pid = (uint32_t)master;
	g->draining = 1;
	return w;
}

static void test_options_are_checked(void **state)
{
	struct tidegate_options o = options();
	struct tidegate *t;

	(void)state;
	o.series = 3;
	assert_int_equal(tidegate_open(&o, &t), -EINVAL);
	assert_non_null(strstr(tidegate_error(), "3 series"));
	o = options();
	o.runtime_dir = "relative";
	assert_int_equal(tidegate_open(&o, &t), -EINVAL);
	o = options();
	o.histograms = 5000;
	assert_int_equal(tidegate_open(&o, &t), -EINVAL);
	o = options();
	o.gateway = "0123456789012345678901234567890123456789012345678901234567890123456789";
	assert_int_equal(tidegate_open(&o, &t), -EINVAL);
}

static void test_names_are_checked(void **state)
{
	static const char *const many[9] = {"a", "b", "c", "d", "e", "f", "g", "h", "i"};
	static const char *const twice[2] = {"a", "a"}, *const own[1] = {"__name"};
	struct tidegate *t = open_one();
	struct tidegate_metric *m, *same;

	(void)state;
	assert_int_equal(tidegate_counter(t, "9lives_total", "", NULL, 0, &m), -EINVAL);
	assert_int_equal(tidegate_counter(t, "", "", NULL, 0, &m), -EINVAL);
	assert_int_equal(tidegate_counter(t, "orders", "", NULL, 0, &m), -EINVAL);
	assert_non_null(strstr(tidegate_error(), "_total"));
	assert_int_equal(tidegate_histogram(t, "wait_ms", "", NULL, 0, &m), -EINVAL);
	assert_int_equal(tidegate_counter(t, "a_total", "", many, 9, &m), -E2BIG);
	assert_int_equal(tidegate_counter(t, "a_total", "", twice, 2, &m), -EINVAL);
	assert_int_equal(tidegate_counter(t, "a_total", "", own, 1, &m), -EINVAL);
	assert_int_equal(tidegate_counter(t, "a_total", "", many, 2, &m), 0);
	assert_int_equal(tidegate_counter(t, "a_total", "", many, 2, &same), 0);
	assert_ptr_equal(m, same);
	assert_int_equal(tidegate_counter(t, "a_total", "", many, 1, &same), -EEXIST);
	assert_int_equal(tidegate_gauge(t, "a_total", "", TIDEGATE_SUM, many, 2, &same), -EEXIST);
	tidegate_close(t);
}

static void test_cell_is_the_agents(void **state)
{
	const uint64_t *thresholds = histogram_thresholds();

	(void)state;
	for (unsigned int i = 0; i < HIST_THRESHOLDS; i++) {
		assert_int_equal(tidegate_cell(thresholds[i]), i);
		assert_int_equal(tidegate_cell(thresholds[i] + 1), i + 1);
	}
	assert_int_equal(tidegate_cell(UINT64_MAX), TIDEGATE_HIST_CELLS - 1);
}

static void test_seconds(void **state)
{
	struct tidegate *t = open_one();
	struct tidegate_metric *m;
	uint64_t *cells, sum = 0;

	(void)state;
	assert_int_equal(tidegate_histogram(t, "wait_seconds", "", NULL, 0, &m), 0);
	assert_int_equal(tidegate_with(m, NULL, &cells), 0);
	tidegate_observe(cells, 0.005);
	assert_int_equal(cells[tidegate_cell(5000000)], 1);
	tidegate_observe(cells, -1);
	tidegate_observe(cells, NAN);
	assert_int_equal(cells[0], 2);
	tidegate_observe(cells, INFINITY);
	assert_int_equal(cells[TIDEGATE_HIST_CELLS - 1], 1);
	for (unsigned int i = 0; i < TIDEGATE_HIST_CELLS; i++)
		sum += cells[i];
	assert_int_equal(sum, 4);
	tidegate_close(t);
}

static void test_child_counts_for_itself(void **state)
{
	struct tidegate *t = open_one();
	struct tidegate_metric *m;
	uint64_t *cell;
	int status;
	pid_t pid;

	(void)state;
	assert_int_equal(tidegate_counter(t, "a_total", "", NULL, 0, &m), 0);
	assert_int_equal(tidegate_with(m, NULL, &cell), 0);
	tidegate_add(cell, 5);
	assert_int_equal(segments(), 1);
	pid = fork();
	if (pid == 0) {
		uint64_t *again;
		bool is_fine = *cell == 0;

		tidegate_add(cell, 3);
		is_fine &= tidegate_with(m, NULL, &again) == 0 && again == cell && *cell == 3;
		is_fine &= tidegate_heartbeat(t) == 0 && segments() == 2;
		_exit(is_fine ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_int_equal(*cell, 5);
	assert_int_equal(tidegate_heartbeat(t), 0);
	tidegate_close(t);
}

/* The life in the header of each file is the one in its name. */
static bool files_say_their_names(void)
{
	char command[256];

	snprintf(command, sizeof(command),
		 "for f in %s/*.seg; do n=${f%%.seg}; test $(od -A n -t x8 -j %zu -N 8 $f) = "
		 "${n##*-} || exit 1; done",
		 app_dir, offsetof(struct segment_header, life));
	return system(command) == 0;
}

static bool child_behind_a_root_of_its_own(struct tidegate *t, const uint64_t *cell)
{
	char empty[96];

	/* Before any call: the file, and what the agent says. */
	if (segments() != 2 || *cell != 0 || !files_say_their_names())
		return false;
	snprintf(empty, sizeof(empty), "%s/empty", dir);
	if (geteuid() == 0 && (mkdir(empty, 0700) < 0 || chroot(empty) < 0 || chdir("/") < 0))
		return false;
	return tidegate_heartbeat(t) == 0 && tidegate_draining(t);
}

static void test_child_makes_its_file_at_once(void **state)
{
	struct tidegate_options o = options();
	struct segment_writer *w = host_draining(getpid());
	struct tidegate_metric *m;
	struct tidegate *t;
	uint64_t *cell;
	int status;
	pid_t pid;

	(void)state;
	o.flags = TIDEGATE_FORK_AT_ONCE;
	assert_int_equal(tidegate_open(&o, &t), 0);
	assert_int_equal(tidegate_counter(t, "a_total", "", NULL, 0, &m), 0);
	assert_int_equal(tidegate_with(m, NULL, &cell), 0);
	tidegate_inc(cell);
	pid = fork();
	if (pid == 0)
		_exit(child_behind_a_root_of_its_own(t, cell) ? 0 : 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_int_equal(segments(), 2);
	assert_true(files_say_their_names());
	/* Who beats has started its workers: what it forks now is to execute something. */
	assert_int_equal(tidegate_heartbeat(t), 0);
	pid = fork();
	if (pid == 0)
		_exit(segments() == 2 ? 0 : 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	segment_writer_close(w);
	tidegate_close(t);
}

/* A program of before a field was there, and one of after a field that is not there yet. */
static void test_options_of_other_versions(void **state)
{
	struct {
		struct tidegate_options o;
		uint64_t later[4];
	} big = {.o = options()};
	struct tidegate_options old = options();
	struct tidegate *t;

	(void)state;
	old.size = offsetof(struct tidegate_options, flags);
	old.flags = 0xffffffffu; /* not a part of what the caller knows */
	assert_int_equal(tidegate_open(&old, &t), 0);
	tidegate_close(t);
	big.o.size = sizeof(big);
	assert_int_equal(tidegate_open(&big.o, &t), 0);
	tidegate_close(t);
	old.size = 0;
	assert_int_equal(tidegate_open(&old, &t), -EINVAL);
	assert_non_null(strstr(tidegate_error(), "set size"));
	big.o.flags = 0x80;
	assert_int_equal(tidegate_open(&big.o, &t), -EINVAL);
	assert_non_null(strstr(tidegate_error(), "0x80"));
}

/* The life in the name of the only file. */
static uint64_t only_life(void)
{
	unsigned long long life = 0;
	char command[160];
	FILE *f;

	snprintf(command, sizeof(command), "ls %s | sed 's/.*-//'", app_dir);
	f = popen(command, "r");
	assert_int_equal(fscanf(f, "%llx", &life), 1);
	pclose(f);
	return life;
}

static void test_directory_comes_later(void **state)
{
	uint64_t life;
	struct tidegate_metric *m;
	struct tidegate *t;
	uint64_t *cell;

	(void)state;
	assert_int_equal(rmdir(app_dir), 0);
	t = open_one();
	assert_non_null(strstr(tidegate_error(), app_dir));
	assert_int_equal(tidegate_counter(t, "a_total", "", NULL, 0, &m), 0);
	assert_int_equal(tidegate_with(m, NULL, &cell), 0);
	tidegate_add(cell, 5);
	assert_int_equal(tidegate_heartbeat(t), -ENOENT);
	assert_int_equal(mkdir(app_dir, 0700), 0);
	assert_int_equal(tidegate_heartbeat(t), 0);
	assert_int_equal(*cell, 5);
	assert_int_equal(segments(), 1);
	life = only_life();
	tidegate_inc(cell);
	/* And goes again, with all that it held. */
	teardown(NULL);
	assert_int_equal(tidegate_heartbeat(t), -ENOENT);
	assert_int_equal(mkdir(dir, 0700) | mkdir(app_dir, 0700), 0);
	assert_int_equal(tidegate_heartbeat(t), 0);
	assert_int_equal(*cell, 6);
	assert_int_equal(segments(), 1);
	assert_true(only_life() == life);
	tidegate_close(t);
}

#define THREADS 4
#define TURNS   20011

struct thread {
	pthread_t id;
	unsigned int number;
	uint64_t count;
};

/* What a thread of a gateway does, all at once with others that do the same. */
static void *count_in_a_thread(void *data)
{
	static const char *const label[1] = {"route"};
	struct thread *self = data;
	char value[16];
	const char *values[1] = {value};
	struct tidegate *t = open_one();
	struct tidegate_metric *m;
	uint64_t *cell;
	bool is_fine;

	snprintf(value, sizeof(value), "%u", self->number);
	is_fine = tidegate_counter(t, "a_total", "", label, 1, &m) == 0 &&
		  tidegate_with(m, values, &cell) == 0;
	for (unsigned int i = 0; is_fine && i < TURNS + self->number; i++) {
		tidegate_inc(cell);
		if (i % 5000 == 0)
			is_fine = tidegate_heartbeat(t) == 0 && !tidegate_draining(t);
	}
	/* Its reason is its own. */
	is_fine = is_fine && tidegate_counter(t, value, "", NULL, 0, &m) == -EINVAL &&
		  strstr(tidegate_error(), value);
	self->count = is_fine ? *cell : 0;
	tidegate_close(t);
	return NULL;
}

static void test_threads_have_a_handle_each(void **state)
{
	struct thread threads[THREADS];

	(void)state;
	for (unsigned int i = 0; i < THREADS; i++) {
		threads[i] = (struct thread){.number = i};
		assert_int_equal(
			pthread_create(&threads[i].id, NULL, count_in_a_thread, &threads[i]), 0);
	}
	for (unsigned int i = 0; i < THREADS; i++) {
		pthread_join(threads[i].id, NULL);
		assert_int_equal(threads[i].count, TURNS + i);
	}
	assert_int_equal(segments(), THREADS);
	assert_true(files_say_their_names());
}

static void test_no_room_counts_somewhere(void **state)
{
	static const char *const label[1] = {"route"};
	struct tidegate_options o = options();
	struct tidegate_metric *m, *h;
	uint64_t *cell = NULL, *overflow = NULL, *bound[16];
	struct tidegate *t;
	char value[16];
	const char *values[1] = {value};
	unsigned int n = 0;

	(void)state;
	o.series = 16;
	o.histograms = 1;
	assert_int_equal(tidegate_open(&o, &t), 0);
	assert_int_equal(tidegate_counter(t, "a_total", "", label, 1, &m), 0);
	assert_int_equal(tidegate_histogram(t, "a_seconds", "", NULL, 0, &h), 0);
	for (unsigned int i = 0; i < 100; i++) {
		snprintf(value, sizeof(value), "%u", i);
		if (tidegate_with(m, values, &cell) == 0) {
			bound[n++] = cell;
			continue;
		}
		assert_true(!overflow || overflow == cell);
		overflow = cell;
		tidegate_inc(cell);
	}
	assert_int_equal(n, 15);
	assert_int_equal(*overflow, 85);
	for (unsigned int i = 0; i < n; i++)
		assert_ptr_not_equal(bound[i], overflow);
	/* Nothing is left for this one: it counts nowhere, and may be written to. */
	assert_int_equal(tidegate_with(h, NULL, &cell), -ENOSPC);
	tidegate_observe(cell, 1);
	assert_int_equal(*overflow, 85);
	tidegate_close(t);
}

static void test_draining_is_read(void **state)
{
	struct tidegate *t = open_one();
	struct segment_gateway *g;
	struct segment_writer *w;

	(void)state;
	assert_false(tidegate_draining(t));
	w = host_draining(getpid());
	g = segment_writer_gateway_at(w, 0);
	for (unsigned int i = 0; i < 300 && !tidegate_draining(t); i++)
		usleep(10000); /* it looks for the file once a second */
	assert_true(tidegate_draining(t));
	g->draining = 0;
	assert_false(tidegate_draining(t));
	g->draining = 1;
	segment_writer_header(w)->heartbeat_ns = clock_mono_ns() - 20 * NS_PER_S;
	assert_false(tidegate_draining(t)); /* nobody is there to end it */
	segment_writer_close(w);
	tidegate_close(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_options_are_checked, setup, teardown),
		cmocka_unit_test_setup_teardown(test_names_are_checked, setup, teardown),
		cmocka_unit_test(test_cell_is_the_agents),
		cmocka_unit_test_setup_teardown(test_seconds, setup, teardown),
		cmocka_unit_test_setup_teardown(test_child_counts_for_itself, setup, teardown),
		cmocka_unit_test_setup_teardown(test_child_makes_its_file_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_options_of_other_versions, setup, teardown),
		cmocka_unit_test_setup_teardown(test_directory_comes_later, setup, teardown),
		cmocka_unit_test_setup_teardown(test_threads_have_a_handle_each, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_room_counts_somewhere, setup, teardown),
		cmocka_unit_test_setup_teardown(test_draining_is_read, setup, teardown),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
