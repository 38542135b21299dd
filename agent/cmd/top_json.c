/* SPDX-License-Identifier: Apache-2.0 */
/* The view as JSON. Pure. Strings are foreign: what is no UTF-8 becomes U+FFFD, and all beyond
 * printable ASCII is escaped, so that the document may be shown on a terminal. */
#include "cmd/top_json.h"

#include "base/cleanup.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

#define STRING_BYTES 1024

static json_t *foreign_string(const char *s)
{
	char text[STRING_BYTES];
	size_t at = 0;

	while (*s && at + 4 < sizeof(text)) {
		size_t n = str_utf8_length(s);

		memcpy(text + at, n ? s : "\357\277\275", n ? n : 3);
		at += n ? n : 3;
		s += n ? n : 1;
	}
	return json_stringn(text, at);
}

/* Whole numbers as such; what JSON has no word for is not known. */
static void set_number(json_t *object, const char *key, double x)
{
	if (isnan(x) || isinf(x))
		return;
	if (x == floor(x) && fabs(x) < 1e15)
		json_object_set_new(object, key, json_integer((json_int_t)x));
	else
		json_object_set_new(object, key, json_real(x));
}

static void set_quantile(json_t *object, const char *key, const struct top_quantile *q)
{
	json_t *of;

	if (isnan(q->value))
		return;
	of = json_object();
	set_number(of, "seconds", q->value);
	set_number(of, "low", q->low);
	set_number(of, "high", q->high);
	json_object_set_new(object, key, of);
}

/* ---- details ---- */

static void set_name(json_t *object, const struct top_item *item)
{
	const struct top_section_desc *d = &top_sections[item->section];
	json_t *labels;

	if (!d->has_labels) {
		json_object_set_new(object, d->label_key, foreign_string(item->label));
		if (d->detail_key)
			json_object_set_new(object, d->detail_key, foreign_string(item->detail));
		return;
	}
	json_object_set_new(object, d->label_key, foreign_string(item->series.name));
	labels = json_object();
	for (unsigned int i = 0; i < item->series.label_count; i++) {
		const struct segment_label *l = &item->series.labels[i];

		if (str_equal(l->key, "gateway") || str_equal(l->key, "instance"))
			continue;
		/* A key that is no UTF-8 is not taken: no such label can be asked for. */
		json_object_set_new(labels, l->key, foreign_string(l->value));
	}
	json_object_set_new(object, "labels", labels);
}

static void set_field(json_t *object, const struct top_item *item, enum top_field field)
{
	const struct top_field_desc *d = &top_fields[field];
	const void *at = (const char *)item + d->offset;
	double x;

	if (d->form == TOP_FORM_QUANTILE) {
		set_quantile(object, d->key, at);
	} else if (field == TOP_FIELD_TOTAL) {
		if (item->has_total && item->is_ns)
			json_object_set_new(object, d->key, json_real((double)item->total / 1e9));
		else if (item->has_total)
			json_object_set_new(object, d->key, json_integer((json_int_t)item->total));
	} else if (field == TOP_FIELD_ERRORS) {
		json_object_set_new(object, d->key, json_integer((json_int_t)item->errors));
	} else {
		memcpy(&x, at, sizeof(x));
		set_number(object, d->key, x);
	}
}

static void set_details(json_t *gateway, const struct top_detail *d)
{
	json_t *sections[TOP_SECTIONS];

	for (unsigned int i = 0; i < TOP_SECTIONS; i++) {
		sections[i] = json_array();
		json_object_set_new(gateway, top_sections[i].key, sections[i]);
	}
	for (unsigned int i = 0; i < d->count; i++) {
		const struct top_item *item = &d->items[i];
		json_t *object = json_object();

		set_name(object, item);
		for (const enum top_field *f = top_sections[item->section].fields; *f; f++)
			set_field(object, item, *f);
		json_array_append_new(sections[item->section], object);
	}
	if (d->left_out)
		json_object_set_new(gateway, "left_out", json_integer(d->left_out));
}

/* ---- gateways ---- */

static json_t *gateway_json(const struct top_row *row)
{
	const struct segment_gateway *g = row->gateway;
	json_t *object = json_object();

	json_object_set_new(object, "gateway", foreign_string(g->name));
	json_object_set_new(object, "instance", foreign_string(g->instance));
	json_object_set_new(object, "driver", foreign_string(g->driver));
	json_object_set_new(object, "runtime", foreign_string(g->runtime));
	json_object_set_new(object, "state",
			    json_string(g->state == SEGMENT_GATEWAY_LIVE ? "live" : "gone"));
	json_object_set_new(object, "draining", json_boolean(g->draining));
	json_object_set_new(object, "requests_known", json_boolean(g->requests_known));
	json_object_set_new(object, "master_pid", json_integer(g->master_pid));
	for (unsigned int i = 0; i < TOP_VALUES; i++) {
		if (top_columns[i].form == TOP_FORM_QUANTILE)
			set_quantile(object, top_columns[i].key, &row->quantiles[i]);
		else
			set_number(object, top_columns[i].key, row->values[i]);
	}
	return object;
}

static json_t *document(const struct top_scene *s, const struct top_sample *before,
			const struct top_sample *now)
{
	_cleanup_(top_detail_fini) struct top_detail detail = {0};
	json_t *root = json_object(), *gateways = json_array();

	json_object_set_new(root, "version", json_integer(1));
	json_object_set_new(root, "time", json_real((double)s->real_ns / 1e9));
	json_object_set_new(root, "age_seconds", json_real(s->age_s));
	json_object_set_new(root, "stale", json_boolean(top_scene_is_stale(s)));
	json_object_set_new(root, "writer_pid", json_integer(s->writer_pid));
	set_number(root, "window_seconds", s->view->window_s);
	json_object_set_new(root, "gateways", gateways);
	for (unsigned int i = 0; i < s->view->count; i++) {
		json_t *object = gateway_json(&s->view->rows[i]);

		top_detail(before, now, s->view->rows[i].gateway, &detail);
		set_details(object, &detail);
		json_array_append_new(gateways, object);
	}
	return root;
}

static int dump(const char *data, size_t size, void *out)
{
	strbuf_add(out, data, size);
	return ((struct strbuf *)out)->failed ? -1 : 0;
}

int top_json(const struct top_scene *s, const struct top_sample *before,
	     const struct top_sample *now, struct strbuf *out)
{
	json_t *root = document(s, before, now);
	int r = root ? json_dump_callback(root, dump, out,
					  JSON_COMPACT | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(9))
		     : -1;

	json_decref(root);
	strbuf_puts(out, "\n");
	return r < 0 || out->failed ? -ENOMEM : 0;
}
