/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stacks of samples as one tree: many folded texts ("root;caller;leaf 12", a line a stack) merged.
 * Pure. Whatever the texts hold, size is limited: what goes beyond is counted at the caller that
 * still has a place, so that totals stay true.
 */
#pragma once

#include "base/str.h"

#include <stddef.h>
#include <stdint.h>

#define STACKS_DEPTH     256           /* frames of one stack */
#define STACKS_FRAMES    (1u << 18)    /* different ones, by their callers */
#define STACKS_NAME      512           /* bytes of a frame's name */
#define STACKS_TEXT      (32u << 20)   /* bytes of all names */
#define STACKS_COUNT_MAX 1000000000ULL /* samples in one line */

struct stacks;

int stacks_new(struct stacks **ret);
struct stacks *stacks_free(struct stacks *s);

/* A line that is no stack is counted, not taken. Control characters and what is no UTF-8 become
 * `?`. -ENOMEM. Not after stacks_walk(). */
int stacks_add(struct stacks *s, const char *text, size_t size);

struct stacks_stats {
	uint64_t samples;
	uint64_t refused;   /* lines that are no stacks */
	uint64_t shortened; /* samples counted at a caller, for want of room */
	unsigned int depth; /* of the deepest stack; without the root */
	unsigned int frames;
};

void stacks_stats(const struct stacks *s, struct stacks_stats *ret);

struct stacks_frame {
	const char *name;    /* "" : the root, which is first */
	unsigned int depth;  /* 0: the root */
	uint64_t from;       /* samples left of it */
	uint64_t total, own; /* own: samples with this frame on top */
};

/* Callers before what they call, left before right, by name. False from visit leaves out what the
 * frame calls. -ENOMEM. */
int stacks_walk(struct stacks *s, bool (*visit)(void *data, const struct stacks_frame *f),
		void *data);

/* As folded stacks, sorted. -ENOMEM, -E2BIG when out is full. */
int stacks_print(struct stacks *s, struct strbuf *out);
