/* SPDX-License-Identifier: Apache-2.0 */
/* Shows bus messages of any publisher, hostile ones included: no byte of theirs reaches the
 * terminal unchecked. */
#include "cmd/tail_print.h"

#include "base/str.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TEXT_MAX       8192 /* of one string */
#define EVENT_JSON_MAX 4096 /* an event's JSON is at most this long (proto) */

static const struct {
	const char *name;
	double q;
} quantiles[] = {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}};

/* Length of the valid UTF-8 sequence at s, 0: none. Control characters are none either. */
static size_t utf8_length(const unsigned char *s)
{
	uint32_t v;
	size_t n;

	if (s[0] < 0x80)
		return s[0] >= 0x20 && s[0] != 0x7f;
	if (s[0] >= 0xc2 && s[0] <= 0xdf)
		n = 2;
	else if (s[0] >= 0xe0 && s[0] <= 0xef)
		n = 3;
	else if (s[0] >= 0xf0 && s[0] <= 0xf4)
		n = 4;
	else
		return 0;
	v = s[0] & (0x7fu >> n);
	for (size_t i = 1; i < n; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		v = v << 6 | (s[i] & 0x3f);
	}
	if ((n == 3 && v < 0x800) || (n == 4 && (v < 0x10000 || v > 0x10ffff)) ||
	    (v >= 0xd800 && v <= 0xdfff) || (v >= 0x80 && v < 0xa0))
		return 0;
	return n;
}

/* What cannot be shown becomes a question mark. Valid until the next call. */
static const char *clean(const char *s)
{
	static char out[TEXT_MAX];
	size_t at = 0;

	while (*s && at + 5 < sizeof(out)) {
		size_t n = utf8_length((const unsigned char *)s);

		if (!n) {
			out[at++] = '?';
			s++;
			continue;
		}
		memcpy(out + at, s, n);
		at += n;
		s += n;
	}
	out[at] = '\0';
	return out;
}

static const char *kind_name(uint32_t kind)
{
	static const char *const names[] = {
		[METRIC_COUNTER] = "counter",
		[METRIC_GAUGE] = "gauge",
		[METRIC_HISTOGRAM] = "histogram",
	};

	return kind < ARRAY_LEN(names) ? names[kind] : "unknown";
}

static bool is_in_nanoseconds(const char *metric)
{
	const struct metric_desc *desc = metric_find(metric);

	return desc && desc->kind == METRIC_COUNTER && str_equal(desc->unit, "nanoseconds");
}

/* ---- JSON ---- */

static json_t *real_or_null(double v)
{
	return isfinite(v) ? json_real(v) : json_null();
}

static json_t *whole(uint64_t v)
{
	return v <= INT64_MAX ? json_integer((json_int_t)v) : json_real((double)v);
}

static void histogram_json(json_t *o, const Tidegate__BusSeries *s)
{
	uint64_t cells[HIST_CELLS];
	json_t *q;

	if (bulletin_cells(s, cells) < 0) {
		json_object_set_new(o, "damaged", json_true());
		return;
	}
	json_object_set_new(o, "count", whole(histogram_count(cells)));
	json_object_set_new(o, "sum", real_or_null(histogram_sum(cells)));
	q = json_object();
	for (unsigned int i = 0; i < ARRAY_LEN(quantiles); i++)
		json_object_set_new(q, quantiles[i].name,
				    real_or_null(histogram_quantile(cells, quantiles[i].q)));
	json_object_set_new(o, "quantiles", q);
}

static json_t *series_json(const Tidegate__BusSeries *s)
{
	json_t *o = json_object(), *labels = json_object();

	json_object_set_new(o, "metric", json_string(clean(s->metric)));
	for (size_t i = 0; i + 1 < s->n_labels; i += 2) {
		json_t *value = json_string(clean(s->labels[i + 1]));

		json_object_set_new(labels, clean(s->labels[i]), value);
	}
	json_object_set_new(o, "labels", labels);
	json_object_set_new(o, "kind", json_string(kind_name(s->kind)));
	if (s->kind == METRIC_HISTOGRAM)
		histogram_json(o, s);
	else if (s->kind == METRIC_GAUGE)
		json_object_set_new(o, "value", real_or_null(s->gauge));
	else if (is_in_nanoseconds(s->metric))
		json_object_set_new(o, "value", json_real((double)s->counter / 1e9));
	else
		json_object_set_new(o, "value", whole(s->counter));
	return o;
}

static json_t *event_json(const Tidegate__Event *e)
{
	json_t *o = json_object(), *data = NULL;
	size_t size = strlen(e->json);

	json_object_set_new(o, "id", whole(e->id));
	json_object_set_new(o, "time", json_real((double)e->time_ms / 1e3));
	json_object_set_new(o, "kind", json_string(clean(e->kind)));
	json_object_set_new(o, "gateway", json_string(clean(e->gateway)));
	if (e->agent[0])
		json_object_set_new(o, "agent", json_string(clean(e->agent)));
	if (size && size <= EVENT_JSON_MAX)
		data = json_loadb(e->json, size, JSON_REJECT_DUPLICATES, NULL);
	if (!data && size)
		data = json_string(clean(e->json));
	if (data)
		json_object_set_new(o, "data", data);
	return o;
}

static json_t *signal_json(const Tidegate__BusSignal *s)
{
	json_t *o = json_object();

	json_object_set_new(o, "policy", json_string(clean(s->policy)));
	json_object_set_new(o, "metric", json_string(clean(s->metric)));
	json_object_set_new(o, "value", real_or_null(s->value));
	json_object_set_new(o, "target", real_or_null(s->target));
	json_object_set_new(o, "age_s", real_or_null(s->age_s));
	json_object_set_new(o, "coverage", real_or_null(s->coverage));
	json_object_set_new(o, "current", json_integer(s->current));
	json_object_set_new(o, "desired", s->desired ? json_integer(s->desired) : json_null());
	json_object_set_new(o, "reason", json_string(clean(s->reason)));
	return o;
}

static void print_json(FILE *out, json_t *o)
{
	json_dumpf(o, out, JSON_COMPACT | JSON_REAL_PRECISION(15));
	putc('\n', out);
	json_decref(o);
}

static void bulletin_json(FILE *out, const struct bulletin *b, bool is_snapshot)
{
	json_t *o = json_object(), *list;
	char epoch[24];

	snprintf(epoch, sizeof(epoch), "%016llx", (unsigned long long)b->epoch);
	json_object_set_new(o, "topic", json_string(clean(b->topic)));
	json_object_set_new(o, "epoch", json_string(epoch));
	json_object_set_new(o, "sequence", whole(b->sequence));
	if (is_snapshot)
		json_object_set_new(o, "snapshot", json_true());
	json_object_set_new(o, "time", json_real((double)b->body->time_ms / 1e3));
	list = json_array();
	for (size_t i = 0; i < b->body->n_series; i++)
		json_array_append_new(list, series_json(b->body->series[i]));
	json_object_set_new(o, "series", list);
	list = json_array();
	for (size_t i = 0; i < b->body->n_events; i++)
		json_array_append_new(list, event_json(b->body->events[i]));
	json_object_set_new(o, "events", list);
	if (b->body->n_signals) {
		list = json_array();
		for (size_t i = 0; i < b->body->n_signals; i++)
			json_array_append_new(list, signal_json(b->body->signals[i]));
		json_object_set_new(o, "signals", list);
	}
	if (b->body->n_topics) {
		list = json_object();
		for (size_t i = 0; i < b->body->n_topics; i++)
			json_object_set_new(list, clean(b->body->topics[i]->topic),
					    whole(b->body->topics[i]->sequence));
		json_object_set_new(o, "topics", list);
	}
	print_json(out, o);
}

/* ---- lines ---- */

static void series_line(FILE *out, const Tidegate__BusSeries *s)
{
	uint64_t cells[HIST_CELLS];

	fprintf(out, "  %s", clean(s->metric));
	for (size_t i = 0; i + 1 < s->n_labels; i += 2) {
		fprintf(out, "%s%s=", i ? "," : "{", clean(s->labels[i]));
		fprintf(out, "\"%s\"", clean(s->labels[i + 1]));
	}
	if (s->n_labels >= 2)
		putc('}', out);
	if (s->kind == METRIC_GAUGE) {
		fprintf(out, " %.15g\n", s->gauge);
	} else if (s->kind != METRIC_HISTOGRAM) {
		if (is_in_nanoseconds(s->metric))
			fprintf(out, " %.9g\n", (double)s->counter / 1e9);
		else
			fprintf(out, " %llu\n", (unsigned long long)s->counter);
	} else if (bulletin_cells(s, cells) < 0) {
		fputs(" damaged\n", out);
	} else {
		fprintf(out, " count=%llu", (unsigned long long)histogram_count(cells));
		for (unsigned int i = 0; i < ARRAY_LEN(quantiles); i++)
			fprintf(out, " %s=%.4gs", quantiles[i].name,
				histogram_quantile(cells, quantiles[i].q));
		putc('\n', out);
	}
}

static void signal_line(FILE *out, const Tidegate__BusSignal *s)
{
	fprintf(out, "  scale %s", clean(s->policy));
	fprintf(out, " value=%.4g target=%.4g current=%u", s->value, s->target, s->current);
	if (s->desired)
		fprintf(out, " desired=%u", s->desired);
	fprintf(out, " %s\n", clean(s->reason));
}

static void bulletin_lines(FILE *out, const struct bulletin *b, bool is_snapshot)
{
	time_t seconds = (time_t)(b->body->time_ms / 1000);
	char when[32] = "?";
	struct tm tm;

	if (!gmtime_r(&seconds, &tm) || !strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", &tm))
		str_copy(when, sizeof(when), "?");
	fprintf(out, "%s.%03uZ %s #%llu%s\n", when, (unsigned int)(b->body->time_ms % 1000),
		clean(b->topic), (unsigned long long)b->sequence, is_snapshot ? " snapshot" : "");
	for (size_t i = 0; i < b->body->n_series; i++)
		series_line(out, b->body->series[i]);
	for (size_t i = 0; i < b->body->n_events; i++) {
		const Tidegate__Event *e = b->body->events[i];

		fprintf(out, "  event %s", clean(e->kind));
		if (e->gateway[0])
			fprintf(out, " gateway=%s", clean(e->gateway));
		if (e->agent[0])
			fprintf(out, " agent=%s", clean(e->agent));
		fprintf(out, " %s\n", clean(e->json));
	}
	for (size_t i = 0; i < b->body->n_signals; i++)
		signal_line(out, b->body->signals[i]);
	for (size_t i = 0; i < b->body->n_topics; i++)
		fprintf(out, "  %s #%llu\n", clean(b->body->topics[i]->topic),
			(unsigned long long)b->body->topics[i]->sequence);
}

void tail_print_bulletin(FILE *out, const struct bulletin *b, bool is_snapshot, bool is_json)
{
	if (is_json)
		bulletin_json(out, b, is_snapshot);
	else
		bulletin_lines(out, b, is_snapshot);
}

void tail_print_complete(FILE *out, size_t topics, bool is_json)
{
	if (is_json)
		print_json(out, json_pack("{s:{s:o}}", "complete", "topics", whole(topics)));
	else
		fprintf(out, "snapshot complete: %zu topics\n", topics);
}

void tail_print_note(FILE *out, const char *topic, const struct subscriber_note *note, bool is_json)
{
	json_t *o;

	if (note->has_restarted) {
		if (is_json)
			print_json(out, json_pack("{s:{s:s}}", "restart", "topic", clean(topic)));
		else
			fputs("restart: the publisher counts from 1 again\n", out);
	}
	if (!note->missed)
		return;
	if (!is_json) {
		fprintf(out, "gap: %s%llu missed of %s\n", note->is_at_least ? "at least " : "",
			(unsigned long long)note->missed, clean(topic));
		return;
	}
	o = json_object();
	json_object_set_new(o, "topic", json_string(clean(topic)));
	json_object_set_new(o, "missed", whole(note->missed));
	if (note->is_at_least)
		json_object_set_new(o, "at_least", json_true());
	print_json(out, json_pack("{s:o}", "gap", o));
}
