/* SPDX-License-Identifier: Apache-2.0 */
/* In memory: ticks as they came, and one array of samples that is sorted when somebody asks. */
#include "fleet/minute.h"

#include "fleet/minute_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int minute_new(uint64_t start_ms, struct minute **ret)
{
	struct minute *m = calloc(1, sizeof(*m));

	if (!m)
		return -ENOMEM;
	m->start_ms = start_ms;
	m->is_sorted = true;
	*ret = m;
	return 0;
}

struct minute *minute_free(struct minute *m)
{
	if (!m)
		return NULL;
	free(m->ticks);
	free(m->samples);
	free(m->cells);
	free(m->counts);
	free(m->ranges);
	free(m);
	return NULL;
}

uint64_t minute_start_ms(const struct minute *m)
{
	return m->start_ms;
}

bool minute_is_thin(const struct minute *m)
{
	return m->range_count > 0;
}

size_t minute_ticks(const struct minute *m)
{
	return m->tick_count;
}

struct minute_tick_info minute_tick_get(const struct minute *m, size_t index)
{
	const struct minute_tick *t = &m->ticks[index];

	return (struct minute_tick_info){t->sequence, m->start_ms + t->offset_ms, t->is_key};
}

bool minute_has(const struct minute *m, uint64_t sequence)
{
	if (minute_is_thin(m)) {
		for (uint32_t i = 0; i < m->range_count; i++)
			if (sequence - m->ranges[i].first < m->ranges[i].count)
				return true;
		return false;
	}
	/* From the end: frames come in order. */
	for (uint32_t i = m->tick_count; i-- > 0;)
		if (m->ticks[i].sequence == sequence)
			return true;
	return false;
}

static int grow(void **array, uint32_t *capacity, size_t need, size_t max, size_t item)
{
	size_t want = *capacity ? *capacity : 16;
	void *fresh;

	if (need > max)
		return -ENOSPC;
	if (need <= *capacity)
		return 0;
	while (want < need)
		want *= 2;
	fresh = reallocarray(*array, want, item);
	if (!fresh)
		return -ENOMEM;
	*array = fresh;
	*capacity = (uint32_t)want;
	return 0;
}

int minute_reserve(struct minute *m, size_t ticks, size_t samples, size_t cells)
{
	uint32_t capacity = m->cell_capacity;
	void *array = m->ticks;
	int r = grow(&array, &m->tick_capacity, m->tick_count + ticks, MINUTE_TICKS_MAX,
		     sizeof(*m->ticks));

	m->ticks = array;
	if (r < 0)
		return r;
	array = m->samples;
	r = grow(&array, &m->sample_capacity, m->sample_count + samples, MINUTE_SAMPLES_MAX,
		 sizeof(*m->samples));
	m->samples = array;
	if (r < 0)
		return r;
	/* Two arrays of one capacity: it grows when both have. */
	array = m->cells;
	r = grow(&array, &capacity, m->cell_count + cells, MINUTE_CELLS_MAX, sizeof(*m->cells));
	m->cells = array;
	if (r < 0)
		return r;
	array = m->counts;
	r = grow(&array, &m->cell_capacity, m->cell_count + cells, MINUTE_CELLS_MAX,
		 sizeof(*m->counts));
	m->counts = array;
	return r;
}

struct minute_item *minute_push(struct minute *m, uint32_t id, enum minute_kind kind)
{
	struct minute_item *s = &m->samples[m->sample_count++];

	*s = (struct minute_item){.id = id, .kind = (uint8_t)kind, .tick = m->tick_count - 1};
	m->is_sorted = false;
	return s;
}

void minute_push_cells(struct minute *m, struct minute_item *s, size_t n, const uint16_t *cells,
		       const uint64_t *counts)
{
	s->v.window.first = m->cell_count;
	s->v.window.count = (uint32_t)n;
	if (!n)
		return;
	memcpy(m->cells + m->cell_count, cells, n * sizeof(*cells));
	memcpy(m->counts + m->cell_count, counts, n * sizeof(*counts));
	m->cell_count += (uint32_t)n;
}

/* A series that an encoder gives an id between key frames counts from 0: what it says first is its
 * total. Ids ascend, and are asked for so. */
static bool is_born(const struct frame *f, size_t *at, uint32_t id)
{
	while (*at < f->definition_count && f->definitions[*at].id < id)
		(*at)++;
	return *at < f->definition_count && f->definitions[*at].id == id;
}

static void add_counters(struct minute *m, const struct frame *f)
{
	size_t at = 0;

	for (size_t i = 0; i < f->counter_count; i++) {
		bool is_total = f->is_key || is_born(f, &at, f->counters[i].id);

		minute_push(m, f->counters[i].id,
			    is_total ? MINUTE_COUNTER_TOTAL : MINUTE_COUNTER_ADD)
			->v.counter = f->counters[i].value;
	}
}

static void add_histograms(struct minute *m, const struct frame *f)
{
	size_t at = 0;

	for (size_t i = 0; i < f->histogram_count; i++) {
		const struct frame_histogram *h = &f->histograms[i];
		bool is_total = f->is_key || is_born(f, &at, h->id);

		minute_push_cells(
			m, minute_push(m, h->id, is_total ? MINUTE_CELLS_TOTAL : MINUTE_CELLS_ADD),
			h->count, h->cells, h->counts);
	}
}

/* Born without a count: they are at 0. */
static void add_zeros(struct minute *m, const struct frame *f)
{
	size_t counter = 0, histogram = 0;

	for (size_t i = 0; i < f->definition_count; i++) {
		const struct frame_definition *d = &f->definitions[i];

		while (counter < f->counter_count && f->counters[counter].id < d->id)
			counter++;
		while (histogram < f->histogram_count && f->histograms[histogram].id < d->id)
			histogram++;
		if (d->kind == METRIC_COUNTER &&
		    (counter == f->counter_count || f->counters[counter].id != d->id))
			minute_push(m, d->id, MINUTE_COUNTER_TOTAL);
		if (d->kind == METRIC_HISTOGRAM &&
		    (histogram == f->histogram_count || f->histograms[histogram].id != d->id))
			minute_push(m, d->id, MINUTE_CELLS_TOTAL);
	}
}

int minute_add(struct minute *m, const struct frame *f)
{
	size_t cells = 0;
	int r;

	if (f->time_ms < m->start_ms || f->time_ms - m->start_ms >= MINUTE_MS)
		return -ERANGE;
	if (minute_has(m, f->sequence))
		return 0;
	if (minute_is_thin(m))
		return -ESTALE;
	for (size_t i = 0; i < f->histogram_count; i++)
		cells += f->histograms[i].count;
	r = minute_reserve(m, 1,
			   f->definition_count + f->counter_count + f->gauge_count +
				   f->histogram_count + f->absent_count,
			   cells);
	if (r < 0)
		return r;
	m->ticks[m->tick_count++] =
		(struct minute_tick){.sequence = f->sequence,
				     .offset_ms = (uint32_t)(f->time_ms - m->start_ms),
				     .is_key = f->is_key};
	add_counters(m, f);
	for (size_t i = 0; i < f->gauge_count; i++)
		minute_push(m, f->gauges[i].id, MINUTE_GAUGE)->v.gauge = f->gauges[i].value;
	add_histograms(m, f);
	if (!f->is_key)
		add_zeros(m, f);
	/* After the values: a value in the frame that says absent was the last. */
	for (size_t i = 0; i < f->absent_count; i++)
		minute_push(m, f->absent[i], MINUTE_ABSENT);
	return 1;
}

/* -------- order -------- */

static int compare_ticks(const void *a, const void *b)
{
	const struct minute_tick *x = a, *y = b;

	return (x->sequence > y->sequence) - (x->sequence < y->sequence);
}

static int compare_items(const void *a, const void *b)
{
	const struct minute_item *x = a, *y = b;

	if (x->id != y->id)
		return x->id < y->id ? -1 : 1;
	if (x->tick != y->tick)
		return x->tick < y->tick ? -1 : 1;
	return (x->kind > y->kind) - (x->kind < y->kind);
}

/* Samples that came tick after tick, each by id within its kind: put in order by counting, where
 * ids are as dense as an encoder gives them. 1: done. */
static int sort_by_counting(struct minute *m)
{
	uint32_t low = UINT32_MAX, high = 0, *places, sum = 0;
	struct minute_item *sorted;

	for (uint32_t i = 1; i < m->tick_count; i++)
		if (m->ticks[i].sequence < m->ticks[i - 1].sequence)
			return 0;
	for (uint32_t i = 0; i < m->sample_count; i++) {
		low = m->samples[i].id < low ? m->samples[i].id : low;
		high = m->samples[i].id > high ? m->samples[i].id : high;
	}
	if (!m->sample_count || high - low > 4 * m->sample_count)
		return 0;
	places = calloc((size_t)(high - low) + 2, sizeof(*places));
	sorted = malloc(m->sample_capacity * sizeof(*sorted));
	if (!places || !sorted) {
		free(places);
		free(sorted);
		return 0; /* there is a way without */
	}
	for (uint32_t i = 0; i < m->sample_count; i++)
		places[m->samples[i].id - low]++;
	for (uint32_t i = 0; i <= high - low; i++) {
		uint32_t count = places[i];

		places[i] = sum;
		sum += count;
	}
	for (uint32_t i = 0; i < m->sample_count; i++)
		sorted[places[m->samples[i].id - low]++] = m->samples[i];
	free(places);
	free(m->samples);
	m->samples = sorted;
	m->is_sorted = true;
	return 1;
}

/* Ticks by sequence, samples by id and tick. */
int minute_sort(struct minute *m)
{
	uint32_t *places;

	if (m->is_sorted || sort_by_counting(m))
		return 0;
	places = malloc((m->tick_count + 1) * sizeof(*places));
	if (!places)
		return -ENOMEM;
	for (uint32_t i = 0; i < m->tick_count; i++)
		m->ticks[i].place = i;
	if (m->tick_count)
		qsort(m->ticks, m->tick_count, sizeof(*m->ticks), compare_ticks);
	for (uint32_t i = 0; i < m->tick_count; i++)
		places[m->ticks[i].place] = i;
	for (uint32_t i = 0; i < m->sample_count; i++)
		m->samples[i].tick = places[m->samples[i].tick];
	free(places);
	if (m->sample_count)
		qsort(m->samples, m->sample_count, sizeof(*m->samples), compare_items);
	m->is_sorted = true;
	return 0;
}

static void sample_of(const struct minute *m, const struct minute_item *s,
		      struct minute_sample *ret)
{
	const struct minute_tick *t = &m->ticks[s->tick];

	*ret = (struct minute_sample){
		.id = s->id,
		.tick = s->tick,
		.kind = (enum minute_kind)s->kind,
		.sequence = t->sequence,
		.time_ms = m->start_ms + t->offset_ms,
	};
	if (minute_is_cells(s->kind)) {
		ret->cell_count = s->v.window.count;
		if (!ret->cell_count) /* nor need there be any room for cells */
			return;
		ret->cells = m->cells + s->v.window.first;
		ret->counts = m->counts + s->v.window.first;
	} else if (s->kind == MINUTE_GAUGE) {
		ret->gauge = s->v.gauge;
	} else {
		ret->counter = s->v.counter;
	}
}

int minute_each(struct minute *m, minute_sample_fn fn, void *data)
{
	int r = minute_sort(m);

	for (uint32_t i = 0; i < m->sample_count && r == 0; i++) {
		struct minute_sample s;

		sample_of(m, &m->samples[i], &s);
		r = fn(data, &s);
	}
	return r;
}
