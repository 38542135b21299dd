/* SPDX-License-Identifier: Apache-2.0 */
/* Topics by name, with the numbers that a publisher or a subscriber keeps of each. Pure, bounded. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct topic {
	char *name;
	uint64_t epoch, sequence;
	bool is_changed; /* publisher: since the last beacon */
};

struct topics {
	struct topic *items; /* in order of arrival */
	size_t count, cap, limit;
	uint32_t *slots; /* index + 1, open addressing */
	size_t slot_count;
	uint64_t seed;
	uint64_t refused;
};

/* seed: random, so that nobody can choose names that collide. */
void topics_init(struct topics *t, size_t limit, uint64_t seed);
void topics_fini(struct topics *t);
/* NULL: unknown. Borrowed until the next topics_add. */
struct topic *topics_find(const struct topics *t, const char *name);
/* Finds or adds. -ENOSPC (limit, counted), -ENOMEM. */
int topics_add(struct topics *t, const char *name, struct topic **ret);
