/* SPDX-License-Identifier: Apache-2.0 */
/* What others read of this host directly: /metrics over HTTP, and the agent's own bus. */
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "bus/subject.h"
#include "cmd/courier_state.h"
#include "outlet/prometheus.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define BEACON_INTERVAL_NS NS_PER_S
#define SCRAPE_LINES       2000 /* about 1 ms */
#define SCRAPE_STEPS       5    /* group, order, print, end: all there is of 2,000 lines */
#define SCRAPE_RESTARTS    3

/* -------- HTTP -------- */

/* One rendering; it spans ticks where there are many series, and then shows the later values. */
struct scrape {
	struct courier *c;
	enum prometheus_format format;
	struct prometheus_job *job;
	const struct segment_reader *host, *app; /* that it reads, NULL: without */
	unsigned int host_generation, app_generation, restarts;
};

static unsigned int generation_of(const struct segment_reader *r)
{
	return r ? segment_reader_generation(r) : 0;
}

static int scrape_begin(struct scrape *s, struct http_response *r)
{
	struct prometheus_source sources[2];
	struct courier *c = s->c;
	size_t n = 0;

	s->host = courier_host_is_fresh(c, clock_mono_ns()) ? c->host : NULL;
	s->app = c->app;
	s->host_generation = generation_of(s->host);
	s->app_generation = generation_of(s->app);
	if (s->host)
		prometheus_from_segment(s->host, &sources[n++]);
	if (s->app)
		prometheus_from_segment(s->app, &sources[n++]);
	strbuf_reset(&r->body);
	s->job = prometheus_end(s->job);
	return prometheus_begin(sources, n, s->format, &r->body, &s->job);
}

/* Indexes mean others once a segment was replaced. */
static bool scrape_is_stale(const struct scrape *s)
{
	return (s->host && s->host != s->c->host) || (s->app && s->app != s->c->app) ||
	       generation_of(s->host) != s->host_generation ||
	       generation_of(s->app) != s->app_generation;
}

static int scrape_step(void *data, struct http_response *r)
{
	struct scrape *s = data;
	int k = 0;

	if (scrape_is_stale(s))
		k = s->restarts++ < SCRAPE_RESTARTS ? scrape_begin(s, r) : -EAGAIN;
	if (k == 0) {
		/* The body moves with the answer. */
		prometheus_set_output(s->job, &r->body);
		k = prometheus_step(s->job, SCRAPE_LINES, NULL);
	}
	/* One that is too large is refused with its answer's own words. */
	if (k < 0 && k != -E2BIG) {
		strbuf_reset(&r->body);
		strbuf_printf(&r->body, "no metrics: %s\n", err_text(k));
		r->content_type = "text/plain; charset=utf-8";
		r->status = 503;
	}
	return k > 0;
}

static void scrape_drop(void *data)
{
	struct scrape *s = data;

	prometheus_end(s->job);
	free(s);
}

static void on_metrics(void *data, const struct http_request *q, struct http_response *r)
{
	struct scrape *s = calloc(1, sizeof(*s));

	if (!s) {
		r->status = 500;
		return;
	}
	s->c = data;
	s->format = prometheus_accepted(http_request_header(q, "Accept"));
	r->content_type = prometheus_content_type(s->format);
	/* app.seg is ours: the copy of our tick is what it holds. */
	courier_refresh_host(s->c);
	if (scrape_begin(s, r) < 0) {
		r->status = 500;
		scrape_drop(s);
		return;
	}
	/* Few series are answered at once. */
	for (unsigned int i = 0; i < SCRAPE_STEPS; i++) {
		if (scrape_step(s, r) == 0) {
			scrape_drop(s);
			return;
		}
	}
	r->step = scrape_step;
	r->drop = scrape_drop;
	r->job = s;
}

static void on_healthz(void *data, const struct http_request *q, struct http_response *r)
{
	(void)data;
	(void)q;
	strbuf_puts(&r->body, "ok\n");
}

static const struct http_route routes[] = {
	{"/metrics", on_metrics, false},
	{"/healthz", on_healthz, false},
};

static void http_open(struct courier *c)
{
	const char *address = c->ctx->config->http_address;
	struct err e = {0};

	if (!*address)
		return;
	if (http_server_open(c->loop, address, routes, ARRAY_LEN(routes), c, &c->http, &e) < 0) {
		log_error("courier", "no /metrics", "address=%s error=\"%s\"", address, e.text);
		c->http = NULL;
	}
}

/* -------- the agent's own bus -------- */

/* protobuf-c's structs are not const-correct; packing does not write. */
static char *unconst(const char *s)
{
	return (char *)(uintptr_t)s;
}

static void send_body(struct courier *c, const char *topic, const Tidegate__BusBody *body)
{
	const uint8_t *message;
	size_t size;

	if (publisher_message(c->publisher, topic, body, &message, &size) == 0)
		fanout_publish(c->fanout, message, size); /* its drops are counted there */
}

/* The series of one gateway: a message of its topic. */
static void on_shelf(void *data, const char *gateway, Tidegate__BusBody *body)
{
	struct courier *c = data;
	char topic[SUBJECT_MAX + 1];

	if (subject_metrics(gateway, c->ctx->config->agent_id, topic) >= 0)
		send_body(c, topic, body);
}

static void shelf_add_all(struct shelf *shelf, const struct segment_reader *r)
{
	struct segment_series s;

	for (unsigned int i = 0; i < segment_reader_series_count(r); i++) {
		struct merge_series m;

		if (!segment_reader_series(r, i, &s) || !s.is_present)
			continue;
		m = (struct merge_series){
			.name = s.name,
			.kind = s.kind,
			.label_count = s.label_count,
			.counter = s.counter,
			.gauge = s.gauge,
			.cells = s.cells,
		};
		memcpy(m.labels, s.labels, s.label_count * sizeof(s.labels[0]));
		shelf_add(shelf, &m);
	}
}

static void publish_events(struct courier *c, uint64_t time_ms, uint64_t first_id)
{
	for (unsigned int i = 0; i < c->event_count; i++) {
		Tidegate__BusBody body;
		Tidegate__Event event, *events[] = {&event};
		char topic[SUBJECT_MAX + 1];

		tidegate__bus_body__init(&body);
		tidegate__event__init(&event);
		event.id = first_id + i;
		event.time_ms = c->events[i].time_ms;
		event.kind = c->events[i].kind;
		event.gateway = c->events[i].gateway;
		event.json = c->events[i].json;
		body.time_ms = time_ms;
		body.events = events;
		body.n_events = 1;
		event.agent = unconst(c->ctx->config->agent_id);
		if (subject_events(c->events[i].kind, topic) >= 0)
			send_body(c, topic, &body);
	}
}

void courier_publish(struct courier *c, uint64_t time_ms, uint64_t first_event_id)
{
	struct fanout_stats stats;
	const uint8_t *beacon;
	uint64_t now = clock_mono_ns();
	size_t size;

	if (!c->fanout)
		return;
	fanout_stats(c->fanout, &stats);
	if (stats.subscribers) { /* nobody listens: nothing to encode, nothing missed */
		shelf_begin(c->shelf, time_ms);
		if (c->host && courier_host_is_fresh(c, now))
			shelf_add_all(c->shelf, c->host);
		if (c->app)
			shelf_add_all(c->shelf, c->app);
		shelf_end(c->shelf);
		publish_events(c, time_ms, first_event_id);
	}
	if (now - c->beacon_ns < BEACON_INTERVAL_NS)
		return;
	c->beacon_ns = now;
	if (publisher_beacon(c->publisher, time_ms, &beacon, &size) == 0)
		fanout_publish(c->fanout, beacon, size);
}

static void bus_open(struct courier *c)
{
	const char *address = c->ctx->config->bus_address;
	struct err e = {0};

	if (!*address || publisher_new(publisher_epoch(), &c->publisher) < 0) {
		c->publisher = NULL;
		return;
	}
	if (shelf_new(on_shelf, c, &c->shelf) < 0) {
		log_error("courier", "no bus", "address=%s error=\"no memory\"", address);
		c->publisher = publisher_free(c->publisher);
		return;
	}
	if (fanout_open(c->loop, address, NULL, &c->fanout, &e) < 0) {
		log_error("courier", "no bus", "address=%s error=\"%s\"", address, e.text);
		c->fanout = NULL;
		c->publisher = publisher_free(c->publisher);
	}
}

void courier_outlets_open(struct courier *c)
{
	http_open(c);
	bus_open(c);
}

void courier_outlets_close(struct courier *c)
{
	c->http = http_server_close(c->http);
	c->fanout = fanout_close(c->fanout);
	c->publisher = publisher_free(c->publisher);
	c->shelf = shelf_free(c->shelf);
}
