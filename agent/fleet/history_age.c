/* SPDX-License-Identifier: Apache-2.0 */
/* What leaves the history: by time, by bytes, and the streams and series that nothing is left of. */
#include "base/cleanup.h"
#include "fleet/history_state.h"

#include <errno.h>

#define TICKS_LEAST_MS      (10 * 60 * 1000ull) /* not evicted while anything else is left */
#define VACUUM_BYTES        (16ll << 20)
#define VACUUM_PAGES        "256"
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

/* Drops rows while there are too many bytes. 1: there still are. */
static int evict(struct history_store *s, uint64_t newest_ms, unsigned int rows, struct err *e)
{
	sqlite3_int64 used = 0, first = 0;
	int r = find_key(s, PAGES_USED, &used, e);

	if (r < 0)
		return r;
	s->stats.bytes = (uint64_t)used;
	if (!s->options.bytes_max || s->stats.bytes <= s->options.bytes_max)
		return 0;
	r = find_key(s, TICK_FIRST, &first, e);
	if (r < 0)
		return r;
	/* A few at a time: a row may be a page or a megabyte. */
	rows = rows > 32 ? 32 : rows;
	if (r > 0 && first < key_before(newest_ms, TICKS_LEAST_MS))
		r = expire(s, TICK_EXPIRE, key_before(newest_ms, TICKS_LEAST_MS), rows, e);
	else
		r = expire(s, END_EXPIRE, history_key(newest_ms, 0), rows, e);
	if (r == 0) /* of one minute only, and too large all the same */
		r = expire(s, TICK_EXPIRE, INT64_MAX, rows, e);
	if (r < 0)
		return r;
	s->stats.minutes_evicted += (uint64_t)r;
	return r > 0;
}

static int drop_stream(struct history_store *s, sqlite3_int64 stream, struct err *e)
{
	_cleanup_(history_reset) sqlite3_stmt *metrics = s->statements[METRIC_WALK];
	_cleanup_(history_reset) sqlite3_stmt *drop = s->statements[STREAM_DROP];
	int r;

	while ((r = history_step(s, metrics, e, "metrics cannot be read")) > 0) {
		_cleanup_(history_reset) sqlite3_stmt *q = s->statements[SERIES_DROP];

		sqlite3_bind_int64(q, 1, sqlite3_column_int64(metrics, 0));
		sqlite3_bind_int64(q, 2, stream);
		r = history_step(s, q, e, "series cannot be dropped");
		if (r < 0)
			return r;
	}
	if (r < 0)
		return r;
	sqlite3_bind_int64(drop, 1, stream);
	return history_step(s, drop, e, "a stream cannot be dropped");
}

/* Streams whose last minute is gone. 1: there may be more. */
static int forget_streams(struct history_store *s, sqlite3_int64 below_minute, struct err *e)
{
	for (unsigned int i = 0; i < STREAMS_A_CALL; i++) {
		sqlite3_int64 stream = 0;
		int r;
		{
			_cleanup_(history_reset) sqlite3_stmt *q = s->statements[STREAM_OLD];

			sqlite3_bind_int64(q, 1, below_minute);
			r = history_step(s, q, e, "streams cannot be found");
			if (r > 0)
				stream = sqlite3_column_int64(q, 0);
		}
		if (r > 0)
			r = drop_stream(s, stream, e);
		if (r < 0 || !stream)
			return r;
	}
	return 1;
}

uint64_t history_store_newest_ms(struct history_store *s)
{
	sqlite3_int64 last;

	if (find_key(s, END_LAST, &last, NULL) <= 0)
		return 0;
	return (uint64_t)last / HISTORY_STREAMS_MAX * MINUTE_MS;
}

int history_store_age(struct history_store *s, uint64_t now_ms, unsigned int rows, struct err *e)
{
	uint64_t newest_ms = history_store_newest_ms(s);
	sqlite3_int64 kept, first = 0, free_bytes = 0;
	int expired, r;

	if (!newest_ms)
		return 0;
	/* A clock that was set years ahead must not expire everything at once: time passes here
	 * only as minutes come. */
	if (now_ms > newest_ms + MINUTE_MS + s->options.ticks_ms)
		now_ms = newest_ms + MINUTE_MS + s->options.ticks_ms;
	kept = key_before(now_ms, s->options.keep_ms);
	r = expire(s, TICK_EXPIRE, key_before(now_ms, s->options.ticks_ms), rows, e);
	if (r < 0)
		return r;
	expired = expire(s, END_EXPIRE, kept, rows, e);
	if (expired < 0)
		return expired;
	s->stats.minutes_expired += (uint64_t)expired;
	if (r == (int)rows || expired == (int)rows)
		return 1;
	r = evict(s, newest_ms, rows, e);
	if (r != 0)
		return r;
	/* What is left begins here: by time, or by what was evicted. */
	r = find_key(s, END_FIRST, &first, e);
	first /= HISTORY_STREAMS_MAX;
	/* Nor a stream that may come on. */
	if (first > (sqlite3_int64)(newest_ms / MINUTE_MS) - STREAM_IDLE_MINUTES)
		first = (sqlite3_int64)(newest_ms / MINUTE_MS) - STREAM_IDLE_MINUTES;
	if (r > 0)
		r = forget_streams(s, first, e);
	if (r < 0)
		return r;
	if (find_key(s, PAGES_FREE, &free_bytes, NULL) > 0 && free_bytes > VACUUM_BYTES)
		sqlite3_exec(s->db, "PRAGMA incremental_vacuum(" VACUUM_PAGES ")", NULL, NULL,
			     NULL);
	return r;
}
