/* SPDX-License-Identifier: Apache-2.0 */
/* Encoder of frames: decides what a frame carries, and seals it. Owned by the courier. Pure. */
#include "bus/frame.h"

#include "base/cleanup.h"
#include "bus/frame_code.h"
#include "bus/frame_intern.h"
#include "bus/frame_seal.h"
#include "bus/frame_sections.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FRAME_ROOM            (FRAME_SEALED_MAX - 4096) /* plain bytes: fits even when zstd gains nothing */
#define FRAME_EVENTS_ROOM     (FRAME_SEALED_MAX / 2)
#define FRAME_DEFINITIONS_MAX 8192u /* keeps the receiver's memory within its budget */
#define FRAME_KEYS_MISSED_MAX 2

struct frame_encoder {
	struct intern_table table;
	uint64_t sequence, time_ms;
	uint32_t interval_ms, samples, samples_sent;
	enum frame_type type;
	bool has_key;      /* a first key frame was sealed */
	bool is_restarted; /* new series may be known to the receiver under another id */
	bool is_behind;
	size_t first_choice; /* where choosing begins, so that nothing starves */
	struct frame_event events[FRAME_EVENTS_MAX];
	unsigned int event_count;
	size_t event_bytes;
	uint64_t events_dropped;
	struct frame_sections sections;
	struct frame_seal seal;
};

int frame_encoder_new(struct frame_encoder **ret)
{
	struct frame_encoder *enc = calloc(1, sizeof(*enc));

	if (!enc)
		return -ENOMEM;
	frame_code_init();
	intern_init(&enc->table);
	*ret = enc;
	return 0;
}

struct frame_encoder *frame_encoder_free(struct frame_encoder *enc)
{
	if (!enc)
		return NULL;
	intern_fini(&enc->table);
	frame_sections_fini(&enc->sections);
	frame_seal_fini(&enc->seal);
	free(enc);
	return NULL;
}

int frame_encoder_continue(struct frame_encoder *enc, uint32_t first_id)
{
	CHECK(enc->table.count == 0);
	if (first_id > FRAME_ID_MAX)
		return -ERANGE;
	enc->table.next_id = first_id ? first_id : 1;
	enc->is_restarted = first_id > 1;
	return 0;
}

uint32_t frame_encoder_next_id(const struct frame_encoder *enc)
{
	return enc->table.next_id;
}

bool frame_encoder_is_behind(const struct frame_encoder *enc)
{
	return enc->is_behind;
}

uint64_t frame_encoder_refused(const struct frame_encoder *enc)
{
	return enc->table.refused;
}

void frame_encoder_begin(struct frame_encoder *enc, uint64_t sequence, uint64_t time_ms,
			 uint32_t interval_ms, enum frame_type type)
{
	enc->sequence = sequence;
	enc->time_ms = time_ms;
	enc->interval_ms = interval_ms;
	enc->type = enc->has_key ? type : FRAME_KEY;
	enc->samples = 0;
	enc->event_count = 0;
	enc->event_bytes = 0;
	for (size_t i = 0; i < enc->table.count; i++) {
		struct interned *s = enc->table.list[i];

		s->is_passed = s->is_seen = s->is_chosen = false;
		if (s->kind == METRIC_HISTOGRAM)
			s->v.histogram.now = NULL;
	}
}

static int histogram_take(struct interned *s, const uint64_t *cells)
{
	s->v.histogram.now = cells;
	for (unsigned int i = 0; i < HIST_CELLS; i++) {
		if (interned_total(s, i) >= s->v.histogram.sent[i])
			continue;
		/* A bucket fell: a new segment, so all of it counts from 0 again. */
		if (!s->v.histogram.offset) {
			s->v.histogram.offset = calloc(HIST_CELLS, sizeof(uint64_t));
			if (!s->v.histogram.offset) {
				s->v.histogram.now = NULL;
				return -ENOMEM;
			}
		}
		memcpy(s->v.histogram.offset, s->v.histogram.sent, HIST_CELLS * sizeof(uint64_t));
		break;
	}
	return 0;
}

static void counter_take(struct interned *s, uint64_t raw)
{
	uint64_t least = s->v.counter.now; /* also what is not sent yet */

	if (raw + s->v.counter.offset < least)
		s->v.counter.offset = least;
	s->v.counter.now = raw + s->v.counter.offset;
}

int frame_encoder_series(struct frame_encoder *enc, const struct segment_series *series)
{
	struct interned *s;
	int r = intern_series(&enc->table, series, &s);

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	if (s->is_passed && s->is_seen)
		return 0;
	s->is_passed = true;
	if (!series->is_present)
		return 0;
	if (s->kind == METRIC_HISTOGRAM) {
		r = histogram_take(s, series->cells);
		if (r < 0)
			return r;
	} else if (s->kind == METRIC_COUNTER) {
		counter_take(s, series->counter);
	} else {
		s->v.gauge.now = series->gauge;
	}
	s->is_seen = true;
	enc->samples++;
	return 0;
}

int frame_encoder_event(struct frame_encoder *enc, const struct frame_event *event)
{
	size_t bytes = strlen(event->kind) + strlen(event->gateway) + strlen(event->json) + 64;

	if (strlen(event->kind) > FRAME_KIND_MAX || strlen(event->gateway) > FRAME_GATEWAY_MAX ||
	    strlen(event->json) > FRAME_JSON_MAX) {
		enc->events_dropped++;
		return -EINVAL;
	}
	if (enc->event_count == FRAME_EVENTS_MAX || bytes > FRAME_EVENTS_ROOM - enc->event_bytes) {
		enc->events_dropped++;
		return -ENOSPC;
	}
	enc->events[enc->event_count++] = *event;
	enc->event_bytes += bytes;
	return 0;
}

void frame_encoder_drop_events(struct frame_encoder *enc, uint64_t n)
{
	enc->events_dropped += n;
}

static bool is_changed(const struct interned *s)
{
	if (s->kind == METRIC_COUNTER)
		return s->v.counter.now != s->v.counter.sent;
	if (s->kind == METRIC_GAUGE)
		/* Bit by bit: -0.0 is another value than 0.0, and one NaN is no change of itself. */
		/* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison) */
		return memcmp(&s->v.gauge.now, &s->v.gauge.sent, sizeof(double)) != 0;
	if (!s->v.histogram.now)
		return false;
	for (unsigned int i = 0; i < HIST_CELLS; i++)
		if (interned_total(s, i) != s->v.histogram.sent[i])
			return true;
	return false;
}

/* What one series would put into the frame; all false: nothing. */
static struct frame_part part_of(const struct interned *s)
{
	struct frame_part p = {
		.has_definition = !s->is_defined || s->is_definition_owed,
		.is_absent = !s->is_seen && (!s->is_absent || s->is_total_owed),
	};

	if (s->is_seen)
		p.has_value = s->is_total_owed || !s->is_defined || s->is_absent || is_changed(s);
	else if (s->kind == METRIC_COUNTER)
		p.has_value = s->is_total_owed || is_changed(s);
	else
		p.has_value = s->kind == METRIC_HISTOGRAM && s->is_total_owed;
	return p;
}

/* Chooses series until the frame is full, beginning where the last full frame stopped. False: some
 * are left. */
static bool choose_until_full(struct frame_encoder *enc, bool is_key, bool is_close)
{
	uint64_t room = (uint64_t)(FRAME_ROOM - enc->event_bytes) * 8;
	size_t n = enc->table.count, start = enc->first_choice < n ? enc->first_choice : 0;
	unsigned int definitions = 0;

	for (size_t k = 0; k < n; k++) {
		size_t at = (start + k) % n;
		struct interned *s = enc->table.list[at];
		struct frame_part p = part_of(s);
		uint64_t bits;

		s->is_chosen = false;
		if (!p.has_definition && !p.has_value && !p.is_absent)
			continue;
		bits = frame_part_bits(&enc->sections, s, p, is_key, is_close);
		if (bits > room || (p.has_definition && definitions == FRAME_DEFINITIONS_MAX)) {
			enc->first_choice = at;
			for (; k < n; k++)
				enc->table.list[(start + k) % n]->is_chosen = false;
			return false;
		}
		room -= bits;
		definitions += p.has_definition;
		s->part = p;
		s->is_chosen = true;
	}
	enc->first_choice = 0;
	return true;
}

/* Mostly all fits, whatever is thought of histograms; else they are looked at closely. */
static void choose(struct frame_encoder *enc, bool is_key)
{
	size_t start = enc->first_choice;

	enc->is_behind = false;
	if (choose_until_full(enc, is_key, false))
		return;
	enc->first_choice = start;
	enc->is_behind = !choose_until_full(enc, is_key, true);
}

static void commit(struct interned *s)
{
	struct frame_part p = s->part;

	if (p.has_value) {
		if (s->kind == METRIC_COUNTER)
			s->v.counter.sent = s->v.counter.now;
		else if (s->kind == METRIC_GAUGE)
			s->v.gauge.sent = s->v.gauge.now;
		else if (s->v.histogram.now)
			for (unsigned int i = 0; i < HIST_CELLS; i++)
				s->v.histogram.sent[i] = interned_total(s, i);
		s->is_absent = false;
	}
	if (p.is_absent)
		s->is_absent = true;
	if (p.has_definition)
		s->is_defined = true;
	s->is_definition_owed = s->is_total_owed = false;
}

static bool is_gone(const struct interned *s)
{
	return s->keys_missed >= FRAME_KEYS_MISSED_MAX;
}

static void commit_all(struct frame_encoder *enc)
{
	size_t before = enc->table.count;

	for (size_t i = 0; i < enc->table.count; i++) {
		struct interned *s = enc->table.list[i];

		if (s->is_chosen)
			commit(s);
		if (s->is_passed)
			s->keys_missed = 0;
		else if (enc->type != FRAME_CHANGES && !s->is_total_owed)
			s->keys_missed++;
	}
	intern_sweep(&enc->table, is_gone);
	/* A forgotten series that comes back gets a new id; only a total can introduce it then. */
	if (enc->table.count != before)
		enc->is_restarted = true;
	enc->has_key = true;
	enc->samples_sent = enc->samples;
	enc->events_dropped = 0;
}

/* Marks what a key frame owes, and says whether this frame holds totals. */
static bool prepare(struct frame_encoder *enc)
{
	bool is_key = enc->type != FRAME_CHANGES;

	for (size_t i = 0; i < enc->table.count; i++) {
		struct interned *s = enc->table.list[i];

		if (enc->type != FRAME_CHANGES)
			s->is_total_owed = true;
		if (enc->type == FRAME_KEY)
			s->is_definition_owed = true;
		is_key = is_key || s->is_total_owed || (enc->is_restarted && !s->is_defined);
	}
	return is_key;
}

int frame_encoder_finish(struct frame_encoder *enc, const uint8_t **ret_data, size_t *ret_size,
			 uint32_t *ret_samples)
{
	bool is_key = prepare(enc);
	struct frame_head head = {
		.sequence = enc->sequence,
		.time_ms = enc->time_ms,
		.interval_ms = enc->interval_ms == 1000 ? 0 : enc->interval_ms,
		.series = is_key || enc->samples != enc->samples_sent ? enc->samples : 0,
		.is_key = is_key,
		.events_dropped = enc->events_dropped,
		.events = enc->events,
		.event_count = enc->event_count,
	};
	int r;

	choose(enc, is_key);
	r = frame_sections_build(&enc->sections, &enc->table, is_key);
	if (r < 0)
		return r;
	r = frame_seal(&enc->seal, &head, &enc->sections, ret_data, ret_size);
	if (r < 0)
		return r;
	commit_all(enc);
	*ret_samples = enc->samples;
	return 0;
}
