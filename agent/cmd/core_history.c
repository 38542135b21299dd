/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The core and its history: frames go to it as they are applied, and a fold of the commit log, after
 * which frames are in no log any more, waits until it has them. Without a history the aggregator
 * runs all the same.
 */
#include "cmd/core.h"

#include "cmd/core_query.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define FILE_NAME "history.db"
/* A log of so many times its limit is folded whatever the history's disk does. */
#define PATIENCE 4
/* Where nothing goes on meanwhile, at the start and at the end: within what the supervisor gives. */
#define WAIT_MS 2000

/* -------- folds -------- */

static void fold_write(struct core *c)
{
	struct err e = {0};

	if (commitlog_fold(c->log, core_save, c, &e) < 0)
		log_error("core", "snapshot failed", "why=\"%s\"", e.text);
	else
		log_info("core", "snapshot written", "agents=%zu", merge_agent_count(c->fleet));
}

static bool is_log_long(const struct core *c)
{
	return commitlog_stats(c->log)->bytes >= PATIENCE * c->config->fleet_log_bytes;
}

void core_fold(struct core *c)
{
	bool is_reached = true;

	if (c->history) {
		if (!c->is_folding)
			history_fold_begin(c->history);
		is_reached = history_fold_wait(c->history, WAIT_MS);
	}
	/* What history lacks is in the log: the next start gives it once more. A damaged log is
	 * written anew all the same. */
	if (is_reached || !c->is_ready || is_log_long(c))
		fold_write(c);
	else
		log_warning("core", "history is slow, the log is left as it is", "log_bytes=%lu",
			    (unsigned long)commitlog_stats(c->log)->bytes);
	if (c->history)
		history_fold_end(c->history);
	c->is_folding = false;
}

static void fold_continue(struct core *c)
{
	if (!c->is_folding || !history_fold_is_reached(c->history) || core_commit(c) < 0)
		return;
	fold_write(c);
	history_fold_end(c->history);
	c->is_folding = false;
}

void core_fold_begin(struct core *c)
{
	if (!c->history) {
		fold_write(c);
	} else if (!c->is_folding) {
		c->is_folding = history_fold_begin(c->history);
	} else if (is_log_long(c)) {
		log_warning("core", "history is slow, the log is folded without waiting for it",
			    "log_bytes=%lu", (unsigned long)commitlog_stats(c->log)->bytes);
		fold_write(c);
	}
}

static void on_reached(void *data, int fd, unsigned int events)
{
	(void)fd;
	(void)events;
	fold_continue(data);
}

/* -------- frames -------- */

void core_on_sealed(void *data, uint32_t session, const struct frame *frame, const uint8_t *sealed,
		    size_t size)
{
	struct core *c = data;

	if (!c->history)
		return;
	/* A replay is faster than a disk, and nobody waits for an answer yet. */
	if (!c->is_ready)
		history_wait(c->history);
	history_take(c->history, c->fleet, session, frame, sealed, size);
}

int core_replay(void *data, uint32_t type, const uint8_t *payload, size_t size)
{
	struct core *c = data;

	if (type != HISTORY_RECORD)
		return uplink_replay(&c->uplink, type, payload, size);
	if (!c->history)
		return 0;
	history_wait(c->history);
	return history_restore(c->history, c->fleet, payload, size);
}

/* -------- life -------- */

void core_history_open(struct core *c)
{
	const struct history_options options = {
		.ticks_ms = c->config->fleet_history_ticks / NS_PER_MS,
		.keep_ms = c->config->fleet_history / NS_PER_MS,
		.bytes_max = c->config->fleet_history_bytes,
	};
	struct err e = {0};
	char path[512];

	if (!options.bytes_max)
		return;
	if (snprintf(path, sizeof(path), "%s/" FILE_NAME, c->config->fleet_data_dir) >=
		    (int)sizeof(path) ||
	    history_open(path, &options, &c->history, &e) < 0) {
		log_error("core", "history cannot be kept, going on without", "why=\"%s\"", e.text);
		return;
	}
	if (core_query_open(path, c->history, &c->query, &e) < 0)
		log_error("core", "history cannot be asked", "why=\"%s\"", e.text);
	if (loop_add_fd(c->loop, history_fd(c->history), LOOP_READ, on_reached, c,
			&c->history_watch) < 0)
		log_warning("core", "folds are noticed late", "why=\"%s\"", err_text(-ENOMEM));
}

void core_history_close(struct core *c)
{
	c->history_watch = loop_remove(c->history_watch);
	c->query = core_query_close(c->query);
	c->history = history_close(c->history);
}

void core_history_second(struct core *c)
{
	struct history_counts counts;

	if (!c->history)
		return;
	fold_continue(c);
	history_counts(c->history, &counts);
	if (counts.is_failing && !c->is_history_failing)
		log_error("core", "history cannot be written, trying again", "why=\"%s\"",
			  counts.why);
	else if (!counts.is_failing && c->is_history_failing)
		log_info("core", "history is written again", "failures=%lu frames_lost=%lu",
			 (unsigned long)counts.failures, (unsigned long)counts.frames_lost);
	c->is_history_failing = counts.is_failing;
}

size_t core_history_rows(const struct core *c, struct core_row rows[CORE_HISTORY_ROWS])
{
	struct history_counts n;

	if (!c->history)
		return 0;
	history_counts(c->history, &n);
	const struct core_row all[CORE_HISTORY_ROWS] = {
		{METRIC_ID_HISTORY_FRAMES, "state", "written", n.store.frames_written},
		{METRIC_ID_HISTORY_FRAMES, "state", "refused", n.frames_refused},
		{METRIC_ID_HISTORY_FRAMES, "state", "late", n.store.frames_late},
		{METRIC_ID_HISTORY_FRAMES, "state", "dropped", n.frames_dropped},
		{METRIC_ID_HISTORY_FRAMES, "state", "lost", n.frames_lost},
		{METRIC_ID_HISTORY_FRAMES, "state", "unread", n.store.frames_unread},
		{METRIC_ID_HISTORY_BLOCKS, "state", "written", n.store.minutes_written},
		{METRIC_ID_HISTORY_BLOCKS, "state", "expired", n.store.minutes_expired},
		{METRIC_ID_HISTORY_BLOCKS, "state", "evicted", n.store.minutes_evicted},
		{METRIC_ID_HISTORY_BLOCKS, "state", "damaged", n.store.minutes_damaged},
		{METRIC_ID_HISTORY_BYTES, "where", "disk", n.store.bytes},
		{METRIC_ID_HISTORY_BYTES, "where", "memory", n.open_bytes},
		{METRIC_ID_HISTORY_BYTES, "where", "queue", n.queue_bytes},
		{METRIC_ID_HISTORY_FAILURES, NULL, NULL, n.failures},
	};

	memcpy(rows, all, sizeof(all));
	return CORE_HISTORY_ROWS;
}
