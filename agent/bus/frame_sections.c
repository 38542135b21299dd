/* SPDX-License-Identifier: Apache-2.0 */
/* Bit sections of a frame: one pass finds the parameters, the second writes. Pure. */
#include "bus/frame_sections.h"

#include "bus/frame_cells.h"

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

static void histogram_changes(const struct interned *s, bool is_key, struct frame_changes *ret)
{
	const uint64_t *now = s->v.histogram.now, *sent = s->v.histogram.sent;
	const uint64_t *offset = s->v.histogram.offset;
	unsigned int n = 0;

	for (unsigned int i = 0; i < HIST_CELLS; i++) {
		uint64_t total = now ? now[i] + (offset ? offset[i] : 0) : sent[i];
		uint64_t v = is_key ? total : total - sent[i];

		ret->cells[n] = (uint16_t)i;
		ret->counts[n] = v;
		n += v != 0;
	}
	ret->n = n;
}

/* Cost in length mode (frame_bits.h), which the chosen parameter never exceeds in sum. */
static uint64_t value_bits(uint64_t v)
{
	return 7 + (v > 1 ? 63 - (unsigned int)__builtin_clzll(v) : 0);
}

#define ID_BITS 31u /* value_bits(FRAME_ID_MAX) */
/* Of a cell, its count's bits apart: a symbol and an escape, and before it three zeros and a run. */
#define CELL_BITS (5u * FRAME_CODE_BITS + 2 * 7 + 8)
/* Of a histogram: length, first cell, divisor. */
#define CELLS_BITS 200u

static uint64_t histogram_bits(struct frame_sections *f, const struct interned *s, bool is_key,
			       bool is_close)
{
	struct frame_changes *c = &f->changes[0];
	unsigned int start = HIST_CELLS; /* as far away as it can be */
	uint64_t bits = CELLS_BITS;

	histogram_changes(s, is_key, c);
	if (is_close) {
		frame_bits_reset(&f->scratch);
		frame_cells_put(&f->scratch, c->cells, c->counts, c->n, &start);
		return CELLS_BITS + 8 * (uint64_t)f->scratch.size;
	}
	for (unsigned int i = 0; i < c->n; i++)
		bits += CELL_BITS + value_bits(c->counts[i]);
	return bits;
}

uint64_t frame_part_bits(struct frame_sections *f, const struct interned *s, struct frame_part p,
			 bool is_key, bool is_close)
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
	return bits + histogram_bits(f, s, is_key, is_close);
}

/* Values of one place: what they cost under the parameters and under the trained code. */
struct place_cost {
	struct frame_bits_cost plain;
	uint64_t trained_bits;
};

static void place_add(struct place_cost *cost, enum frame_code code, uint64_t v)
{
	frame_bits_cost_add(&cost->plain, v);
	cost->trained_bits += frame_code_bits(code, v);
}

/* Writes the parameter that is cheapest. */
static unsigned int place_begin(struct frame_bits_writer *w, const struct place_cost *cost)
{
	uint64_t bits;
	unsigned int k = frame_bits_best(&cost->plain, &bits);

	if (cost->trained_bits < bits)
		k = FRAME_BITS_K_TRAINED;
	frame_bits_put(w, k, FRAME_BITS_K_BITS);
	return k;
}

static void place_put(struct frame_bits_writer *w, enum frame_code code, unsigned int k, uint64_t v)
{
	if (k == FRAME_BITS_K_TRAINED)
		frame_code_put(w, code, v);
	else
		frame_bits_put_code(w, v, k);
}

/* Members of a section, by what they must be. */
static bool is_member(const struct interned *s, int kind)
{
	return s->is_chosen &&
	       (kind < 0 ? s->part.is_absent : s->part.has_value && s->kind == (uint8_t)kind);
}

/* The gaps of a section. */
struct gaps {
	enum frame_code code;
	unsigned int k;
	uint32_t prev;
};

static void gap_put(struct frame_bits_writer *w, struct gaps *g, const struct interned *s)
{
	place_put(w, g->code, g->k, s->id - g->prev - 1);
	g->prev = s->id;
}

/* Count and gap parameter; returns the count. */
static size_t section_begin(struct frame_bits_writer *w, const struct intern_table *t, int kind,
			    struct gaps *gaps)
{
	static const enum frame_code codes[] = {
		[METRIC_COUNTER] = FRAME_CODE_COUNTER_GAP,
		[METRIC_GAUGE] = FRAME_CODE_GAUGE_GAP,
		[METRIC_HISTOGRAM] = FRAME_CODE_HISTOGRAM_GAP,
	};
	struct place_cost cost = {0};
	uint32_t prev = 0;
	size_t n = 0;

	frame_bits_reset(w);
	*gaps = (struct gaps){.code = kind < 0 ? FRAME_CODE_COUNTER_GAP : codes[kind]};
	for (size_t i = 0; i < t->count; i++) {
		if (!is_member(t->list[i], kind))
			continue;
		place_add(&cost, gaps->code, t->list[i]->id - prev - 1);
		prev = t->list[i]->id;
		n++;
	}
	if (!n)
		return 0;
	frame_bits_put_code(w, n, FRAME_BITS_K_COUNT);
	gaps->k = place_begin(w, &cost);
	return n;
}

static void build_counters(struct frame_bits_writer *w, const struct intern_table *t, bool is_key)
{
	struct frame_code_recent costed = {0}, recent = {0};
	struct place_cost values = {0};
	struct gaps gaps;
	unsigned int k;

	if (!section_begin(w, t, METRIC_COUNTER, &gaps))
		return;
	for (size_t i = 0; i < t->count; i++) {
		uint64_t v;

		if (!is_member(t->list[i], METRIC_COUNTER))
			continue;
		v = counter_value(t->list[i], is_key);
		frame_bits_cost_add(&values.plain, v);
		values.trained_bits += frame_code_counter_bits(&costed, v);
	}
	k = place_begin(w, &values);
	for (size_t i = 0; i < t->count; i++) {
		const struct interned *s = t->list[i];

		if (!is_member(s, METRIC_COUNTER))
			continue;
		gap_put(w, &gaps, s);
		if (k == FRAME_BITS_K_TRAINED)
			frame_code_put_counter(w, &recent, counter_value(s, is_key));
		else
			frame_bits_put_code(w, counter_value(s, is_key), k);
	}
}

static void put_gauge(struct frame_bits_writer *w, double v, unsigned int k)
{
	uint64_t bits;
	unsigned int zeros;

	if (frame_gauge_is_whole(v)) {
		frame_bits_put(w, 0, 1);
		place_put(w, FRAME_CODE_GAUGE, k, zigzag((int64_t)v));
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
	struct place_cost values = {0};
	struct gaps gaps;
	unsigned int k;

	if (!section_begin(w, t, METRIC_GAUGE, &gaps))
		return;
	for (size_t i = 0; i < t->count; i++) {
		const struct interned *s = t->list[i];

		if (is_member(s, METRIC_GAUGE) && frame_gauge_is_whole(s->v.gauge.now))
			place_add(&values, FRAME_CODE_GAUGE, zigzag((int64_t)s->v.gauge.now));
	}
	k = place_begin(w, &values);
	for (size_t i = 0; i < t->count; i++) {
		if (!is_member(t->list[i], METRIC_GAUGE))
			continue;
		gap_put(w, &gaps, t->list[i]);
		put_gauge(w, t->list[i]->v.gauge.now, k);
	}
}

static bool changes_equal(const struct frame_changes *a, const struct frame_changes *b)
{
	return a->n && a->n == b->n &&
	       memcmp(a->cells, b->cells, a->n * sizeof(a->cells[0])) == 0 &&
	       memcmp(a->counts, b->counts, a->n * sizeof(a->counts[0])) == 0;
}

static void build_histograms(struct frame_sections *f, const struct intern_table *t, bool is_key)
{
	struct frame_bits_writer *w = &f->histograms;
	unsigned int start = 0, which = 0;
	struct gaps gaps;

	if (!section_begin(w, t, METRIC_HISTOGRAM, &gaps))
		return;
	f->changes[1].n = 0;
	for (size_t i = 0; i < t->count; i++) {
		struct frame_changes *c = &f->changes[which], *before = &f->changes[which ^ 1];

		if (!is_member(t->list[i], METRIC_HISTOGRAM))
			continue;
		histogram_changes(t->list[i], is_key, c);
		gap_put(w, &gaps, t->list[i]);
		if (changes_equal(c, before)) {
			frame_bits_put(w, 1, 1);
			continue;
		}
		frame_bits_put(w, 0, 1);
		frame_cells_put(w, c->cells, c->counts, c->n, &start);
		which ^= 1;
	}
}

static void build_absent(struct frame_bits_writer *w, const struct intern_table *t)
{
	struct gaps gaps;

	if (!section_begin(w, t, -1, &gaps))
		return;
	for (size_t i = 0; i < t->count; i++)
		if (is_member(t->list[i], -1))
			gap_put(w, &gaps, t->list[i]);
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
	build_histograms(f, table, is_key);
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
	frame_bits_fini(&f->scratch);
	free(f->definitions);
	*f = (struct frame_sections){0};
}
