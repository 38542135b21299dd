/* SPDX-License-Identifier: Apache-2.0 */
/* What the history is told of an incarnation: its name, and what its series ids mean. Packed on
 * the core's thread, where the fleet is; read on the history's. history*.c's. */
#pragma once

#include "fleet/history_store.h"
#include "fleet/ingest.h"

struct fleet_incarnation;

/* Definitions of all ids, or of those in defined. -ENOMEM. */
int history_feed_pack(const struct fleet *f, const struct fleet_incarnation *inc,
		      const struct frame *defined, struct pack *out);

struct history_feed {
	const char *agent;
	const uint8_t *incarnation;
	uint64_t count; /* of definitions that follow */
	struct unpack rest;
};

/* -EBADMSG. Everything is borrowed from data. */
int history_feed_read(const uint8_t *data, size_t size, struct history_feed *ret);
int history_feed_next(struct history_feed *feed, struct history_definition *ret);
