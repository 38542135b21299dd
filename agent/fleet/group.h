/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Series of the fleet: metric and labels without instance and worker. Each holds what departed
 * incarnations counted, so that a fleet counter never falls. Pure.
 */
#pragma once

#include "metrics.h"
#include "segment/reader.h"

#include <stdbool.h>
#include <stdint.h>

/* Labels of a series and of the agent that sent it. */
#define GROUP_LABELS_MAX (SEGMENT_LABELS_MAX + 4)

/* What all series of one name share. The first definition of a name decides. */
struct group_metric {
	char *name, *unit, *help;
	enum metric_kind kind;
	enum metric_merge merge;
	enum metric_scope scope;
};

struct group {
	uint32_t metric; /* index */
	uint32_t hash;
	uint8_t label_count;
	uint8_t gateway; /* index of its label's value; GROUP_GATEWAYS: one of many */
	union {
		uint64_t counter;
		uint64_t *cells; /* HIST_CELLS, NULL while all are 0 */
	} base;
	struct segment_label labels[]; /* sorted by key; strings follow in the same allocation */
};

#define GROUP_GATEWAYS 63

struct group_table {
	struct group **groups;
	uint32_t count, capacity;
	uint32_t *buckets; /* index + 1, 0 free; a power of two of them */
	uint32_t bucket_count;
	struct group_metric *metrics;
	uint32_t metric_count, metric_capacity;
	uint32_t *metric_buckets;
	uint32_t metric_bucket_count;
	uint32_t limit;
	const char *gateways[GROUP_GATEWAYS]; /* the first that came; "" for none */
	uint8_t gateway_count;
};

struct group_key {
	const char *metric, *unit, *help;
	enum metric_kind kind;
	enum metric_merge merge;
	enum metric_scope scope;
	unsigned int label_count;
	struct segment_label labels[GROUP_LABELS_MAX];
};

void group_table_init(struct group_table *t, uint32_t limit);
void group_table_fini(struct group_table *t);

/* Finds or makes the group; sorts the key's labels. -EEXIST when the name is of another kind,
 * -EINVAL for a name or label that no outlet could print or two labels of one name, -ENOSPC at the
 * limit, -ENOMEM. */
int group_intern(struct group_table *t, struct group_key *key, uint32_t *ret);

/* Value of the label `gateway`, "" without. Borrowed for the life of the table. */
const char *group_gateway(const struct group *g);

/* Adds to the base. */
int group_add_cells(struct group *g, unsigned int first, unsigned int n, const uint64_t *counts);

/* By metric name, then labels. */
int group_compare(const struct group_table *t, uint32_t a, uint32_t b);
/* Indices of all groups ordered by metric name, then labels; the caller frees. */
int group_order(const struct group_table *t, uint32_t **ret);
