/* SPDX-License-Identifier: Apache-2.0 */
/* From the samples of one series to its points, minute after minute. Pure. history_read.c's. */
#pragma once

#include "fleet/history_read.h"

#include <stddef.h>

/* Parts of a histogram: a bucket for each bound, that of infinity, then these. */
struct history_parts {
	size_t bound_count;
	uint8_t bucket_of[HIST_CELLS];
	double middle[HIST_CELLS]; /* seconds, what an observation of the cell counts as */
};

#define HISTORY_OUTPUTS_MAX (HISTORY_BOUNDS_MAX + 3)

void history_parts_init(struct history_parts *p, const uint64_t *bounds_ns, size_t n);
static inline size_t history_part_count(const struct history_parts *p)
{
	return p->bound_count + 1;
}
static inline size_t history_part_sum(const struct history_parts *p)
{
	return p->bound_count + 2;
}

struct history_points {
	struct point *items;
	size_t count, capacity;
};

/* One id of a series: a restarted courier gives a series another. */
struct history_track {
	uint32_t id;
	bool is_known;
	uint64_t counter;
	double gauge, sum;
	uint64_t buckets[HISTORY_BOUNDS_MAX + 1];
	size_t at, end; /* its samples in the minute at hand */
};

struct history_line {
	enum metric_kind kind;
	bool is_ns;                   /* a counter to be shown in seconds */
	uint64_t wanted;              /* bit of each output; a counter or gauge has one */
	struct history_track *tracks; /* ids ascending */
	size_t track_count;
	struct history_points outputs[HISTORY_OUTPUTS_MAX];
	bool is_shown; /* the last point is a value */
	uint64_t last_ms;
	size_t *room; /* bytes that lines may still take; shared, NULL: as many as there are */
};

/* The samples of the minute, as minute_each gave them, cells borrowed; [at, end) of each track is
 * set. -E2BIG: no room, -ENOMEM. */
int history_line_minute(struct history_line *l, const struct history_parts *parts, struct minute *m,
			const struct minute_sample *samples, uint64_t from_ms, uint64_t to_ms);
void history_line_fini(struct history_line *l);
