/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many system calls are timed: one in so many that timing costs each gateway at most its budget. A
 * timed call stands for as many in the histogram as were passed over, so that a change of the number
 * changes nothing but the histogram's precision. In the keeper.
 */
#pragma once

#include "probe/probe.h"

#define SAMPLE_MOST  1024u
#define SAMPLE_START 8u
/* Readings in a row for which half would do before it is halved: load comes back. */
#define SAMPLE_CALM 10u

/* ---- pure ---- */

struct sample {
	uint32_t every;
	unsigned int calm;
};

/* The smallest power of two, at most SAMPLE_MOST, for which timing one call in as many costs no more
 * than this share of the CPU time. */
uint32_t sample_wanted(uint64_t calls, uint64_t cost_ns, uint64_t cpu_ns, double budget);
/* Up at once, down by halves. */
void sample_next(struct sample *s, uint32_t wanted);

/* ---- of a probe set ---- */

struct sampler;

/* What timing a call costs here is measured when the maps are new (some milliseconds), else taken from
 * them. -ENOMEM. */
int sampler_open(struct probe_set *set, const struct probe_options *options);
struct sampler *sampler_free(struct sampler *s);
