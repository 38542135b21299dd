/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sessions: the number that stands for an incarnation in requests, and its place in the fleet's
 * table. Numbers are drawn from the whole range, by the life of the state: an agent that goes on with
 * one of another state (wiped, or of another aggregator behind the same address) must not be taken
 * for whoever has it here, but be asked for a hello.
 */
#include "fleet/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS_FIRST 64u
#define SLOTS_MAX   (1u << 20)

static uint32_t draw(struct fleet *f)
{
	uint64_t x = f->life + ++f->next_session * 0x9e3779b97f4a7c15ULL;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return (uint32_t)(x >> 32 ^ x);
}

/* Where the session is, or the free bucket where it belongs. The table is never full. */
static uint32_t bucket_find(const struct fleet *f, uint32_t session)
{
	uint32_t mask = f->session_bucket_count - 1, at = (session ^ session >> 16) & mask;

	while (f->session_buckets[at] && f->slots[f->session_buckets[at] - 1]->session != session)
		at = (at + 1) & mask;
	return at;
}

struct fleet_incarnation *fleet_find_session(const struct fleet *f, uint32_t session)
{
	uint32_t at;

	if (!session || !f->session_bucket_count)
		return NULL;
	at = bucket_find(f, session);
	return f->session_buckets[at] ? f->slots[f->session_buckets[at] - 1] : NULL;
}

const char *fleet_session_agent(const struct fleet *f, uint32_t session)
{
	const struct fleet_incarnation *inc = fleet_find_session(f, session);

	return inc ? inc->agent->id : NULL;
}

bool fleet_session_is_sum(const struct fleet *f, uint32_t session)
{
	const struct fleet_incarnation *inc = fleet_find_session(f, session);

	return inc && inc->agent->is_sum;
}

static int grow(struct fleet *f)
{
	uint32_t capacity = f->slot_count ? f->slot_count * 2 : SLOTS_FIRST;
	struct fleet_incarnation **slots;
	uint32_t *buckets;

	if (f->slot_count >= SLOTS_MAX)
		return -ENOSPC;
	buckets = calloc(2 * (size_t)capacity, sizeof(*buckets));
	if (!buckets)
		return -ENOMEM;
	slots = realloc(f->slots, capacity * sizeof(*slots));
	if (!slots) {
		free(buckets);
		return -ENOMEM;
	}
	memset(slots + f->slot_count, 0, (capacity - f->slot_count) * sizeof(*slots));
	free(f->session_buckets);
	f->session_buckets = buckets;
	f->session_bucket_count = 2 * capacity;
	f->slots = slots;
	f->slot_count = capacity;
	for (uint32_t i = 0; i < capacity; i++)
		if (slots[i])
			buckets[bucket_find(f, slots[i]->session)] = i + 1;
	return 0;
}

static int slot_find(struct fleet *f, uint32_t *ret)
{
	int r;

	/* Full tables double, so this walk is short on the average. */
	if (f->stats.incarnations < f->slot_count)
		for (uint32_t i = 0; i < f->slot_count; i++)
			if (!f->slots[i]) {
				*ret = i;
				return 0;
			}
	*ret = f->slot_count;
	r = grow(f);
	return r;
}

int fleet_session_begin(struct fleet *f, struct fleet_incarnation *inc, uint32_t session)
{
	struct fleet_incarnation *holder = fleet_find_session(f, session);
	uint32_t slot;
	int r;

	/* Departing is not in the log: when the session was given anew, its holder had departed. */
	if (holder)
		fleet_fold(f, holder);
	r = slot_find(f, &slot);
	if (r < 0)
		return r;
	if (session)
		f->next_session++; /* it was drawn before the log was written */
	while (!session || fleet_find_session(f, session))
		session = draw(f);
	inc->session = session;
	inc->slot = slot;
	f->slots[slot] = inc;
	f->session_buckets[bucket_find(f, session)] = slot + 1;
	f->stats.incarnations++;
	return 0;
}

void fleet_session_end(struct fleet *f, struct fleet_incarnation *inc)
{
	uint32_t mask = f->session_bucket_count - 1, at = bucket_find(f, inc->session);

	f->session_buckets[at] = 0;
	/* Those behind it may have been pushed there by it. */
	for (at = (at + 1) & mask; f->session_buckets[at]; at = (at + 1) & mask) {
		uint32_t moved = f->session_buckets[at];

		f->session_buckets[at] = 0;
		f->session_buckets[bucket_find(f, f->slots[moved - 1]->session)] = moved;
	}
	f->slots[inc->slot] = NULL;
	f->stats.incarnations--;
}
