/* SPDX-License-Identifier: Apache-2.0 */
/* Sorted ranges above a watermark; owned by one incarnation. */
#include "fleet/sequence.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void sequence_fini(struct sequence_set *set)
{
	free(set->ranges);
	*set = (struct sequence_set){0};
}

/* Index of the first range whose last is >= sequence. */
static uint32_t range_find(const struct sequence_set *set, uint64_t sequence)
{
	uint32_t low = 0, high = set->count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (set->ranges[middle].last < sequence)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

bool sequence_has(const struct sequence_set *set, uint64_t sequence)
{
	uint32_t i;

	if (sequence <= set->watermark)
		return true;
	i = range_find(set, sequence);
	return i < set->count && set->ranges[i].first <= sequence;
}

static void range_remove(struct sequence_set *set, uint32_t from, uint32_t n)
{
	memmove(&set->ranges[from], &set->ranges[from + n],
		(set->count - from - n) * sizeof(set->ranges[0]));
	set->count -= n;
}

/* The watermark swallows ranges that it touches. */
static void watermark_advance(struct sequence_set *set)
{
	uint32_t n = 0;

	while (n < set->count && set->ranges[n].first <= set->watermark + 1) {
		if (set->ranges[n].last > set->watermark)
			set->watermark = set->ranges[n].last;
		n++;
	}
	if (n)
		range_remove(set, 0, n);
}

static int range_insert(struct sequence_set *set, uint32_t at, uint64_t sequence)
{
	if (set->count == SEQUENCE_RANGES_MAX)
		return -ENOSPC;
	if (set->count == set->capacity) {
		uint32_t capacity = set->capacity ? set->capacity * 2 : 4;
		struct sequence_range *ranges =
			realloc(set->ranges, capacity * sizeof(set->ranges[0]));

		if (!ranges)
			return -ENOMEM;
		set->ranges = ranges;
		set->capacity = capacity;
	}
	memmove(&set->ranges[at + 1], &set->ranges[at], (set->count - at) * sizeof(set->ranges[0]));
	set->ranges[at] = (struct sequence_range){sequence, sequence};
	set->count++;
	return 1;
}

int sequence_add(struct sequence_set *set, uint64_t sequence)
{
	bool joins_before, joins_after;
	uint32_t i;

	if (sequence == 0 || sequence == UINT64_MAX)
		return -EINVAL;
	if (sequence <= set->watermark)
		return 0;
	if (sequence == set->watermark + 1) {
		set->watermark = sequence;
		watermark_advance(set);
		return 1;
	}
	i = range_find(set, sequence);
	if (i < set->count && set->ranges[i].first <= sequence)
		return 0;
	joins_before = i > 0 && set->ranges[i - 1].last + 1 == sequence;
	joins_after = i < set->count && set->ranges[i].first == sequence + 1;
	if (joins_before && joins_after) {
		set->ranges[i - 1].last = set->ranges[i].last;
		range_remove(set, i, 1);
	} else if (joins_before) {
		set->ranges[i - 1].last = sequence;
	} else if (joins_after) {
		set->ranges[i].first = sequence;
	} else {
		return range_insert(set, i, sequence);
	}
	return 1;
}

uint64_t sequence_settle(struct sequence_set *set, uint64_t upto)
{
	uint64_t missing = 0, next = set->watermark + 1;

	if (upto <= set->watermark)
		return 0;
	for (uint32_t i = 0; i < set->count && set->ranges[i].first <= upto; i++) {
		missing += set->ranges[i].first - next;
		next = set->ranges[i].last + 1;
	}
	if (next <= upto)
		missing += upto - next + 1;
	set->watermark = upto;
	watermark_advance(set);
	return missing;
}

uint64_t sequence_highest(const struct sequence_set *set)
{
	return set->count ? set->ranges[set->count - 1].last : set->watermark;
}

uint64_t sequence_missing(const struct sequence_set *set)
{
	uint64_t missing = 0, next = set->watermark + 1;

	for (uint32_t i = 0; i < set->count; i++) {
		missing += set->ranges[i].first - next;
		next = set->ranges[i].last + 1;
	}
	return missing;
}
