/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Process ferry of an aggregator that feeds upper ones: each tick it asks the core for the sums of
 * the fleet as a sealed frame, spools it, and sends it as an agent does. Spool and connections to
 * the outside live here, so that the core has neither. When it dies the next one goes on in the
 * same incarnation with a key frame. One loop, one thread.
 */
#include "base/clock.h"
#include "base/log.h"
#include "bus/ferrylink.h"
#include "cmd/daemon.h"
#include "cmd/dispatch.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define TICK_MS         1000
#define KEY_INTERVAL_NS (60 * NS_PER_S)
#define ANSWER_NS       (10 * NS_PER_S) /* so long a question waits before it is asked again */
#define END_NS          (2 * NS_PER_S)

struct ferry {
	const struct config *config;
	struct loop *loop;
	struct ferrylink *link;
	struct dispatch dispatch; /* its spool is NULL until the core has said hello */
	struct loop_watch *supervisor_watch, *tick_timer;
	struct ferrylink_counts counts; /* built and so on; the dispatch knows the rest */
	uint64_t cookie, kept;          /* of the last question, of the last answer spooled */
	uint64_t asked_ns;              /* 0: nothing is asked for */
	uint64_t key_ns, end_ns;
	enum frame_type asked_type;
	bool is_welcome, needs_key;
	int exit_code;
};

/* -------- frames -------- */

static void counts_fill(const struct ferry *f, struct ferrylink_counts *ret)
{
	struct dispatch_counts d;

	dispatch_counts(&f->dispatch, &d);
	*ret = f->counts;
	ret->pending_bytes = d.pending_bytes;
	ret->sent = d.sent;
	ret->acknowledged = d.acknowledged;
	memcpy(ret->drops, d.drops, sizeof(ret->drops));
}

static void ask(struct ferry *f, uint64_t now_ns)
{
	struct spool *spool = f->dispatch.spool;
	struct ferrylink_ask a = {
		.cookie = f->cookie + 1,
		.kept = f->kept,
		.sequence = spool_next_sequence(spool),
		.first_id = spool_first_id(spool),
		.interval_ms = TICK_MS,
		.type = f->needs_key                            ? FRAME_KEY
			: now_ns - f->key_ns >= KEY_INTERVAL_NS ? FRAME_TOTALS
								: FRAME_CHANGES,
	};

	/* As with another state of the core: the ferry after us begins a new incarnation. */
	if (spool_needs_anew(spool)) {
		log_warning("ferry", "ids of series come to an end, a new incarnation begins",
			    "next=%u", a.first_id);
		loop_stop(f->loop);
		return;
	}
	if (!f->is_welcome || (f->asked_ns && now_ns - f->asked_ns < ANSWER_NS))
		return;
	counts_fill(f, &a.counts);
	if (ferrylink_ask(f->link, &a) < 0)
		return;
	spool_told(spool);
	f->cookie = a.cookie;
	f->asked_ns = now_ns;
	f->asked_type = a.type;
}

static void on_answer(void *data, const struct ferrylink_answer *a)
{
	struct ferry *f = data;
	uint64_t now = clock_mono_ns();

	if (a->cookie != f->cookie)
		return; /* too late, it was asked anew */
	f->asked_ns = 0;
	/* What is not kept the core makes up for: its next answer is a key frame. */
	if (!a->size || dispatch_append(&f->dispatch, a->next_id, a->time_ms, a->data, a->size) < 0)
		return;
	f->kept = a->cookie;
	f->needs_key &= f->asked_type != FRAME_KEY;
	f->counts.built++;
	f->counts.frame_bytes += a->size;
	f->counts.frame_samples += a->samples;
	if (f->asked_type != FRAME_CHANGES)
		f->key_ns = now;
	dispatch_kick(&f->dispatch, now);
}

static void on_need_key(void *data)
{
	struct ferry *f = data;

	f->needs_key = true;
	if (!f->end_ns)
		ask(f, clock_mono_ns());
}

/* -------- the core -------- */

static int spool_begin(struct ferry *f, uint64_t life)
{
	const struct dispatch_options options = {
		.process = "ferry",
		.config = f->config,
		.life = life,
		.on_need_key = on_need_key,
		.data = f,
	};
	const struct uplink_options hello = {.agent = f->config->uplink_id, .is_sum = true};
	int r = dispatch_open(&f->dispatch, &options);

	if (r < 0)
		return r;
	dispatch_connect(&f->dispatch, f->loop, f->config, &hello);
	log_info("ferry", "started", "id=\"%s\" incarnation=%s sequence=%" PRIu64 " aggregators=%u",
		 f->config->uplink_id, spool_is_continued(f->dispatch.spool) ? "continued" : "new",
		 spool_next_sequence(f->dispatch.spool), f->dispatch.uplink_count);
	return 0;
}

/* Totals of another state of the fleet are of another incarnation: the ferry after us begins it. */
static void on_welcome(void *data, uint64_t life)
{
	struct ferry *f = data;
	int r = f->dispatch.spool ? spool_set_life(f->dispatch.spool, life) : spool_begin(f, life);

	if (r < 0) {
		if (r == -ESTALE) {
			log_warning("ferry",
				    "the core's state is another one, a new incarnation begins",
				    "%s", "");
		} else {
			log_error("ferry", "cannot begin", "why=\"%s\"", err_text(r));
			f->exit_code = EXIT_FAILED;
		}
		loop_stop(f->loop);
		return;
	}
	f->is_welcome = true;
	f->kept = 0;
	if (!f->end_ns)
		ask(f, clock_mono_ns());
}

static void on_core_lost(void *data)
{
	struct ferry *f = data;

	f->is_welcome = false;
	f->asked_ns = 0;
}

/* -------- life -------- */

static void on_tick(void *data)
{
	struct ferry *f = data;
	uint64_t now = clock_mono_ns();

	if (f->end_ns) {
		if (now >= f->end_ns || !f->dispatch.spool || dispatch_is_done(&f->dispatch))
			loop_stop(f->loop);
		return;
	}
	if (!f->dispatch.spool)
		return;
	ask(f, now);
	dispatch_kick(&f->dispatch, now); /* what waited for the disk, and cursors */
}

/* End of file: for a while we wait until what is spooled has arrived. The core ends too, what it
 * has not told yet it tells after its next start. */
static void on_supervisor(void *data, int fd, unsigned int events)
{
	struct ferry *f = data;

	(void)fd;
	(void)events;
	f->supervisor_watch = loop_remove(f->supervisor_watch);
	f->end_ns = clock_mono_ns() + END_NS;
	loop_set_timer(f->tick_timer, 1, 20);
}

static int ferry_open(struct ferry *f, struct daemon_context *ctx, struct err *e)
{
	const struct ferrylink_events events = {on_welcome, on_answer, on_core_lost, f};
	char path[512];
	int r;

	f->config = ctx->config;
	f->exit_code = EXIT_DONE;
	snprintf(path, sizeof(path), "%s/private/ferry.sock", ctx->config->_runtime_dir);
	r = loop_open(&f->loop);
	if (r >= 0)
		r = loop_add_fd(f->loop, ctx->supervisor_fd, LOOP_READ, on_supervisor, f,
				&f->supervisor_watch);
	if (r >= 0)
		r = loop_add_timer(f->loop, TICK_MS, TICK_MS, on_tick, f, &f->tick_timer);
	if (r < 0)
		return err_set(e, r, "event loop: %s", err_text(r));
	return ferrylink_open(f->loop, path, &events, &f->link, e);
}

int ferry_run(struct daemon_context *ctx)
{
	struct ferry f = {0};
	struct err e = {0};

	if (ferry_open(&f, ctx, &e) < 0) {
		log_error("ferry", "cannot begin", "why=\"%s\"", e.text);
		f.exit_code = EXIT_FAILED;
	} else {
		loop_run(f.loop);
	}
	ferrylink_close(f.link);
	dispatch_close(&f.dispatch);
	loop_close(f.loop);
	return f.exit_code;
}
