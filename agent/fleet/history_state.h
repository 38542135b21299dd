/* SPDX-License-Identifier: Apache-2.0 */
/* A connection to the history and its prepared statements. history_store.c's and history_rows.c's. */
#pragma once

#include "fleet/history_store.h"

#include <sqlite3.h>

enum history_statement {
	STREAM_FIND,
	STREAM_NEXT,
	STREAM_FREE,
	STREAM_ADD,
	STREAM_TOUCH,
	STREAM_OLD,
	STREAM_DROP,
	METRIC_FIND,
	METRIC_ADD,
	METRIC_WALK,
	METRIC_DROP,
	SERIES_ADD,
	SERIES_WALK,
	SERIES_DROP,
	TICK_GET,
	TICK_PUT,
	TICK_DROP,
	TICK_EXPIRE,
	TICK_SIZES,
	END_GET,
	END_PUT,
	END_DROP,
	END_EXPIRE,
	END_SIZES,
	END_FIRST,
	END_LAST,
	PAGES_USED,
	PAGES_FREE,
	HISTORY_STATEMENTS,
};

struct history_store {
	sqlite3 *db;
	sqlite3_stmt *statements[HISTORY_STATEMENTS];
	struct history_options options;
	struct history_stats stats, committed;
	struct pack buffer;
	bool is_reader;
	/* Keys of the oldest minutes of this period of rest_ms and of the one before. */
	sqlite3_int64 rest_key, rest_before;
	uint64_t rest_until_ns;
};

/* Fills e from the connection's error, and says which errno that is. */
int history_fail(struct history_store *s, struct err *e, const char *what);
/* 1: a row; 0: none. */
int history_step(struct history_store *s, sqlite3_stmt *q, struct err *e, const char *what);
void history_reset(sqlite3_stmt **q);
/* Below it, ticks may expire. */
sqlite3_int64 history_rest_key(struct history_store *s);
sqlite3_int64 history_key(uint64_t ms, uint32_t stream);
