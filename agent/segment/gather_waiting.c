/* SPDX-License-Identifier: Apache-2.0 */
/* What gather_waiting.h says: open addressing by inode, made anew at each sweep. */
#include "segment/gather_waiting.h"

#include "base/str.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct waiting {
	ino_t inode; /* 0: empty place */
	uint64_t since_ns;
	uint8_t counted; /* a bit a reason */
	bool is_seen;
};

struct gather_waiting {
	struct waiting places[2][2 * GATHER_WAITING];
	unsigned int current, count;
};

static_assert(GATHER_REFUSALS <= 8, "a bit a reason");

int gather_waiting_new(struct gather_waiting **ret)
{
	*ret = calloc(1, sizeof(**ret));
	return *ret ? 0 : -ENOMEM;
}

struct gather_waiting *gather_waiting_free(struct gather_waiting *w)
{
	free(w);
	return NULL;
}

static struct waiting *place_of(struct gather_waiting *w, ino_t inode)
{
	struct waiting *places = w->places[w->current];
	size_t at = (uint64_t)inode * 0x9e3779b97f4a7c15ULL >> 40;

	at %= ARRAY_LEN(w->places[0]);
	while (places[at].inode && places[at].inode != inode)
		at = (at + 1) % ARRAY_LEN(w->places[0]);
	return &places[at];
}

uint64_t gather_waiting_since(struct gather_waiting *w, ino_t inode, uint64_t now_ns)
{
	struct waiting *p = place_of(w, inode);

	if (!p->inode) {
		if (w->count == GATHER_WAITING)
			return now_ns;
		*p = (struct waiting){inode, now_ns, 0, true};
		w->count++;
	}
	p->is_seen = true;
	return p->since_ns;
}

bool gather_waiting_count(struct gather_waiting *w, ino_t inode, enum gather_refusal why)
{
	struct waiting *p = place_of(w, inode);
	uint8_t bit = (uint8_t)(1u << why);

	if (!p->inode || p->counted & bit)
		return false;
	p->counted |= bit;
	return true;
}

void gather_waiting_sweep(struct gather_waiting *w)
{
	const struct waiting *old = w->places[w->current];

	if (!w->count)
		return;
	w->current ^= 1;
	w->count = 0;
	memset(w->places[w->current], 0, sizeof(w->places[0]));
	for (size_t i = 0; i < ARRAY_LEN(w->places[0]); i++) {
		struct waiting *p;

		if (!old[i].inode || !old[i].is_seen)
			continue;
		p = place_of(w, old[i].inode);
		*p = old[i];
		p->is_seen = false;
		w->count++;
	}
}
