/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames on disk until every aggregator has acknowledged them. Owned by the courier, which holds
 * the only spool of its directory. Plain files, written but not fsynced: a killed process loses
 * nothing, a crashed machine begins a new incarnation anyway.
 *
 *   incarnation       two slots written in turn: boot id, incarnation, reserved sequences and ids
 *   <number>.frames   header, then records {magic, length, sequence, time, CRC32C, sealed frame}
 *   cursor-<hash>     one per aggregator, two slots written in turn: what it acknowledged
 *   *.bad             a damaged file, put aside
 *
 * A sequence is never given twice within an incarnation. A new boot id or a new life of host.seg
 * begins a new incarnation; frames of older ones are still sent, under their own. So the totals of
 * one incarnation count from 0 in one segment, and no count is in two incarnations. For the same
 * reason a spool directory that was wiped must not begin one while host.seg goes on: the identity
 * is kept a second time in twin_dir, beside host.seg and as long as it.
 */
#pragma once

#include "base/err.h"
#include "bus/frame.h"

#include <stdbool.h>
#include <stdint.h>

#define SPOOL_MEMORY_BYTES  (1u << 20) /* of frames that the disk refused */
#define SPOOL_MEMORY_FRAMES 4096u
#define SPOOL_CURSORS_MAX   8u

struct spool;
struct spool_cursor;

struct spool_options {
	const char *dir;
	uint64_t bytes, age_ns;
	const uint8_t *boot_id; /* 16 bytes; NULL: this machine's */
	const char *twin_dir;   /* on tmpfs; NULL: none; borrowed until close */
	uint64_t life;          /* of host.seg; 0: there is none yet */
};

/* Labels of spool_stats' dropped_*, in their order. */
#define SPOOL_DROPS 7u
extern const char *const spool_drop_reasons[SPOOL_DROPS];

struct spool_stats {
	uint64_t disk_bytes;      /* of all files */
	uint64_t memory_frames;   /* that wait for the disk */
	uint64_t dropped_bytes;   /* frames given up because the spool was full */
	uint64_t dropped_age;     /* too old */
	uint64_t dropped_memory;  /* disk full, memory too */
	uint64_t dropped_damaged; /* lost in the middle of a file */
	uint64_t dropped_lost;    /* in the memory of a killed process, or from the end of a file */
	uint64_t dropped_refused; /* the aggregator will never take them */
	uint64_t dropped_unknown; /* nobody knows their series any more */
	uint64_t bad_files;
	uint64_t damaged_places; /* stretches of files that held no valid record, at open */
	bool is_disk_failing;
};

struct spool_record {
	uint8_t incarnation[FRAME_INCARNATION_BYTES];
	uint64_t sequence, time_ms;
	const uint8_t *data; /* borrowed until the next peek of this end */
	size_t size;
};

/* 0; 1 when the directory is unusable (e says why) and frames are kept in memory alone; -ENOMEM.
 * Damage never keeps it from opening. */
int spool_open(const struct spool_options *options, struct spool **ret, struct err *e);
struct spool *spool_close(struct spool *s);

const uint8_t *spool_incarnation(const struct spool *s);
uint64_t spool_next_sequence(const struct spool *s);
/* True when this process goes on with an incarnation that an earlier one began. */
bool spool_is_continued(const struct spool *s);

/* Says which life of host.seg frames are made from. -ESTALE: another one than this incarnation's;
 * no frame of it must be appended, the spool is to be opened anew. */
int spool_set_life(struct spool *s, uint64_t life);

/* Ids of series (frame_encoder_continue) below this were given in this incarnation. */
uint32_t spool_first_id(const struct spool *s);
/* Ids come to an end, while there is room for those of a frame yet: the next spool_open() begins
 * another incarnation. */
bool spool_needs_anew(const struct spool *s);
/* Says that ids below next_id are given. Before a frame that uses them is appended. */
void spool_reserve_ids(struct spool *s, uint32_t next_id);

/* Writes the frame as spool_next_sequence(), now_ms is Unix time. 0 on disk, 1 in memory because
 * the disk refused (e says why); it is kept either way. -ENOMEM, -E2BIG. */
int spool_append(struct spool *s, uint64_t now_ms, const uint8_t *data, size_t size, struct err *e);

/* Writes the cursors down and removes what all have acknowledged. Once a second and at the end. */
void spool_flush(struct spool *s);
void spool_stats(const struct spool *s, struct spool_stats *ret);
/* What they say is written down where it survives us. Until then the next process would say again
 * what was missing when the cursors were opened. */
void spool_told(struct spool *s);

/* -------- one aggregator's place -------- */

/* address is its name. -ENOSPC beyond SPOOL_CURSORS_MAX, -ENOMEM. */
int spool_cursor_open(struct spool *s, const char *address, struct spool_cursor **ret);
struct spool_cursor *spool_cursor_close(struct spool_cursor *c);

/* Two ends: what was there at the last rewind, oldest first, and what came since. */
enum spool_end { SPOOL_OLD, SPOOL_LIVE };

/* Both ends begin anew: everything that is not acknowledged will be handed out again. */
void spool_cursor_rewind(struct spool_cursor *c);
/* The next frame of an end that is not acknowledged; stays until taken. 1, or 0 for none. */
int spool_cursor_peek(struct spool_cursor *c, enum spool_end end, struct spool_record *ret);
void spool_cursor_take(struct spool_cursor *c, enum spool_end end);

enum spool_fate { SPOOL_ACKNOWLEDGED, SPOOL_REFUSED, SPOOL_UNKNOWN };

/* Never to be handed out again; size is the record's. Idempotent. */
void spool_cursor_settle(struct spool_cursor *c, const uint8_t incarnation[FRAME_INCARNATION_BYTES],
			 uint64_t sequence, size_t size, enum spool_fate fate);
/* Bytes and frames that wait for this aggregator. */
uint64_t spool_cursor_pending(const struct spool_cursor *c, uint64_t *ret_frames);
