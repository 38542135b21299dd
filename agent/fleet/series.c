/* SPDX-License-Identifier: Apache-2.0 */
/* Series, origins and ids of one incarnation. */
#include "fleet/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int array_grow(void **items, uint32_t *capacity, uint32_t count, size_t size)
{
	uint32_t more = *capacity ? *capacity * 2 : 8;
	void *grown;

	if (count < *capacity)
		return 0;
	grown = realloc(*items, more * size);
	if (!grown)
		return -ENOMEM;
	*items = grown;
	*capacity = more;
	return 0;
}

uint32_t fleet_origin_find(const struct fleet_incarnation *inc, const char *instance,
			   const char *worker)
{
	for (uint32_t i = 0; i < inc->origin_count; i++)
		if (strcmp(inc->origins[i].instance, instance) == 0 &&
		    strcmp(inc->origins[i].worker, worker) == 0)
			return i;
	return FLEET_NOT_FOUND;
}

int fleet_origin_intern(struct fleet_incarnation *inc, const char *instance, const char *worker,
			uint32_t *ret)
{
	uint32_t i = fleet_origin_find(inc, instance, worker);
	void *items = inc->origins;
	char *text;
	int r;

	if (i != FLEET_NOT_FOUND) {
		*ret = i;
		return 0;
	}
	if (inc->origin_count >= FLEET_ORIGINS_MAX)
		return -ENOSPC;
	r = array_grow(&items, &inc->origin_capacity, inc->origin_count, sizeof(*inc->origins));
	inc->origins = items;
	if (r < 0)
		return r;
	text = malloc(strlen(instance) + strlen(worker) + 2);
	if (!text)
		return -ENOMEM;
	inc->origins[inc->origin_count].instance = text;
	text = stpcpy(text, instance) + 1;
	strcpy(text, worker);
	inc->origins[inc->origin_count].worker = text;
	*ret = inc->origin_count++;
	return 0;
}

static uint32_t pair_hash(uint32_t group, uint32_t origin)
{
	uint64_t h = ((uint64_t)group << 32 | origin) * 0x9e3779b97f4a7c15ULL;

	return (uint32_t)(h >> 32);
}

static int buckets_grow(struct fleet_incarnation *inc)
{
	uint32_t n = inc->bucket_count ? inc->bucket_count * 2 : 16, *fresh;

	if ((inc->series_count + 1) * 2ULL <= inc->bucket_count)
		return 0;
	fresh = calloc(n, sizeof(*fresh));
	if (!fresh)
		return -ENOMEM;
	for (uint32_t i = 0; i < inc->series_count; i++) {
		uint32_t at = pair_hash(inc->series[i].group, inc->series[i].origin) & (n - 1);

		while (fresh[at])
			at = (at + 1) & (n - 1);
		fresh[at] = i + 1;
	}
	free(inc->buckets);
	inc->buckets = fresh;
	inc->bucket_count = n;
	return 0;
}

uint32_t fleet_series_find(const struct fleet_incarnation *inc, uint32_t group, uint32_t origin)
{
	uint32_t at, i;

	if (!inc->bucket_count)
		return FLEET_NOT_FOUND;
	at = pair_hash(group, origin) & (inc->bucket_count - 1);
	for (; (i = inc->buckets[at]); at = (at + 1) & (inc->bucket_count - 1))
		if (inc->series[i - 1].group == group && inc->series[i - 1].origin == origin)
			return i - 1;
	return FLEET_NOT_FOUND;
}

int fleet_series_intern(struct fleet *f, struct fleet_incarnation *inc, uint32_t group,
			uint32_t origin, enum metric_kind kind, uint32_t *ret)
{
	uint32_t i = fleet_series_find(inc, group, origin), at;
	void *items = inc->series;
	int r;

	if (i != FLEET_NOT_FOUND) {
		*ret = i;
		return 0;
	}
	if (inc->series_count >= f->limits.agent_series || f->series_count >= f->limits.series)
		return -ENOSPC;
	r = buckets_grow(inc);
	if (r < 0)
		return r;
	r = array_grow(&items, &inc->series_capacity, inc->series_count, sizeof(*inc->series));
	inc->series = items;
	if (r < 0)
		return r;
	inc->series[inc->series_count] =
		(struct fleet_series){.group = group, .origin = origin, .kind = (uint8_t)kind};
	at = pair_hash(group, origin) & (inc->bucket_count - 1);
	while (inc->buckets[at])
		at = (at + 1) & (inc->bucket_count - 1);
	*ret = inc->series_count++;
	inc->buckets[at] = inc->series_count;
	f->series_count++;
	return 0;
}

static uint32_t id_position(const struct fleet_incarnation *inc, uint32_t id)
{
	uint32_t low = 0, high = inc->id_count;

	/* Ids of one encoder begin at some number and have no holes: guess first. */
	if (high && id >= inc->ids[0].id && id - inc->ids[0].id < high &&
	    inc->ids[id - inc->ids[0].id].id == id)
		return id - inc->ids[0].id;
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (inc->ids[middle].id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

const struct fleet_id *fleet_id_find(const struct fleet_incarnation *inc, uint32_t id)
{
	uint32_t i = id_position(inc, id);

	return i < inc->id_count && inc->ids[i].id == id ? &inc->ids[i] : NULL;
}

int fleet_id_add(struct fleet_incarnation *inc, uint32_t id, uint32_t series)
{
	void *items = inc->ids;
	uint32_t i;
	int r;

	if (inc->id_count >= FLEET_IDS_MAX)
		return -ENOSPC;
	r = array_grow(&items, &inc->id_capacity, inc->id_count, sizeof(*inc->ids));
	inc->ids = items;
	if (r < 0)
		return r;
	i = id_position(inc, id);
	memmove(&inc->ids[i + 1], &inc->ids[i], (inc->id_count - i) * sizeof(*inc->ids));
	inc->ids[i] = (struct fleet_id){id, series};
	inc->id_count++;
	return 0;
}

void fleet_incarnation_clear(struct fleet_incarnation *inc)
{
	for (uint32_t i = 0; i < inc->series_count; i++)
		if (inc->series[i].kind == METRIC_HISTOGRAM)
			free(inc->series[i].v.cells);
	for (uint32_t i = 0; i < inc->origin_count; i++)
		free(inc->origins[i].instance);
	free(inc->series);
	free(inc->buckets);
	free(inc->origins);
	free(inc->ids);
	held_fini(inc);
	sequence_fini(&inc->applied);
	free(inc);
}
