/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writer of one segment file (proto/segment.h): the keeper's host.seg, the courier's app.seg.
 * Single-threaded; readers need nothing from it.
 */
#pragma once

#include "base/err.h"
#include "metrics.h"
#include "segment.h"

#include <sys/types.h>

struct segment_writer;

struct segment_options {
	const char *path;
	enum segment_kind kind;
	gid_t group;         /* (gid_t)-1: leave it */
	uint32_t series;     /* directory capacity */
	uint32_t histograms; /* how many of them may be histograms */
	uint64_t heap_bytes;
};

/* Opens the file of this boot and continues it (values, bases, series and gateways stay), or makes
 * a new one (O_EXCL under a temporary name, mode 0640, preallocated, then renamed) when there is
 * none, or it is of another boot, version or shape, or damaged (*ret_continued says which). The
 * file must lie on tmpfs (-ENOTSUP otherwise, unless TIDEGATE_ANY_FS is set, for tests).
 * A second live writer is refused (flock on <path>.lock, mode 0600, which stays; -EBUSY). */
int segment_writer_open(const struct segment_options *options, struct segment_writer **ret,
			bool *ret_continued, struct err *e);
struct segment_writer *segment_writer_close(struct segment_writer *w);

/* Puts the file back, with all that it holds, if somebody removed it. 1 put back, 0 it was there.
 * Pointers into the segment (header, gateway records) are new then. Not inside a tick or change. */
int segment_writer_keep(struct segment_writer *w, struct err *e);

/* Why open made a new file instead of continuing one ("" when it continued, or there was none). */
const char *segment_writer_reason(const struct segment_writer *w);

struct segment_header *segment_writer_header(struct segment_writer *w);

/* value becomes base for every counter and histogram, and maps_id is set; idempotent for one
 * maps_id. Call it when the counting below starts from zero. */
void segment_writer_rebase(struct segment_writer *w, uint64_t maps_id);

/* Finds or appends a series. labels is key, value, key, value …, n pairs. Returns its index, or
 * -ENOSPC (counted in header.refused). The index is stable for the life of the file. */
int segment_writer_series(struct segment_writer *w, const struct metric_desc *metric,
			  const char *const (*labels)[2], size_t n);

/* The same for a series whose values come from the files of processes (SEGMENT_ENTRY_GATHERED): what
 * segment_writer_counter and _histogram are told is what those of the living hold. */
int segment_writer_gathered(struct segment_writer *w, const struct metric_desc *metric,
			    const char *const (*labels)[2], size_t n);
/* -ENOENT when there is no such series. */
int segment_writer_find(struct segment_writer *w, const struct metric_desc *metric,
			const char *const (*labels)[2], size_t n);
/* Once, in the first tick: gauges of the writer before us are absent until somebody tells them;
 * what it folded but did not show is shown. */
void segment_writer_gathered_begin(struct segment_writer *w);
/* Name and kind of the series of that index; NULL when there is none. Borrows until the next change. */
const char *segment_writer_name(const struct segment_writer *w, uint32_t index,
				enum metric_kind *ret_kind);
/* Adds what a dead process left to the bases of gathered series: number n of the additions of this
 * life, to cell j of the series' base (fold.h). */
struct fold;
void segment_writer_fold_begin(struct segment_writer *w, uint64_t life, struct fold *ret);
void segment_writer_fold(struct segment_writer *w, struct fold *f, uint64_t n, int series,
			 uint32_t j, uint64_t by);

/* All counters and histograms become 0 and count on from here, in one step that a crash cannot
 * halve: a new file under the same path, with the same series. Not inside a tick or change. */
int segment_writer_restart(struct segment_writer *w, struct err *e);

/* Finds or appends a gateway record; -ENOSPC. The record stays valid until close; its identity
 * fields (state too: a new record is SEGMENT_GATEWAY_FREE) are changed between
 * segment_writer_change_begin/end, its numbers inside a tick. A name or instance that does not fit
 * is shortened and ends in ~ and a hash of the whole. */
int segment_writer_gateway(struct segment_writer *w, const char *name, const char *instance);
struct segment_gateway *segment_writer_gateway_at(struct segment_writer *w, unsigned int index);
void segment_writer_change_begin(struct segment_writer *w);
void segment_writer_change_end(struct segment_writer *w);

/* All values of one moment go between begin and end. Nestable: no. */
void segment_writer_tick_begin(struct segment_writer *w);
void segment_writer_tick_end(struct segment_writer *w, uint64_t mono_ns, uint64_t real_ns,
			     uint64_t interval_ns);

/* value = base + counted. A value below the one there is kept as it was (never backwards). Only
 * inside a tick; a negative series (one that was refused) is ignored. */
void segment_writer_counter(struct segment_writer *w, int series, uint64_t counted);
void segment_writer_gauge(struct segment_writer *w, int series, double value);
void segment_writer_histogram(struct segment_writer *w, int series,
			      const uint64_t counted[HIST_CELLS]);
void segment_writer_absent(struct segment_writer *w, int series);
/* All series of a metric: whoever wrote them before us may have known more of them. */
void segment_writer_absent_all(struct segment_writer *w, const struct metric_desc *metric);
/* For a counter whose source has no maps to continue: value and base both rise. Never mixed with
 * segment_writer_counter on one series. */
void segment_writer_increment(struct segment_writer *w, int series, uint64_t by);
