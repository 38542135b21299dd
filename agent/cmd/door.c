/* SPDX-License-Identifier: Apache-2.0 */
/* Process door: the aggregator's public listeners, without nanomsg. One thread. */
#include "bus/door.h"

#include "base/clock.h"
#include "base/log.h"
#include "cmd/daemon.h"
#include "cmd/door_page.h"
#include "cmd/door_refusals.h"

#include <errno.h>
#include <stdio.h>
#include <sys/resource.h>

#define REPORT_MS        10000
#define REFRESH_MS       1000
#define SUBSCRIBERS_MOST 4096
#define FDS_OWN          32 /* listeners, links, the loop */

struct door_process {
	struct loop *loop;
	struct door *door;
	struct credentials *tls; /* NULL: none set */
	struct door_page *page;
	unsigned int connections; /* there are descriptors for */
	struct turnstile turnstile;
	struct refusals refusals;
	struct door_stats said;
	uint64_t dropped; /* that are in the page */
};

static void on_supervisor(void *data, int fd, unsigned int events)
{
	struct door_process *p = data;

	(void)fd;
	(void)events;
	loop_stop(p->loop);
}

static void on_report(void *data)
{
	struct door_process *p = data;
	struct door_stats s;

	door_stats(p->door, &s);
	if (s.hostile != p->said.hostile || s.refused != p->said.refused ||
	    s.bus.hostile != p->said.bus.hostile || s.bus.refused != p->said.bus.refused ||
	    s.budget_refused != p->said.budget_refused || s.stalls != p->said.stalls)
		log_warning("door", "connections refused or cut off",
			    "hostile=%lu too_many=%lu bus_hostile=%lu bus_too_many=%lu memory=%lu "
			    "descriptors=%lu connections=%u",
			    (unsigned long)(s.hostile - p->said.hostile),
			    (unsigned long)(s.refused - p->said.refused),
			    (unsigned long)(s.bus.hostile - p->said.bus.hostile),
			    (unsigned long)(s.bus.refused - p->said.bus.refused),
			    (unsigned long)(s.budget_refused - p->said.budget_refused),
			    (unsigned long)(s.stalls - p->said.stalls), s.connections);
	if (s.requests_dropped != p->said.requests_dropped ||
	    s.replies_lost != p->said.replies_lost || s.bus.dropped != p->said.bus.dropped)
		log_warning("door", "messages dropped",
			    "requests=%lu replies=%lu published=%lu queued_bytes=%zu",
			    (unsigned long)(s.requests_dropped - p->said.requests_dropped),
			    (unsigned long)(s.replies_lost - p->said.replies_lost),
			    (unsigned long)(s.bus.dropped - p->said.bus.dropped), s.queued_bytes);
	if (s.has_gate != p->said.has_gate)
		log_info("door", s.has_gate ? "the gate is here" : "the gate is away, not reading",
			 "connects=%lu", (unsigned long)s.gate_connects);
	p->said = s;
}

static void on_refused(void *data, enum turnstile_reason reason, const char *where,
		       const char *peer, const char *why)
{
	struct door_process *p = data;
	uint64_t silent;

	if (refusals_allow(&p->refusals, reason, peer, clock_mono_ns(), &silent))
		log_warning("door", "refused", "at=%s peer=%s reason=%s why=\"%s\" untold=%lu",
			    where, *peer ? peer : "ipc", turnstile_reason_names[reason], why,
			    (unsigned long)silent);
}

static void on_look(void *data)
{
	struct door_process *p = data;
	struct door_stats s;

	door_stats(p->door, &s);
	door_page_set(&p->page->clients, s.connections);
	/* The page outlives this process. */
	door_page_set(&p->page->dropped, p->page->dropped + s.bus.dropped - p->dropped);
	p->dropped = s.bus.dropped;
}

/* At once, before a new subscriber's handshake can be done: the core publishes nothing while there
 * is none. */
static void on_turn(void *data)
{
	struct door_process *p = data;

	door_page_set(&p->page->subscribers, door_subscribers(p->door));
}

static void tell_files(struct door_process *p, int r)
{
	uint64_t *count = r < 0 ? &p->page->load_failures : &p->page->loads;

	if (r == 0)
		return;
	door_page_set(count, *count + 1);
	door_page_set(&p->page->expires_s, (uint64_t)credentials_expires_s(p->tls));
}

static void on_refresh(void *data)
{
	struct door_process *p = data;
	struct err e = {0};
	int r = credentials_refresh(p->tls, &e);

	tell_files(p, r);
	if (r < 0)
		log_warning("door", "new TLS files cannot be used, the old ones stay", "why=\"%s\"",
			    e.text);
	else if (r > 0)
		log_info("door", "new TLS files are in use", "");
}

static int tls_open_files(struct door_process *p, const struct daemon_context *ctx, struct err *e)
{
	const struct config *c = ctx->config;
	const struct credentials_files files = {c->tls_ca_file, c->tls_cert_file, c->tls_key_file};
	struct loop_watch *watch;
	int r;

	if (!*files.ca && !*files.certificate && !*files.key)
		return 0;
	if (!*files.ca || !*files.certificate || !*files.key)
		return err_set(e, -EINVAL,
			       "tls.ca_file, tls.cert_file and tls.key_file belong together: set "
			       "all three or none");
	r = credentials_open_lasting(&files, ctx->ticket_secret, &p->tls, e);
	if (r < 0)
		return r;
	tell_files(p, 1);
	r = loop_add_timer(p->loop, REFRESH_MS, REFRESH_MS, on_refresh, p, &watch);
	return r < 0 ? err_set(e, r, "event loop: %s", err_text(r)) : 0;
}

/* As many connections as there can be descriptors for. */
static unsigned int raise_descriptors(unsigned int connections)
{
	struct rlimit limit;
	rlim_t want = (rlim_t)connections + SUBSCRIBERS_MOST + FDS_OWN;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= want)
		return connections;
	if (limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = want < limit.rlim_max ? want : limit.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
			getrlimit(RLIMIT_NOFILE, &limit);
	}
	if (limit.rlim_cur >= (rlim_t)connections + FDS_OWN)
		return connections;
	log_warning("door", "fewer descriptors than door.connections",
		    "limit=%lu connections=%u do=\"raise LimitNOFILE\"",
		    (unsigned long)limit.rlim_cur, connections);
	return limit.rlim_cur > 2 * FDS_OWN ? (unsigned int)limit.rlim_cur - FDS_OWN : FDS_OWN;
}

static int door_process_open(struct door_process *p, struct daemon_context *ctx, struct err *e)
{
	const struct config *config = ctx->config;
	char dir[160];
	struct door_spec spec = {
		.address = config->door_address,
		.bus_address = config->door_bus_address,
		.snapshot_address = config->door_snapshot_address,
		.gate_dir = dir,
		.connections = raise_descriptors((unsigned int)config->door_connections),
		.subscribers = SUBSCRIBERS_MOST,
		.subscriber_bytes = config->door_subscriber_bytes,
		.names = (const char *const *)config->door_subscribers_san.items,
		.name_count = config->door_subscribers_san.count,
		.turnstile = &p->turnstile,
	};
	struct loop_watch *watch;
	int r;

	p->page = ctx->door;
	p->connections = spec.connections;
	p->turnstile = (struct turnstile){
		.counts = &ctx->door->counts, .on_refused = on_refused, .data = p};
	snprintf(dir, sizeof(dir), "%.140s/private", config->_runtime_dir);
	r = loop_open(&p->loop);
	if (r < 0)
		return err_set(e, r, "event loop: %s", err_text(r));
	r = tls_open_files(p, ctx, e);
	if (r < 0)
		return r;
	spec.tls = p->tls;
	r = door_open(p->loop, &spec, &p->door, e);
	if (r < 0)
		return r;
	r = loop_add_fd(p->loop, ctx->supervisor_fd, LOOP_READ, on_supervisor, p, &watch);
	if (r == 0)
		r = loop_add_timer(p->loop, REPORT_MS, REPORT_MS, on_report, p, &watch);
	if (r == 0)
		r = loop_add_timer(p->loop, REFRESH_MS, REFRESH_MS, on_look, p, &watch);
	if (r == 0)
		r = loop_add_turn(p->loop, on_turn, p, &watch);
	return r < 0 ? err_set(e, r, "event loop: %s", err_text(r)) : 0;
}

int door_run(struct daemon_context *ctx)
{
	struct door_process p = {0};
	struct err e = {0};
	int r = door_process_open(&p, ctx, &e);

	if (r < 0)
		log_error("door", "cannot begin", "why=\"%s\"", e.text);
	else
		log_info("door", "listening", "requests=%s bus=%s snapshots=%s connections=%u",
			 ctx->config->door_address, ctx->config->door_bus_address,
			 ctx->config->door_snapshot_address, p.connections);
	if (r == 0)
		loop_run(p.loop);
	door_close(p.door);
	credentials_close(p.tls);
	loop_close(p.loop);
	if (r == -EINVAL || r == -EPERM)
		return EXIT_USAGE;
	return r < 0 ? EXIT_FAILED : EXIT_DONE;
}
