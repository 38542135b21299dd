/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stored history as series of points: for queries, and made for scale/, which does not read it yet.
 * Reads the database with a connection of its own, beside the thread that writes, and what that has
 * in memory still. For one thread, which may be any.
 *
 * A counter's points are its totals (nanoseconds as seconds), one each tick from the first that is
 * known; a histogram is shown as Prometheus shows it: x_bucket with `le`, x_count, x_sum. Labels are
 * those of the instance. A life of an agent (incarnation) is a series of its own: two may have the
 * same labels, one after the other.
 */
#pragma once

#include "base/point.h"
#include "fleet/history.h"

#define HISTORY_BOUNDS_MAX 31u
#define HISTORY_PICKS_MAX  400000u      /* series of one reading */
#define HISTORY_BYTES_MAX  (256u << 20) /* of points, of one life of an agent at a time */
#define HISTORY_TICKED_MAX 20000u       /* minutes of instances; more are read by their ends */

struct history_reader;

struct history_series {
	const char *agent, *name;
	enum metric_kind kind;
	unsigned int label_count;
	struct segment_label labels[HISTORY_LABELS_MAX + 1]; /* by key */
	const struct point *points;                          /* by time */
	size_t point_count;
};

struct history_request {
	uint64_t from_ms, to_ms;
	bool may_thin; /* the ends of minutes are enough where ticks would be too many */
	/* Upper bounds of buckets, ascending, and their `le`; one more le, of infinity. */
	const uint64_t *bounds_ns;
	const char *const *les;
	size_t bound_count;
	size_t bytes_max; /* 0: HISTORY_BYTES_MAX */
	/* Which series, by name (x_bucket …), then by their labels; NULL: all. */
	bool (*wants_name)(void *data, const char *name);
	bool (*wants)(void *data, const struct history_series *series);
	/* By agent, in no other order. A non-zero answer ends it and is returned. */
	int (*fn)(void *data, const struct history_series *series);
	/* Asked now and then; NULL: never over. */
	bool (*is_over)(void *data);
	void *data;
};

/* history: what is in memory; NULL: only what is in the database. */
int history_reader_open(const char *path, struct history *history, struct history_reader **ret,
			struct err *e);
struct history_reader *history_reader_close(struct history_reader *r);

/* -E2BIG: a limit above, e says which; -ETIMEDOUT: is_over said so; -EIO, -ENOMEM. */
int history_read(struct history_reader *r, const struct history_request *q, struct err *e);
/* Names and labels alone: series have no points, and not all need to have any then. */
int history_list(struct history_reader *r, const struct history_request *q, struct err *e);
/* Names of metrics that are or were there. */
int history_metrics(struct history_reader *r, history_metric_fn fn, void *data, struct err *e);
