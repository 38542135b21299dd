/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper: finds gateways, keeps their probes, and writes host.seg once a tick. One thread.
 * Uid 0 with KEEPER_CAPS; reads nothing from any peer but the steward's packets.
 */
#include "cmd/keeper.h"

#include "base/clock.h"
#include "cmd/keeper_state.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SERIES_MOST      8192
#define HISTOGRAMS_MOST  1024
#define HEAP_BYTES       (1u << 20)
#define SCAN_NS          (2 * NS_PER_S)
#define SCAN_LISTEN_MS   50 /* after a process began to listen: its workers come a little later */
#define SCAN_LISTEN_NS   (500 * NS_PER_MS) /* at least between scans for that reason */
#define INTERVAL_KEPT_NS (3 * NS_PER_S)    /* the steward repeats itself every second */

void keeper_pin_dir(const struct config *config, char *buf, size_t size)
{
	char id[128];

	buf[0] = '\0';
	if (!config->probe_bpffs[0])
		return;
	str_copy(id, sizeof(id), config->agent_id);
	for (char *c = id; *c; c++)
		if (*c == '/' || *c == '.')
			*c = '_';
	snprintf(buf, size, "%s/tidegate/%s", config->probe_bpffs, id);
}

struct probe_options keeper_probe_options(const struct config *config, const char *pin_dir)
{
	return (struct probe_options){
		.tier = config->probe_tier,
		.threads = (unsigned int)config->probe_threads,
		.connections = (unsigned int)config->probe_connections,
		.upstreams = (unsigned int)config->probe_upstreams,
		.sample = (unsigned int)config->probe_sample,
		.cost_budget = config->probe_cost_budget,
		.gateways = (unsigned int)config->gateways_most,
		.want_gc = config->probe_gc,
		.want_tls = config->probe_tls,
		.gc_budget = config->probe_gc_budget,
		.pin_dir = pin_dir[0] ? pin_dir : NULL,
		.slow_request_ns = config->probe_slow_request,
		.is_slow_query_wanted = config->probe_slow_request_query,
		.health_paths = &config->health_paths,
		.health_user_agents = &config->health_user_agents,
	};
}

/* ---- a tick ---- */

/* To 16 significant bits, more than is known of when a tick began: the others are noise that a frame
 * would carry, five bytes each time. */
static double rounded(double v)
{
	int exponent;
	double m = frexp(v, &exponent);

	return ldexp(rint(ldexp(m, 16)), exponent - 16);
}

static void write_gateway(struct keeper *k, unsigned int i, uint64_t now)
{
	struct segment_gateway *g = keeper_record(k, i);
	struct watched *w = &k->watched[i];
	struct probe_gc_now gc;
	struct probe_now state;
	struct keeper_values v = {
		.probes = k->probes,
		.cells = &k->cells,
		.now = &state,
		.gc = &gc,
		.has_syscalls = k->has_syscalls,
		.has_requests = k->has_requests && w->sight.state != PROBE_UNAVAILABLE,
		.is_quic_possible = w->sight.state == PROBE_DEGRADED,
		.has_loop = k->has_loop,
		.gc_runtime = w->gc_runtime,
		.is_draining = g->draining,
	};

	if (!k->probes)
		return;
	probe_totals(k->probes, i, now, &k->cells, &state);
	probe_gc_now(k->probes, i, &gc);
	if (w->integral_at_ns && now > w->integral_at_ns) {
		v.has_mean = true;
		v.in_flight_mean =
			rounded((double)(int64_t)(state.in_flight_integral_ns - w->integral_ns) /
				(double)(now - w->integral_at_ns));
		if (v.in_flight_mean < 0)
			v.in_flight_mean = 0;
	}
	w->integral_ns = state.in_flight_integral_ns;
	w->integral_at_ns = now;
	keeper_series_write(w->series, &v);
	g->workers = state.threads;
	g->requests_known = v.has_requests;
	g->accepts = k->cells.accepts;
	g->requests_started = k->cells.requests_started;
	g->requests_completed = k->cells.requests_completed;
	g->requests_health = k->cells.requests_health;
	g->requests_aborted = k->cells.requests_aborted;
	g->requests_lost = k->cells.requests_lost;
	g->in_flight = state.in_flight;
	g->connections_open = state.connections_open;
	g->last_request_mono_ns = state.last_request_ns;
	g->last_accept_mono_ns = state.last_accept_ns;
	str_copy(g->runtime, sizeof(g->runtime), w->gc_runtime);
	if (!w->is_live)
		keeper_series_gone(w->series);
}

static int agent_series(struct keeper *k, enum metric_id metric, const char *const (*labels)[2],
			size_t n)
{
	return segment_writer_series(k->segment, &metric_descs[metric], labels, n);
}

static void write_own(struct keeper *k)
{
	const struct probe_lost *lost = probe_lost(k->probes);
	struct probe_cost costs[32];
	size_t n;

	for (; lost && lost->reason; lost++) {
		const char *labels[1][2] = {{"reason", lost->reason}};
		int series = lost->count ? agent_series(k, METRIC_ID_PROBE_LOST,
							(const char *const(*)[2])labels, 1)
					 : -1;

		if (series >= 0)
			segment_writer_counter(k->segment, series, lost->count);
	}
	n = probe_costs(k->probes, costs, ARRAY_LEN(costs));
	for (size_t i = 0; i < n; i++) {
		const char *labels[1][2] = {{"probe", costs[i].program}};
		int series;

		if (!costs[i].runs)
			continue;
		series = agent_series(k, METRIC_ID_PROBE_SECONDS, (const char *const(*)[2])labels,
				      1);
		if (series >= 0)
			segment_writer_counter(k->segment, series, costs[i].run_ns);
		series =
			agent_series(k, METRIC_ID_PROBE_EVENTS, (const char *const(*)[2])labels, 1);
		if (series >= 0)
			segment_writer_counter(k->segment, series, costs[i].runs);
	}
	if (k->gap_series >= 0)
		segment_writer_counter(k->segment, k->gap_series, k->gap_ns);
	if (k->bias_series >= 0)
		segment_writer_gauge(k->segment, k->bias_series,
				     (double)probe_gc_bias_ns(k->probes) / 1e9);
	if (k->sample_series >= 0)
		segment_writer_gauge(k->segment, k->sample_series, (double)probe_sample(k->probes));
}

/* A host.seg that somebody removed comes back as it was: nothing is lost, nothing begins anew. */
static void keep_segment(struct keeper *k)
{
	struct err e = {0};
	uint64_t swallowed;
	int r = segment_writer_keep(k->segment, &e);

	if (r > 0)
		log_warning("keeper", "host.seg was removed, it is there again", "%s", "");
	else if (r < 0 && log_allowed(&k->segment_limit, clock_mono_ns(), &swallowed))
		log_error("keeper", "host.seg was removed and cannot be put back", "why=\"%s\"",
			  e.text);
}

/* What the keeper before us left pinned went on counting until its heartbeat was too old; what was
 * not pinned ended with it, and nobody knows what came after its last tick. */
static void gap_begin(struct keeper *k, bool is_adopted)
{
	uint64_t ticked = segment_writer_header(k->segment)->tick_mono_ns;

	if (!k->probes || !ticked)
		return;
	k->gap_from_ns = is_adopted ? ticked + HEARTBEAT_LIMIT_NS : ticked;
}

/* Gateways are watched again. */
static void gap_end(struct keeper *k)
{
	uint64_t now = clock_mono_ns();

	if (k->gap_from_ns && now > k->gap_from_ns)
		k->gap_ns = now - k->gap_from_ns;
	k->gap_from_ns = 0;
	if (k->gap_ns && k->gap_series < 0) {
		k->gap_series = agent_series(k, METRIC_ID_PROBE_GAP, NULL, 0);
		log_warning("keeper", "nothing was counted for a while", "seconds=%.3f",
			    (double)k->gap_ns / 1e9);
	}
}

static void on_gc_timer(void *data)
{
	struct keeper *k = data;
	uint64_t again_ns = k->probes ? probe_gc_tick(k->probes, clock_mono_ns()) : 0;

	if (k->gc_timer && again_ns && again_ns < k->interval_ns)
		loop_set_timer(k->gc_timer, again_ns / NS_PER_MS, 0);
}

static void scan(struct keeper *k, const char *reason)
{
	keep_segment(k);
	k->scan_reason = reason;
	keeper_scan(k);
	gap_end(k);
}

/* Not in the middle of a start, and not all the time. */
static void on_notice(void *data, int fd, unsigned int events)
{
	struct keeper *k = data;
	uint64_t since = clock_mono_ns() - k->scanned_ns, wait_ms = SCAN_LISTEN_MS;

	(void)fd;
	(void)events;
	if (!probe_notices(k->probes))
		return;
	if (since < SCAN_LISTEN_NS && wait_ms < (SCAN_LISTEN_NS - since) / NS_PER_MS)
		wait_ms = (SCAN_LISTEN_NS - since) / NS_PER_MS;
	k->is_scan_wanted = true;
	loop_set_timer(k->scan_timer, wait_ms, 0);
}

static void on_scan_timer(void *data)
{
	struct keeper *k = data;

	if (k->is_scan_wanted) {
		gateways_look_again(k->gateways);
		scan(k, "listen");
	}
	k->is_scan_wanted = false;
}

static void on_seed_timer(void *data)
{
	keeper_seed(data);
}

static void tick(struct keeper *k)
{
	static const char said[] = "{\"type\":\"tick\"}";
	unsigned int count;
	uint64_t now;

	if (k->probes)
		probe_heartbeat(k->probes, clock_mono_ns());
	if (clock_mono_ns() - k->scanned_ns >= SCAN_NS)
		scan(k, k->scanned_ns ? "interval" : "start");
	keeper_systems_read(k->systems, clock_mono_ns());
	now = clock_mono_ns();
	if (k->probes) {
		probe_fold(k->probes, now);
		probe_sample_tick(k->probes, now);
	}
	on_gc_timer(k);
	count = segment_writer_header(k->segment)->gateways_count;
	segment_writer_tick_begin(k->segment);
	for (unsigned int i = 0; i < count; i++)
		if (k->watched[i].series)
			write_gateway(k, i, now);
	if (k->probes && k->has_requests)
		keeper_upstreams_write(k->upstreams, k->probes);
	keeper_systems_write(k->systems);
	if (k->probes)
		write_own(k);
	segment_writer_tick_end(k->segment, now, clock_real_ns(), k->interval_ns);
	if (k->probes)
		keeper_events(k);
	daemon_link_send(k->ctx->links[LINK_KEEPER_COURIER], said, sizeof(said) - 1);
}

static void set_interval(struct keeper *k, uint64_t interval_ns)
{
	if (interval_ns == k->interval_ns)
		return;
	k->interval_ns = interval_ns;
	loop_set_timer(k->timer, interval_ns / NS_PER_MS, interval_ns / NS_PER_MS);
}

static void on_timer(void *data)
{
	struct keeper *k = data;

	/* A steward that died in the middle of a drain must not leave us ticking fast for ever. */
	if (k->interval_until_ns && clock_mono_ns() > k->interval_until_ns) {
		k->interval_until_ns = 0;
		set_interval(k, k->ctx->config->agent_tick);
	}
	tick(k);
}

/* ---- packets ---- */

static void on_draining(struct keeper *k, const json_t *packet)
{
	const char *instance = json_string_value(json_object_get(packet, "instance"));
	uint32_t is_on = json_is_true(json_object_get(packet, "on"));
	unsigned int count = segment_writer_header(k->segment)->gateways_count;

	for (unsigned int i = 0; instance && i < count; i++) {
		struct segment_gateway *g = keeper_record(k, i);

		if (!str_equal(g->instance, instance) || g->draining == is_on)
			continue;
		log_info("keeper", is_on ? "draining" : "no longer draining",
			 "gateway=%s instance=%s", g->name, g->instance);
		__atomic_store_n(&g->draining, is_on, __ATOMIC_RELEASE);
	}
}

/* Said every second while it lasts, so a new one is told by its id. The id comes first: whoever sees
 * the new end sees it too. */
static void on_profile(struct keeper *k, const json_t *packet)
{
	const char *instance = json_string_value(json_object_get(packet, "instance"));
	uint64_t id = (uint64_t)json_integer_value(json_object_get(packet, "id"));
	uint64_t until = (uint64_t)json_integer_value(json_object_get(packet, "until_mono_ns"));
	unsigned int count = segment_writer_header(k->segment)->gateways_count;

	for (unsigned int i = 0; instance && i < count; i++) {
		struct segment_gateway *g = keeper_record(k, i);

		if (!str_equal(g->instance, instance) || g->profile_id == id ||
		    g->state != SEGMENT_GATEWAY_LIVE)
			continue;
		log_info("keeper", "a profile is wanted", "gateway=%s instance=%s id=%016llx",
			 g->name, g->instance, (unsigned long long)id);
		__atomic_store_n(&g->profile_id, id, __ATOMIC_RELEASE);
		__atomic_store_n(&g->profile_until_mono_ns, until, __ATOMIC_RELEASE);
	}
}

static void on_interval(struct keeper *k, const json_t *packet)
{
	json_int_t ms = json_integer_value(json_object_get(packet, "ms"));

	if (ms <= 0) {
		k->interval_until_ns = 0;
		set_interval(k, k->ctx->config->agent_tick);
		return;
	}
	if (ms < 20)
		ms = 20;
	k->interval_until_ns = clock_mono_ns() + INTERVAL_KEPT_NS;
	if ((uint64_t)ms * NS_PER_MS < k->ctx->config->agent_tick)
		set_interval(k, (uint64_t)ms * NS_PER_MS);
}

static void on_steward(void *data, int fd, unsigned int events)
{
	static char buf[DAEMON_LINK_BYTES + 1];
	struct keeper *k = data;
	int n;

	(void)events;
	while ((n = daemon_link_recv(fd, buf, sizeof(buf))) > 0) {
		json_t *packet = json_loadb(buf, (size_t)n, 0, NULL);
		const char *type = json_string_value(json_object_get(packet, "type"));

		if (type && str_equal(type, "draining"))
			on_draining(k, packet);
		else if (type && str_equal(type, "interval"))
			on_interval(k, packet);
		else if (type && str_equal(type, "profile"))
			on_profile(k, packet);
		json_decref(packet);
	}
}

/* ---- life ---- */

static void report_probes(struct keeper *k)
{
	size_t n;
	const struct probe_report *reports = probe_reports(k->probes, &n);

	for (size_t i = 0; i < n && i < ARRAY_LEN(k->state_series); i++) {
		const struct probe_report *p = &reports[i];
		const char *labels[2][2] = {{"probe", p->name}, {"how", p->how}};
		bool is_up = p->state != PROBE_UNAVAILABLE;

		if (is_up)
			log_info("keeper", "probe", "name=%s how=%s%s%s%s", p->name, p->how,
				 p->why[0] ? " why=\"" : "", p->why, p->why[0] ? "\"" : "");
		else
			log_warning("keeper", "probe unavailable", "name=%s why=\"%s\"", p->name,
				    p->why);
		if (str_equal(p->name, "syscalls"))
			k->has_syscalls = is_up;
		else if (str_equal(p->name, "requests"))
			k->has_requests = is_up;
		else if (str_equal(p->name, "loop"))
			k->has_loop = is_up;
		k->state_series[i] =
			agent_series(k, METRIC_ID_PROBE_STATE, (const char *const(*)[2])labels, 2);
		if (k->state_series[i] >= 0)
			segment_writer_gauge(k->segment, k->state_series[i],
					     p->state == PROBE_OK ? 1
					     : is_up              ? 0.5
								  : 0);
	}
}

static void own_series(struct keeper *k)
{
	static const char *const gc[1][2] = {{"probe", "gc"}}, *const sys[1][2] = {
								       {"probe", "syscalls"}};

	k->bias_series = k->probes && k->ctx->config->probe_gc
				 ? agent_series(k, METRIC_ID_PROBE_BIAS, gc, 1)
				 : -1;
	k->sample_series = k->has_syscalls ? agent_series(k, METRIC_ID_PROBE_SAMPLE, sys, 1) : -1;
}

static int keeper_open(struct keeper *k, struct err *e)
{
	const struct config *config = k->ctx->config;
	char path[512], pin_dir[512];
	struct segment_options segment = {
		.path = path,
		.kind = SEGMENT_HOST,
		.group = geteuid() == 0 ? k->ctx->group_app : (gid_t)-1,
		.series = SERIES_MOST,
		.histograms = HISTOGRAMS_MOST,
		.heap_bytes = HEAP_BYTES,
	};
	struct probe_options options;
	uint64_t maps_id;
	bool is_continued, is_adopted;
	int r;

	snprintf(path, sizeof(path), "%s/host.seg", config->_runtime_dir);
	r = segment_writer_open(&segment, &k->segment, &is_continued, e);
	if (r < 0)
		return r;
	r = keeper_systems_new(k->segment,
			       is_continued ? segment_writer_header(k->segment)->tick_mono_ns : 0,
			       &k->systems);
	if (r < 0)
		return err_set(e, r, "out of memory");
	maps_id = is_continued ? segment_writer_header(k->segment)->maps_id : 0;
	keeper_pin_dir(config, pin_dir, sizeof(pin_dir));
	options = keeper_probe_options(config, pin_dir);
	/* Without any probe gateways are still found, and drained by what /proc tells. */
	if (probe_open(&options, maps_id, &k->probes, e) < 0) {
		log_error("keeper", "no probe works, requests and latencies are unavailable",
			  "why=\"%s\"", e->text);
		err_clear(e);
		k->probes = NULL;
	}
	is_adopted = k->probes && probe_is_adopted(k->probes);
	r = keeper_upstreams_new(k->segment, options.upstreams + options.gateways, &k->upstreams);
	if (r < 0)
		return err_set(e, r, "out of memory");
	if (k->probes && !is_adopted)
		segment_writer_rebase(k->segment, probe_maps_id(k->probes));
	if (is_continued)
		gap_begin(k, is_adopted);
	log_info("keeper", is_continued ? "host.seg continued" : "host.seg is new",
		 "path=%s maps=\"%s\" why=\"%s\"", path,
		 is_adopted  ? "adopted"
		 : k->probes ? "new"
			     : "none",
		 segment_writer_reason(k->segment));
	segment_writer_tick_begin(k->segment);
	if (k->probes)
		report_probes(k);
	own_series(k);
	segment_writer_tick_end(k->segment, clock_mono_ns(), clock_real_ns(), k->interval_ns);
	return gateways_open(&config->gateways_match, &k->gateways, e);
}

/* Instances of the keeper before us: their series go on, also of those that are gone. */
static void restore_gateways(struct keeper *k)
{
	unsigned int count = segment_writer_header(k->segment)->gateways_count;

	for (unsigned int i = 0; i < count; i++) {
		const struct segment_gateway *g = keeper_record(k, i);

		if (keeper_series_new(k->segment, g->name, g->instance, &k->watched[i].series) < 0)
			continue;
		str_copy(k->watched[i].gc_runtime, sizeof(k->watched[i].gc_runtime), g->runtime);
	}
}

static void on_supervisor(void *data, int fd, unsigned int events)
{
	struct keeper *k = data;

	(void)fd;
	(void)events;
	keep_segment(k);
	tick(k);
	loop_stop(k->loop);
}

static void keeper_close(struct keeper *k)
{
	for (unsigned int i = 0; i < SEGMENT_GATEWAYS; i++)
		keeper_series_free(k->watched[i].series);
	gateways_close(k->gateways);
	seeds_free(k->seeds);
	keeper_upstreams_free(k->upstreams);
	keeper_systems_free(k->systems);
	probe_close(k->probes);
	segment_writer_close(k->segment);
	loop_close(k->loop);
	free(k->found);
	free(k);
}

int keeper_run(struct daemon_context *ctx)
{
	struct keeper *k = calloc(1, sizeof(*k));
	struct loop_watch *watch;
	struct err e = {0};
	int r = -ENOMEM;

	if (!k)
		return EXIT_FAILED;
	k->ctx = ctx;
	k->gap_series = -1;
	k->interval_ns = ctx->config->agent_tick;
	k->refused_limit.interval_ns = 600 * NS_PER_S;
	k->segment_limit.interval_ns = 60 * NS_PER_S;
	k->seeds_limit.interval_ns = 60 * NS_PER_S;
	k->found = calloc(ctx->config->gateways_most, sizeof(k->found[0]));
	if (k->found && seeds_new(&k->seeds) >= 0)
		r = keeper_open(k, &e);
	if (r >= 0) {
		restore_gateways(k);
		r = loop_open(&k->loop);
	}
	if (r >= 0)
		r = loop_add_fd(k->loop, ctx->supervisor_fd, LOOP_READ, on_supervisor, k, &watch);
	if (r >= 0 && ctx->links[LINK_STEWARD_KEEPER] >= 0)
		r = loop_add_fd(k->loop, ctx->links[LINK_STEWARD_KEEPER], LOOP_READ, on_steward, k,
				&watch);
	if (r >= 0)
		r = loop_add_timer(k->loop, 0, k->interval_ns / NS_PER_MS, on_timer, k, &k->timer);
	if (r >= 0)
		r = loop_add_timer(k->loop, 0, 0, on_gc_timer, k, &k->gc_timer);
	if (r >= 0)
		r = loop_add_timer(k->loop, 0, 0, on_scan_timer, k, &k->scan_timer);
	if (r >= 0)
		r = loop_add_timer(k->loop, 0, 0, on_seed_timer, k, &k->seed_timer);
	if (r >= 0 && k->probes)
		r = loop_add_fd(k->loop, probe_notice_fd(k->probes), LOOP_READ, on_notice, k,
				&watch);
	if (r < 0) {
		log_error("keeper", "cannot begin", "why=\"%s\"", e.text[0] ? e.text : err_text(r));
		keeper_close(k);
		return EXIT_FAILED;
	}
	loop_run(k->loop);
	keeper_close(k);
	return EXIT_DONE;
}
