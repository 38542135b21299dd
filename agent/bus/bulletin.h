/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reading side of a bus message (topic, NUL, BusMessage): hostile bytes become checked structs
 * or an error, within a fixed budget of memory. Pure.
 */
#pragma once

#include "base/arena.h"
#include "metrics.h"
#include "tidegate.pb-c.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BULLETIN_TOPIC_MAX   255
#define BULLETIN_BODY_MAX    (4u << 20) /* after decompression */
#define BULLETIN_ARENA_BYTES (32u << 20)

struct bulletin {
	const char *topic;
	uint64_t epoch, sequence;
	const Tidegate__BusBody *body;
};

/* Topic alone, for filters; borrowed from data. -EBADMSG. */
int bulletin_topic(const uint8_t *data, size_t size, const char **ret_topic);

/* Everything in ret borrows from data and from the arena, which is reset first. -EBADMSG (damaged),
 * -E2BIG (a limit). */
int bulletin_decode(const uint8_t *data, size_t size, struct arena *arena, struct bulletin *ret);

/* All cells of a histogram series. -EBADMSG. */
int bulletin_cells(const Tidegate__BusSeries *s, uint64_t ret[HIST_CELLS]);
