/* SPDX-License-Identifier: Apache-2.0 */
/* JSON of the aggregator's API. Written item by item, so that a large answer is never held twice. */
#include "outlet/api.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>

static int dump_callback(const char *data, size_t size, void *out)
{
	strbuf_add(out, data, size);
	return ((struct strbuf *)out)->failed ? -1 : 0;
}

/* Takes the item. */
static int item_write(struct strbuf *out, json_t *item, bool is_first)
{
	int r;

	if (!item)
		return -ENOMEM;
	if (!is_first)
		strbuf_puts(out, ",\n");
	r = json_dump_callback(item, dump_callback, out, JSON_COMPACT | JSON_REAL_PRECISION(12));
	json_decref(item);
	return r < 0 || out->failed ? -E2BIG : 0;
}

static int list_end(struct strbuf *out, int r)
{
	if (r < 0)
		return r;
	strbuf_puts(out, "]}\n");
	return out->failed ? -E2BIG : 0;
}

/* What is not UTF-8 in a peer's text becomes null instead of spoiling the answer. */
static json_t *text(const char *s)
{
	json_t *t = json_string(s ? s : "");

	return t ? t : json_null();
}

static json_t *number(double v)
{
	return isfinite(v) ? json_real(v) : json_null();
}

static json_t *integer(uint64_t v)
{
	return v <= INT64_MAX ? json_integer((json_int_t)v) : json_real((double)v);
}

static json_t *agent_json(const struct api_agent *a)
{
	json_t *labels = json_object();
	char hex[33];

	for (unsigned int i = 0; i < 16; i++)
		snprintf(hex + 2 * i, 3, "%02x", a->incarnation[i]);
	for (unsigned int i = 0; i < a->label_count; i++)
		if (*a->labels[i])
			json_object_set_new(labels, a->label_names[i], text(a->labels[i]));
	return json_pack("{s:o,s:s,s:o,s:o,s:b,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "id",
			 text(a->id), "incarnation", hex, "labels", labels, "age_s",
			 number(a->age_s), "stale", a->is_stale, "sequence", integer(a->sequence),
			 "missing", integer(a->missing), "gaps", integer(a->gaps), "frames",
			 integer(a->frames), "bytes", integer(a->bytes), "samples",
			 integer(a->samples), "series", integer(a->series), "interval_ms",
			 integer(a->interval_ms), "incarnations", integer(a->incarnations),
			 "bytes_per_sample",
			 a->samples ? number((double)a->bytes / (double)a->samples) : json_null());
}

int api_write_agents(struct strbuf *out, const struct api_agent *agents, size_t n)
{
	int r = 0;

	strbuf_puts(out, "{\"agents\":[");
	for (size_t i = 0; i < n && r >= 0; i++)
		r = item_write(out, agent_json(&agents[i]), i == 0);
	return list_end(out, r);
}

static json_t *histogram_json(const uint64_t *cells)
{
	uint64_t count = histogram_count(cells);

	return json_pack("{s:o,s:o,s:o,s:o,s:o}", "count", integer(count), "sum",
			 number(histogram_sum(cells)), "p50",
			 number(histogram_quantile(cells, 0.5)), "p90",
			 number(histogram_quantile(cells, 0.9)), "p99",
			 number(histogram_quantile(cells, 0.99)));
}

static json_t *series_json(const struct prometheus_series *s)
{
	static const char *const kinds[] = {"counter", "gauge", "histogram"};
	bool is_ns = str_equal(s->unit, "nanoseconds");
	json_t *labels = json_object(), *value;

	for (size_t i = 0; i < s->label_count; i++)
		json_object_set_new(labels, s->labels[i].key, text(s->labels[i].value));
	if (s->kind == METRIC_HISTOGRAM)
		value = histogram_json(s->cells);
	else if (s->kind == METRIC_GAUGE)
		value = number(s->gauge);
	else
		value = is_ns ? number((double)s->counter / 1e9) : integer(s->counter);
	return json_pack("{s:o,s:s,s:o,s:o}", "metric", text(s->name), "kind", kinds[s->kind],
			 "labels", labels, "value", value);
}

int api_write_series(struct strbuf *out, const struct prometheus_source *source)
{
	bool is_first = true;
	int r = 0;

	strbuf_puts(out, "{\"series\":[");
	for (size_t i = 0; i < source->count && r >= 0; i++) {
		struct prometheus_series s;

		if (!source->get(source->data, i, &s))
			continue;
		r = item_write(out, series_json(&s), is_first);
		is_first = false;
	}
	return list_end(out, r);
}

static json_t *event_json(const struct api_event *e)
{
	json_t *json =
		json_loads(e->json && *e->json ? e->json : "{}", JSON_REJECT_DUPLICATES, NULL);

	return json_pack("{s:o,s:o,s:o,s:o,s:o,s:o}", "id", integer(e->id), "time_ms",
			 integer(e->time_ms), "agent", text(e->agent), "kind", text(e->kind),
			 "gateway", text(e->gateway), "json", json ? json : text(e->json));
}

int api_write_events(struct strbuf *out, const struct api_event *events, size_t n)
{
	int r = 0;

	strbuf_puts(out, "{\"events\":[");
	for (size_t i = 0; i < n && r >= 0; i++)
		r = item_write(out, event_json(&events[i]), i == 0);
	return list_end(out, r);
}

static json_t *signal_json(const struct api_signal *s)
{
	if (s->is_error)
		return json_pack("{s:o,s:o,s:s,s:o,s:o,s:o}", "name", text(s->name), "metric",
				 text(s->metric), "state", "error", "age_s", number(s->age_s),
				 "target", number(s->target), "reason", text(s->reason));
	return json_pack("{s:o,s:o,s:s,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "name", text(s->name),
			 "metric", text(s->metric), "state", "ok", "value", number(s->value),
			 "target", number(s->target), "age_s", number(s->age_s), "coverage",
			 number(s->coverage), "current", integer(s->current), "desired",
			 integer(s->desired), "reason", text(s->reason));
}

int api_write_signals(struct strbuf *out, const struct api_signal *signals, size_t n)
{
	int r = 0;

	strbuf_puts(out, "{\"signals\":[");
	for (size_t i = 0; i < n && r >= 0; i++)
		r = item_write(out, signal_json(&signals[i]), i == 0);
	return list_end(out, r);
}
