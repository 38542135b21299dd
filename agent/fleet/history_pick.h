/* SPDX-License-Identifier: Apache-2.0 */
/* Which series a reading is about. history_read.c's. */
#pragma once

#include "fleet/history_line.h"

struct history_picked_metric {
	uint32_t id;
	char *name, *shown[HISTORY_OUTPUTS_MAX]; /* shown: of a histogram's outputs, borrowed */
	char *bucket, *count, *sum;
	enum metric_kind kind;
	bool is_ns;
};

struct history_pick {
	uint32_t metric; /* index */
	uint32_t stream, id;
	uint32_t agent, labels; /* places in texts */
	uint32_t labels_size;
	unsigned int label_count;
	uint64_t first_ms, last_ms;
	uint64_t wanted; /* bit of each output */
};

struct history_picks {
	struct history_picked_metric *metrics;
	size_t metric_count;
	struct history_pick *items; /* by agent, stream, metric, labels, id */
	size_t count, capacity;
	struct pack texts;
};

int history_picks_find(struct history_store *s, const struct history_request *q,
		       const struct history_parts *parts, struct history_picks *ret, struct err *e);
void history_picks_fini(struct history_picks *p);

/* Same agent, stream, metric and labels. */
bool history_picks_same(const struct history_picks *p, size_t a, size_t b);
/* Name and labels of an output; borrows the picks. */
void history_picks_describe(const struct history_picks *p, size_t index,
			    const struct history_request *q, size_t output,
			    struct history_series *ret);
