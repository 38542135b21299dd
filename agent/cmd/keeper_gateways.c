/* SPDX-License-Identifier: Apache-2.0 */
/* Gateways come and go: which record of host.seg and which probes each instance has. Keeper. */
#include "cmd/keeper_state.h"

#include "base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define SIGHT_NS          (30 * NS_PER_S)
#define UNWATCHED_SAID_NS (600 * NS_PER_S)
#define SEED_NS           (20 * NS_PER_MS)
#define SEED_AGAIN_MS     10

struct segment_gateway *keeper_record(struct keeper *k, unsigned int i)
{
	return segment_writer_gateway_at(k->segment, i);
}

/* The record of a master that is there already, else a departed one of the same name (its counters
 * go on), else a new one. */
static int find_record(struct keeper *k, const struct gateway_found *f)
{
	unsigned int count = segment_writer_header(k->segment)->gateways_count;
	char instance[SEGMENT_NAME_BYTES];

	for (unsigned int i = 0; i < count; i++) {
		const struct segment_gateway *g = keeper_record(k, i);

		if (g->state == SEGMENT_GATEWAY_LIVE && g->master_pid == (uint32_t)f->master &&
		    g->master_start == f->master_start)
			return (int)i;
	}
	for (unsigned int i = 0; i < count; i++) {
		const struct segment_gateway *g = keeper_record(k, i);

		if (g->state == SEGMENT_GATEWAY_GONE && str_equal(g->name, f->name))
			return (int)i;
	}
	snprintf(instance, sizeof(instance), "%.50s/%u", k->ctx->config->agent_id, count + 1);
	return segment_writer_gateway(k->segment, f->name, instance);
}

struct adoption {
	struct keeper *k;
	unsigned int gateway;
	pid_t pid;
	enum slot_role role;
	int failed; /* of the last thread that is not watched */
	unsigned int unwatched;
};

static void adopt_thread(void *data, pid_t tid)
{
	struct adoption *a = data;
	int r = probe_watch_thread(a->k->probes, a->gateway, (uint32_t)a->pid, (uint32_t)tid,
				   a->role);

	if (r < 0) {
		a->failed = r;
		a->unwatched++;
	}
}

static void seed_connection(void *data, pid_t pid, int fd)
{
	probe_seed_connection(data, (uint32_t)pid, fd);
}

/* Connections of before: the first processes at once, the rest between ticks. Counting goes on at the
 * next request line of each. */
void keeper_seed(struct keeper *k)
{
	if (seeds_step(k->seeds, SEED_NS, seed_connection, k->probes))
		loop_set_timer(k->seed_timer, SEED_AGAIN_MS, 0);
}

struct beyond {
	struct probe_set *probes;
	unsigned int count;
};

/* Forked while we watched, it is watched all the same. */
static void count_beyond(void *data, pid_t pid)
{
	struct beyond *b = data;

	b->count += !probe_has_process(b->probes, (uint32_t)pid);
}

static void say_gc(const struct gateway_found *f, const struct probe_gc_report *gc)
{
	if (gc->state != PROBE_UNAVAILABLE)
		log_info("keeper", "garbage collector found",
			 "gateway=%s runtime=%s how=%s attach=%s confidence=%.2f reason=\"%s\" "
			 "object=%s",
			 f->name, gc->runtime, gc->how, gc->attach, gc->confidence, gc->reason,
			 gc->object);
	else
		log_warning("keeper", "garbage collection is unavailable", "gateway=%s why=\"%s\"",
			    f->name, gc->why);
}

static void attach_gc(struct keeper *k, struct watched *w, unsigned int index,
		      const struct gateway_found *f)
{
	struct probe_gc_report gc = {0};
	pid_t pid = f->master;

	if (!k->ctx->config->probe_gc)
		return;
	for (unsigned int i = 0; i < f->process_count; i++)
		if (f->processes[i].role == ROLE_WORKER)
			pid = f->processes[i].pid;
	if (probe_gc_attach(k->probes, index, (uint32_t)pid, &gc) < 0 && !gc.why[0])
		str_copy(gc.why, sizeof(gc.why), "the probe could not be attached");
	if (gc.state != w->gc.state || !str_equal(gc.why, w->gc.why))
		say_gc(f, &gc);
	w->gc = gc;
	if (gc.state != PROBE_UNAVAILABLE)
		str_copy(w->gc_runtime, sizeof(w->gc_runtime), gc.runtime);
}

static void say_tls(const struct gateway_found *f, const struct probe_tls_report *tls)
{
	if (tls->state == PROBE_OK)
		log_info("keeper", "TLS library found", "gateway=%s library=%s how=%s object=%s",
			 f->name, tls->library, tls->how, tls->object);
	else
		log_info("keeper", "requests inside TLS are not seen",
			 "gateway=%s library=%s why=\"%s\"", f->name,
			 tls->library[0] ? tls->library : "-", tls->why);
}

static void attach_tls(struct keeper *k, struct watched *w, const struct gateway_found *f)
{
	struct probe_tls_report tls;

	if (!k->ctx->config->probe_tls)
		return;
	probe_tls_attach(k->probes, (uint32_t)f->master, &tls);
	if (tls.state != w->tls.state || !str_equal(tls.why, w->tls.why))
		say_tls(f, &tls);
	w->tls = tls;
}

/* Threads without a place stay so until others end: each is counted once, and it is said seldom. */
static void say_unwatched(struct keeper *k, struct watched *w, const struct gateway_found *f,
			  unsigned int unwatched, unsigned int beyond)
{
	uint64_t swallowed;

	if (unwatched > w->unwatched) {
		probe_refuse_threads(k->probes, unwatched - w->unwatched);
		w->unwatched_limit.interval_ns = UNWATCHED_SAID_NS;
		if (!log_allowed(&w->unwatched_limit, clock_mono_ns(), &swallowed))
			;
		else if (beyond)
			log_warning("keeper", "processes are not watched: too many of one gateway",
				    "gateway=%s processes=%u most=%u", f->name, beyond,
				    GATEWAY_PROCESSES);
		else
			log_warning("keeper", "threads are not watched: no place for them",
				    "gateway=%s threads=%u raise=probe.threads", f->name,
				    unwatched);
	}
	w->unwatched = unwatched;
}

static void add_seed(struct keeper *k, unsigned int index, const struct gateway_found *f, pid_t pid)
{
	uint64_t swallowed;
	int r = seeds_add(k->seeds, pid, index, f);

	if (r < 0 && log_allowed(&k->seeds_limit, clock_mono_ns(), &swallowed))
		log_warning("keeper", "connections of before are not followed",
			    "gateway=%s pid=%d why=\"%s\"", f->name, (int)pid, err_text(r));
}

static void watch_processes(struct keeper *k, struct watched *w, unsigned int index,
			    const struct gateway_found *f)
{
	struct beyond beyond = {.probes = k->probes};
	unsigned int unwatched = 0;

	probe_set_master(k->probes, index, (uint32_t)f->master);
	for (unsigned int i = 0; i < f->port_count; i++)
		probe_set_listen_port(k->probes, f->ports[i], true);
	for (unsigned int i = 0; i < f->process_count; i++) {
		struct adoption a = {k, index, f->processes[i].pid, f->processes[i].role, 0, 0};
		bool is_known = probe_has_process(k->probes, (uint32_t)a.pid);

		gateways_each_thread(a.pid, adopt_thread, &a);
		if (a.failed == -ENOSPC)
			unwatched += a.unwatched;
		else if (a.failed && a.failed != -ESRCH)
			log_warning("keeper", "a thread cannot be watched",
				    "gateway=%s pid=%d why=\"%s\"", f->name, (int)a.pid,
				    err_text(a.failed));
		if (!is_known && probe_has_process(k->probes, (uint32_t)a.pid))
			add_seed(k, index, f, a.pid);
	}
	gateways_each_beyond(k->gateways, f->master, count_beyond, &beyond);
	say_unwatched(k, w, f, unwatched + beyond.count, beyond.count);
	if (!f->is_remembered) {
		attach_gc(k, w, index, f);
		attach_tls(k, w, f);
	}
}

/* User of the workers: whose segments of gateway scripts are believed. */
static uint32_t worker_uid(const struct gateway_found *f)
{
	char path[64], text[4096];
	const char *line;
	pid_t pid = f->master;
	unsigned int uid;

	for (unsigned int i = 0; i < f->process_count; i++)
		if (f->processes[i].role == ROLE_WORKER)
			pid = f->processes[i].pid;
	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	if (str_read_file(path, text, sizeof(text)) < 0)
		return SEGMENT_NO_UID;
	line = strstr(text, "\nUid:");
	/* real, effective, saved, file system: files are made by the effective one */
	return line && sscanf(line + 5, "%*u %u", &uid) == 1 ? uid : SEGMENT_NO_UID;
}

/* Rings and listeners come and go with processes, seldom otherwise. */
static void look_for_requests(struct watched *w, const struct gateway_found *f)
{
	uint64_t now = clock_mono_ns();
	struct sight sight;

	if (f->is_remembered && w->sight_ns && now - w->sight_ns < SIGHT_NS)
		return;
	sight_look(f, &sight);
	if (sight.state == PROBE_UNAVAILABLE && w->sight.state != sight.state)
		log_warning("keeper", "requests are unavailable", "gateway=%s why=\"%s\"", f->name,
			    sight.why);
	else if (sight.state == PROBE_DEGRADED && w->sight.state != sight.state)
		log_info("keeper", "some requests may not be seen", "gateway=%s why=\"%s\"",
			 f->name, sight.why);
	w->sight = sight;
	w->sight_ns = now;
}

static void watch_found(struct keeper *k, const struct gateway_found *f)
{
	int index = find_record(k, f);
	struct segment_gateway *g;
	struct watched *w;
	bool is_new;

	if (index < 0 || index >= (int)k->ctx->config->gateways_most)
		return;
	g = keeper_record(k, (unsigned int)index);
	w = &k->watched[index];
	is_new = !w->is_live;
	if (is_new) {
		if (!w->series &&
		    keeper_series_new(k->segment, g->name, g->instance, &w->series) < 0)
			return;
		segment_writer_change_begin(k->segment);
		g->master_pid = (uint32_t)f->master;
		g->master_start = f->master_start;
		g->state = SEGMENT_GATEWAY_LIVE;
		g->worker_uid = SEGMENT_NO_UID;
		str_copy(g->driver, sizeof(g->driver), f->driver);
		segment_writer_change_end(k->segment);
		w->is_live = true;
		log_info("keeper", "gateway found",
			 "gateway=%s instance=%s master=%d processes=%u "
			 "ports=%u exe=%s found_by=%s",
			 f->name, g->instance, (int)f->master, f->process_count, f->port_count,
			 f->exe, k->scan_reason);
	}
	if (!f->is_remembered)
		g->worker_uid = worker_uid(f);
	look_for_requests(w, f);
	keeper_systems_found(k->systems, (unsigned int)index, g->name, g->instance, f);
	if (k->probes)
		watch_processes(k, w, (unsigned int)index, f);
}

static bool master_lives(pid_t pid, uint64_t since)
{
	uint64_t start;

	return process_start_time(pid, &start) >= 0 && start == since;
}

static void mark_gone(struct keeper *k)
{
	unsigned int count = segment_writer_header(k->segment)->gateways_count;

	for (unsigned int i = 0; i < count; i++) {
		struct segment_gateway *g = keeper_record(k, i);

		if (g->state != SEGMENT_GATEWAY_LIVE ||
		    master_lives((pid_t)g->master_pid, g->master_start))
			continue;
		log_info("keeper", "gateway gone", "gateway=%s instance=%s master=%u", g->name,
			 g->instance, g->master_pid);
		segment_writer_change_begin(k->segment);
		g->state = SEGMENT_GATEWAY_GONE;
		g->draining = 0;
		g->profile_until_mono_ns = 0;
		segment_writer_change_end(k->segment);
		k->watched[i].is_live = false;
		keeper_systems_gone(k->systems, i);
	}
}

void keeper_scan(struct keeper *k)
{
	uint64_t refused, now = clock_mono_ns(), swallowed;
	int n;

	n = gateways_scan(k->gateways, k->found, (unsigned int)k->ctx->config->gateways_most,
			  &refused);
	/* After the scan: a master that left before it must leave its record to its successor, or
	 * threads that both have counted would be counted in two. */
	mark_gone(k);
	for (int i = 0; i < n; i++)
		if (master_lives(k->found[i].master, k->found[i].master_start))
			watch_found(k, &k->found[i]);
	if (k->probes)
		keeper_seed(k);
	if (n == 0 && !k->said_nothing_found)
		log_info("keeper", "no gateway found, waiting for one",
			 "looked_for=\"%s\" not_allowed_to_look_at=%u%s",
			 k->ctx->config->gateways_match.count
				 ? "gateways.match"
				 : "nginx openresty kong haproxy caddy "
				   "traefik apinto",
			 gateways_unreadable(k->gateways),
			 process_caps() & PROCESS_CAP(CAP_SYS_PTRACE) ? ""
								      : " missing=CAP_SYS_PTRACE");
	k->said_nothing_found = n == 0;
	if (refused && log_allowed(&k->refused_limit, now, &swallowed))
		log_warning("keeper", "more gateways than are watched",
			    "not_watched=%llu raise=gateways.most", (unsigned long long)refused);
	k->scanned_ns = now;
}
