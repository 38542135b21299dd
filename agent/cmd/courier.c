/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Courier process: each tick reads the segments, encodes what changed, spools it, and hands it to
 * the uplinks; shows /metrics and the agent's own bus. Unprivileged, one loop, one thread. When it
 * dies the next one goes on in the same incarnation with a key frame.
 */
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "cmd/courier_state.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KEY_INTERVAL_NS     (60 * NS_PER_S)
#define END_NS              (2 * NS_PER_S)
#define LEAST_INTERVAL_NS   (50 * NS_PER_MS)
#define KEEPER_SILENT_TICKS 3 /* then it is taken to be away */
#define STALE_NS            (10 * NS_PER_S)

/* -------- segments -------- */

static void reader_refresh(struct segment_reader **reader, const char *path)
{
	if (!*reader && segment_reader_open(path, reader, NULL) < 0) {
		*reader = NULL; /* not there yet */
		return;
	}
	segment_reader_refresh(*reader, NULL); /* on failure the last copy stays, and grows stale */
}

void courier_refresh_host(struct courier *c)
{
	reader_refresh(&c->host, c->host_path);
}

static void refresh(struct courier *c)
{
	courier_refresh_host(c);
	if (c->writer)
		reader_refresh(&c->app, c->app_path);
}

static const struct segment_header *host_header(const struct courier *c)
{
	const struct segment_header *h = c->host ? segment_reader_header(c->host) : NULL;

	return h && h->magic == SEGMENT_MAGIC ? h : NULL;
}

bool courier_host_is_fresh(const struct courier *c, uint64_t now_ns)
{
	const struct segment_header *h = host_header(c);
	uint64_t limit = STALE_NS;

	if (!h)
		return false;
	if (limit < 10 * c->ctx->config->agent_tick)
		limit = 10 * c->ctx->config->agent_tick;
	return now_ns < h->tick_mono_ns || now_ns - h->tick_mono_ns < limit;
}

/* -------- events -------- */

static void event_clear(struct courier_event *e)
{
	free(e->kind);
	free(e->gateway);
	free(e->json);
	*e = (struct courier_event){0};
}

static void events_clear(struct courier *c)
{
	for (unsigned int i = 0; i < c->event_count; i++)
		event_clear(&c->events[i]);
	c->event_count = 0;
	c->events_refused = 0;
}

static void event_take(struct courier *c, json_t *m)
{
	const char *kind = json_string_value(json_object_get(m, "kind"));
	const char *gateway = json_string_value(json_object_get(m, "gateway"));
	json_t *json = json_object_get(m, "json");
	struct courier_event e = {
		.time_ms = (uint64_t)json_integer_value(json_object_get(m, "time_ms")),
	};

	if (c->event_count == FRAME_EVENTS_MAX || !kind || !*kind) {
		c->events_refused++;
		c->counts.events_dropped++;
		return;
	}
	if (!e.time_ms)
		e.time_ms = clock_real_ns() / NS_PER_MS;
	e.kind = strdup(kind);
	e.gateway = strdup(gateway ? gateway : "");
	e.json = json_is_object(json) ? json_dumps(json, JSON_COMPACT) : strdup("{}");
	if (!e.kind || !e.gateway || !e.json || strlen(e.kind) > FRAME_KIND_MAX ||
	    strlen(e.gateway) > FRAME_GATEWAY_MAX || strlen(e.json) > FRAME_JSON_MAX) {
		event_clear(&e);
		c->events_refused++;
		c->counts.events_dropped++;
		return;
	}
	c->events[c->event_count++] = e;
}

static void tick_soon(struct courier *c);
static void on_tick(void *data);

static void on_link(void *data, int fd, unsigned int events)
{
	struct courier *c = data;
	bool is_drain = false, is_tick = false;
	int n;

	(void)events;
	while ((n = daemon_link_recv(fd, c->packet, sizeof(c->packet))) > 0) {
		json_t *m = json_loadb(c->packet, (size_t)n, 0, NULL);
		const char *type = json_string_value(json_object_get(m, "type"));

		if (type && str_equal(type, "event")) {
			const char *kind = json_string_value(json_object_get(m, "kind"));

			event_take(c, m);
			is_drain |= kind && str_starts(kind, "drain.");
		} else if (type && str_equal(type, "tick")) {
			is_tick = true;
		}
		json_decref(m);
	}
	if (is_tick && !c->end_ns) {
		c->keeper_ns = clock_mono_ns();
		on_tick(c);
	} else if (is_drain) /* whoever waits for a drain must not wait for the tick */
		tick_soon(c);
}

/* -------- the tick -------- */

static void encode_all(struct courier *c, const struct segment_reader *r)
{
	struct segment_series s;

	for (unsigned int i = 0; i < segment_reader_series_count(r); i++)
		if (segment_reader_series(r, i, &s))
			frame_encoder_series(c->encoder, &s); /* refusals are counted there */
}

static enum frame_type frame_type_now(struct courier *c, uint64_t now_ns)
{
	if (c->needs_key)
		return FRAME_KEY;
	return now_ns - c->key_ns >= KEY_INTERVAL_NS ? FRAME_TOTALS : FRAME_CHANGES;
}

static void spool_frame(struct courier *c, uint64_t time_ms, const uint8_t *data, size_t size)
{
	/* When the frame is gone only totals can make up for it. */
	if (dispatch_append(&c->dispatch, frame_encoder_next_id(c->encoder), time_ms, data, size) <
	    0) {
		c->needs_key = true;
		c->counts.events_dropped += c->event_count;
	}
}

static uint64_t tick_time_ms(const struct courier *c, uint64_t now_ns)
{
	const struct segment_header *h = host_header(c);

	/* The values are as of the keeper's tick. */
	if (h && h->tick_real_ns && now_ns >= h->tick_mono_ns &&
	    now_ns - h->tick_mono_ns < c->interval_ns)
		return h->tick_real_ns / NS_PER_MS;
	return clock_real_ns() / NS_PER_MS;
}

static void build_frame(struct courier *c, uint64_t now_ns)
{
	uint64_t sequence = spool_next_sequence(c->dispatch.spool),
		 time_ms = tick_time_ms(c, now_ns);
	enum frame_type type = frame_type_now(c, now_ns);
	const uint8_t *data;
	uint32_t samples;
	size_t size;

	frame_encoder_begin(c->encoder, sequence, time_ms, (uint32_t)(c->interval_ns / NS_PER_MS),
			    type);
	if (courier_host_is_fresh(c, now_ns))
		encode_all(c, c->host);
	if (c->app)
		encode_all(c, c->app);
	for (unsigned int i = 0; i < c->event_count; i++) {
		const struct frame_event event = {
			.id = sequence << 8 | i, /* as sequences, never given twice */
			.time_ms = c->events[i].time_ms,
			.kind = c->events[i].kind,
			.gateway = c->events[i].gateway,
			.json = c->events[i].json,
		};

		if (frame_encoder_event(c->encoder, &event) < 0)
			c->counts.events_dropped++;
	}
	frame_encoder_drop_events(c->encoder, c->events_refused);
	if (frame_encoder_finish(c->encoder, &data, &size, &samples) < 0) {
		log_error("courier", "no memory for a frame", "sequence=%" PRIu64, sequence);
		return; /* its increments are in the next */
	}
	if (type != FRAME_CHANGES) {
		c->key_ns = now_ns;
		c->needs_key = false;
	}
	spool_frame(c, time_ms, data, size);
	c->counts.frames_built++;
	c->counts.frame_bytes += size;
	c->counts.frame_samples += samples;
	courier_publish(c, time_ms, sequence << 8);
	events_clear(c);
}

/* A new host.seg counts from 0. Its totals belong to another incarnation: the courier after us
 * begins it, and an app.seg that counts from 0 as well. What we hold of events goes out first. */
static bool host_is_another(struct courier *c)
{
	const struct segment_header *h = host_header(c);

	if (!h || spool_set_life(c->dispatch.spool, h->life) == 0)
		return false;
	c->host = segment_reader_close(c->host);
	return true;
}

static void tick(struct courier *c)
{
	uint64_t now = clock_mono_ns();
	bool is_over;

	courier_app_collect(c, now);
	courier_series_write(c, now, clock_real_ns());
	refresh(c);
	is_over = host_is_another(c);
	build_frame(c, now);
	if (is_over) {
		log_info("courier", "host.seg is another one, a new incarnation begins", "%s", "");
		loop_stop(c->loop);
	}
	if (dispatch_kick(&c->dispatch, now) && c->writer &&
	    segment_writer_keep(c->writer, NULL) > 0)
		log_warning("courier", "app.seg was removed, it is there again", "%s", "");
}

/* The keeper says when it has ticked, and that is our tick too; the timer is for when it is away. */
static void tick_schedule(struct courier *c)
{
	const struct segment_header *h = host_header(c);
	uint64_t wait;

	c->interval_ns = c->ctx->config->agent_tick;
	if (h && h->tick_interval_ns && h->tick_interval_ns < c->interval_ns)
		c->interval_ns = h->tick_interval_ns;
	if (c->interval_ns < LEAST_INTERVAL_NS)
		c->interval_ns = LEAST_INTERVAL_NS;
	wait = c->interval_ns;
	if (clock_mono_ns() - c->keeper_ns < KEEPER_SILENT_TICKS * c->interval_ns)
		wait += wait / 2;
	loop_set_timer(c->tick_timer, (wait + NS_PER_MS - 1) / NS_PER_MS, 0);
}

static void tick_soon(struct courier *c)
{
	if (!c->end_ns)
		loop_set_timer(c->tick_timer, 10, 0);
}

/* -------- the end -------- */

static void on_tick(void *data)
{
	struct courier *c = data;

	if (!c->end_ns) {
		tick(c);
		tick_schedule(c);
		return;
	}
	if (dispatch_is_done(&c->dispatch) || clock_mono_ns() >= c->end_ns)
		loop_stop(c->loop);
}

/* End of file: the last tick goes out, and for a while we wait until it has arrived. */
static void on_supervisor(void *data, int fd, unsigned int events)
{
	struct courier *c = data;

	(void)fd;
	(void)events;
	c->supervisor_watch = loop_remove(c->supervisor_watch);
	for (size_t i = 0; i < ARRAY_LEN(c->link_watches); i++)
		if (c->link_watches[i])
			on_link(c, c->ctx->links[i ? LINK_KEEPER_COURIER : LINK_STEWARD_COURIER],
				LOOP_READ);
	if (c->writer)
		segment_writer_keep(c->writer, NULL);
	tick(c);
	c->end_ns = clock_mono_ns() + END_NS;
	loop_set_timer(c->tick_timer, 1, 20);
}

/* -------- uplinks -------- */

static void on_need_key(void *data)
{
	struct courier *c = data;

	c->needs_key = true;
	tick_soon(c);
}

static void uplinks_open(struct courier *c)
{
	const struct config *config = c->ctx->config;
	const char *const all[][2] = {{"cluster", config->agent_cluster},
				      {"namespace", config->agent_namespace},
				      {"pod", config->agent_pod},
				      {"node", config->agent_node}};
	const char *labels[2 * ARRAY_LEN(all)];
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_LEN(all); i++) {
		if (!*all[i][1])
			continue;
		labels[2 * n] = all[i][0];
		labels[2 * n++ + 1] = all[i][1];
	}
	dispatch_connect(&c->dispatch, c->loop, config,
			 &(struct uplink_options){
				 .agent = config->agent_id, .labels = labels, .label_count = n});
}

/* -------- life -------- */

static int open_spool(struct courier *c)
{
	const struct config *config = c->ctx->config;
	const struct segment_header *h = host_header(c);
	const struct dispatch_options options = {
		.process = "courier",
		.config = config,
		.twin_dir = config->_runtime_dir,
		.life = h ? h->life : 0,
		.on_need_key = on_need_key,
		.data = c,
	};
	int r = dispatch_open(&c->dispatch, &options);

	if (r < 0)
		return r;
	r = frame_encoder_new(&c->encoder);
	if (r < 0)
		return r;
	return frame_encoder_continue(c->encoder, spool_first_id(c->dispatch.spool));
}

static int courier_open(struct courier *c)
{
	static const enum daemon_link links[] = {LINK_STEWARD_COURIER, LINK_KEEPER_COURIER};
	const struct config *config = c->ctx->config;
	int r;

	snprintf(c->host_path, sizeof(c->host_path), "%s/host.seg", config->_runtime_dir);
	snprintf(c->app_path, sizeof(c->app_path), "%s/app.seg", config->_runtime_dir);
	c->interval_ns = config->agent_tick;
	c->needs_key = true;
	r = loop_open(&c->loop);
	if (r < 0)
		return r;
	r = loop_add_fd(c->loop, c->ctx->supervisor_fd, LOOP_READ, on_supervisor, c,
			&c->supervisor_watch);
	for (size_t i = 0; !r && i < ARRAY_LEN(links); i++)
		if (c->ctx->links[links[i]] >= 0)
			r = loop_add_fd(c->loop, c->ctx->links[links[i]], LOOP_READ, on_link, c,
					&c->link_watches[i]);
	if (!r)
		r = loop_add_timer(c->loop, 1, 0, on_tick, c, &c->tick_timer);
	reader_refresh(&c->host, c->host_path);
	if (!r)
		r = open_spool(c);
	if (r < 0)
		return r;
	courier_series_open(c);
	courier_app_open(c);
	uplinks_open(c);
	courier_outlets_open(c);
	log_info("courier", "started", "incarnation=%s sequence=%" PRIu64 " aggregators=%u",
		 spool_is_continued(c->dispatch.spool) ? "continued" : "new",
		 spool_next_sequence(c->dispatch.spool), c->dispatch.uplink_count);
	return 0;
}

static void courier_close(struct courier *c)
{
	if (c->loop)
		courier_outlets_close(c);
	dispatch_close(&c->dispatch);
	frame_encoder_free(c->encoder);
	segment_reader_close(c->host);
	segment_reader_close(c->app);
	courier_app_close(c);
	segment_writer_close(c->writer);
	events_clear(c);
	loop_close(c->loop);
}

int courier_run(struct daemon_context *ctx)
{
	struct courier *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return EXIT_FAILED;
	c->ctx = ctx;
	r = courier_open(c);
	if (r < 0)
		log_error("courier", "cannot start", "error=\"%s\"", err_text(r));
	else
		loop_run(c->loop);
	courier_close(c);
	free(c);
	return r < 0 ? EXIT_FAILED : EXIT_DONE;
}
