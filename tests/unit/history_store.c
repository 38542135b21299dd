/* SPDX-License-Identifier: Apache-2.0 */
#include "fleet/history_store.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define START (1700000040000ull)
#define HOUR  (3600 * 1000ull)

static char dir[] = "/tmp/history_store.XXXXXX", path[64];
static const uint8_t life[FRAME_INCARNATION_BYTES] = {1, 2, 3},
		     other[FRAME_INCARNATION_BYTES] = {4};
static const struct history_options options = {.ticks_ms = HOUR, .keep_ms = 14 * 24 * HOUR};

static struct history_store *open_with(const struct history_options *o)
{
	struct history_store *s = NULL;
	struct err e = {{0}};
	int r = history_store_open(path, o, &s, &e);

	if (r < 0)
		print_message("# %s\n", e.text);
	assert_int_equal(r, 0);
	return s;
}

/* One frame: counter 1 says its sequence. */
static int put(struct history_store *s, uint32_t stream, uint64_t minute, uint64_t sequence)
{
	struct frame_counter counter = {.id = 1, .value = sequence};
	struct frame f = {.sequence = sequence,
			  .time_ms = START + minute * MINUTE_MS + sequence % 60 * 1000,
			  .is_key = true,
			  .counter_count = 1,
			  .counters = &counter};
	struct err e = {{0}};
	struct minute *m;
	int r;

	assert_int_equal(minute_new(START + minute * MINUTE_MS, &m), 0);
	assert_int_equal(minute_add(m, &f), 1);
	r = history_store_put(s, stream, m, &e);
	if (r < 0)
		print_message("# %s\n", e.text);
	minute_free(m);
	return r;
}

static int on_minute(void *data, uint32_t stream, struct minute *m)
{
	char *text = data;

	sprintf(text + strlen(text), "%u@%lu%s%zu ", stream,
		(unsigned long)((minute_start_ms(m) - START) / MINUTE_MS),
		minute_is_thin(m) ? "t" : "x", minute_ticks(m));
	return 0;
}

static void has(struct history_store *s, const char *want)
{
	char text[4096] = "";

	assert_int_equal(history_store_each(s, 0, UINT64_MAX, on_minute, text, NULL), 0);
	assert_string_equal(text, want);
}

static void begin(struct history_store *s)
{
	assert_int_equal(history_store_begin(s, NULL), 0);
}

static void commit(struct history_store *s)
{
	assert_int_equal(history_store_commit(s, NULL), 0);
}

static uint32_t stream(struct history_store *s, const char *agent, const uint8_t *incarnation)
{
	uint32_t id = 0;

	assert_int_equal(history_store_stream(s, agent, incarnation, &id, NULL), 0);
	assert_int_not_equal(id, 0);
	return id;
}

static void what_is_written_is_read_after_a_restart(void **state)
{
	struct history_store *s = open_with(&options);
	uint32_t a, b;

	(void)state;
	begin(s);
	a = stream(s, "web/1", life);
	b = stream(s, "web/1", other);
	assert_int_not_equal(a, b);
	assert_int_equal(stream(s, "web/1", life), a);
	assert_int_equal(put(s, a, 0, 1), 1);
	assert_int_equal(put(s, a, 0, 2), 1);
	assert_int_equal(put(s, a, 0, 2), 0); /* a replay */
	assert_int_equal(put(s, b, 0, 2), 1);
	assert_int_equal(put(s, a, 1, 61), 1);
	commit(s);
	history_store_close(s);

	s = open_with(&options);
	has(s, "1@0x2 2@0x1 1@1x1 ");
	begin(s);
	assert_int_equal(put(s, a, 0, 1), 0);
	assert_int_equal(put(s, a, 0, 3), 1);
	commit(s);
	has(s, "1@0x3 2@0x1 1@1x1 ");
	history_store_close(s);
}

static void it_ages(void **state)
{
	struct history_store *s = open_with(&options);
	uint64_t days = 14 * 24 * 60; /* in minutes */
	uint32_t a;

	(void)state;
	begin(s);
	a = stream(s, "a", life);
	put(s, a, 0, 1);
	put(s, a, 1, 2);
	put(s, a, 70, 3);
	/* The clock stepped back: nothing is due. */
	assert_int_equal(history_store_age(s, START - HOUR, 100, NULL), 0);
	assert_int_equal(history_store_age(s, 0, 100, NULL), 0);
	has(s, "1@0x1 1@1x1 1@70x1 ");
	/* In steps, and only what is older than an hour. */
	assert_int_equal(history_store_age(s, START + 71 * MINUTE_MS, 1, NULL), 1);
	has(s, "1@0t1 1@1x1 1@70x1 ");
	assert_int_equal(history_store_age(s, START + 71 * MINUTE_MS, 100, NULL), 0);
	has(s, "1@0t1 1@1t1 1@70x1 ");
	assert_int_equal(put(s, a, 0, 1), 0);
	assert_int_equal(history_store_stats(s)->frames_late, 0);
	assert_int_equal(put(s, a, 0, 9), 0);
	assert_int_equal(history_store_stats(s)->frames_late, 1);
	/* Years ahead: a clock gone wrong expires nothing. */
	assert_int_equal(history_store_age(s, START + 100000 * HOUR, 100, NULL), 0);
	assert_int_equal(history_store_stats(s)->minutes_expired, 0);
	put(s, a, days + 1, 4);
	assert_int_equal(history_store_age(s, START + (days + 1) * MINUTE_MS, 100, NULL), 0);
	assert_int_equal(history_store_stats(s)->minutes_expired, 1);
	has(s, "1@1t1 1@70t1 1@20161x1 ");
	commit(s);
	history_store_close(s);
}

static void bytes_are_bounded(void **state)
{
	struct history_options o = options;
	struct history_store *s;
	uint32_t a;

	(void)state;
	o.bytes_max = 128 << 10;
	s = open_with(&o);
	begin(s);
	a = stream(s, "a", life);
	for (unsigned int i = 0; i < 8000; i++)
		put(s, a, i, i);
	while (history_store_age(s, START + 8000 * MINUTE_MS, 500, NULL) > 0)
		;
	commit(s);
	assert_true(history_store_stats(s)->bytes <= o.bytes_max);
	assert_true(history_store_stats(s)->bytes > o.bytes_max / 2);
	assert_true(history_store_stats(s)->minutes_evicted > 0);
	history_store_close(s);
}

/* The child is killed with one transaction committed and another open. */
static void killed_it_has_what_was_committed(void **state)
{
	int ends[2], status;
	struct history_store *s;
	pid_t child;
	char c;

	(void)state;
	assert_int_equal(pipe(ends), 0);
	child = fork();
	if (child == 0) {
		uint32_t a;

		s = open_with(&options);
		begin(s);
		a = stream(s, "a", life);
		put(s, a, 0, 1);
		commit(s);
		begin(s);
		for (unsigned int i = 1; i < 5000; i++)
			put(s, a, i, i);
		if (write(ends[1], "x", 1) == 1)
			pause();
		_exit(1);
	}
	close(ends[1]);
	assert_int_equal(read(ends[0], &c, 1), 1);
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, &status, 0), child);
	close(ends[0]);
	s = open_with(&options);
	has(s, "1@0x1 ");
	begin(s);
	assert_int_equal(put(s, 1, 0, 1), 0);
	assert_int_equal(put(s, 1, 1, 1), 1);
	commit(s);
	has(s, "1@0x1 1@1x1 ");
	history_store_close(s);
}

static void junk_is_put_aside(void **state)
{
	char bad[80], junk[8192];
	struct history_store *s;
	struct stat st;
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	(void)state;
	memset(junk, 'j', sizeof(junk));
	assert_int_equal(write(fd, junk, sizeof(junk)), sizeof(junk));
	close(fd);
	s = open_with(&options);
	has(s, "");
	history_store_close(s);
	snprintf(bad, sizeof(bad), "%s.bad", path);
	assert_int_equal(stat(bad, &st), 0);
	assert_int_equal(st.st_size, sizeof(junk));
}

static int setup(void **state)
{
	(void)state;
	strcpy(dir + strlen(dir) - 6, "XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/history.db", dir);
	return 0;
}

static int teardown(void **state)
{
	static const char *const endings[] = {"", "-wal", "-shm", ".bad", ".bad-wal", ".bad-shm"};
	char name[96];

	(void)state;
	for (size_t i = 0; i < 6; i++) {
		snprintf(name, sizeof(name), "%s%s", path, endings[i]);
		unlink(name);
	}
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_is_written_is_read_after_a_restart, setup,
						teardown),
		cmocka_unit_test_setup_teardown(it_ages, setup, teardown),
		cmocka_unit_test_setup_teardown(bytes_are_bounded, setup, teardown),
		cmocka_unit_test_setup_teardown(killed_it_has_what_was_committed, setup, teardown),
		cmocka_unit_test_setup_teardown(junk_is_put_aside, setup, teardown),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
