/* SPDX-License-Identifier: Apache-2.0 */
/* What of the bus somebody wants to see. */
#include "bus/filter.h"

#include "base/str.h"
#include "bus/subject.h"

#include <errno.h>
#include <string.h>

static int term_add(const char **terms, unsigned int *count, const char *term)
{
	if (!*term)
		return -EINVAL;
	if (*count == FILTER_TERMS)
		return -ENOSPC;
	terms[(*count)++] = term;
	return 0;
}

int filter_add_topic(struct filter *f, const char *term)
{
	return term_add(f->topics, &f->topic_count, term);
}

int filter_add_gateway(struct filter *f, const char *term)
{
	return term_add(f->gateways, &f->gateway_count, term);
}

int filter_add_metric(struct filter *f, const char *term)
{
	return term_add(f->metrics, &f->metric_count, term);
}

static bool is_gateway(const struct filter *f, const char *name)
{
	for (unsigned int i = 0; i < f->gateway_count; i++)
		if (str_equal(f->gateways[i], name))
			return true;
	return !f->gateway_count;
}

static bool is_metric(const struct filter *f, const char *name)
{
	for (unsigned int i = 0; i < f->metric_count; i++) {
		const char *term = f->metrics[i];
		size_t n = strlen(term);

		if (term[n - 1] == '*' ? strncmp(name, term, n - 1) == 0 : str_equal(name, term))
			return true;
	}
	return !f->metric_count;
}

bool filter_topic(const struct filter *f, const char *topic)
{
	char gateway[SUBJECT_MAX + 1];
	bool is_named = !f->topic_count && !str_equal(topic, "beacon");

	for (unsigned int i = 0; i < f->topic_count && !is_named; i++)
		is_named = str_starts(topic, f->topics[i]);
	if (!is_named)
		return false;
	/* Names that were cut say too little: there the series decide. */
	if (f->gateway_count && subject_read_metrics(topic, gateway, NULL) &&
	    strlen(gateway) < SUBJECT_GATEWAY && !is_gateway(f, gateway))
		return false;
	return !f->metric_count || !str_starts(topic, "events/");
}

bool filter_series(const struct filter *f, const Tidegate__BusSeries *s)
{
	const char *gateway = "";

	for (size_t i = 0; i + 1 < s->n_labels; i += 2)
		if (str_equal(s->labels[i], "gateway"))
			gateway = s->labels[i + 1];
	return is_gateway(f, gateway) && is_metric(f, s->metric);
}

bool filter_event(const struct filter *f, const Tidegate__Event *e)
{
	return !f->metric_count && is_gateway(f, e->gateway);
}

/* A signal is about all gateways. */
bool filter_signal(const struct filter *f, const Tidegate__BusSignal *s)
{
	return !f->gateway_count && is_metric(f, s->metric);
}

int filter_body(const struct filter *f, const Tidegate__BusBody *body, struct arena *arena,
		Tidegate__BusBody *ret)
{
	Tidegate__BusBody out = *body;

	out.series = arena_alloc(arena, (body->n_series + 1) * sizeof(*out.series));
	out.events = arena_alloc(arena, (body->n_events + 1) * sizeof(*out.events));
	out.signals = arena_alloc(arena, (body->n_signals + 1) * sizeof(*out.signals));
	if (!out.series || !out.events || !out.signals)
		return -ENOMEM;
	out.n_series = out.n_events = out.n_signals = 0;
	for (size_t i = 0; i < body->n_series; i++)
		if (filter_series(f, body->series[i]))
			out.series[out.n_series++] = body->series[i];
	for (size_t i = 0; i < body->n_events; i++)
		if (filter_event(f, body->events[i]))
			out.events[out.n_events++] = body->events[i];
	for (size_t i = 0; i < body->n_signals; i++)
		if (filter_signal(f, body->signals[i]))
			out.signals[out.n_signals++] = body->signals[i];
	*ret = out;
	return 0;
}
