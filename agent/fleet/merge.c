/* SPDX-License-Identifier: Apache-2.0 */
/* The fleet view is summed once per view; the view by instance reads each series when asked. */
#include "fleet/merge.h"

#include "fleet/state.h"

#include "base/cleanup.h"
#include "base/str.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct entry {
	uint32_t group;
	/* by fleet */
	bool is_present;
	uint64_t counter, time_ms;
	double gauge;
	uint64_t *cells;
	/* by instance */
	const struct fleet_incarnation *inc;
	uint32_t series;
};

struct merge_view {
	const struct fleet *fleet;
	struct merge_options options;
	struct entry *entries;
	size_t count, capacity;
	uint64_t scratch[HIST_CELLS];
};

struct merge_view *merge_view_free(struct merge_view *v)
{
	if (!v)
		return NULL;
	for (size_t i = 0; i < v->count; i++)
		free(v->entries[i].cells);
	free(v->entries);
	free(v);
	return NULL;
}

DEFINE_CLEANUP(struct merge_view *, merge_view_free)

static bool is_live(const struct fleet_incarnation *inc, const struct merge_options *o)
{
	return inc == fleet_current(inc->agent) && inc->last_seen_ms + o->stale_ms >= o->now_ms;
}

static bool is_wanted(const struct fleet *f, uint32_t group, const struct merge_options *o)
{
	const struct group_metric *m = &f->groups.metrics[f->groups.groups[group]->metric];

	return !o->metric || strcmp(m->name, o->metric) == 0;
}

static int cells_add(struct entry *e, unsigned int first, unsigned int n, const uint64_t *counts)
{
	if (!e->cells) {
		e->cells = calloc(HIST_CELLS, sizeof(uint64_t));
		if (!e->cells)
			return -ENOMEM;
	}
	for (unsigned int i = 0; i < n; i++)
		e->cells[first + i] += counts[i];
	return 0;
}

static void gauge_merge(struct entry *e, enum metric_merge merge, double value, uint64_t time_ms)
{
	if (!e->is_present)
		e->gauge = value;
	else if (merge == METRIC_SUM)
		e->gauge += value;
	else if (merge == METRIC_MAX)
		e->gauge = value > e->gauge ? value : e->gauge;
	else if (time_ms >= e->time_ms)
		e->gauge = value;
	if (time_ms > e->time_ms)
		e->time_ms = time_ms;
	e->is_present = true;
}

/* The same series in another incarnation of the agent. */
static const struct fleet_series *twin_find(const struct fleet_incarnation *inc,
					    const struct fleet_incarnation *other,
					    const struct fleet_series *s)
{
	uint32_t origin = fleet_origin_find(other, inc->origins[s->origin].instance,
					    inc->origins[s->origin].worker);
	uint32_t series = origin == FLEET_NOT_FOUND ? FLEET_NOT_FOUND
						    : fleet_series_find(other, s->group, origin);

	return series == FLEET_NOT_FOUND ? NULL : &other->series[series];
}

/* Each series once an agent: in the first incarnation that has it. */
static bool has_earlier_twin(const struct fleet_incarnation *inc, const struct fleet_series *s)
{
	const struct fleet_agent *a = inc->agent;

	for (uint32_t i = 0; a->incarnations[i] != inc; i++)
		if (twin_find(inc, a->incarnations[i], s))
			return true;
	return false;
}

/* Adds a total to what other incarnations counted. Those of an aggregator's sums all say the same
 * totals, which never fall: of them the most holds. */
static void series_value(const struct fleet_series *s, bool is_sum, struct merge_series *ret,
			 uint64_t scratch[HIST_CELLS])
{
	const struct cell_window *w = s->kind == METRIC_HISTOGRAM ? s->v.cells : NULL;

	if (s->kind == METRIC_COUNTER && !is_sum)
		ret->counter += s->v.counter;
	else if (s->kind == METRIC_COUNTER && s->v.counter > ret->counter)
		ret->counter = s->v.counter;
	for (unsigned int i = 0; w && i < w->count; i++) {
		uint64_t *cell = &scratch[w->first + i];

		if (!is_sum)
			*cell += w->counts[i];
		else if (w->counts[i] > *cell)
			*cell = w->counts[i];
	}
}

/* A counter or histogram of an aggregator, over its incarnations: once, at the first. */
static int sum_merge(struct merge_view *v, struct entry *e, const struct fleet_incarnation *inc,
		     const struct fleet_series *s)
{
	const struct fleet_agent *a = inc->agent;
	struct merge_series most = {.counter = 0};

	if (has_earlier_twin(inc, s))
		return 0;
	memset(v->scratch, 0, sizeof(v->scratch));
	for (uint32_t i = 0; i < a->incarnation_count; i++) {
		const struct fleet_series *twin =
			a->incarnations[i] == inc ? s : twin_find(inc, a->incarnations[i], s);

		if (twin)
			series_value(twin, true, &most, v->scratch);
	}
	e->counter += most.counter;
	return s->kind == METRIC_HISTOGRAM ? cells_add(e, 0, HIST_CELLS, v->scratch) : 0;
}

static int incarnation_merge(struct merge_view *v, const uint32_t *rank,
			     const struct fleet_incarnation *inc)
{
	const struct fleet *f = v->fleet;
	bool live = is_live(inc, &v->options);
	int r = 0;

	for (uint32_t i = 0; i < inc->series_count && r >= 0; i++) {
		const struct fleet_series *s = &inc->series[i];
		struct entry *e;

		if (rank[s->group] == UINT32_MAX)
			continue;
		e = &v->entries[rank[s->group]];
		if (inc->agent->is_sum && s->kind != METRIC_GAUGE) {
			r = sum_merge(v, e, inc, s);
		} else if (s->kind == METRIC_COUNTER) {
			e->counter += s->v.counter;
		} else if (s->kind == METRIC_HISTOGRAM && s->v.cells) {
			r = cells_add(e, s->v.cells->first, s->v.cells->count, s->v.cells->counts);
		} else if (s->kind == METRIC_GAUGE && s->is_present && live) {
			uint32_t metric = f->groups.groups[s->group]->metric;

			gauge_merge(e, f->groups.metrics[metric].merge, s->v.gauge,
				    inc->last_time_ms);
		}
	}
	return r;
}

static int view_by_fleet(struct merge_view *v, const uint32_t *order)
{
	const struct fleet *f = v->fleet;
	_cleanup_free_ uint32_t *rank = malloc((f->groups.count + 1) * sizeof(*rank));
	int r = 0;

	v->entries = calloc(f->groups.count + 1, sizeof(*v->entries));
	if (!rank || !v->entries)
		return -ENOMEM;
	for (uint32_t i = 0; i < f->groups.count && r >= 0; i++) {
		const struct group *g = f->groups.groups[order[i]];
		enum metric_kind kind = f->groups.metrics[g->metric].kind;
		struct entry *e = &v->entries[v->count];

		rank[order[i]] = UINT32_MAX;
		if (!is_wanted(f, order[i], &v->options))
			continue;
		rank[order[i]] = (uint32_t)v->count++;
		e->group = order[i];
		e->is_present = kind != METRIC_GAUGE;
		if (kind == METRIC_COUNTER)
			e->counter = g->base.counter;
		else if (kind == METRIC_HISTOGRAM)
			r = cells_add(e, 0, g->base.cells ? HIST_CELLS : 0, g->base.cells);
	}
	for (uint32_t i = 0; i < f->slot_count && r >= 0; i++)
		if (f->slots[i])
			r = incarnation_merge(v, rank, f->slots[i]);
	return r;
}

static int entry_compare(const void *a, const void *b, void *data)
{
	const struct entry *x = a, *y = b;
	const uint32_t *rank = data;

	return (rank[x->group] > rank[y->group]) - (rank[x->group] < rank[y->group]);
}

static int incarnation_list(struct merge_view *v, const struct fleet_incarnation *inc)
{
	const struct fleet *f = v->fleet;

	for (uint32_t i = 0; i < inc->series_count; i++) {
		const struct fleet_series *s = &inc->series[i];

		if (!is_wanted(f, s->group, &v->options) || has_earlier_twin(inc, s))
			continue;
		if (v->count == v->capacity) {
			size_t capacity = v->capacity ? v->capacity * 2 : 256;
			struct entry *grown = realloc(v->entries, capacity * sizeof(*grown));

			if (!grown)
				return -ENOMEM;
			v->entries = grown;
			v->capacity = capacity;
		}
		v->entries[v->count++] = (struct entry){.group = s->group, .inc = inc, .series = i};
	}
	return 0;
}

static int view_by_instance(struct merge_view *v, const uint32_t *order)
{
	const struct fleet *f = v->fleet;
	_cleanup_free_ uint32_t *rank = malloc((f->groups.count + 1) * sizeof(*rank));
	int r = 0;

	if (!rank)
		return -ENOMEM;
	for (uint32_t i = 0; i < f->groups.count; i++)
		rank[order[i]] = i;
	for (uint32_t n = 0; n < f->slot_count && r >= 0; n++)
		if (f->slots[n])
			r = incarnation_list(v, f->slots[n]);
	if (r >= 0 && v->count)
		qsort_r(v->entries, v->count, sizeof(*v->entries), entry_compare, rank);
	return r;
}

static int entry_compare_by_name(const void *a, const void *b, void *data)
{
	const struct entry *x = a, *y = b;
	const struct fleet *f = data;

	return group_compare(&f->groups, x->group, y->group);
}

/* Costs what the agent has, whatever the fleet has. */
static int view_of_agent(struct merge_view *v)
{
	const struct fleet_agent *a = fleet_find_agent(v->fleet, v->options.agent);
	int r = 0;

	for (uint32_t i = 0; a && i < a->incarnation_count && r >= 0; i++)
		r = incarnation_list(v, a->incarnations[i]);
	/* glibc's parameter is not const; the fleet is only read. */
	if (r >= 0 && v->count)
		qsort_r(v->entries, v->count, sizeof(*v->entries), entry_compare_by_name,
			(void *)(uintptr_t)v->fleet);
	return r;
}

int merge_view_new(const struct fleet *f, const struct merge_options *options,
		   struct merge_view **ret)
{
	_cleanup_(merge_view_free_p) struct merge_view *v = calloc(1, sizeof(*v));
	_cleanup_free_ uint32_t *order = NULL;
	int r;

	if (!v)
		return -ENOMEM;
	v->fleet = f;
	v->options = *options;
	if (options->by == MERGE_BY_INSTANCE && options->agent) {
		r = view_of_agent(v);
	} else {
		r = group_order(&f->groups, &order);
		if (r < 0)
			return r;
		r = options->by == MERGE_BY_FLEET ? view_by_fleet(v, order)
						  : view_by_instance(v, order);
	}
	if (r < 0)
		return r;
	*ret = TAKE_PTR(v);
	return 0;
}

size_t merge_view_count(const struct merge_view *v)
{
	return v->count;
}

static void label_add(struct merge_series *ret, const char *key, const char *value)
{
	if (*value)
		ret->labels[ret->label_count++] = (struct segment_label){key, value};
}

static void series_describe(const struct fleet *f, uint32_t group, struct merge_series *ret)
{
	const struct group *g = f->groups.groups[group];
	const struct group_metric *m = &f->groups.metrics[g->metric];

	ret->name = m->name;
	ret->unit = m->unit;
	ret->help = m->help;
	ret->kind = m->kind;
	ret->merge = m->merge;
	ret->scope = m->scope;
	ret->label_count = g->label_count;
	memcpy(ret->labels, g->labels, g->label_count * sizeof(g->labels[0]));
	ret->counter = 0;
	ret->gauge = 0;
	ret->cells = NULL;
}

static void instance_labels(const struct fleet_incarnation *inc, const struct fleet_series *s,
			    struct merge_series *ret)
{
	const struct fleet_agent *a = inc->agent;

	/* Series about the agent itself have no instance of their own. */
	label_add(ret, "instance",
		  *inc->origins[s->origin].instance ? inc->origins[s->origin].instance : a->id);
	label_add(ret, "worker", inc->origins[s->origin].worker);
	label_add(ret, "pod", a->labels[2]);
	label_add(ret, "node", a->labels[3]);
}

/* Labels, and value over all incarnations of the agent. False: a gauge without a value. */
static bool instance_series(const struct fleet *f, const struct fleet_incarnation *inc,
			    const struct fleet_series *s, const struct merge_options *o,
			    uint64_t scratch[HIST_CELLS], struct merge_series *ret)
{
	const struct fleet_agent *a = inc->agent;
	bool is_present = s->kind != METRIC_GAUGE;

	series_describe(f, s->group, ret);
	instance_labels(inc, s, ret);
	if (s->kind == METRIC_HISTOGRAM) {
		memset(scratch, 0, HIST_CELLS * sizeof(*scratch));
		ret->cells = scratch;
	}
	for (uint32_t i = 0; i < a->incarnation_count; i++) {
		const struct fleet_incarnation *other = a->incarnations[i];
		const struct fleet_series *twin = other == inc ? s : twin_find(inc, other, s);

		if (!twin)
			continue;
		series_value(twin, a->is_sum, ret, scratch);
		if (twin->kind == METRIC_GAUGE && twin->is_present && (!o || is_live(other, o))) {
			ret->gauge = twin->v.gauge;
			is_present = true;
		}
	}
	return is_present;
}

bool merge_view_get(struct merge_view *v, size_t index, struct merge_series *ret)
{
	const struct entry *e = &v->entries[index];

	if (v->options.by == MERGE_BY_INSTANCE)
		return instance_series(v->fleet, e->inc, &e->inc->series[e->series], &v->options,
				       v->scratch, ret);
	series_describe(v->fleet, e->group, ret);
	ret->counter = e->counter;
	ret->gauge = e->gauge;
	ret->cells = e->cells;
	if (ret->kind == METRIC_HISTOGRAM && !e->cells) {
		memset(v->scratch, 0, sizeof(v->scratch));
		ret->cells = v->scratch;
	}
	return e->is_present;
}

size_t merge_agent_count(const struct fleet *f)
{
	return f->agent_count;
}

bool merge_agent_get(const struct fleet *f, size_t index, struct merge_agent *ret)
{
	const struct fleet_agent *a = f->agents[index];
	const struct fleet_incarnation *current = fleet_current(a);

	if (!current)
		return false;
	*ret = (struct merge_agent){
		.id = a->id,
		.session = current->session,
		.incarnations = a->incarnation_count,
		.series = current->live_series,
		.interval_ms = current->interval_ms,
		.last_seen_ms = current->last_seen_ms,
		.last_time_ms = current->last_time_ms,
		.sequence = sequence_highest(&current->applied),
	};
	for (unsigned int i = 0; i < FLEET_AGENT_LABELS; i++)
		ret->labels[i] = a->labels[i];
	memcpy(ret->incarnation, current->id, sizeof(ret->incarnation));
	for (uint32_t i = 0; i < a->incarnation_count; i++) {
		const struct fleet_incarnation *inc = a->incarnations[i];

		ret->missing += sequence_missing(&inc->applied);
		ret->gaps += inc->gaps;
		ret->frames += inc->frames;
		ret->bytes += inc->bytes;
		ret->samples += inc->samples;
	}
	return true;
}

size_t merge_agents_live(const struct fleet *f, uint64_t now_ms, uint64_t stale_ms)
{
	size_t n = 0;

	for (uint32_t i = 0; i < f->agent_count; i++) {
		const struct fleet_incarnation *inc = fleet_current(f->agents[i]);

		n += inc && inc->last_seen_ms + stale_ms >= now_ms;
	}
	return n;
}

static int frame_one(const struct fleet *f, const struct fleet_incarnation *inc, uint32_t id,
		     merge_series_fn fn, void *data)
{
	const struct fleet_id *entry = fleet_id_find(inc, id);
	uint64_t scratch[HIST_CELLS];
	struct merge_series series;

	if (!entry || entry->series == FLEET_NO_SERIES ||
	    !instance_series(f, inc, &inc->series[entry->series], NULL, scratch, &series))
		return 0;
	return fn(data, &series);
}

bool merge_describe(const struct fleet *f, uint32_t session, uint32_t id, struct merge_series *ret)
{
	const struct fleet_incarnation *inc = fleet_find_session(f, session);
	const struct fleet_id *entry = inc ? fleet_id_find(inc, id) : NULL;
	const struct fleet_series *s;

	if (!entry || entry->series == FLEET_NO_SERIES)
		return false;
	s = &inc->series[entry->series];
	series_describe(f, s->group, ret);
	instance_labels(inc, s, ret);
	return true;
}

int merge_frame(const struct fleet *f, uint32_t session, const struct frame *frame,
		merge_series_fn fn, void *data)
{
	const struct fleet_incarnation *inc = fleet_find_session(f, session);
	int r = 0;

	if (!inc)
		return -ENOENT;
	for (size_t i = 0; i < frame->counter_count && r >= 0; i++)
		r = frame_one(f, inc, frame->counters[i].id, fn, data);
	for (size_t i = 0; i < frame->gauge_count && r >= 0; i++)
		r = frame_one(f, inc, frame->gauges[i].id, fn, data);
	for (size_t i = 0; i < frame->histogram_count && r >= 0; i++)
		r = frame_one(f, inc, frame->histograms[i].id, fn, data);
	return r;
}

struct gateways {
	uint64_t seen;    /* bit: index in the table of groups */
	const char *last; /* of the many beyond it */
	merge_gateway_fn fn;
	void *data;
};

static void gateway_of(const struct fleet *f, const struct fleet_incarnation *inc, uint32_t id,
		       struct gateways *g)
{
	const struct fleet_id *entry = fleet_id_find(inc, id);
	const struct group *group;

	if (!entry || entry->series == FLEET_NO_SERIES)
		return;
	group = f->groups.groups[inc->series[entry->series].group];
	if (g->seen & 1ULL << group->gateway)
		return;
	if (group->gateway < GROUP_GATEWAYS)
		g->seen |= 1ULL << group->gateway;
	else if (g->last && str_equal(g->last, group_gateway(group)))
		return;
	else
		g->last = group_gateway(group);
	g->fn(g->data, group_gateway(group));
}

void merge_frame_gateways(const struct fleet *f, uint32_t session, const struct frame *frame,
			  merge_gateway_fn fn, void *data)
{
	const struct fleet_incarnation *inc = fleet_find_session(f, session);
	struct gateways g = {.fn = fn, .data = data};

	if (!inc)
		return;
	for (size_t i = 0; i < frame->counter_count; i++)
		gateway_of(f, inc, frame->counters[i].id, &g);
	for (size_t i = 0; i < frame->gauge_count; i++)
		gateway_of(f, inc, frame->gauges[i].id, &g);
	for (size_t i = 0; i < frame->histogram_count; i++)
		gateway_of(f, inc, frame->histograms[i].id, &g);
}
