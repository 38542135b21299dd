/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one incarnation of an agent told in one minute: the unit of history. Pure.
 *
 * A minute is the union of frames, each there once by its sequence, in whatever order they came.
 *
 * A minute stands alone: increments by tick, and the totals of the key frame that each minute has.
 * Thinned, it keeps for each series its last value (histograms summed cell by cell, so exactly),
 * and which sequences are in it; what then comes late is refused, not guessed into it.
 *
 * Series are the ids of the incarnation's frames; what they mean is kept beside (history_store).
 */
#pragma once

#include "bus/frame.h"
#include "fleet/pack.h"

#define MINUTE_MS          60000u
#define MINUTE_TICKS_MAX   2400u /* frames: two a tick of 50 ms */
#define MINUTE_SAMPLES_MAX (4u << 20)
#define MINUTE_CELLS_MAX   (8u << 20)

struct minute;

/* start_ms: Unix time, a multiple of MINUTE_MS. */
int minute_new(uint64_t start_ms, struct minute **ret);
struct minute *minute_free(struct minute *m);
uint64_t minute_start_ms(const struct minute *m);
bool minute_is_thin(const struct minute *m);
bool minute_has(const struct minute *m, uint64_t sequence);
size_t minute_ticks(const struct minute *m);
/* By sequence, once minute_each has been called. is_key: of a key frame; a thin minute's only tick
 * is when one of its frames was. */
struct minute_tick_info {
	uint64_t sequence, time_ms;
	bool is_key;
};
struct minute_tick_info minute_tick_get(const struct minute *m, size_t index);

/* 1: added; 0: it was there. -ERANGE: not of this minute; -ESTALE: thinned, and it is not in it;
 * -ENOSPC: a limit above; -ENOMEM. On failure nothing of it is added. */
int minute_add(struct minute *m, const struct frame *f);
int minute_thin(struct minute *m);

/* -ENOMEM. What decode gives encodes to the same bytes. */
int minute_encode(struct minute *m, struct pack *out);
/* Damaged bytes are -EBADMSG, another version -EPROTONOSUPPORT. */
int minute_decode(const uint8_t *data, size_t size, struct minute **ret);

enum minute_kind {
	MINUTE_COUNTER_ADD,
	MINUTE_COUNTER_TOTAL,
	MINUTE_GAUGE,
	MINUTE_CELLS_ADD,
	MINUTE_CELLS_TOTAL,
	MINUTE_ABSENT, /* from here on it has no value */
};

struct minute_sample {
	uint32_t id, tick; /* index of minute_tick_get */
	enum minute_kind kind;
	uint64_t sequence, time_ms;
	uint64_t counter;
	double gauge;
	size_t cell_count;
	const uint16_t *cells; /* ascending */
	const uint64_t *counts;
};

/* Ordered by id, then sequence (so each id is a run); borrowed until the next change. A non-zero
 * answer of fn ends it and is returned. -ENOMEM. */
typedef int (*minute_sample_fn)(void *data, const struct minute_sample *sample);
int minute_each(struct minute *m, minute_sample_fn fn, void *data);
