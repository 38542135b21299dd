/* SPDX-License-Identifier: Apache-2.0 */
/* Runs of hooks as the steward sees them. Owns no descriptor (the link is the supervisor's). */
#include "drain/hookline.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "drain/target.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define PACKET_MAX 65536
/* A run that no script process has taken by then goes the built-in way. */
#define UNSENT_NS (2 * NS_PER_S)
#define PING_NS   (500 * NS_PER_MS)

struct run {
	uint64_t id, since_ns, until_ns, deadline_ns;
	bool is_sent;
	unsigned int ran, failed; /* hooks that told their end */
	const char *point;
	char gateway[64], instance[64], driver[16], reason[16];
};

struct hookline {
	struct hookline_options options;
	struct loop_watch *watch;
	struct run runs[SCRIPT_RUNS_MAX];
	uint64_t next_id;
	uint32_t pid; /* 0: none has said hello */
	uint64_t pid_start, heard_ns, pinged_ns, tick_ns;
	unsigned int kills;
	char packet[PACKET_MAX];
};

static int send_packet(struct hookline *h, json_t *message)
{
	char *text = message ? json_dumps(message, JSON_COMPACT) : NULL;
	int r = text ? 0 : -ENOMEM;

	json_decref(message);
	if (text && send(h->options.fd, text, strlen(text), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		r = -errno;
	free(text);
	return r;
}

static struct run *find(struct hookline *h, uint64_t id)
{
	for (unsigned int i = 0; i < SCRIPT_RUNS_MAX; i++)
		if (id && h->runs[i].id == id)
			return &h->runs[i];
	return NULL;
}

static void send_run(struct hookline *h, struct run *run)
{
	json_t *m = json_pack("{s:s,s:I,s:s,s:s,s:s,s:s,s:s,s:I,s:I}", "type", "run", "run",
			      (json_int_t)run->id, "point", run->point, "gateway", run->gateway,
			      "instance", run->instance, "driver", run->driver, "reason",
			      run->reason, "deadline_ns", (json_int_t)run->deadline_ns, "until_ns",
			      (json_int_t)run->until_ns);

	if (send_packet(h, m) < 0)
		return;
	run->is_sent = true;
	h->heard_ns = clock_mono_ns();
}

uint64_t hookline_run(struct hookline *h, const struct hookline_event *event)
{
	struct run *run = NULL;

	for (unsigned int i = 0; !run && i < SCRIPT_RUNS_MAX; i++)
		if (!h->runs[i].id)
			run = &h->runs[i];
	if (!run)
		return 0;
	memset(run, 0, sizeof(*run));
	run->id = h->next_id++;
	run->since_ns = clock_mono_ns();
	run->until_ns = event->until_ns;
	run->deadline_ns = event->deadline_ns;
	run->point = event->point;
	str_copy(run->gateway, sizeof(run->gateway), event->gateway);
	str_copy(run->instance, sizeof(run->instance), event->instance);
	str_copy(run->driver, sizeof(run->driver), event->driver);
	str_copy(run->reason, sizeof(run->reason), event->reason);
	if (h->pid)
		send_run(h, run);
	return run->id;
}

void hookline_cancel(struct hookline *h, uint64_t id)
{
	struct run *run = find(h, id);

	if (!run)
		return;
	if (run->is_sent)
		send_packet(h, json_pack("{s:s,s:I}", "type", "cancel", "run", (json_int_t)id));
	memset(run, 0, sizeof(*run));
}

void hookline_answer(struct hookline *h, uint64_t run, uint64_t call, bool is_ok, const char *error,
		     json_t *numbers)
{
	send_packet(h, json_pack("{s:s,s:I,s:I,s:b,s:s,s:o}", "type", "answer", "run",
				 (json_int_t)run, "call", (json_int_t)call, "ok", is_ok, "error",
				 error, "numbers", numbers ? numbers : json_object()));
}

static void finish(struct hookline *h, struct run *run, unsigned int ran, unsigned int failed,
		   bool has_acted)
{
	uint64_t id = run->id;

	memset(run, 0, sizeof(*run));
	h->options.done(h->options.data, id, ran, failed, has_acted);
}

/* The script process is no more (or never was): what it had taken has failed. */
static void lose_process(struct hookline *h)
{
	h->pid = 0;
	for (unsigned int i = 0; i < SCRIPT_RUNS_MAX; i++) {
		struct run *run = &h->runs[i];

		if (run->id && run->is_sent)
			finish(h, run, run->ran + 1, run->failed + 1, false);
	}
}

static void handle_hello(struct hookline *h, uint32_t pid)
{
	if (h->pid && h->pid != pid)
		lose_process(h);
	if (target_start_time(pid, &h->pid_start) < 0)
		return;
	h->pid = pid;
	h->heard_ns = clock_mono_ns();
	send_packet(h, json_pack("{s:s,s:I}", "type", "welcome", "pid", (json_int_t)pid));
	for (unsigned int i = 0; i < SCRIPT_RUNS_MAX; i++)
		if (h->runs[i].id && !h->runs[i].is_sent)
			send_run(h, &h->runs[i]);
}

static const char *get_text(const json_t *m, const char *key)
{
	const char *s = json_string_value(json_object_get(m, key));

	return s ? s : "";
}

static uint64_t get_u64(const json_t *m, const char *key)
{
	json_int_t v = json_integer_value(json_object_get(m, key));

	return v > 0 ? (uint64_t)v : 0;
}

static void handle_run_packet(struct hookline *h, const json_t *m, const char *type)
{
	struct run *run = find(h, get_u64(m, "run"));
	enum script_op op;

	if (!run || !run->is_sent)
		return;
	if (str_equal(type, "call")) {
		op = script_op_find(get_text(m, "op"));
		h->options.call(h->options.data, run->id, get_u64(m, "call"), op,
				json_number_value(json_object_get(m, "number")),
				get_text(m, "text"));
	} else if (str_equal(type, "hook")) {
		bool is_ok = json_is_true(json_object_get(m, "ok"));

		run->ran++;
		run->failed += !is_ok;
		h->options.hook_ran(h->options.data, run->id, get_text(m, "name"), is_ok,
				    (uint32_t)get_u64(m, "ms"), get_text(m, "error"));
	} else if (str_equal(type, "done")) {
		finish(h, run, (unsigned int)get_u64(m, "ran"), (unsigned int)get_u64(m, "failed"),
		       json_is_true(json_object_get(m, "acted")));
	}
}

static void handle(struct hookline *h, const json_t *m, uint32_t pid)
{
	const char *type = get_text(m, "type");

	if (str_equal(type, "hello")) {
		handle_hello(h, pid);
		return;
	}
	/* Words of a process that is dead, or that has not said hello, mean nothing. */
	if (pid != h->pid)
		return;
	h->heard_ns = clock_mono_ns();
	handle_run_packet(h, m, type);
}

/* One packet with the kernel's word on its sender. */
static int receive(struct hookline *h, uint32_t *ret_pid)
{
	union {
		char buf[CMSG_SPACE(sizeof(struct ucred))];
		struct cmsghdr align;
	} control;
	struct iovec iov = {.iov_base = h->packet, .iov_len = sizeof(h->packet)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.buf,
			     .msg_controllen = sizeof(control.buf)};
	ssize_t n = recvmsg(h->options.fd, &msg, MSG_DONTWAIT);
	struct cmsghdr *c;
	struct ucred who;

	*ret_pid = 0;
	if (n <= 0)
		return n < 0 ? -errno : -ENOTCONN;
	for (c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_CREDENTIALS)
			continue;
		memcpy(&who, CMSG_DATA(c), sizeof(who));
		*ret_pid = (uint32_t)who.pid;
	}
	return msg.msg_flags & MSG_TRUNC ? 0 : (int)n;
}

static void on_link(void *data, int fd, unsigned int events)
{
	struct hookline *h = data;

	(void)fd;
	(void)events;
	for (unsigned int i = 0; i < 64; i++) {
		uint32_t pid;
		int n = receive(h, &pid);
		json_t *m;

		if (n < 0)
			return;
		m = json_loadb(h->packet, (size_t)n, 0, NULL);
		if (m && pid)
			handle(h, m, pid);
		json_decref(m);
	}
}

static void kill_process(struct hookline *h)
{
	int r = target_signal(h->pid, h->pid_start, SIGKILL);

	h->kills++;
	log_warning("steward", "script process does not answer, killed", "pid=%u result=\"%s\"",
		    h->pid, r < 0 ? err_text(r) : "ok");
	lose_process(h);
}

void hookline_tick(struct hookline *h, uint64_t now_ns)
{
	bool is_busy = false;

	/* Silence counts only while we run ourselves: who was stopped with us, or whose words still
	 * wait to be read, has not been silent. */
	if (now_ns > h->tick_ns + PING_NS)
		h->heard_ns = now_ns;
	h->tick_ns = now_ns;
	for (unsigned int i = 0; i < SCRIPT_RUNS_MAX; i++) {
		struct run *run = &h->runs[i];

		if (run->id && !run->is_sent &&
		    (h->options.fd < 0 || now_ns > run->since_ns + UNSENT_NS))
			finish(h, run, 0, 0, false);
		else if (run->id && run->is_sent)
			is_busy = true;
	}
	if (!h->pid)
		return;
	if (!target_is_alive(h->pid, h->pid_start)) {
		lose_process(h);
		return;
	}
	if (!is_busy)
		return;
	if (now_ns > h->heard_ns + h->options.quiet_ns) {
		kill_process(h);
	} else if (now_ns > h->pinged_ns + PING_NS) {
		h->pinged_ns = now_ns;
		send_packet(h, json_pack("{s:s}", "type", "ping"));
	}
}

unsigned int hookline_open_runs(const struct hookline *h)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < SCRIPT_RUNS_MAX; i++)
		n += h->runs[i].id != 0;
	return n;
}

unsigned int hookline_kills(const struct hookline *h)
{
	return h->kills;
}

int hookline_open(const struct hookline_options *options, struct hookline **ret, struct err *e)
{
	struct hookline *h = calloc(1, sizeof(*h));
	int one = 1, r = 0;

	if (!h)
		return err_set(e, -ENOMEM, "script link: out of memory");
	h->options = *options;
	/* Answers to the runs of an earlier steward must not look like answers to ours. */
	h->next_id = (clock_mono_ns() / NS_PER_MS << 12 & INT64_MAX) | 1;
	if (options->fd >= 0) {
		if (setsockopt(options->fd, SOL_SOCKET, SO_PASSCRED, &one, sizeof(one)) < 0)
			r = -errno;
		if (!r)
			r = loop_add_fd(options->loop, options->fd, LOOP_READ, on_link, h,
					&h->watch);
	}
	if (r < 0) {
		free(h);
		return err_set(e, r, "script link: %s", err_text(r));
	}
	if (options->fd >= 0)
		send_packet(h, json_pack("{s:s}", "type", "who"));
	*ret = h;
	return 0;
}

struct hookline *hookline_close(struct hookline *h)
{
	if (!h)
		return NULL;
	loop_remove(h->watch);
	free(h);
	return NULL;
}
