/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The aggregator's history while it runs: a thread with its own connection that takes frames from
 * the core through a bounded queue, gathers them by minute in memory and writes them later. What
 * the core does here takes no disk and no longer than a copy of the frame.
 *
 * What was taken survives a crash: frames are in the commit log until a fold, and a fold waits here
 * until all before it is in the database; what came meanwhile goes into the snapshot. While the
 * database takes nothing, no fold is reached.
 *
 *   history_fold_begin -> (history_fd readable) -> snapshot with history_save -> history_fold_end
 */
#pragma once

#include "fleet/history_store.h"
#include "fleet/ingest.h"

#define HISTORY_RECORD       8u          /* of the commit log: a frame that waits */
#define HISTORY_QUEUE_BYTES  (64u << 20) /* what is beyond is dropped and counted */
#define HISTORY_DEFINE_BYTES (64u << 20) /* not written yet; beyond, nothing is taken */
/* Minutes in memory: from three quarters on they are written early; beyond, the oldest are lost. */
#define HISTORY_OPEN_BYTES (256u << 20)
#define HISTORY_AHEAD_MS   (24 * 3600 * 1000ull) /* frames further ahead are refused */

struct history;

struct history_counts {
	struct history_stats store;
	uint64_t frames_dropped; /* queue full, or what their ids mean found no room there */
	uint64_t frames_refused; /* time out of range, more than a minute holds, too many streams */
	uint64_t frames_lost;    /* the disk did not take them for too long */
	uint64_t failures;       /* of the database, tried again */
	uint64_t queue_bytes, open_bytes;
	uint64_t newest_ms;
	bool is_failing;
	char why[256]; /* the last failure */
};

int history_open(const char *path, const struct history_options *options, struct history **ret,
		 struct err *e);
/* Writes what is open first. */
struct history *history_close(struct history *h);

/* -------- the core's thread -------- */

/* A frame that the fleet has applied, with the bytes that it came in. */
void history_take(struct history *h, struct fleet *f, uint32_t session, const struct frame *frame,
		  const uint8_t *sealed, size_t size);
/* For a replay, which is faster than a disk: waits until half the queue is free. */
void history_wait(struct history *h);

int history_fd(const struct history *h);
/* False: no memory; there is none then. */
bool history_fold_begin(struct history *h);
/* False: nothing was begun, or it is not there yet. */
bool history_fold_is_reached(struct history *h);
/* Blocks until it is, but no longer than that. False: the database did not take it. */
bool history_fold_wait(struct history *h, uint64_t within_ms);
typedef int (*history_record_fn)(void *data, uint32_t type, const void *payload, size_t size);
/* What is not in the database at a fold. */
int history_save(struct history *h, history_record_fn fn, void *data);
/* Reached or not: one that is not is given up. */
void history_fold_end(struct history *h);
/* A HISTORY_RECORD, after the records of the fleet. */
int history_restore(struct history *h, struct fleet *f, const uint8_t *payload, size_t size);

void history_counts(struct history *h, struct history_counts *ret);

/* -------- any thread -------- */

/* Copies of the stream's minutes that touch [from, to] and may not be in the database yet: take
 * them before you read there. *ret: n sheaves, the caller's. -ENOMEM. */
int history_peek(struct history *h, uint32_t stream, uint64_t from_ms, uint64_t to_ms,
		 struct sheaf ***ret, size_t *ret_count);

/* Whether a frame's time belongs into the history, whatever the clock here does: newest_ms is the
 * newest minute that is kept, 0 for none. Pure. */
bool history_is_in_time(uint64_t time_ms, uint64_t now_ms, uint64_t newest_ms,
			const struct history_options *options);
