/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The standard agent: 90 counters, 10 gauges and 4 histograms, named and labelled as an agent's. In
 * a tick 40 % of counters and gauges change (increments exponential with mean 20, gauges whole
 * numbers below 500) and each histogram counts 300 values, log-normal about 2 ms. Deterministic by
 * seed. What simulators of all wires send, so that all carry the same samples.
 */
#pragma once

#include "bus/frame.h"

#define STANDARD_COUNTERS   90u
#define STANDARD_GAUGES     10u
#define STANDARD_HISTOGRAMS 4u
#define STANDARD_SERIES     (STANDARD_COUNTERS + STANDARD_GAUGES + STANDARD_HISTOGRAMS)

struct standard {
	uint64_t random;
	const char *instance; /* borrowed */
	uint64_t counters[STANDARD_COUNTERS];
	double gauges[STANDARD_GAUGES];
	uint64_t cells[STANDARD_HISTOGRAMS][HIST_CELLS];
};

void standard_init(struct standard *s, uint64_t seed, const char *instance);
void standard_step(struct standard *s);
/* Borrows from s. Counters come first, then gauges, then histograms. */
void standard_series(const struct standard *s, unsigned int i, struct segment_series *ret);
/* All that counters and histograms have counted. */
uint64_t standard_total(const struct standard *s);
/* As frame_encoder_finish(). */
int standard_frame(const struct standard *s, struct frame_encoder *enc, uint64_t sequence,
		   uint64_t time_ms, enum frame_type type, const uint8_t **ret, size_t *ret_size);
