/* SPDX-License-Identifier: Apache-2.0 */
/* Views of the fleet: all instances merged into one series, or each by itself. Pure. A view borrows
 * the fleet and is valid until the next change of it. */
#pragma once

#include "fleet/group.h"
#include "fleet/ingest.h"

enum merge_by { MERGE_BY_FLEET, MERGE_BY_INSTANCE };

/* Labels of a series with instance, worker, pod and node. */
#define MERGE_LABELS_MAX (GROUP_LABELS_MAX + 4)

struct merge_options {
	enum merge_by by;
	const char *metric; /* only this one; NULL: all */
	const char *agent;  /* only this one; NULL: all */
	uint64_t now_ms, stale_ms;
};

struct merge_series {
	const char *name, *unit, *help;
	enum metric_kind kind;
	enum metric_merge merge;
	enum metric_scope scope;
	unsigned int label_count;
	struct segment_label labels[MERGE_LABELS_MAX];
	uint64_t counter;
	double gauge;
	const uint64_t *cells; /* HIST_CELLS; borrowed until the next get, by fleet as the view */
};

struct merge_view;

/* Gauges of silent agents and of departed incarnations are left out; what they counted stays. */
int merge_view_new(const struct fleet *f, const struct merge_options *options,
		   struct merge_view **ret);
struct merge_view *merge_view_free(struct merge_view *v);
size_t merge_view_count(const struct merge_view *v);
/* False: no value. Ordered by name. */
bool merge_view_get(struct merge_view *v, size_t index, struct merge_series *ret);

struct merge_agent {
	const char *id;
	const char *labels[FLEET_AGENT_LABELS];
	uint8_t incarnation[FRAME_INCARNATION_BYTES]; /* the current one */
	uint32_t session, incarnations, series, interval_ms;
	uint64_t last_seen_ms, last_time_ms, sequence, missing, gaps, frames, bytes, samples;
};

size_t merge_agent_count(const struct fleet *f);
/* False: it has no incarnation any more. */
bool merge_agent_get(const struct fleet *f, size_t index, struct merge_agent *ret);
/* Agents heard of within this time. */
size_t merge_agents_live(const struct fleet *f, uint64_t now_ms, uint64_t stale_ms);

/* Each series that the frame names, with its value of now, labels in full. */
typedef int (*merge_series_fn)(void *data, const struct merge_series *series);
int merge_frame(const struct fleet *f, uint32_t session, const struct frame *frame,
		merge_series_fn fn, void *data);

/* What an id of the session's frames means: name and labels of the instance, no value. False: the
 * fleet does not know it. */
bool merge_describe(const struct fleet *f, uint32_t session, uint32_t id, struct merge_series *ret);

/* The gateways that series of the frame are about ("": none), each once unless there are many. */
typedef void (*merge_gateway_fn)(void *data, const char *gateway);
void merge_frame_gateways(const struct fleet *f, uint32_t session, const struct frame *frame,
			  merge_gateway_fn fn, void *data);
