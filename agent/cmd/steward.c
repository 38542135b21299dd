/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Steward: leases, timers, the control socket, signals to gateways. Own user, CAP_KILL only; one
 * thread. Everything that it must not forget is in <runtime_dir>/private/lease.bin before it acts.
 */
#include "cmd/steward_state.h"

#include "base/clock.h"
#include "base/str.h"
#include "drain/lease_report.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* -------- to the other processes -------- */

static void send_json(struct steward *s, enum daemon_link link, json_t *message)
{
	char *text = message ? json_dumps(message, JSON_COMPACT | JSON_REAL_PRECISION(10)) : NULL;

	json_decref(message);
	if (text && daemon_link_send(s->ctx->links[link], text, strlen(text)) < 0)
		log_debug("steward", "packet dropped", "link=%d", (int)link);
	free(text);
}

void steward_tell_draining(struct steward *s, const char *instance, bool is_on)
{
	send_json(
		s, LINK_STEWARD_KEEPER,
		json_pack("{s:s,s:s,s:b}", "type", "draining", "instance", instance, "on", is_on));
}

void steward_tell_profile(struct steward *s, const struct profile *p)
{
	send_json(s, LINK_STEWARD_KEEPER,
		  json_pack("{s:s,s:s,s:I,s:I}", "type", "profile", "instance", p->instance, "id",
			    (json_int_t)p->id, "until_mono_ns", (json_int_t)p->until_ns));
}

static void tell_interval(struct steward *s)
{
	send_json(s, LINK_STEWARD_KEEPER,
		  json_pack("{s:s,s:i}", "type", "interval", "ms",
			    steward_count_held(s) ? TICK_ACTIVE_MS : 0));
}

void steward_tell_event(struct steward *s, const char *kind, const struct lease *l)
{
	send_json(s, LINK_STEWARD_COURIER,
		  json_pack("{s:s,s:s,s:s,s:I,s:o}", "type", "event", "kind", kind, "gateway",
			    l->gateway, "time_ms", (json_int_t)(clock_real_ns() / NS_PER_MS),
			    "json", lease_report(l, clock_mono_ns())));
}

static bool is_held(const struct steward *s, const char *instance)
{
	for (unsigned int i = 0; i < LEASE_FILE_MOST; i++)
		if (s->held[i].l && lease_is_held(s->held[i].l) &&
		    str_equal(s->held[i].l->instance, instance))
			return true;
	return false;
}

/* State is repeated while it matters; its end a few times, unless a new drain began since. */
void steward_repeat_state(struct steward *s)
{
	bool is_any = false;

	for (unsigned int i = 0; i < LEASE_FILE_MOST; i++) {
		if (s->held[i].l && lease_is_held(s->held[i].l)) {
			steward_tell_draining(s, s->held[i].l->instance, true);
			is_any = true;
		}
		if (s->released[i].repeats && is_held(s, s->released[i].instance))
			s->released[i].repeats = 0;
		if (s->released[i].repeats) {
			s->released[i].repeats--;
			steward_tell_draining(s, s->released[i].instance, false);
			is_any = true;
		}
	}
	if (is_any || steward_count_held(s))
		tell_interval(s);
}

void steward_end_terminate(struct steward *s)
{
	char text[64];
	int n = snprintf(text, sizeof(text), "{\"type\":\"terminated\",\"code\":%d}",
			 (int)s->terminate_code);

	s->terminate = TERMINATE_DONE;
	daemon_link_send(s->ctx->links[LINK_SUPERVISOR_STEWARD], text, (size_t)n);
}

/* -------- control -------- */

void steward_answer_waiters(struct steward *s, unsigned int slot)
{
	json_t *report = lease_report(s->held[slot].l, clock_mono_ns());
	enum exit_code code = lease_exit_code(s->held[slot].l);

	for (unsigned int i = 0; i < WAITERS_MAX; i++) {
		struct waiter *w = &s->waiters[i];

		if (!w->conn || !(w->slots >> slot & 1))
			continue;
		control_reply(w->conn, json_pack("{s:O}", "report", report));
		w->slots &= ~(1ULL << slot);
		/* EXIT_DEADLINE over EXIT_FAILED over EXIT_DONE. */
		if (code > w->code)
			w->code = code;
		if (w->slots)
			continue;
		control_reply(w->conn, json_pack("{s:b,s:i}", "done", 1, "code", (int)w->code));
		control_set_waiting(w->conn, false);
		w->conn = NULL;
	}
	json_decref(report);
}

static void wait_for(struct steward *s, struct control_conn *conn, uint64_t slots)
{
	struct waiter *free_one = NULL;

	for (unsigned int i = 0; i < WAITERS_MAX; i++) {
		struct waiter *w = &s->waiters[i];

		/* A second wait on one connection joins the first. */
		if (w->conn == conn) {
			w->slots |= slots;
			return;
		}
		if (!w->conn)
			free_one = w;
	}
	/* There are as many waiters as connections. */
	CHECK(free_one);
	*free_one = (struct waiter){.conn = conn, .slots = slots};
	control_set_waiting(conn, true);
}

static json_t *list_slots(const struct steward *s, uint64_t slots)
{
	json_t *list = json_array();

	for (unsigned int i = 0; i < LEASE_FILE_MOST; i++)
		if (slots >> i & 1)
			json_array_append_new(list, json_pack("{s:s,s:s}", "gateway",
							      s->held[i].l->gateway, "instance",
							      s->held[i].l->instance));
	return list;
}

void steward_reply_unknown(struct steward *s, struct control_conn *conn, const char *name)
{
	char text[256], known[160] = "";
	size_t used = 0;

	for (unsigned int i = 0; i < steward_count_gateways(s); i++) {
		const struct segment_gateway *g = segment_reader_gateway(s->reader, i);
		int n;

		if (!steward_is_live(g) || used >= sizeof(known))
			continue;
		n = snprintf(known + used, sizeof(known) - used, "%s%s", used ? ", " : "", g->name);
		used += n > 0 ? (size_t)n : 0;
	}
	if (!known[0])
		snprintf(text, sizeof(text),
			 "no gateway is known: none runs, or none matches (option gateways.match; "
			 "see "
			 "`tidegate doctor`)");
	else
		snprintf(text, sizeof(text), "no gateway `%s` is known, there are: %s", name,
			 known);
	control_reply_error(conn, text);
}

static void hurry(struct steward *s)
{
	s->tick_ms = TICK_ACTIVE_MS;
	loop_set_timer(s->timer, 1, TICK_ACTIVE_MS);
}

static void handle_drain(struct steward *s, struct control_conn *conn,
			 const struct control_request *q)
{
	uint64_t slots = 0;
	int r = steward_begin(s, q->gateway, q->deadline_ns, "control", &slots);

	if (r < 0) {
		control_reply_error(conn, err_text(r));
		return;
	}
	if (!slots) {
		steward_reply_unknown(s, conn, q->gateway);
		return;
	}
	control_reply(conn, json_pack("{s:b,s:o}", "ok", 1, "gateways", list_slots(s, slots)));
	if (q->is_wait)
		wait_for(s, conn, slots);
	hurry(s);
}

static void handle_undrain(struct steward *s, struct control_conn *conn,
			   const struct control_request *q)
{
	unsigned int undrained = 0, late = 0;

	for (unsigned int i = 0; i < LEASE_FILE_MOST; i++) {
		struct lease *l = s->held[i].l;

		if (!l || !steward_is_meant(q->gateway, l->gateway, l->instance))
			continue;
		if (lease_undrain(l, clock_mono_ns()) < 0)
			late++;
		else
			undrained++;
	}
	if (undrained) {
		steward_save(s);
		hurry(s);
		control_reply(conn, json_pack("{s:b,s:i,s:i}", "ok", 1, "undrained", (int)undrained,
					      "late", (int)late));
	} else {
		control_reply_error(conn, late ? "too late: the gateway was told to stop"
					       : "no drain is under way");
	}
}

static void handle_status(struct steward *s, struct control_conn *conn)
{
	json_t *leases = json_array(), *gateways = json_array();

	steward_refresh(s);
	for (unsigned int i = 0; i < LEASE_FILE_MOST; i++)
		if (s->held[i].l)
			json_array_append_new(leases, lease_report(s->held[i].l, clock_mono_ns()));
	for (unsigned int i = 0; i < steward_count_gateways(s); i++) {
		const struct segment_gateway *g = segment_reader_gateway(s->reader, i);

		if (steward_is_live(g))
			json_array_append_new(gateways,
					      json_pack("{s:s,s:s,s:s,s:I,s:b}", "gateway", g->name,
							"instance", g->instance, "driver",
							g->driver, "pid", (json_int_t)g->master_pid,
							"draining", (int)(g->draining != 0)));
	}
	control_reply(conn,
		      json_pack("{s:b,s:o,s:o,s:I,s:i}", "ok", 1, "leases", leases, "gateways",
				gateways, "refused", (json_int_t)control_refused(s->control),
				"script_kills", (int)hookline_kills(s->hooks)));
}

static void on_request(void *data, struct control_conn *conn, const struct control_request *q)
{
	struct steward *s = data;

	if (q->op == CONTROL_DRAIN)
		handle_drain(s, conn, q);
	else if (q->op == CONTROL_UNDRAIN)
		handle_undrain(s, conn, q);
	else if (q->op == CONTROL_PROFILE)
		steward_profile(s, conn, q);
	else
		handle_status(s, conn);
}

static void on_closed(void *data, struct control_conn *conn)
{
	struct steward *s = data;

	for (unsigned int i = 0; i < WAITERS_MAX; i++)
		if (s->waiters[i].conn == conn)
			s->waiters[i].conn = NULL;
}

/* -------- termination -------- */

static void begin_terminate(struct steward *s, const json_t *m)
{
	const char *reason = json_string_value(json_object_get(m, "reason"));
	bool is_drain = json_is_true(json_object_get(m, "drain"));
	uint64_t slots = 0;

	/* Repeated until it is answered; so is the answer. */
	if (s->terminate == TERMINATE_DONE)
		steward_end_terminate(s);
	if (s->terminate != TERMINATE_NO)
		return;
	s->terminate = TERMINATE_DRAIN;
	s->terminate_code = EXIT_DONE;
	s->is_terminate_drain = is_drain;
	str_copy(s->terminate_reason, sizeof(s->terminate_reason), reason ? reason : "stop");
	if (is_drain && steward_begin(s, "", 0, s->terminate_reason, &slots) < 0)
		s->terminate_code = EXIT_FAILED;
	log_info("steward", "told to end", "reason=%s drain=%s gateways=%d", s->terminate_reason,
		 is_drain ? "yes" : "no", __builtin_popcountll(slots));
	hurry(s);
}

static void on_terminate(void *data, int fd, unsigned int events)
{
	struct steward *s = data;
	int n;

	(void)events;
	while ((n = daemon_link_recv(fd, s->packet, sizeof(s->packet))) > 0) {
		json_t *m = json_loadb(s->packet, (size_t)n, 0, NULL);
		const char *type = json_string_value(json_object_get(m, "type"));

		if (type && str_equal(type, "terminate"))
			begin_terminate(s, m);
		json_decref(m);
	}
}

/* -------- the clock -------- */

/* Once nothing is to be waited for, the hooks of `terminate` run, in any case. Leases that are not
 * ours to end go on in the next steward. */
static void go_on_terminating(struct steward *s)
{
	uint64_t until_ns = clock_mono_ns() + TERMINATE_HOOKS_NS;

	if (s->terminate == TERMINATE_HOOKS && clock_mono_ns() >= s->terminate_until_ns) {
		hookline_cancel(s->hooks, s->terminate_run);
		steward_end_terminate(s);
	}
	if (s->terminate != TERMINATE_DRAIN || (s->is_terminate_drain && steward_count_held(s)))
		return;
	s->terminate = TERMINATE_HOOKS;
	s->terminate_until_ns = until_ns;
	s->terminate_run =
		hookline_run(s->hooks, &(struct hookline_event){.point = "terminate",
								.gateway = "",
								.instance = "",
								.driver = "",
								.reason = s->terminate_reason,
								.deadline_ns = until_ns,
								.until_ns = until_ns});
	if (!s->terminate_run)
		steward_end_terminate(s);
}

static void on_tick(void *data)
{
	struct steward *s = data;
	uint64_t now_ns = clock_mono_ns(), tick_ms;

	steward_refresh(s);
	for (unsigned int i = 0; i < LEASE_FILE_MOST; i++)
		if (s->held[i].l)
			steward_advance(s, &s->held[i], now_ns);
	hookline_tick(s->hooks, now_ns);
	if (now_ns - s->repeated_ns >= REPEAT_NS) {
		s->repeated_ns = now_ns;
		steward_repeat_state(s);
		steward_repeat_profiles(s);
	}
	go_on_terminating(s);
	tick_ms = steward_count_held(s) || hookline_open_runs(s->hooks) ? TICK_ACTIVE_MS
									: TICK_IDLE_MS;
	if (tick_ms != s->tick_ms) {
		s->tick_ms = tick_ms;
		loop_set_timer(s->timer, tick_ms, tick_ms);
	}
}

static void on_supervisor(void *data, int fd, unsigned int events)
{
	struct steward *s = data;
	char byte;

	(void)events;
	if (read(fd, &byte, 1) <= 0)
		loop_stop(s->loop);
}

/* Hooks of `start` run once in the life of an agent, not of a steward. */
static void run_start(struct steward *s)
{
	uint64_t until_ns = clock_mono_ns() + s->ctx->config->drain_deadline;

	if (s->ctx->restarts || s->ctx->links[LINK_STEWARD_SCRIPT] < 0)
		return;
	hookline_run(s->hooks, &(struct hookline_event){.point = "start",
							.gateway = "",
							.instance = "",
							.driver = "",
							.reason = "start",
							.deadline_ns = until_ns,
							.until_ns = until_ns});
}

static int set_paths(struct steward *s, char *control, size_t size, struct err *e)
{
	const char *dir = s->ctx->config->_runtime_dir;
	char private[PATH_MAX];
	int a = snprintf(s->lease_path, sizeof(s->lease_path), "%s/private/lease.bin", dir);
	int b = snprintf(s->segment_path, sizeof(s->segment_path), "%s/host.seg", dir);
	int c = snprintf(control, size, "%s/control.sock", dir);

	if (a < 0 || (size_t)a >= sizeof(s->lease_path) || b < 0 || c < 0 || (size_t)c >= size)
		return err_set(e, -ENAMETOOLONG, "runtime_dir: the path is too long");
	snprintf(private, sizeof(private), "%s/private", dir);
	/* The supervisor makes it with the right owner; without one we make it for ourselves. */
	if (mkdir(private, 0700) < 0 && errno != EEXIST)
		log_warning("steward", "no private directory", "path=%s error=\"%s\"", private,
			    err_text(-errno));
	return 0;
}

static int start(struct steward *s, struct err *e)
{
	struct daemon_context *ctx = s->ctx;
	char control[PATH_MAX];
	int r = set_paths(s, control, sizeof(control), e);

	if (r < 0)
		return r;
	r = loop_open(&s->loop);
	if (r < 0)
		return err_set(e, r, "event loop: %s", err_text(r));
	r = hookline_open(
		&(struct hookline_options){.loop = s->loop,
					   .fd = ctx->links[LINK_STEWARD_SCRIPT],
					   .quiet_ns = ctx->config->drain_hook_cpu + 2 * NS_PER_S,
					   .call = steward_on_call,
					   .hook_ran = steward_on_hook_ran,
					   .done = steward_on_done,
					   .data = s},
		&s->hooks, e);
	if (r < 0)
		return r;
	steward_restore(s);
	r = loop_add_timer(s->loop, 1, TICK_ACTIVE_MS, on_tick, s, &s->timer);
	if (!r)
		r = loop_add_fd(s->loop, ctx->supervisor_fd, LOOP_READ, on_supervisor, s,
				&s->supervisor_watch);
	if (!r && ctx->links[LINK_SUPERVISOR_STEWARD] >= 0)
		r = loop_add_fd(s->loop, ctx->links[LINK_SUPERVISOR_STEWARD], LOOP_READ,
				on_terminate, s, &s->terminate_watch);
	if (r < 0)
		return err_set(e, r, "event loop: %s", err_text(r));
	return control_server_open(&(struct control_options){.loop = s->loop,
							     .path = control,
							     .group_app = ctx->group_app,
							     .group_admin = ctx->group_admin,
							     .is_sidecar = ctx->is_sidecar,
							     .request = on_request,
							     .closed = on_closed,
							     .data = s},
				   &s->control, e);
}

int steward_run(struct daemon_context *ctx)
{
	struct steward *s = calloc(1, sizeof(*s));
	struct err e = {.text = "out of memory"};
	int r = -ENOMEM;

	if (s) {
		err_clear(&e);
		s->ctx = ctx;
		s->save_limit.interval_ns = 10 * NS_PER_S;
		r = start(s, &e);
	}
	if (!r) {
		run_start(s);
		r = loop_run(s->loop);
	}
	if (r < 0)
		log_error("steward", "cannot run", "error=\"%s\"",
			  e.text[0] ? e.text : err_text(r));
	if (s) {
		s->control = control_server_close(s->control);
		s->hooks = hookline_close(s->hooks);
		s->reader = segment_reader_close(s->reader);
		loop_close(s->loop);
		for (unsigned int i = 0; i < LEASE_FILE_MOST; i++)
			free(s->held[i].l);
		free(s);
	}
	return r < 0 ? EXIT_FAILED : EXIT_DONE;
}
