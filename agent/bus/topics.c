/* SPDX-License-Identifier: Apache-2.0 */
/* Bounded hash table of topics. Pure. */
#include "bus/topics.h"

#include "base/err.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint64_t hash(const struct topics *t, const char *name)
{
	uint64_t h = 0xcbf29ce484222325ULL ^ t->seed;

	for (; *name; name++) {
		h = (h ^ (unsigned char)*name) * 0x100000001b3ULL;
		h ^= h >> 29;
	}
	/* FNV's low bits alone are weak, and they choose the slot. */
	h *= 0x9e3779b97f4a7c15ULL;
	return h ^ h >> 32;
}

void topics_init(struct topics *t, size_t limit, uint64_t seed)
{
	*t = (struct topics){.limit = limit, .seed = seed};
}

void topics_fini(struct topics *t)
{
	for (size_t i = 0; i < t->count; i++)
		free(t->items[i].name);
	free(t->items);
	free(t->slots);
	*t = (struct topics){.limit = t->limit, .seed = t->seed};
}

static uint32_t *slot_of(const struct topics *t, const char *name)
{
	size_t i = hash(t, name) & (t->slot_count - 1);

	while (t->slots[i] && strcmp(t->items[t->slots[i] - 1].name, name) != 0)
		i = (i + 1) & (t->slot_count - 1);
	return &t->slots[i];
}

struct topic *topics_find(const struct topics *t, const char *name)
{
	uint32_t at;

	if (!t->slot_count)
		return NULL;
	at = *slot_of(t, name);
	return at ? &t->items[at - 1] : NULL;
}

static int grow(struct topics *t)
{
	size_t cap = t->cap ? t->cap * 2 : 16;
	struct topic *items = realloc(t->items, cap * sizeof(*items));
	uint32_t *slots;

	if (!items)
		return -ENOMEM;
	memset(items + t->count, 0, (cap - t->count) * sizeof(*items));
	t->items = items;
	slots = calloc(cap * 2, sizeof(*slots));
	if (!slots)
		return -ENOMEM;
	free(t->slots);
	t->slots = slots;
	t->slot_count = cap * 2;
	t->cap = cap;
	for (size_t i = 0; i < t->count; i++)
		*slot_of(t, t->items[i].name) = (uint32_t)i + 1;
	return 0;
}

int topics_add(struct topics *t, const char *name, struct topic **ret)
{
	struct topic *found = topics_find(t, name);
	char *copy;
	int r;

	if (found) {
		*ret = found;
		return 0;
	}
	if (t->count >= t->limit) {
		t->refused++;
		return -ENOSPC;
	}
	if (t->count == t->cap) {
		r = grow(t);
		if (r < 0)
			return r;
	}
	copy = strdup(name);
	if (!copy)
		return -ENOMEM;
	CHECK(t->items && t->slots);
	found = &t->items[t->count];
	*found = (struct topic){.name = copy};
	*slot_of(t, name) = (uint32_t)++t->count;
	*ret = found;
	return 0;
}
