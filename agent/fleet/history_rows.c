/* SPDX-License-Identifier: Apache-2.0 */
/* Reading of history_store. */
#include "base/cleanup.h"
#include "fleet/history_state.h"

#include <errno.h>

/* -ENOENT when it is not there; what cannot be read is dropped by whoever writes. */
static int damaged(struct history_store *s, enum history_statement drop, sqlite3_int64 key, int r,
		   struct err *e)
{
	_cleanup_(history_reset) sqlite3_stmt *q = s->statements[drop];

	if (r != -EBADMSG && r != -EPROTONOSUPPORT)
		return r;
	s->stats.minutes_damaged++;
	if (s->is_reader)
		return -ENOENT;
	sqlite3_bind_int64(q, 1, key);
	r = history_step(s, q, e, "a minute cannot be dropped");
	return r < 0 ? r : -ENOENT;
}

int history_store_ticks(struct history_store *s, uint32_t stream, uint64_t start_ms,
			struct sheaf **ret, struct err *e)
{
	sqlite3_int64 key = history_key(start_ms, stream);
	int r;
	{
		_cleanup_(history_reset) sqlite3_stmt *q = s->statements[TICK_GET];

		sqlite3_bind_int64(q, 1, key);
		r = history_step(s, q, e, "a minute cannot be read");
		if (r <= 0)
			return r < 0 ? r : -ENOENT;
		r = sheaf_decode(sqlite3_column_blob(q, 0), (size_t)sqlite3_column_bytes(q, 0),
				 ret);
	}
	return damaged(s, TICK_DROP, key, r, e);
}

int history_store_end(struct history_store *s, uint32_t stream, uint64_t start_ms,
		      struct minute **ret, struct err *e)
{
	sqlite3_int64 key = history_key(start_ms, stream);
	int r;
	{
		_cleanup_(history_reset) sqlite3_stmt *q = s->statements[END_GET];

		sqlite3_bind_int64(q, 1, key);
		r = history_step(s, q, e, "a minute cannot be read");
		if (r <= 0)
			return r < 0 ? r : -ENOENT;
		r = minute_decode(sqlite3_column_blob(q, 0), (size_t)sqlite3_column_bytes(q, 0),
				  ret);
	}
	return damaged(s, END_DROP, key, r, e);
}

static const char *text(sqlite3_stmt *q, int column)
{
	const unsigned char *t = sqlite3_column_text(q, column);

	return t ? (const char *)t : "";
}

int history_store_metrics(struct history_store *s, history_metric_fn fn, void *data, struct err *e)
{
	_cleanup_(history_reset) sqlite3_stmt *q = s->statements[METRIC_WALK];
	int r;

	while ((r = history_step(s, q, e, "metrics cannot be read")) > 0) {
		struct history_metric m = {
			.id = (uint32_t)sqlite3_column_int64(q, 0),
			.name = text(q, 1),
			.kind = (enum metric_kind)sqlite3_column_int(q, 2),
			.unit = text(q, 3),
			.help = text(q, 4),
		};

		r = fn(data, &m);
		if (r)
			return r;
	}
	return r;
}

static bool labels_read(sqlite3_stmt *q, struct history_row *row)
{
	const uint8_t *data = sqlite3_column_blob(q, 3);
	struct unpack u;

	unpack_init(&u, data, data ? (size_t)sqlite3_column_bytes(q, 3) : 0);
	row->label_count = (unsigned int)unpack_u64_max(&u, HISTORY_LABELS_MAX);
	for (unsigned int i = 0; i < row->label_count; i++) {
		row->labels[i].key = unpack_text(&u);
		row->labels[i].value = unpack_text(&u);
	}
	return !u.is_bad;
}

int history_store_series(struct history_store *s, uint32_t metric, uint64_t from_ms, uint64_t to_ms,
			 history_row_fn fn, void *data, struct err *e)
{
	_cleanup_(history_reset) sqlite3_stmt *q = s->statements[SERIES_WALK];
	int r;

	sqlite3_bind_int64(q, 1, metric);
	sqlite3_bind_int64(q, 2, (sqlite3_int64)(from_ms / MINUTE_MS));
	sqlite3_bind_int64(q, 3, (sqlite3_int64)(to_ms / MINUTE_MS));
	while ((r = history_step(s, q, e, "series cannot be read")) > 0) {
		struct history_row row = {
			.stream = (uint32_t)sqlite3_column_int64(q, 0),
			.id = (uint32_t)sqlite3_column_int64(q, 1),
			.agent = text(q, 2),
			.first_ms = (uint64_t)sqlite3_column_int64(q, 4) * MINUTE_MS,
			.last_ms = (uint64_t)sqlite3_column_int64(q, 5) * MINUTE_MS,
		};

		if (!labels_read(q, &row))
			continue;
		r = fn(data, &row);
		if (r)
			return r;
	}
	return r;
}
