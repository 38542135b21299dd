/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frame codec. A service, pure: no I/O, no clock. Turns a reader's series into sealed frames, and
 * hostile bytes into checked structs.
 *
 * Sealed frame: u8 flags (bit 0: zstd, bit 1: dictionary) | u32 CRC32C of what follows
 * (little-endian) | Frame (proto/tidegate.proto), maybe compressed. A frame with texts (definitions,
 * events) may be compressed with a dictionary, trained from recorded frames, whose id its zstd
 * header names: proto/frames.ID.dict. Decoders keep them all.
 *
 * Sections of a Frame are bit streams (bus/frame_bits.h: most significant bit first; C(v) is the
 * code of v under the parameter that the section names with 6 bits, C5(v) under parameter 5).
 * Ids ascend; gap = id - id before - 1 (the one before the first is 0). Padded with 0 bits.
 *   counters    C5(n) | k of gaps | k of values | n x { C(gap), C(value) }
 *   gauges      C5(n) | k of gaps | k of values | n x { C(gap), 0, C(zigzag) } for a whole number
 *               below 2^53, else { C(gap), 1, 6 bits t, 64 - t bits }: a double whose last t bits
 *               are 0
 *   absent      C5(n) | k of gaps | n x C(gap)
 *   cells       C5(n) | k of gaps | n x { C(gap), 1 } for the same changes as those of the
 *               histogram before in this section, else { C(gap), 0, histogram }: bus/frame_cells.h
 * Parameter 62 is, from version 2 on, the trained code of the place (bus/frame_code.h): one for gaps
 * of counters and absent series, of gauges, of histograms, one for counters, one for gauges. The
 * writer takes what is shortest.
 *
 * Version 1 has no parameter 62 and, instead of cells:
 *   histograms  C5(n) | k of gaps | k of lengths | k of cell gaps | k of counts |
 *               n x { C(gap), C(m), m x { C(cell - cell before - 1), C(count) } }, cells from -1
 *
 * What a receiver may rely on:
 *   - A frame without `key` carries increments since the last frame that named the series (a new
 *     series counts from 0). A key frame carries totals as of its sequence, for the series that it
 *     lists: usually all, but a frame too large is continued in the next one, itself a key frame
 *     for what was left. So the total of a series is that of the highest key frame listing it plus
 *     its increments with higher sequences.
 *   - A counter that fell (a new segment) counts on from 0: its increment is its new value.
 *   - An id names one series in one incarnation, for ever; a series may get a second id when the
 *     courier was restarted: key frames of the new encoder say its total anew. A restarted encoder
 *     makes every frame that brings definitions a key frame.
 *   - A series in `absent` has no value from this frame on until a frame names it again; a value
 *     of the same frame was its last (key frames repeat counters of absent series so).
 *   - Strings end at their first NUL; metric names and label keys are Prometheus names.
 */
#pragma once

#include "base/err.h"
#include "metrics.h"
#include "segment/reader.h"

#include <stddef.h>
#include <stdint.h>

/* Frames of all versions up to this one are read; this one is written, and said in the hello. */
#define FRAME_VERSION 2u

#define FRAME_SEALED_MAX        (256u << 10)
#define FRAME_PLAIN_MAX         (1u << 20)
#define FRAME_SERIES_MAX        65536u
#define FRAME_ID_MAX            (1u << 24)
#define FRAME_EVENTS_MAX        64u
#define FRAME_INCARNATION_BYTES 16
#define FRAME_NAME_MAX          128u /* bytes of a metric name or a label key */
#define FRAME_LABEL_MAX         256u /* of a label value */
#define FRAME_UNIT_MAX          32u
#define FRAME_HELP_MAX          512u
#define FRAME_KIND_MAX          64u /* of an event */
#define FRAME_GATEWAY_MAX       64u /* of an event */
#define FRAME_JSON_MAX          4096u

/* -------- sender: interns series and remembers what was sent -------- */

struct frame_encoder;

struct frame_event {
	uint64_t id, time_ms;
	const char *kind, *gateway, *json;
};

enum frame_type {
	FRAME_CHANGES, /* increments of what changed */
	FRAME_KEY,     /* totals and definitions of all series */
	FRAME_TOTALS,  /* totals of all series; definitions only of new ones */
};

/* A new encoder begins a new interning, from id 1; its first frame is a key frame. */
int frame_encoder_new(struct frame_encoder **ret);
struct frame_encoder *frame_encoder_free(struct frame_encoder *enc);

/* Before the first series: this encoder continues an incarnation in which ids below first_id were
 * given. -ERANGE beyond FRAME_ID_MAX. */
int frame_encoder_continue(struct frame_encoder *enc, uint32_t first_id);
/* No id from here on was given. */
uint32_t frame_encoder_next_id(const struct frame_encoder *enc);

/* Starts a frame. Then add every series of the tick, then events, then finish. Series (their
 * cells) and events are borrowed until finish. */
void frame_encoder_begin(struct frame_encoder *enc, uint64_t sequence, uint64_t time_ms,
			 uint32_t interval_ms, enum frame_type type);
/* A series that is not present, or not added, becomes absent. -EINVAL (a limit or name above),
 * -ENOSPC (FRAME_SERIES_MAX), both counted; -ENOMEM. The second of one identity is ignored. */
int frame_encoder_series(struct frame_encoder *enc, const struct segment_series *series);
/* -ENOSPC beyond FRAME_EVENTS_MAX or half a frame, -EINVAL: counted, and the count travels. */
int frame_encoder_event(struct frame_encoder *enc, const struct frame_event *event);
/* Events that the caller had no room for: the count travels. */
void frame_encoder_drop_events(struct frame_encoder *enc, uint64_t n);
/* Seals. *ret_data is borrowed until the next begin; *ret_samples is the series that had a value
 * in this tick. What would not fit into FRAME_SEALED_MAX stays for the next one (never lost). On
 * failure (-ENOMEM) nothing counts as sent. */
int frame_encoder_finish(struct frame_encoder *enc, const uint8_t **ret_data, size_t *ret_size,
			 uint32_t *ret_samples);
/* What finish found too large for its frame waits for the next. */
bool frame_encoder_is_behind(const struct frame_encoder *enc);
/* Series refused since new. */
uint64_t frame_encoder_refused(const struct frame_encoder *enc);

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
	const uint16_t *cells; /* ascending, < HIST_CELLS */
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
	uint32_t interval_ms, series; /* series: 0 as many as before */
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

/* The same frame packed without a dictionary, for a receiver that has not got it: to be freed;
 * NULL when the frame has none. -EBADMSG, -ENOKEY, -ENOMEM. */
int frame_without_dictionary(const uint8_t *data, size_t size, uint8_t **ret, size_t *ret_size);

/* Id of the dictionary that the frame is packed with, 0 without. */
uint32_t frame_dictionary_of(const uint8_t *data, size_t size);

/* Opens and checks a sealed frame. All memory of the result comes from one budget of
 * 8 * FRAME_PLAIN_MAX bytes. -EBADMSG (damaged), -E2BIG (a limit), -ENOKEY (its dictionary is not here: e says which),
 * -ENOMEM. */
int frame_decode(const uint8_t *data, size_t size, struct frame **ret, struct err *e);
struct frame *frame_free(struct frame *f);

/* Only the sequence and whether it is a key frame, after the checksum. For spool and tests. */
int frame_peek(const uint8_t *data, size_t size, uint64_t *ret_sequence, bool *ret_is_key);

/* -------- seal, shared by both sides -------- */

enum { FRAME_FLAG_ZSTD = 1, FRAME_FLAG_DICTIONARY = 2 };
#define FRAME_SEAL_BYTES 5u
