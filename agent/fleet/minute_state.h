/* SPDX-License-Identifier: Apache-2.0 */
/* What a minute is made of. minute*.c's. */
#pragma once

#include "fleet/minute.h"

struct minute_tick {
	uint64_t sequence;
	uint32_t offset_ms;
	uint32_t place; /* while sorting */
	bool is_key;
};

struct minute_item {
	uint32_t id, tick;
	uint8_t kind;
	union {
		uint64_t counter;
		double gauge;
		struct {
			uint32_t first, count;
		} window; /* of cells and counts */
	} v;
};

struct minute_range {
	uint64_t first, count;
};

struct minute {
	uint64_t start_ms;
	struct minute_tick *ticks;
	struct minute_item *samples;
	uint16_t *cells;
	uint64_t *counts;
	struct minute_range *ranges; /* of a thin one: what is in it */
	uint32_t tick_count, tick_capacity, sample_count, sample_capacity, cell_count,
		cell_capacity, range_count;
	bool is_sorted;
};

static inline bool minute_is_cells(unsigned int kind)
{
	return kind == MINUTE_CELLS_ADD || kind == MINUTE_CELLS_TOTAL;
}

/* Room for so much more; then pushing cannot fail. */
int minute_reserve(struct minute *m, size_t ticks, size_t samples, size_t cells);
/* A sample of the last tick. */
struct minute_item *minute_push(struct minute *m, uint32_t id, enum minute_kind kind);
void minute_push_cells(struct minute *m, struct minute_item *s, size_t n, const uint16_t *cells,
		       const uint64_t *counts);
int minute_sort(struct minute *m);
