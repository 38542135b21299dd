/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The aggregator's core: takes requests from the gate, applies and commits them, replies and
 * publishes after the commit, and answers HTTP. Owns fleet, commit log and publisher. One thread.
 */
#include "cmd/core.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "bus/subject.h"
#include "cmd/daemon.h"
#include "cmd/door_page.h"
#include "fleet/snapshot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define REFUSED_SAY_NS   (10 * NS_PER_S)
#define SERIES_PER_AGENT 65536u
#define COMMIT_BYTES     (4u << 20) /* so much does not wait for the timer */
#define RETRY_MS         1000
#define ROOM_BYTES       (64u << 10)
#define SECOND_MS        1000
#define RENEW_MS         (3600ULL * 1000)
#define HELLOS_SAID      20 /* in a second, one by one; the rest as a number */
/* As long as an agent keeps its spool, and a little more: then nothing of it can come any more. */
#define DEPART_MS (49ULL * 3600 * 1000)

static uint64_t real_ms(void)
{
	return clock_real_ns() / NS_PER_MS;
}

static void event_keep(struct core *c, const char *agent, const struct frame_event *event)
{
	struct core_event *e = &c->events[c->event_count++ % CORE_EVENTS];
	size_t kind = strlen(event->kind) + 1, gateway = strlen(event->gateway) + 1,
	       json = strlen(event->json) + 1, name = strlen(agent) + 1;
	char *text = malloc(kind + gateway + json + name);

	free(e->text);
	*e = (struct core_event){.id = event->id, .time_ms = event->time_ms, .text = text};
	if (!text)
		return;
	e->kind = memcpy(text, event->kind, kind);
	e->gateway = memcpy(text + kind, event->gateway, gateway);
	e->json = memcpy(text + kind + gateway, event->json, json);
	e->agent = memcpy(text + kind + gateway + json, agent, name);
}

/* -------- publishing: after the commit -------- */

static void publish(struct core *c, const char *topic, const Tidegate__BusBody *body)
{
	const uint8_t *message;
	size_t size;

	if (publisher_message(c->publisher, topic, body, &message, &size) >= 0)
		gatelink_publish(c->gate, message, size);
}

static int on_series(void *data, const struct merge_series *series)
{
	struct core *c = data;

	/* What has no memory now comes with its next value: messages carry totals. */
	shelf_add(c->shelf, series);
	return 0;
}

/* The series of one gateway: a message of its topic. */
static void on_shelf(void *data, const char *gateway, Tidegate__BusBody *body)
{
	struct core *c = data;
	char topic[SUBJECT_MAX + 1];

	if (subject_metrics(gateway, c->publishing, topic) >= 0)
		publish(c, topic, body);
}

static void publish_events(struct core *c, const char *agent, const struct frame *f)
{
	char topic[SUBJECT_MAX + 1];

	for (size_t i = 0; i < f->event_count; i++) {
		const struct frame_event *event = &f->events[i];
		Tidegate__Event out, *list[1] = {&out};
		Tidegate__BusBody body;

		event_keep(c, agent, event);
		tidegate__event__init(&out);
		tidegate__bus_body__init(&body);
		out.id = event->id;
		out.time_ms = event->time_ms;
		/* protobuf-c's strings are not const; packing only reads them. */
		out.kind = (char *)(uintptr_t)event->kind;
		out.gateway = (char *)(uintptr_t)event->gateway;
		out.json = (char *)(uintptr_t)event->json;
		body.time_ms = event->time_ms;
		body.n_events = 1;
		body.events = list;
		out.agent = (char *)(uintptr_t)agent;
		if (subject_events(event->kind, topic) >= 0)
			publish(c, topic, &body);
	}
}

static void on_unheard(void *data, const char *gateway)
{
	struct core *c = data;
	char topic[SUBJECT_MAX + 1];

	if (subject_metrics(gateway, c->publishing, topic) >= 0)
		publisher_skip(c->publisher, topic);
}

static bool has_subscribers(const struct core *c)
{
	return !c->door || __atomic_load_n(&c->door->subscribers, __ATOMIC_RELAXED);
}

static void publish_frame(struct core *c, uint32_t session, const struct frame *f)
{
	const char *agent = fleet_session_agent(c->fleet, session);

	if (!agent)
		return;
	c->publishing = agent;
	if (has_subscribers(c)) {
		shelf_begin(c->shelf, f->time_ms);
		merge_frame(c->fleet, session, f, on_series, c);
		shelf_end(c->shelf);
	} else {
		merge_frame_gateways(c->fleet, session, f, on_unheard, c);
	}
	publish_events(c, agent, f);
}

static void on_applied(void *data, uint32_t session, struct frame *frame)
{
	struct core *c = data;
	struct core_applied *applied;

	if (!c->is_ready) { /* from the log: was published in a former life */
		for (size_t i = 0; i < frame->event_count; i++)
			event_keep(c, fleet_session_agent(c->fleet, session), &frame->events[i]);
		frame_free(frame);
		return;
	}
	applied = malloc(sizeof(*applied));
	if (!applied) { /* costs a message on the bus, which subscribers get with the next value */
		frame_free(frame);
		return;
	}
	*applied = (struct core_applied){.session = session, .frame = frame};
	*c->applied_end = applied;
	c->applied_end = &applied->next;
}

static void on_hello(void *data, const char *agent, uint64_t now_ms)
{
	struct core *c = data;
	char topic[SUBJECT_MAX + 1], kind[] = "agent.hello", none[] = "";
	Tidegate__Event event, *list[1] = {&event};
	Tidegate__BusBody body;
	char json[] = "{}";

	if (c->hellos++ < HELLOS_SAID)
		log_info("core", "an agent says hello", "agent=\"%s\"", agent);
	tidegate__event__init(&event);
	tidegate__bus_body__init(&body);
	event.time_ms = body.time_ms = now_ms;
	event.kind = kind;
	event.gateway = none;
	event.json = json;
	event.agent = (char *)(uintptr_t)agent;
	body.n_events = 1;
	body.events = list;
	if (subject_events(kind, topic) >= 0)
		publish(c, topic, &body);
}

/* -------- commit -------- */

static void answers_send(struct core *c)
{
	struct core_reply *reply;
	struct core_applied *applied;

	while ((reply = c->replies)) {
		c->replies = reply->next;
		gatelink_reply(c->gate, &reply->handle, reply->data, reply->size);
		free(reply->data);
		free(reply);
	}
	c->replies_end = &c->replies;
	while ((applied = c->applied)) {
		c->applied = applied->next;
		publish_frame(c, applied->session, applied->frame);
		frame_free(applied->frame);
		free(applied);
	}
	c->applied_end = &c->applied;
}

int core_commit(struct core *c)
{
	struct err e = {0};
	int r = commitlog_commit(c->log, &e);

	if (r < 0) {
		if (!c->is_stuck)
			log_error("core", "commit failed, trying again each second", "why=\"%s\"",
				  e.text);
		c->is_stuck = true;
		gatelink_pause(c->gate, true);
		loop_set_timer(c->commit_timer, RETRY_MS, 0);
		core_asks_serve(c);
		return r;
	}
	if (c->is_stuck) {
		log_info("core", "commits succeed again", "failures=%lu",
			 (unsigned long)commitlog_stats(c->log)->failures);
		c->is_stuck = false;
		gatelink_pause(c->gate, false);
	}
	answers_send(c);
	core_asks_serve(c);
	if (commitlog_stats(c->log)->bytes >= c->config->fleet_log_bytes)
		core_fold_begin(c);
	return 0;
}

static void on_commit_timer(void *data)
{
	struct core *c = data;

	c->is_waiting = false;
	core_commit(c);
}

static void reply_later(struct core *c, const struct gatelink_handle *handle, uint8_t *data,
			size_t size)
{
	struct core_reply *reply = malloc(sizeof(*reply));

	if (!reply) {
		free(data); /* no answer: the agent asks again */
		return;
	}
	*reply = (struct core_reply){.handle = *handle, .data = data, .size = size};
	*c->replies_end = reply;
	c->replies_end = &reply->next;
}

/* Said once when it begins and once when it is over. */
static void room_watch(struct core *c)
{
	int r = c->uplink.no_room;

	if (!!r == c->is_full)
		return;
	c->is_full = r < 0;
	if (r < 0)
		log_error("core", "no disk space for the log, nothing is acknowledged",
			  "data=%s why=\"%s\"", c->config->fleet_data_dir, err_text(r));
	else
		log_info("core", "there is disk space again", "data=%s", c->config->fleet_data_dir);
}

static void on_uplink(struct core *c, const struct gatelink_handle *handle, const uint8_t *payload,
		      size_t size)
{
	uint8_t *reply;
	size_t reply_size;
	int r = uplink_handle(&c->uplink, payload, size, real_ms(), &reply, &reply_size);

	if (r == -EIO) {
		log_error("core", "memory and log disagree, beginning anew from the log",
			  "why=\"no memory\"");
		c->exit_code = EXIT_FAILED;
		loop_stop(c->loop);
		return;
	}
	room_watch(c);
	if (r < 0)
		return;
	reply_later(c, handle, reply, reply_size);
	if (c->is_stuck)
		return;
	if (!commitlog_pending(c->log) || commitlog_pending(c->log) >= COMMIT_BYTES) {
		core_commit(c);
	} else if (!c->is_waiting) {
		c->is_waiting = true;
		loop_set_timer(c->commit_timer, c->config->fleet_commit / NS_PER_MS, 0);
	}
}

static bool may_speak(void *data, const char *agent, bool is_sum)
{
	struct core *c = data;
	uint64_t suppressed;
	char shown[128];

	if (is_sum ? passport_allows_sums(c->from, agent) : passport_allows(c->from, agent))
		return true;
	if (log_allowed(&c->foreign_said, clock_mono_ns(), &suppressed)) {
		str_clean(shown, sizeof(shown), agent);
		log_warning("core",
			    is_sum ? "a client speaks as an aggregator that its certificate does "
				     "not name as one"
				   : "a client speaks for an agent that its certificate does not "
				     "name",
			    "peer=%s agent=\"%s\" certificate=\"%s\" others=%lu", c->from->peer,
			    shown, c->from->size ? c->from->names : "", (unsigned long)suppressed);
	}
	return false;
}

static void on_refused(void *data, enum uplink_refusal what, const char *agent, const char *why)
{
	static const char *const names[UPLINK_REFUSALS] = {"request", "hello", "frame"};
	struct core *c = data;
	char shown[128], said[256];
	uint64_t suppressed;

	if (!log_allowed(&c->refused_said[what], clock_mono_ns(), &suppressed))
		return;
	str_clean(shown, sizeof(shown), agent);
	str_clean(said, sizeof(said), why);
	log_warning("core", "refused", "what=%s peer=%s agent=\"%s\" why=\"%s\" others=%lu",
		    names[what], *c->from->peer ? c->from->peer : "ipc", shown, said,
		    (unsigned long)suppressed);
}

void core_request(void *data, const struct gatelink_handle *handle, const struct passport *from,
		  const uint8_t *payload, size_t size)
{
	struct core *c = data;

	c->from = from;
	if (handle->channel == GATELINK_UPLINK)
		on_uplink(c, handle, payload, size);
	else
		core_asks_add(c, handle, payload, size);
}

/* Agents come and go, names of pods most of all, and their topics stay: when there is no room for new
 * ones all begin anew, which subscribers follow. No more than once an hour, where so many are alive. */
static void topics_watch(struct core *c, uint64_t now_ms)
{
	uint64_t refused = publisher_refused(c->publisher);

	if (refused == c->topics_refused ||
	    (c->renewed_ms && now_ms - c->renewed_ms < RENEW_MS && now_ms > c->renewed_ms))
		return;
	c->topics_refused = refused;
	c->renewed_ms = now_ms;
	publisher_renew(c->publisher, publisher_epoch());
	log_warning("core", "too many topics, the bus begins anew", "refused=%lu",
		    (unsigned long)refused);
}

static void on_second(void *data)
{
	struct core *c = data;
	const uint8_t *message;
	uint64_t now = real_ms();
	size_t size;

	core_history_second(c);
	if (c->hellos > HELLOS_SAID)
		log_info("core", "more agents say hello", "agents=%u", c->hellos - HELLOS_SAID);
	c->hellos = 0;
	topics_watch(c, now);
	core_signal_publish(c, now); /* before the beacon that lists it */
	/* The next one, with somebody to hear it, lists what changed until then. */
	if (has_subscribers(c) && publisher_beacon(c->publisher, now, &message, &size) >= 0)
		gatelink_publish(c->gate, message, size);
	if (now - c->departed_ms > 60 * 1000 || now < c->departed_ms) {
		c->departed_ms = now;
		fleet_depart(c->fleet, now, DEPART_MS);
	}
	/* Agents that were refused wait long before they try again: find out before them. */
	if (c->is_full && commitlog_reserve(c->log, ROOM_BYTES) >= 0) {
		c->uplink.no_room = 0;
		room_watch(c);
	}
}

static void on_supervisor(void *data, int fd, unsigned int events)
{
	struct core *c = data;

	(void)fd;
	(void)events;
	loop_stop(c->loop);
}

static int life_append(void *log, uint32_t type, const void *payload, size_t size)
{
	/* iovec's type is not const; it is only read */
	return commitlog_append(log, type, &(struct iovec){(void *)(uintptr_t)payload, size}, 1);
}

/* Upper aggregators tell states apart by it: one that has lost something is another one. */
static int life_begin(struct core *c, struct err *e)
{
	uint64_t life = 0;
	int r;

	if (fleet_life(c->fleet) && !commitlog_stats(c->log)->damaged_files)
		return 0;
	while (!life)
		if (getrandom(&life, sizeof(life), 0) != sizeof(life))
			life = 0;
	fleet_set_life(c->fleet, life);
	r = snapshot_save_life(c->fleet, life_append, c->log);
	return r < 0 ? err_set(e, r, "log: %s", err_text(r)) : 0;
}

static int log_open(struct core *c, struct err *e)
{
	uint64_t start = clock_mono_ns();
	const struct commitlog_stats *s;
	int r = commitlog_open(c->config->fleet_data_dir, core_replay, c, &c->log, e);

	if (r < 0)
		return r;
	c->uplink.log = c->log;
	r = life_begin(c, e);
	if (r < 0)
		return r;
	s = commitlog_stats(c->log);
	log_info("core", "log replayed", "records=%lu agents=%zu ms=%lu",
		 (unsigned long)s->replayed, merge_agent_count(c->fleet),
		 (unsigned long)((clock_mono_ns() - start) / NS_PER_MS));
	if (s->torn_bytes)
		log_warning("core", "log ended in the middle of a record, cut there", "bytes=%lu",
			    (unsigned long)s->torn_bytes);
	if (s->damaged_files) {
		log_error("core", "log is damaged; the bad parts are kept in *.bad",
			  "files=%lu bytes=%lu", (unsigned long)s->damaged_files,
			  (unsigned long)s->damaged_bytes);
		core_fold(c);
	}
	return 0;
}

static int core_open(struct core *c, struct daemon_context *ctx, struct err *e)
{
	const struct fleet_limits limits = {
		.agents = (uint32_t)(ctx->config->door_connections > UINT32_MAX / 8
					     ? UINT32_MAX / 2
					     : ctx->config->door_connections * 4),
		.agent_series = SERIES_PER_AGENT,
		.series = (uint32_t)(ctx->config->fleet_series > UINT32_MAX - 2
					     ? UINT32_MAX - 2
					     : ctx->config->fleet_series),
	};
	struct loop_watch *watch;
	char path[512];
	int r;

	c->config = ctx->config;
	c->door = ctx->door;
	c->replies_end = &c->replies;
	c->applied_end = &c->applied;
	c->foreign_said.interval_ns = REFUSED_SAY_NS;
	for (unsigned int i = 0; i < UPLINK_REFUSALS; i++)
		c->refused_said[i].interval_ns = REFUSED_SAY_NS;
	c->uplink = (struct uplink){.on_sealed = core_on_sealed,
				    .on_applied = on_applied,
				    .on_hello = on_hello,
				    .on_refused = on_refused,
				    .may_speak = may_speak,
				    .own_name = ctx->config->uplink_id,
				    .data = c};
	r = fleet_new(&limits, &c->fleet);
	c->uplink.fleet = c->fleet;
	if (r >= 0)
		r = uplink_init(&c->uplink);
	if (r >= 0)
		r = shelf_new(on_shelf, c, &c->shelf);
	if (r >= 0)
		r = publisher_new(publisher_epoch(), &c->publisher);
	if (r >= 0)
		r = loop_open(&c->loop);
	if (r < 0)
		return err_set(e, r, "core: %s", err_text(r));
	/* HTTP first, so that a port in use is said before a long replay. */
	if (*c->config->api_address) {
		r = core_http_open(c, e);
		if (r < 0)
			return r;
	}
	core_history_open(c);
	r = log_open(c, e);
	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "%s/private/core.sock", c->config->_runtime_dir);
	r = core_asks_open(c);
	if (r < 0)
		return err_set(e, r, "core: %s", err_text(r));
	r = gatelink_server_open(c->loop, path, core_request, c, &c->gate, e);
	if (r < 0)
		return r;
	r = core_ferry_open(c, e);
	if (r < 0)
		return r;
	c->is_ready = true;
	r = loop_add_fd(c->loop, ctx->supervisor_fd, LOOP_READ, on_supervisor, c, &watch);
	if (r >= 0)
		r = loop_add_timer(c->loop, SECOND_MS, SECOND_MS, on_second, c, &watch);
	if (r >= 0)
		r = loop_add_timer(c->loop, SECOND_MS, 0, on_commit_timer, c, &c->commit_timer);
	return r < 0 ? err_set(e, r, "event loop: %s", err_text(r)) : 0;
}

static void core_close(struct core *c)
{
	if (c->gate && core_commit(c) >= 0 && commitlog_stats(c->log)->bytes)
		core_fold(c);
	http_server_close(c->http);
	core_ferry_close(c);
	core_asks_close(c);
	core_history_close(c);
	gatelink_server_close(c->gate);
	commitlog_close(c->log);
	while (c->replies) {
		struct core_reply *reply = c->replies;

		c->replies = reply->next;
		free(reply->data);
		free(reply);
	}
	while (c->applied) {
		struct core_applied *applied = c->applied;

		c->applied = applied->next;
		frame_free(applied->frame);
		free(applied);
	}
	for (unsigned int i = 0; i < CORE_EVENTS; i++)
		free(c->events[i].text);
	publisher_free(c->publisher);
	shelf_free(c->shelf);
	uplink_fini(&c->uplink);
	fleet_free(c->fleet);
	loop_close(c->loop);
}

int core_run(struct daemon_context *ctx)
{
	struct core c = {.exit_code = EXIT_DONE};
	struct err e = {0};
	int r = core_open(&c, ctx, &e);

	if (r < 0) {
		log_error("core", "cannot begin", "why=\"%s\"", e.text);
		c.exit_code = EXIT_FAILED;
	} else {
		log_info("core", "ready", "api=%s data=%s", c.config->api_address,
			 c.config->fleet_data_dir);
		loop_run(c.loop);
	}
	core_close(&c);
	return c.exit_code;
}
