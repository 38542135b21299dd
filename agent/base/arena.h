/* SPDX-License-Identifier: Apache-2.0 */
/* A fixed block of memory, handed out in pieces and taken back whole once a tick. */
#pragma once

#include <stddef.h>

struct arena {
	unsigned char *base;
	size_t size, used;
	size_t refused; /* allocations that did not fit since init */
};

/* -ENOMEM. */
int arena_init(struct arena *a, size_t size);
void arena_fini(struct arena *a);
void arena_reset(struct arena *a);

/* 16-byte aligned, not zeroed; NULL (and counted) when the arena is full. Borrowed until reset. */
void *arena_alloc(struct arena *a, size_t size);
