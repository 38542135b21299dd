/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames that an aggregator cannot read for want of definitions: how often each range of them was
 * sent again in vain. Who gives up too early loses frames, who never does is stuck for ever. Pure.
 * Internal to uplink*.c.
 */
#pragma once

#include "bus/frame.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UPLINK_MISSING_MAX 4u /* incarnations; the one that was missing longest ago makes room */

/* All zero: none. */
struct uplink_missing {
	struct {
		uint8_t incarnation[FRAME_INCARNATION_BYTES];
		uint64_t low, high;  /* sequences */
		unsigned int rounds; /* 0: free */
		uint64_t used;
	} ranges[UPLINK_MISSING_MAX];
	uint64_t uses;
};

/* These are missing, once more if they were before; returns how many rounds at least one of them has
 * been through, this one included. n is not 0. */
unsigned int uplink_missing_note(struct uplink_missing *m, const uint8_t *incarnation,
				 const uint64_t *sequences, size_t n);
/* These are missing as well, in a round that has begun. */
void uplink_missing_widen(struct uplink_missing *m, const uint8_t *incarnation,
			  const uint64_t *sequences, size_t n);
/* Whether it was missing from the first of these rounds on (or might have been). */
bool uplink_missing_covers(const struct uplink_missing *m, const uint8_t *incarnation,
			   uint64_t sequence);
/* It was taken: what lay around it is not unknown for ever. */
void uplink_missing_taken(struct uplink_missing *m, const uint8_t *incarnation, uint64_t sequence);
void uplink_missing_forget(struct uplink_missing *m, const uint8_t *incarnation);
