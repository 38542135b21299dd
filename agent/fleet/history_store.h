/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Minutes on disk, in SQLite: the only file that knows it. One blob per incarnation and minute,
 * whole (all ticks) while it is young, thinned (its last values) later, gone when it is too old or
 * there are too many bytes. For one thread, which is not the core's: a commit waits for the disk.
 *
 * A crash leaves what was committed. What comes again is merged (fleet/minute.h), so the commit
 * log may be replayed into it from any point that is early enough.
 */
#pragma once

#include "fleet/minute.h"

#define HISTORY_STREAMS_MAX (1u << 24)

struct history_store;

struct history_options {
	uint64_t ticks_ms;  /* so long minutes stay whole */
	uint64_t keep_ms;   /* so long they stay at all */
	uint64_t bytes_max; /* of the database; the oldest minutes go first. 0: none */
};

struct history_stats {
	uint64_t minutes_written, minutes_thinned, minutes_expired;
	uint64_t minutes_evicted; /* by bytes_max, before their time */
	uint64_t minutes_damaged; /* could not be read, dropped */
	uint64_t frames_late;     /* for a minute that was thinned: lost to history */
	uint64_t bytes;           /* of the database, without free pages */
};

/* What cannot be a database is put aside as PATH.bad and one begun anew: history is never a reason
 * not to start. -EPROTONOSUPPORT: written by a newer version, left alone. */
int history_store_open(const char *path, const struct history_options *options,
		       struct history_store **ret, struct err *e);
struct history_store *history_store_close(struct history_store *s);
const struct history_stats *history_store_stats(const struct history_store *s);

/* All changes lie between begin and commit; rollback forgets them. -ENOSPC, -EIO, -ENOMEM. */
int history_store_begin(struct history_store *s, struct err *e);
int history_store_commit(struct history_store *s, struct err *e);
void history_store_rollback(struct history_store *s);

/* Finds or makes the stream of an incarnation. -ENOSPC at HISTORY_STREAMS_MAX. */
int history_store_stream(struct history_store *s, const char *agent,
			 const uint8_t incarnation[FRAME_INCARNATION_BYTES], uint32_t *ret,
			 struct err *e);
/* What an id of the stream means; the first definition stays. */
int history_store_define(struct history_store *s, uint32_t stream,
			 const struct frame_definition *definition, struct err *e);
/* Merges with what is there: frames that are new, 0 for a replay. */
int history_store_put(struct history_store *s, uint32_t stream, struct minute *m, struct err *e);

/* -ENOENT: none. A damaged one is dropped, and is -ENOENT. */
int history_store_get(struct history_store *s, uint32_t stream, uint64_t start_ms,
		      struct minute **ret, struct err *e);
/* Each minute that touches [from, to], by time, then stream. A non-zero answer ends it. */
typedef int (*history_minute_fn)(void *data, uint32_t stream, struct minute *m);
int history_store_each(struct history_store *s, uint64_t from_ms, uint64_t to_ms,
		       history_minute_fn fn, void *data, struct err *e);

/* Thins, expires, evicts: at most so many minutes a call. 1: there is more; 0: done. now_ms may
 * step back: then nothing is due, and nothing is thrown away for it. */
int history_store_age(struct history_store *s, uint64_t now_ms, unsigned int minutes,
		      struct err *e);
