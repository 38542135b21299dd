/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The encoder's memory: every series that it named, with its id and what was sent of it. Internal
 * to frame_*.c. Pure.
 */
#pragma once

#include "bus/frame.h"

/* What one series puts into one frame. */
struct frame_part {
	bool has_definition, has_value, is_absent;
};

/* Totals are offset + raw: offset grows by what was sent when the raw value falls. */
struct interned {
	struct interned *hash_next;
	uint64_t hash;
	uint32_t id;
	uint8_t kind, merge, scope, label_count;
	bool is_defined;         /* its definition went out */
	bool is_definition_owed; /* again, for a key frame */
	bool is_total_owed;
	bool is_absent; /* so the receiver believes */
	bool is_passed; /* in this frame: the reader knows it */
	bool is_seen;   /* in this frame: it has a value */
	bool is_chosen; /* for this frame */
	uint8_t keys_missed;
	struct frame_part part; /* while is_chosen */
	union {
		struct {
			uint64_t sent, offset, now;
		} counter;
		struct {
			double sent, now;
		} gauge;
		struct {
			uint64_t *sent, *offset; /* HIST_CELLS each; offset NULL: all 0 */
			const uint64_t *now;     /* borrowed from the reader */
		} histogram;
	} v;
	size_t text_bytes;
	char text[]; /* metric, unit, help, key, value, key, value … each with its NUL */
};

struct intern_table {
	struct interned **list; /* ids ascending */
	size_t count, cap;
	struct interned **buckets;
	size_t bucket_count;
	uint32_t next_id;
	size_t expected; /* in the list: what follows the one asked for last */
	uint64_t refused;
};

void intern_init(struct intern_table *t);
void intern_fini(struct intern_table *t);

/* Finds the series or takes it in. 1 found, 0 new, -EINVAL, -ENOSPC, -ENOMEM. A series that is
 * not present is not taken in: -ENOENT. */
int intern_series(struct intern_table *t, const struct segment_series *series,
		  struct interned **ret);

/* Forgets the series for which is_gone. */
void intern_sweep(struct intern_table *t, bool (*is_gone)(const struct interned *s));

/* Total of cell i as of now. */
static inline uint64_t interned_total(const struct interned *s, unsigned int i)
{
	return (s->v.histogram.now ? s->v.histogram.now[i] : 0) +
	       (s->v.histogram.offset ? s->v.histogram.offset[i] : 0);
}
