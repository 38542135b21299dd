/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The core's side of the ferry: the sums of the fleet, as frames for upper aggregators. Knows only
 * what it told last; whoever does not say that it kept that gets totals.
 */
#include "cmd/core.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "bus/ferrylink.h"
#include "fleet/tributary.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct core_ferry {
	struct core *core;
	struct ferrylink_server *link;
	struct frame_encoder *encoder; /* NULL: the next answer is a key frame */
	uint64_t cookie;               /* of the last answer */
	uint64_t refused; /* sums that no frame takes, each time that they were left out */
	struct log_limit refused_said;
	struct ferrylink_counts counts, before;
	int failure; /* of the last answer, said once */
};

DEFINE_CLEANUP(struct merge_view *, merge_view_free)

static int encoder_begin(struct core_ferry *f, const struct ferrylink_ask *ask)
{
	int r;

	f->encoder = frame_encoder_free(f->encoder);
	r = frame_encoder_new(&f->encoder);
	if (r < 0)
		return r;
	return frame_encoder_continue(f->encoder, ask->first_id);
}

static void refused_say(struct core_ferry *f, uint64_t refused)
{
	uint64_t suppressed;

	f->refused += refused;
	if (refused && log_allowed(&f->refused_said, clock_mono_ns(), &suppressed))
		log_warning(
			"core",
			"sums are left out of what goes up: too many of them, or of their labels",
			"sums=%lu most=%u", (unsigned long)refused, FRAME_SERIES_MAX);
}

/* 1: a circle was found, the frame holds names alone. */
static int sums_encode(struct core_ferry *f, const struct ferrylink_ask *ask,
		       struct ferrylink_answer *answer)
{
	_cleanup_(merge_view_free_p) struct merge_view *view = NULL;
	const struct merge_options options = {
		.by = MERGE_BY_FLEET,
		.now_ms = answer->time_ms,
		.stale_ms = f->core->config->fleet_stale / NS_PER_MS,
	};
	enum frame_type type = ask->type;
	uint64_t refused = 0;
	int r, found;

	if (!f->encoder || !ask->kept || ask->kept != f->cookie) {
		r = encoder_begin(f, ask);
		if (r < 0)
			return r;
		type = FRAME_KEY;
	}
	r = merge_view_new(f->core->fleet, &options, &view);
	if (r < 0)
		return r;
	frame_encoder_begin(f->encoder, ask->sequence, answer->time_ms, ask->interval_ms, type);
	found = r = tributary_encode(view, f->core->config->uplink_id, f->encoder, &refused);
	refused_say(f, refused);
	if (r >= 0)
		r = frame_encoder_finish(f->encoder, &answer->data, &answer->size,
					 &answer->samples);
	if (r < 0)
		return r;
	f->cookie = ask->cookie;
	answer->next_id = frame_encoder_next_id(f->encoder);
	return found;
}

static void counts_add(struct ferrylink_counts *to, const struct ferrylink_counts *c)
{
	to->built += c->built;
	to->sent += c->sent;
	to->acknowledged += c->acknowledged;
	to->frame_bytes += c->frame_bytes;
	to->frame_samples += c->frame_samples;
	for (unsigned int i = 0; i < SPOOL_DROPS; i++)
		to->drops[i] += c->drops[i];
}

/* The ferry counts from 0 when it is another; what it had counted stays. */
static void counts_take(struct core_ferry *f, const struct ferrylink_counts *now, bool is_another)
{
	if (is_another)
		counts_add(&f->before, &f->counts);
	f->counts = *now;
}

static void say(struct core_ferry *f, int r)
{
	const char *id = f->core->config->uplink_id;

	if (r == f->failure)
		return;
	f->failure = r;
	if (r > 0)
		log_error("core",
			  "our own sums come back: aggregators feed each other in a circle, this "
			  "one sends none until that ends",
			  "id=\"%s\"", id);
	else if (r < 0)
		log_error("core", "no frame for the upper aggregators", "why=\"%s\"", err_text(r));
	else
		log_info("core", "the upper aggregators are fed again", "id=\"%s\"", id);
}

static void on_ask(void *data, const struct ferrylink_ask *ask)
{
	struct core_ferry *f = data;
	struct ferrylink_answer answer = {.cookie = ask->cookie,
					  .time_ms = clock_real_ns() / NS_PER_MS};
	int r;

	counts_take(f, &ask->counts, ask->cookie == 1);
	/* Nothing goes up that could be forgotten here. */
	if (core_commit(f->core) >= 0) {
		r = sums_encode(f, ask, &answer);
		if (r < 0) {
			f->encoder = frame_encoder_free(f->encoder);
			answer.size = 0;
		}
		say(f, r);
	}
	ferrylink_answer(f->link, &answer); /* an answer that is lost is asked for again */
}

int core_ferry_open(struct core *c, struct err *e)
{
	struct core_ferry *f;
	char path[512];

	if (!c->config->uplink_aggregators.count)
		return 0;
	f = calloc(1, sizeof(*f));
	if (!f)
		return err_set(e, -ENOMEM, "ferry: out of memory");
	f->core = c;
	f->refused_said.interval_ns = 60 * NS_PER_S;
	c->ferry = f;
	snprintf(path, sizeof(path), "%s/private/ferry.sock", c->config->_runtime_dir);
	return ferrylink_server_open(c->loop, path, fleet_life(c->fleet), on_ask, f, &f->link, e);
}

void core_ferry_close(struct core *c)
{
	struct core_ferry *f = c->ferry;

	if (!f)
		return;
	ferrylink_server_close(f->link);
	frame_encoder_free(f->encoder);
	free(f);
	c->ferry = NULL;
}

static void row_add(struct core_row *rows, size_t *n, enum metric_id id, const char *key,
		    const char *value, uint64_t count)
{
	rows[(*n)++] = (struct core_row){id, key, value, count};
}

size_t core_ferry_rows(const struct core *c, struct core_row rows[CORE_FERRY_ROWS])
{
	const struct core_ferry *f = c->ferry;
	struct ferrylink_counts s;
	size_t n = 0;

	if (!f)
		return 0;
	s = f->before;
	counts_add(&s, &f->counts);
	row_add(rows, &n, METRIC_ID_SPOOL_BYTES, NULL, NULL, f->counts.pending_bytes);
	for (unsigned int i = 0; i < SPOOL_DROPS; i++)
		row_add(rows, &n, METRIC_ID_SPOOL_DROPPED, "reason", spool_drop_reasons[i],
			s.drops[i]);
	row_add(rows, &n, METRIC_ID_FRAMES, "state", "built", s.built);
	row_add(rows, &n, METRIC_ID_FRAMES, "state", "sent", s.sent);
	row_add(rows, &n, METRIC_ID_FRAMES, "state", "acknowledged", s.acknowledged);
	row_add(rows, &n, METRIC_ID_FRAME_BYTES, NULL, NULL, s.frame_bytes);
	row_add(rows, &n, METRIC_ID_FRAME_SAMPLES, NULL, NULL, s.frame_samples);
	row_add(rows, &n, METRIC_ID_AGGREGATOR_REFUSED, "what", "sum", f->refused);
	return n;
}
