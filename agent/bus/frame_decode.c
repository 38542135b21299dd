/* SPDX-License-Identifier: Apache-2.0 */
/* Decoder of frames: takes hostile bytes. Runs in the aggregator's core and in tools. Pure. */
#include "bus/frame.h"

#include "base/cleanup.h"
#include "bus/frame_name.h"
#include "bus/frame_open.h"
#include "bus/frame_values.h"
#include "tidegate.pb-c.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FRAME_BUDGET_BYTES (8u * FRAME_PLAIN_MAX)

struct decoded {
	struct frame frame; /* first: what the caller holds */
	struct frame_budget budget;
};

struct frame *frame_free(struct frame *f)
{
	struct decoded *d = (struct decoded *)f;

	if (!d)
		return NULL;
	frame_budget_fini(&d->budget);
	free(d);
	return NULL;
}

static void decoded_free(struct decoded **d)
{
	if (*d)
		frame_free(&(*d)->frame);
}

static const char *text(const char *s)
{
	return s ? s : "";
}

/* Keys and values in turn; the first m->shared are those of the definition before. */
static const char *label_text(const Tidegate__SeriesDef *m, const struct frame_definition *before,
			      unsigned int i)
{
	const struct segment_label *label;

	if (i >= m->shared)
		return text(m->labels[i - m->shared]);
	label = &before->labels[i / 2];
	return text(i % 2 ? label->value : label->key);
}

static int read_definition(struct frame_definition *def, const struct frame_definition *before,
			   const Tidegate__SeriesDef *m, struct err *e)
{
	size_t n = (size_t)m->shared + m->n_labels;
	uint32_t prev = before ? before->id : 0;

	if (m->id == 0 || m->id > FRAME_ID_MAX - prev)
		return frame_is_damaged(e, "id of a definition");
	if (m->kind > METRIC_HISTOGRAM || m->merge > METRIC_LAST || m->scope > METRIC_AGENT)
		return frame_is_damaged(e, "kind of a definition");
	if (n % 2 || n > 2 * SEGMENT_LABELS_MAX ||
	    m->shared > (before ? 2 * before->label_count : 0))
		return frame_is_damaged(e, "labels of a definition");
	*def = (struct frame_definition){
		.id = prev + m->id,
		.metric = *text(m->metric) ? m->metric
			  : before         ? before->metric
					   : "",
		.unit = text(m->unit),
		.help = text(m->help),
		.kind = m->kind,
		.merge = m->merge,
		.scope = m->scope,
		.label_count = (unsigned int)(n / 2),
	};
	if (!frame_name_is_valid(def->metric, FRAME_NAME_MAX) ||
	    !frame_text_fits(def->unit, FRAME_UNIT_MAX) ||
	    !frame_text_fits(def->help, FRAME_HELP_MAX))
		return frame_is_damaged(e, "name of a definition");
	for (unsigned int i = 0; i < def->label_count; i++) {
		const char *key = label_text(m, before, 2 * i);
		const char *value = label_text(m, before, 2 * i + 1);

		if (!frame_name_is_valid(key, FRAME_NAME_MAX) ||
		    !frame_text_fits(value, FRAME_LABEL_MAX))
			return frame_is_damaged(e, "label of a definition");
		def->labels[i].key = key;
		def->labels[i].value = value;
	}
	return 0;
}

static int read_definitions(struct decoded *d, const Tidegate__Frame *m, struct err *e)
{
	struct frame_definition *defs;
	int r;

	if (!m->n_defs)
		return 0;
	if (m->n_defs > FRAME_SERIES_MAX)
		return err_set(e, -E2BIG, "frame: %zu definitions, %u are allowed", m->n_defs,
			       FRAME_SERIES_MAX);
	defs = frame_budget_array(&d->budget, m->n_defs, sizeof(*defs));
	if (!defs)
		return frame_budget_error(&d->budget, e);
	for (size_t i = 0; i < m->n_defs; i++) {
		r = read_definition(&defs[i], i ? &defs[i - 1] : NULL, m->defs[i], e);
		if (r < 0)
			return r;
	}
	d->frame.definitions = defs;
	d->frame.definition_count = m->n_defs;
	return 0;
}

/* No value may contradict a definition of the same frame: both ascend by id. */
static int check_kinds(const struct frame *f, struct err *e)
{
	size_t c = 0, g = 0, h = 0;

	for (size_t i = 0; i < f->definition_count; i++) {
		const struct frame_definition *def = &f->definitions[i];

		while (c < f->counter_count && f->counters[c].id < def->id)
			c++;
		while (g < f->gauge_count && f->gauges[g].id < def->id)
			g++;
		while (h < f->histogram_count && f->histograms[h].id < def->id)
			h++;
		if ((c < f->counter_count && f->counters[c].id == def->id &&
		     def->kind != METRIC_COUNTER) ||
		    (g < f->gauge_count && f->gauges[g].id == def->id &&
		     def->kind != METRIC_GAUGE) ||
		    (h < f->histogram_count && f->histograms[h].id == def->id &&
		     def->kind != METRIC_HISTOGRAM))
			return frame_is_damaged(e, "a value of another kind than its definition");
	}
	return 0;
}

static int read_events(struct decoded *d, const Tidegate__Frame *m, struct err *e)
{
	struct frame_event *events;

	if (!m->n_events)
		return 0;
	if (m->n_events > FRAME_EVENTS_MAX)
		return err_set(e, -E2BIG, "frame: %zu events, %u are allowed", m->n_events,
			       FRAME_EVENTS_MAX);
	events = frame_budget_array(&d->budget, m->n_events, sizeof(*events));
	if (!events)
		return frame_budget_error(&d->budget, e);
	for (size_t i = 0; i < m->n_events; i++) {
		const Tidegate__Event *event = m->events[i];

		events[i] = (struct frame_event){
			.id = event->id,
			.time_ms = event->time_ms,
			.kind = text(event->kind),
			.gateway = text(event->gateway),
			.json = text(event->json),
		};
		if (!*events[i].kind || !frame_text_fits(events[i].kind, FRAME_KIND_MAX) ||
		    !frame_text_fits(events[i].gateway, FRAME_GATEWAY_MAX) ||
		    !frame_text_fits(events[i].json, FRAME_JSON_MAX))
			return frame_is_damaged(e, "an event");
	}
	d->frame.events = events;
	d->frame.event_count = m->n_events;
	return 0;
}

static int read_frame(struct decoded *d, const Tidegate__Frame *m, struct err *e)
{
	int r;

	if (!m->sequence || m->sequence == UINT64_MAX)
		return frame_is_damaged(e, "sequence");
	if (m->series > FRAME_SERIES_MAX)
		return err_set(e, -E2BIG, "frame: %u series, %u are allowed", m->series,
			       FRAME_SERIES_MAX);
	d->frame.sequence = m->sequence;
	d->frame.time_ms = m->time_ms;
	d->frame.interval_ms = m->interval_ms ? m->interval_ms : 1000;
	d->frame.series = m->series;
	d->frame.is_key = m->key;
	d->frame.events_dropped = m->events_dropped;
	if ((r = read_definitions(d, m, e)) < 0 ||
	    (r = frame_values_read(&d->frame, &d->budget, m, e)) < 0 ||
	    (r = read_events(d, m, e)) < 0)
		return r;
	return check_kinds(&d->frame, e);
}

int frame_decode(const uint8_t *data, size_t size, struct frame **ret, struct err *e)
{
	_cleanup_(decoded_free) struct decoded *d = calloc(1, sizeof(*d));
	Tidegate__Frame *m;
	int r;

	if (!d)
		return err_set(e, -ENOMEM, "frame: out of memory");
	frame_budget_init(&d->budget, FRAME_BUDGET_BYTES);
	r = frame_open(&d->budget, data, size, &data, &size, e);
	if (r < 0)
		return r;
	m = tidegate__frame__unpack(&d->budget.allocator, size, data);
	if (!m && (d->budget.is_spent || d->budget.is_failed))
		return frame_budget_error(&d->budget, e);
	if (!m)
		return frame_is_damaged(e, "no Frame message");
	r = read_frame(d, m, e);
	if (r < 0)
		return r;
	*ret = &TAKE_PTR(d)->frame;
	return 0;
}

int frame_peek(const uint8_t *data, size_t size, uint64_t *ret_sequence, bool *ret_is_key)
{
	struct frame *f;
	int r = frame_decode(data, size, &f, NULL);

	if (r < 0)
		return r;
	*ret_sequence = f->sequence;
	*ret_is_key = f->is_key;
	frame_free(f);
	return 0;
}
