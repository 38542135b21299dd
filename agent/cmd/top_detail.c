/* SPDX-License-Identifier: Apache-2.0 */
/* Items of one gateway from two looks at the segments. Pure; the caller owns the items. */
#include "cmd/top_detail.h"

#include "base/str.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define FIELD(key_, title_, width_, form_, member)                                       \
	{                                                                                \
		.key = key_, .title = title_, .width = width_, .form = TOP_FORM_##form_, \
		.offset = offsetof(struct top_item, member)                              \
	}

const struct top_field_desc top_fields[TOP_FIELDS] = {
	[TOP_FIELD_RATE] = FIELD("per_second", "/S", 8, RATE, rate),
	[TOP_FIELD_TIME] = FIELD("time_ratio", "TIME", 6, RATIO, time_ratio),
	[TOP_FIELD_GAUGE] = FIELD("value", "VALUE", 8, COUNT, gauge),
	[TOP_FIELD_LIMIT] = FIELD("limit", "LIMIT", 8, COUNT, limit),
	[TOP_FIELD_P50] = FIELD("p50", "P50", 10, QUANTILE, p50),
	[TOP_FIELD_P99] = FIELD("p99", "P99", 10, QUANTILE, p99),
	[TOP_FIELD_MAX] = FIELD("max", "MAX", 10, QUANTILE, max),
	[TOP_FIELD_CONNECT_P99] = FIELD("connect_p99", "CONN P99", 10, QUANTILE, connect_p99),
	[TOP_FIELD_ERROR_RATE] = FIELD("errors_per_second", "ERR/S", 8, RATE, error_rate),
	[TOP_FIELD_ERRORS] = FIELD("errors", "ERRORS", 8, COUNT, errors),
	[TOP_FIELD_TOTAL] = FIELD("total", "TOTAL", 8, COUNT, total),
};

const struct top_section_desc top_sections[TOP_SECTIONS] = {
	[TOP_SECTION_REQUESTS] = {"requests",
				  "REQUESTS",
				  "method",
				  "code",
				  false,
				  {TOP_FIELD_RATE, TOP_FIELD_TOTAL}},
	[TOP_SECTION_LATENCY] = {"histograms",
				 "LATENCY",
				 "metric",
				 NULL,
				 true,
				 {TOP_FIELD_RATE, TOP_FIELD_TIME, TOP_FIELD_P50, TOP_FIELD_P99,
				  TOP_FIELD_MAX, TOP_FIELD_TOTAL}},
	[TOP_SECTION_SYSCALLS] = {"syscalls",
				  "SYSTEM CALLS",
				  "syscall",
				  NULL,
				  false,
				  {TOP_FIELD_RATE, TOP_FIELD_TIME, TOP_FIELD_P50, TOP_FIELD_P99,
				   TOP_FIELD_MAX, TOP_FIELD_ERROR_RATE, TOP_FIELD_ERRORS,
				   TOP_FIELD_TOTAL}},
	[TOP_SECTION_UPSTREAMS] = {"upstreams",
				   "UPSTREAMS",
				   "upstream",
				   NULL,
				   false,
				   {TOP_FIELD_RATE, TOP_FIELD_P50, TOP_FIELD_P99, TOP_FIELD_MAX,
				    TOP_FIELD_CONNECT_P99, TOP_FIELD_ERROR_RATE, TOP_FIELD_ERRORS,
				    TOP_FIELD_TOTAL}},
	[TOP_SECTION_PORTS] = {"accept_queues",
			       "ACCEPT QUEUES",
			       "port",
			       NULL,
			       false,
			       {TOP_FIELD_GAUGE, TOP_FIELD_LIMIT, TOP_FIELD_ERROR_RATE,
				TOP_FIELD_ERRORS}},
	[TOP_SECTION_APPLICATION] = {"application",
				     "APPLICATION",
				     "metric",
				     NULL,
				     true,
				     {TOP_FIELD_RATE, TOP_FIELD_GAUGE, TOP_FIELD_P50, TOP_FIELD_P99,
				      TOP_FIELD_MAX, TOP_FIELD_TOTAL}},
};

struct walk {
	const struct top_file *before;
	const struct segment_gateway *gateway;
	struct top_detail *detail;
	double window;
};

void top_detail_fini(struct top_detail *d)
{
	free(d->items);
	*d = (struct top_detail){0};
}

/* ---- items ---- */

static struct top_item *item_add(struct walk *w, enum top_section section, const char *label,
				 const char *detail, const struct segment_series *s)
{
	const struct top_quantile unknown = {NAN, NAN, NAN};
	struct top_detail *d = w->detail;

	if (d->count == TOP_DETAIL_MAX) {
		d->left_out++;
		return NULL;
	}
	if (d->count == d->places) {
		unsigned int places = d->places ? d->places * 2 : 64;
		struct top_item *items = realloc(d->items, places * sizeof(*items));

		if (!items) {
			d->left_out++;
			return NULL;
		}
		d->items = items;
		d->places = places;
	}
	d->items[d->count] = (struct top_item){
		.section = section,
		.kind = s->kind,
		.label = label,
		.detail = detail,
		.series = *s,
		.rate = NAN,
		.error_rate = NAN,
		.time_ratio = NAN,
		.gauge = NAN,
		.limit = NAN,
		.p50 = unknown,
		.p99 = unknown,
		.max = unknown,
		.connect_p99 = unknown,
	};
	return &d->items[d->count++];
}

/* Several series make one item of a system call, an upstream or a port. */
static struct top_item *item_of(struct walk *w, enum top_section section, const char *key,
				const struct segment_series *s)
{
	const char *label = top_label(s, key);
	struct top_item *item;

	if (!label)
		return NULL;
	for (unsigned int i = 0; i < w->detail->count; i++) {
		item = &w->detail->items[i];
		if (item->section == section && str_equal(item->label, label))
			return item;
	}
	item = item_add(w, section, label, "", s);
	/* Series of errors appear with the first one: until then there were none. */
	if (item)
		item->error_rate = isnan(w->window) ? NAN : 0;
	return item;
}

static double per_second(const struct walk *w, uint64_t growth)
{
	return isnan(w->window) ? NAN : (double)growth / w->window;
}

static void take_count(struct walk *w, struct top_item *item, const struct segment_series *s)
{
	uint64_t growth = 0;

	item->has_total = true;
	item->total = s->counter;
	item->is_ns = str_equal(s->unit, "nanoseconds");
	if (top_growth(w->before, s, &growth, NULL))
		item->rate = per_second(w, growth) / (item->is_ns ? 1e9 : 1);
}

static void take_errors(struct walk *w, struct top_item *item, const struct segment_series *s)
{
	uint64_t growth = 0;

	item->errors += s->counter;
	if (!top_growth(w->before, s, &growth, NULL))
		return;
	item->error_rate += per_second(w, growth);
}

/* counts: the histogram is what tells how many there were. */
static void take_cells(struct walk *w, struct top_item *item, const struct segment_series *s,
		       bool counts)
{
	uint64_t cells[HIST_CELLS];

	if (counts) {
		item->has_total = true;
		item->total = histogram_count(s->cells);
	}
	if (!top_growth(w->before, s, NULL, cells))
		return;
	item->p50 = top_quantile(cells, 0.5);
	item->p99 = top_quantile(cells, 0.99);
	item->max = top_quantile(cells, 1);
	if (counts)
		item->rate = per_second(w, histogram_count(cells));
	item->time_ratio = histogram_sum(cells) / w->window;
}

static void take_connect(struct walk *w, struct top_item *item, const struct segment_series *s)
{
	uint64_t cells[HIST_CELLS];

	if (top_growth(w->before, s, NULL, cells))
		item->connect_p99 = top_quantile(cells, 0.99);
}

/* ---- series ---- */

enum part {
	PART_COUNT,
	PART_TIMES,
	PART_TIMES_COUNTED,
	PART_CONNECT,
	PART_ERRORS,
	PART_GAUGE,
	PART_LIMIT
};

/* What a metric tells of which item. Those with a key share the item of its value, the others make
 * one each. */
static const struct rule {
	enum metric_id metric;
	enum top_section section;
	enum part part;
	const char *key, *label, *detail_key;
} rules[] = {
	{METRIC_ID_REQUESTS, TOP_SECTION_REQUESTS, PART_COUNT, NULL, NULL, "code"},
	{METRIC_ID_REQUEST_DURATION, TOP_SECTION_LATENCY, PART_TIMES_COUNTED, NULL, "request",
	 "code_class"},
	{METRIC_ID_REQUEST_FIRST_BYTE, TOP_SECTION_LATENCY, PART_TIMES_COUNTED, NULL, "first byte",
	 "code_class"},
	{METRIC_ID_LOOP_STALL, TOP_SECTION_LATENCY, PART_TIMES_COUNTED, NULL, "loop turn", ""},
	{METRIC_ID_GC_PAUSE, TOP_SECTION_LATENCY, PART_TIMES_COUNTED, NULL, "gc", "phase"},
	{METRIC_ID_SYSCALLS, TOP_SECTION_SYSCALLS, PART_COUNT, "syscall", NULL, NULL},
	{METRIC_ID_SYSCALL_DURATION, TOP_SECTION_SYSCALLS, PART_TIMES, "syscall", NULL, NULL},
	{METRIC_ID_SYSCALL_ERRORS, TOP_SECTION_SYSCALLS, PART_ERRORS, "syscall", NULL, NULL},
	{METRIC_ID_UPSTREAM, TOP_SECTION_UPSTREAMS, PART_TIMES_COUNTED, "upstream", NULL, NULL},
	{METRIC_ID_UPSTREAM_CONNECT, TOP_SECTION_UPSTREAMS, PART_CONNECT, "upstream", NULL, NULL},
	{METRIC_ID_UPSTREAM_ERRORS, TOP_SECTION_UPSTREAMS, PART_ERRORS, "upstream", NULL, NULL},
	{METRIC_ID_ACCEPT_QUEUE_LENGTH, TOP_SECTION_PORTS, PART_GAUGE, "port", NULL, NULL},
	{METRIC_ID_ACCEPT_QUEUE_LIMIT, TOP_SECTION_PORTS, PART_LIMIT, "port", NULL, NULL},
	{METRIC_ID_ACCEPT_QUEUE_DROPS, TOP_SECTION_PORTS, PART_ERRORS, "port", NULL, NULL},
};

static void take_part(struct walk *w, struct top_item *item, enum part part,
		      const struct segment_series *s)
{
	switch (part) {
	case PART_COUNT:
		take_count(w, item, s);
		break;
	case PART_TIMES:
	case PART_TIMES_COUNTED:
		take_cells(w, item, s, part == PART_TIMES_COUNTED);
		break;
	case PART_CONNECT:
		take_connect(w, item, s);
		break;
	case PART_ERRORS:
		take_errors(w, item, s);
		break;
	case PART_GAUGE:
		item->gauge = s->gauge;
		break;
	case PART_LIMIT:
		item->limit = s->gauge;
		break;
	}
}

static const char *or_empty(const char *s)
{
	return s ? s : "";
}

static void take_host(struct walk *w, const struct segment_series *s)
{
	const struct metric_desc *d = metric_find(s->name);
	struct top_item *item;

	for (size_t i = 0; d && i < ARRAY_LEN(rules); i++) {
		const struct rule *r = &rules[i];

		if (d != &metric_descs[r->metric] || d->kind != s->kind)
			continue;
		if (r->key)
			item = item_of(w, r->section, r->key, s);
		else
			item = item_add(w, r->section,
					r->label ? r->label : or_empty(top_label(s, "method")),
					or_empty(top_label(s, r->detail_key)), s);
		if (item)
			take_part(w, item, r->part, s);
		return;
	}
}

static void take_app(struct walk *w, const struct segment_series *s)
{
	struct top_item *item = item_add(w, TOP_SECTION_APPLICATION, s->name, "", s);

	if (!item)
		return;
	if (s->kind == METRIC_COUNTER)
		take_count(w, item, s);
	else if (s->kind == METRIC_HISTOGRAM)
		take_cells(w, item, s, true);
	else
		item->gauge = s->gauge;
}

static bool is_of(const struct segment_series *s, const struct segment_gateway *g)
{
	const char *gateway = top_label(s, "gateway"), *instance = top_label(s, "instance");

	if (!gateway)
		return false;
	/* In a pod a process that no gateway is known for is the pod's. */
	if (!instance || !*instance)
		return true;
	return str_equal(gateway, g->name) && str_equal(instance, g->instance);
}

static void walk_file(struct walk *w, const struct top_file *now, bool is_app)
{
	struct segment_series s;

	for (unsigned int i = 0; i < now->count; i++) {
		if (!now->get(now->data, i, &s) || !s.is_present || !is_of(&s, w->gateway))
			continue;
		if (is_app)
			take_app(w, &s);
		else
			take_host(w, &s);
	}
}

/* ---- order ---- */

/* Unknown and nothing are the least important. */
static int compare_numbers(double a, double b)
{
	a = isnan(a) ? -1 : a;
	b = isnan(b) ? -1 : b;
	return (a < b) - (a > b);
}

static int compare(const void *a, const void *b)
{
	const struct top_item *x = a, *y = b;
	int r = (x->section > y->section) - (x->section < y->section);

	if (r == 0 && x->section == TOP_SECTION_SYSCALLS)
		r = compare_numbers(x->time_ratio, y->time_ratio);
	if (r == 0 && (x->section == TOP_SECTION_SYSCALLS || x->section == TOP_SECTION_REQUESTS ||
		       x->section == TOP_SECTION_UPSTREAMS))
		r = compare_numbers(x->rate, y->rate);
	if (r == 0 && x->section == TOP_SECTION_APPLICATION)
		r = strcmp(x->label, y->label);
	if (r == 0)
		r = (x->series.index > y->series.index) - (x->series.index < y->series.index);
	return r;
}

void top_detail(const struct top_sample *before, const struct top_sample *now,
		const struct segment_gateway *gateway, struct top_detail *d)
{
	static const struct top_file none;
	struct walk w = {.gateway = gateway, .detail = d};

	d->count = d->left_out = 0;
	d->window_s = w.window = top_window(&before->host, &now->host);
	w.before = isnan(w.window) ? &none : &before->host;
	walk_file(&w, &now->host, false);
	d->app_window_s = w.window = top_window(&before->app, &now->app);
	w.before = isnan(w.window) ? &none : &before->app;
	walk_file(&w, &now->app, true);
	if (d->count)
		qsort(d->items, d->count, sizeof(d->items[0]), compare);
}
