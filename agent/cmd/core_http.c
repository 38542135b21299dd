/* SPDX-License-Identifier: Apache-2.0 */
/* What the core answers over HTTP: metrics, health, and the JSON of the API. Only reads. */
#include "cmd/core.h"

#include "cmd/core_query.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "cmd/door_page.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define JSON "application/json"

/* A view of the fleet as a source of Prometheus series. */
struct fleet_source {
	struct merge_view *view;
	struct merge_series series;
};

/* The contract has const data; the room for the series in hand is all that changes. */
static bool fleet_source_get(const void *data, size_t index, struct prometheus_series *ret)
{
	struct fleet_source *s = (struct fleet_source *)(uintptr_t)data;

	if (!merge_view_get(s->view, index, &s->series))
		return false;
	ret->name = s->series.name;
	ret->unit = s->series.unit;
	ret->help = s->series.help;
	ret->kind = s->series.kind;
	ret->labels = s->series.labels;
	ret->label_count = s->series.label_count;
	ret->counter = s->series.counter;
	ret->gauge = s->series.gauge;
	ret->cells = s->series.cells;
	/* Catalogue metrics travel without their texts. */
	if (!*ret->unit || !*ret->help) {
		const struct metric_desc *d = metric_find(ret->name);

		ret->unit = d && !*ret->unit ? d->unit : ret->unit;
		ret->help = d && !*ret->help ? d->help : ret->help;
	}
	return true;
}

static int view_open(struct core *c, const struct http_request *q, struct fleet_source *s)
{
	const char *by = http_request_arg(q, "by");
	struct merge_options o = {
		.by = by && str_equal(by, "instance") ? MERGE_BY_INSTANCE : MERGE_BY_FLEET,
		.metric = http_request_arg(q, "metric"),
		.agent = http_request_arg(q, "agent"),
		.now_ms = clock_real_ns() / NS_PER_MS,
		.stale_ms = c->config->fleet_stale / NS_PER_MS,
	};

	if (o.agent)
		o.by = MERGE_BY_INSTANCE;
	/* Nothing is shown that could be forgotten. */
	if (c->gate && commitlog_pending(c->log))
		core_commit(c);
	return merge_view_new(c->fleet, &o, &s->view);
}

static void fail(struct http_response *r, unsigned int status, const char *why)
{
	strbuf_reset(&r->body);
	r->status = status;
	r->content_type = "text/plain";
	strbuf_printf(&r->body, "%s\n", why);
}

#define OWN_ROWS 26

struct own_source {
	struct core_row rows[OWN_ROWS];
	size_t count;
	const char *process; /* a label: agents have these metrics, too; NULL: none */
};

static bool own_source_get(const void *data, size_t index, struct prometheus_series *ret)
{
	const struct own_source *own = data;
	const struct core_row *row = &own->rows[index];
	const struct metric_desc *d = &metric_descs[row->id];

	ret->name = d->name;
	ret->unit = d->unit;
	ret->help = d->help;
	ret->kind = d->kind;
	ret->labels = ret->room;
	ret->label_count = 0;
	if (own->process)
		ret->room[ret->label_count++] = (struct segment_label){"process", own->process};
	if (row->key)
		ret->room[ret->label_count++] = (struct segment_label){row->key, row->value};
	ret->counter = row->count;
	ret->gauge = (double)row->count;
	return true;
}

static void own_fill(struct core *c, struct own_source *own)
{
	const struct commitlog_stats none = {0}, *log = c->log ? commitlog_stats(c->log) : &none;
	uint64_t now_ms = clock_real_ns() / NS_PER_MS;
	size_t live = merge_agents_live(c->fleet, now_ms, c->config->fleet_stale / NS_PER_MS);
	struct gatelink_stats gate = {0};
	struct fleet_stats s;

	fleet_stats(c->fleet, &s);
	if (c->gate)
		gatelink_server_stats(c->gate, &gate);
	*own = (struct own_source){
		.rows =
			{
				{METRIC_ID_FRAME_GAPS, NULL, NULL, s.gaps},
				{METRIC_ID_AGGREGATOR_FRAMES, "state", "applied", s.applied},
				{METRIC_ID_AGGREGATOR_FRAMES, "state", "duplicate", s.duplicates},
				{METRIC_ID_AGGREGATOR_FRAMES, "state", "need_hello", s.need_hello},
				{METRIC_ID_AGGREGATOR_FRAMES, "state", "need_key", s.need_key},
				{METRIC_ID_AGGREGATOR_FRAMES, "state", "refused", s.refused},
				{METRIC_ID_AGGREGATOR_FRAMES, "state", "damaged",
				 c->uplink.stats.frames_damaged},
				{METRIC_ID_AGGREGATOR_FRAMES, "state", "unreadable",
				 c->uplink.stats.frames_unreadable},
				{METRIC_ID_AGGREGATOR_FRAMES, "state", "lost", s.lost},
				{METRIC_ID_AGGREGATOR_SAMPLES, NULL, NULL, s.samples},
				{METRIC_ID_AGGREGATOR_AGENTS, "state", "live", live},
				{METRIC_ID_AGGREGATOR_AGENTS, "state", "stale", s.agents - live},
				{METRIC_ID_AGGREGATOR_SERIES, NULL, NULL, s.series},
				{METRIC_ID_AGGREGATOR_REFUSED, "what", "agent", s.agents_refused},
				{METRIC_ID_AGGREGATOR_REFUSED, "what", "series", s.series_refused},
				{METRIC_ID_AGGREGATOR_REFUSED, "what", "request",
				 c->uplink.stats.malformed},
				{METRIC_ID_AGGREGATOR_REFUSED, "what", "hello",
				 c->uplink.stats.hellos},
				{METRIC_ID_AGGREGATOR_REFUSED, "what", "foreign",
				 c->uplink.stats.foreign},
				{METRIC_ID_AGGREGATOR_REFUSED, "what", "message",
				 publisher_refused(c->publisher)},
				{METRIC_ID_AGGREGATOR_REFUSED, "what", "passport", gate.malformed},
				{METRIC_ID_AGGREGATOR_REFUSED, "what", "snapshot",
				 core_asks_dropped(c)},
				{METRIC_ID_AGGREGATOR_RESETS, NULL, NULL, s.resets},
				{METRIC_ID_AGGREGATOR_LOG_BYTES, NULL, NULL, log->bytes},
				{METRIC_ID_AGGREGATOR_COMMITS, "state", "done", log->commits},
				{METRIC_ID_AGGREGATOR_COMMITS, "state", "failed", log->failures},
				{METRIC_ID_AGGREGATOR_LOG_DAMAGED, NULL, NULL, log->damaged_bytes},
			},
		.count = OWN_ROWS,
	};
}

static void on_metrics(void *data, const struct http_request *q, struct http_response *r)
{
	enum prometheus_format format = prometheus_accepted(http_request_header(q, "Accept"));
	struct core *c = data;
	struct fleet_source fleet = {0};
	struct own_source own, history = {.count = 0}, ferry = {.process = "ferry"};
	struct prometheus_source sources[5];
	struct door_page door = {0};

	if (view_open(c, q, &fleet) < 0) {
		fail(r, 500, "no memory for the view");
		return;
	}
	own_fill(c, &own);
	history.count = core_history_rows(c, history.rows);
	sources[0] = (struct prometheus_source){
		.count = merge_view_count(fleet.view), .get = fleet_source_get, .data = &fleet};
	ferry.count = core_ferry_rows(c, ferry.rows);
	sources[1] =
		(struct prometheus_source){.count = own.count, .get = own_source_get, .data = &own};
	sources[2] = (struct prometheus_source){
		.count = ferry.count, .get = own_source_get, .data = &ferry};
	if (c->door)
		door_page_read(c->door, &door);
	sources[3] = (struct prometheus_source){.count = c->door ? door_page_series(&door) : 0,
						.get = door_page_get,
						.data = &door};
	sources[4] = (struct prometheus_source){
		.count = history.count, .get = own_source_get, .data = &history};
	r->content_type = prometheus_content_type(format);
	if (prometheus_render(sources, 5, format, &r->body, NULL) < 0)
		fail(r, 500, "too many series for one answer; ask for ?metric=");
	merge_view_free(fleet.view);
}

static void on_healthz(void *data, const struct http_request *q, struct http_response *r)
{
	(void)data;
	(void)q;
	strbuf_puts(&r->body, "ok\n");
}

static void on_readyz(void *data, const struct http_request *q, struct http_response *r)
{
	struct gatelink_stats gate = {0};
	struct core *c = data;

	(void)q;
	if (c->gate)
		gatelink_server_stats(c->gate, &gate);
	if (!c->is_ready)
		fail(r, 503, "the log is being replayed");
	else if (!gate.is_connected)
		fail(r, 503, "the gate is away");
	else if (c->is_stuck || c->is_full)
		fail(r, 503, "the log cannot be written");
	else
		strbuf_puts(&r->body, "ok\n");
}

static void on_agents(void *data, const struct http_request *q, struct http_response *r)
{
	static const char *const names[FLEET_AGENT_LABELS] = {"cluster", "namespace", "pod",
							      "node"};
	struct core *c = data;
	uint64_t now_ms = clock_real_ns() / NS_PER_MS;
	size_t n = merge_agent_count(c->fleet), count = 0;
	_cleanup_free_ struct merge_agent *agents = calloc(n + 1, sizeof(*agents));
	_cleanup_free_ struct api_agent *out = calloc(n + 1, sizeof(*out));

	(void)q;
	r->content_type = JSON;
	for (size_t i = 0; agents && out && i < n; i++) {
		struct merge_agent *a = &agents[count];

		if (!merge_agent_get(c->fleet, i, a))
			continue;
		out[count++] = (struct api_agent){
			.id = a->id,
			.incarnation = a->incarnation,
			.label_names = names,
			.labels = a->labels,
			.label_count = FLEET_AGENT_LABELS,
			.age_s = now_ms > a->last_seen_ms ? (double)(now_ms - a->last_seen_ms) / 1e3
							  : 0,
			.is_stale = a->last_seen_ms + c->config->fleet_stale / NS_PER_MS < now_ms,
			.incarnations = a->incarnations,
			.series = a->series,
			.interval_ms = a->interval_ms,
			.sequence = a->sequence,
			.missing = a->missing,
			.gaps = a->gaps,
			.frames = a->frames,
			.bytes = a->bytes,
			.samples = a->samples,
		};
	}
	if (!agents || !out || api_write_agents(&r->body, out, count) < 0)
		fail(r, 500, "no memory for the list");
}

static void on_series(void *data, const struct http_request *q, struct http_response *r)
{
	struct fleet_source fleet = {0};
	struct prometheus_source source;

	/* Prometheus's way to ask, of history. */
	if (http_request_arg(q, "match[]")) {
		core_query_series(data, q, r);
		return;
	}
	if (view_open(data, q, &fleet) < 0) {
		fail(r, 500, "no memory for the view");
		return;
	}
	source = (struct prometheus_source){
		.count = merge_view_count(fleet.view), .get = fleet_source_get, .data = &fleet};
	r->content_type = JSON;
	if (api_write_series(&r->body, &source) < 0)
		fail(r, 500, "too many series for one answer; ask for ?metric=");
	merge_view_free(fleet.view);
}

static void on_events(void *data, const struct http_request *q, struct http_response *r)
{
	struct core *c = data;
	uint64_t n = c->event_count < CORE_EVENTS ? c->event_count : CORE_EVENTS;
	_cleanup_free_ struct api_event *out = calloc(CORE_EVENTS, sizeof(*out));
	size_t count = 0;

	(void)q;
	r->content_type = JSON;
	for (uint64_t i = c->event_count - n; out && i < c->event_count; i++) {
		const struct core_event *e = &c->events[i % CORE_EVENTS];

		if (e->text)
			out[count++] = (struct api_event){e->id,   e->time_ms, e->agent,
							  e->kind, e->gateway, e->json};
	}
	if (!out || api_write_events(&r->body, out, count) < 0)
		fail(r, 500, "no memory for the list");
}

static void on_signals(void *data, const struct http_request *q, struct http_response *r)
{
	struct core_signal signal;

	(void)q;
	core_signal_read(data, &signal);
	r->content_type = JSON;
	r->status = signal.api.is_error ? 503 : 200;
	if (api_write_signals(&r->body, &signal.api, 1) < 0)
		fail(r, 500, "no memory for the list");
}

int core_http_open(struct core *c, struct err *e)
{
	static const struct http_route routes[] = {
		{"/metrics", on_metrics, false},
		{"/healthz", on_healthz, false},
		{"/readyz", on_readyz, false},
		{"/api/v1/agents", on_agents, false},
		{"/api/v1/series", on_series, true},
		{"/api/v1/events", on_events, false},
		{"/api/v1/signals", on_signals, false},
		{"/api/v1/query", core_query_instant, true},
		{"/api/v1/query_range", core_query_range, true},
		{"/api/v1/labels", core_query_labels, true},
		{"/api/v1/label/*/values", core_query_values, false},
		{"/api/v1/metadata", core_query_metadata, false},
		{"/api/v1/status/buildinfo", core_query_buildinfo, false},
	};

	int r = http_server_open(c->loop, c->config->api_address, routes, ARRAY_LEN(routes), c,
				 &c->http, e);

	if (r >= 0)
		http_server_set_errors(c->http, "/api/v1/", core_query_error);
	/* Queries are made by a thread: here they only wait. */
	if (r >= 0)
		http_server_set_jobs(c->http, CORE_QUERIES_MAX);
	return r;
}
