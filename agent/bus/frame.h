/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frame codec. A service, pure: no I/O, no clock. Turns a reader's series into sealed frames, and
 * hostile bytes into checked structs.
 *
 * Sealed frame: u8 flags (bit 0: zstd, bit 1: dictionary) | u32 CRC32C of what follows
 * (little-endian) | Frame, maybe compressed.
 */
#pragma once

#include "base/err.h"
#include "metrics.h"
#include "segment/reader.h"

#include <stddef.h>
#include <stdint.h>

#define FRAME_SEALED_MAX (256u << 10)
#define FRAME_PLAIN_MAX (1u << 20)
#define FRAME_SERIES_MAX 65536u
#define FRAME_EVENTS_MAX 64u
#define FRAME_INCARNATION_BYTES 16

/* -------- sender: interns series and remembers what was sent -------- */

struct frame_encoder;

struct frame_event {
	uint64_t id, time_ms;
	const char *kind, *gateway, *json;
};

/* A new encoder begins a new interning; its first frame must be a key frame. */
int frame_encoder_new(struct frame_encoder **ret);
struct frame_encoder *frame_encoder_free(struct frame_encoder *enc);

/* Starts a frame. Then add every series of the tick, then events, then finish. */
void frame_encoder_begin(struct frame_encoder *enc, uint64_t sequence, uint64_t time_ms,
			 uint32_t interval_ms, bool is_key);
int frame_encoder_series(struct frame_encoder *enc, const struct segment_series *series);
/* -ENOSPC beyond FRAME_EVENTS_MAX: counted, and the count travels. */
int frame_encoder_event(struct frame_encoder *enc, const struct frame_event *event);
/* Seals. *ret_data is borrowed until the next begin. When the frame would be larger than
 * FRAME_SEALED_MAX, what did not fit stays for the next one (never lost). */
int frame_encoder_finish(struct frame_encoder *enc, const uint8_t **ret_data, size_t *ret_size,
			 uint32_t *ret_samples);

/* -------- receiver -------- */

struct frame_counter {
	uint32_t id;
	uint64_t value;
};

struct frame_gauge {
	uint32_t id;
	double value;
};

struct frame_histogram {
	uint32_t id;
	uint32_t count;
	const uint16_t *cells;	/* ascending, < HIST_CELLS */
	const uint64_t *counts;
};

struct frame_definition {
	uint32_t id;
	const char *metric;
	const char *unit, *help; /* "" for catalogue metrics */
	enum metric_kind kind;
	enum metric_merge merge;
	enum metric_scope scope;
	unsigned int label_count;
	struct segment_label labels[SEGMENT_LABELS_MAX];
};

struct frame {
	uint64_t sequence, time_ms;
	uint32_t interval_ms, series;
	bool is_key;
	uint64_t events_dropped;
	size_t definition_count, counter_count, gauge_count, histogram_count, absent_count,
		event_count;
	struct frame_definition *definitions;
	struct frame_counter *counters;
	struct frame_gauge *gauges;
	struct frame_histogram *histograms;
	uint32_t *absent;
	struct frame_event *events;
};

/* Opens and checks a sealed frame. All memory of the result comes from one budget of
 * 8 * FRAME_PLAIN_MAX bytes. -EBADMSG (damaged), -E2BIG (a limit), -ENOKEY (dictionary unknown). */
int frame_decode(const uint8_t *data, size_t size, struct frame **ret, struct err *e);
struct frame *frame_free(struct frame *f);

/* Only the sequence and whether it is a key frame, after the checksum. For spool and tests. */
int frame_peek(const uint8_t *data, size_t size, uint64_t *ret_sequence, bool *ret_is_key);
