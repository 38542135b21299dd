/* SPDX-License-Identifier: Apache-2.0 */
/* Memory with a limit for what a peer makes us allocate; freed whole. Internal to frame_*.c and
 * uplink. Pure. */
#pragma once

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>

struct frame_budget_chunk;

struct frame_budget {
	ProtobufCAllocator allocator; /* free does nothing */
	struct frame_budget_chunk *chunks;
	size_t left;    /* of the limit */
	bool is_spent;  /* the limit refused something */
	bool is_failed; /* malloc did */
};

/* Stays where it is: the allocator points to it. */
void frame_budget_init(struct frame_budget *b, size_t limit);
void frame_budget_fini(struct frame_budget *b);

/* 16-byte aligned, not zeroed; NULL when the limit or malloc refuses. */
void *frame_budget_alloc(struct frame_budget *b, size_t size);
/* count * size, overflow checked; never NULL for nothing. */
void *frame_budget_array(struct frame_budget *b, size_t count, size_t size);
