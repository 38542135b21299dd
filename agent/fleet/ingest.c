/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One frame changes the state: look at all of it first, take the memory that it needs, and only
 * then change values, so that a frame is applied whole or not at all.
 */
#include "fleet/ingest.h"

#include "fleet/state.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Of the agent's labels, cluster and namespace. */
#define GROUP_AGENT_LABELS 2

struct apply {
	struct fleet *f;
	struct fleet_incarnation *inc;
	const struct frame *frame;
	struct err *e;
};

static const char *label_value(const struct frame_definition *d, const char *key)
{
	for (unsigned int i = 0; i < d->label_count; i++)
		if (strcmp(d->labels[i].key, key) == 0)
			return d->labels[i].value;
	return "";
}

static bool is_own_label(const struct fleet_agent *agent, const char *key)
{
	/* What the fleet view leaves out, and what the agent's hello says for all its series. */
	if (strcmp(key, "instance") == 0 || strcmp(key, "worker") == 0)
		return true;
	for (unsigned int i = 0; i < FLEET_AGENT_LABELS; i++)
		if (strcmp(key, fleet_label_names[i]) == 0)
			/* Sums of two clusters are two series. */
			return !agent->is_sum || i >= GROUP_AGENT_LABELS;
	return false;
}

static void key_fill(const struct fleet_agent *agent, const struct frame_definition *d,
		     struct group_key *key)
{
	*key = (struct group_key){
		.metric = d->metric,
		.unit = d->unit ? d->unit : "",
		.help = d->help ? d->help : "",
		.kind = d->kind,
		.merge = d->merge,
		.scope = d->scope,
	};
	for (unsigned int i = 0; i < d->label_count; i++)
		if (!is_own_label(agent, d->labels[i].key) && *d->labels[i].value)
			key->labels[key->label_count++] = d->labels[i];
	/* cluster and namespace stay in the fleet view, pod and node do not. */
	for (unsigned int i = 0; i < GROUP_AGENT_LABELS; i++)
		if (*agent->labels[i] && !(agent->is_sum && *label_value(d, fleet_label_names[i])))
			key->labels[key->label_count++] =
				(struct segment_label){fleet_label_names[i], agent->labels[i]};
}

/* Whoever says that an aggregator's sums are here stops that aggregator (fleet/tributary.h). */
static bool may_name(const struct fleet_agent *agent, const struct frame_definition *d)
{
	return agent->is_sum ||
	       strcmp(d->metric, metric_descs[METRIC_ID_AGGREGATOR_FEEDS].name) != 0;
}

/* *ret is FLEET_NO_SERIES when a limit or a conflict keeps it out: counted, and no reason to refuse
 * the other series of the frame. */
static int series_define(struct apply *a, const struct frame_definition *d, uint32_t *ret)
{
	struct group_key key;
	uint32_t group, origin;
	int r;

	key_fill(a->inc->agent, d, &key);
	r = may_name(a->inc->agent, d) ? 0 : -EPERM;
	if (r >= 0)
		r = group_intern(&a->f->groups, &key, &group);
	if (r >= 0)
		r = fleet_origin_intern(a->inc, label_value(d, "instance"),
					label_value(d, "worker"), &origin);
	if (r >= 0)
		r = fleet_series_intern(a->f, a->inc, group, origin, d->kind, ret);
	if (r == -ENOMEM)
		return r;
	if (r < 0) {
		a->f->stats.series_refused++;
		*ret = FLEET_NO_SERIES;
	}
	return 0;
}

static int definitions_apply(struct apply *a)
{
	for (size_t i = 0; i < a->frame->definition_count; i++) {
		const struct frame_definition *d = &a->frame->definitions[i];
		const struct fleet_id *id = fleet_id_find(a->inc, d->id);
		uint32_t series;
		int r;

		if (id && id->series == FLEET_NO_SERIES)
			continue;
		r = series_define(a, d, &series);
		if (r < 0)
			return r;
		if (id && series != id->series && series != FLEET_NO_SERIES)
			return err_set(a->e, -EINVAL,
				       "series id %u names another series than before", d->id);
		if (!id) {
			r = fleet_id_add(a->inc, d->id, series);
			if (r < 0)
				return err_set(a->e, r, "more than %u series ids", FLEET_IDS_MAX);
		}
	}
	return 0;
}

/* 0 known, -ENOKEY unknown, -EINVAL of another kind. */
static int id_check(struct apply *a, uint32_t id, enum metric_kind kind)
{
	const struct fleet_id *entry = fleet_id_find(a->inc, id);

	if (!entry)
		return err_set(a->e, -ENOKEY, "series id %u is unknown", id);
	if (entry->series != FLEET_NO_SERIES && a->inc->series[entry->series].kind != kind)
		return err_set(a->e, -EINVAL, "series id %u is of another kind", id);
	return 0;
}

static int values_check(struct apply *a)
{
	const struct frame *f = a->frame;
	int r = 0;

	for (size_t i = 0; i < f->counter_count && r >= 0; i++)
		r = id_check(a, f->counters[i].id, METRIC_COUNTER);
	for (size_t i = 0; i < f->gauge_count && r >= 0; i++)
		r = id_check(a, f->gauges[i].id, METRIC_GAUGE);
	for (size_t i = 0; i < f->histogram_count && r >= 0; i++) {
		const struct frame_histogram *h = &f->histograms[i];

		r = id_check(a, h->id, METRIC_HISTOGRAM);
		for (uint32_t c = 0; c < h->count && r >= 0; c++)
			if (h->cells[c] >= HIST_CELLS || (c && h->cells[c] <= h->cells[c - 1]))
				r = err_set(a->e, -EINVAL, "histogram %u has bad cells", h->id);
	}
	for (size_t i = 0; i < f->absent_count && r >= 0; i++)
		if (!fleet_id_find(a->inc, f->absent[i]))
			r = err_set(a->e, -ENOKEY, "series id %u is unknown", f->absent[i]);
	return r;
}

static struct fleet_series *series_of(struct apply *a, uint32_t id)
{
	uint32_t series = fleet_id_find(a->inc, id)->series;

	return series == FLEET_NO_SERIES ? NULL : &a->inc->series[series];
}

/* Room for all cells, in the series and (a total that fell) in the base of the group. */
static int memory_take(struct apply *a)
{
	for (size_t i = 0; i < a->frame->histogram_count; i++) {
		const struct frame_histogram *h = &a->frame->histograms[i];
		struct fleet_series *s = series_of(a, h->id);
		int r;

		if (!s || !h->count)
			continue;
		r = cell_window_reach(&s->v.cells, h->cells[0], h->cells[h->count - 1]);
		if (r >= 0 && a->frame->is_key) {
			uint64_t zero = 0;

			r = group_add_cells(a->f->groups.groups[s->group], 0, 1, &zero);
		}
		if (r < 0)
			return r;
	}
	return 0;
}

static void counter_total(struct apply *a, struct fleet_series *s, uint64_t total)
{
	/* What was counted must not be uncounted: the rest goes into the base. */
	if (total < s->v.counter) {
		a->f->groups.groups[s->group]->base.counter += s->v.counter - total;
		a->f->stats.resets++;
	}
	s->v.counter = total;
}

static void histogram_total(struct apply *a, struct fleet_series *s,
			    const struct frame_histogram *h)
{
	struct cell_window *w = s->v.cells;
	struct group *g = a->f->groups.groups[s->group];
	bool fell = false;
	uint32_t next = 0;

	for (unsigned int c = 0; w && c < w->count; c++) {
		unsigned int cell = w->first + c;
		uint64_t total = 0;

		if (next < h->count && h->cells[next] == cell)
			total = h->counts[next++];
		if (total < w->counts[c]) {
			uint64_t rest = w->counts[c] - total;

			fell = group_add_cells(g, cell, 1, &rest) == 0;
		}
		w->counts[c] = total;
	}
	a->f->stats.resets += fell;
}

/* Increments above the key frame are taken out before and put back after, see totals_set(). */
static void held_remove(struct apply *a)
{
	const struct fleet_incarnation *inc = a->inc;

	for (uint32_t i = 0; i < inc->held_count; i++) {
		const struct fleet_held *held = &inc->held[i];
		const uint64_t *w = held->words, *end = w + held->word_count;

		if (held->sequence <= a->frame->sequence)
			continue;
		for (; w < end; w += 2 + 2 * w[1]) {
			struct fleet_series *s = &inc->series[w[0]];

			if (held->sequence <= s->sequence)
				continue; /* part of a later total already */
			for (uint64_t c = 0; c < w[1]; c++) {
				if (s->kind == METRIC_HISTOGRAM)
					cell_window_add(s->v.cells, (unsigned int)w[2 + 2 * c],
							-w[3 + 2 * c]);
				else
					s->v.counter -= w[3 + 2 * c];
			}
		}
	}
}

static void held_add(struct apply *a)
{
	const struct fleet_incarnation *inc = a->inc;

	for (uint32_t i = 0; i < inc->held_count; i++) {
		const struct fleet_held *held = &inc->held[i];
		const uint64_t *w = held->words, *end = w + held->word_count;

		if (held->sequence <= a->frame->sequence)
			continue;
		for (; w < end; w += 2 + 2 * w[1]) {
			struct fleet_series *s = &inc->series[w[0]];

			if (held->sequence <= s->sequence)
				continue;
			for (uint64_t c = 0; c < w[1]; c++) {
				if (s->kind == METRIC_HISTOGRAM)
					cell_window_add(s->v.cells, (unsigned int)w[2 + 2 * c],
							w[3 + 2 * c]);
				else
					s->v.counter += w[3 + 2 * c];
			}
		}
	}
}

static void totals_set(struct apply *a)
{
	const struct frame *f = a->frame;

	held_remove(a);
	for (size_t i = 0; i < f->counter_count; i++) {
		struct fleet_series *s = series_of(a, f->counters[i].id);

		if (!s || s->sequence >= f->sequence)
			continue;
		counter_total(a, s, f->counters[i].value);
		s->sequence = f->sequence;
	}
	for (size_t i = 0; i < f->histogram_count; i++) {
		struct fleet_series *s = series_of(a, f->histograms[i].id);

		if (!s || s->sequence >= f->sequence)
			continue;
		histogram_total(a, s, &f->histograms[i]);
		s->sequence = f->sequence;
	}
	held_add(a);
}

static void increments_add(struct apply *a)
{
	const struct frame *f = a->frame;

	for (size_t i = 0; i < f->counter_count; i++) {
		struct fleet_series *s = series_of(a, f->counters[i].id);

		if (s && f->sequence > s->sequence)
			s->v.counter += f->counters[i].value;
	}
	for (size_t i = 0; i < f->histogram_count; i++) {
		const struct frame_histogram *h = &f->histograms[i];
		struct fleet_series *s = series_of(a, h->id);

		if (!s || f->sequence <= s->sequence)
			continue;
		for (uint32_t c = 0; c < h->count; c++)
			cell_window_add(s->v.cells, h->cells[c], h->counts[c]);
	}
}

static void gauges_set(struct apply *a)
{
	const struct frame *f = a->frame;

	for (size_t i = 0; i < f->gauge_count; i++) {
		struct fleet_series *s = series_of(a, f->gauges[i].id);

		if (!s || f->sequence <= s->sequence)
			continue;
		s->v.gauge = f->gauges[i].value;
		s->sequence = f->sequence;
		s->is_present = true;
	}
	for (size_t i = 0; i < f->absent_count; i++) {
		struct fleet_series *s = series_of(a, f->absent[i]);

		/* Counters and histograms keep what they counted. */
		if (!s || s->kind != METRIC_GAUGE || f->sequence < s->sequence)
			continue;
		s->sequence = f->sequence;
		s->is_present = false;
	}
}

/* What a whole key frame does not list has no value. */
static void gauges_sweep(struct apply *a)
{
	for (uint32_t i = 0; i < a->inc->series_count; i++) {
		struct fleet_series *s = &a->inc->series[i];

		if (s->kind != METRIC_GAUGE || s->sequence >= a->frame->sequence)
			continue;
		s->sequence = a->frame->sequence;
		s->is_present = false;
	}
}

static bool is_whole_key(const struct frame *f)
{
	return f->is_key && f->series &&
	       f->counter_count + f->gauge_count + f->histogram_count >= f->series;
}

static bool holds_too_much(const struct fleet_incarnation *inc)
{
	return inc->held_bytes >= FLEET_HELD_MAX || inc->applied.count >= SEQUENCE_RANGES_MAX;
}

/* Gives up what is missing up to there, the lowest first and no more than it must: the rest may be
 * on its way, as of a backlog that drains behind one lost frame. */
static void gaps_give_up(struct apply *a, uint64_t upto)
{
	struct fleet_incarnation *inc = a->inc;
	const struct sequence_set *set = &inc->applied;

	while (holds_too_much(inc) && set->watermark < upto) {
		uint64_t gap_end = set->count ? set->ranges[0].first - 1 : upto;

		a->f->stats.lost += sequence_settle(&inc->applied, gap_end < upto ? gap_end : upto);
		held_drop(a->f, inc, set->watermark);
	}
}

/* Frames above a gap are kept until it closes. Too many of them: if a whole key frame lies above
 * the gap then what is missing below cannot matter to totals any more; else ask for one. */
static int gap_relieve(struct apply *a)
{
	gaps_give_up(a, a->inc->whole_key);
	if (!holds_too_much(a->inc))
		return 0;
	if (is_whole_key(a->frame)) {
		gaps_give_up(a, a->frame->sequence - 1);
		return 0;
	}
	return err_set(a->e, -ENOKEY, "too many frames wait for one that is missing");
}

static void books_keep(struct apply *a, uint64_t before, size_t size)
{
	struct fleet_incarnation *inc = a->inc;
	const struct frame *f = a->frame;

	if (f->sequence > before + 1) {
		inc->gaps += f->sequence - before - 1;
		a->f->stats.gaps += f->sequence - before - 1;
	}
	if (f->sequence > inc->time_sequence) {
		inc->time_sequence = f->sequence;
		inc->last_time_ms = f->time_ms;
		inc->interval_ms = f->interval_ms;
	}
	if (f->series && f->sequence > inc->live_sequence) {
		inc->live_series = f->series;
		inc->live_sequence = f->sequence;
	}
	inc->frames++;
	inc->bytes += size;
	inc->samples += inc->live_series;
	a->f->stats.applied++;
	a->f->stats.bytes += size;
	a->f->stats.samples += inc->live_series;
	a->f->stats.events_dropped += f->events_dropped;
}

static int frame_apply(struct apply *a, size_t size)
{
	struct fleet_incarnation *inc = a->inc;
	const struct frame *f = a->frame;
	uint64_t before = sequence_highest(&inc->applied);
	int r = definitions_apply(a);

	if (r >= 0)
		r = values_check(a);
	if (r >= 0)
		r = gap_relieve(a);
	if (r >= 0)
		r = memory_take(a);
	/* Above a gap; a frame that closes it (or a key frame) needs no keeping of its own. */
	if (r >= 0 && !f->is_key && f->sequence > inc->applied.watermark + 1)
		r = held_keep(a->f, inc, f);
	if (r < 0)
		return r;
	if (sequence_has(&inc->applied, f->sequence)) {
		/* It was settled just now. */
		a->f->stats.duplicates++;
		return 0;
	}
	r = sequence_add(&inc->applied, f->sequence);
	if (r < 0)
		return r;
	if (f->is_key)
		totals_set(a);
	else
		increments_add(a);
	gauges_set(a);
	if (is_whole_key(f)) {
		gauges_sweep(a);
		if (f->sequence > inc->whole_key)
			inc->whole_key = f->sequence;
	}
	held_drop(a->f, inc, inc->applied.watermark);
	books_keep(a, before, size);
	if (f->sequence == inc->time_sequence)
		load_sample(a->f, inc);
	return 1;
}

enum fleet_verdict fleet_apply(struct fleet *f, uint32_t session, const struct frame *frame,
			       size_t size, uint64_t now_ms, struct err *e)
{
	struct fleet_incarnation *inc = fleet_find_session(f, session);
	struct apply a = {f, inc, frame, e};
	int r;

	if (!inc) {
		f->stats.need_hello++;
		return FLEET_NEED_HELLO;
	}
	inc->last_seen_ms = now_ms;
	if (frame->sequence == 0 || frame->sequence > UINT64_MAX / 2) {
		f->stats.refused++;
		err_set(e, -EINVAL, "frame sequence out of range");
		return FLEET_REFUSED;
	}
	if (sequence_has(&inc->applied, frame->sequence)) {
		f->stats.duplicates++;
		return FLEET_DUPLICATE;
	}
	r = frame_apply(&a, size);
	if (r >= 0)
		return r ? FLEET_APPLIED : FLEET_DUPLICATE;
	if (r == -ENOKEY) {
		f->stats.need_key++;
		return FLEET_NEED_KEY;
	}
	if (r == -ENOMEM)
		return FLEET_NO_MEMORY;
	f->stats.refused++;
	return FLEET_REFUSED;
}
