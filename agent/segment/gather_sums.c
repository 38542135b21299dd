/* SPDX-License-Identifier: Apache-2.0 */
/* What gather_sums.h says. One place a series of app.seg, found by its index there. */
#include "segment/gather_sums.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct sum {
	uint64_t at; /* in cells */
	uint8_t kind, merge;
	bool is_known, is_told; /* told: of gauges */
	uint64_t newest_ns;     /* of METRIC_LAST */
};

struct gather_sums {
	struct sum *sums; /* by index in app.seg */
	uint32_t count;
	uint64_t *cells;
	uint64_t cells_used, cells_size;
};

int gather_sums_new(struct gather_sums **ret)
{
	*ret = calloc(1, sizeof(**ret));
	return *ret ? 0 : -ENOMEM;
}

struct gather_sums *gather_sums_free(struct gather_sums *s)
{
	if (!s)
		return NULL;
	free(s->sums);
	free(s->cells);
	free(s);
	return NULL;
}

static int sums_grow(struct gather_sums *s, uint32_t count)
{
	struct sum *sums;

	if (count <= s->count)
		return 0;
	count = count < 256 ? 256 : count * 2;
	sums = reallocarray(s->sums, count, sizeof(*sums));
	if (!sums)
		return -ENOMEM;
	memset(sums + s->count, 0, (count - s->count) * sizeof(*sums));
	s->sums = sums;
	s->count = count;
	return 0;
}

int gather_sums_add(struct gather_sums *s, int index, enum metric_kind kind,
		    enum metric_merge merge)
{
	uint64_t need = kind == METRIC_HISTOGRAM ? HIST_CELLS : 1, size;
	uint64_t *cells;

	if (sums_grow(s, (uint32_t)index + 1) < 0)
		return -ENOMEM;
	if (s->sums[index].is_known)
		return 0;
	if (s->cells_used + need > s->cells_size) {
		size = s->cells_size ? s->cells_size * 2 : 1024;
		cells = reallocarray(s->cells, size, sizeof(*cells));
		if (!cells)
			return -ENOMEM;
		s->cells = cells;
		s->cells_size = size;
	}
	s->sums[index] = (struct sum){s->cells_used, (uint8_t)kind, (uint8_t)merge, true, false, 0};
	s->cells_used += need;
	return 0;
}

void gather_sums_begin(struct gather_sums *s)
{
	if (s->cells_used)
		memset(s->cells, 0, s->cells_used * sizeof(*s->cells));
	for (uint32_t i = 0; i < s->count; i++)
		s->sums[i].is_told = false;
}

/* One that is no number has no value. */
static void gauge_tell(struct sum *sum, uint64_t *to, uint64_t bits, uint64_t written_ns)
{
	double value, told;

	memcpy(&told, &bits, sizeof(told));
	if (isnan(told))
		return;
	memcpy(&value, to, sizeof(value));
	if (!sum->is_told || (sum->merge == METRIC_MAX && told > value) ||
	    (sum->merge == METRIC_LAST && written_ns > sum->newest_ns)) {
		value = told;
		sum->newest_ns = written_ns;
	} else if (sum->merge == METRIC_SUM) {
		value += told;
	}
	memcpy(to, &value, sizeof(value));
	sum->is_told = true;
}

void gather_sums_file(struct gather_sums *s, const struct gather_file *f, const uint64_t *cells)
{
	for (uint32_t i = 0; i < f->entries_known; i++) {
		const struct gather_entry *d = &f->entries[i];
		struct sum *sum = d->series >= 0 ? &s->sums[d->series] : NULL;
		const uint64_t *from = cells + d->cell;
		uint64_t *to;

		if (!sum || sum->kind != d->kind)
			continue;
		to = s->cells + sum->at;
		if (d->kind == METRIC_GAUGE)
			gauge_tell(sum, to, *from, f->h.heartbeat_ns);
		for (uint32_t j = 0; d->kind == METRIC_HISTOGRAM && j < HIST_CELLS; j++)
			to[j] += from[j];
		if (d->kind == METRIC_COUNTER)
			*to += *from;
	}
	if (f->overflow >= 0)
		s->cells[s->sums[f->overflow].at] += f->h.refused;
}

void gather_sums_write(const struct gather_sums *s, struct segment_writer *w)
{
	double value;

	for (uint32_t i = 0; i < s->count; i++) {
		const struct sum *sum = &s->sums[i];

		if (!sum->is_known)
			continue;
		if (sum->kind == METRIC_COUNTER) {
			segment_writer_counter(w, (int)i, s->cells[sum->at]);
		} else if (sum->kind == METRIC_HISTOGRAM) {
			segment_writer_histogram(w, (int)i, s->cells + sum->at);
		} else if (sum->is_told) {
			memcpy(&value, s->cells + sum->at, sizeof(value));
			segment_writer_gauge(w, (int)i, value);
		} else {
			segment_writer_absent(w, (int)i);
		}
	}
}
