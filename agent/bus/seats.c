/* SPDX-License-Identifier: Apache-2.0 */
/* A table of places with a list of the free ones. Owns the table, not who sits there. */
#include "bus/seats.h"

#include "base/err.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#define SEAT_BITS       20
#define GENERATION_MASK 0x7ffu

int seats_init(struct seats *s, uint32_t most)
{
	CHECK(most <= SEATS_MOST);
	*s = (struct seats){.most = most, .first_free = SEATS_NONE};
	/* The next process is no guest of this one: what comes late for it finds nobody there. */
	if (getrandom(&s->begin, sizeof(s->begin), 0) != sizeof(s->begin))
		return -EIO;
	s->all = calloc(most, sizeof(*s->all));
	return s->all ? 0 : -ENOMEM;
}

void seats_fini(struct seats *s)
{
	free(s->all);
	*s = (struct seats){0};
}

uint32_t seats_take(struct seats *s, void *who)
{
	uint32_t seat = s->first_free;

	if (seat != SEATS_NONE)
		s->first_free = s->all[seat].next_free;
	else if (s->used < s->most)
		seat = s->used++;
	else
		return SEATS_NONE;
	s->all[seat].who = who;
	s->all[seat].generation++;
	return seat;
}

void seats_give_back(struct seats *s, uint32_t seat)
{
	CHECK(seat < s->used && s->all[seat].who);
	s->all[seat].who = NULL;
	s->all[seat].next_free = s->first_free;
	s->first_free = seat;
}

void *seats_at(const struct seats *s, uint32_t seat)
{
	CHECK(seat < s->used);
	return s->all[seat].who;
}

uint32_t seats_hop(const struct seats *s, uint32_t seat)
{
	return ((s->begin + s->all[seat].generation) & GENERATION_MASK) << SEAT_BITS | seat;
}

void *seats_find(const struct seats *s, uint32_t hop)
{
	uint32_t seat = hop & SEATS_MOST;

	if (seat >= s->used || seats_hop(s, seat) != hop)
		return NULL;
	return s->all[seat].who;
}
