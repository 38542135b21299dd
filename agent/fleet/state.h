/* SPDX-License-Identifier: Apache-2.0 */
/* What the fleet is made of. Internal to agent/fleet/: ingest changes it, merge and snapshot read
 * it. */
#pragma once

#include "fleet/group.h"
#include "fleet/ingest.h"
#include "fleet/sequence.h"

#define FLEET_MAGIC        0x464c4545u
#define FLEET_NO_SERIES    UINT32_MAX /* a definition that was refused */
#define FLEET_DEPARTED_MAX 32         /* remembered incarnations of one agent that were folded */
#define FLEET_ORIGINS_MAX  4096
#define FLEET_IDS_MAX      (1u << 20)
#define FLEET_HELD_MAX     (1u << 20) /* bytes of one incarnation */

/* The cells from first on; most histograms fill a few dozen neighbours. */
struct cell_window {
	uint16_t first, count;
	uint64_t counts[];
};

struct fleet_series {
	uint32_t group, origin;
	uint64_t sequence; /* gauge: frame of its value; else: key frame of its total, 0 none */
	union {
		uint64_t counter;
		double gauge;
		struct cell_window *cells; /* NULL while all are 0 */
	} v;
	uint8_t kind;
	bool is_present; /* gauges */
};

/* What tells series of one group and incarnation apart. */
struct fleet_origin {
	char *instance, *worker; /* "" without; one allocation */
};

struct fleet_id {
	uint32_t id, series; /* series FLEET_NO_SERIES: refused */
};

/*
 * Increments of a frame that came while an earlier one is missing: that one may be a key frame, and
 * its totals then need them on top. Words: series, n, then n times cell (0 for a counter), value.
 */
struct fleet_held {
	uint64_t sequence;
	uint32_t word_count;
	uint64_t *words;
};

/* Of one moment: what all event loops of the agent counted as busy. */
struct fleet_load {
	uint64_t time_ms, busy_ns;
	double workers;
};

#define FLEET_LOADS 16

struct fleet_incarnation {
	uint8_t id[FRAME_INCARNATION_BYTES];
	struct fleet_agent *agent;
	uint32_t session, slot;
	struct sequence_set applied;
	uint64_t whole_key; /* highest key frame that listed every series with a value */
	uint64_t last_seen_ms, last_time_ms, time_sequence;
	uint32_t interval_ms;
	uint32_t live_series; /* as of live_sequence */
	uint64_t live_sequence;
	uint64_t frames, bytes, samples, gaps;
	struct fleet_series *series;
	uint32_t series_count, series_capacity;
	uint32_t *buckets; /* by group and origin; index + 1 */
	uint32_t bucket_count;
	struct fleet_origin *origins;
	uint32_t origin_count, origin_capacity;
	struct fleet_id *ids; /* ascending */
	uint32_t id_count, id_capacity;
	struct fleet_held *held; /* ascending by sequence */
	uint32_t held_count, held_capacity;
	size_t held_bytes;
	struct fleet_load load[FLEET_LOADS];
	uint32_t load_count; /* of all time; the array is a ring */
	uint32_t history;    /* what history*.c calls it in this life; 0: nothing yet */
	uint64_t history_ms; /* newest frame that it was told */
	uint64_t
		history_retry_ns; /* its definitions found no room: not before; UINT64_MAX: never */
};

struct fleet_agent {
	char *id;
	char *labels[FLEET_AGENT_LABELS];
	bool is_sum; /* an aggregator of a fleet of its own */
	struct fleet_incarnation *incarnations[FLEET_INCARNATIONS_MAX];
	uint32_t incarnation_count;
	uint8_t departed[FLEET_DEPARTED_MAX][FRAME_INCARNATION_BYTES];
	uint32_t departed_count; /* of all time; the array is a ring */
};

struct fleet {
	uint32_t magic;
	struct fleet_limits limits;
	struct group_table groups;
	struct fleet_incarnation **slots; /* see session.c */
	uint32_t slot_count;
	uint32_t *session_buckets; /* by session; slot + 1 */
	uint32_t session_bucket_count;
	uint64_t next_session; /* how many were drawn */
	uint64_t life;         /* 0: none yet */
	struct fleet_agent **agents;
	uint32_t agent_count, agent_capacity;
	uint32_t *agent_buckets;
	uint32_t agent_bucket_count;
	uint64_t series_count;
	struct fleet_stats stats;
};

extern const char *const fleet_label_names[FLEET_AGENT_LABELS];

/* session.c */
struct fleet_incarnation *fleet_find_session(const struct fleet *f, uint32_t session);
/* Gives the incarnation a slot and the session that the log states, or (0) a new one. -ENOSPC,
 * -ENOMEM. */
int fleet_session_begin(struct fleet *f, struct fleet_incarnation *inc, uint32_t session);
void fleet_session_end(struct fleet *f, struct fleet_incarnation *inc);

/* agents.c */
struct fleet_agent *fleet_find_agent(const struct fleet *f, const char *id);
/* Makes the agent (labels may be NULL) or finds it. */
int fleet_add_agent(struct fleet *f, const char *id, const char *const *labels,
		    struct fleet_agent **ret);
int fleet_add_incarnation(struct fleet *f, struct fleet_agent *agent, const uint8_t *id,
			  uint32_t session, struct fleet_incarnation **ret);
void fleet_fold(struct fleet *f, struct fleet_incarnation *inc);
bool fleet_agent_departed(const struct fleet_agent *agent, const uint8_t *id);
/* The incarnation whose ticks are the latest: the one whose gauges count. */
struct fleet_incarnation *fleet_current(const struct fleet_agent *agent);

/* series.c */
int fleet_origin_intern(struct fleet_incarnation *inc, const char *instance, const char *worker,
			uint32_t *ret);
/* Finds or adds; -ENOSPC at a limit. */
int fleet_series_intern(struct fleet *f, struct fleet_incarnation *inc, uint32_t group,
			uint32_t origin, enum metric_kind kind, uint32_t *ret);
/* FLEET_NO_SERIES - 1: no such pair. */
uint32_t fleet_series_find(const struct fleet_incarnation *inc, uint32_t group, uint32_t origin);
uint32_t fleet_origin_find(const struct fleet_incarnation *inc, const char *instance,
			   const char *worker);
#define FLEET_NOT_FOUND (UINT32_MAX - 1)
const struct fleet_id *fleet_id_find(const struct fleet_incarnation *inc, uint32_t id);
int fleet_id_add(struct fleet_incarnation *inc, uint32_t id, uint32_t series);
void fleet_incarnation_clear(struct fleet_incarnation *inc);

/* cells.c: windows of cells; *w may be NULL. -ENOMEM leaves them as they were. */
int cell_window_reach(struct cell_window **w, unsigned int first, unsigned int last);
/* Reserved before with reach. */
void cell_window_add(struct cell_window *w, unsigned int cell, uint64_t count);
/* Each cell to that of the other (may be NULL) where that is more. -ENOMEM. */
int cell_window_raise(struct cell_window **w, const struct cell_window *by);

/* load.c: after the newest frame was applied */
void load_sample(const struct fleet *f, struct fleet_incarnation *inc);

/* held.c */
void held_fini(struct fleet_incarnation *inc);
/* Keeps the increments of a frame whose ids are all known. -ENOMEM. */
int held_keep(struct fleet *f, struct fleet_incarnation *inc, const struct frame *frame);
int held_restore(struct fleet *f, struct fleet_incarnation *inc, uint64_t sequence,
		 const uint64_t *words, uint32_t word_count);
void held_drop(struct fleet *f, struct fleet_incarnation *inc, uint64_t upto);
