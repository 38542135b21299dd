/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames of many simulated agents from a few standard ones: agents of one variant count alike, so
 * that a frame of increments is encoded once for all of them. Frame 1 is a key frame with all
 * definitions and bears the agent's own instance, so it is made for each; each 60th is a key frame
 * with totals, as the courier sends it. Frames are kept for the whole run.
 */
#pragma once

#include "standard.h"

#define VARIANTS 64u

struct variant_frame {
	uint8_t *data;
	size_t size;
	uint64_t time_ms, total; /* total: all that was counted up to it */
};

/* Frame `sequence` (from 2) of the variant, made now if nobody wanted it yet: its time is then now.
 * Borrowed for ever. NULL: no memory. */
const struct variant_frame *variant_frame(unsigned int variant, uint64_t sequence);
/* Frame 1 for one instance; borrowed until the next call. */
int variant_first(unsigned int variant, const char *instance, const uint8_t **ret,
		  size_t *ret_size);
/* What an agent that sent frames 1 to `sequence` has counted. */
uint64_t variant_total(unsigned int variant, uint64_t sequence);
