/* SPDX-License-Identifier: Apache-2.0 */
#include "fleet/history_pick.h"

#include "base/str.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct finding {
	struct history_store *store;
	const struct history_request *q;
	const struct history_parts *parts;
	struct history_picks *picks;
	struct history_picked_metric *metric; /* at hand */
	uint64_t wanted;                      /* outputs of it, by name */
	struct err *e;
	unsigned int asked;
};

/* -------- metrics -------- */

static char *with(const char *name, const char *ending)
{
	char *s = NULL;

	return asprintf(&s, "%s%s", name, ending) < 0 ? NULL : s;
}

static int on_metric(void *data, const struct history_metric *m)
{
	struct finding *f = data;
	struct history_picks *p = f->picks;
	struct history_picked_metric *grown = reallocarray(p->metrics, p->metric_count + 1,
							   sizeof(*grown)),
				     *ours;

	if (!grown)
		return -ENOMEM;
	p->metrics = grown;
	ours = &grown[p->metric_count++];
	*ours = (struct history_picked_metric){
		.id = m->id,
		.name = strdup(m->name),
		.bucket = with(m->name, "_bucket"),
		.count = with(m->name, "_count"),
		.sum = with(m->name, "_sum"),
		.kind = m->kind,
		.is_ns = m->kind == METRIC_COUNTER && str_equal(m->unit, "nanoseconds"),
	};
	if (!ours->name || !ours->bucket || !ours->count || !ours->sum)
		return -ENOMEM;
	if (m->kind != METRIC_HISTOGRAM) {
		ours->shown[0] = ours->name;
		return 0;
	}
	for (size_t i = 0; i <= f->parts->bound_count; i++)
		ours->shown[i] = ours->bucket;
	ours->shown[history_part_count(f->parts)] = ours->count;
	ours->shown[history_part_sum(f->parts)] = ours->sum;
	return 0;
}

static uint64_t wanted_by_name(const struct finding *f)
{
	uint64_t wanted = 0;

	for (size_t i = 0; i < HISTORY_OUTPUTS_MAX; i++) {
		const char *name = f->metric->shown[i];

		if (!name)
			continue;
		if (i && name == f->metric->shown[i - 1])
			wanted |= (wanted >> (i - 1) & 1) << i;
		else if (!f->q->wants_name || f->q->wants_name(f->q->data, name))
			wanted |= 1ull << i;
	}
	return wanted;
}

/* -------- series -------- */

static void label_put(struct history_series *s, const char *key, const char *value)
{
	unsigned int at = s->label_count++;

	for (; at && strcmp(s->labels[at - 1].key, key) > 0; at--)
		s->labels[at] = s->labels[at - 1];
	s->labels[at] = (struct segment_label){key, value};
}

static void output_describe(const struct history_picked_metric *m, const struct history_request *q,
			    size_t output, struct history_series *s)
{
	s->name = m->shown[output];
	s->kind = m->kind == METRIC_GAUGE ? METRIC_GAUGE : METRIC_COUNTER;
	if (m->kind == METRIC_HISTOGRAM && output <= q->bound_count)
		label_put(s, "le", q->les[output]);
}

static uint64_t wanted_by_labels(const struct finding *f, const struct history_row *row)
{
	uint64_t wanted = 0;

	if (!f->q->wants)
		return f->wanted;
	for (size_t i = 0; i < HISTORY_OUTPUTS_MAX; i++) {
		struct history_series s = {.agent = row->agent, .label_count = row->label_count};

		if (!(f->wanted >> i & 1))
			continue;
		memcpy(s.labels, row->labels, row->label_count * sizeof(row->labels[0]));
		output_describe(f->metric, f->q, i, &s);
		wanted |= (uint64_t)f->q->wants(f->q->data, &s) << i;
	}
	return wanted;
}

static int pick_room(struct finding *f)
{
	struct history_picks *p = f->picks;
	size_t capacity = p->capacity ? p->capacity * 2 : 256;
	struct history_pick *grown;

	if (p->count == HISTORY_PICKS_MAX)
		return err_set(f->e, -E2BIG, "more than %u series; ask for fewer",
			       HISTORY_PICKS_MAX);
	if (p->count < p->capacity)
		return 0;
	grown = reallocarray(p->items, capacity, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	p->items = grown;
	p->capacity = capacity;
	return 0;
}

static int on_row(void *data, const struct history_row *row)
{
	struct finding *f = data;
	struct history_picks *p = f->picks;
	uint64_t wanted = wanted_by_labels(f, row);
	struct history_pick pick = {
		.metric = (uint32_t)(f->metric - p->metrics),
		.stream = row->stream,
		.id = row->id,
		.first_ms = row->first_ms,
		.last_ms = row->last_ms,
		.label_count = row->label_count,
		.wanted = wanted,
	};
	int r;

	if (++f->asked % 4096 == 0 && f->q->is_over && f->q->is_over(f->q->data))
		return -ETIMEDOUT;
	if (!wanted)
		return 0;
	r = pick_room(f);
	if (r < 0)
		return r;
	pick.agent = (uint32_t)p->texts.size;
	if (p->count && str_equal((char *)p->texts.data + p->items[p->count - 1].agent, row->agent))
		pick.agent = p->items[p->count - 1].agent;
	else
		pack_bytes(&p->texts, row->agent, strlen(row->agent) + 1);
	pick.labels = (uint32_t)p->texts.size;
	for (unsigned int i = 0; i < row->label_count; i++) {
		pack_bytes(&p->texts, row->labels[i].key, strlen(row->labels[i].key) + 1);
		pack_bytes(&p->texts, row->labels[i].value, strlen(row->labels[i].value) + 1);
	}
	pick.labels_size = (uint32_t)p->texts.size - pick.labels;
	if (p->texts.has_failed || p->texts.size > UINT32_MAX / 2)
		return -ENOMEM;
	p->items[p->count++] = pick;
	return 0;
}

static int compare_series(const struct history_picks *p, const struct history_pick *a,
			  const struct history_pick *b)
{
	int by_agent = a->agent == b->agent ? 0
					    : strcmp((char *)p->texts.data + a->agent,
						     (char *)p->texts.data + b->agent);

	if (by_agent)
		return by_agent;
	if (a->stream != b->stream)
		return a->stream < b->stream ? -1 : 1;
	if (a->metric != b->metric)
		return a->metric < b->metric ? -1 : 1;
	if (a->labels_size != b->labels_size)
		return a->labels_size < b->labels_size ? -1 : 1;
	return memcmp(p->texts.data + a->labels, p->texts.data + b->labels, a->labels_size);
}

static int compare(const void *a, const void *b, void *data)
{
	const struct history_pick *x = a, *y = b;
	int r = compare_series(data, x, y);

	return r ? r : (x->id > y->id) - (x->id < y->id);
}

bool history_picks_same(const struct history_picks *p, size_t a, size_t b)
{
	return compare_series(p, &p->items[a], &p->items[b]) == 0;
}

int history_picks_find(struct history_store *s, const struct history_request *q,
		       const struct history_parts *parts, struct history_picks *ret, struct err *e)
{
	struct finding f = {.store = s, .q = q, .parts = parts, .picks = ret, .e = e};
	uint64_t slack = 5 * MINUTE_MS; /* minutes in memory are not in the rows of streams yet */
	int r;

	*ret = (struct history_picks){0};
	pack_text(&ret->texts, "");
	r = history_store_metrics(s, on_metric, &f, e);
	for (size_t i = 0; i < ret->metric_count && r >= 0; i++) {
		f.metric = &ret->metrics[i];
		f.wanted = wanted_by_name(&f);
		if (!f.wanted)
			continue;
		r = history_store_series(s, f.metric->id,
					 q->from_ms > slack ? q->from_ms - slack : 0, q->to_ms,
					 on_row, &f, e);
	}
	if (r < 0) {
		history_picks_fini(ret);
		return r;
	}
	if (ret->count)
		qsort_r(ret->items, ret->count, sizeof(*ret->items), compare, ret);
	return 0;
}

void history_picks_fini(struct history_picks *p)
{
	for (size_t i = 0; i < p->metric_count; i++) {
		free(p->metrics[i].name);
		free(p->metrics[i].bucket);
		free(p->metrics[i].count);
		free(p->metrics[i].sum);
	}
	free(p->metrics);
	free(p->items);
	pack_fini(&p->texts);
	*p = (struct history_picks){0};
}

void history_picks_describe(const struct history_picks *p, size_t index,
			    const struct history_request *q, size_t output,
			    struct history_series *ret)
{
	const struct history_pick *pick = &p->items[index];
	const char *at = (const char *)p->texts.data + pick->labels;

	*ret = (struct history_series){.agent = (const char *)p->texts.data + pick->agent,
				       .label_count = pick->label_count};
	for (unsigned int i = 0; i < pick->label_count; i++) {
		ret->labels[i].key = at;
		at += strlen(at) + 1;
		ret->labels[i].value = at;
		at += strlen(at) + 1;
	}
	output_describe(&p->metrics[pick->metric], q, output, ret);
}
