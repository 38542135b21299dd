/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Script process: hosts the Lua hooks and does their wishes by asking the steward. No capability.
 * One thread; may be killed at any moment, also by the steward when a hook cannot be interrupted.
 */
#include "drain/script.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "cmd/daemon.h"
#include "drain/script_exec.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A hook's sleep or program; ends with its answer, or when its run does. */
struct wait {
	struct script_process *p;
	uint64_t run, call;
	struct loop_watch *timer;
	struct script_exec *exec;
	struct wait *next;
};

struct script_process {
	const struct daemon_context *ctx;
	struct loop *loop;
	struct script_host *host;
	struct loop_watch *link_watch, *supervisor_watch, *hello_timer;
	struct wait *waits;
	bool is_welcome;
	uint64_t dropped;
	char packet[DAEMON_LINK_BYTES];
};

static void send_packet(struct script_process *p, json_t *message)
{
	char *text = message ? json_dumps(message, JSON_COMPACT) : NULL;
	int r = -ENOMEM;

	json_decref(message);
	if (text)
		r = daemon_link_send(p->ctx->links[LINK_STEWARD_SCRIPT], text, strlen(text));
	free(text);
	if (r < 0 && !p->dropped++)
		log_warning("script", "the steward does not read", "error=\"%s\"", err_text(r));
}

/* Lua strings may hold any bytes; what is not UTF-8 must not make a packet vanish. */
static json_t *text_or(const char *text)
{
	json_t *s = json_string(text);

	return s ? s : json_string("(text that is not UTF-8)");
}

/* -------- waits of our own -------- */

static void wait_free(struct wait *w)
{
	struct wait **at = &w->p->waits;

	while (*at && *at != w)
		at = &(*at)->next;
	if (*at)
		*at = w->next;
	loop_remove(w->timer);
	free(w);
}

static void answer(struct script_process *p, uint64_t run, uint64_t call, bool is_ok, double number,
		   const char *text)
{
	struct script_answer a = {.is_ok = is_ok, .number = number, .text = text};

	script_answer(p->host, run, call, &a);
}

static void on_slept(void *data)
{
	struct wait *w = data;
	struct script_process *p = w->p;
	uint64_t run = w->run, call = w->call;

	wait_free(w);
	answer(p, run, call, true, 0, "");
}

static void on_exec(void *data, int code, const char *output)
{
	struct wait *w = data;
	struct script_process *p = w->p;
	uint64_t run = w->run, call = w->call;

	wait_free(w);
	if (code < 0)
		answer(p, run, call, false, 0, "the program was killed at its timeout");
	else
		answer(p, run, call, true, code, output);
}

static int start_wait(struct script_process *p, const struct script_call *c, struct err *e)
{
	struct wait *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return err_set(e, -ENOMEM, "out of memory");
	*w = (struct wait){.p = p, .run = c->run, .call = c->call};
	if (c->op == SCRIPT_SLEEP)
		r = loop_add_timer(p->loop, (uint64_t)(c->number * 1000), 0, on_slept, w,
				   &w->timer);
	else
		r = script_exec_start(p->loop, &p->ctx->config->drain_exec, c->argv, c->number,
				      on_exec, w, &w->exec, e);
	if (r < 0) {
		free(w);
		return err_set(e, r, "%s", script_op_name(c->op));
	}
	w->next = p->waits;
	p->waits = w;
	return 0;
}

static void stop_waits(struct script_process *p, uint64_t run)
{
	struct wait *w = p->waits, *next;

	for (; w; w = next) {
		next = w->next;
		if (run && w->run != run)
			continue;
		script_exec_stop(w->exec);
		wait_free(w);
	}
}

/* -------- the host's callbacks -------- */

static void on_call(void *data, const struct script_call *c)
{
	struct script_process *p = data;
	struct err e = {.text = ""};

	if (c->op == SCRIPT_SLEEP || c->op == SCRIPT_EXEC) {
		if (start_wait(p, c, &e) < 0)
			answer(p, c->run, c->call, false, 0, e.text);
		return;
	}
	send_packet(p, json_pack("{s:s,s:I,s:I,s:s,s:f,s:o}", "type", "call", "run",
				 (json_int_t)c->run, "call", (json_int_t)c->call, "op",
				 script_op_name(c->op), "number", c->number, "text",
				 text_or(c->op == SCRIPT_SIGNAL ? c->text : "")));
}

static void on_hook_done(void *data, uint64_t run, const char *name, bool is_ok, uint32_t ms,
			 const char *error)
{
	struct script_process *p = data;

	if (!is_ok)
		log_warning("script", "hook failed", "hook=%s error=\"%s\"", name, error);
	send_packet(p, json_pack("{s:s,s:I,s:o,s:b,s:I,s:o}", "type", "hook", "run",
				 (json_int_t)run, "name", text_or(name), "ok", is_ok, "ms",
				 (json_int_t)ms, "error", text_or(error)));
}

static void on_run_done(void *data, uint64_t run, unsigned int ran, unsigned int failed,
			bool has_acted)
{
	struct script_process *p = data;

	send_packet(p, json_pack("{s:s,s:I,s:i,s:i,s:b}", "type", "done", "run", (json_int_t)run,
				 "ran", (int)ran, "failed", (int)failed, "acted", has_acted));
}

static void on_log(void *data, const char *hook, const char *text)
{
	(void)data;
	log_info("script", "hook says", "hook=%s text=\"%s\"", hook ? hook : "?", text);
}

static void on_problem(void *data, const char *text)
{
	(void)data;
	log_error("script", "hooks: skipped", "why=\"%s\"", text);
}

/* -------- the steward's packets -------- */

static uint64_t get_u64(const json_t *m, const char *key)
{
	json_int_t v = json_integer_value(json_object_get(m, key));

	return v > 0 ? (uint64_t)v : 0;
}

static const char *get_text(const json_t *m, const char *key)
{
	const char *s = json_string_value(json_object_get(m, key));

	return s ? s : "";
}

static void handle_run(struct script_process *p, const json_t *m)
{
	struct script_event event = {.run = get_u64(m, "run"),
				     .point = get_text(m, "point"),
				     .gateway = get_text(m, "gateway"),
				     .instance = get_text(m, "instance"),
				     .driver = get_text(m, "driver"),
				     .reason = get_text(m, "reason"),
				     .deadline_ns = get_u64(m, "deadline_ns")};
	int r = script_start(p->host, &event);

	/* Answered in any case: the steward then goes the built-in way at once. */
	if (r < 0 && r != -EEXIST)
		on_run_done(p, event.run, 0, 0, false);
}

static void handle_answer(struct script_process *p, const json_t *m)
{
	struct script_answer a = {.is_ok = json_is_true(json_object_get(m, "ok")),
				  .text = get_text(m, "error")};
	json_t *numbers = json_object_get(m, "numbers"), *value;
	const char *key;

	json_object_foreach(numbers, key, value)
	{
		if (a.pair_count == SCRIPT_PAIRS_MAX || !json_is_number(value))
			continue;
		str_copy(a.pairs[a.pair_count].key, sizeof(a.pairs->key), key);
		a.pairs[a.pair_count++].value = json_number_value(value);
	}
	script_answer(p->host, get_u64(m, "run"), get_u64(m, "call"), &a);
}

static void handle(struct script_process *p, const json_t *m)
{
	const char *type = get_text(m, "type");

	if (str_equal(type, "who")) {
		p->is_welcome = false;
		send_packet(p, json_pack("{s:s}", "type", "hello"));
	} else if (str_equal(type, "welcome")) {
		if (get_u64(m, "pid") == (uint64_t)getpid())
			p->is_welcome = true;
	} else if (!p->is_welcome) {
		/* Left over from the life of the process before this one. */
		return;
	} else if (str_equal(type, "ping")) {
		send_packet(p, json_pack("{s:s}", "type", "pong"));
	} else if (str_equal(type, "run")) {
		handle_run(p, m);
	} else if (str_equal(type, "answer")) {
		handle_answer(p, m);
	} else if (str_equal(type, "cancel")) {
		stop_waits(p, get_u64(m, "run"));
		script_cancel(p->host, get_u64(m, "run"), "out of time");
	}
}

static void on_link(void *data, int fd, unsigned int events)
{
	struct script_process *p = data;

	(void)events;
	for (unsigned int i = 0; i < 64; i++) {
		int n = daemon_link_recv(fd, p->packet, sizeof(p->packet));
		json_t *m;

		if (n <= 0)
			return;
		m = json_loadb(p->packet, (size_t)n, 0, NULL);
		if (m)
			handle(p, m);
		json_decref(m);
	}
}

static void on_supervisor(void *data, int fd, unsigned int events)
{
	struct script_process *p = data;
	char byte;

	(void)events;
	if (read(fd, &byte, 1) <= 0)
		loop_stop(p->loop);
}

/* Until the steward has answered: it may come later than we. */
static void on_hello_timer(void *data)
{
	struct script_process *p = data;

	if (!p->is_welcome)
		send_packet(p, json_pack("{s:s}", "type", "hello"));
}

static int open_host(struct script_process *p, char lua_dir[PATH_MAX], struct err *e)
{
	const struct config *c = p->ctx->config;
	struct script_options options = {.lua_dir = lua_dir,
					 .hooks_dir = c->drain_hooks_dir,
					 .memory_bytes = c->drain_hook_memory,
					 .cpu_ns = c->drain_hook_cpu,
					 .call = on_call,
					 .hook_done = on_hook_done,
					 .run_done = on_run_done,
					 .log = on_log,
					 .problem = on_problem,
					 .data = p};
	int r = script_find_lua_dir(c->drain_lua_dir, lua_dir, PATH_MAX);

	if (r < 0)
		return err_set(e, r, "drain.lua_dir: %s", err_text(r));
	return script_open(&options, &p->host, e);
}

int script_run(struct daemon_context *ctx)
{
	struct script_process p = {.ctx = ctx};
	char lua_dir[PATH_MAX];
	struct err e = {.text = ""};
	unsigned int problems;
	int r;

	r = loop_open(&p.loop);
	if (r < 0)
		err_set(&e, r, "event loop: %s", err_text(r));
	else
		r = open_host(&p, lua_dir, &e);
	if (!r) {
		problems = script_load(p.host);
		log_info("script", "hooks loaded", "lua_dir=%s hooks_dir=%s problems=%u", lua_dir,
			 ctx->config->drain_hooks_dir, problems);
		r = loop_add_fd(p.loop, ctx->supervisor_fd, LOOP_READ, on_supervisor, &p,
				&p.supervisor_watch);
	}
	if (!r && ctx->links[LINK_STEWARD_SCRIPT] >= 0)
		r = loop_add_fd(p.loop, ctx->links[LINK_STEWARD_SCRIPT], LOOP_READ, on_link, &p,
				&p.link_watch);
	if (!r)
		r = loop_add_timer(p.loop, 1, 250, on_hello_timer, &p, &p.hello_timer);
	if (!r)
		r = loop_run(p.loop);
	if (r < 0)
		log_error("script", "cannot run", "error=\"%s\"", e.text[0] ? e.text : err_text(r));
	stop_waits(&p, 0);
	p.host = script_close(p.host);
	loop_close(p.loop);
	return r < 0 ? EXIT_FAILED : EXIT_DONE;
}
