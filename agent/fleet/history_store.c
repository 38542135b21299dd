/* SPDX-License-Identifier: Apache-2.0 */
/* Writing. A minute's key is its time times 2^24 plus its stream, so that rows of one time lie
 * together: what expires is the beginning of a table. */
#include "fleet/history_store.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"
#include "fleet/history_state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define APPLICATION_ID 0x74646869 /* "tdhi" */
#define SCHEMA_VERSION 1
#define KEY_MAX        (1ull << 62)
#define BUSY_MS        2000

/* synchronous=FULL: the commit log is cut after a commit here, which must then survive a power
 * cut. auto_vacuum must precede the first table. */
static const char setup_sql[] = "PRAGMA auto_vacuum=INCREMENTAL;"
				"PRAGMA journal_mode=WAL;"
				"PRAGMA synchronous=FULL;"
				"PRAGMA journal_size_limit=16777216;"
				"PRAGMA cache_size=-16384;"
				"PRAGMA trusted_schema=OFF;";

static const char schema_sql[] =
	"BEGIN;"
	"CREATE TABLE stream(id INTEGER PRIMARY KEY, agent TEXT NOT NULL, incarnation BLOB NOT "
	"NULL,"
	" first INTEGER NOT NULL, last INTEGER NOT NULL, UNIQUE(agent, incarnation));"
	"CREATE TABLE metric(id INTEGER PRIMARY KEY, name TEXT NOT NULL, kind INTEGER, unit TEXT,"
	" help TEXT, UNIQUE(name, kind, unit));"
	"CREATE TABLE series(metric INTEGER, stream INTEGER, id INTEGER, labels BLOB NOT NULL,"
	" PRIMARY KEY(metric, stream, id)) WITHOUT ROWID;"
	"CREATE INDEX series_of_stream ON series(stream);"
	"CREATE TABLE tick(key INTEGER PRIMARY KEY, data BLOB NOT NULL);"
	"CREATE TABLE minute(key INTEGER PRIMARY KEY, data BLOB NOT NULL);"
	"PRAGMA application_id=1952737385;"
	"PRAGMA user_version=1;"
	"COMMIT;";

static const char pages_used_sql[] = "SELECT (page_count - freelist_count) * page_size FROM "
				     "pragma_page_count, pragma_freelist_count, pragma_page_size";
static const char pages_free_sql[] =
	"SELECT freelist_count * page_size FROM pragma_freelist_count, pragma_page_size";
static const char stream_touch_sql[] =
	"UPDATE stream SET first = min(first, ?2), last = max(last, ?2) WHERE id = ?1 AND "
	"(first > ?2 OR last < ?2)";
/* The least id that none has: of a stream that was dropped, or after the last. */
static const char stream_free_sql[] =
	"SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM stream WHERE id = 1) UNION ALL "
	"SELECT * FROM (SELECT a.id + 1 FROM stream AS a WHERE NOT EXISTS "
	"(SELECT 1 FROM stream AS b WHERE b.id = a.id + 1) ORDER BY a.id LIMIT 1) LIMIT 1";
static const char series_walk_sql[] =
	"SELECT series.stream, series.id, stream.agent, series.labels, stream.first, stream.last "
	"FROM series JOIN stream ON "
	"stream.id = series.stream WHERE series.metric = ?1 AND stream.last >= ?2 AND "
	"stream.first <= ?3 ORDER BY series.stream, series.id";
static const char tick_expire_sql[] =
	"DELETE FROM tick WHERE key IN (SELECT key FROM tick WHERE key < ?1 ORDER BY key LIMIT ?2)";
static const char end_expire_sql[] = "DELETE FROM minute WHERE key IN (SELECT key FROM minute "
				     "WHERE key < ?1 ORDER BY key LIMIT ?2)";

static const char *const statement_sql[HISTORY_STATEMENTS] = {
	[STREAM_FIND] = "SELECT id FROM stream WHERE agent = ?1 AND incarnation = ?2",
	[STREAM_NEXT] = "SELECT ifnull(max(id), 0) + 1 FROM stream",
	[STREAM_FREE] = stream_free_sql,
	[STREAM_ADD] = "INSERT INTO stream(id, agent, incarnation, first, last) "
		       "VALUES(?4, ?1, ?2, ?3, ?3)",
	[STREAM_TOUCH] = stream_touch_sql,
	[STREAM_OLD] = "SELECT id FROM stream WHERE last < ?1 LIMIT 1",
	[STREAM_DROP] = "DELETE FROM stream WHERE id = ?1",
	[METRIC_FIND] = "SELECT id FROM metric WHERE name = ?1 AND kind = ?2 AND unit = ?3",
	[METRIC_ADD] = "INSERT INTO metric(name, kind, unit, help) VALUES(?1, ?2, ?3, ?4)",
	[METRIC_WALK] = "SELECT id, name, kind, unit, help FROM metric ORDER BY name, id",
	[METRIC_DROP] = "DELETE FROM metric WHERE NOT EXISTS "
			"(SELECT 1 FROM series WHERE series.metric = metric.id)",
	[SERIES_ADD] = "INSERT OR IGNORE INTO series VALUES(?1, ?2, ?3, ?4)",
	[SERIES_WALK] = series_walk_sql,
	[SERIES_DROP] = "DELETE FROM series WHERE stream = ?1",
	[TICK_GET] = "SELECT data FROM tick WHERE key = ?1",
	[TICK_PUT] = "INSERT OR REPLACE INTO tick VALUES(?1, ?2)",
	[TICK_DROP] = "DELETE FROM tick WHERE key = ?1",
	[TICK_EXPIRE] = tick_expire_sql,
	[TICK_SIZES] = "SELECT key, length(data) FROM tick WHERE key < ?1 ORDER BY key LIMIT ?2",
	[END_GET] = "SELECT data FROM minute WHERE key = ?1",
	[END_PUT] = "INSERT OR REPLACE INTO minute VALUES(?1, ?2)",
	[END_DROP] = "DELETE FROM minute WHERE key = ?1",
	[END_EXPIRE] = end_expire_sql,
	[END_SIZES] = "SELECT key, length(data) FROM minute WHERE key < ?1 ORDER BY key LIMIT ?2",
	[END_FIRST] = "SELECT key FROM minute ORDER BY key LIMIT 1",
	[END_LAST] = "SELECT key FROM minute ORDER BY key DESC LIMIT 1",
	[PAGES_USED] = pages_used_sql,
	[PAGES_FREE] = pages_free_sql,
};

/* -------- SQLite's words -------- */

int history_fail(struct history_store *s, struct err *e, const char *what)
{
	int code = sqlite3_errcode(s->db), r = -EIO;

	if (code == SQLITE_FULL)
		r = -ENOSPC;
	else if (code == SQLITE_NOMEM)
		r = -ENOMEM;
	else if (code == SQLITE_NOTADB || code == SQLITE_CORRUPT)
		r = -EBADMSG;
	return err_set(e, r, "history: %s: %s", what, sqlite3_errmsg(s->db));
}

static int run(struct history_store *s, const char *sql, struct err *e, const char *what)
{
	return sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0
								       : history_fail(s, e, what);
}

void history_reset(sqlite3_stmt **q)
{
	sqlite3_reset(*q);
	sqlite3_clear_bindings(*q);
}

int history_step(struct history_store *s, sqlite3_stmt *q, struct err *e, const char *what)
{
	int code = sqlite3_step(q);

	if (code == SQLITE_ROW)
		return 1;
	return code == SQLITE_DONE ? 0 : history_fail(s, e, what);
}

static int64_t number_of(struct history_store *s, const char *sql)
{
	sqlite3_stmt *q = NULL;
	int64_t v = -1;

	if (sqlite3_prepare_v2(s->db, sql, -1, &q, NULL) == SQLITE_OK &&
	    sqlite3_step(q) == SQLITE_ROW)
		v = sqlite3_column_int64(q, 0);
	sqlite3_finalize(q);
	return v;
}

sqlite3_int64 history_key(uint64_t ms, uint32_t stream)
{
	uint64_t minute = ms / MINUTE_MS;

	return (sqlite3_int64)((minute > KEY_MAX / HISTORY_STREAMS_MAX
					? KEY_MAX
					: minute * HISTORY_STREAMS_MAX) |
			       stream);
}

/* -------- open and close -------- */

static int schema(struct history_store *s, struct err *e)
{
	int64_t version, id;
	int r = s->is_reader ? 0 : run(s, setup_sql, e, "cannot be set up");

	if (r < 0)
		return r;
	version = number_of(s, "PRAGMA user_version");
	id = number_of(s, "PRAGMA application_id");
	if (version == 0 && id == 0 && !s->is_reader)
		return run(s, schema_sql, e, "tables cannot be made");
	if (id != APPLICATION_ID)
		return err_set(e, -EBADMSG, "history: the database is of another program");
	if (version != SCHEMA_VERSION)
		return err_set(e, -EPROTONOSUPPORT,
			       "history: the database is of version %lld, this program knows %d",
			       (long long)version, SCHEMA_VERSION);
	return 0;
}

static int open_once(const char *path, struct history_store *s, struct err *e)
{
	int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX |
		    (s->is_reader ? 0 : SQLITE_OPEN_CREATE);
	int r;

	if (sqlite3_open_v2(path, &s->db, flags, NULL) != SQLITE_OK)
		return s->db ? history_fail(s, e, path) : -ENOMEM;
	sqlite3_busy_timeout(s->db, BUSY_MS);
	r = schema(s, e);
	for (unsigned int i = 0; i < HISTORY_STATEMENTS && r >= 0; i++)
		if (sqlite3_prepare_v3(s->db, statement_sql[i], -1, SQLITE_PREPARE_PERSISTENT,
				       &s->statements[i], NULL) != SQLITE_OK)
			r = history_fail(s, e, "a statement cannot be prepared");
	if (r >= 0 && s->is_reader)
		r = run(s, "PRAGMA query_only=ON", e, "cannot be read only");
	return r;
}

static void close_db(struct history_store *s)
{
	for (unsigned int i = 0; i < HISTORY_STATEMENTS; i++) {
		sqlite3_finalize(s->statements[i]);
		s->statements[i] = NULL;
	}
	sqlite3_close(s->db);
	s->db = NULL;
}

static int put_aside(const char *path, struct err *e)
{
	static const char *const endings[] = {"", "-wal", "-shm"};
	char from[4096], to[4096];

	for (size_t i = 0; i < 3; i++) {
		if (snprintf(from, sizeof(from), "%s%s", path, endings[i]) >= (int)sizeof(from) ||
		    snprintf(to, sizeof(to), "%s.bad%s", path, endings[i]) >= (int)sizeof(to))
			return err_set(e, -ENAMETOOLONG, "history: %s", path);
		if (rename(from, to) < 0 && errno != ENOENT)
			return err_set(e, -errno, "history: %s cannot be put aside: %s", from,
				       err_text(-errno));
	}
	return 0;
}

int history_store_open(const char *path, const struct history_options *options,
		       struct history_store **ret, struct err *e)
{
	struct history_store *s = calloc(1, sizeof(*s));
	struct err first = {{0}};
	int r;

	if (!s)
		return -ENOMEM;
	s->options = *options;
	if (!s->options.streams_max || s->options.streams_max >= HISTORY_STREAMS_MAX)
		s->options.streams_max = HISTORY_STREAMS_MAX - 1;
	if (s->options.rest_ms)
		s->rest_until_ns = clock_mono_ns() + s->options.rest_ms * NS_PER_MS;
	r = open_once(path, s, &first);
	if (r == -EBADMSG) {
		close_db(s);
		r = put_aside(path, e);
		if (r >= 0)
			r = open_once(path, s, e);
	} else if (r < 0) {
		err_set(e, r, "%s", first.text);
	}
	if (r < 0) {
		history_store_close(s);
		return r;
	}
	*ret = s;
	return 0;
}

int history_store_open_reader(const char *path, struct history_store **ret, struct err *e)
{
	struct history_store *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	s->is_reader = true;
	r = open_once(path, s, e);
	if (r < 0) {
		history_store_close(s);
		return r;
	}
	*ret = s;
	return 0;
}

struct history_store *history_store_close(struct history_store *s)
{
	if (!s)
		return NULL;
	close_db(s);
	pack_fini(&s->buffer);
	free(s);
	return NULL;
}

const struct history_stats *history_store_stats(const struct history_store *s)
{
	return &s->stats;
}

int history_store_begin(struct history_store *s, struct err *e)
{
	s->committed = s->stats;
	return run(s, "BEGIN IMMEDIATE", e, "cannot begin");
}

int history_store_commit(struct history_store *s, struct err *e)
{
	return run(s, "COMMIT", e, "cannot commit");
}

void history_store_rollback(struct history_store *s)
{
	sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
	s->stats = s->committed;
}

/* -------- streams and series -------- */

static int stream_number(struct history_store *s, enum history_statement which, sqlite3_int64 *ret,
			 struct err *e)
{
	_cleanup_(history_reset) sqlite3_stmt *q = s->statements[which];
	int r = history_step(s, q, e, "a stream's number cannot be found");

	if (r > 0)
		*ret = sqlite3_column_int64(q, 0);
	return r;
}

int history_store_stream(struct history_store *s, const char *agent,
			 const uint8_t incarnation[FRAME_INCARNATION_BYTES], uint64_t time_ms,
			 uint32_t *ret, struct err *e)
{
	_cleanup_(history_reset) sqlite3_stmt *find = s->statements[STREAM_FIND];
	_cleanup_(history_reset) sqlite3_stmt *add = s->statements[STREAM_ADD];
	sqlite3_int64 id = 0;
	int r;

	sqlite3_bind_text(find, 1, agent, -1, SQLITE_STATIC);
	sqlite3_bind_blob(find, 2, incarnation, FRAME_INCARNATION_BYTES, SQLITE_STATIC);
	r = history_step(s, find, e, "a stream cannot be read");
	if (r < 0)
		return r;
	if (r > 0) {
		*ret = (uint32_t)sqlite3_column_int64(find, 0);
		return 0;
	}
	r = stream_number(s, STREAM_NEXT, &id, e);
	if (r > 0 && id > s->options.streams_max)
		r = stream_number(s, STREAM_FREE, &id, e);
	if (r < 0)
		return r;
	if (id > s->options.streams_max)
		return err_set(e, -EOVERFLOW, "history: more than %u streams",
			       s->options.streams_max);
	sqlite3_bind_text(add, 1, agent, -1, SQLITE_STATIC);
	sqlite3_bind_blob(add, 2, incarnation, FRAME_INCARNATION_BYTES, SQLITE_STATIC);
	sqlite3_bind_int64(add, 3, (sqlite3_int64)(time_ms / MINUTE_MS));
	sqlite3_bind_int64(add, 4, id);
	r = history_step(s, add, e, "a stream cannot be written");
	if (r < 0)
		return r;
	*ret = (uint32_t)id;
	return 0;
}

static int metric_id(struct history_store *s, const struct history_definition *d,
		     sqlite3_int64 *ret, struct err *e)
{
	_cleanup_(history_reset) sqlite3_stmt *find = s->statements[METRIC_FIND];
	_cleanup_(history_reset) sqlite3_stmt *add = s->statements[METRIC_ADD];
	int r;

	sqlite3_bind_text(find, 1, d->name, -1, SQLITE_STATIC);
	sqlite3_bind_int(find, 2, (int)d->kind);
	sqlite3_bind_text(find, 3, d->unit, -1, SQLITE_STATIC);
	r = history_step(s, find, e, "a metric cannot be read");
	if (r < 0)
		return r;
	if (r > 0) {
		*ret = sqlite3_column_int64(find, 0);
		return 0;
	}
	sqlite3_bind_text(add, 1, d->name, -1, SQLITE_STATIC);
	sqlite3_bind_int(add, 2, (int)d->kind);
	sqlite3_bind_text(add, 3, d->unit, -1, SQLITE_STATIC);
	sqlite3_bind_text(add, 4, d->help, -1, SQLITE_STATIC);
	r = history_step(s, add, e, "a metric cannot be written");
	*ret = sqlite3_last_insert_rowid(s->db);
	return r < 0 ? r : 0;
}

int history_store_define(struct history_store *s, uint32_t stream,
			 const struct history_definition *d, struct err *e)
{
	_cleanup_(history_reset) sqlite3_stmt *q = s->statements[SERIES_ADD];
	sqlite3_int64 metric;
	int r = metric_id(s, d, &metric, e);

	if (r < 0)
		return r;
	pack_reset(&s->buffer);
	pack_u64(&s->buffer, d->label_count);
	for (unsigned int i = 0; i < d->label_count; i++) {
		pack_text(&s->buffer, d->labels[i].key);
		pack_text(&s->buffer, d->labels[i].value);
	}
	if (s->buffer.has_failed)
		return -ENOMEM;
	sqlite3_bind_int64(q, 1, metric);
	sqlite3_bind_int64(q, 2, stream);
	sqlite3_bind_int64(q, 3, d->id);
	sqlite3_bind_blob(q, 4, s->buffer.data, (int)s->buffer.size, SQLITE_STATIC);
	r = history_step(s, q, e, "a series cannot be written");
	return r < 0 ? r : 0;
}

/* -------- minutes -------- */

static int put_row(struct history_store *s, enum history_statement which, sqlite3_int64 key,
		   struct err *e)
{
	_cleanup_(history_reset) sqlite3_stmt *q = s->statements[which];
	int r;

	sqlite3_bind_int64(q, 1, key);
	sqlite3_bind_blob64(q, 2, s->buffer.data, s->buffer.size, SQLITE_STATIC);
	r = history_step(s, q, e, "a minute cannot be written");
	return r < 0 ? r : 0;
}

static int touch(struct history_store *s, uint32_t stream, uint64_t start_ms, struct err *e)
{
	_cleanup_(history_reset) sqlite3_stmt *q = s->statements[STREAM_TOUCH];
	int r;

	sqlite3_bind_int64(q, 1, stream);
	sqlite3_bind_int64(q, 2, (sqlite3_int64)(start_ms / MINUTE_MS));
	r = history_step(s, q, e, "a stream cannot be written");
	return r < 0 ? r : 0;
}

sqlite3_int64 history_rest_key(struct history_store *s)
{
	uint64_t now = clock_mono_ns();

	if (!s->options.rest_ms)
		return INT64_MAX;
	if (now >= s->rest_until_ns) {
		s->rest_before = s->rest_key;
		s->rest_key = INT64_MAX;
		s->rest_until_ns = now + s->options.rest_ms * NS_PER_MS;
	}
	return s->rest_key < s->rest_before ? s->rest_key : s->rest_before;
}

/* Both rows of the minute, from the union of its frames. */
static int write_both(struct history_store *s, uint32_t stream, struct sheaf *sheaf, struct err *e)
{
	sqlite3_int64 key = history_key(sheaf_start_ms(sheaf), stream);
	struct minute *m = NULL;
	int r, unread;

	history_rest_key(s);
	if (key < s->rest_key)
		s->rest_key = key;
	pack_reset(&s->buffer);
	r = sheaf_encode(sheaf, &s->buffer);
	if (r >= 0)
		r = put_row(s, TICK_PUT, key, e);
	if (r < 0)
		return r;
	unread = r = sheaf_minute(sheaf, 0, UINT64_MAX, &m);
	if (r < 0)
		return r;
	s->stats.frames_unread += (uint64_t)unread;
	r = minute_thin(m);
	pack_reset(&s->buffer);
	if (r >= 0 && minute_ticks(m)) {
		r = minute_encode(m, &s->buffer);
		if (r >= 0)
			r = put_row(s, END_PUT, key, e);
	}
	minute_free(m);
	return r >= 0 ? touch(s, stream, sheaf_start_ms(sheaf), e) : r;
}

/* Whether the end of the minute stands for all of these already. */
static int late(struct history_store *s, uint32_t stream, const struct sheaf *sheaf, struct err *e)
{
	struct minute *end = NULL;
	int r = history_store_end(s, stream, sheaf_start_ms(sheaf), &end, e);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	for (size_t i = 0; i < sheaf_frames(sheaf); i++)
		s->stats.frames_late += !minute_has(end, sheaf_sequence(sheaf, i));
	minute_free(end);
	return 1;
}

static uint64_t lacks(const struct sheaf *all, const struct sheaf *some)
{
	uint64_t n = 0;

	for (size_t i = 0; i < sheaf_frames(some); i++)
		n += !sheaf_has(all, sheaf_sequence(some, i));
	return n;
}

int history_store_put(struct history_store *s, uint32_t stream, const struct sheaf *sheaf,
		      struct err *e)
{
	struct sheaf *all = NULL;
	int added, r = history_store_ticks(s, stream, sheaf_start_ms(sheaf), &all, e);

	if (r == -ENOENT) {
		r = late(s, stream, sheaf, e);
		if (r != 0)
			return r < 0 ? r : 0;
		r = sheaf_new(sheaf_start_ms(sheaf), &all);
	}
	if (r < 0)
		return r;
	added = sheaf_merge(all, sheaf);
	if (added >= 0 && (size_t)added < sheaf_frames(sheaf))
		s->stats.frames_refused += lacks(all, sheaf);
	r = added > 0 ? write_both(s, stream, all, e) : added;
	sheaf_free(all);
	if (r < 0)
		return r;
	s->stats.minutes_written += added > 0;
	s->stats.frames_written += (uint64_t)added;
	return added;
}
