/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the door tells the core for /metrics, in shared memory that outlives both: its counters do
 * not fall when it is restarted. The door alone writes, word by word.
 */
#pragma once

#include "bus/turnstile.h"
#include "outlet/prometheus.h"

struct door_page {
	struct turnstile_counts counts;
	uint64_t clients, subscribers; /* connected now */
	uint64_t dropped;              /* messages, of slow subscribers */
	uint64_t loads, load_failures; /* of the TLS files */
	uint64_t expires_s;            /* our certificate, Unix time; 0: no TLS */
};

/* Anonymous shared memory, zeroed; NULL without memory. */
struct door_page *door_page_new(void);
void door_page_set(uint64_t *word, uint64_t value);

/* A source of series over a copy. */
void door_page_read(const struct door_page *p, struct door_page *ret);
size_t door_page_series(const struct door_page *copy);
bool door_page_get(const void *copy, size_t index, struct prometheus_series *ret);
