/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a subscriber must remember to know what it missed: the last sequence of each topic, from
 * messages and from beacons. Pure.
 */
#pragma once

#include "bus/topics.h"

#include <stdbool.h>
#include <stdint.h>

#define SUBSCRIBER_TOPICS_MAX 131072

struct subscriber {
	struct topics topics;
	uint64_t epoch, seed;
	bool has_epoch;
	bool is_whole; /* this epoch began while we were there: unseen topics begin at 0 */
	bool had_beacon;
};

struct subscriber_note {
	uint64_t missed;    /* messages that will not come any more */
	bool is_at_least;   /* missed is a lower bound */
	bool has_restarted; /* the publisher counts from 1 again */
};

/* seed: random. */
void subscriber_init(struct subscriber *s, uint64_t seed);
void subscriber_fini(struct subscriber *s);

/* A message came. A topic beyond the limit is not followed (counted in topics.refused). */
void subscriber_message(struct subscriber *s, const char *topic, uint64_t epoch, uint64_t sequence,
			struct subscriber_note *ret);
/* One line of a beacon of the epoch of the last subscriber_message() (the beacon itself is one). */
void subscriber_listed(struct subscriber *s, const char *topic, uint64_t sequence,
		       struct subscriber_note *ret);
/* After the last line of a beacon. */
void subscriber_beacon_end(struct subscriber *s);
