/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The steward's leases: kept on disk before anything is done, fed with the segment's numbers, their
 * actions carried out, their hooks' wishes answered. Steward process.
 */
#include "cmd/steward_state.h"

#include "base/clock.h"
#include "base/str.h"
#include "drain/driver.h"
#include "drain/lease_report.h"
#include "drain/target.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

unsigned int steward_count_held(const struct steward *s)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < LEASE_FILE_MOST; i++)
		n += s->held[i].l != NULL;
	return n;
}

/* -------- keeping -------- */

void steward_save(struct steward *s)
{
	struct lease *leases[LEASE_FILE_MOST];
	struct err e = {.text = ""};
	uint64_t suppressed;
	size_t n = 0;

	for (unsigned int i = 0; i < LEASE_FILE_MOST; i++)
		if (s->held[i].l)
			leases[n++] = s->held[i].l;
	if (lease_file_save(s->lease_path, leases, n, &e) < 0 &&
	    log_allowed(&s->save_limit, clock_mono_ns(), &suppressed))
		log_error("steward", "the drain would not survive a restart of the steward",
			  "error=\"%s\"", e.text);
}

void steward_restore(struct steward *s)
{
	struct lease *leases[LEASE_FILE_MOST];
	struct err e = {.text = ""};
	size_t n;

	if (lease_file_load(s->lease_path, leases, &n, &e) < 0)
		log_warning("steward", "no leases kept", "why=\"%s\"", e.text);
	for (size_t i = 0; i < n; i++) {
		s->held[i] = (struct held){.l = leases[i], .connections = -1};
		lease_restored(leases[i], clock_mono_ns());
		log_info("steward", "lease goes on", "gateway=%s instance=%s state=%s",
			 leases[i]->gateway, leases[i]->instance,
			 lease_state_name(leases[i]->state));
	}
}

/* -------- gateways -------- */

void steward_refresh(struct steward *s)
{
	if (!s->reader && segment_reader_open(s->segment_path, &s->reader, NULL) < 0)
		return;
	/* On failure the last copy stays; its tick says how old it is. */
	segment_reader_refresh_gateways(s->reader, NULL);
}

unsigned int steward_count_gateways(const struct steward *s)
{
	return s->reader ? segment_reader_gateways(s->reader) : 0;
}

bool steward_is_live(const struct segment_gateway *g)
{
	return g && g->state == SEGMENT_GATEWAY_LIVE && g->master_pid &&
	       target_is_alive(g->master_pid, g->master_start);
}

static void read_numbers(const struct steward *s, const struct segment_gateway *g,
			 struct lease_numbers *n)
{
	const struct segment_header *header = segment_reader_header(s->reader);

	n->is_requests_known = g->requests_known != 0;
	n->tick_ns = header ? header->tick_mono_ns : 0;
	n->started = g->requests_started;
	n->health = g->requests_health;
	n->completed = g->requests_completed;
	n->aborted = g->requests_aborted;
	n->lost = g->requests_lost;
	n->in_flight = g->in_flight;
	n->connections_open = g->connections_open;
	n->last_request_ns = g->last_request_mono_ns;
}

static const struct segment_gateway *find_record(const struct steward *s, const struct lease *l)
{
	for (unsigned int i = 0; i < steward_count_gateways(s); i++) {
		const struct segment_gateway *g = segment_reader_gateway(s->reader, i);

		/* An instance's record may have passed to a new master. */
		if (g && str_equal(g->instance, l->instance) && g->master_pid == l->pid &&
		    g->master_start == l->pid_start)
			return g;
	}
	return NULL;
}

static void observe(struct steward *s, struct held *h, uint64_t now_ns)
{
	struct lease *l = h->l;
	const struct segment_gateway *g = find_record(s, l);
	struct lease_numbers n = l->now;

	if (g)
		read_numbers(s, g, &n);
	n.is_gone = l->is_gone || !target_is_alive(l->pid, l->pid_start);
	/* Walking /proc at every tick would cost more than it tells. */
	if (!n.is_requests_known && now_ns - h->connections_ns >= REPEAT_NS) {
		h->connections_ns = now_ns;
		if (target_connections(l->pid, &h->connections) < 0)
			h->connections = -1;
	}
	n.proc_connections = h->connections;
	lease_observe(l, now_ns, &n);
}

/* -------- what hooks wish -------- */

static json_t *numbers_json(const struct lease *l)
{
	const struct lease_numbers *n = &l->now;

	return json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "in_flight", (json_int_t)n->in_flight,
			 "arrived", (json_int_t)lease_arrived(l), "completed",
			 (json_int_t)(n->completed - l->at_start.completed), "aborted",
			 (json_int_t)(n->aborted - l->at_start.aborted), "lost",
			 (json_int_t)lease_lost(l), "connections", (json_int_t)n->connections_open,
			 "known", (json_int_t)n->is_requests_known);
}

static void answer(struct steward *s, struct held *h, bool is_ok, const char *error)
{
	uint64_t call = h->pending.call;

	h->pending.call = 0;
	hookline_answer(s->hooks, h->run, call, is_ok, error, numbers_json(h->l));
}

static void answer_pending(struct steward *s, struct held *h, uint64_t now_ns)
{
	double number = h->pending.number;
	bool is_done = false;

	if (!h->pending.call)
		return;
	if (h->pending.op == SCRIPT_WAIT_QUIET)
		is_done = lease_is_quiet(h->l, now_ns,
					 number < 0 ? h->l->quiet_ns : (uint64_t)(number * 1e9));
	else if (h->pending.op == SCRIPT_WAIT_IN_FLIGHT)
		is_done = lease_is_idle(h->l, now_ns, (uint64_t)number);
	if (is_done)
		answer(s, h, true, "");
}

static void do_signal(struct steward *s, struct held *h, const char *name)
{
	int signal = driver_signal_number(name), r;
	char text[128];

	if (!driver_allows(driver_find(h->l->driver), signal)) {
		snprintf(text, sizeof(text), "signal %.16s is not among those of driver %s (%s)",
			 name, driver_find(h->l->driver)->name, driver_find(h->l->driver)->allowed);
		answer(s, h, false, text);
		return;
	}
	r = target_signal(h->l->pid, h->l->pid_start, signal);
	lease_signalled(h->l, clock_mono_ns(), signal, r);
	steward_save(s);
	answer(s, h, r == 0, r < 0 ? err_text(r) : "");
}

static struct held *find_run(struct steward *s, uint64_t run)
{
	for (unsigned int i = 0; i < LEASE_FILE_MOST; i++)
		if (s->held[i].l && run && s->held[i].run == run)
			return &s->held[i];
	return NULL;
}

void steward_on_call(void *data, uint64_t run, uint64_t call, enum script_op op, double number,
		     const char *text)
{
	struct steward *s = data;
	struct held *h = find_run(s, run);

	if (!h) {
		hookline_answer(s->hooks, run, call, false, "there is no gateway at this point",
				NULL);
		return;
	}
	h->pending = (struct pending){.call = call, .op = op, .number = number};
	/* Written so that NaN does not pass. */
	if (!(number <= CONTROL_DEADLINE_MAX_S))
		answer(s, h, false, "bad number");
	else if (op == SCRIPT_NUMBERS)
		answer(s, h, true, "");
	else if (op == SCRIPT_SIGNAL)
		do_signal(s, h, text);
	else if (op == SCRIPT_WAIT_QUIET || (op == SCRIPT_WAIT_IN_FLIGHT && number >= 0))
		answer_pending(s, h, clock_mono_ns());
	else
		answer(s, h, false, "no such wish");
}

void steward_on_hook_ran(void *data, uint64_t run, const char *name, bool is_ok, uint32_t ms,
			 const char *error)
{
	struct held *h = find_run(data, run);
	const char *point = h ? lease_state_point(h->l->state) : NULL;

	if (point)
		lease_hook_ran(h->l, point, name, is_ok, ms, error);
}

void steward_on_done(void *data, uint64_t run, unsigned int ran, unsigned int failed,
		     bool has_acted)
{
	struct steward *s = data;
	struct held *h = find_run(s, run);
	const char *point = h ? lease_state_point(h->l->state) : NULL;

	if (run == s->terminate_run && s->terminate == TERMINATE_HOOKS)
		steward_end_terminate(s);
	if (!point)
		return;
	h->run = 0;
	h->pending.call = 0;
	lease_hooks_done(h->l, clock_mono_ns(), point, ran, failed, has_acted);
	/* The next state need not wait for the next tick. */
	loop_set_timer(s->timer, 1, TICK_ACTIVE_MS);
}

/* -------- leases -------- */

static void release(struct steward *s, const char *instance)
{
	struct released *r = &s->released[0];

	for (unsigned int i = 0; i < LEASE_FILE_MOST; i++)
		if (!s->released[i].repeats)
			r = &s->released[i];
	str_copy(r->instance, sizeof(r->instance), instance);
	r->repeats = OFF_REPEATS;
	steward_tell_draining(s, instance, false);
}

static void finish(struct steward *s, struct held *h)
{
	struct lease *l = h->l;

	log_info("steward", "drain ended",
		 "gateway=%s instance=%s in_flight_at_start=%" PRIu64 " arrived=%" PRIu64
		 " lost=%" PRIu64 " waited_s=%.3f forced=%s%s",
		 l->gateway, l->instance, l->at_start.in_flight, lease_arrived(l), lease_lost(l),
		 (double)(l->over_ns - l->begin_ns) / 1e9, l->is_forced ? "yes" : "no",
		 l->is_undrained ? " undrained=yes"
		 : l->is_expired ? " expired=yes"
				 : "");
	steward_tell_event(s, "drain.end", l);
	steward_answer_waiters(s, (unsigned int)(h - s->held));
	release(s, l->instance);
	if (lease_exit_code(l) > s->terminate_code)
		s->terminate_code = lease_exit_code(l);
	h->l = NULL;
	free(l);
	steward_save(s);
}

static void start_hooks(struct steward *s, struct held *h, const struct lease_actions *a)
{
	struct lease *l = h->l;

	h->run = hookline_run(s->hooks, &(struct hookline_event){.point = a->run_point,
								 .gateway = l->gateway,
								 .instance = l->instance,
								 .driver = l->driver,
								 .reason = l->reason,
								 .deadline_ns = l->deadline_ns,
								 .until_ns = a->run_until_ns});
	if (!h->run)
		lease_hooks_done(l, clock_mono_ns(), a->run_point, 0, 0, false);
}

void steward_advance(struct steward *s, struct held *h, uint64_t now_ns)
{
	struct lease *l = h->l;
	uint32_t before = l->state;
	struct lease_actions a;
	int r;

	observe(s, h, now_ns);
	answer_pending(s, h, now_ns);
	lease_next(l, now_ns, &a);
	if (a.cancel_hooks && h->run) {
		hookline_cancel(s->hooks, h->run);
		h->run = 0;
		h->pending.call = 0;
	}
	if (a.is_changed && !a.is_over)
		steward_save(s);
	if (a.signal) {
		r = target_signal(l->pid, l->pid_start, a.signal);
		/* The process that is no more needs no signal; the next tick sees it gone. */
		if (r != -ESRCH) {
			lease_signalled(l, now_ns, a.signal, r);
			steward_save(s);
		}
	}
	if (a.run_point)
		start_hooks(s, h, &a);
	if (l->state != before)
		log_info("steward", "drain", "gateway=%s instance=%s state=%s in_flight=%" PRIu64,
			 l->gateway, l->instance, lease_state_name(l->state), l->now.in_flight);
	if (a.is_over)
		finish(s, h);
}

/* Begins a lease, or finds the one that is there. Returns its slot; -ENOSPC, -ENOMEM. */
static int begin(struct steward *s, const struct segment_gateway *g, uint64_t deadline_ns,
		 const char *reason)
{
	struct lease_numbers n = {.proc_connections = -1};
	uint64_t now_ns = clock_mono_ns();
	int slot = -ENOSPC;

	for (int i = 0; i < LEASE_FILE_MOST; i++) {
		struct lease *l = s->held[i].l;

		if (l && str_equal(l->instance, g->instance) && l->pid == g->master_pid)
			return i;
		if (!l && slot < 0)
			slot = i;
	}
	if (slot < 0)
		return slot;
	s->held[slot] = (struct held){.l = calloc(1, sizeof(struct lease)), .connections = -1};
	if (!s->held[slot].l)
		return -ENOMEM;
	read_numbers(s, g, &n);
	lease_begin(s->held[slot].l, now_ns,
		    &(struct lease_request){.gateway = g->name,
					    .instance = g->instance,
					    .driver = g->driver,
					    .reason = reason,
					    .pid = g->master_pid,
					    .pid_start = g->master_start,
					    .deadline_ns = deadline_ns
								   ? deadline_ns
								   : s->ctx->config->drain_deadline,
					    .quiet_ns = s->ctx->config->drain_quiet},
		    &n);
	log_info("steward", "drain begins", "gateway=%s instance=%s pid=%u reason=%s split=\"%s\"",
		 g->name, g->instance, g->master_pid, reason, s->held[slot].l->steps[0].text);
	steward_save(s);
	steward_tell_event(s, "drain.begin", s->held[slot].l);
	steward_repeat_state(s);
	return slot;
}

bool steward_is_meant(const char *name, const char *gateway, const char *instance)
{
	return !name[0] || str_equal(gateway, name) || str_equal(instance, name);
}

int steward_begin(struct steward *s, const char *name, uint64_t deadline_ns, const char *reason,
		  uint64_t *ret_slots)
{
	uint64_t slots = 0;

	steward_refresh(s);
	for (unsigned int i = 0; i < steward_count_gateways(s); i++) {
		const struct segment_gateway *g = segment_reader_gateway(s->reader, i);
		int slot;

		if (!steward_is_live(g) || !steward_is_meant(name, g->name, g->instance))
			continue;
		slot = begin(s, g, deadline_ns, reason);
		if (slot < 0)
			return slot;
		slots |= 1ULL << slot;
	}
	*ret_slots = slots;
	return 0;
}
