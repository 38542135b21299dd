/* SPDX-License-Identifier: Apache-2.0 */
/* Frame codec: what goes in comes out, totals add up in any order, hostile bytes are refused. */
#include "bus/frame.h"

#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/str.h"
#include "bus/frame_bits.h"
#include "bus/frame_cells.h"
#include "bus/frame_dictionary.h"
#include "tidegate.pb-c.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/uio.h>
#include <zstd.h>

#include <cmocka.h>

#define SERIES 120
#define IDS    1024

static uint64_t random_state = 88172645463325252ULL;

static uint64_t random_next(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

/* A literal set of series that a test changes between ticks. */
struct source {
	struct segment_series series[SERIES];
	char value[SERIES][16];
	uint64_t cells[SERIES][HIST_CELLS];
	unsigned int count;
};

static struct segment_series *source_add(struct source *s, const char *name, enum metric_kind kind)
{
	unsigned int i = s->count++;

	snprintf(s->value[i], sizeof(s->value[i]), "v%u", i);
	s->series[i] = (struct segment_series){
		.index = i,
		.name = name,
		.unit = "things",
		.help = "Help.",
		.kind = kind,
		.is_present = true,
		.label_count = 2,
		.labels = {{"gateway", "nginx"}, {"which", s->value[i]}},
		.cells = s->cells[i],
	};
	return &s->series[i];
}

/* What a receiver knows: totals by the rule of frame.h, whatever the order. */
struct model {
	struct {
		char name[400];
		enum metric_kind kind;
		bool is_known, is_absent;
		uint64_t key_sequence, key_total;
		uint64_t key_cells[HIST_CELLS];
		double gauge;
		uint64_t gauge_sequence, absent_sequence, seen_sequence;
	} id[IDS];
	struct {
		uint64_t sequence;
		uint32_t id;
		uint64_t value;
		int cell; /* -1: a counter */
	} * increments;
	size_t count, cap;
	uint64_t events, events_dropped;
};

static void model_increment(struct model *m, uint64_t sequence, uint32_t id, int cell,
			    uint64_t value)
{
	if (m->count == m->cap) {
		m->cap = m->cap ? m->cap * 2 : 1024;
		m->increments = realloc(m->increments, m->cap * sizeof(*m->increments));
		assert_non_null(m->increments);
	}
	m->increments[m->count].sequence = sequence;
	m->increments[m->count].id = id;
	m->increments[m->count].cell = cell;
	m->increments[m->count++].value = value;
}

static void model_seen(struct model *m, uint32_t id, uint64_t sequence)
{
	assert_true(id < IDS);
	if (sequence > m->id[id].seen_sequence)
		m->id[id].seen_sequence = sequence;
}

static void model_apply(struct model *m, const uint8_t *data, size_t size)
{
	struct frame *f = NULL;
	struct err e = {0};
	int r = frame_decode(data, size, &f, &e);

	if (r < 0)
		fail_msg("frame_decode: %d %s", r, e.text);
	for (size_t i = 0; i < f->definition_count; i++) {
		const struct frame_definition *d = &f->definitions[i];
		char name[400];
		int n = snprintf(name, sizeof(name), "%s", d->metric);

		assert_true(d->id < IDS);
		for (unsigned int k = 0; k < d->label_count; k++)
			n += snprintf(name + n, sizeof(name) - (size_t)n, "|%s=%s",
				      d->labels[k].key, d->labels[k].value);
		if (m->id[d->id].is_known)
			assert_string_equal(m->id[d->id].name, name);
		strcpy(m->id[d->id].name, name);
		m->id[d->id].is_known = true;
		m->id[d->id].kind = d->kind;
	}
	for (size_t i = 0; i < f->counter_count; i++) {
		uint32_t id = f->counters[i].id;

		model_seen(m, id, f->sequence);
		if (!f->is_key) {
			model_increment(m, f->sequence, id, -1, f->counters[i].value);
		} else if (f->sequence > m->id[id].key_sequence) {
			m->id[id].key_sequence = f->sequence;
			m->id[id].key_total = f->counters[i].value;
		}
	}
	for (size_t i = 0; i < f->gauge_count; i++) {
		uint32_t id = f->gauges[i].id;

		model_seen(m, id, f->sequence);
		if (f->sequence > m->id[id].gauge_sequence) {
			m->id[id].gauge_sequence = f->sequence;
			m->id[id].gauge = f->gauges[i].value;
		}
	}
	for (size_t i = 0; i < f->histogram_count; i++) {
		const struct frame_histogram *h = &f->histograms[i];

		model_seen(m, h->id, f->sequence);
		if (f->is_key && f->sequence > m->id[h->id].key_sequence) {
			m->id[h->id].key_sequence = f->sequence;
			memset(m->id[h->id].key_cells, 0, sizeof(m->id[h->id].key_cells));
			for (uint32_t c = 0; c < h->count; c++)
				m->id[h->id].key_cells[h->cells[c]] = h->counts[c];
		}
		for (uint32_t c = 0; !f->is_key && c < h->count; c++)
			model_increment(m, f->sequence, h->id, h->cells[c], h->counts[c]);
	}
	for (size_t i = 0; i < f->absent_count; i++) {
		assert_true(f->absent[i] < IDS);
		if (f->sequence > m->id[f->absent[i]].absent_sequence)
			m->id[f->absent[i]].absent_sequence = f->sequence;
	}
	m->events += f->event_count;
	m->events_dropped += f->events_dropped;
	frame_free(f);
}

static uint32_t model_find(const struct model *m, const char *name)
{
	uint32_t found = 0;

	for (uint32_t i = 1; i < IDS; i++)
		if (m->id[i].is_known && strcmp(m->id[i].name, name) == 0)
			found = i;
	return found;
}

static uint64_t model_total(const struct model *m, uint32_t id, int cell)
{
	uint64_t total = cell < 0 ? m->id[id].key_total : m->id[id].key_cells[cell];

	for (size_t i = 0; i < m->count; i++)
		if (m->increments[i].id == id && m->increments[i].cell == cell &&
		    m->increments[i].sequence > m->id[id].key_sequence)
			total += m->increments[i].value;
	return total;
}

static bool model_is_absent(const struct model *m, uint32_t id)
{
	return m->id[id].absent_sequence >= m->id[id].seen_sequence;
}

static struct model *model_new(void)
{
	struct model *m = calloc(1, sizeof(*m));

	assert_non_null(m);
	return m;
}

static void model_free(struct model *m)
{
	free(m->increments);
	free(m);
}

/* One frame of the source; a copy that the caller frees. */
static uint8_t *encode(struct frame_encoder *enc, const struct source *s, uint64_t sequence,
		       enum frame_type type, size_t *ret_size)
{
	const uint8_t *data;
	uint32_t samples, present = 0;
	uint8_t *copy;

	frame_encoder_begin(enc, sequence, 1700000000000 + sequence * 1000, 1000, type);
	for (unsigned int i = 0; i < s->count; i++) {
		assert_int_equal(frame_encoder_series(enc, &s->series[i]), 0);
		present += s->series[i].is_present;
	}
	assert_int_equal(frame_encoder_finish(enc, &data, ret_size, &samples), 0);
	assert_int_equal(samples, present);
	assert_true(*ret_size <= FRAME_SEALED_MAX);
	copy = malloc(*ret_size);
	assert_non_null(copy);
	memcpy(copy, data, *ret_size);
	return copy;
}

static void check_model(const struct model *m, const struct source *s)
{
	for (unsigned int i = 0; i < s->count; i++) {
		const struct segment_series *series = &s->series[i];
		char name[400];
		uint32_t id;

		snprintf(name, sizeof(name), "%s|gateway=nginx|which=%s", series->name,
			 s->value[i]);
		id = model_find(m, name);
		assert_int_not_equal(id, 0);
		assert_int_equal(m->id[id].kind, series->kind);
		assert_int_equal(model_is_absent(m, id), !series->is_present);
		if (series->kind == METRIC_COUNTER)
			assert_int_equal(model_total(m, id, -1), series->counter);
		else if (series->kind == METRIC_GAUGE && series->is_present)
			assert_memory_equal(&m->id[id].gauge, &series->gauge, sizeof(double));
		else if (series->kind == METRIC_HISTOGRAM)
			for (int c = 0; c < HIST_CELLS; c++)
				assert_int_equal(model_total(m, id, c), series->cells[c]);
	}
}

static struct source *source_new(unsigned int counters, unsigned int gauges,
				 unsigned int histograms)
{
	struct source *s = calloc(1, sizeof(*s));

	assert_non_null(s);
	for (unsigned int i = 0; i < counters; i++)
		source_add(s, i % 3 ? "app_things_total" : "tidegate_requests_total",
			   METRIC_COUNTER);
	for (unsigned int i = 0; i < gauges; i++)
		source_add(s, "tidegate_workers", METRIC_GAUGE);
	for (unsigned int i = 0; i < histograms; i++)
		source_add(s, "tidegate_loop_stall_seconds", METRIC_HISTOGRAM);
	return s;
}

static uint64_t random_magnitude(void)
{
	return random_next() >> (random_next() % 64);
}

static const double strange_gauges[] = {0,
					-0.0,
					1,
					-1,
					0.5,
					1e300,
					-1e-300,
					3.25e7,
					INFINITY,
					-INFINITY,
					9007199254740991.0,
					9007199254740992.0,
					-9007199254740991.0,
					0.1};

static void source_step(struct source *s)
{
	for (unsigned int i = 0; i < s->count; i++) {
		struct segment_series *series = &s->series[i];

		if (random_next() % 20 == 0)
			series->is_present = !series->is_present;
		if (!series->is_present || random_next() % 2)
			continue;
		if (series->kind == METRIC_COUNTER)
			series->counter += random_magnitude() >> 8;
		else if (series->kind == METRIC_GAUGE)
			series->gauge =
				random_next() % 2
					? strange_gauges[random_next() % ARRAY_LEN(strange_gauges)]
					: (double)(int64_t)random_next() / 3;
		else
			for (unsigned int c = 0; c < 10; c++)
				s->cells[i][random_next() % HIST_CELLS] += random_next() % 1000;
	}
}

static void test_order_is_irrelevant(void **state)
{
	enum { FRAMES = 60 };
	struct source *s = source_new(60, 30, 6);
	struct frame_encoder *enc;
	struct model *m = model_new();
	uint8_t *frames[FRAMES];
	size_t sizes[FRAMES];

	(void)state;
	assert_int_equal(frame_encoder_new(&enc), 0);
	for (unsigned int i = 0; i < FRAMES; i++) {
		enum frame_type type = i % 25 == 24   ? FRAME_KEY
				       : i % 25 == 12 ? FRAME_TOTALS
						      : FRAME_CHANGES;

		source_step(s);
		frames[i] = encode(enc, s, i + 1, type, &sizes[i]);
	}
	for (unsigned int i = FRAMES - 1; i; i--) {
		unsigned int k = (unsigned int)(random_next() % (i + 1));
		uint8_t *data = frames[i];
		size_t size = sizes[i];

		frames[i] = frames[k];
		sizes[i] = sizes[k];
		frames[k] = data;
		sizes[k] = size;
	}
	for (unsigned int i = 0; i < FRAMES; i++) {
		model_apply(m, frames[i], sizes[i]);
		free(frames[i]);
	}
	check_model(m, s);
	frame_encoder_free(enc);
	model_free(m);
	free(s);
}

static void test_unchanged_is_small(void **state)
{
	struct source *s = source_new(100, 0, 0);
	struct frame_encoder *enc;
	struct frame *f;
	uint8_t *data;
	size_t size;

	(void)state;
	assert_int_equal(frame_encoder_new(&enc), 0);
	data = encode(enc, s, 1, FRAME_CHANGES, &size);
	assert_int_equal(frame_decode(data, size, &f, NULL), 0);
	assert_true(f->is_key); /* the first always is */
	assert_int_equal(f->definition_count, 100);
	assert_int_equal(f->counter_count, 100);
	assert_int_equal(f->series, 100);
	assert_string_equal(f->definitions[1].unit, "things");
	assert_string_equal(f->definitions[0].unit, ""); /* in the catalogue */
	frame_free(f);
	free(data);
	data = encode(enc, s, 2, FRAME_CHANGES, &size);
	assert_true(size <= 20);
	assert_int_equal(frame_decode(data, size, &f, NULL), 0);
	assert_false(f->is_key);
	assert_int_equal(f->counter_count, 0);
	assert_int_equal(f->interval_ms, 1000);
	frame_free(f);
	free(data);
	frame_encoder_free(enc);
	free(s);
}

static void test_counter_that_fell(void **state)
{
	struct source *s = source_new(1, 0, 1);
	struct frame_encoder *enc;
	struct model *m = model_new();
	const uint64_t values[] = {100, 150, 20, 21};
	uint8_t *data;
	size_t size;

	(void)state;
	assert_int_equal(frame_encoder_new(&enc), 0);
	for (unsigned int i = 0; i < 4; i++) {
		s->series[0].counter = values[i];
		s->cells[1][7] = values[i];
		data = encode(enc, s, i + 1, i == 3 ? FRAME_KEY : FRAME_CHANGES, &size);
		model_apply(m, data, size);
		free(data);
	}
	assert_int_equal(model_total(m, 1, -1), 150 + 21);
	assert_int_equal(model_total(m, 2, 7), 150 + 21);
	frame_encoder_free(enc);
	model_free(m);
	free(s);
}

static void test_restart_doubles_nothing(void **state)
{
	struct source *s = source_new(3, 0, 1);
	struct frame_encoder *enc;
	struct model *m = model_new();
	uint32_t next;
	uint8_t *data;
	size_t size;

	(void)state;
	assert_int_equal(frame_encoder_new(&enc), 0);
	for (unsigned int i = 0; i < 4; i++) {
		s->series[i].counter = 100 + i;
		s->cells[3][5] = 9;
	}
	data = encode(enc, s, 1, FRAME_CHANGES, &size);
	model_apply(m, data, size);
	free(data);
	next = frame_encoder_next_id(enc);
	assert_int_equal(next, 5);
	frame_encoder_free(enc);

	assert_int_equal(frame_encoder_new(&enc), 0);
	assert_int_equal(frame_encoder_continue(enc, next), 0);
	assert_int_equal(frame_encoder_continue(enc, FRAME_ID_MAX + 1), -ERANGE);
	s->count = 1; /* the reader sees the others only later */
	data = encode(enc, s, 2, FRAME_CHANGES, &size);
	model_apply(m, data, size);
	free(data);
	s->count = 4;
	s->series[2].counter = 202;
	data = encode(enc, s, 3, FRAME_CHANGES, &size);
	model_apply(m, data, size);
	free(data);
	check_model(m, s);
	assert_true(model_find(m, "app_things_total|gateway=nginx|which=v2") >= next);
	frame_encoder_free(enc);
	model_free(m);
	free(s);
}

/* More than one frame holds: all arrives in the end, each frame within its limit. */
static void test_too_large_is_continued(void **state)
{
	enum { N = 6000 };
	static char values[N][200];
	struct segment_series series = {.name = "app_big_total",
					.unit = "",
					.help = "",
					.kind = METRIC_COUNTER,
					.is_present = true,
					.label_count = 1};
	struct frame_encoder *enc;
	static uint64_t totals[N + 2];
	unsigned int frames = 0;

	(void)state;
	assert_int_equal(frame_encoder_new(&enc), 0);
	for (unsigned int i = 0; i < N; i++)
		for (unsigned int k = 0; k < 180; k++)
			values[i][k] = (char)('a' + random_next() % 26);
	do {
		const uint8_t *data;
		struct frame *f;
		uint32_t samples;
		size_t size;

		frame_encoder_begin(enc, ++frames, 1, 1000, FRAME_CHANGES);
		for (unsigned int i = 0; i < N; i++) {
			series.labels[0] = (struct segment_label){"v", values[i]};
			series.counter = i * 1000 + frames;
			assert_int_equal(frame_encoder_series(enc, &series), 0);
		}
		assert_int_equal(frame_encoder_finish(enc, &data, &size, &samples), 0);
		assert_true(size <= FRAME_SEALED_MAX);
		assert_int_equal(frame_decode(data, size, &f, NULL), 0);
		for (size_t i = 0; i < f->counter_count; i++) {
			assert_true(f->counters[i].id <= N);
			totals[f->counters[i].id] =
				f->is_key ? f->counters[i].value
					  : totals[f->counters[i].id] + f->counters[i].value;
		}
		frame_free(f);
		assert_true(frames < 20);
	} while (frame_encoder_is_behind(enc));
	assert_true(frames > 3);
	for (unsigned int i = 0; i < N; i++) /* each as of the frame that held it last */
		assert_true(totals[i + 1] > i * 1000 && totals[i + 1] <= i * 1000 + frames);
	frame_encoder_free(enc);
}

static void test_limits_of_series(void **state)
{
	struct source *s = source_new(2, 0, 0);
	struct frame_encoder *enc;
	char long_value[FRAME_LABEL_MAX + 2];

	(void)state;
	assert_int_equal(frame_encoder_new(&enc), 0);
	memset(long_value, 'x', sizeof(long_value) - 1);
	long_value[sizeof(long_value) - 1] = '\0';
	frame_encoder_begin(enc, 1, 1, 1000, FRAME_KEY);
	s->series[0].labels[1].value = long_value;
	assert_int_equal(frame_encoder_series(enc, &s->series[0]), -EINVAL);
	s->series[0].labels[1] = (struct segment_label){"bad-key", "v"};
	assert_int_equal(frame_encoder_series(enc, &s->series[0]), -EINVAL);
	s->series[0].labels[1].key = "ok";
	s->series[0].name = "1bad";
	assert_int_equal(frame_encoder_series(enc, &s->series[0]), -EINVAL);
	s->series[0].name = "";
	assert_int_equal(frame_encoder_series(enc, &s->series[0]), -EINVAL);
	assert_int_equal(frame_encoder_refused(enc), 4);
	frame_encoder_free(enc);
	free(s);
}

static void test_events_are_bounded(void **state)
{
	struct frame_event event = {.id = 1,
				    .time_ms = 2,
				    .kind = "drain.end",
				    .gateway = "nginx",
				    .json = "{\"lost\":0}"};
	char big[FRAME_JSON_MAX + 2];
	struct frame_encoder *enc;
	const uint8_t *data;
	uint32_t samples;
	struct frame *f;
	size_t size;

	(void)state;
	assert_int_equal(frame_encoder_new(&enc), 0);
	frame_encoder_begin(enc, 1, 5, 50, FRAME_CHANGES);
	for (unsigned int i = 0; i < FRAME_EVENTS_MAX; i++)
		assert_int_equal(frame_encoder_event(enc, &event), 0);
	assert_int_equal(frame_encoder_event(enc, &event), -ENOSPC);
	memset(big, ' ', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	event.json = big;
	assert_int_equal(frame_encoder_event(enc, &event), -EINVAL);
	assert_int_equal(frame_encoder_finish(enc, &data, &size, &samples), 0);
	assert_int_equal(frame_decode(data, size, &f, NULL), 0);
	assert_int_equal(f->event_count, FRAME_EVENTS_MAX);
	assert_int_equal(f->events_dropped, 2);
	assert_int_equal(f->interval_ms, 50);
	assert_string_equal(f->events[63].kind, "drain.end");
	assert_string_equal(f->events[63].gateway, "nginx");
	assert_string_equal(f->events[63].json, "{\"lost\":0}");
	frame_free(f);
	/* Large ones: bounded by bytes. */
	big[FRAME_JSON_MAX] = '\0';
	frame_encoder_begin(enc, 2, 5, 50, FRAME_CHANGES);
	for (unsigned int i = 0; i < 40; i++)
		frame_encoder_event(enc, &event);
	assert_int_equal(frame_encoder_finish(enc, &data, &size, &samples), 0);
	assert_true(size <= FRAME_SEALED_MAX);
	assert_int_equal(frame_decode(data, size, &f, NULL), 0);
	assert_int_equal(f->event_count + f->events_dropped, 40);
	assert_true(f->events_dropped > 0);
	frame_free(f);
	frame_encoder_free(enc);
}

/* -------- hostile input -------- */

static size_t seal(uint8_t *out, const Tidegate__Frame *m)
{
	size_t n = tidegate__frame__pack(m, out + FRAME_SEAL_BYTES);
	uint32_t crc = crc32c(0, out + FRAME_SEAL_BYTES, n);

	out[0] = 0;
	for (unsigned int i = 0; i < 4; i++)
		out[1 + i] = (uint8_t)(crc >> (8 * i));
	return n + FRAME_SEAL_BYTES;
}

static int decode_message(const Tidegate__Frame *m)
{
	static uint8_t out[FRAME_SEALED_MAX * 2];
	struct frame *f = NULL;
	struct err e = {0};
	int r = frame_decode(out, seal(out, m), &f, &e);

	frame_free(f);
	if (r < 0)
		assert_true(strlen(e.text) > 0);
	return r;
}

static void test_every_bit_flip_is_found(void **state)
{
	struct source *s = source_new(20, 5, 2);
	struct frame_encoder *enc;
	uint8_t *data;
	size_t size;

	(void)state;
	assert_int_equal(frame_encoder_new(&enc), 0);
	source_step(s);
	data = encode(enc, s, 1, FRAME_KEY, &size);
	for (size_t bit = 8; bit < size * 8; bit++) {
		struct frame *f = NULL;

		data[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(frame_decode(data, size, &f, NULL), -EBADMSG);
		data[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	for (size_t n = 0; n < size; n++) {
		struct frame *f = NULL;

		assert_int_equal(frame_decode(data, n, &f, NULL), -EBADMSG);
	}
	free(data);
	frame_encoder_free(enc);
	free(s);
}

static void test_random_sections_never_crash(void **state)
{
	uint8_t section[64];
	unsigned int refused = 0;

	(void)state;
	for (unsigned int round = 0; round < 20000; round++) {
		Tidegate__Frame m;
		ProtobufCBinaryData bytes = {.len = 1 + random_next() % sizeof(section),
					     .data = section};

		for (size_t i = 0; i < bytes.len; i++)
			section[i] = (uint8_t)random_next();
		tidegate__frame__init(&m);
		m.sequence = 1;
		switch (round % 5) {
		case 0:
			m.counters = bytes;
			break;
		case 1:
			m.gauges = bytes;
			break;
		case 2:
			m.histograms = bytes;
			break;
		case 3:
			m.cells = bytes;
			break;
		default:
			m.absent = bytes;
		}
		refused += decode_message(&m) < 0;
	}
	assert_true(refused > 15000);
}

static void test_definitions_are_checked(void **state)
{
	Tidegate__SeriesDef def, second;
	Tidegate__SeriesDef *defs[] = {&def, &second};
	char key[] = "k", value[] = "v", metric[] = "m_total", long_metric[200];
	char *labels[] = {key, value, key, value};
	Tidegate__Frame m;
	struct frame_bits_writer w = {0};

	(void)state;
	tidegate__frame__init(&m);
	tidegate__series_def__init(&def);
	tidegate__series_def__init(&second);
	m.sequence = 1;
	m.n_defs = 2;
	m.defs = defs;
	def.id = 1;
	def.metric = metric;
	def.labels = labels;
	def.n_labels = 2;
	second.id = 1;
	second.shared = 2;
	assert_int_equal(decode_message(&m), 0);
	second.shared = 3;
	assert_int_equal(decode_message(&m), -EBADMSG);
	second.shared = 0;
	second.id = 0;
	assert_int_equal(decode_message(&m), -EBADMSG);
	second.id = FRAME_ID_MAX;
	assert_int_equal(decode_message(&m), -EBADMSG);
	second.id = 1;
	second.kind = 3;
	assert_int_equal(decode_message(&m), -EBADMSG);
	second.kind = 0;
	def.metric = NULL;
	assert_int_equal(decode_message(&m), -EBADMSG);
	memset(long_metric, 'm', sizeof(long_metric));
	long_metric[FRAME_NAME_MAX + 1] = '\0';
	def.metric = long_metric;
	assert_int_equal(decode_message(&m), -EBADMSG);
	def.metric = metric;
	def.n_labels = 1;
	assert_int_equal(decode_message(&m), -EBADMSG);
	def.n_labels = 4;
	assert_int_equal(decode_message(&m), 0);
	/* A counter's value for what is defined as a gauge: 1 item, gap 0, value 5. */
	frame_bits_put_code(&w, 1, FRAME_BITS_K_COUNT);
	frame_bits_put(&w, 0, FRAME_BITS_K_BITS);
	frame_bits_put(&w, 0, FRAME_BITS_K_BITS);
	frame_bits_put_code(&w, 0, 0);
	frame_bits_put_code(&w, 5, 0);
	m.counters = (ProtobufCBinaryData){.len = w.size, .data = w.data};
	assert_int_equal(decode_message(&m), 0);
	def.kind = METRIC_GAUGE;
	assert_int_equal(decode_message(&m), -EBADMSG);
	m.counters.len = 0;
	m.sequence = 0;
	assert_int_equal(decode_message(&m), -EBADMSG);
	frame_bits_fini(&w);
}

static void test_memory_is_bounded(void **state)
{
	enum { N = 120000 };
	static uint8_t plain[N * 2], out[FRAME_SEALED_MAX];
	struct frame *f = NULL;
	uint32_t crc;
	size_t n;

	(void)state;
	for (size_t i = 0; i < N; i++) { /* empty definitions: 2 bytes each, 200 in memory */
		plain[2 * i] = 5 << 3 | 2;
		plain[2 * i + 1] = 0;
	}
	n = ZSTD_compress(out + FRAME_SEAL_BYTES, sizeof(out) - FRAME_SEAL_BYTES, plain,
			  sizeof(plain), 3);
	assert_false(ZSTD_isError(n));
	crc = crc32c(0, out + FRAME_SEAL_BYTES, n);
	out[0] = FRAME_FLAG_ZSTD;
	for (unsigned int i = 0; i < 4; i++)
		out[1 + i] = (uint8_t)(crc >> (8 * i));
	assert_int_equal(frame_decode(out, n + FRAME_SEAL_BYTES, &f, NULL), -E2BIG);
	out[0] = FRAME_FLAG_ZSTD | FRAME_FLAG_DICTIONARY; /* it names none */
	assert_int_equal(frame_decode(out, n + FRAME_SEAL_BYTES, &f, NULL), -EBADMSG);
	out[0] = FRAME_FLAG_DICTIONARY;
	assert_int_equal(frame_decode(out, n + FRAME_SEAL_BYTES, &f, NULL), -EBADMSG);
	out[0] = 4;
	assert_int_equal(frame_decode(out, n + FRAME_SEAL_BYTES, &f, NULL), -EBADMSG);
	assert_int_equal(frame_decode(out, FRAME_SEALED_MAX + 1, &f, NULL), -E2BIG);
}

/* "As the one before" costs two bits: the copies are paid from the budget all the same. */
static void test_copies_are_bounded(void **state)
{
	struct frame_bits_writer w = {0};
	uint16_t cells[HIST_CELLS];
	uint64_t counts[HIST_CELLS];
	unsigned int start = 0;
	Tidegate__Frame m;

	(void)state;
	frame_code_init();
	for (unsigned int i = 0; i < HIST_CELLS; i++) {
		cells[i] = (uint16_t)i;
		counts[i] = 1;
	}
	for (unsigned int n = 1000; n <= 30000; n += 29000) {
		frame_bits_reset(&w);
		frame_bits_put_code(&w, n, FRAME_BITS_K_COUNT);
		frame_bits_put(&w, 0, FRAME_BITS_K_BITS);
		for (unsigned int i = 0; i < n; i++) {
			frame_bits_put_code(&w, 0, 0);
			frame_bits_put(&w, i > 0, 1);
			if (!i)
				frame_cells_put(&w, cells, counts, HIST_CELLS, &start);
		}
		tidegate__frame__init(&m);
		m.sequence = 1;
		m.cells = (ProtobufCBinaryData){.len = w.size, .data = w.data};
		assert_int_equal(decode_message(&m), n == 1000 ? 0 : -E2BIG);
	}
	/* Two versions in one frame, and a first one that is as none before. */
	m.histograms = m.cells;
	assert_int_equal(decode_message(&m), -EBADMSG);
	m.histograms.len = 0;
	frame_bits_reset(&w);
	frame_bits_put_code(&w, 1, FRAME_BITS_K_COUNT);
	frame_bits_put(&w, 0, FRAME_BITS_K_BITS);
	frame_bits_put_code(&w, 0, 0);
	frame_bits_put(&w, 1, 1);
	m.cells = (ProtobufCBinaryData){.len = w.size, .data = w.data};
	assert_int_equal(decode_message(&m), -EBADMSG);
	frame_bits_fini(&w);
}

static void checksum(uint8_t *out, size_t size)
{
	uint32_t crc = crc32c(0, out + FRAME_SEAL_BYTES, size - FRAME_SEAL_BYTES);

	for (unsigned int i = 0; i < 4; i++)
		out[1 + i] = (uint8_t)(crc >> (8 * i));
}

/* Definitions are packed with it; events, too. Who has not got it is served all the same. */
static void test_dictionary(void **state)
{
	struct frame_event event = {.id = 1,
				    .time_ms = 2,
				    .kind = "slow_request",
				    .gateway = "nginx",
				    .json = "{\"instance\":\"edge-1/1\",\"side\":\"downstream\"}"};
	struct source *s = source_new(40, 5, 0);
	struct frame_encoder *enc;
	struct frame *f, *again;
	const uint8_t *data;
	uint8_t *simple;
	size_t size, simple_size;
	uint32_t samples;

	(void)state;
	assert_int_equal(frame_encoder_new(&enc), 0);
	for (uint64_t sequence = 1; sequence <= 2; sequence++) {
		frame_encoder_begin(enc, sequence, 1, 1000, FRAME_CHANGES);
		for (unsigned int i = 0; i < s->count; i++)
			assert_int_equal(frame_encoder_series(enc, &s->series[i]), 0);
		if (sequence == 2)
			assert_int_equal(frame_encoder_event(enc, &event), 0);
		assert_int_equal(frame_encoder_finish(enc, &data, &size, &samples), 0);
		assert_int_equal(frame_dictionary_of(data, size), FRAME_DICTIONARY);
		assert_int_equal(frame_decode(data, size, &f, NULL), 0);
		assert_int_equal(frame_without_dictionary(data, size, &simple, &simple_size), 0);
		assert_non_null(simple);
		assert_int_equal(frame_dictionary_of(simple, simple_size), 0);
		assert_true(simple_size > size); /* else it had not been used */
		assert_int_equal(frame_decode(simple, simple_size, &again, NULL), 0);
		assert_int_equal(again->sequence, sequence);
		assert_int_equal(again->definition_count, sequence == 1 ? s->count : 0);
		assert_int_equal(again->definition_count, f->definition_count);
		assert_int_equal(again->event_count, f->event_count);
		if (again->event_count)
			assert_string_equal(again->events[0].json, event.json);
		frame_free(f);
		frame_free(again);
		free(simple);
	}
	/* Without texts there is none, and nothing is packed anew. */
	frame_encoder_begin(enc, 3, 1, 1000, FRAME_TOTALS);
	for (unsigned int i = 0; i < s->count; i++)
		assert_int_equal(frame_encoder_series(enc, &s->series[i]), 0);
	assert_int_equal(frame_encoder_finish(enc, &data, &size, &samples), 0);
	assert_int_equal(frame_dictionary_of(data, size), 0);
	assert_int_equal(frame_without_dictionary(data, size, &simple, &simple_size), 0);
	assert_null(simple);
	frame_encoder_free(enc);
	free(s);
}

/* A later version's: which one is missing is said. Its flag is part of it. */
static void test_unknown_dictionary(void **state)
{
	static uint8_t dictionary[1 << 20], out[FRAME_SEALED_MAX], plain[4096];
	ZSTD_CCtx *context = ZSTD_createCCtx();
	Tidegate__Frame m;
	struct err e = {0};
	struct frame *f;
	uint8_t *simple;
	size_t n, size;

	(void)state;
	assert_non_null(context);
	assert_true(frame_dictionary_files[0].size < sizeof(dictionary));
	memcpy(dictionary, frame_dictionary_files[0].data, frame_dictionary_files[0].size);
	dictionary[4] = 77; /* its id */
	dictionary[5] = dictionary[6] = dictionary[7] = 0;
	tidegate__frame__init(&m);
	m.sequence = 1;
	n = tidegate__frame__pack(&m, plain);
	n = ZSTD_compress_usingDict(context, out + FRAME_SEAL_BYTES, sizeof(out) - FRAME_SEAL_BYTES,
				    plain, n, dictionary, frame_dictionary_files[0].size, 3);
	assert_false(ZSTD_isError(n));
	size = n + FRAME_SEAL_BYTES;
	out[0] = FRAME_FLAG_ZSTD | FRAME_FLAG_DICTIONARY;
	checksum(out, size);
	assert_int_equal(frame_dictionary_of(out, size), 77);
	assert_int_equal(frame_decode(out, size, &f, &e), -ENOKEY);
	assert_string_equal(e.text, "frame: needs dictionary 77, here are: 1");
	assert_int_equal(frame_without_dictionary(out, size, &simple, &n), -ENOKEY);
	assert_null(simple);
	out[0] = FRAME_FLAG_ZSTD;
	assert_int_equal(frame_decode(out, size, &f, &e), -EBADMSG);
	ZSTD_freeCCtx(context);
}

static void *read_one(void *data)
{
	struct frame *f = NULL;
	const struct iovec *frame = data;

	if (frame_decode(frame->iov_base, frame->iov_len, &f, NULL) < 0)
		return NULL;
	frame_free(f);
	return data;
}

/* What a thread keeps for reading goes when it ends: the leak sanitizer says if not. */
static void test_threads_leave_nothing(void **state)
{
	struct source *s = source_new(40, 0, 0);
	struct frame_encoder *enc;
	struct iovec frame;

	(void)state;
	assert_int_equal(frame_encoder_new(&enc), 0);
	frame.iov_base = encode(enc, s, 1, FRAME_KEY, &frame.iov_len);
	assert_true(frame_dictionary_of(frame.iov_base, frame.iov_len));
	for (unsigned int i = 0; i < 3; i++) {
		pthread_t thread;
		void *result;

		assert_int_equal(pthread_create(&thread, NULL, read_one, &frame), 0);
		assert_int_equal(pthread_join(thread, &result), 0);
		assert_ptr_equal(result, &frame);
	}
	free(frame.iov_base);
	frame_encoder_free(enc);
	free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order_is_irrelevant),
		cmocka_unit_test(test_unchanged_is_small),
		cmocka_unit_test(test_counter_that_fell),
		cmocka_unit_test(test_restart_doubles_nothing),
		cmocka_unit_test(test_too_large_is_continued),
		cmocka_unit_test(test_limits_of_series),
		cmocka_unit_test(test_events_are_bounded),
		cmocka_unit_test(test_every_bit_flip_is_found),
		cmocka_unit_test(test_random_sections_never_crash),
		cmocka_unit_test(test_definitions_are_checked),
		cmocka_unit_test(test_memory_is_bounded),
		cmocka_unit_test(test_dictionary),
		cmocka_unit_test(test_threads_leave_nothing),
		cmocka_unit_test(test_unknown_dictionary),
		cmocka_unit_test(test_copies_are_bounded),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
