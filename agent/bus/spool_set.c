/* SPDX-License-Identifier: Apache-2.0 */
/* Set of sequences. Pure. */
#include "bus/spool_set.h"

#include <string.h>

bool spool_set_covers(const struct spool_set *s, uint64_t first, uint64_t last)
{
	if (last <= s->watermark)
		return true;
	if (first <= s->watermark)
		first = s->watermark + 1;
	for (unsigned int i = 0; i < s->count; i++)
		if (s->ranges[i].first <= first && last <= s->ranges[i].last)
			return true;
	return false;
}

bool spool_set_has(const struct spool_set *s, uint64_t sequence)
{
	return spool_set_covers(s, sequence, sequence);
}

uint64_t spool_set_missing(const struct spool_set *s, uint64_t first, uint64_t last)
{
	uint64_t n = 0;

	if (first <= s->watermark)
		first = s->watermark + 1;
	for (unsigned int i = 0; i < s->count && first <= last; i++) {
		const struct spool_range *range = &s->ranges[i];

		if (range->last < first)
			continue;
		if (range->first > last)
			break;
		if (range->first > first)
			n += range->first - first;
		first = range->last + 1;
	}
	return first <= last ? n + (last - first + 1) : n;
}

static void range_remove(struct spool_set *s, unsigned int i)
{
	memmove(&s->ranges[i], &s->ranges[i + 1], (s->count - i - 1) * sizeof(s->ranges[0]));
	s->count--;
}

void spool_set_add(struct spool_set *s, uint64_t first, uint64_t last)
{
	unsigned int at = 0;

	if (first <= s->watermark)
		first = s->watermark + 1;
	if (last < first || last == UINT64_MAX)
		return;
	/* Swallow every range that it overlaps or touches. */
	while (at < s->count) {
		if (s->ranges[at].last + 1 < first) {
			at++;
			continue;
		}
		if (s->ranges[at].first > last + 1)
			break;
		if (s->ranges[at].first < first)
			first = s->ranges[at].first;
		if (s->ranges[at].last > last)
			last = s->ranges[at].last;
		range_remove(s, at);
	}
	if (first == s->watermark + 1) {
		s->watermark = last;
		return;
	}
	if (s->count == SPOOL_RANGES_MAX) {
		if (at == SPOOL_RANGES_MAX)
			return;
		s->count--;
	}
	memmove(&s->ranges[at + 1], &s->ranges[at], (s->count - at) * sizeof(s->ranges[0]));
	s->ranges[at] = (struct spool_range){first, last};
	s->count++;
}
