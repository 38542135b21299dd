/* SPDX-License-Identifier: Apache-2.0 */
/* Sections of a frame from the chosen series. Internal to frame_*.c. Pure. */
#pragma once

#include "bus/frame_bits.h"
#include "bus/frame_intern.h"

struct frame_sections {
	struct frame_bits_writer counters, gauges, histograms, absent;
	/* Definitions, ids ascending; borrowed from the table. */
	const struct interned **definitions;
	size_t definition_count, definition_cap;
};

/* Upper bound of what the part costs, in bits of the plain frame. */
uint64_t frame_part_bits(const struct interned *s, struct frame_part p, bool is_key);

/* -ENOMEM. */
int frame_sections_build(struct frame_sections *f, const struct intern_table *table, bool is_key);
void frame_sections_fini(struct frame_sections *f);

/* A whole number that an sint64 and a double both hold exactly. */
bool frame_gauge_is_whole(double v);
