/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ingest against a generator that knows the truth: frames in random order, doubled, lost and sent
 * again, key frames (whole and partial) between them, the core restarted at any point. Whatever
 * happens, totals end equal to the truth and were never seen to fall.
 */
#include "fleet/ingest.h"
#include "fleet/merge.h"
#include "fleet/snapshot.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNTERS   7
#define HISTOGRAMS 2
#define GAUGES     2
#define SERIES     (COUNTERS + HISTOGRAMS + GAUGES)
#define FRAMES     160

static const struct fleet_limits limits = {.agents = 64, .agent_series = 4096, .series = 10000};

static uint64_t seed_state;

static unsigned int rnd(unsigned int below)
{
	seed_state = seed_state * 6364136223846793005ULL + 1442695040888963407ULL;
	return (unsigned int)(seed_state >> 33) % below;
}

struct test_frame {
	struct frame f;
	struct frame_definition definitions[SERIES];
	struct frame_counter counters[COUNTERS];
	struct frame_gauge gauges[GAUGES];
	struct frame_histogram histograms[HISTOGRAMS];
	uint16_t cells[HISTOGRAMS][HIST_CELLS];
	uint64_t counts[HISTOGRAMS][HIST_CELLS];
	bool is_delivered;
};

/* One incarnation of one agent, and what it counted. */
struct source {
	const char *agent;
	uint8_t incarnation[FRAME_INCARNATION_BYTES];
	uint64_t counters[COUNTERS];
	uint64_t cells[HISTOGRAMS][HIST_CELLS];
	double gauges[GAUGES];
	struct test_frame frames[FRAMES];
	uint32_t session;
};

static char names[SERIES][32];

static void definition_fill(struct frame_definition *d, unsigned int i, const char *agent)
{
	*d = (struct frame_definition){.id = i + 1, .metric = names[i], .unit = "", .help = "h"};
	d->kind = i < COUNTERS                ? METRIC_COUNTER
		  : i < COUNTERS + HISTOGRAMS ? METRIC_HISTOGRAM
					      : METRIC_GAUGE;
	d->labels[0] = (struct segment_label){"gateway", "nginx"};
	d->labels[1] = (struct segment_label){"instance", agent};
	d->label_count = 2;
}

static void names_fill(void)
{
	for (unsigned int i = 0; i < SERIES; i++)
		snprintf(names[i], sizeof(names[i]), "test_series_%u", i);
}

static void values_fill(struct source *s, struct test_frame *t, bool is_key, unsigned int part)
{
	struct frame *f = &t->f;

	for (unsigned int i = 0; i < COUNTERS; i++) {
		uint64_t by = rnd(3) ? 0 : rnd(100);

		s->counters[i] += by;
		if (is_key ? part == 2 || i % 2 == part : by > 0)
			t->counters[f->counter_count++] =
				(struct frame_counter){i + 1, is_key ? s->counters[i] : by};
		else if (is_key && by) /* not listed, so it must not have changed */
			s->counters[i] -= by;
	}
	for (unsigned int h = 0; h < HISTOGRAMS; h++) {
		bool listed = !is_key || part == 2 || h % 2 == part;
		struct frame_histogram *out = &t->histograms[f->histogram_count];
		uint64_t by[HIST_CELLS] = {0};
		uint32_t n = 0;

		if (!listed)
			continue;
		for (unsigned int k = 0; k < 3; k++)
			by[rnd(HIST_CELLS)] += rnd(9);
		for (unsigned int c = 0; c < HIST_CELLS; c++) {
			uint64_t v;

			s->cells[h][c] += by[c];
			v = is_key ? s->cells[h][c] : by[c];
			if (!v)
				continue;
			t->cells[f->histogram_count][n] = (uint16_t)c;
			t->counts[f->histogram_count][n++] = v;
		}
		*out = (struct frame_histogram){COUNTERS + h + 1, n, t->cells[f->histogram_count],
						t->counts[f->histogram_count]};
		f->histogram_count++;
	}
	for (unsigned int g = 0; g < GAUGES; g++) {
		if (!rnd(2) && !(is_key && part == 2))
			continue;
		s->gauges[g] = rnd(1000) / 8.0;
		t->gauges[f->gauge_count++] =
			(struct frame_gauge){COUNTERS + HISTOGRAMS + g + 1, s->gauges[g]};
	}
}

static void source_fill(struct source *s, const char *agent, uint8_t incarnation,
			unsigned int frames)
{
	memset(s, 0, sizeof(*s));
	s->agent = agent;
	memset(s->incarnation, incarnation, sizeof(s->incarnation));
	for (unsigned int n = 0; n < frames; n++) {
		struct test_frame *t = &s->frames[n];
		bool is_key = n == 0 || rnd(12) == 0;
		/* 0, 1: partial, as a frame that was too large; 2: whole */
		unsigned int part = n == 0 ? 2 : rnd(3);

		t->f.sequence = n + 1;
		t->f.time_ms = 1000000 + n * 1000;
		t->f.interval_ms = 1000;
		t->f.is_key = is_key;
		t->f.series = SERIES;
		t->f.definitions = t->definitions;
		t->f.counters = t->counters;
		t->f.gauges = t->gauges;
		t->f.histograms = t->histograms;
		if (n == 0)
			for (unsigned int i = 0; i < SERIES; i++)
				definition_fill(&t->definitions[t->f.definition_count++], i, agent);
		values_fill(s, t, is_key, part);
	}
}

/* The log: what was applied, in order, and a snapshot in the middle of it. */
struct record {
	uint32_t type;
	size_t size;
	uint8_t *data;
};

struct log {
	struct record *records;
	size_t count;
	struct {
		struct source *source;
		struct test_frame *frame; /* NULL: hello */
		uint32_t session;
	} entries[4096];
	size_t entry_count;
};

static int save_record(void *data, uint32_t type, const void *payload, size_t size)
{
	struct log *log = data;
	struct record *r;

	log->records = realloc(log->records, (log->count + 1) * sizeof(*log->records));
	assert_non_null(log->records);
	r = &log->records[log->count++];
	*r = (struct record){type, size, malloc(size + 1)};
	assert_non_null(r->data);
	memcpy(r->data, payload, size);
	return 0;
}

static void log_clear(struct log *log)
{
	for (size_t i = 0; i < log->count; i++)
		free(log->records[i].data);
	free(log->records);
	memset(log, 0, sizeof(*log));
}

static void log_fold(struct log *log, const struct fleet *f)
{
	log_clear(log);
	assert_int_equal(snapshot_save(f, save_record, log), 0);
}

static void hello(struct fleet *f, struct source *s, struct log *log, uint32_t session)
{
	struct fleet_hello h = {.agent = s->agent, .incarnation = s->incarnation};

	for (unsigned int i = 0; i < FLEET_AGENT_LABELS; i++)
		h.labels[i] = "";
	assert_int_equal(fleet_say_hello(f, &h, session, 5000, &s->session, NULL), 0);
	if (session)
		assert_int_equal(s->session, session);
	else if (log) {
		log->entries[log->entry_count].source = s;
		log->entries[log->entry_count].frame = NULL;
		log->entries[log->entry_count++].session = s->session;
	}
}

static struct fleet *restart(struct fleet *f, struct log *log)
{
	fleet_free(f);
	assert_int_equal(fleet_new(&limits, &f), 0);
	for (size_t i = 0; i < log->count; i++)
		assert_int_equal(snapshot_load(f, log->records[i].type, log->records[i].data,
					       log->records[i].size),
				 0);
	for (size_t i = 0; i < log->entry_count; i++) {
		struct source *s = log->entries[i].source;

		if (!log->entries[i].frame)
			hello(f, s, NULL, log->entries[i].session);
		else
			assert_int_equal(fleet_apply(f, log->entries[i].session,
						     &log->entries[i].frame->f, 100, 5000, NULL),
					 FLEET_APPLIED);
	}
	return f;
}

struct seen {
	uint64_t counters[COUNTERS];
	uint64_t cells[HISTOGRAMS][HIST_CELLS];
};

/* Reads the fleet view; nothing may be less than before. */
static void observe(const struct fleet *f, struct seen *seen)
{
	struct merge_options o = {.by = MERGE_BY_FLEET, .now_ms = 5000, .stale_ms = 10000};
	struct merge_view *v;

	assert_int_equal(merge_view_new(f, &o, &v), 0);
	for (size_t i = 0; i < merge_view_count(v); i++) {
		struct merge_series s;
		unsigned int n;

		if (!merge_view_get(v, i, &s))
			continue;
		assert_int_equal(sscanf(s.name, "test_series_%u", &n), 1);
		if (s.kind == METRIC_COUNTER) {
			assert_true(s.counter >= seen->counters[n]);
			seen->counters[n] = s.counter;
		} else if (s.kind == METRIC_HISTOGRAM) {
			for (unsigned int c = 0; c < HIST_CELLS; c++) {
				assert_true(s.cells[c] >= seen->cells[n - COUNTERS][c]);
				seen->cells[n - COUNTERS][c] = s.cells[c];
			}
		}
	}
	merge_view_free(v);
}

static void expect_truth(const struct fleet *f, struct seen *seen, const struct source *sources,
			 unsigned int n)
{
	observe(f, seen);
	for (unsigned int i = 0; i < COUNTERS; i++) {
		uint64_t sum = 0;

		for (unsigned int s = 0; s < n; s++)
			sum += sources[s].counters[i];
		assert_int_equal(seen->counters[i], sum);
	}
	for (unsigned int h = 0; h < HISTOGRAMS; h++)
		for (unsigned int c = 0; c < HIST_CELLS; c++) {
			uint64_t sum = 0;

			for (unsigned int s = 0; s < n; s++)
				sum += sources[s].cells[h][c];
			assert_int_equal(seen->cells[h][c], sum);
		}
}

/* Sends a random frame of the first few that are not delivered. False: none is left. */
static bool deliver_one(struct fleet *f, struct source *s, struct log *log, unsigned int frames,
			unsigned int reach)
{
	struct test_frame *t = NULL;
	unsigned int skip = rnd(reach);
	enum fleet_verdict verdict;

	for (unsigned int i = 0; i < frames; i++) {
		if (s->frames[i].is_delivered)
			continue;
		t = &s->frames[i];
		if (!skip--)
			break;
	}
	if (!t)
		return false;
	if (!rnd(5))
		return true; /* lost on the way */
	verdict = fleet_apply(f, s->session, &t->f, 100, 5000, NULL);
	if (verdict == FLEET_NEED_KEY) /* before the frame with the definitions */
		return true;
	assert_int_equal(verdict, FLEET_APPLIED);
	log->entries[log->entry_count].source = s;
	log->entries[log->entry_count].frame = t;
	log->entries[log->entry_count++].session = s->session;
	t->is_delivered = rnd(4) != 0; /* else the acknowledgement was lost */
	if (!t->is_delivered) {
		assert_int_equal(fleet_apply(f, s->session, &t->f, 100, 5000, NULL),
				 FLEET_DUPLICATE);
		t->is_delivered = true;
	}
	return true;
}

static void test_random_delivery(void **state)
{
	struct source *sources = calloc(3, sizeof(*sources));
	struct log *log = calloc(1, sizeof(*log));

	(void)state;
	assert_non_null(sources);
	assert_non_null(log);
	for (unsigned int round = 0; round < 250; round++) {
		unsigned int reach = 1 + rnd(40);
		struct seen seen = {0};
		struct fleet_stats stats;
		struct fleet *f;
		bool more = true;

		seed_state = round * 77 + 5;
		assert_int_equal(fleet_new(&limits, &f), 0);
		/* Two agents, one of them with two incarnations. */
		source_fill(&sources[0], "a", 1, FRAMES);
		source_fill(&sources[1], "a", 2, FRAMES / 2);
		source_fill(&sources[2], "b", 1, FRAMES / 2);
		for (unsigned int s = 0; s < 3; s++)
			hello(f, &sources[s], log, 0);
		while (more) {
			more = false;
			for (unsigned int s = 0; s < 3; s++)
				more |= deliver_one(f, &sources[s], log, s ? FRAMES / 2 : FRAMES,
						    reach);
			if (!rnd(10))
				observe(f, &seen);
			if (!rnd(60))
				log_fold(log, f);
			if (!rnd(40)) {
				f = restart(f, log);
				observe(f, &seen);
			}
		}
		expect_truth(f, &seen, sources, 3);
		fleet_stats(f, &stats);
		assert_int_equal(stats.resets, 0);
		assert_int_equal(stats.lost, 0);
		assert_int_equal(stats.held_bytes, 0);
		/* Departing changes nothing that is seen. */
		fleet_depart(f, 1000000, 1);
		fleet_stats(f, &stats);
		assert_int_equal(stats.incarnations, 0);
		expect_truth(f, &seen, sources, 3);
		fleet_free(f);
		log_clear(log);
	}
	free(sources);
	free(log);
}

/* Frames that never come: a whole key frame above them makes up for them. */
static void test_losses_for_ever(void **state)
{
	struct source *s = calloc(1, sizeof(*s));

	(void)state;
	assert_non_null(s);
	for (unsigned int round = 0; round < 100; round++) {
		struct seen seen = {0};
		struct fleet *f;

		seed_state = round + 1;
		assert_int_equal(fleet_new(&limits, &f), 0);
		source_fill(s, "a", 1, FRAMES);
		/* The last is a whole key frame. */
		s->frames[FRAMES - 1].f.is_key = true;
		s->frames[FRAMES - 1].f.counter_count = 0;
		s->frames[FRAMES - 1].f.gauge_count = 0;
		s->frames[FRAMES - 1].f.histogram_count = 0;
		values_fill(s, &s->frames[FRAMES - 1], true, 2);
		hello(f, s, NULL, 0);
		for (unsigned int i = 0; i < FRAMES; i++) {
			if (i && i < FRAMES - 1 && !rnd(3))
				continue;
			assert_int_equal(fleet_apply(f, s->session, &s->frames[i].f, 1, 5000, NULL),
					 FLEET_APPLIED);
			observe(f, &seen);
		}
		expect_truth(f, &seen, s, 1);
		fleet_free(f);
	}
	free(s);
}

static struct frame_definition one_definition(uint32_t id, const char *metric,
					      enum metric_kind kind)
{
	return (struct frame_definition){
		.id = id, .metric = metric, .unit = "", .help = "", .kind = kind};
}

static struct fleet *fleet_with(const struct fleet_limits *l, struct source *s)
{
	struct fleet *f;

	assert_int_equal(fleet_new(l, &f), 0);
	memset(s->incarnation, 9, sizeof(s->incarnation));
	s->agent = "a";
	hello(f, s, NULL, 0);
	return f;
}

static void test_sessions(void **state)
{
	static struct source s;
	struct fleet *f = fleet_with(&limits, &s);
	struct frame empty = {.sequence = 1};
	uint32_t session = s.session, other;
	struct fleet_hello h = {
		.agent = "a", .incarnation = s.incarnation, .labels = {"", "", "", ""}};
	struct err e = {{0}};

	(void)state;
	assert_int_equal(fleet_apply(f, session + 1, &empty, 1, 1, NULL), FLEET_NEED_HELLO);
	assert_int_equal(fleet_apply(f, 0, &empty, 1, 1, NULL), FLEET_NEED_HELLO);
	assert_int_equal(fleet_say_hello(f, &h, 0, 1, &other, &e), 0);
	assert_int_equal(other, session);
	assert_string_equal(fleet_session_agent(f, session), "a");
	h.agent = "a\nb";
	assert_int_equal(fleet_say_hello(f, &h, 0, 1, &other, &e), -EINVAL);
	h.agent = "";
	assert_int_equal(fleet_say_hello(f, &h, 0, 1, &other, &e), -EINVAL);
	/* A departed incarnation is not counted twice. */
	fleet_depart(f, 1000000, 1);
	h.agent = "a";
	assert_int_equal(fleet_say_hello(f, &h, 0, 1, &other, &e), -ESTALE);
	assert_int_equal(fleet_apply(f, session, &empty, 1, 1, NULL), FLEET_NEED_HELLO);
	fleet_free(f);
}

static void test_agent_limit(void **state)
{
	struct fleet_limits few = {.agents = 2, .agent_series = 10, .series = 10};
	uint8_t incarnation[FRAME_INCARNATION_BYTES] = {1};
	struct fleet_stats stats;
	struct fleet *f;
	uint32_t session;

	(void)state;
	assert_int_equal(fleet_new(&few, &f), 0);
	for (int i = 0; i < 3; i++) {
		char name[24];
		struct fleet_hello h = {
			.agent = name, .incarnation = incarnation, .labels = {"", "", "", ""}};

		snprintf(name, sizeof(name), "a%d", i);
		assert_int_equal(fleet_say_hello(f, &h, 0, 1, &session, NULL), i < 2 ? 0 : -ENOSPC);
	}
	fleet_stats(f, &stats);
	assert_int_equal(stats.agents_refused, 1);
	fleet_free(f);
}

static void test_bad_frames(void **state)
{
	static struct source s;
	struct fleet *f = fleet_with(&limits, &s);
	struct frame_definition d[2] = {one_definition(1, "c", METRIC_COUNTER),
					one_definition(2, "h", METRIC_HISTOGRAM)};
	struct frame_counter counters[1] = {{1, 5}};
	struct frame_gauge gauges[1] = {{1, 1}};
	uint16_t cells[2] = {5, 5};
	uint64_t counts[2] = {1, 1};
	struct frame_histogram histograms[1] = {{2, 2, cells, counts}};
	struct frame frame = {.sequence = 1, .counter_count = 1, .counters = counters};

	(void)state;
	assert_int_equal(fleet_apply(f, s.session, &frame, 1, 1, NULL), FLEET_NEED_KEY);
	frame.is_key = true;
	frame.definition_count = 2;
	frame.definitions = d;
	assert_int_equal(fleet_apply(f, s.session, &frame, 1, 1, NULL), FLEET_APPLIED);
	frame = (struct frame){.sequence = 2, .gauge_count = 1, .gauges = gauges};
	assert_int_equal(fleet_apply(f, s.session, &frame, 1, 1, NULL), FLEET_REFUSED);
	frame = (struct frame){.sequence = 2, .histogram_count = 1, .histograms = histograms};
	assert_int_equal(fleet_apply(f, s.session, &frame, 1, 1, NULL), FLEET_REFUSED);
	cells[1] = HIST_CELLS;
	assert_int_equal(fleet_apply(f, s.session, &frame, 1, 1, NULL), FLEET_REFUSED);
	cells[1] = HIST_CELLS - 1;
	assert_int_equal(fleet_apply(f, s.session, &frame, 1, 1, NULL), FLEET_APPLIED);
	frame = (struct frame){.sequence = 0};
	assert_int_equal(fleet_apply(f, s.session, &frame, 1, 1, NULL), FLEET_REFUSED);
	/* An id is one series for ever. */
	d[0].metric = "other";
	frame = (struct frame){.sequence = 3, .definition_count = 1, .definitions = d};
	assert_int_equal(fleet_apply(f, s.session, &frame, 1, 1, NULL), FLEET_REFUSED);
	fleet_free(f);
}

static void test_series_limits(void **state)
{
	struct fleet_limits few = {.agents = 2, .agent_series = 2, .series = 100};
	static struct source s;
	struct fleet *f = fleet_with(&few, &s);
	struct frame_definition d[4] = {one_definition(1, "c1", METRIC_COUNTER),
					one_definition(2, "bad-name", METRIC_COUNTER),
					one_definition(3, "c3", METRIC_COUNTER),
					one_definition(4, "c4", METRIC_COUNTER)};
	struct frame_counter counters[4] = {{1, 1}, {2, 2}, {3, 3}, {4, 4}};
	struct frame frame = {.sequence = 1,
			      .is_key = true,
			      .definition_count = 4,
			      .definitions = d,
			      .counter_count = 4,
			      .counters = counters};
	struct fleet_stats stats;

	(void)state;
	/* The frame is taken, the series too many are not. */
	assert_int_equal(fleet_apply(f, s.session, &frame, 1, 1, NULL), FLEET_APPLIED);
	fleet_stats(f, &stats);
	assert_int_equal(stats.series_refused, 2);
	assert_int_equal(stats.series, 2);
	/* Another kind of a name that is known. */
	fleet_free(f);
	f = fleet_with(&limits, &s);
	d[1] = one_definition(2, "c1", METRIC_GAUGE);
	frame.definition_count = 2;
	frame.counter_count = 1;
	assert_int_equal(fleet_apply(f, s.session, &frame, 1, 1, NULL), FLEET_APPLIED);
	fleet_stats(f, &stats);
	assert_int_equal(stats.series_refused, 1);
	fleet_free(f);
}

/* A peer with a gap that never closes costs a fixed sum, and is asked for a key frame. */
static void test_gap_is_bounded(void **state)
{
	static struct source s;
	struct fleet *f = fleet_with(&limits, &s);
	struct frame_definition d[1] = {one_definition(1, "c", METRIC_COUNTER)};
	struct frame_counter counters[1] = {{1, 1}};
	struct frame frame = {.sequence = 1,
			      .is_key = true,
			      .series = 1,
			      .definition_count = 1,
			      .definitions = d,
			      .counter_count = 1,
			      .counters = counters};
	struct merge_options o = {.by = MERGE_BY_FLEET, .now_ms = 1, .stale_ms = 1};
	enum fleet_verdict verdict = FLEET_APPLIED;
	struct merge_series series;
	struct merge_view *v;
	struct fleet_stats stats;

	(void)state;
	assert_int_equal(fleet_apply(f, s.session, &frame, 1, 1, NULL), FLEET_APPLIED);
	frame = (struct frame){.sequence = 2, .counter_count = 1, .counters = counters};
	for (uint64_t i = 0; i < 1000000 && verdict == FLEET_APPLIED; i++) {
		frame.sequence += i % 64 == 0 ? 2 : 1;
		verdict = fleet_apply(f, s.session, &frame, 1, 1, NULL);
	}
	assert_int_equal(verdict, FLEET_NEED_KEY);
	fleet_stats(f, &stats);
	assert_true(stats.held_bytes <= (1 << 20) + 4096);
	counters[0].value = 5000000;
	frame.is_key = true;
	frame.series = 1;
	assert_int_equal(fleet_apply(f, s.session, &frame, 1, 1, NULL), FLEET_APPLIED);
	fleet_stats(f, &stats);
	assert_true(stats.held_bytes < 1 << 20);
	assert_true(stats.lost > 0);
	assert_int_equal(merge_view_new(f, &o, &v), 0);
	assert_true(merge_view_get(v, 0, &series));
	assert_int_equal(series.counter, 5000000);
	merge_view_free(v);
	fleet_free(f);
}

/* Of a backlog one frame is lost, and the key frame of now is there before the rest has come: only
 * the lost one is given up. */
static void test_backlog_behind_a_lost_frame(void **state)
{
	enum { BACKLOG = 200000, MISSING = 7 };
	static struct source s;
	struct fleet *f = fleet_with(&limits, &s);
	struct frame_definition d[1] = {one_definition(1, "c", METRIC_COUNTER)};
	struct frame_counter counters[1] = {{1, 1}};
	struct frame frame = {.sequence = 1,
			      .is_key = true,
			      .series = 1,
			      .definition_count = 1,
			      .definitions = d,
			      .counter_count = 1,
			      .counters = counters};
	struct frame now = frame;
	struct merge_options o = {.by = MERGE_BY_FLEET, .now_ms = 1, .stale_ms = 1};
	struct frame_counter total[1] = {{1, BACKLOG}};
	struct merge_series series;
	struct fleet_stats stats;
	struct merge_view *v;

	(void)state;
	assert_int_equal(fleet_apply(f, s.session, &frame, 1, 1, NULL), FLEET_APPLIED);
	now.sequence = BACKLOG;
	now.counters = total;
	assert_int_equal(fleet_apply(f, s.session, &now, 1, 1, NULL), FLEET_APPLIED);
	frame = (struct frame){.counter_count = 1, .counters = counters};
	for (frame.sequence = 2; frame.sequence < BACKLOG; frame.sequence++)
		if (frame.sequence != MISSING)
			assert_int_equal(fleet_apply(f, s.session, &frame, 1, 1, NULL),
					 FLEET_APPLIED);
	fleet_stats(f, &stats);
	assert_int_equal(stats.lost, 1);
	assert_int_equal(stats.duplicates, 0);
	assert_int_equal(stats.held_bytes, 0);
	assert_int_equal(merge_view_new(f, &o, &v), 0);
	assert_true(merge_view_get(v, 0, &series));
	assert_int_equal(series.counter, BACKLOG);
	merge_view_free(v);
	fleet_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_delivery),
		cmocka_unit_test(test_losses_for_ever),
		cmocka_unit_test(test_sessions),
		cmocka_unit_test(test_agent_limit),
		cmocka_unit_test(test_bad_frames),
		cmocka_unit_test(test_series_limits),
		cmocka_unit_test(test_gap_is_bounded),
		cmocka_unit_test(test_backlog_behind_a_lost_frame),
	};

	names_fill();
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
