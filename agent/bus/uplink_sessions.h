/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers that an aggregator gave to incarnations; the one least used makes room. Pure. Internal to
 * uplink*.c. */
#pragma once

#include "bus/frame.h"

#include <stdint.h>

#define UPLINK_SESSIONS 8u

/* All zero: none. */
struct uplink_sessions {
	struct {
		uint8_t incarnation[FRAME_INCARNATION_BYTES];
		uint32_t id; /* 0: free */
		uint64_t used;
	} slots[UPLINK_SESSIONS];
	uint64_t uses;
};

/* 0: none. */
uint32_t uplink_sessions_get(const struct uplink_sessions *s, const uint8_t *incarnation);
/* id 0 forgets it. */
void uplink_sessions_set(struct uplink_sessions *s, const uint8_t *incarnation, uint32_t id);
