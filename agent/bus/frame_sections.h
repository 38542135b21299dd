/* SPDX-License-Identifier: Apache-2.0 */
/* Sections of a frame from the chosen series. Internal to frame_*.c. Pure. */
#pragma once

#include "bus/frame_bits.h"
#include "bus/frame_intern.h"

/* What of a histogram goes out. */
struct frame_changes {
	unsigned int n;
	uint16_t cells[HIST_CELLS];
	uint64_t counts[HIST_CELLS];
};

struct frame_sections {
	struct frame_bits_writer counters, gauges, histograms, absent;
	struct frame_changes changes[2];  /* of one histogram and of the one before */
	struct frame_bits_writer scratch; /* what only its size is wanted of */
	/* Definitions, ids ascending; borrowed from the table. */
	const struct interned **definitions;
	size_t definition_count, definition_cap;
};

/* Upper bound of what the part costs, in bits of the plain frame. A histogram is packed for a close
 * one, else its cells are taken for the worst. */
uint64_t frame_part_bits(struct frame_sections *f, const struct interned *s, struct frame_part p,
			 bool is_key, bool is_close);

/* -ENOMEM. */
int frame_sections_build(struct frame_sections *f, const struct intern_table *table, bool is_key);
void frame_sections_fini(struct frame_sections *f);

/* A whole number that an sint64 and a double both hold exactly. */
bool frame_gauge_is_whole(double v);
