/* SPDX-License-Identifier: Apache-2.0 */
#include "fleet/history_line.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void history_parts_init(struct history_parts *p, const uint64_t *bounds_ns, size_t n)
{
	uint64_t cells[HIST_CELLS] = {0};
	size_t bucket = 0;

	p->bound_count = n;
	for (unsigned int i = 0; i < HIST_CELLS; i++) {
		while (bucket < n && i > histogram_index(bounds_ns[bucket]))
			bucket++;
		p->bucket_of[i] = (uint8_t)bucket;
		cells[i] = 1;
		p->middle[i] = histogram_sum(cells);
		cells[i] = 0;
	}
}

static int point_add(struct history_line *l, struct history_points *out, const struct point *p)
{
	if (out->count == out->capacity) {
		size_t capacity = out->capacity ? out->capacity * 2 : 32;
		size_t more = (capacity - out->capacity) * sizeof(*p);
		struct point *grown;

		if (l->room && more > *l->room)
			return -E2BIG;
		grown = reallocarray(out->items, capacity, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		if (l->room)
			*l->room -= more;
		out->items = grown;
		out->capacity = capacity;
	}
	out->items[out->count++] = *p;
	return 0;
}

static void take_cells(struct history_track *t, const struct history_parts *parts,
		       const struct minute_sample *s)
{
	if (s->kind == MINUTE_CELLS_TOTAL) {
		memset(t->buckets, 0, sizeof(t->buckets));
		t->sum = 0;
		t->is_known = true;
	}
	for (size_t i = 0; i < s->cell_count; i++) {
		t->buckets[parts->bucket_of[s->cells[i]]] += s->counts[i];
		t->sum += parts->middle[s->cells[i]] * (double)s->counts[i];
	}
}

static void take_sample(struct history_line *l, struct history_track *t,
			const struct history_parts *parts, const struct minute_sample *s)
{
	switch (s->kind) {
	case MINUTE_COUNTER_ADD:
		t->counter += s->counter;
		break;
	case MINUTE_COUNTER_TOTAL:
		t->counter = s->counter;
		t->is_known = l->kind == METRIC_COUNTER;
		break;
	case MINUTE_GAUGE:
		t->gauge = s->gauge;
		t->is_known = l->kind == METRIC_GAUGE;
		break;
	case MINUTE_CELLS_ADD:
	case MINUTE_CELLS_TOTAL:
		if (l->kind == METRIC_HISTOGRAM)
			take_cells(t, parts, s);
		break;
	case MINUTE_ABSENT:
		t->is_known = false;
		break;
	}
}

static double value_of(const struct history_line *l, const struct history_track *t,
		       const struct history_parts *parts, size_t output)
{
	uint64_t below = 0;

	if (l->kind == METRIC_GAUGE)
		return t->gauge;
	if (l->kind == METRIC_COUNTER)
		return l->is_ns ? (double)t->counter / 1e9 : (double)t->counter;
	if (output == history_part_sum(parts))
		return t->sum;
	for (size_t i = 0; i <= output && i <= parts->bound_count; i++)
		below += t->buckets[i];
	return (double)below;
}

static int show(struct history_line *l, const struct history_parts *parts,
		const struct history_track *shown, uint64_t time_ms, bool is_minute)
{
	/* Points ascend: where a clock stepped back, its ticks count and are not shown. */
	if ((!shown && !l->is_shown) || time_ms <= l->last_ms)
		return 0;
	for (size_t i = 0; i < HISTORY_OUTPUTS_MAX; i++) {
		struct point p = {.time_ms = time_ms, .is_absent = !shown, .is_minute = is_minute};
		int r;

		if (!(l->wanted >> i & 1))
			continue;
		if (shown)
			p.value = value_of(l, shown, parts, i);
		r = point_add(l, &l->outputs[i], &p);
		if (r < 0)
			return r;
	}
	l->is_shown = shown;
	l->last_ms = time_ms;
	return 0;
}

int history_line_minute(struct history_line *l, const struct history_parts *parts, struct minute *m,
			const struct minute_sample *samples, uint64_t from_ms, uint64_t to_ms)
{
	size_t ticks = minute_ticks(m);
	bool has_key = false;

	for (size_t i = 0; i < ticks; i++)
		has_key = has_key || minute_tick_get(m, i).is_key;
	/* A key frame names every series that has a value: one that is not in the minute has none. */
	for (size_t i = 0; has_key && i < l->track_count; i++)
		if (l->tracks[i].at == l->tracks[i].end)
			l->tracks[i].is_known = false;
	for (size_t i = 0; i < ticks; i++) {
		struct minute_tick_info tick = minute_tick_get(m, i);
		const struct history_track *shown = NULL;
		int r;

		for (size_t k = 0; k < l->track_count; k++) {
			struct history_track *t = &l->tracks[k];

			for (; t->at < t->end && samples[t->at].tick == i; t->at++)
				take_sample(l, t, parts, &samples[t->at]);
			if (t->is_known)
				shown = t; /* the newest id */
		}
		if (tick.time_ms < from_ms || tick.time_ms > to_ms)
			continue;
		r = show(l, parts, shown, tick.time_ms, minute_is_thin(m));
		if (r < 0)
			return r;
	}
	return 0;
}

void history_line_fini(struct history_line *l)
{
	for (size_t i = 0; i < HISTORY_OUTPUTS_MAX; i++)
		free(l->outputs[i].items);
	free(l->tracks);
	*l = (struct history_line){0};
}
