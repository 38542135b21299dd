/* SPDX-License-Identifier: Apache-2.0 */
/* Saving and loading the fleet. Series go in parts, so that no record is ever too large. */
#include "fleet/snapshot.h"

#include "fleet/pack.h"
#include "fleet/state.h"

#include "base/cleanup.h"

#include <errno.h>
#include <string.h>

#define PART_BYTES   (512u << 10)
#define SEQUENCE_MAX (UINT64_MAX / 2)

enum snapshot_type {
	TYPE_STATS = SNAPSHOT_TYPE_FIRST,
	TYPE_GROUP,       /* in the order of indices */
	TYPE_AGENT,       /* the records that follow belong to it */
	TYPE_INCARNATION, /* likewise */
	TYPE_ORIGINS,
	TYPE_SERIES,
	TYPE_IDS,
	TYPE_HELD,
	TYPE_LIFE,
};

struct save {
	struct pack pack;
	snapshot_write_fn fn;
	void *data;
};

static int save_record(struct save *s, uint32_t type)
{
	int r;

	if (s->pack.has_failed)
		return -ENOMEM;
	r = s->fn(s->data, type, s->pack.data, s->pack.size);
	pack_reset(&s->pack);
	return r;
}

static void pack_stats(struct pack *p, const struct fleet *f)
{
	const struct fleet_stats *s = &f->stats;
	const uint64_t all[] = {f->next_session,   s->applied,  s->duplicates,    s->need_hello,
				s->need_key,       s->refused,  s->samples,       s->bytes,
				s->gaps,           s->lost,     s->resets,        s->series_refused,
				s->agents_refused, s->departed, s->events_dropped};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		pack_u64(p, all[i]);
}

static void pack_cells(struct pack *p, unsigned int first, unsigned int count,
		       const uint64_t *counts)
{
	pack_u64(p, first);
	pack_u64(p, count);
	for (unsigned int i = 0; i < count; i++)
		pack_u64(p, counts[i]);
}

static void pack_group(struct pack *p, const struct group_table *t, const struct group *g)
{
	const struct group_metric *m = &t->metrics[g->metric];

	pack_text(p, m->name);
	pack_text(p, m->unit);
	pack_text(p, m->help);
	pack_u64(p, m->kind);
	pack_u64(p, m->merge);
	pack_u64(p, m->scope);
	pack_u64(p, g->label_count);
	for (unsigned int i = 0; i < g->label_count; i++) {
		pack_text(p, g->labels[i].key);
		pack_text(p, g->labels[i].value);
	}
	if (m->kind == METRIC_HISTOGRAM)
		pack_cells(p, 0, g->base.cells ? HIST_CELLS : 0, g->base.cells);
	else
		pack_u64(p, g->base.counter);
}

static void pack_agent(struct pack *p, const struct fleet_agent *a)
{
	pack_text(p, a->id);
	for (unsigned int i = 0; i < FLEET_AGENT_LABELS; i++)
		pack_text(p, a->labels[i]);
	pack_u64(p, a->departed_count);
	pack_bytes(p, a->departed, sizeof(a->departed));
	pack_u64(p, a->is_sum);
}

static void pack_incarnation(struct pack *p, const struct fleet_incarnation *inc)
{
	pack_bytes(p, inc->id, sizeof(inc->id));
	pack_u64(p, inc->session);
	pack_u64(p, inc->whole_key);
	pack_u64(p, inc->last_seen_ms);
	pack_u64(p, inc->last_time_ms);
	pack_u64(p, inc->time_sequence);
	pack_u64(p, inc->interval_ms);
	pack_u64(p, inc->live_series);
	pack_u64(p, inc->live_sequence);
	pack_u64(p, inc->frames);
	pack_u64(p, inc->bytes);
	pack_u64(p, inc->samples);
	pack_u64(p, inc->gaps);
	pack_u64(p, inc->applied.watermark);
	pack_u64(p, inc->applied.count);
	for (uint32_t i = 0; i < inc->applied.count; i++) {
		pack_u64(p, inc->applied.ranges[i].first);
		pack_u64(p, inc->applied.ranges[i].last);
	}
	pack_u64(p, inc->load_count);
	for (unsigned int i = 0; i < FLEET_LOADS; i++) {
		pack_u64(p, inc->load[i].time_ms);
		pack_u64(p, inc->load[i].busy_ns);
		pack_double(p, inc->load[i].workers);
	}
}

static void pack_series(struct pack *p, const struct fleet_series *s)
{
	const struct cell_window *w = s->kind == METRIC_HISTOGRAM ? s->v.cells : NULL;

	pack_u64(p, s->group);
	pack_u64(p, s->origin);
	pack_u64(p, s->kind);
	pack_u64(p, s->sequence);
	if (s->kind == METRIC_COUNTER) {
		pack_u64(p, s->v.counter);
	} else if (s->kind == METRIC_GAUGE) {
		pack_u64(p, s->is_present);
		pack_double(p, s->v.gauge);
	} else {
		pack_cells(p, w ? w->first : 0, w ? w->count : 0, w ? w->counts : NULL);
	}
}

static int save_incarnation(struct save *s, const struct fleet_incarnation *inc)
{
	int r;

	pack_incarnation(&s->pack, inc);
	r = save_record(s, TYPE_INCARNATION);
	for (uint32_t i = 0; i < inc->origin_count && r >= 0; i++) {
		pack_text(&s->pack, inc->origins[i].instance);
		pack_text(&s->pack, inc->origins[i].worker);
		if (s->pack.size > PART_BYTES || i + 1 == inc->origin_count)
			r = save_record(s, TYPE_ORIGINS);
	}
	for (uint32_t i = 0; i < inc->series_count && r >= 0; i++) {
		pack_series(&s->pack, &inc->series[i]);
		if (s->pack.size > PART_BYTES || i + 1 == inc->series_count)
			r = save_record(s, TYPE_SERIES);
	}
	for (uint32_t i = 0; i < inc->id_count && r >= 0; i++) {
		pack_u64(&s->pack, inc->ids[i].id);
		pack_u64(&s->pack, inc->ids[i].series);
		if (s->pack.size > PART_BYTES || i + 1 == inc->id_count)
			r = save_record(s, TYPE_IDS);
	}
	for (uint32_t i = 0; i < inc->held_count && r >= 0; i++) {
		pack_u64(&s->pack, inc->held[i].sequence);
		pack_u64(&s->pack, inc->held[i].word_count);
		for (uint32_t w = 0; w < inc->held[i].word_count; w++)
			pack_u64(&s->pack, inc->held[i].words[w]);
		r = save_record(s, TYPE_HELD);
	}
	return r;
}

int snapshot_save_life(const struct fleet *f, snapshot_write_fn fn, void *data)
{
	struct save s = {.fn = fn, .data = data};
	int r;

	if (!f->life)
		return 0;
	pack_u64(&s.pack, f->life);
	r = save_record(&s, TYPE_LIFE);
	pack_fini(&s.pack);
	return r;
}

int snapshot_save(const struct fleet *f, snapshot_write_fn fn, void *data)
{
	struct save s = {.fn = fn, .data = data};
	int r;

	pack_stats(&s.pack, f);
	r = save_record(&s, TYPE_STATS);
	for (uint32_t i = 0; i < f->groups.count && r >= 0; i++) {
		pack_group(&s.pack, &f->groups, f->groups.groups[i]);
		r = save_record(&s, TYPE_GROUP);
	}
	for (uint32_t i = 0; i < f->agent_count && r >= 0; i++) {
		const struct fleet_agent *a = f->agents[i];

		pack_agent(&s.pack, a);
		r = save_record(&s, TYPE_AGENT);
		for (uint32_t n = 0; n < a->incarnation_count && r >= 0; n++)
			r = save_incarnation(&s, a->incarnations[n]);
	}
	pack_fini(&s.pack);
	return r < 0 ? r : snapshot_save_life(f, fn, data);
}

/* -------- loading -------- */

static int load_stats(struct fleet *f, struct unpack *u)
{
	struct fleet_stats *s = &f->stats;
	uint64_t *const all[] = {&s->applied,  &s->duplicates,     &s->need_hello,
				 &s->need_key, &s->refused,        &s->samples,
				 &s->bytes,    &s->gaps,           &s->lost,
				 &s->resets,   &s->series_refused, &s->agents_refused,
				 &s->departed, &s->events_dropped};

	f->next_session = unpack_u64(u);
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		*all[i] = unpack_u64(u);
	return 0;
}

static unsigned int load_cells(struct unpack *u, unsigned int *ret_first,
			       uint64_t counts[HIST_CELLS])
{
	unsigned int first = (unsigned int)unpack_u64_max(u, HIST_CELLS);
	unsigned int count = (unsigned int)unpack_u64_max(u, HIST_CELLS - first);

	for (unsigned int i = 0; i < count; i++)
		counts[i] = unpack_u64(u);
	*ret_first = first;
	return u->is_bad ? 0 : count;
}

static int load_group(struct fleet *f, struct unpack *u)
{
	struct group_key key = {0};
	uint64_t cells[HIST_CELLS], counter = 0;
	unsigned int first = 0, count = 0;
	struct group *g;
	uint32_t index;
	int r;

	key.metric = unpack_text(u);
	key.unit = unpack_text(u);
	key.help = unpack_text(u);
	key.kind = (enum metric_kind)unpack_u64_max(u, METRIC_HISTOGRAM);
	key.merge = (enum metric_merge)unpack_u64_max(u, METRIC_LAST);
	key.scope = (enum metric_scope)unpack_u64_max(u, METRIC_AGENT);
	key.label_count = (unsigned int)unpack_u64_max(u, GROUP_LABELS_MAX);
	for (unsigned int i = 0; i < key.label_count; i++) {
		key.labels[i].key = unpack_text(u);
		key.labels[i].value = unpack_text(u);
	}
	if (key.kind == METRIC_HISTOGRAM)
		count = load_cells(u, &first, cells);
	else
		counter = unpack_u64(u);
	if (u->is_bad)
		return -EBADMSG;
	r = group_intern(&f->groups, &key, &index);
	if (r < 0)
		return r == -ENOMEM ? r : -EBADMSG;
	g = f->groups.groups[index];
	if (key.kind == METRIC_HISTOGRAM)
		return group_add_cells(g, first, count, cells);
	g->base.counter += counter;
	return 0;
}

static int load_agent(struct fleet *f, struct unpack *u)
{
	const char *labels[FLEET_AGENT_LABELS], *id = unpack_text(u);
	struct fleet_agent *a;
	uint64_t departed;
	const uint8_t *ids;
	bool is_sum;
	int r;

	for (unsigned int i = 0; i < FLEET_AGENT_LABELS; i++)
		labels[i] = unpack_text(u);
	departed = unpack_u64_max(u, UINT32_MAX);
	ids = unpack_bytes(u, sizeof(a->departed));
	/* Snapshots of before there were sums end here. */
	is_sum = !u->is_bad && u->at < u->end && unpack_u64(u);
	if (u->is_bad || fleet_find_agent(f, id))
		return -EBADMSG;
	r = fleet_add_agent(f, id, labels, &a);
	if (r < 0)
		return r;
	a->departed_count = (uint32_t)departed;
	memcpy(a->departed, ids, sizeof(a->departed));
	a->is_sum = is_sum;
	return 0;
}

static int load_incarnation(struct fleet *f, struct unpack *u)
{
	const uint8_t *id = unpack_bytes(u, FRAME_INCARNATION_BYTES);
	uint64_t session = unpack_u64_max(u, UINT32_MAX), n;
	struct fleet_incarnation *inc;
	struct fleet_agent *a;
	int r;

	if (u->is_bad || !f->agent_count || !session)
		return -EBADMSG;
	a = f->agents[f->agent_count - 1];
	if (a->incarnation_count == FLEET_INCARNATIONS_MAX)
		return -EBADMSG;
	r = fleet_add_incarnation(f, a, id, (uint32_t)session, &inc);
	if (r < 0)
		return r;
	inc->whole_key = unpack_u64(u);
	inc->last_seen_ms = unpack_u64(u);
	inc->last_time_ms = unpack_u64(u);
	inc->time_sequence = unpack_u64(u);
	inc->interval_ms = (uint32_t)unpack_u64(u);
	inc->live_series = (uint32_t)unpack_u64(u);
	inc->live_sequence = unpack_u64(u);
	inc->frames = unpack_u64(u);
	inc->bytes = unpack_u64(u);
	inc->samples = unpack_u64(u);
	inc->gaps = unpack_u64(u);
	inc->applied.watermark = unpack_u64_max(u, SEQUENCE_MAX);
	n = unpack_u64_max(u, SEQUENCE_RANGES_MAX);
	for (uint64_t i = 0; i < n && r >= 0; i++) {
		uint64_t first = unpack_u64_max(u, SEQUENCE_MAX);
		uint64_t last = unpack_u64_max(u, SEQUENCE_MAX);

		if (u->is_bad || last < first || first <= sequence_highest(&inc->applied) + 1)
			break;
		r = sequence_add(&inc->applied, first);
		if (r == 1 && inc->applied.count)
			inc->applied.ranges[inc->applied.count - 1].last = last;
	}
	inc->load_count = (uint32_t)unpack_u64_max(u, UINT32_MAX);
	for (unsigned int i = 0; i < FLEET_LOADS; i++) {
		inc->load[i].time_ms = unpack_u64(u);
		inc->load[i].busy_ns = unpack_u64(u);
		inc->load[i].workers = unpack_double(u);
	}
	if (u->is_bad)
		inc->load_count = 0;
	return r < 0 ? r : 0;
}

static struct fleet_incarnation *load_target(struct fleet *f)
{
	struct fleet_agent *a = f->agent_count ? f->agents[f->agent_count - 1] : NULL;

	return a && a->incarnation_count ? a->incarnations[a->incarnation_count - 1] : NULL;
}

static int load_one_series(struct fleet *f, struct fleet_incarnation *inc, struct unpack *u)
{
	uint32_t group = (uint32_t)unpack_u64_max(u, UINT32_MAX);
	uint32_t origin = (uint32_t)unpack_u64_max(u, UINT32_MAX), index;
	enum metric_kind kind = (enum metric_kind)unpack_u64_max(u, METRIC_HISTOGRAM);
	uint64_t cells[HIST_CELLS], sequence = unpack_u64(u), counter = 0;
	unsigned int first = 0, count = 0;
	bool is_present = false;
	struct fleet_series *s;
	double gauge = 0;
	int r;

	if (kind == METRIC_COUNTER) {
		counter = unpack_u64(u);
	} else if (kind == METRIC_GAUGE) {
		is_present = unpack_u64(u);
		gauge = unpack_double(u);
	} else {
		count = load_cells(u, &first, cells);
	}
	if (u->is_bad || group >= f->groups.count || origin >= inc->origin_count ||
	    f->groups.metrics[f->groups.groups[group]->metric].kind != kind)
		return -EBADMSG;
	r = fleet_series_intern(f, inc, group, origin, kind, &index);
	if (r < 0)
		return r;
	s = &inc->series[index];
	s->sequence = sequence;
	s->is_present = is_present;
	if (kind == METRIC_COUNTER)
		s->v.counter = counter;
	else if (kind == METRIC_GAUGE)
		s->v.gauge = gauge;
	else if (count) {
		r = cell_window_reach(&s->v.cells, first, first + count - 1);
		for (unsigned int i = 0; i < count && r >= 0; i++)
			s->v.cells->counts[first + i - s->v.cells->first] = cells[i];
	}
	return r;
}

static int load_parts(struct fleet *f, uint32_t type, struct unpack *u)
{
	struct fleet_incarnation *inc = load_target(f);
	uint32_t ignored;
	int r = 0;

	if (!inc)
		return -EBADMSG;
	while (u->at < u->end && r >= 0) {
		if (type == TYPE_ORIGINS) {
			const char *instance = unpack_text(u), *worker = unpack_text(u);

			r = u->is_bad ? -EBADMSG
				      : fleet_origin_intern(inc, instance, worker, &ignored);
		} else if (type == TYPE_SERIES) {
			r = load_one_series(f, inc, u);
		} else {
			uint32_t id = (uint32_t)unpack_u64_max(u, UINT32_MAX);
			uint32_t series = (uint32_t)unpack_u64_max(u, UINT32_MAX);

			if (u->is_bad || fleet_id_find(inc, id) ||
			    (series >= inc->series_count && series != FLEET_NO_SERIES))
				return -EBADMSG;
			r = fleet_id_add(inc, id, series);
		}
	}
	return r;
}

/* The words point into series and windows: each is looked at. */
static int held_check(const struct fleet_incarnation *inc, const uint64_t *w, uint64_t n)
{
	for (uint64_t i = 0; i < n; i += 2 + 2 * w[i + 1]) {
		const struct fleet_series *s;
		const struct cell_window *cells;

		if (n - i < 2 || w[i] >= inc->series_count || w[i + 1] > (n - i - 2) / 2)
			return -EBADMSG;
		s = &inc->series[w[i]];
		cells = s->kind == METRIC_HISTOGRAM ? s->v.cells : NULL;
		if (s->kind == METRIC_GAUGE)
			return -EBADMSG;
		for (uint64_t c = 0; c < w[i + 1] && s->kind == METRIC_HISTOGRAM; c++)
			if (!cells || w[i + 2 + 2 * c] < cells->first ||
			    w[i + 2 + 2 * c] - cells->first >= cells->count)
				return -EBADMSG;
	}
	return 0;
}

static int load_held(struct fleet *f, struct unpack *u)
{
	struct fleet_incarnation *inc = load_target(f);
	uint64_t sequence = unpack_u64_max(u, SEQUENCE_MAX);
	uint64_t n = unpack_u64_max(u, (size_t)(u->end - u->at));
	_cleanup_free_ uint64_t *words = calloc(n + 1, sizeof(*words));
	int r;

	if (!words)
		return -ENOMEM;
	for (uint64_t i = 0; i < n; i++)
		words[i] = unpack_u64(u);
	if (u->is_bad || !inc)
		return -EBADMSG;
	r = held_check(inc, words, n);
	return r < 0 ? r : held_restore(f, inc, sequence, words, (uint32_t)n);
}

static int load_life(struct fleet *f, struct unpack *u)
{
	uint64_t life = unpack_u64(u);

	if (u->is_bad || !life)
		return -EBADMSG;
	f->life = life;
	return 0;
}

int snapshot_load(struct fleet *f, uint32_t type, const uint8_t *payload, size_t size)
{
	struct unpack u;

	unpack_init(&u, payload, size);
	switch (type) {
	case TYPE_STATS:
		return load_stats(f, &u);
	case TYPE_GROUP:
		return load_group(f, &u);
	case TYPE_AGENT:
		return load_agent(f, &u);
	case TYPE_INCARNATION:
		return load_incarnation(f, &u);
	case TYPE_ORIGINS:
	case TYPE_SERIES:
	case TYPE_IDS:
		return load_parts(f, type, &u);
	case TYPE_HELD:
		return load_held(f, &u);
	case TYPE_LIFE:
		return load_life(f, &u);
	default:
		return -EBADMSG;
	}
}
