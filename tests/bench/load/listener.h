/* SPDX-License-Identifier: Apache-2.0 */
/* A subscriber to everything, in the simulator's process: from an agent's tick to the message. */
#pragma once

#include "base/loop.h"
#include "latency.h"

#include <stdint.h>

struct listener_stats {
	uint64_t messages, missed;
	const struct latency *latency;
};

/* produced_at: when agent `number` made its frame of this time, 0 unknown. */
int listener_open(struct loop *loop, const char *address,
		  uint64_t (*produced_at)(unsigned int number, uint64_t time_ms));
void listener_stats(struct listener_stats *ret);
