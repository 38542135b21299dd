/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the connection and its prepared statements. A minute's key is its time times 2^24 plus its
 * stream, so that rows of one time lie together: what expires is the beginning of the table. */
#include "fleet/history_store.h"

#include "base/cleanup.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define APPLICATION_ID 0x74646869 /* "tdhi" */
#define SCHEMA_VERSION 1
#define KEY_MAX        (1ull << 62)

/* synchronous=FULL: the commit log is cut after a commit here, which must then survive a power
 * cut. auto_vacuum must precede the first table. */
static const char setup_sql[] = "PRAGMA auto_vacuum=INCREMENTAL;"
				"PRAGMA journal_mode=WAL;"
				"PRAGMA synchronous=FULL;"
				"PRAGMA journal_size_limit=16777216;"
				"PRAGMA cache_size=-8192;"
				"PRAGMA trusted_schema=OFF;";

static const char schema_sql[] =
	"BEGIN;"
	"CREATE TABLE stream(id INTEGER PRIMARY KEY, agent TEXT NOT NULL, incarnation BLOB NOT "
	"NULL,"
	" UNIQUE(agent, incarnation));"
	"CREATE TABLE series(stream INTEGER, id INTEGER, definition BLOB NOT NULL,"
	" PRIMARY KEY(stream, id)) WITHOUT ROWID;"
	"CREATE TABLE minute(key INTEGER PRIMARY KEY, thin INTEGER NOT NULL, data BLOB NOT NULL);"
	"CREATE INDEX minute_whole ON minute(key) WHERE thin = 0;"
	"PRAGMA application_id=1952737385;"
	"PRAGMA user_version=1;"
	"COMMIT;";

enum statement {
	STREAM_FIND,
	STREAM_ADD,
	SERIES_ADD,
	MINUTE_GET,
	MINUTE_PUT,
	MINUTE_DROP,
	MINUTE_WALK,
	MINUTE_OLD_WHOLE,
	MINUTE_FIRST,
	MINUTE_LAST,
	PAGES_USED,
	STATEMENTS,
};

static const char pages_used_sql[] = "SELECT (page_count - freelist_count) * page_size FROM "
				     "pragma_page_count, pragma_freelist_count, pragma_page_size";

static const char *const statement_sql[STATEMENTS] = {
	[STREAM_FIND] = "SELECT id FROM stream WHERE agent = ?1 AND incarnation = ?2",
	[STREAM_ADD] = "INSERT INTO stream(agent, incarnation) VALUES(?1, ?2)",
	[SERIES_ADD] = "INSERT OR IGNORE INTO series VALUES(?1, ?2, ?3)",
	[MINUTE_GET] = "SELECT data FROM minute WHERE key = ?1",
	[MINUTE_PUT] = "INSERT OR REPLACE INTO minute VALUES(?1, ?2, ?3)",
	[MINUTE_DROP] = "DELETE FROM minute WHERE key = ?1",
	[MINUTE_WALK] = "SELECT key, data FROM minute WHERE key BETWEEN ?1 AND ?2 ORDER BY key",
	[MINUTE_OLD_WHOLE] =
		"SELECT key FROM minute WHERE thin = 0 AND key < ?1 ORDER BY key LIMIT 1",
	[MINUTE_FIRST] = "SELECT key FROM minute ORDER BY key LIMIT 1",
	[MINUTE_LAST] = "SELECT key FROM minute ORDER BY key DESC LIMIT 1",
	[PAGES_USED] = pages_used_sql,
};

struct history_store {
	sqlite3 *db;
	sqlite3_stmt *statements[STATEMENTS];
	struct history_options options;
	struct history_stats stats;
	struct pack buffer;
};

/* -------- SQLite's words -------- */

static int fail(struct history_store *s, struct err *e, const char *what)
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
	return sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : fail(s, e, what);
}

static void reset(sqlite3_stmt **q)
{
	sqlite3_reset(*q);
	sqlite3_clear_bindings(*q);
}

/* 1: a row; 0: none. */
static int step(struct history_store *s, sqlite3_stmt *q, struct err *e, const char *what)
{
	int code = sqlite3_step(q);

	if (code == SQLITE_ROW)
		return 1;
	return code == SQLITE_DONE ? 0 : fail(s, e, what);
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

static sqlite3_int64 key_of(uint64_t ms, uint32_t stream)
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
	int r = run(s, setup_sql, e, "cannot be set up");

	if (r < 0)
		return r;
	version = number_of(s, "PRAGMA user_version");
	id = number_of(s, "PRAGMA application_id");
	if (version == 0 && id == 0)
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
	int r;

	if (sqlite3_open_v2(path, &s->db,
			    SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
			    NULL) != SQLITE_OK)
		return s->db ? fail(s, e, path) : -ENOMEM;
	r = schema(s, e);
	for (unsigned int i = 0; i < STATEMENTS && r >= 0; i++)
		if (sqlite3_prepare_v3(s->db, statement_sql[i], -1, SQLITE_PREPARE_PERSISTENT,
				       &s->statements[i], NULL) != SQLITE_OK)
			r = fail(s, e, "a statement cannot be prepared");
	return r;
}

static void close_db(struct history_store *s)
{
	for (unsigned int i = 0; i < STATEMENTS; i++) {
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
	return run(s, "BEGIN IMMEDIATE", e, "cannot begin");
}

int history_store_commit(struct history_store *s, struct err *e)
{
	return run(s, "COMMIT", e, "cannot commit");
}

void history_store_rollback(struct history_store *s)
{
	sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
}

/* -------- streams and series -------- */

int history_store_stream(struct history_store *s, const char *agent,
			 const uint8_t incarnation[FRAME_INCARNATION_BYTES], uint32_t *ret,
			 struct err *e)
{
	_cleanup_(reset) sqlite3_stmt *find = s->statements[STREAM_FIND];
	_cleanup_(reset) sqlite3_stmt *add = s->statements[STREAM_ADD];
	sqlite3_int64 id;
	int r;

	sqlite3_bind_text(find, 1, agent, -1, SQLITE_STATIC);
	sqlite3_bind_blob(find, 2, incarnation, FRAME_INCARNATION_BYTES, SQLITE_STATIC);
	r = step(s, find, e, "a stream cannot be read");
	if (r < 0)
		return r;
	if (r > 0) {
		*ret = (uint32_t)sqlite3_column_int64(find, 0);
		return 0;
	}
	sqlite3_bind_text(add, 1, agent, -1, SQLITE_STATIC);
	sqlite3_bind_blob(add, 2, incarnation, FRAME_INCARNATION_BYTES, SQLITE_STATIC);
	r = step(s, add, e, "a stream cannot be written");
	if (r < 0)
		return r;
	id = sqlite3_last_insert_rowid(s->db);
	if (id >= HISTORY_STREAMS_MAX)
		return err_set(e, -ENOSPC, "history: more than %u streams", HISTORY_STREAMS_MAX);
	*ret = (uint32_t)id;
	return 0;
}

int history_store_define(struct history_store *s, uint32_t stream, const struct frame_definition *d,
			 struct err *e)
{
	_cleanup_(reset) sqlite3_stmt *q = s->statements[SERIES_ADD];
	int r;

	pack_reset(&s->buffer);
	pack_text(&s->buffer, d->metric);
	pack_text(&s->buffer, d->unit);
	pack_u64(&s->buffer, d->kind);
	pack_u64(&s->buffer, d->merge);
	pack_u64(&s->buffer, d->scope);
	pack_u64(&s->buffer, d->label_count);
	for (unsigned int i = 0; i < d->label_count; i++) {
		pack_text(&s->buffer, d->labels[i].key);
		pack_text(&s->buffer, d->labels[i].value);
	}
	if (s->buffer.has_failed)
		return -ENOMEM;
	sqlite3_bind_int64(q, 1, stream);
	sqlite3_bind_int64(q, 2, d->id);
	sqlite3_bind_blob(q, 3, s->buffer.data, (int)s->buffer.size, SQLITE_STATIC);
	r = step(s, q, e, "a series cannot be written");
	return r < 0 ? r : 0;
}

/* -------- minutes -------- */

static int drop(struct history_store *s, sqlite3_int64 key, struct err *e)
{
	_cleanup_(reset) sqlite3_stmt *q = s->statements[MINUTE_DROP];
	int r;

	sqlite3_bind_int64(q, 1, key);
	r = step(s, q, e, "a minute cannot be dropped");
	return r < 0 ? r : 0;
}

static int read_minute(struct history_store *s, sqlite3_int64 key, struct minute **ret,
		       struct err *e)
{
	int r;
	{
		_cleanup_(reset) sqlite3_stmt *q = s->statements[MINUTE_GET];

		sqlite3_bind_int64(q, 1, key);
		r = step(s, q, e, "a minute cannot be read");
		if (r <= 0)
			return r < 0 ? r : -ENOENT;
		r = minute_decode(sqlite3_column_blob(q, 0), (size_t)sqlite3_column_bytes(q, 0),
				  ret);
	}
	if (r != -EBADMSG && r != -EPROTONOSUPPORT)
		return r;
	s->stats.minutes_damaged++;
	r = drop(s, key, e);
	return r < 0 ? r : -ENOENT;
}

static int write_minute(struct history_store *s, sqlite3_int64 key, struct minute *m, struct err *e)
{
	_cleanup_(reset) sqlite3_stmt *q = s->statements[MINUTE_PUT];
	int r;

	pack_reset(&s->buffer);
	r = minute_encode(m, &s->buffer);
	if (r < 0)
		return r;
	sqlite3_bind_int64(q, 1, key);
	sqlite3_bind_int(q, 2, minute_is_thin(m));
	sqlite3_bind_blob64(q, 3, s->buffer.data, s->buffer.size, SQLITE_STATIC);
	r = step(s, q, e, "a minute cannot be written");
	return r < 0 ? r : 0;
}

int history_store_get(struct history_store *s, uint32_t stream, uint64_t start_ms,
		      struct minute **ret, struct err *e)
{
	return read_minute(s, key_of(start_ms, stream), ret, e);
}

int history_store_put(struct history_store *s, uint32_t stream, struct minute *m, struct err *e)
{
	sqlite3_int64 key = key_of(minute_start_ms(m), stream);
	struct minute *old = NULL;
	int added = (int)minute_ticks(m), r = read_minute(s, key, &old, e);

	if (r < 0 && r != -ENOENT)
		return r;
	if (old) {
		added = minute_merge(old, m);
		if (added == -ESTALE) {
			s->stats.frames_late += minute_ticks(m);
			added = 0;
		}
	}
	r = added <= 0 ? added : write_minute(s, key, old ? old : m, e);
	minute_free(old);
	if (r < 0)
		return r;
	s->stats.minutes_written += added > 0;
	return added;
}

int history_store_each(struct history_store *s, uint64_t from_ms, uint64_t to_ms,
		       history_minute_fn fn, void *data, struct err *e)
{
	_cleanup_(reset) sqlite3_stmt *q = s->statements[MINUTE_WALK];
	int r;

	sqlite3_bind_int64(q, 1, key_of(from_ms, 0));
	sqlite3_bind_int64(q, 2, key_of(to_ms, HISTORY_STREAMS_MAX - 1));
	while ((r = step(s, q, e, "minutes cannot be read")) > 0) {
		struct minute *m;

		r = minute_decode(sqlite3_column_blob(q, 1), (size_t)sqlite3_column_bytes(q, 1),
				  &m);
		if (r == -ENOMEM)
			return r;
		if (r < 0) { /* dropped by whoever writes next */
			s->stats.minutes_damaged++;
			continue;
		}
		r = fn(data, (uint32_t)(sqlite3_column_int64(q, 0) & (HISTORY_STREAMS_MAX - 1)), m);
		minute_free(m);
		if (r)
			return r;
	}
	return r;
}

/* -------- ageing -------- */

/* The key that a statement finds; 0: none. */
static int find_key(struct history_store *s, enum statement which, sqlite3_int64 below,
		    sqlite3_int64 *ret, struct err *e)
{
	_cleanup_(reset) sqlite3_stmt *q = s->statements[which];
	int r;

	if (which == MINUTE_OLD_WHOLE)
		sqlite3_bind_int64(q, 1, below);
	r = step(s, q, e, "minutes cannot be found");
	if (r > 0)
		*ret = sqlite3_column_int64(q, 0);
	return r;
}

static int thin_one(struct history_store *s, sqlite3_int64 below, struct err *e)
{
	struct minute *m = NULL;
	sqlite3_int64 key;
	int r = find_key(s, MINUTE_OLD_WHOLE, below, &key, e);

	if (r <= 0)
		return r;
	r = read_minute(s, key, &m, e);
	if (r == -ENOENT)
		return 1; /* it was damaged, and is gone */
	if (r >= 0)
		r = minute_thin(m);
	if (r >= 0)
		r = write_minute(s, key, m, e);
	minute_free(m);
	if (r < 0)
		return r;
	s->stats.minutes_thinned++;
	return 1;
}

static int bytes_used(struct history_store *s, struct err *e)
{
	_cleanup_(reset) sqlite3_stmt *q = s->statements[PAGES_USED];
	int r = step(s, q, e, "the size cannot be read");

	if (r > 0)
		s->stats.bytes = (uint64_t)sqlite3_column_int64(q, 0);
	return r < 0 ? r : 0;
}

/* Old ones, or the oldest while there are too many bytes. */
static int drop_one(struct history_store *s, sqlite3_int64 below, struct err *e)
{
	bool is_full;
	sqlite3_int64 key;
	int r = bytes_used(s, e);

	if (r < 0)
		return r;
	is_full = s->options.bytes_max && s->stats.bytes > s->options.bytes_max;
	r = find_key(s, MINUTE_FIRST, 0, &key, e);
	if (r <= 0 || (key >= below && !is_full))
		return r < 0 ? r : 0;
	r = drop(s, key, e);
	if (r < 0)
		return r;
	if (key < below)
		s->stats.minutes_expired++;
	else
		s->stats.minutes_evicted++;
	return 1;
}

static sqlite3_int64 key_before(uint64_t now_ms, uint64_t age_ms)
{
	return now_ms > age_ms ? key_of(now_ms - age_ms, 0) : 0;
}

int history_store_age(struct history_store *s, uint64_t now_ms, unsigned int minutes, struct err *e)
{
	sqlite3_int64 whole, kept, last;
	uint64_t newest_ms;
	int r = find_key(s, MINUTE_LAST, 0, &last, e);

	if (r <= 0)
		return r;
	/* A clock that was set years ahead must not expire everything at once: time passes here
	 * only as minutes come. */
	newest_ms = ((uint64_t)last / HISTORY_STREAMS_MAX + 1) * MINUTE_MS;
	if (now_ms > newest_ms + s->options.ticks_ms)
		now_ms = newest_ms + s->options.ticks_ms;
	whole = key_before(now_ms, s->options.ticks_ms);
	kept = key_before(now_ms, s->options.keep_ms);
	for (; minutes && r > 0; minutes--) {
		r = drop_one(s, kept, e);
		if (r == 0)
			r = thin_one(s, whole, e);
	}
	if (r < 0)
		return r;
	sqlite3_exec(s->db, "PRAGMA incremental_vacuum(256)", NULL, NULL, NULL);
	return r;
}
