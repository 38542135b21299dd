/* SPDX-License-Identifier: Apache-2.0 */
/* Latencies in steps of 0.1 ms up to 10 s, and their quantiles. */
#pragma once

#include <stdint.h>

#define LATENCY_STEP_NS 100000u
#define LATENCY_STEPS   100000u

struct latency {
	uint64_t count, most_ns;
	uint32_t steps[LATENCY_STEPS];
};

static inline void latency_add(struct latency *l, uint64_t ns)
{
	uint64_t step = ns / LATENCY_STEP_NS;

	l->steps[step < LATENCY_STEPS ? step : LATENCY_STEPS - 1]++;
	l->count++;
	if (ns > l->most_ns)
		l->most_ns = ns;
}

/* Upper edge of the step in milliseconds; 0 when nothing was measured. */
static inline double latency_ms(const struct latency *l, double quantile)
{
	uint64_t want = (uint64_t)((double)l->count * quantile), seen = 0;

	for (uint32_t i = 0; i < LATENCY_STEPS && l->count; i++) {
		seen += l->steps[i];
		if (seen > want || seen == l->count)
			return (i + 1) * (LATENCY_STEP_NS / 1e6);
	}
	return 0;
}
