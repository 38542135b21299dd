/* SPDX-License-Identifier: Apache-2.0 */
/* What leaves the history: by time, by bytes, and the streams and series that nothing is left of. */
#include "base/cleanup.h"
#include "base/clock.h"
#include "fleet/history_state.h"

#include <errno.h>

#define TICKS_LEAST_MS      (10 * 60 * 1000ull) /* not evicted while anything else is left */
#define VACUUM_BYTES        (16ll << 20)
#define VACUUM_PAGES        "256"
#define ROWS_A_CALL         256u
#define STREAMS_A_CALL      16u
#define STREAM_IDLE_MINUTES 60

static int find_key(struct history_store *s, enum history_statement which, sqlite3_int64 *ret,
		    struct err *e)
{
	_cleanup_(history_reset) sqlite3_stmt *q = s->statements[which];
	int r = history_step(s, q, e, "minutes cannot be found");

	if (r > 0)
		*ret = sqlite3_column_int64(q, 0);
	return r;
}

/* Rows that were dropped. */
static int expire(struct history_store *s, enum history_statement which, sqlite3_int64 below,
		  unsigned int rows, struct err *e)
{
	_cleanup_(history_reset) sqlite3_stmt *q = s->statements[which];
	int r;

	sqlite3_bind_int64(q, 1, below);
	sqlite3_bind_int64(q, 2, rows);
	r = history_step(s, q, e, "minutes cannot be dropped");
	return r < 0 ? r : sqlite3_changes(s->db);
}

static sqlite3_int64 key_before(uint64_t now_ms, uint64_t age_ms)
{
	return now_ms > age_ms ? history_key(now_ms - age_ms, 0) : 0;
}

/* Drops the oldest rows, at most so many, until they come to as many bytes (a row may be a part of
 * a page or a megabyte), and takes off what they came to. How many. */
static int drop_bytes(struct history_store *s, bool is_tick, sqlite3_int64 below, uint64_t *bytes,
		      unsigned int rows, struct err *e)
{
	uint64_t sum = 0;
	sqlite3_int64 last = 0;
	int r = 0;
	{
		_cleanup_(history_reset) sqlite3_stmt *q =
			s->statements[is_tick ? TICK_SIZES : END_SIZES];

		sqlite3_bind_int64(q, 1, below);
		sqlite3_bind_int64(q, 2, rows);
		while (sum < *bytes && (r = history_step(s, q, e, "minutes cannot be found")) > 0) {
			last = sqlite3_column_int64(q, 0);
			sum += (uint64_t)sqlite3_column_int64(q, 1);
		}
	}
	if (r < 0 || !last)
		return r;
	*bytes -= sum < *bytes ? sum : *bytes;
	return expire(s, is_tick ? TICK_EXPIRE : END_EXPIRE, last + 1, rows, e);
}

/* Drops rows while there are too many bytes. 1: there may still be. */
static int evict(struct history_store *s, uint64_t newest_ms, unsigned int rows, struct err *e)
{
	sqlite3_int64 used = 0;
	uint64_t over;
	int n, r = find_key(s, PAGES_USED, &used, e);

	if (r < 0)
		return r;
	s->stats.bytes = (uint64_t)used;
	if (!s->options.bytes_max || s->stats.bytes <= s->options.bytes_max)
		return 0;
	over = s->stats.bytes - s->options.bytes_max;
	n = r = drop_bytes(s, true, key_before(newest_ms, TICKS_LEAST_MS), &over, rows, e);
	if (r >= 0 && r < (int)rows && over)
		n += r = drop_bytes(s, false, history_key(newest_ms, 0), &over, rows, e);
	if (r >= 0 && !n) /* of one minute only, and too large all the same */
		n = r = drop_bytes(s, true, INT64_MAX, &over, rows, e);
	if (r < 0)
		return r;
	s->stats.minutes_evicted += (uint64_t)n;
	return n > 0;
}

static int drop_stream(struct history_store *s, sqlite3_int64 stream, struct err *e)
{
	_cleanup_(history_reset) sqlite3_stmt *series = s->statements[SERIES_DROP];
	_cleanup_(history_reset) sqlite3_stmt *drop = s->statements[STREAM_DROP];
	int r;

	sqlite3_bind_int64(series, 1, stream);
	r = history_step(s, series, e, "series cannot be dropped");
	if (r < 0)
		return r;
	sqlite3_bind_int64(drop, 1, stream);
	return history_step(s, drop, e, "a stream cannot be dropped");
}

static int drop_metrics(struct history_store *s, struct err *e)
{
	_cleanup_(history_reset) sqlite3_stmt *q = s->statements[METRIC_DROP];

	return history_step(s, q, e, "metrics cannot be dropped");
}

/* Streams whose last minute is gone, and metrics that nobody has then. 1: there may be more. */
static int forget_streams(struct history_store *s, sqlite3_int64 below_minute, struct err *e)
{
	unsigned int n;
	int r = 1;

	for (n = 0; n < STREAMS_A_CALL && r > 0; n++) {
		sqlite3_int64 stream = 0;
		{
			_cleanup_(history_reset) sqlite3_stmt *q = s->statements[STREAM_OLD];

			sqlite3_bind_int64(q, 1, below_minute);
			r = history_step(s, q, e, "streams cannot be found");
			if (r > 0)
				stream = sqlite3_column_int64(q, 0);
		}
		if (r <= 0)
			break;
		r = drop_stream(s, stream, e);
		if (r < 0)
			return r;
		r = 1;
	}
	if (r >= 0 && n)
		r = drop_metrics(s, e) < 0 ? -EIO : r;
	return r;
}

uint64_t history_store_newest_ms(struct history_store *s)
{
	sqlite3_int64 last;

	if (find_key(s, END_LAST, &last, NULL) <= 0)
		return 0;
	return (uint64_t)last / HISTORY_STREAMS_MAX * MINUTE_MS;
}

/* What is left begins with the first end: by time, or by what was evicted. A stream that may come
 * on is left, too. */
static int forget(struct history_store *s, uint64_t newest_ms, struct err *e)
{
	sqlite3_int64 idle = (sqlite3_int64)(newest_ms / MINUTE_MS) - STREAM_IDLE_MINUTES;
	sqlite3_int64 first = 0;
	int r = find_key(s, END_FIRST, &first, e);

	if (r <= 0)
		return r;
	first /= HISTORY_STREAMS_MAX;
	return forget_streams(s, first < idle ? first : idle, e);
}

int history_store_age(struct history_store *s, uint64_t now_ms, unsigned int rows, struct err *e)
{
	uint64_t newest_ms = history_store_newest_ms(s);
	sqlite3_int64 free_bytes = 0, old, rest;
	int ticks, ends, evicted, forgotten;

	if (!newest_ms)
		return 0;
	/* A clock that was set years ahead must not expire everything at once: time passes here
	 * only as minutes come. */
	if (now_ms > newest_ms + MINUTE_MS + s->options.ticks_ms)
		now_ms = newest_ms + MINUTE_MS + s->options.ticks_ms;
	old = key_before(now_ms, s->options.ticks_ms);
	rest = history_rest_key(s);
	ticks = expire(s, TICK_EXPIRE, old < rest ? old : rest, rows, e);
	if (ticks < 0)
		return ticks;
	ends = expire(s, END_EXPIRE, key_before(now_ms, s->options.keep_ms), rows, e);
	if (ends < 0)
		return ends;
	s->stats.minutes_expired += (uint64_t)ends;
	evicted = evict(s, newest_ms, rows, e);
	if (evicted < 0)
		return evicted;
	forgotten = forget(s, newest_ms, e);
	if (forgotten < 0)
		return forgotten;
	if (find_key(s, PAGES_FREE, &free_bytes, NULL) > 0 && free_bytes > VACUUM_BYTES)
		sqlite3_exec(s->db, "PRAGMA incremental_vacuum(" VACUUM_PAGES ")", NULL, NULL,
			     NULL);
	return ticks == (int)rows || ends == (int)rows || evicted || forgotten;
}

int history_store_age_within(struct history_store *s, uint64_t now_ms, uint64_t within_ns,
			     struct err *e)
{
	uint64_t until = clock_mono_ns() + within_ns;
	int r;

	do
		r = history_store_age(s, now_ms, ROWS_A_CALL, e);
	while (r > 0 && clock_mono_ns() < until);
	return r;
}
