/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reader of segments. A service: any stage may use it. Never locks, never writes, trusts no offset:
 * a damaged file is an error or a missing series, never a crash.
 */
#pragma once

#include "base/err.h"
#include "metrics.h"
#include "segment.h"

struct segment_reader;

/* Copies with pread, so a writer that truncates the file harms nobody. The reader notices by
 * itself when the path becomes another file. -ENOENT when it is not there (yet). */
int segment_reader_open(const char *path, struct segment_reader **ret, struct err *e);
struct segment_reader *segment_reader_close(struct segment_reader *r);

/* Takes a consistent copy of everything as of one tick. -EAGAIN when the writer was in the middle
 * each time, -EBADMSG when the file is not a segment or is damaged, -ENOENT when it is gone. On
 * failure the copy of the last success stays. */
int segment_reader_refresh(struct segment_reader *r, struct err *e);

/* Copies only header and gateway records: what a drain looks at every 50 ms. */
int segment_reader_refresh_gateways(struct segment_reader *r, struct err *e);

/* Changes when the path became another file: indexes of series then mean others. */
unsigned int segment_reader_generation(const struct segment_reader *r);

const struct segment_header *segment_reader_header(const struct segment_reader *r);
unsigned int segment_reader_gateways(const struct segment_reader *r);
const struct segment_gateway *segment_reader_gateway(const struct segment_reader *r,
						     unsigned int index);

#define SEGMENT_LABELS_MAX 12

struct segment_label {
	const char *key, *value;
};

/* One series of the copy; borrows from it until the next refresh. */
struct segment_series {
	unsigned int index; /* stable for the life of the file */
	const char *name, *unit, *help;
	enum metric_kind kind;
	enum metric_merge merge;
	enum metric_scope scope;
	bool is_present;
	unsigned int label_count;
	struct segment_label labels[SEGMENT_LABELS_MAX];
	uint64_t counter;      /* METRIC_COUNTER */
	double gauge;          /* METRIC_GAUGE */
	const uint64_t *cells; /* METRIC_HISTOGRAM, HIST_CELLS of them */
};

unsigned int segment_reader_series_count(const struct segment_reader *r);

/* False for an entry that is free or damaged. */
bool segment_reader_series(const struct segment_reader *r, unsigned int index,
			   struct segment_series *ret);

/* The same of an entry elsewhere, but for index and values. False: what segment_entry_check says. */
struct segment_view;
bool segment_series_of(const struct segment_view *v, const struct segment_entry *entry,
		       struct segment_series *ret);
