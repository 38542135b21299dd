/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Three aggregators below one, in two clusters, against one aggregator that hears every agent
 * itself: whatever is killed, lost, doubled or late between the two levels, the sums above are the
 * same, and no counter above was ever seen to fall.
 */
#include "fleet/tributary.h"

#include "fleet/snapshot.h"
#include "fleet/uplink.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define AGENTS   9
#define LOWERS   3
#define TICKS    240
#define FRAMES   (TICKS + 8)
#define SERIES   4
#define HOUR_MS  (3600ULL * 1000)
#define FRESH_MS (1ULL << 60)

static const struct fleet_limits limits = {.agents = 64, .agent_series = 4096, .series = 100000};
static const char *const clusters[LOWERS] = {"east", "east", "west"};

static uint64_t seed_state;

static unsigned int rnd(unsigned int below)
{
	seed_state = seed_state * 6364136223846793005ULL + 1442695040888963407ULL;
	return (unsigned int)(seed_state >> 33) % below;
}

struct agent {
	char id[16];
	struct frame_encoder *encoder;
	uint64_t requests, sequence, cells[HIST_CELLS];
	double active, peak;
	uint32_t session_below, session_direct;
};

struct sealed {
	uint8_t *data;
	size_t size;
	uint32_t session; /* of the life that it is from */
	bool is_settled;
};

/* An aggregator below: its fleet, and what of it outlives the process: spool and commit log. */
struct lower {
	struct fleet *fleet;
	struct frame_encoder *encoder;
	struct sealed frames[FRAMES];
	uint64_t count, sequence; /* frames of all lives; of this one */
	unsigned int lives;
	uint32_t next_id, session_above;
	bool needs_key;
	unsigned int index;
};

struct world {
	struct agent agents[AGENTS];
	struct lower lowers[LOWERS];
	struct fleet *above, *direct;
	uint64_t now_ms, highest;
	bool is_sum; /* what the hello of an aggregator says */
};

static void say_hello(struct fleet *f, const char *id, const char *cluster, bool is_sum,
		      unsigned int life, uint64_t now_ms, uint32_t *ret_session)
{
	uint8_t incarnation[FRAME_INCARNATION_BYTES] = {0};
	const struct fleet_hello hello = {
		.agent = id,
		.incarnation = incarnation,
		.labels = {cluster, "", "", ""},
		.is_sum = is_sum,
	};

	memcpy(incarnation, id, strlen(id));
	incarnation[FRAME_INCARNATION_BYTES - 1] = (uint8_t)life;
	assert_int_equal(fleet_say_hello(f, &hello, 0, now_ms, ret_session, NULL), 0);
}

static enum fleet_verdict apply(struct fleet *f, uint32_t session, const uint8_t *data, size_t size,
				uint64_t now_ms)
{
	enum fleet_verdict verdict;
	struct frame *frame;

	assert_int_equal(frame_decode(data, size, &frame, NULL), 0);
	verdict = fleet_apply(f, session, frame, size, now_ms, NULL);
	frame_free(frame);
	return verdict;
}

/* -------- the agents -------- */

static void agent_count(struct agent *a)
{
	a->requests += rnd(50);
	a->active = rnd(20);
	a->peak = rnd(1000);
	for (unsigned int i = 0; i < 3; i++)
		a->cells[rnd(HIST_CELLS)] += rnd(9);
}

static void agent_tick(struct world *w, unsigned int n)
{
	struct agent *a = &w->agents[n];
	struct segment_series series[SERIES] = {
		{.name = "test_requests", .kind = METRIC_COUNTER, .counter = a->requests},
		{.name = "test_seconds", .kind = METRIC_HISTOGRAM, .cells = a->cells},
		{.name = "test_active", .kind = METRIC_GAUGE, .gauge = a->active},
		{.name = "test_peak", .kind = METRIC_GAUGE, .merge = METRIC_MAX, .gauge = a->peak},
	};
	const uint8_t *data;
	uint32_t samples;
	size_t size;

	frame_encoder_begin(a->encoder, ++a->sequence, w->now_ms, 1000, FRAME_CHANGES);
	for (unsigned int i = 0; i < SERIES; i++) {
		series[i].unit = "";
		series[i].help = "h";
		series[i].is_present = true;
		series[i].label_count = 2;
		series[i].labels[0] = (struct segment_label){"gateway", n % 2 ? "nginx" : "kong"};
		series[i].labels[1] = (struct segment_label){"instance", a->id};
		assert_int_equal(frame_encoder_series(a->encoder, &series[i]), 0);
	}
	assert_int_equal(frame_encoder_finish(a->encoder, &data, &size, &samples), 0);
	assert_int_equal(
		apply(w->lowers[n % LOWERS].fleet, a->session_below, data, size, w->now_ms),
		FLEET_APPLIED);
	assert_int_equal(apply(w->direct, a->session_direct, data, size, w->now_ms), FLEET_APPLIED);
}

/* -------- the aggregators below -------- */

static void lower_tick(struct world *w, struct lower *l)
{
	const struct merge_options options = {
		.by = MERGE_BY_FLEET, .now_ms = w->now_ms, .stale_ms = FRESH_MS};
	struct sealed *out = &l->frames[l->count++];
	struct merge_view *view;
	uint64_t refused = 0;
	const uint8_t *data;
	uint32_t samples;

	assert_true(l->count <= FRAMES);
	out->session = l->session_above;
	assert_int_equal(merge_view_new(l->fleet, &options, &view), 0);
	frame_encoder_begin(l->encoder, ++l->sequence, w->now_ms, 1000,
			    l->needs_key ? FRAME_KEY : FRAME_CHANGES);
	assert_int_equal(tributary_encode(view, NULL, l->encoder, &refused), 0);
	assert_int_equal(refused, 0);
	assert_int_equal(frame_encoder_finish(l->encoder, &data, &out->size, &samples), 0);
	l->next_id = frame_encoder_next_id(l->encoder);
	l->needs_key = false;
	out->data = malloc(out->size);
	memcpy(out->data, data, out->size);
	merge_view_free(view);
}

static void lower_deliver(struct world *w, struct lower *l, unsigned int n, uint64_t now_ms)
{
	struct sealed *s = &l->frames[n];

	switch (apply(w->above, s->session, s->data, s->size, now_ms)) {
	case FLEET_APPLIED:
		s->is_settled = true;
		break;
	case FLEET_DUPLICATE:
		assert_true(s->is_settled);
		break;
	case FLEET_NEED_KEY:
		l->needs_key = true;
		break;
	default:
		fail();
	}
}

/* -------- death -------- */

static void lower_meet_above(struct world *w, struct lower *l)
{
	char id[16];

	snprintf(id, sizeof(id), "lower-%u", l->index);
	say_hello(w->above, id, "", w->is_sum, l->lives, w->now_ms, &l->session_above);
}

static int copy_record(void *data, uint32_t type, const void *payload, size_t size)
{
	return snapshot_load(data, type, payload, size);
}

/* What a restart does: the state comes back from what was written down. */
static struct fleet *reborn(struct fleet *f)
{
	struct fleet *copy;

	assert_int_equal(fleet_new(&limits, &copy), 0);
	assert_int_equal(snapshot_save(f, copy_record, copy), 0);
	fleet_free(f);
	return copy;
}

/* Its process died, or the whole machine: then the spool begins a new incarnation, and frames of
 * the one before may still come. */
static void lower_die(struct world *w, struct lower *l, bool is_machine)
{
	l->fleet = reborn(l->fleet);
	frame_encoder_free(l->encoder);
	assert_int_equal(frame_encoder_new(&l->encoder), 0);
	if (is_machine && l->lives + 1 < FLEET_INCARNATIONS_MAX) {
		l->lives++;
		l->sequence = 0;
		lower_meet_above(w, l);
	} else {
		assert_int_equal(frame_encoder_continue(l->encoder, l->next_id), 0);
	}
}

/* -------- the comparison -------- */

static bool is_same(struct merge_view *a, struct merge_view *b)
{
	if (merge_view_count(a) != merge_view_count(b))
		return false;
	for (size_t i = 0; i < merge_view_count(a); i++) {
		struct merge_series x, y;
		bool has_x = merge_view_get(a, i, &x), has_y = merge_view_get(b, i, &y);

		if (has_x != has_y || strcmp(x.name, y.name) != 0 || x.kind != y.kind ||
		    x.merge != y.merge || x.label_count != y.label_count)
			return false;
		for (unsigned int l = 0; l < x.label_count; l++)
			if (strcmp(x.labels[l].key, y.labels[l].key) != 0 ||
			    strcmp(x.labels[l].value, y.labels[l].value) != 0)
				return false;
		/* Whole numbers: sums of gauges are exact in any order. */
		if (x.counter != y.counter || x.gauge > y.gauge || x.gauge < y.gauge ||
		    !x.cells != !y.cells ||
		    (x.cells && memcmp(x.cells, y.cells, HIST_CELLS * sizeof(uint64_t)) != 0))
			return false;
	}
	return true;
}

static bool is_equal_above(const struct world *w, const char *metric)
{
	const struct merge_options options = {
		.by = MERGE_BY_FLEET, .metric = metric, .now_ms = w->now_ms, .stale_ms = FRESH_MS};
	struct merge_view *above, *direct;
	bool same;

	assert_int_equal(merge_view_new(w->above, &options, &above), 0);
	assert_int_equal(merge_view_new(w->direct, &options, &direct), 0);
	assert_true(merge_view_count(direct) > 0);
	same = is_same(above, direct);
	merge_view_free(above);
	merge_view_free(direct);
	return same;
}

static void above_check_rises(struct world *w)
{
	const struct merge_options options = {.by = MERGE_BY_FLEET,
					      .metric = "test_requests",
					      .now_ms = w->now_ms,
					      .stale_ms = FRESH_MS};
	struct merge_view *view;
	uint64_t sum = 0;

	assert_int_equal(merge_view_new(w->above, &options, &view), 0);
	for (size_t i = 0; i < merge_view_count(view); i++) {
		struct merge_series s;

		if (merge_view_get(view, i, &s))
			sum += s.counter;
	}
	merge_view_free(view);
	assert_true(sum >= w->highest);
	w->highest = sum;
}

/* -------- the tests -------- */

static struct world *world_new(bool is_sum, uint64_t seed)
{
	struct world *w = calloc(1, sizeof(*w));

	seed_state = seed;
	w->now_ms = 1700000000000ULL;
	w->is_sum = is_sum;
	assert_int_equal(fleet_new(&limits, &w->above), 0);
	assert_int_equal(fleet_new(&limits, &w->direct), 0);
	for (unsigned int i = 0; i < LOWERS; i++) {
		assert_int_equal(fleet_new(&limits, &w->lowers[i].fleet), 0);
		assert_int_equal(frame_encoder_new(&w->lowers[i].encoder), 0);
		w->lowers[i].index = i;
	}
	for (unsigned int i = 0; i < LOWERS; i++)
		lower_meet_above(w, &w->lowers[i]);
	for (unsigned int i = 0; i < AGENTS; i++) {
		struct agent *a = &w->agents[i];

		snprintf(a->id, sizeof(a->id), "agent-%u", i);
		assert_int_equal(frame_encoder_new(&a->encoder), 0);
		say_hello(w->lowers[i % LOWERS].fleet, a->id, clusters[i % LOWERS], false, 0,
			  w->now_ms, &a->session_below);
		say_hello(w->direct, a->id, clusters[i % LOWERS], false, 0, w->now_ms,
			  &a->session_direct);
	}
	return w;
}

static void world_free(struct world *w)
{
	for (unsigned int i = 0; i < AGENTS; i++)
		frame_encoder_free(w->agents[i].encoder);
	for (unsigned int i = 0; i < LOWERS; i++) {
		fleet_free(w->lowers[i].fleet);
		frame_encoder_free(w->lowers[i].encoder);
		for (unsigned int n = 0; n < FRAMES; n++)
			free(w->lowers[i].frames[n].data);
	}
	fleet_free(w->above);
	fleet_free(w->direct);
	free(w);
}

static void world_tick(struct world *w)
{
	w->now_ms += 1000;
	for (unsigned int i = 0; i < AGENTS; i++) {
		agent_count(&w->agents[i]);
		agent_tick(w, i);
	}
	for (unsigned int i = 0; i < LOWERS; i++)
		lower_tick(w, &w->lowers[i]);
}

/* What waits, in order, until nothing asks for a key frame any more. */
static void drain(struct world *w)
{
	for (unsigned int i = 0; i < LOWERS; i++) {
		struct lower *l = &w->lowers[i];

		for (unsigned int round = 0; round < 4; round++) {
			for (unsigned int n = 0; n < l->count; n++)
				if (!l->frames[n].is_settled)
					lower_deliver(w, l, n, w->now_ms);
			if (!l->needs_key)
				break;
			lower_tick(w, l);
		}
		for (unsigned int n = 0; n < l->count; n++)
			assert_true(l->frames[n].is_settled);
	}
}

static void sums_are_exact_whoever_dies(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct world *w = world_new(true, seed);
		unsigned int deaths = 0;

		for (unsigned int t = 0; t < TICKS; t++) {
			world_tick(w);
			for (unsigned int k = 0; k < 4; k++) {
				struct lower *l = &w->lowers[rnd(LOWERS)];

				/* Early, late, doubled, or for now not at all. */
				lower_deliver(w, l, rnd((unsigned int)l->count), w->now_ms);
				above_check_rises(w);
			}
			if (!rnd(10)) {
				lower_die(w, &w->lowers[rnd(LOWERS)], !rnd(4));
				deaths++;
			}
			if (!rnd(20)) {
				w->above = reborn(w->above);
				deaths++;
			}
		}
		assert_true(deaths > 10);
		assert_false(is_equal_above(w, NULL));
		drain(w);
		above_check_rises(w);
		assert_true(is_equal_above(w, NULL));
		world_free(w);
	}
}

/* What departs for agents must not for sums: they go on, and would be refused. */
static void an_aggregator_may_be_away_for_long(void **state)
{
	struct world *w = world_new(true, 7);

	(void)state;
	world_tick(w);
	drain(w);
	w->above = reborn(w->above);
	w->now_ms += 100 * HOUR_MS;
	fleet_depart(w->above, w->now_ms, 49 * HOUR_MS);
	for (unsigned int i = 0; i < LOWERS; i++)
		lower_meet_above(w, &w->lowers[i]);
	world_tick(w);
	drain(w);
	assert_true(is_equal_above(w, "test_requests"));
	assert_true(is_equal_above(w, "test_seconds"));
	world_free(w);
}

/* More lives than are remembered: the oldest departs, what it counted is in the others. */
static void lives_depart_and_count_once(void **state)
{
	struct world *w = world_new(true, 9);

	(void)state;
	for (unsigned int i = 0; i < LOWERS * (FLEET_INCARNATIONS_MAX + 4); i++) {
		struct lower *l = &w->lowers[i % LOWERS];

		world_tick(w);
		drain(w);
		above_check_rises(w);
		assert_true(is_equal_above(w, NULL));
		frame_encoder_free(l->encoder);
		assert_int_equal(frame_encoder_new(&l->encoder), 0);
		l->lives++;
		l->sequence = 0;
		lower_meet_above(w, l);
		above_check_rises(w);
	}
	world_free(w);
}

/* Without `sums` in the hello the clusters below would be one: the reason why it is there. */
static void an_agent_has_one_cluster(void **state)
{
	struct world *w = world_new(false, 7);

	(void)state;
	world_tick(w);
	drain(w);
	assert_false(is_equal_above(w, "test_requests"));
	world_free(w);
}

static void too_many_labels_are_counted(void **state)
{
	struct frame_encoder *encoder;
	struct frame_definition d = {
		.id = 1, .metric = "test_wide", .unit = "", .help = "", .label_count = 12};
	struct frame_counter counter = {1, 5};
	struct frame frame = {.sequence = 1,
			      .is_key = true,
			      .definition_count = 1,
			      .definitions = &d,
			      .counter_count = 1,
			      .counters = &counter};
	const struct merge_options options = {.by = MERGE_BY_FLEET, .stale_ms = FRESH_MS};
	char keys[12][8];
	struct merge_view *view;
	struct fleet *f;
	uint64_t refused = 0;
	uint32_t session;

	(void)state;
	for (unsigned int i = 0; i < 12; i++) {
		snprintf(keys[i], sizeof(keys[i]), "key_%u", i);
		d.labels[i] = (struct segment_label){keys[i], "v"};
	}
	assert_int_equal(fleet_new(&limits, &f), 0);
	say_hello(f, "wide", "east", false, 0, 1, &session);
	assert_int_equal(fleet_apply(f, session, &frame, 10, 1, NULL), FLEET_APPLIED);
	assert_int_equal(frame_encoder_new(&encoder), 0);
	assert_int_equal(merge_view_new(f, &options, &view), 0);
	assert_int_equal(merge_view_count(view), 1);
	frame_encoder_begin(encoder, 1, 1, 1000, FRAME_KEY);
	assert_int_equal(tributary_encode(view, NULL, encoder, &refused), 0);
	assert_int_equal(refused, 1);
	merge_view_free(view);
	frame_encoder_free(encoder);
	fleet_free(f);
}

static struct frame *encoded(struct fleet *f, uint64_t now_ms, const char *name, int expected,
			     uint64_t *refused)
{
	const struct merge_options options = {
		.by = MERGE_BY_FLEET, .now_ms = now_ms, .stale_ms = 1000};
	struct frame_encoder *encoder;
	struct merge_view *view;
	struct frame *frame;
	const uint8_t *data;
	uint32_t samples;
	size_t size;

	assert_int_equal(merge_view_new(f, &options, &view), 0);
	assert_int_equal(frame_encoder_new(&encoder), 0);
	frame_encoder_begin(encoder, 1, now_ms, 1000, FRAME_KEY);
	assert_int_equal(tributary_encode(view, name, encoder, refused), expected);
	assert_int_equal(frame_encoder_finish(encoder, &data, &size, &samples), 0);
	assert_int_equal(frame_decode(data, size, &frame, NULL), 0);
	merge_view_free(view);
	frame_encoder_free(encoder);
	return frame;
}

static void sends(struct fleet *f, uint64_t now_ms, const char *name, int expected, size_t names,
		  size_t sums)
{
	uint64_t refused = 0;
	struct frame *frame = encoded(f, now_ms, name, expected, &refused);

	assert_int_equal(frame->gauge_count, names);
	assert_int_equal(frame->counter_count, sums);
	assert_int_equal(refused, 0);
	frame_free(frame);
}

/* What aggregator b sends up, of which c is one: both names, and a sum. */
static void names_apply(struct fleet *f, bool is_sum)
{
	struct frame_definition d[3] = {
		{.id = 1, .metric = "tidegate_aggregator_feeds", .unit = "", .help = ""},
		{.id = 2, .metric = "tidegate_aggregator_feeds", .unit = "", .help = ""},
		{.id = 3, .metric = "test_requests", .unit = "", .help = ""}};
	struct frame_gauge gauges[2] = {{1, 1}, {2, 1}};
	struct frame_counter counter = {3, 5};
	struct frame frame = {.sequence = 1,
			      .time_ms = 5000,
			      .interval_ms = 1000,
			      .is_key = true,
			      .definition_count = 3,
			      .definitions = d,
			      .gauge_count = 2,
			      .gauges = gauges,
			      .counter_count = 1,
			      .counters = &counter};
	uint32_t session;

	for (unsigned int i = 0; i < 2; i++) {
		d[i].kind = METRIC_GAUGE;
		d[i].merge = METRIC_MAX;
		d[i].scope = METRIC_AGENT;
		d[i].label_count = 1;
		d[i].labels[0] = (struct segment_label){"aggregator", i ? "c" : "b"};
	}
	say_hello(f, "b", "", is_sum, 0, 5000, &session);
	assert_int_equal(fleet_apply(f, session, &frame, 10, 5000, NULL), FLEET_APPLIED);
}

/* Both names go on, and b or c must send no sums until they are silent. */
static void a_circle_is_found_and_ends(void **state)
{
	struct fleet *f;

	(void)state;
	assert_int_equal(fleet_new(&limits, &f), 0);
	names_apply(f, true);
	sends(f, 5000, "a", 0, 3, 1);
	sends(f, 5000, NULL, 0, 2, 1);
	sends(f, 5000, "b", 1, 2, 0);
	sends(f, 5000, "c", 1, 2, 0);
	sends(f, 7000, "b", 0, 1, 1);
	fleet_free(f);
}

static void an_agent_stops_no_aggregator(void **state)
{
	struct fleet_stats stats;
	struct fleet *f;

	(void)state;
	assert_int_equal(fleet_new(&limits, &f), 0);
	names_apply(f, false);
	fleet_stats(f, &stats);
	assert_int_equal(stats.series_refused, 2);
	sends(f, 5000, "b", 0, 1, 1);
	fleet_free(f);
}

#define MANY (FRAME_SERIES_MAX + 100)

static void too_many_sums_are_counted(void **state)
{
	const struct fleet_limits wide = {.agents = 4, .agent_series = MANY, .series = MANY};
	struct frame_definition *d = calloc(MANY, sizeof(*d));
	struct frame_counter *counters = calloc(MANY, sizeof(*counters));
	char(*names)[24] = calloc(MANY, sizeof(*names));
	struct frame frame = {.sequence = 1,
			      .time_ms = 5000,
			      .is_key = true,
			      .definition_count = MANY,
			      .definitions = d,
			      .counter_count = MANY,
			      .counters = counters};
	uint64_t refused = 0;
	struct frame *sent;
	struct fleet *f;
	uint32_t session;

	(void)state;
	assert_true(d && counters && names);
	for (uint32_t i = 0; i < MANY; i++) {
		snprintf(names[i], sizeof(names[i]), "test_%u", i);
		d[i] = (struct frame_definition){
			.id = i + 1, .metric = names[i], .unit = "", .help = ""};
		counters[i] = (struct frame_counter){i + 1, 1};
	}
	assert_int_equal(fleet_new(&wide, &f), 0);
	say_hello(f, "b", "", true, 0, 5000, &session);
	assert_int_equal(fleet_apply(f, session, &frame, 10, 5000, NULL), FLEET_APPLIED);
	sent = encoded(f, 5000, "a", 0, &refused);
	assert_int_equal(refused, MANY + 1 - FRAME_SERIES_MAX);
	assert_int_equal(sent->gauge_count, 1); /* the name has its place */
	frame_free(sent);
	fleet_free(f);
	free(names);
	free(counters);
	free(d);
}

static void total_is(struct fleet *f, uint64_t requests, uint64_t cell)
{
	const struct merge_options options = {.by = MERGE_BY_FLEET, .stale_ms = FRESH_MS};
	struct merge_view *view;
	struct merge_series s;

	assert_int_equal(merge_view_new(f, &options, &view), 0);
	assert_int_equal(merge_view_count(view), 2);
	assert_true(merge_view_get(view, 0, &s));
	assert_int_equal(s.counter, requests);
	assert_true(merge_view_get(view, 1, &s));
	assert_int_equal(s.cells[7], cell);
	assert_int_equal(s.cells[9], 3);
	merge_view_free(view);
}

/* The aggregator counts anew from a wiped log: what was there holds, in however many lives. */
static void what_departs_was_the_most(void **state)
{
	struct frame_definition d[2] = {
		{.id = 1, .metric = "test_requests", .unit = "", .help = ""},
		{.id = 2,
		 .metric = "test_seconds",
		 .unit = "",
		 .help = "",
		 .kind = METRIC_HISTOGRAM}};
	uint16_t cells[2] = {7, 9};
	uint64_t counts[2] = {500, 3};
	struct frame_counter counter = {1, 1000};
	struct frame_histogram histogram = {2, 2, cells, counts};
	struct frame frame = {.sequence = 1,
			      .is_key = true,
			      .definition_count = 2,
			      .definitions = d,
			      .counter_count = 1,
			      .counters = &counter,
			      .histogram_count = 1,
			      .histograms = &histogram};
	struct fleet_stats stats;
	struct fleet *f;
	uint32_t session;

	(void)state;
	assert_int_equal(fleet_new(&limits, &f), 0);
	for (unsigned int life = 0; life < 3 * FLEET_INCARNATIONS_MAX; life++) {
		frame.time_ms = 1000 * (life + 1);
		say_hello(f, "b", "", true, life, frame.time_ms, &session);
		assert_int_equal(fleet_apply(f, session, &frame, 10, frame.time_ms, NULL),
				 FLEET_APPLIED);
		counter.value = 10 + life;
		counts[0] = life;
		counts[1] = life % 4;
		total_is(f, 1000, 500);
		f = reborn(f);
		total_is(f, 1000, 500);
	}
	fleet_stats(f, &stats);
	assert_int_equal(stats.series, 2 * FLEET_INCARNATIONS_MAX);
	assert_int_equal(stats.series_refused, 0);
	/* And the one that counts goes on from there. */
	counter.value = 1001;
	frame.sequence = 2;
	assert_int_equal(fleet_apply(f, session, &frame, 10, frame.time_ms, NULL), FLEET_APPLIED);
	total_is(f, 1001, 500);
	fleet_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sums_are_exact_whoever_dies),
		cmocka_unit_test(an_aggregator_may_be_away_for_long),
		cmocka_unit_test(lives_depart_and_count_once),
		cmocka_unit_test(an_agent_has_one_cluster),
		cmocka_unit_test(too_many_labels_are_counted),
		cmocka_unit_test(a_circle_is_found_and_ends),
		cmocka_unit_test(an_agent_stops_no_aggregator),
		cmocka_unit_test(too_many_sums_are_counted),
		cmocka_unit_test(what_departs_was_the_most),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
