/* SPDX-License-Identifier: Apache-2.0 */
#include "fleet/history_store.h"
#include "fleet/history_state.h"
#include "sealed.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "history_db.h"

#define START (1700000040000ull)
#define HOUR  (3600 * 1000ull)

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

/* One key frame: counter 1 says its sequence. */
static int put(struct history_store *s, uint32_t stream, uint64_t minute, uint64_t sequence)
{
	uint64_t start_ms = START + minute * MINUTE_MS;
	struct err e = {{0}};
	struct sheaf *sheaf;
	int r;

	assert_int_equal(sheaf_new(start_ms, &sheaf), 0);
	sealed_add(sheaf, sequence, start_ms + sequence % 60 * 1000, sequence);
	r = history_store_put(s, stream, sheaf, &e);
	if (r < 0)
		print_message("# %s\n", e.text);
	sheaf_free(sheaf);
	return r;
}

/* What there is of two streams and some minutes: x and its frames, t and the total of its end. */
static void has(struct history_store *s, const char *want)
{
	static const uint64_t minutes[] = {0, 1, 70, 20161};
	char text[4096] = "";

	for (unsigned int i = 0; i < 4; i++) {
		for (uint32_t stream = 1; stream <= 2; stream++) {
			uint64_t start_ms = START + minutes[i] * MINUTE_MS;
			struct sheaf *sheaf;
			struct minute *end;
			char *at = text + strlen(text);

			if (history_store_ticks(s, stream, start_ms, &sheaf, NULL) == 0) {
				at += sprintf(at, "%u@%lux%zu ", stream, (unsigned long)minutes[i],
					      sheaf_frames(sheaf));
				sheaf_free(sheaf);
			}
			if (history_store_end(s, stream, start_ms, &end, NULL) == 0) {
				sprintf(at, "%u@%lut%lu ", stream, (unsigned long)minutes[i],
					(unsigned long)sealed_total(end));
				minute_free(end);
			}
		}
	}
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

	assert_int_equal(history_store_stream(s, agent, incarnation, START, &id, NULL), 0);
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
	has(s, "1@0x2 1@0t2 2@0x1 2@0t2 1@1x1 1@1t61 ");
	begin(s);
	assert_int_equal(put(s, a, 0, 1), 0);
	assert_int_equal(put(s, a, 0, 3), 1);
	commit(s);
	has(s, "1@0x3 1@0t3 2@0x1 2@0t2 1@1x1 1@1t61 ");
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
	has(s, "1@0x1 1@0t1 1@1x1 1@1t2 1@70x1 1@70t3 ");
	/* In steps, and only what is older than an hour. */
	assert_int_equal(history_store_age(s, START + 71 * MINUTE_MS, 1, NULL), 1);
	has(s, "1@0t1 1@1x1 1@1t2 1@70x1 1@70t3 ");
	assert_int_equal(history_store_age(s, START + 71 * MINUTE_MS, 100, NULL), 0);
	has(s, "1@0t1 1@1t2 1@70x1 1@70t3 ");
	assert_int_equal(put(s, a, 0, 1), 0);
	assert_int_equal(history_store_stats(s)->frames_late, 0);
	assert_int_equal(put(s, a, 0, 9), 0);
	assert_int_equal(history_store_stats(s)->frames_late, 1);
	has(s, "1@0t1 1@1t2 1@70x1 1@70t3 ");
	/* Years ahead: a clock gone wrong expires nothing. */
	assert_int_equal(history_store_age(s, START + 100000 * HOUR, 100, NULL), 0);
	assert_int_equal(history_store_stats(s)->minutes_expired, 0);
	put(s, a, days + 1, 4);
	assert_int_equal(history_store_newest_ms(s), START + (days + 1) * MINUTE_MS);
	assert_int_equal(history_store_age(s, START + (days + 1) * MINUTE_MS, 100, NULL), 0);
	assert_int_equal(history_store_stats(s)->minutes_expired, 1);
	has(s, "1@1t2 1@70t3 1@20161x1 1@20161t4 ");
	commit(s);
	history_store_close(s);
}

/* A backlog: ticks that are old when they come wait for the rest of their minute, over a restart. */
static void an_old_minute_may_come_in_parts(void **state)
{
	struct history_options o = options;
	struct history_store *s;
	uint32_t a;

	(void)state;
	o.rest_ms = HOUR;
	s = open_with(&o);
	begin(s);
	a = stream(s, "a", life);
	put(s, a, 70, 3);
	put(s, a, 0, 1);
	assert_int_equal(history_store_age(s, START + 71 * MINUTE_MS, 100, NULL), 0);
	commit(s);
	begin(s);
	assert_int_equal(put(s, a, 0, 2), 1);
	commit(s);
	history_store_close(s);

	s = open_with(&o);
	begin(s);
	assert_int_equal(history_store_age(s, START + 71 * MINUTE_MS, 100, NULL), 0);
	assert_int_equal(put(s, a, 0, 4), 1);
	assert_int_equal(history_store_stats(s)->frames_late, 0);
	has(s, "1@0x3 1@0t4 1@70x1 1@70t3 ");
	commit(s);
	history_store_close(s);

	/* Two periods later they go. */
	o.rest_ms = 1;
	s = open_with(&o);
	begin(s);
	for (int i = 0; i < 3; i++) {
		nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
		assert_true(history_store_age(s, START + 71 * MINUTE_MS, 100, NULL) >= 0);
	}
	commit(s);
	has(s, "1@0t4 1@70x1 1@70t3 ");
	/* What comes then waits, too. */
	s->options.rest_ms = HOUR;
	begin(s);
	put(s, a, 1, 5);
	assert_int_equal(history_store_age(s, START + 71 * MINUTE_MS, 100, NULL), 0);
	commit(s);
	has(s, "1@0t4 1@1x1 1@1t5 1@70x1 1@70t3 ");
	history_store_close(s);
}

struct seen {
	char text[512];
	uint32_t metric;
};

static int on_metric(void *data, const struct history_metric *m)
{
	struct seen *seen = data;

	seen->metric = m->id;
	sprintf(seen->text + strlen(seen->text), "%s(%s) ", m->name, m->unit);
	return 0;
}

static int on_row(void *data, const struct history_row *row)
{
	struct seen *seen = data;

	sprintf(seen->text + strlen(seen->text), "%u:%u %s %s=%s ", row->stream, row->id,
		row->agent, row->labels[0].key, row->labels[0].value);
	return 0;
}

static void define(struct history_store *s, uint32_t to, uint32_t id, const char *instance)
{
	struct history_definition d = {.id = id,
				       .name = "tidegate_requests_total",
				       .unit = "",
				       .help = "h",
				       .kind = METRIC_COUNTER,
				       .label_count = 1,
				       .labels = {{"instance", instance}}};

	assert_int_equal(history_store_define(s, to, &d, NULL), 0);
}

static void series_go_with_their_stream(void **state)
{
	struct history_options o = options;
	struct history_store *s;
	struct seen seen = {{0}, 0};
	uint32_t a, b;

	(void)state;
	o.keep_ms = HOUR;
	s = open_with(&o);
	begin(s);
	a = stream(s, "web/1", life);
	define(s, a, 1, "web/1/1");
	define(s, a, 1, "not again");
	define(s, a, 2, "web/1/2");
	put(s, a, 0, 1);
	assert_int_equal(
		history_store_define(s, a,
				     &(struct history_definition){
					     .id = 3, .name = "fleeting", .unit = "s", .help = ""},
				     NULL),
		0);
	b = stream(s, "web/2", other);
	define(s, b, 1, "web/2/1");
	put(s, b, 70, 1);
	assert_int_equal(history_store_metrics(s, on_metric, &seen, NULL), 0);
	assert_string_equal(seen.text, "fleeting(s) tidegate_requests_total() ");
	seen.text[0] = '\0';
	history_store_series(s, seen.metric, START, START, on_row, &seen, NULL);
	assert_string_equal(seen.text, "1:1 web/1 instance=web/1/1 1:2 web/1 instance=web/1/2 "
				       "2:1 web/2 instance=web/2/1 ");
	seen.text[0] = '\0';
	history_store_series(s, seen.metric, START + HOUR, START + 2 * HOUR, on_row, &seen, NULL);
	assert_string_equal(seen.text, "2:1 web/2 instance=web/2/1 ");
	/* All minutes of the first are gone. */
	put(s, b, 200, 2);
	while (history_store_age(s, START + 200 * MINUTE_MS, 10, NULL) > 0)
		;
	seen.text[0] = '\0';
	history_store_series(s, seen.metric, 0, UINT64_MAX, on_row, &seen, NULL);
	assert_string_equal(seen.text, "2:1 web/2 instance=web/2/1 ");
	/* And a metric with its last series. */
	seen.text[0] = '\0';
	assert_int_equal(history_store_metrics(s, on_metric, &seen, NULL), 0);
	assert_string_equal(seen.text, "tidegate_requests_total() ");
	commit(s);
	history_store_close(s);
}

static int count_of(const char *sql)
{
	sqlite3_stmt *q;
	sqlite3 *db;
	int n;

	assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(db, sql, -1, &q, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(q), SQLITE_ROW);
	n = sqlite3_column_int(q, 0);
	sqlite3_finalize(q);
	sqlite3_close(db);
	return n;
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
	for (unsigned int i = 0; i < 6000; i++)
		put(s, a, i, i);
	while (history_store_age(s, START + 6000 * MINUTE_MS, 500, NULL) > 0)
		;
	commit(s);
	assert_true(history_store_stats(s)->bytes <= o.bytes_max);
	assert_true(history_store_stats(s)->bytes > o.bytes_max / 2);
	assert_true(history_store_stats(s)->minutes_evicted > 0);
	history_store_close(s);
}

/* As the thread of a large fleet does: a transaction a second, each with more rows than evict once
 * took away. */
static void bytes_are_bounded_while_it_is_written(void **state)
{
	struct history_options o = options;
	struct history_store *s;
	uint32_t streams[200];
	uint64_t minute;

	(void)state;
	o.bytes_max = 192 << 10;
	s = open_with(&o);
	begin(s);
	for (unsigned int i = 0; i < 200; i++) {
		char name[16];

		snprintf(name, sizeof(name), "web/%u", i);
		streams[i] = stream(s, name, life);
	}
	commit(s);
	for (minute = 0; minute < 40; minute++) {
		begin(s);
		for (unsigned int i = 0; i < 200; i++)
			assert_int_equal(put(s, streams[i], minute, minute + 1), 1);
		assert_true(history_store_age_within(s, START + minute * MINUTE_MS, 60 * NS_PER_S,
						     NULL) >= 0);
		commit(s);
		assert_true(history_store_stats(s)->bytes <= o.bytes_max);
	}
	assert_true(history_store_stats(s)->minutes_evicted > 0);
	/* Ticks alone do not suffice: ends go too, and then the streams that have none left. */
	begin(s);
	for (; minute < 400; minute++) {
		for (unsigned int i = 0; i < 20; i++)
			assert_int_equal(put(s, streams[0], minute * 20 + i, minute), 1);
		assert_true(history_store_age(s, START + minute * 20 * MINUTE_MS, 64, NULL) >= 0);
	}
	commit(s);
	assert_int_equal(count_of("SELECT count(*) FROM stream"), 1);
	history_store_close(s);
}

/* What one minute cannot hold is left out and counted; it is no reason to write nothing. */
static void what_does_not_fit_is_left_out(void **state)
{
	struct history_store *s = open_with(&options);
	uint8_t large[64 << 10] = {1};
	struct err e = {{0}};
	struct sheaf *sheaf;
	uint32_t a;

	(void)state;
	begin(s);
	a = stream(s, "a", life);
	for (uint64_t half = 0; half < 2; half++) {
		assert_int_equal(sheaf_new(START, &sheaf), 0);
		for (uint64_t i = 0; i < 40; i++)
			assert_int_equal(sheaf_add(sheaf, 1 + half * 40 + i, START + i, false,
						   large, sizeof(large)),
					 1);
		assert_int_equal(history_store_put(s, a, sheaf, &e),
				 half ? SHEAF_BYTES_MAX / sizeof(large) - 40 : 40);
		sheaf_free(sheaf);
	}
	assert_int_equal(history_store_stats(s)->frames_refused,
			 80 - SHEAF_BYTES_MAX / sizeof(large));
	assert_int_equal(history_store_stats(s)->frames_written, SHEAF_BYTES_MAX / sizeof(large));
	assert_int_equal(put(s, a, 1, 1), 1);
	commit(s);
	begin(s);
	assert_int_equal(put(s, a, 70, 2), 1);
	history_store_rollback(s);
	assert_int_equal(history_store_stats(s)->frames_written,
			 SHEAF_BYTES_MAX / sizeof(large) + 1);
	has(s, "1@0x64 1@1x1 1@1t1 ");
	history_store_close(s);
}

/* An id that is free again is given again, and too many streams are no fault of the database. */
static void streams_are_limited(void **state)
{
	struct history_options o = options;
	struct history_store *s;
	struct err e = {{0}};
	uint32_t id = 0;
	sqlite3 *db;

	(void)state;
	o.streams_max = 3;
	s = open_with(&o);
	begin(s);
	assert_int_equal(stream(s, "a", life), 1);
	assert_int_equal(stream(s, "b", life), 2);
	assert_int_equal(stream(s, "c", life), 3);
	assert_int_equal(history_store_stream(s, "d", life, START, &id, &e), -EOVERFLOW);
	assert_int_equal(stream(s, "c", life), 3);
	commit(s);
	assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "DELETE FROM stream WHERE id = 2", NULL, NULL, NULL),
			 SQLITE_OK);
	sqlite3_close(db);
	begin(s);
	assert_int_equal(stream(s, "d", life), 2);
	assert_int_equal(history_store_stream(s, "e", life, START, &id, &e), -EOVERFLOW);
	commit(s);
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
		for (unsigned int i = 1; i < 2000; i++)
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
	has(s, "1@0x1 1@0t1 ");
	begin(s);
	assert_int_equal(put(s, 1, 0, 1), 0);
	assert_int_equal(put(s, 1, 1, 1), 1);
	commit(s);
	has(s, "1@0x1 1@0t1 1@1x1 1@1t1 ");
	history_store_close(s);
}

#define KILLS 20
#define BATCH 8

/* Writes and ages for ever, a minute a row, and says after each commit how far it is. */
static void write_for_ever(int report, unsigned int from)
{
	struct history_options o = options;
	struct history_store *s;
	uint32_t a;

	o.ticks_ms = 10 * MINUTE_MS;
	s = open_with(&o);
	for (unsigned int minute = from;;) {
		begin(s);
		a = stream(s, "a", life);
		for (unsigned int i = 0; i < BATCH; i++, minute++)
			assert_int_equal(put(s, a, minute, minute + 1), 1);
		assert_true(history_store_age(s, START + minute * MINUTE_MS, 100, NULL) >= 0);
		commit(s);
		if (write(report, &minute, sizeof(minute)) != sizeof(minute))
			_exit(1);
	}
}

static void is_whole(void)
{
	sqlite3_stmt *q;
	sqlite3 *db;

	assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &q, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_step(q), SQLITE_ROW);
	assert_string_equal((const char *)sqlite3_column_text(q, 0), "ok");
	sqlite3_finalize(q);
	sqlite3_close(db);
}

/* Killed anywhere, in a put, while it ages, in a commit: every minute that was committed is there,
 * whole, and its ticks are gone where they were old. */
static void killed_anywhere_it_goes_on(void **state)
{
	unsigned int minutes = 0;

	(void)state;
	for (unsigned int kills = 0; kills < KILLS; kills++) {
		unsigned int told = 0, next, rounds = 1 + kills % 4;
		struct timespec little = {.tv_nsec = (long)(kills * 7919 % 997) * 2000};
		int ends[2], status;
		struct history_store *s;
		struct minute *end;
		struct sheaf *sheaf;
		pid_t child;

		assert_int_equal(pipe(ends), 0);
		child = fork();
		if (child == 0)
			write_for_ever(ends[1], minutes);
		close(ends[1]);
		for (unsigned int i = 0; i < rounds; i++)
			assert_int_equal(read(ends[0], &told, sizeof(told)), sizeof(told));
		/* No waiting for anything: another place of the work for each. */
		nanosleep(&little, NULL);
		kill(child, SIGKILL);
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_true(WIFSIGNALED(status));
		while (read(ends[0], &next, sizeof(next)) == sizeof(next))
			told = next;
		close(ends[0]);
		is_whole();
		s = open_with(&options);
		for (unsigned int i = 0; i < told; i++) {
			assert_int_equal(history_store_end(s, 1, START + i * MINUTE_MS, &end, NULL),
					 0);
			assert_int_equal(sealed_total(end), i + 1);
			minute_free(end);
		}
		assert_int_equal(
			history_store_ticks(s, 1, START + (told - 1) * MINUTE_MS, &sheaf, NULL), 0);
		sheaf_free(sheaf);
		if (told > 20)
			assert_int_equal(history_store_ticks(s, 1, START, &sheaf, NULL), -ENOENT);
		/* A commit may have been made that nobody was told of. */
		minutes = (unsigned int)((history_store_newest_ms(s) - START) / MINUTE_MS) + 1;
		assert_true(minutes >= told && minutes <= told + BATCH);
		history_store_close(s);
	}
	assert_true(minutes >= KILLS * BATCH);
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
	return history_db_begin();
}

static int teardown(void **state)
{
	(void)state;
	return history_db_end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_is_written_is_read_after_a_restart, setup,
						teardown),
		cmocka_unit_test_setup_teardown(it_ages, setup, teardown),
		cmocka_unit_test_setup_teardown(an_old_minute_may_come_in_parts, setup, teardown),
		cmocka_unit_test_setup_teardown(series_go_with_their_stream, setup, teardown),
		cmocka_unit_test_setup_teardown(bytes_are_bounded, setup, teardown),
		cmocka_unit_test_setup_teardown(bytes_are_bounded_while_it_is_written, setup,
						teardown),
		cmocka_unit_test_setup_teardown(what_does_not_fit_is_left_out, setup, teardown),
		cmocka_unit_test_setup_teardown(streams_are_limited, setup, teardown),
		cmocka_unit_test_setup_teardown(killed_it_has_what_was_committed, setup, teardown),
		cmocka_unit_test_setup_teardown(killed_anywhere_it_goes_on, setup, teardown),
		cmocka_unit_test_setup_teardown(junk_is_put_aside, setup, teardown),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
