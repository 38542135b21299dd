/* SPDX-License-Identifier: Apache-2.0 */
/* How busy the event loops of each agent were over the last minute, by tick time. Pure. */
#pragma once

#include "fleet/ingest.h"

struct load_reading {
	double mean; /* over the agents that report, 0 to 1; NAN: none does */
	uint32_t reporting, expected;
	uint64_t at_ms; /* when the one silent for longest of those reporting was heard */
};

/* Agents, not aggregators with their sums, count as expected for so long after they were last heard. */
#define LOAD_EXPECTED_MS (15 * 60 * 1000u)

void load_read(const struct fleet *f, uint64_t now_ms, uint64_t stale_ms, struct load_reading *ret);
