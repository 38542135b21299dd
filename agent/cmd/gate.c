/* SPDX-License-Identifier: Apache-2.0 */
/* Process gate: nanomsg between the door and the core. One thread besides nanomsg's own. */
#include "bus/gate.h"

#include "base/log.h"
#include "cmd/daemon.h"

#include <stdio.h>
#include <sys/stat.h>

#define REPORT_MS 10000

struct gate_process {
	struct loop *loop;
	struct gate *gate;
	struct gate_stats said;
};

static void on_supervisor(void *data, int fd, unsigned int events)
{
	struct gate_process *p = data;

	(void)fd;
	(void)events;
	loop_stop(p->loop);
}

/* Only what somebody should look at, and only when there is more of it. */
static void on_report(void *data)
{
	struct gate_process *p = data;
	struct gate_stats s;

	gate_stats(p->gate, &s);
	if (s.replies_dropped != p->said.replies_dropped ||
	    s.publish_dropped != p->said.publish_dropped || s.refused != p->said.refused)
		log_warning("gate", "dropped, the door is away or slow",
			    "replies=%lu published=%lu refused=%lu queued_bytes=%zu",
			    (unsigned long)(s.replies_dropped - p->said.replies_dropped),
			    (unsigned long)(s.publish_dropped - p->said.publish_dropped),
			    (unsigned long)(s.refused - p->said.refused), s.queued_bytes);
	if (s.has_core != p->said.has_core || s.core_connects > p->said.core_connects + 1)
		log_info("gate", s.has_core ? "the core is here" : "the core is away, not reading",
			 "connects=%lu", (unsigned long)s.core_connects);
	p->said = s;
}

static int gate_process_open(struct gate_process *p, struct daemon_context *ctx, struct err *e)
{
	struct loop_watch *watch;
	char dir[160];
	int r;

	snprintf(dir, sizeof(dir), "%.140s/private", ctx->config->_runtime_dir);
	r = loop_open(&p->loop);
	if (r < 0)
		return err_set(e, r, "event loop: %s", err_text(r));
	r = gate_open(p->loop, dir, &p->gate, e);
	if (r < 0)
		return r;
	r = loop_add_fd(p->loop, ctx->supervisor_fd, LOOP_READ, on_supervisor, p, &watch);
	if (r == 0)
		r = loop_add_timer(p->loop, REPORT_MS, REPORT_MS, on_report, p, &watch);
	return r < 0 ? err_set(e, r, "event loop: %s", err_text(r)) : 0;
}

int gate_run(struct daemon_context *ctx)
{
	struct gate_process p = {0};
	struct err e = {0};
	int r;

	/* nanomsg makes its sockets in the mode that this leaves: owner and group. */
	umask(0117);
	r = gate_process_open(&p, ctx, &e);
	if (r < 0)
		log_error("gate", "cannot begin", "why=\"%s\"", e.text);
	else
		loop_run(p.loop);
	gate_close(p.gate);
	loop_close(p.loop);
	return r < 0 ? EXIT_FAILED : EXIT_DONE;
}
