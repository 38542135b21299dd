/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The set of frame sequences of one incarnation that were applied: all up to a watermark, and
 * ranges above it. Pure. Bounded, so that a peer with holes everywhere costs a fixed sum.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SEQUENCE_RANGES_MAX 4096

struct sequence_range {
	uint64_t first, last;
};

/* All zero is the empty set. Ranges ascend, do not touch, and lie above watermark + 1. */
struct sequence_set {
	uint64_t watermark;
	uint32_t count, capacity;
	struct sequence_range *ranges;
};

void sequence_fini(struct sequence_set *set);
bool sequence_has(const struct sequence_set *set, uint64_t sequence);

/* 1 added, 0 was there, -EINVAL for 0 and UINT64_MAX, -ENOSPC beyond SEQUENCE_RANGES_MAX,
 * -ENOMEM. */
int sequence_add(struct sequence_set *set, uint64_t sequence);

/* Everything up to this counts as applied from now on: what is missing there will not be waited
 * for. Returns how many sequences were missing. */
uint64_t sequence_settle(struct sequence_set *set, uint64_t upto);

uint64_t sequence_highest(const struct sequence_set *set);
/* Sequences below the highest that are not in the set. */
uint64_t sequence_missing(const struct sequence_set *set);
