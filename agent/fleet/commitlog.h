/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The aggregator's memory on disk: append-only logs of checked records, folded into snapshots.
 * Knows nothing of what a record means. One thread.
 *
 *   commit.N.log   records since snapshot N (or since the beginning)
 *   snapshot.N     records that stand for all logs below N; valid only with its end record
 *   *.bad          what was damaged, kept for a look
 *
 * Record: u32 magic | u32 type | u32 size | u32 CRC32C of type, size and payload | payload, all
 * little-endian. Records must be harmless when replayed in any order and twice.
 */
#pragma once

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define COMMITLOG_RECORD_MAX (2u << 20)

struct commitlog;
struct commitlog_writer;

struct commitlog_stats {
	uint64_t bytes;            /* of the current log, committed */
	uint64_t commits, records; /* since open */
	uint64_t replayed;         /* records at open */
	uint64_t torn_bytes;       /* cut from the end of logs at open */
	uint64_t damaged_bytes;    /* skipped in the middle of files, kept in *.bad */
	uint64_t damaged_files;    /* files with such a place, and snapshots without an end */
	uint64_t failures;         /* commits that failed; their records wait and are tried again */
	uint64_t folds;
};

/* Its result is ignored but for -ENOMEM, which stops the replay: a record that makes no sense to
 * the caller must not keep the aggregator from starting. */
typedef int (*commitlog_record_fn)(void *data, uint32_t type, const uint8_t *payload, size_t size);
typedef int (*commitlog_fold_fn)(void *data, struct commitlog_writer *writer);

/* Replays the newest whole snapshot and the logs after it, then opens a log for appending. A
 * damaged file is never a reason to fail. */
int commitlog_open(const char *dir, commitlog_record_fn fn, void *data, struct commitlog **ret,
		   struct err *e);
/* Does not commit. Returns NULL. */
struct commitlog *commitlog_close(struct commitlog *log);

/* Makes sure of disk space for size bytes of payload before they are promised to anyone. -ENOSPC,
 * -EDQUOT; -EAGAIN while an earlier commit has not succeeded. */
int commitlog_reserve(struct commitlog *log, size_t size);

/* Into memory. -EMSGSIZE above COMMITLOG_RECORD_MAX, -ENOMEM. */
int commitlog_append(struct commitlog *log, uint32_t type, const struct iovec *parts, size_t n);

/* One write and one fdatasync for all that was appended. On failure nothing is lost: the records
 * stay in memory and the next commit writes them again, in the same place. */
int commitlog_commit(struct commitlog *log, struct err *e);
size_t commitlog_pending(const struct commitlog *log);

/* Begins a new log, writes what fn adds as the snapshot below it, makes it durable, then removes
 * what it stands for. Pending records must have been committed (-EBUSY). On failure the old files
 * stay valid. */
int commitlog_fold(struct commitlog *log, commitlog_fold_fn fn, void *data, struct err *e);
int commitlog_writer_add(struct commitlog_writer *writer, uint32_t type, const void *payload,
			 size_t size);

const struct commitlog_stats *commitlog_stats(const struct commitlog *log);
