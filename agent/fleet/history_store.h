/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Minutes on disk, in SQLite: with history_rows and history_age, the only files that know it. One blob per
 * incarnation and minute with its frames (all ticks), which stays for ticks_ms, and one with its
 * end (a thin minute), which stays for keep_ms or until there are too many bytes. A handle is one
 * connection, for one thread: one writes, others read beside it.
 *
 * A crash leaves what was committed. What comes again is merged (fleet/sheaf.h), so the commit log
 * may be replayed into it from any point that is early enough.
 */
#pragma once

#include "base/err.h"
#include "fleet/sheaf.h"

#define HISTORY_STREAMS_MAX (1u << 24)
#define HISTORY_LABELS_MAX  20u

struct history_store;

struct history_options {
	uint64_t ticks_ms; /* so long each tick is kept */
	uint64_t keep_ms;  /* so long the ends of minutes are */
	/* Of the database: ticks older than ten minutes go first, then the oldest minutes. 0: none */
	uint64_t bytes_max;
	/* Ticks that are older than ticks_ms when they come are kept so long at least (and up to
	 * twice), in which the rest of their minute may come. After an open all are. 0: no longer */
	uint64_t rest_ms;
	uint32_t streams_max; /* 0: HISTORY_STREAMS_MAX */
};

struct history_stats {
	uint64_t minutes_written, minutes_expired;
	uint64_t minutes_evicted; /* by bytes_max, before their time; ticks and ends */
	uint64_t minutes_damaged; /* could not be read, dropped */
	uint64_t frames_written;
	uint64_t frames_refused; /* more than a minute holds (fleet/sheaf.h): left out */
	uint64_t frames_late;    /* for a minute whose ticks are gone: lost to history */
	uint64_t frames_unread;  /* were kept, and cannot be decoded */
	uint64_t bytes;          /* of the database, without free pages */
};

/* What an id of a stream means: a metric, and labels as they are shown. */
struct history_definition {
	uint32_t id;
	const char *name, *unit, *help;
	enum metric_kind kind;
	unsigned int label_count;
	struct segment_label labels[HISTORY_LABELS_MAX]; /* by key */
};

/* What cannot be a database is put aside as PATH.bad and one begun anew: history is never a reason
 * not to start. -EPROTONOSUPPORT: written by a newer version, left alone. */
int history_store_open(const char *path, const struct history_options *options,
		       struct history_store **ret, struct err *e);
/* Reads only, what a writer has made. */
int history_store_open_reader(const char *path, struct history_store **ret, struct err *e);
struct history_store *history_store_close(struct history_store *s);
const struct history_stats *history_store_stats(const struct history_store *s);

/* All changes lie between begin and commit; rollback forgets them, and what was counted for them.
 * -ENOSPC: the disk is full; -EIO, -ENOMEM. */
int history_store_begin(struct history_store *s, struct err *e);
int history_store_commit(struct history_store *s, struct err *e);
void history_store_rollback(struct history_store *s);

/* Finds or makes the stream of an incarnation; time_ms: of its first frame. One that is silent for
 * an hour may be forgotten: ask again then, and define its series anew. -EOVERFLOW: there are
 * streams_max; nothing has changed then, and the transaction is whole. */
int history_store_stream(struct history_store *s, const char *agent,
			 const uint8_t incarnation[FRAME_INCARNATION_BYTES], uint64_t time_ms,
			 uint32_t *ret, struct err *e);
/* The first definition stays. */
int history_store_define(struct history_store *s, uint32_t stream,
			 const struct history_definition *definition, struct err *e);
/* Merges with what is there: frames that are new, 0 for a replay. What is late, or more than a
 * minute holds, is left out and counted: no error. */
int history_store_put(struct history_store *s, uint32_t stream, const struct sheaf *sheaf,
		      struct err *e);

/* Expires and evicts: at most so many rows a call. 1: there is more; 0: done. now_ms may step
 * back or far ahead: nothing is thrown away for it. */
int history_store_age(struct history_store *s, uint64_t now_ms, unsigned int rows, struct err *e);
/* Again and again while there is more, but no longer than that. */
int history_store_age_within(struct history_store *s, uint64_t now_ms, uint64_t within_ns,
			     struct err *e);
/* Start of the newest minute; 0: none. */
uint64_t history_store_newest_ms(struct history_store *s);

/* -------- reading (history_rows.c) -------- */

/* Of one minute; -ENOENT: none, or it cannot be read. */
int history_store_ticks(struct history_store *s, uint32_t stream, uint64_t start_ms,
			struct sheaf **ret, struct err *e);
int history_store_end(struct history_store *s, uint32_t stream, uint64_t start_ms,
		      struct minute **ret, struct err *e);

struct history_metric {
	uint32_t id;
	const char *name, *unit, *help;
	enum metric_kind kind;
};

/* A non-zero answer of fn ends it and is returned. By name. */
typedef int (*history_metric_fn)(void *data, const struct history_metric *metric);
int history_store_metrics(struct history_store *s, history_metric_fn fn, void *data, struct err *e);

struct history_row {
	uint32_t stream, id;
	uint64_t first_ms, last_ms; /* minutes that the stream has in the database lie within */
	const char *agent;
	unsigned int label_count;
	struct segment_label labels[HISTORY_LABELS_MAX];
};

/* Series of the metric in streams that have minutes in [from, to]; by stream, then id. */
typedef int (*history_row_fn)(void *data, const struct history_row *row);
int history_store_series(struct history_store *s, uint32_t metric, uint64_t from_ms, uint64_t to_ms,
			 history_row_fn fn, void *data, struct err *e);
