/* SPDX-License-Identifier: Apache-2.0 */
/* Bit sections of a frame: one pass finds the parameters, the second writes. Pure. */
#include "bus/frame_sections.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define GAUGE_WHOLE_MAX 9007199254740992.0 /* 2^53 */

bool frame_gauge_is_whole(double v)
{
	int64_t n;
	double back;

	if (!(v > -GAUGE_WHOLE_MAX && v < GAUGE_WHOLE_MAX))
		return false;
	n = (int64_t)v;
	back = (double)n;
	/* Bit by bit: -0.0 is none. NOLINTNEXTLINE(bugprone-suspicious-memory-comparison) */
	return memcmp(&back, &v, sizeof(v)) == 0;
}

static uint64_t zigzag(int64_t v)
{
	return (uint64_t)v << 1 ^ (uint64_t)(v >> 63);
}

static uint64_t counter_value(const struct interned *s, bool is_key)
{
	return is_key ? s->v.counter.now : s->v.counter.now - s->v.counter.sent;
}

static uint64_t cell_value(const struct interned *s, unsigned int i, bool is_key)
{
	uint64_t sent = s->v.histogram.sent[i];
	uint64_t total = s->v.histogram.now ? interned_total(s, i) : sent;

	return is_key ? total : total - sent;
}

/* Cost in length mode (frame_bits.h), which the chosen parameter never exceeds in sum. */
static uint64_t value_bits(uint64_t v)
{
	return 7 + (v > 1 ? 63 - (unsigned int)__builtin_clzll(v) : 0);
}

#define ID_BITS 31u /* value_bits(FRAME_ID_MAX) */

uint64_t frame_part_bits(const struct interned *s, struct frame_part p, bool is_key)
{
	uint64_t bits = 0;

	if (p.has_definition)
		bits += 8 * (s->text_bytes + 3 * (2 * (size_t)s->label_count + 3) + 24);
	if (p.is_absent)
		bits += ID_BITS;
	if (!p.has_value)
		return bits;
	bits += ID_BITS;
	if (s->kind == METRIC_COUNTER)
		return bits + value_bits(counter_value(s, is_key));
	if (s->kind == METRIC_GAUGE)
		return bits + 1 + 70;
	bits += value_bits(HIST_CELLS);
	for (unsigned int i = 0; i < HIST_CELLS; i++) {
		uint64_t v = cell_value(s, i, is_key);

		if (v)
			bits += value_bits(HIST_CELLS) + value_bits(v);
	}
	return bits;
}

/* Writes (k == NULL: only adds up costs) the cells of one histogram. */
struct histogram_costs {
	struct frame_bits_cost length, gap, count;
};

static uint64_t histogram_cells(const struct interned *s, bool is_key,
				struct histogram_costs *costs)
{
	uint64_t n = 0;
	unsigned int next = 0;

	for (unsigned int i = 0; i < HIST_CELLS; i++) {
		uint64_t v = cell_value(s, i, is_key);

		if (!v)
			continue;
		if (costs) {
			frame_bits_cost_add(&costs->gap, i - next);
			frame_bits_cost_add(&costs->count, v);
		}
		next = i + 1;
		n++;
	}
	if (costs)
		frame_bits_cost_add(&costs->length, n);
	return n;
}

static void put_k(struct frame_bits_writer *w, unsigned int k)
{
	frame_bits_put(w, k, FRAME_BITS_K_BITS);
}

/* Members of a section, by what they must be. */
static bool is_member(const struct interned *s, int kind)
{
	return s->is_chosen &&
	       (kind < 0 ? s->part.is_absent : s->part.has_value && s->kind == (uint8_t)kind);
}

/* Count and gap parameter; returns the latter, *ret_n the former. */
static unsigned int section_begin(struct frame_bits_writer *w, const struct intern_table *t,
				  int kind, size_t *ret_n)
{
	struct frame_bits_cost gaps = {0};
	uint32_t prev = 0;
	unsigned int k;
	size_t n = 0;

	frame_bits_reset(w);
	for (size_t i = 0; i < t->count; i++) {
		if (!is_member(t->list[i], kind))
			continue;
		frame_bits_cost_add(&gaps, t->list[i]->id - prev - 1);
		prev = t->list[i]->id;
		n++;
	}
	*ret_n = n;
	if (!n)
		return 0;
	k = frame_bits_best(&gaps);
	frame_bits_put_code(w, n, FRAME_BITS_K_COUNT);
	put_k(w, k);
	return k;
}

static void build_counters(struct frame_bits_writer *w, const struct intern_table *t, bool is_key)
{
	struct frame_bits_cost values = {0};
	unsigned int k_gap, k_value;
	uint32_t prev = 0;
	size_t n;

	k_gap = section_begin(w, t, METRIC_COUNTER, &n);
	if (!n)
		return;
	for (size_t i = 0; i < t->count; i++)
		if (is_member(t->list[i], METRIC_COUNTER))
			frame_bits_cost_add(&values, counter_value(t->list[i], is_key));
	k_value = frame_bits_best(&values);
	put_k(w, k_value);
	for (size_t i = 0; i < t->count; i++) {
		const struct interned *s = t->list[i];

		if (!is_member(s, METRIC_COUNTER))
			continue;
		frame_bits_put_code(w, s->id - prev - 1, k_gap);
		frame_bits_put_code(w, counter_value(s, is_key), k_value);
		prev = s->id;
	}
}

static void put_gauge(struct frame_bits_writer *w, double v, unsigned int k)
{
	uint64_t bits;
	unsigned int zeros;

	if (frame_gauge_is_whole(v)) {
		frame_bits_put(w, 0, 1);
		frame_bits_put_code(w, zigzag((int64_t)v), k);
		return;
	}
	memcpy(&bits, &v, sizeof(bits));
	zeros = (unsigned int)__builtin_ctzll(bits); /* 0 is whole, so a bit is set */
	frame_bits_put(w, 1, 1);
	frame_bits_put(w, zeros, 6);
	frame_bits_put(w, bits >> zeros, 64 - zeros);
}

static void build_gauges(struct frame_bits_writer *w, const struct intern_table *t)
{
	struct frame_bits_cost values = {0};
	unsigned int k_gap, k_value;
	uint32_t prev = 0;
	size_t n;

	k_gap = section_begin(w, t, METRIC_GAUGE, &n);
	if (!n)
		return;
	for (size_t i = 0; i < t->count; i++) {
		const struct interned *s = t->list[i];

		if (is_member(s, METRIC_GAUGE) && frame_gauge_is_whole(s->v.gauge.now))
			frame_bits_cost_add(&values, zigzag((int64_t)s->v.gauge.now));
	}
	k_value = frame_bits_best(&values);
	put_k(w, k_value);
	for (size_t i = 0; i < t->count; i++) {
		const struct interned *s = t->list[i];

		if (!is_member(s, METRIC_GAUGE))
			continue;
		frame_bits_put_code(w, s->id - prev - 1, k_gap);
		put_gauge(w, s->v.gauge.now, k_value);
		prev = s->id;
	}
}

static void build_histograms(struct frame_bits_writer *w, const struct intern_table *t, bool is_key)
{
	struct histogram_costs costs = {0};
	unsigned int k_gap, k_length, k_cell, k_count;
	uint32_t prev = 0;
	size_t n;

	k_gap = section_begin(w, t, METRIC_HISTOGRAM, &n);
	if (!n)
		return;
	for (size_t i = 0; i < t->count; i++)
		if (is_member(t->list[i], METRIC_HISTOGRAM))
			histogram_cells(t->list[i], is_key, &costs);
	k_length = frame_bits_best(&costs.length);
	k_cell = frame_bits_best(&costs.gap);
	k_count = frame_bits_best(&costs.count);
	put_k(w, k_length);
	put_k(w, k_cell);
	put_k(w, k_count);
	for (size_t i = 0; i < t->count; i++) {
		const struct interned *s = t->list[i];
		unsigned int next = 0;

		if (!is_member(s, METRIC_HISTOGRAM))
			continue;
		frame_bits_put_code(w, s->id - prev - 1, k_gap);
		frame_bits_put_code(w, histogram_cells(s, is_key, NULL), k_length);
		for (unsigned int c = 0; c < HIST_CELLS; c++) {
			uint64_t v = cell_value(s, c, is_key);

			if (!v)
				continue;
			frame_bits_put_code(w, c - next, k_cell);
			frame_bits_put_code(w, v, k_count);
			next = c + 1;
		}
		prev = s->id;
	}
}

static void build_absent(struct frame_bits_writer *w, const struct intern_table *t)
{
	uint32_t prev = 0;
	unsigned int k_gap;
	size_t n;

	k_gap = section_begin(w, t, -1, &n);
	for (size_t i = 0; n && i < t->count; i++) {
		if (!is_member(t->list[i], -1))
			continue;
		frame_bits_put_code(w, t->list[i]->id - prev - 1, k_gap);
		prev = t->list[i]->id;
	}
}

static int build_definitions(struct frame_sections *f, const struct intern_table *t)
{
	f->definition_count = 0;
	for (size_t i = 0; i < t->count; i++) {
		if (!t->list[i]->is_chosen || !t->list[i]->part.has_definition)
			continue;
		if (f->definition_count == f->definition_cap) {
			size_t cap = f->definition_cap ? f->definition_cap * 2 : 64;
			const struct interned **grown =
				realloc(f->definitions, cap * sizeof(*f->definitions));

			if (!grown)
				return -ENOMEM;
			f->definitions = grown;
			f->definition_cap = cap;
		}
		f->definitions[f->definition_count++] = t->list[i];
	}
	return 0;
}

int frame_sections_build(struct frame_sections *f, const struct intern_table *table, bool is_key)
{
	int r = build_definitions(f, table);

	if (r < 0)
		return r;
	build_counters(&f->counters, table, is_key);
	build_gauges(&f->gauges, table);
	build_histograms(&f->histograms, table, is_key);
	build_absent(&f->absent, table);
	return f->counters.failed || f->gauges.failed || f->histograms.failed || f->absent.failed
		       ? -ENOMEM
		       : 0;
}

void frame_sections_fini(struct frame_sections *f)
{
	frame_bits_fini(&f->counters);
	frame_bits_fini(&f->gauges);
	frame_bits_fini(&f->histograms);
	frame_bits_fini(&f->absent);
	free(f->definitions);
	*f = (struct frame_sections){0};
}
