/* SPDX-License-Identifier: Apache-2.0 */
/* A minute reduced to its end: one tick, the last value of each series, sums of increments. */
#include "fleet/minute_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What a run of samples of one id comes to. */
struct last {
	bool has_counter, has_gauge, has_cells, is_absent, is_total;
	uint64_t counter;
	double gauge;
	uint64_t cells[HIST_CELLS];
};

static void last_add(struct last *l, const struct minute_sample *s)
{
	bool is_total = s->kind == MINUTE_COUNTER_TOTAL || s->kind == MINUTE_CELLS_TOTAL;

	l->is_absent = s->kind == MINUTE_ABSENT;
	if (l->is_absent)
		return;
	if (s->kind == MINUTE_GAUGE) {
		l->has_gauge = true;
		l->gauge = s->gauge;
		return;
	}
	l->is_total = l->is_total || is_total;
	if (!minute_is_cells(s->kind)) {
		l->has_counter = true;
		l->counter = is_total ? s->counter : l->counter + s->counter;
		return;
	}
	l->has_cells = true;
	if (is_total)
		memset(l->cells, 0, sizeof(l->cells));
	for (size_t i = 0; i < s->cell_count; i++)
		l->cells[s->cells[i]] += s->counts[i];
}

/* Room is asked for what is written, no more: what a minute holds, its end holds too. */
static int last_write(struct minute *out, const struct last *l, uint32_t id)
{
	size_t samples = (size_t)l->has_counter + (l->has_gauge && !l->is_absent) + l->has_cells +
			 l->is_absent;
	uint16_t cells[HIST_CELLS];
	uint64_t counts[HIST_CELLS];
	size_t n = 0;
	int r;

	for (unsigned int i = 0; l->has_cells && i < HIST_CELLS; i++) {
		if (!l->cells[i])
			continue;
		cells[n] = (uint16_t)i;
		counts[n++] = l->cells[i];
	}
	r = minute_reserve(out, 0, samples, n);
	if (r < 0)
		return r;
	if (l->has_counter)
		minute_push(out, id, l->is_total ? MINUTE_COUNTER_TOTAL : MINUTE_COUNTER_ADD)
			->v.counter = l->counter;
	if (l->has_gauge && !l->is_absent)
		minute_push(out, id, MINUTE_GAUGE)->v.gauge = l->gauge;
	if (l->has_cells)
		minute_push_cells(
			out,
			minute_push(out, id, l->is_total ? MINUTE_CELLS_TOTAL : MINUTE_CELLS_ADD),
			n, cells, counts);
	if (l->is_absent)
		minute_push(out, id, MINUTE_ABSENT);
	return 0;
}

struct thinning {
	struct minute *out;
	struct last last;
	uint32_t id;
	bool is_begun;
};

static int on_sample(void *data, const struct minute_sample *s)
{
	struct thinning *t = data;
	int r = 0;

	if (t->is_begun && t->id != s->id) {
		r = last_write(t->out, &t->last, t->id);
		memset(&t->last, 0, sizeof(t->last));
	}
	t->is_begun = true;
	t->id = s->id;
	last_add(&t->last, s);
	return r;
}

static int ranges_make(struct minute *out, const struct minute *m)
{
	out->ranges = calloc(m->tick_count, sizeof(*out->ranges));
	if (!out->ranges)
		return -ENOMEM;
	for (uint32_t i = 0; i < m->tick_count; i++) {
		struct minute_range *last =
			out->range_count ? &out->ranges[out->range_count - 1] : NULL;
		uint64_t sequence = m->ticks[i].sequence;

		if (last && last->first + last->count == sequence)
			last->count++;
		else
			out->ranges[out->range_count++] = (struct minute_range){sequence, 1};
	}
	return 0;
}

int minute_thin(struct minute *m)
{
	struct thinning t = {0};
	struct minute swap;
	int r;

	if (minute_is_thin(m) || !m->tick_count)
		return 0;
	r = minute_sort(m);
	if (r >= 0)
		r = minute_new(m->start_ms, &t.out);
	if (r >= 0)
		r = minute_reserve(t.out, 1, 0, 0);
	if (r >= 0) {
		t.out->ticks[t.out->tick_count++] = m->ticks[m->tick_count - 1];
		for (uint32_t i = 0; i < m->tick_count; i++)
			t.out->ticks[0].is_key = t.out->ticks[0].is_key || m->ticks[i].is_key;
		r = minute_each(m, on_sample, &t);
	}
	if (r >= 0 && t.is_begun)
		r = last_write(t.out, &t.last, t.id);
	if (r >= 0)
		r = ranges_make(t.out, m);
	if (r >= 0) {
		swap = *m;
		*m = *t.out;
		*t.out = swap;
	}
	minute_free(t.out);
	return r;
}
