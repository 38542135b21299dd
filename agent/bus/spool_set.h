/* SPDX-License-Identifier: Apache-2.0 */
/* Set of sequences: a watermark and ranges above it. Internal to spool*.c. Pure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define SPOOL_RANGES_MAX 256u

struct spool_set {
	uint64_t watermark; /* all up to here */
	unsigned int count;
	struct spool_range {
		uint64_t first, last;
	} ranges[SPOOL_RANGES_MAX]; /* ascend, do not touch */
};

bool spool_set_has(const struct spool_set *s, uint64_t sequence);
bool spool_set_covers(const struct spool_set *s, uint64_t first, uint64_t last);
/* How many of first … last are not in it. */
uint64_t spool_set_missing(const struct spool_set *s, uint64_t first, uint64_t last);
/* When there are too many ranges the highest is forgotten: those frames are sent again, which
 * harms nobody. */
void spool_set_add(struct spool_set *s, uint64_t first, uint64_t last);
