/* SPDX-License-Identifier: Apache-2.0 */
/* The thread beside the core: what it is given is in the database, whatever ends when. */
#include "fleet/history.h"
#include "fleet/history_thread.h"
#include "sealed.h"

#include "base/clock.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "history_db.h"

#define HOUR (3600 * 1000ull)
#define DAY  (24 * HOUR)

static const uint8_t life[FRAME_INCARNATION_BYTES] = {1, 2, 3};
static struct history_options options = {.ticks_ms = HOUR, .keep_ms = 14 * DAY};
static uint64_t start_ms; /* of a minute, not long ago */

struct world {
	struct fleet *fleet;
	struct history *history;
	uint32_t session;
};

static void world_open(struct world *w)
{
	const struct fleet_limits limits = {.agents = 4, .agent_series = 64, .series = 256};
	const struct fleet_hello hello = {
		.agent = "web/1", .incarnation = life, .labels = {"", "", "", ""}};
	struct err e = {{0}};

	assert_int_equal(fleet_new(&limits, &w->fleet), 0);
	assert_int_equal(fleet_say_hello(w->fleet, &hello, 0, start_ms, &w->session, &e), 0);
	assert_int_equal(history_open(path, &options, &w->history, &e), 0);
}

static void world_close(struct world *w)
{
	w->history = history_close(w->history);
	w->fleet = fleet_free(w->fleet);
}

/* As the core does: applied first. What was applied in another life may be given again. */
static void give(struct world *w, uint64_t sequence)
{
	const uint8_t *sealed;
	struct frame *frame;
	size_t size;

	sealed_frame(sequence, start_ms + sequence * 1000, sequence * 10, &sealed, &size);
	assert_int_equal(frame_decode(sealed, size, &frame, NULL), 0);
	fleet_apply(w->fleet, w->session, frame, size, start_ms, NULL);
	history_take(w->history, w->fleet, w->session, frame, sealed, size);
	frame_free(frame);
}

static int on_row(void *data, const struct history_row *row)
{
	*(uint32_t *)data = row->stream;
	assert_string_equal(row->agent, "web/1");
	assert_int_equal(row->label_count, 1);
	assert_string_equal(row->labels[0].key, "instance");
	assert_string_equal(row->labels[0].value, "web/1/1");
	return 0;
}

static int on_metric(void *data, const struct history_metric *m)
{
	assert_string_equal(m->name, "tidegate_requests_total");
	*(uint32_t *)data = m->id;
	return 0;
}

/* Frames of the first minute in the database; its stream. */
static size_t stored(uint32_t *ret_stream)
{
	struct history_store *s;
	struct sheaf *sheaf;
	uint32_t metric = 0;
	size_t n = 0;

	*ret_stream = 0;
	assert_int_equal(history_store_open_reader(path, &s, NULL), 0);
	assert_int_equal(history_store_metrics(s, on_metric, &metric, NULL), 0);
	assert_int_equal(history_store_series(s, metric, 0, UINT64_MAX, on_row, ret_stream, NULL),
			 0);
	if (history_store_ticks(s, *ret_stream, start_ms, &sheaf, NULL) == 0) {
		n = sheaf_frames(sheaf);
		sheaf_free(sheaf);
	}
	history_store_close(s);
	return n;
}

static void what_is_taken_is_written_at_the_end(void **state)
{
	struct history_counts counts;
	uint32_t stream;
	struct world w;

	(void)state;
	world_open(&w);
	for (uint64_t i = 0; i < 50; i++)
		give(&w, i + 1);
	give(&w, 7);
	history_counts(w.history, &counts);
	assert_int_equal(counts.frames_dropped, 0);
	world_close(&w);
	assert_int_equal(stored(&stream), 50);
	/* A second life is given some of it again. */
	world_open(&w);
	for (uint64_t i = 40; i < 57; i++)
		give(&w, i + 1);
	world_close(&w);
	assert_int_equal(stored(&stream), 57);
	assert_int_equal(stream, 1);
}

static void wait_readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	assert_int_equal(poll(&p, 1, 30000), 1);
}

static struct {
	uint8_t data[4096];
	size_t size, count;
} saved;

static int on_record(void *data, uint32_t type, const void *payload, size_t size)
{
	(void)data;
	assert_int_equal(type, HISTORY_RECORD);
	assert_true(size <= sizeof(saved.data));
	memcpy(saved.data, payload, size);
	saved.size = size;
	saved.count++;
	return 0;
}

/* A child does as a core that is killed after its fold: what came before is in the database, what
 * came during the fold is in the records. */
static void a_fold_has_everything(void **state)
{
	uint32_t stream;
	struct world w;
	int ends[2], status;
	pid_t child;

	(void)state;
	assert_int_equal(pipe(ends), 0);
	child = fork();
	if (child == 0) {
		world_open(&w);
		for (uint64_t i = 0; i < 20; i++)
			give(&w, i + 1);
		history_fold_begin(w.history);
		wait_readable(history_fd(w.history));
		assert_true(history_fold_is_reached(w.history));
		give(&w, 21);
		assert_int_equal(history_save(w.history, on_record, NULL), 0);
		assert_int_equal(saved.count, 1);
		assert_int_equal(write(ends[1], saved.data, saved.size), saved.size);
		for (;;)
			pause();
	}
	close(ends[1]);
	saved.size = (size_t)read(ends[0], saved.data, sizeof(saved.data));
	kill(child, SIGKILL);
	assert_int_equal(waitpid(child, &status, 0), child);
	close(ends[0]);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(stored(&stream), 20);
	world_open(&w);
	give(&w, 1); /* in a real life the fleet knows the series from its snapshot */
	assert_int_equal(history_restore(w.history, w.fleet, saved.data, saved.size), 0);
	world_close(&w);
	assert_int_equal(stored(&stream), 21);
}

static void after_a_fold_it_goes_on(void **state)
{
	uint32_t stream;
	struct world w;

	(void)state;
	world_open(&w);
	assert_false(history_fold_is_reached(w.history));
	give(&w, 1);
	for (int i = 0; i < 3; i++) {
		history_fold_begin(w.history);
		assert_true(history_fold_wait(w.history, 60000));
		give(&w, 2 + (uint64_t)i);
		assert_true(history_fold_is_reached(w.history));
		history_fold_end(w.history);
		assert_false(history_fold_is_reached(w.history));
	}
	history_fold_begin(w.history); /* and nobody ends it */
	world_close(&w);
	assert_int_equal(stored(&stream), 4);
}

static void what_is_in_memory_can_be_read(void **state)
{
	uint64_t until = clock_mono_ns() + 30 * NS_PER_S;
	struct sheaf **list = NULL;
	uint32_t stream;
	size_t n = 0, frames = 0;
	struct world w;

	(void)state;
	world_open(&w);
	for (uint64_t i = 0; i < 5; i++)
		give(&w, i + 1);
	while (frames < 5 && clock_mono_ns() < until) {
		assert_int_equal(history_peek(w.history, 1, start_ms, start_ms, &list, &n), 0);
		frames = n ? sheaf_frames(list[0]) : 0;
		while (n)
			sheaf_free(list[--n]);
		free(list);
	}
	assert_int_equal(frames, 5);
	assert_int_equal(stored(&stream), 0);
	assert_int_equal(history_peek(w.history, 1, start_ms + HOUR, start_ms + HOUR, &list, &n),
			 0);
	assert_int_equal(n, 0);
	free(list);
	assert_int_equal(history_peek(w.history, 99, 0, UINT64_MAX, &list, &n), 0);
	assert_int_equal(n, 0);
	world_close(&w);
}

/* There is a place for one: what a second life says is counted, and the first goes on. */
static void too_many_streams_are_counted(void **state)
{
	static const uint8_t second[FRAME_INCARNATION_BYTES] = {9};
	const struct fleet_hello hello = {
		.agent = "web/2", .incarnation = second, .labels = {"", "", "", ""}};
	struct history_counts counts;
	uint32_t stream, session;
	struct err e;
	struct world w;

	(void)state;
	options.streams_max = 1;
	world_open(&w);
	options.streams_max = 0;
	give(&w, 1);
	session = w.session;
	assert_int_equal(fleet_say_hello(w.fleet, &hello, 0, start_ms, &w.session, &e), 0);
	give(&w, 2);
	give(&w, 3);
	assert_true(history_fold_begin(w.history));
	assert_true(history_fold_wait(w.history, 60000));
	history_counts(w.history, &counts);
	assert_int_equal(counts.frames_refused, 2);
	assert_int_equal(counts.failures, 0);
	history_fold_end(w.history);
	w.session = session;
	give(&w, 4);
	world_close(&w);
	assert_int_equal(stored(&stream), 2);
}

/* Waits for a state of the writing side. */
static bool becomes_failing(struct world *w, bool wanted)
{
	uint64_t until = clock_mono_ns() + 60 * NS_PER_S;
	struct history_counts counts;

	do {
		struct pollfd none;

		poll(&none, 0, 20);
		history_counts(w->history, &counts);
	} while (counts.is_failing != wanted && clock_mono_ns() < until);
	return counts.is_failing == wanted;
}

/* Somebody else holds the database: said, tried again, and nothing is lost. */
static void a_disk_that_refuses_is_tried_again(void **state)
{
	struct history_counts counts;
	uint32_t stream;
	struct world w;
	sqlite3 *db;

	(void)state;
	world_open(&w);
	assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
	for (uint64_t i = 0; i < 10; i++)
		give(&w, i + 1);
	assert_true(becomes_failing(&w, true));
	history_counts(w.history, &counts);
	assert_true(counts.failures >= 1);
	assert_non_null(strstr(counts.why, "locked"));
	/* A fold is not reached before what came until then is in the database: the log is cut. */
	assert_true(history_fold_begin(w.history));
	assert_false(history_fold_wait(w.history, 3000));
	assert_false(history_fold_is_reached(w.history));
	give(&w, 11);
	assert_int_equal(sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
	assert_true(becomes_failing(&w, false));
	assert_true(history_fold_wait(w.history, 60000));
	assert_true(history_fold_is_reached(w.history));
	assert_true(stored(&stream) >= 10);
	history_fold_end(w.history);
	world_close(&w);
	assert_int_equal(stored(&stream), 11);
}

/* The queue is full: what a new life means is not packed for each of its frames, and told later. */
static void definitions_wait_for_room(void **state)
{
	static uint8_t junk[1 << 20] = {1};
	struct frame frame = {.sequence = 1000};
	uint64_t until = clock_mono_ns() + 60 * NS_PER_S, failed_ns, sequence = 1, dropped;
	struct history_counts counts;
	uint32_t stream;
	struct world w;

	(void)state;
	world_open(&w);
	give(&w, 1);
	assert_true(history_fold_begin(w.history));
	assert_true(history_fold_wait(w.history, 60000));
	frame.time_ms = start_ms;
	history_counts(w.history, &counts);
	for (size_t size = sizeof(junk); size; size /= 2) {
		do {
			dropped = counts.frames_dropped;
			frame.sequence++;
			history_take(w.history, w.fleet, w.session, &frame, junk, size);
			history_counts(w.history, &counts);
		} while (counts.frames_dropped == dropped);
	}
	assert_true(counts.queue_bytes <= HISTORY_QUEUE_BYTES);
	/* After a silence all definitions go again. */
	start_ms += 40 * MINUTE_MS;
	frame.time_ms = start_ms;
	history_take(w.history, w.fleet, w.session, &frame, junk, 1);
	history_counts(w.history, &counts);
	failed_ns = clock_mono_ns();
	history_fold_end(w.history);
	do {
		dropped = counts.frames_dropped;
		give(&w, sequence++ % 50 + 1);
		history_counts(w.history, &counts);
		if (clock_mono_ns() - failed_ns < 2 * NS_PER_S)
			assert_int_equal(counts.frames_dropped, dropped + 1);
		poll(NULL, 0, 50);
	} while (counts.frames_dropped > dropped && clock_mono_ns() < until);
	assert_int_equal(counts.frames_dropped, dropped);
	world_close(&w);
	assert_int_equal(stored(&stream), 1);
}

/* What is not written is bounded, of definitions too. */
static void definitions_are_bounded(void **state)
{
	static const uint8_t junk[1 << 20];
	const struct history_item item = {
		.kind = HISTORY_DEFINE, .stream = 1, .size = sizeof(junk)};
	unsigned int taken = 0, refused = 0;
	struct world w;
	sqlite3 *db;

	(void)state;
	world_open(&w);
	assert_int_equal(sqlite3_open_v2(path, &db, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
	while (refused < 150 && taken < 256) {
		if (history_queue_put(&w.history->queue, &item, junk) >= 0) {
			taken++;
			refused = 0;
		} else {
			refused++;
			poll(NULL, 0, 20);
		}
	}
	assert_true(taken < 256);
	history_wait(w.history); /* nor does a replay hang */
	assert_int_equal(sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
	assert_true(becomes_failing(&w, false));
	world_close(&w);
}

static void time_that_belongs_to_it(void **state)
{
	const uint64_t now = 2000 * DAY, newest = now - MINUTE_MS;

	(void)state;
	assert_true(history_is_in_time(now, now, newest, &options));
	assert_true(history_is_in_time(now - 13 * DAY, now, newest, &options));
	assert_false(history_is_in_time(now - 15 * DAY, now, newest, &options));
	assert_true(history_is_in_time(now + DAY, now, newest, &options));
	assert_false(history_is_in_time(now + 2 * DAY, now, newest, &options));
	/* The clock stepped a year ahead, a year back: what goes on where it was is taken. */
	assert_true(history_is_in_time(now, now + 365 * DAY, newest, &options));
	assert_true(history_is_in_time(now, now - 365 * DAY, newest, &options));
	assert_false(history_is_in_time(now - 15 * DAY, now + 365 * DAY, newest, &options));
	/* With an empty database there is only the clock. */
	assert_false(history_is_in_time(now, now + 365 * DAY, 0, &options));
	assert_true(history_is_in_time(0, 0, 0, &options));
}

static int setup(void **state)
{
	(void)state;
	start_ms = clock_real_ns() / NS_PER_MS;
	start_ms -= start_ms % MINUTE_MS + MINUTE_MS;
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
		cmocka_unit_test_setup_teardown(what_is_taken_is_written_at_the_end, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_fold_has_everything, setup, teardown),
		cmocka_unit_test_setup_teardown(after_a_fold_it_goes_on, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_in_memory_can_be_read, setup, teardown),
		cmocka_unit_test_setup_teardown(too_many_streams_are_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(a_disk_that_refuses_is_tried_again, setup,
						teardown),
		cmocka_unit_test_setup_teardown(definitions_wait_for_room, setup, teardown),
		cmocka_unit_test_setup_teardown(definitions_are_bounded, setup, teardown),
		cmocka_unit_test(time_that_belongs_to_it),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
