/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Places of connections, and the hop in front of a backtrace that names one: 20 bits of place and 11
 * of how often it was taken (the high bit is clear), so that a late reply does not find the next one
 * who sits there; in each table from another number on, for the replies that a door before us asked
 * for. Pure but for that number.
 */
#pragma once

#include <stdint.h>

#define SEATS_MOST ((1u << 20) - 1)
#define SEATS_NONE UINT32_MAX

struct seat {
	void *who;
	uint32_t next_free, generation;
};

struct seats {
	struct seat *all;
	uint32_t used, most, first_free; /* used: places 0 to used - 1 were taken once */
	uint32_t begin;                  /* of what is counted: random */
};

/* most <= SEATS_MOST. -ENOMEM, -EIO (no random number). */
int seats_init(struct seats *s, uint32_t most);
void seats_fini(struct seats *s);

/* SEATS_NONE: all are taken. */
uint32_t seats_take(struct seats *s, void *who);
void seats_give_back(struct seats *s, uint32_t seat);
/* Who sits there, or NULL; seat < used. */
void *seats_at(const struct seats *s, uint32_t seat);

uint32_t seats_hop(const struct seats *s, uint32_t seat);
/* NULL: he has left, or there never was one. */
void *seats_find(const struct seats *s, uint32_t hop);
