/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fleet's state and how frames change it. Pure: no I/O, time comes as now_ms (Unix, ms). The
 * aggregator's core owns one. Applying is harmless in any order and any number of times:
 *
 *   total of a series = total of the highest key frame that lists it
 *                     + its increments in frames with a higher sequence
 *   total of a group  = base (departed incarnations) + totals of all incarnations
 */
#pragma once

#include "bus/frame.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FLEET_AGENT_LABELS     4 /* cluster, namespace, pod, node */
#define FLEET_INCARNATIONS_MAX 8 /* of one agent; the one silent for longest departs first */

struct fleet;

struct fleet_limits {
	uint32_t agents;
	uint32_t agent_series; /* of one incarnation */
	uint32_t series;       /* of all */
};

struct fleet_hello {
	const char *agent;
	const uint8_t *incarnation;             /* FRAME_INCARNATION_BYTES */
	const char *labels[FLEET_AGENT_LABELS]; /* values, "" where unknown */
	bool is_sum; /* an aggregator: its series are sums of a fleet (fleet/tributary.h) */
};

enum fleet_verdict {
	FLEET_APPLIED,
	FLEET_DUPLICATE,  /* was applied before: acknowledge it, nothing changed */
	FLEET_NEED_HELLO, /* the session is unknown */
	FLEET_NEED_KEY,  /* not applied: it names an unknown series, or what it builds on is lost */
	FLEET_REFUSED,   /* will never be applied */
	FLEET_NO_MEMORY, /* not applied; later perhaps */
};

struct fleet_stats {
	uint64_t applied, duplicates, need_hello, need_key, refused;
	uint64_t samples, bytes;
	uint64_t gaps;   /* sequences that were missing when a later one came */
	uint64_t lost;   /* sequences given up for ever */
	uint64_t resets; /* totals of a key frame that were below what was counted */
	uint64_t
		series_refused; /* definitions beyond a limit, in conflict with the metric's kind, or
				 * not for an agent to say; series that no incarnation could keep */
	uint64_t agents_refused;
	uint64_t departed;       /* incarnations folded into the base */
	uint64_t events_dropped; /* at the agents */
	uint32_t agents, incarnations, series, groups;
	uint64_t held_bytes;
};

int fleet_new(const struct fleet_limits *limits, struct fleet **ret);
struct fleet *fleet_free(struct fleet *f);

/* session: 0 to be given one (known incarnations keep theirs), else the one that the log states.
 * -EINVAL (name), -ENOSPC (agents), -ESTALE (this incarnation departed and was folded), -ENOMEM;
 * e says which. */
int fleet_say_hello(struct fleet *f, const struct fleet_hello *hello, uint32_t session,
		    uint64_t now_ms, uint32_t *ret_session, struct err *e);

/* size: of the sealed frame, for the books. */
enum fleet_verdict fleet_apply(struct fleet *f, uint32_t session, const struct frame *frame,
			       size_t size, uint64_t now_ms, struct err *e);

/* Which state this is: random, kept with it. Another one counts anew, and totals of two lives are
 * never of one series of frames. 0: none was given yet. */
uint64_t fleet_life(const struct fleet *f);
void fleet_set_life(struct fleet *f, uint64_t life);

/* The agent's name; NULL for an unknown session. Borrowed until the incarnation departs. */
const char *fleet_session_agent(const struct fleet *f, uint32_t session);
/* Whether that is an aggregator. */
bool fleet_session_is_sum(const struct fleet *f, uint32_t session);

/* Folds what was silent for longer than this into the base of its groups and forgets it. */
void fleet_depart(struct fleet *f, uint64_t now_ms, uint64_t silence_ms);

void fleet_stats(const struct fleet *f, struct fleet_stats *ret);
