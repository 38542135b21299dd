/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes a sample on the wire, against what other exporters send for the same samples (wire/peers.h),
 * a request a tick each. A sample is one series in one tick, changed or not. Ours is the SP payload
 * of an Uplink with one frame; events, which the others do not have, are left out.
 *
 * Recorded: tests/data/frames (nothing is trained on them), from the first tick that defines nothing, with the key frame of the
 * minute. Counters and gauges are encoded alone, so that they pay for all that a frame costs; then
 * all together: what is more is what histograms cost.
 *
 * Standard agent: 80 counters, 20 gauges and 4 histograms for two minutes, with key frames. In each
 * tick 40 % of counters and gauges change. Each of its series is a recorded one that changed at least
 * in every fourth tick, with its name and labels; when it changes it takes one of the increments (or
 * values) that were recorded of it, at random. A histogram always takes what it once counted in a tick.
 */
#include "recording.h"

#include "base/str.h"
#include "tidegate.pb-c.h"
#include "wire/peers.h"

#define PEERS       3
#define MODELS      256u
#define MODEL_TICKS 64u

static const char *const peer_names[PEERS] = {"OTLP + zstd", "remote write + snappy",
					      "Prometheus text + gzip"};
static size_t (*const peer_sizes[PEERS])(const struct peer_tick *) = {
	peer_otlp_zstd, peer_remote_write_snappy, peer_text_gzip};

/* Bytes and samples: [0] counters and gauges, [1] histograms. Texts: [0] all definitions at once,
 * [1] events, each with and without the dictionary. */
struct result {
	uint64_t samples[2], bytes[2], peer_bytes[2][PEERS];
	uint64_t changes, ticks;
	uint64_t text_frames[2], text_bytes[2], simple_bytes[2];
};

static void fail(const char *what)
{
	fprintf(stderr, "bench wire: %s\n", what);
	exit(1);
}

static size_t uplink_size(const uint8_t *data, size_t size)
{
	ProtobufCBinaryData frame = {.len = size, .data = (uint8_t *)(uintptr_t)data};
	Tidegate__Uplink m;

	tidegate__uplink__init(&m);
	m.session = 7;
	m.frames = &frame;
	m.n_frames = 1;
	return tidegate__uplink__get_packed_size(&m);
}

/* Two encoders side by side: without histograms and with all. */
struct ours {
	struct frame_encoder *plain, *all;
	uint64_t sequence;
};

static void ours_open(struct ours *o)
{
	*o = (struct ours){.sequence = 100000};
	if (frame_encoder_new(&o->plain) < 0 || frame_encoder_new(&o->all) < 0)
		fail("out of memory");
}

static void ours_close(struct ours *o)
{
	frame_encoder_free(o->plain);
	frame_encoder_free(o->all);
}

static size_t encode(struct frame_encoder *enc, const struct peer_tick *t, uint64_t sequence,
		     bool has_histograms, enum frame_type type)
{
	const uint8_t *data;
	uint32_t samples;
	size_t size;

	frame_encoder_begin(enc, sequence, t->time_ms, 1000, type);
	for (unsigned int i = 0; i < t->count; i++)
		if (t->series[i].name &&
		    (has_histograms || t->series[i].kind != METRIC_HISTOGRAM) &&
		    frame_encoder_series(enc, &t->series[i]) < 0)
			fail("a series was refused");
	if (frame_encoder_finish(enc, &data, &size, &samples) < 0)
		fail("a frame could not be made");
	return uplink_size(data, size);
}

static void take(struct ours *o, struct peer_tick *t, enum frame_type type, bool is_counted,
		 struct result *res)
{
	size_t plain = encode(o->plain, t, ++o->sequence, false, type);
	size_t all = encode(o->all, t, o->sequence, true, type);

	if (!is_counted)
		return;
	res->ticks++;
	res->bytes[0] += plain;
	res->bytes[1] += all - plain;
	for (unsigned int i = 0; i < t->count; i++)
		if (t->series[i].name && t->series[i].is_present)
			res->samples[t->series[i].kind == METRIC_HISTOGRAM]++;
	for (unsigned int kind = 0; kind < 2; kind++) {
		t->has_histograms = kind;
		for (unsigned int p = 0; p < PEERS; p++)
			res->peer_bytes[kind][p] += peer_sizes[p](t);
	}
}

/* What the dictionary saves. */
static void take_text(struct result *res, unsigned int kind, const uint8_t *data, size_t size)
{
	uint8_t *simple;
	size_t simple_size;

	if (frame_without_dictionary(data, size, &simple, &simple_size) < 0)
		fail("a frame could not be packed anew");
	res->text_frames[kind]++;
	res->text_bytes[kind] += size;
	res->simple_bytes[kind] += simple ? simple_size : size;
	free(simple);
}

/* The first frame of an encoder that comes now; a frame with the tick's events. */
static void texts(const struct recording *rec, struct result *res)
{
	struct frame_encoder *enc;
	const uint8_t *data;
	uint32_t ignored;
	size_t size;

	if (frame_encoder_new(&enc) < 0)
		fail("out of memory");
	for (unsigned int kind = 0; kind < 2; kind++) {
		frame_encoder_begin(enc, rec->frame->sequence, rec->frame->time_ms, 1000,
				    FRAME_CHANGES);
		for (unsigned int i = 0; i < rec->count; i++)
			if (rec->series[i].name && frame_encoder_series(enc, &rec->series[i]) < 0)
				fail("a series was refused");
		for (size_t i = 0; kind && i < rec->frame->event_count; i++)
			frame_encoder_event(enc, &rec->frame->events[i]);
		if (frame_encoder_finish(enc, &data, &size, &ignored) < 0)
			fail("a frame could not be made");
		if (!kind || rec->frame->event_count)
			take_text(res, kind, data, size);
	}
	frame_encoder_free(enc);
}

/* -------- what recordings tell of increments -------- */

struct model {
	struct segment_series series; /* its name and labels */
	unsigned int count;
	union {
		uint64_t increments[MODEL_TICKS];
		double values[MODEL_TICKS];
		struct {
			uint16_t n;
			uint16_t cells[HIST_CELLS];
			uint64_t counts[HIST_CELLS];
		} * changes[MODEL_TICKS];
	};
};

static struct model models[MODELS];
static unsigned int model_count;

/* Texts are kept for the life of the program. */
static void series_copy(struct segment_series *to, const struct segment_series *from)
{
	*to = *from;
	to->name = strdup(from->name);
	to->unit = strdup(from->unit);
	to->help = strdup(from->help);
	for (unsigned int i = 0; i < from->label_count; i++)
		to->labels[i] = (struct segment_label){strdup(from->labels[i].key),
						       strdup(from->labels[i].value)};
}

static struct model *model_of(unsigned int *index, const struct segment_series *series)
{
	if (!*index) {
		if (model_count == MODELS)
			return NULL;
		series_copy(&models[model_count].series, series);
		*index = ++model_count;
	}
	if (models[*index - 1].count == MODEL_TICKS)
		return NULL;
	return &models[*index - 1];
}

static void learn(const struct recording *rec, unsigned int index[RECORDING_SERIES])
{
	const struct frame *f = rec->frame;
	struct model *m;

	for (size_t i = 0; i < f->counter_count; i++) {
		m = model_of(&index[f->counters[i].id], &rec->series[f->counters[i].id]);
		if (m)
			m->increments[m->count++] = f->counters[i].value;
	}
	for (size_t i = 0; i < f->gauge_count; i++) {
		m = model_of(&index[f->gauges[i].id], &rec->series[f->gauges[i].id]);
		if (m)
			m->values[m->count++] = f->gauges[i].value;
	}
	for (size_t i = 0; i < f->histogram_count; i++) {
		const struct frame_histogram *h = &f->histograms[i];

		m = model_of(&index[h->id], &rec->series[h->id]);
		if (!m)
			continue;
		m->changes[m->count] = calloc(1, sizeof(*m->changes[0]));
		if (!m->changes[m->count])
			fail("out of memory");
		m->changes[m->count]->n = (uint16_t)h->count;
		memcpy(m->changes[m->count]->cells, h->cells, h->count * sizeof(h->cells[0]));
		memcpy(m->changes[m->count]->counts, h->counts, h->count * sizeof(h->counts[0]));
		m->count++;
	}
}

static void forget_rare(unsigned int from, uint64_t ticks)
{
	unsigned int kept = from;

	for (unsigned int i = from; i < model_count; i++)
		if (models[i].count * 4 >= ticks || models[i].count == MODEL_TICKS)
			models[kept++] = models[i];
	memset(&models[kept], 0, (model_count - kept) * sizeof(models[0]));
	model_count = kept;
}

/* -------- recorded -------- */

static void recorded(const char *path, struct result *res)
{
	static struct recording rec;
	unsigned int index[RECORDING_SERIES] = {0}, first_model = model_count;
	struct peer_tick t = {0};
	bool is_steady = false;
	struct ours ours;

	*res = (struct result){0};
	if (recording_open(&rec, path) < 0)
		exit(1);
	ours_open(&ours);
	for (unsigned int tick = 0; recording_next(&rec); tick++) {
		if (!t.start_ms)
			t.start_ms = rec.frame->time_ms;
		is_steady = is_steady || (tick >= 8 && !rec.frame->definition_count);
		t.series = rec.series;
		t.count = rec.count;
		t.time_ms = rec.frame->time_ms;
		take(&ours, &t, rec.frame->is_key ? FRAME_TOTALS : FRAME_CHANGES, is_steady, res);
		if (is_steady)
			texts(&rec, res);
		if (is_steady && !rec.frame->is_key) {
			learn(&rec, index);
			res->changes += rec.frame->counter_count + rec.frame->gauge_count;
		}
	}
	forget_rare(first_model, res->ticks);
	ours_close(&ours);
	recording_close(&rec);
}

/* -------- standard agent -------- */

#define COUNTERS   80u
#define GAUGES     20u
#define HISTOGRAMS 4u
#define SERIES     (COUNTERS + GAUGES + HISTOGRAMS)
#define TICKS      120u

static uint64_t random_state = 0x9e3779b97f4a7c15ULL;

static unsigned int random_below(unsigned int n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (unsigned int)((random_state >> 33) % n);
}

static const struct model *next_model(unsigned int *at, enum metric_kind kind)
{
	for (unsigned int i = 0; i < model_count; i++) {
		*at = (*at + 1) % model_count;
		if (models[*at].series.kind == kind)
			return &models[*at];
	}
	fail("nothing of a kind was recorded");
	return NULL;
}

static void step(struct segment_series *s, const struct model *m)
{
	unsigned int pick = random_below(m->count);
	uint64_t *cells = (uint64_t *)(uintptr_t)s->cells;

	if (s->kind == METRIC_HISTOGRAM) {
		for (unsigned int c = 0; c < m->changes[pick]->n; c++)
			cells[m->changes[pick]->cells[c]] += m->changes[pick]->counts[c];
		return;
	}
	if (random_below(10) >= 4)
		return;
	if (s->kind == METRIC_COUNTER)
		s->counter += m->increments[pick];
	else
		s->gauge = m->values[pick];
}

static void standard(struct result *res)
{
	static struct segment_series series[SERIES];
	static uint64_t cells[HISTOGRAMS][HIST_CELLS];
	static char which[SERIES][8];
	const struct model *of[SERIES];
	unsigned int at[3] = {0};
	struct peer_tick t = {.series = series, .count = SERIES, .start_ms = 1790000000000};
	struct ours ours;

	*res = (struct result){0};
	for (unsigned int i = 0; i < SERIES; i++) {
		enum metric_kind kind = i < COUNTERS            ? METRIC_COUNTER
					: i < COUNTERS + GAUGES ? METRIC_GAUGE
								: METRIC_HISTOGRAM;
		struct segment_series *s = &series[i];

		of[i] = next_model(&at[kind], kind);
		*s = of[i]->series;
		s->index = i;
		s->is_present = true;
		s->counter = 0;
		s->gauge = 0;
		s->cells = kind == METRIC_HISTOGRAM ? cells[i - COUNTERS - GAUGES] : NULL;
		/* One that is taken twice is that of another worker. */
		for (unsigned int k = 0; k < i; k++) {
			if (of[k] != of[i] || s->label_count == SEGMENT_LABELS_MAX)
				continue;
			snprintf(which[i], sizeof(which[i]), "%u", 1200 + i);
			s->labels[s->label_count++] = (struct segment_label){"worker", which[i]};
			break;
		}
	}
	ours_open(&ours);
	for (unsigned int tick = 0; tick <= TICKS; tick++) {
		for (unsigned int i = 0; i < SERIES; i++)
			step(&series[i], of[i]);
		t.time_ms = t.start_ms + 1000 * tick + 3;
		take(&ours, &t, tick && tick % 60 == 0 ? FRAME_TOTALS : FRAME_CHANGES, tick > 0,
		     res);
	}
	ours_close(&ours);
}

/* -------- rows -------- */

static void row(const char *name, double value, const char *peer, double ratio, double budget)
{
	printf("{\"name\":\"%s\",\"value\":%.4g,\"unit\":\"B\",\"peer\":", name, value);
	if (peer)
		printf("\"%s\",\"ratio\":%.4g,", peer, ratio);
	else
		printf("null,\"ratio\":null,");
	if (budget > 0)
		printf("\"budget\":%.4g,\"holds\":%s}\n", budget,
		       (peer ? ratio : value) <= budget ? "true" : "false");
	else
		printf("\"budget\":null,\"holds\":null}\n");
}

/* budget: of counters and gauges; 0: none. */
static void rows(const char *what, const struct result *res, double budget)
{
	static const char *const kinds[] = {"counters and gauges", "histograms"};

	for (unsigned int kind = 0; kind < 2; kind++) {
		double ours = (double)res->bytes[kind] / (double)res->samples[kind];
		double best = 0;
		char name[160], peer[96] = "";

		snprintf(name, sizeof(name), "wire: %s: %s, bytes a sample", what, kinds[kind]);
		row(name, ours, NULL, 0, kind ? 0 : budget);
		for (unsigned int p = 0; p < PEERS; p++) {
			double theirs =
				(double)res->peer_bytes[kind][p] / (double)res->samples[kind];

			snprintf(name, sizeof(name), "wire: %s: %s, %s", what, kinds[kind],
				 peer_names[p]);
			row(name, theirs, NULL, 0, 0);
			if (best > 0 && theirs >= best)
				continue;
			best = theirs;
			snprintf(peer, sizeof(peer), "%s (%.3g B)", peer_names[p], theirs);
		}
		snprintf(name, sizeof(name), "wire: %s: %s, against the best", what, kinds[kind]);
		row(name, ours, peer, ours / best, kind || !budget ? 0 : 0.125);
	}
}

static void text_rows(const char *what, const struct result *res)
{
	static const char *const kinds[] = {"frame of all definitions", "frame of events"};

	for (unsigned int kind = 0; kind < 2; kind++) {
		double n = (double)res->text_frames[kind];
		char name[160], peer[64];

		if (!res->text_frames[kind])
			continue;
		snprintf(name, sizeof(name), "wire: %s: %s", what, kinds[kind]);
		snprintf(peer, sizeof(peer), "without the dictionary (%.4g B)",
			 (double)res->simple_bytes[kind] / n);
		row(name, (double)res->text_bytes[kind] / n, peer,
		    (double)res->text_bytes[kind] / (double)res->simple_bytes[kind], 0);
	}
}

static void add(struct result *sum, const struct result *res)
{
	for (unsigned int kind = 0; kind < 2; kind++) {
		sum->samples[kind] += res->samples[kind];
		sum->bytes[kind] += res->bytes[kind];
		for (unsigned int p = 0; p < PEERS; p++)
			sum->peer_bytes[kind][p] += res->peer_bytes[kind][p];
	}
	for (unsigned int kind = 0; kind < 2; kind++) {
		sum->text_frames[kind] += res->text_frames[kind];
		sum->text_bytes[kind] += res->text_bytes[kind];
		sum->simple_bytes[kind] += res->simple_bytes[kind];
	}
	sum->changes += res->changes;
	sum->ticks += res->ticks;
}

int main(void)
{
	static const char *const names[] = {"nginx", "haproxy", "caddy", "mixed"};
	struct result res, sum = {0};
	char path[64];

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		snprintf(path, sizeof(path), "tests/data/frames/%s.spool", names[i]);
		recorded(path, &res);
		rows(names[i], &res, 0);
		text_rows(names[i], &res);
		printf("# %s: %llu ticks of %.0f series, %.0f %% of counters and gauges change\n",
		       names[i], (unsigned long long)res.ticks,
		       (double)(res.samples[0] + res.samples[1]) / (double)res.ticks,
		       100.0 * (double)res.changes / (double)res.samples[0]);
		add(&sum, &res);
	}
	rows("all recorded gateways", &sum, 0.7);
	standard(&res);
	rows("standard agent, recorded increments", &res, 0.7);
	return 0;
}
