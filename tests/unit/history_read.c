/* SPDX-License-Identifier: Apache-2.0 */
/* Points of series that an encoder told: what was counted is what is read. */
#include "fleet/history_read.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "history_db.h"

#define START 1700000040000ull
#define HOUR  (3600 * 1000ull)

static const uint8_t life[FRAME_INCARNATION_BYTES] = {1}, other_life[FRAME_INCARNATION_BYTES] = {2};
static const struct history_options options = {.ticks_ms = HOUR, .keep_ms = 14 * 24 * HOUR};

/* One agent's life, its encoder and its open minute. */
struct teller {
	struct history_store *store;
	struct frame_encoder *encoder;
	struct sheaf *sheaf;
	uint32_t stream, next_id, defined;
	uint64_t sequence;
};

static void flush(struct teller *t)
{
	if (t->sheaf) {
		assert_int_equal(history_store_begin(t->store, NULL), 0);
		assert_true(history_store_put(t->store, t->stream, t->sheaf, NULL) > 0);
		assert_int_equal(history_store_commit(t->store, NULL), 0);
	}
	t->sheaf = sheaf_free(t->sheaf);
}

static void define(struct teller *t, uint32_t id, const char *name, enum metric_kind kind,
		   const char *unit)
{
	const struct history_definition d = {.id = id,
					     .name = name,
					     .unit = unit,
					     .help = "",
					     .kind = kind,
					     .label_count = 1,
					     .labels = {{"instance", "web/1"}}};

	assert_int_equal(history_store_define(t->store, t->stream, &d, NULL), 0);
}

/* requests and busy count, workers is a gauge that may be away, wait has observations. */
struct told {
	uint64_t requests, busy_ns, cells[HIST_CELLS];
	double workers;
	bool has_workers;
};

static void add(struct teller *t, struct segment_series *s)
{
	s->help = "";
	s->label_count = 1;
	s->labels[0] = (struct segment_label){"instance", "web/1"};
	assert_int_equal(frame_encoder_series(t->encoder, s), 0);
}

static void tell(struct teller *t, uint64_t time_ms, enum frame_type type, const struct told *what)
{
	const uint8_t *data;
	uint32_t samples;
	size_t size;

	if (t->sheaf && sheaf_start_ms(t->sheaf) != time_ms - time_ms % MINUTE_MS)
		flush(t);
	if (!t->sheaf)
		assert_int_equal(sheaf_new(time_ms - time_ms % MINUTE_MS, &t->sheaf), 0);
	frame_encoder_begin(t->encoder, ++t->sequence, time_ms, 1000, type);
	add(t, &(struct segment_series){.name = "requests",
					.unit = "",
					.kind = METRIC_COUNTER,
					.is_present = true,
					.counter = what->requests});
	add(t, &(struct segment_series){.name = "busy",
					.unit = "nanoseconds",
					.kind = METRIC_COUNTER,
					.is_present = true,
					.counter = what->busy_ns});
	add(t, &(struct segment_series){.name = "workers",
					.unit = "",
					.kind = METRIC_GAUGE,
					.is_present = what->has_workers,
					.gauge = what->workers});
	add(t, &(struct segment_series){.name = "wait",
					.unit = "",
					.kind = METRIC_HISTOGRAM,
					.is_present = true,
					.cells = what->cells});
	assert_int_equal(frame_encoder_finish(t->encoder, &data, &size, &samples), 0);
	assert_int_equal(
		sheaf_add(t->sheaf, t->sequence, time_ms, type != FRAME_CHANGES, data, size), 1);
	if (t->defined == frame_encoder_next_id(t->encoder))
		return;
	t->defined = frame_encoder_next_id(t->encoder);
	define(t, t->next_id, "requests", METRIC_COUNTER, "");
	define(t, t->next_id + 1, "busy", METRIC_COUNTER, "nanoseconds");
	define(t, t->next_id + 2, "workers", METRIC_GAUGE, "");
	define(t, t->next_id + 3, "wait", METRIC_HISTOGRAM, "");
}

static void teller_open(struct teller *t, struct history_store *store, const char *agent,
			const uint8_t *incarnation)
{
	*t = (struct teller){.store = store, .next_id = 1};
	assert_int_equal(frame_encoder_new(&t->encoder), 0);
	assert_int_equal(history_store_stream(store, agent, incarnation, START, &t->stream, NULL),
			 0);
}

/* The courier was restarted: its series get other ids. */
static void teller_restart(struct teller *t)
{
	uint32_t next = frame_encoder_next_id(t->encoder);

	frame_encoder_free(t->encoder);
	assert_int_equal(frame_encoder_new(&t->encoder), 0);
	assert_int_equal(frame_encoder_continue(t->encoder, next), 0);
	t->next_id = next;
}

static void teller_close(struct teller *t)
{
	flush(t);
	frame_encoder_free(t->encoder);
}

/* -------- what is read -------- */

struct reading {
	const char *name, *le;
	char text[8192];
	uint64_t from_ms;
	unsigned int asked, patience;
};

static bool wants_name(void *data, const char *name)
{
	const struct reading *g = data;

	return strcmp(name, g->name) == 0;
}

static bool wants(void *data, const struct history_series *s)
{
	const struct reading *g = data;

	assert_string_equal(s->name, g->name);
	for (unsigned int i = 0; i < s->label_count; i++)
		if (strcmp(s->labels[i].key, "le") == 0)
			return !g->le || strcmp(g->le, s->labels[i].value) == 0;
	return true;
}

static int on_series(void *data, const struct history_series *s)
{
	struct reading *g = data;
	char *at = g->text + strlen(g->text);

	at += sprintf(at, "%s%s:", s->agent, s->label_count > 1 ? s->labels[1].value : "");
	for (size_t i = 0; i < s->point_count; i++) {
		const struct point *p = &s->points[i];

		at += sprintf(at, " %g=", ((double)p->time_ms - START) / 1000);
		at += p->is_absent ? sprintf(at, "-") : sprintf(at, "%.12g", p->value);
		at += sprintf(at, "%s", p->is_minute ? "m" : "");
	}
	strcpy(at, "\n");
	return 0;
}

static bool is_over(void *data)
{
	struct reading *g = data;

	return g->patience && ++g->asked >= g->patience;
}

static const uint64_t bounds[] = {1000, 1000000};
static const char *const les[] = {"1us", "1ms", "+Inf"};

static struct history_request request(struct reading *g, uint64_t from_ms, uint64_t to_ms)
{
	return (struct history_request){
		.from_ms = from_ms,
		.to_ms = to_ms,
		.bounds_ns = bounds,
		.les = les,
		.bound_count = 2,
		.wants_name = wants_name,
		.wants = wants,
		.fn = on_series,
		.is_over = is_over,
		.data = g,
	};
}

static void is(const char *name, const char *le, uint64_t from_s, uint64_t to_s, const char *want)
{
	static struct reading g;
	struct history_request q = request(&g, START + from_s * 1000, START + to_s * 1000);
	struct history_reader *r;

	g = (struct reading){.name = name, .le = le};
	assert_int_equal(history_reader_open(path, NULL, &r, NULL), 0);
	assert_int_equal(history_read(r, &q, NULL), 0);
	assert_string_equal(g.text, want);
	history_reader_close(r);
}

static struct history_store *store_open(void)
{
	struct history_store *s;

	assert_int_equal(history_store_open(path, &options, &s, NULL), 0);
	return s;
}

static void each_tick_has_its_value(void **state)
{
	struct history_store *store = store_open();
	struct told what = {
		.requests = 5, .busy_ns = 1500000000, .workers = 2, .has_workers = true};
	struct teller t;

	(void)state;
	teller_open(&t, store, "web", life);
	what.cells[histogram_index(500)] = 3;
	tell(&t, START, FRAME_KEY, &what);
	tell(&t, START + 1000, FRAME_CHANGES, &what); /* nothing changes: the values stay */
	what.requests = 12;
	what.busy_ns += 250000000;
	what.cells[histogram_index(2000)] = 4;
	what.cells[histogram_index(2000000)] = 1;
	what.has_workers = false;
	tell(&t, START + 2000, FRAME_CHANGES, &what);
	what.has_workers = true;
	what.workers = 7;
	tell(&t, START + 59000, FRAME_CHANGES, &what);
	what.requests = 20;
	tell(&t, START + 60000, FRAME_TOTALS, &what);
	what.requests = 21;
	tell(&t, START + 61000, FRAME_CHANGES, &what);
	teller_close(&t);
	history_store_close(store);

	is("requests", NULL, 0, 100, "web: 0=5 1=5 2=12 59=12 60=20 61=21\n");
	is("busy", NULL, 0, 2, "web: 0=1.5 1=1.5 2=1.75\n");
	is("workers", NULL, 0, 60, "web: 0=2 1=2 2=- 59=7 60=7\n");
	is("wait_count", NULL, 0, 2, "web: 0=3 1=3 2=8\n");
	is("wait_bucket", "1us", 0, 2, "web1us: 0=3 1=3 2=3\n");
	is("wait_bucket", NULL, 2, 2, "web1us: 2=3\nweb1ms: 2=7\nweb+Inf: 2=8\n");
	is("wait", NULL, 0, 2, "");
	is("requests_count", NULL, 0, 2, "");
	/* From the middle: what was before is known, and not shown. */
	is("requests", NULL, 59, 60, "web: 59=12 60=20\n");
	is("requests", NULL, 3, 58, "");
}

static void lives_and_ids(void **state)
{
	struct history_store *store = store_open();
	struct told what = {.requests = 5};
	struct teller t, u;

	(void)state;
	teller_open(&t, store, "web", life);
	tell(&t, START, FRAME_KEY, &what);
	teller_restart(&t);
	what.requests = 9;
	tell(&t, START + 1000, FRAME_KEY, &what);
	what.requests = 10;
	tell(&t, START + 2000, FRAME_CHANGES, &what);
	teller_close(&t);
	teller_open(&u, store, "web", other_life);
	what.requests = 1;
	tell(&u, START + 4000, FRAME_KEY, &what);
	teller_close(&u);
	history_store_close(store);
	is("requests", NULL, 0, 100, "web: 0=5 1=9 2=10\nweb: 4=1\n");
}

/* What no frame names any more is gone with the next key frame: a restarted courier does not know
 * that it was there. */
static void what_is_not_named_is_gone(void **state)
{
	struct history_store *store = store_open();
	struct told what = {.requests = 5, .workers = 2, .has_workers = true};
	struct teller t;

	(void)state;
	teller_open(&t, store, "web", life);
	tell(&t, START, FRAME_KEY, &what);
	tell(&t, START + 59000, FRAME_CHANGES, &what);
	teller_restart(&t);
	what.has_workers = false;
	tell(&t, START + 61000, FRAME_KEY, &what);
	tell(&t, START + 62000, FRAME_CHANGES, &what);
	teller_close(&t);
	history_store_close(store);
	is("workers", NULL, 0, 100, "web: 0=2 59=2 61=-\n");
	is("requests", NULL, 0, 100, "web: 0=5 59=5 61=5 62=5\n");
}

static void a_clock_that_steps_back(void **state)
{
	struct history_store *store = store_open();
	struct told what = {.requests = 5};
	struct teller t;

	(void)state;
	teller_open(&t, store, "web", life);
	tell(&t, START + 5000, FRAME_KEY, &what);
	what.requests = 6;
	tell(&t, START + 3000, FRAME_CHANGES, &what);
	what.requests = 8;
	tell(&t, START + 6000, FRAME_CHANGES, &what);
	teller_close(&t);
	history_store_close(store);
	is("requests", NULL, 0, 100, "web: 5=5 6=8\n");
}

/* The key frame that says the totals lies in the minute before. */
static void a_beginning_between_key_frames(void **state)
{
	struct history_store *store = store_open();
	struct told what = {.requests = 5};
	struct teller t;

	(void)state;
	teller_open(&t, store, "web", life);
	tell(&t, START + 30000, FRAME_KEY, &what);
	what.requests = 6;
	tell(&t, START + 61000, FRAME_CHANGES, &what);
	what.requests = 7;
	tell(&t, START + 90000, FRAME_TOTALS, &what);
	what.requests = 8;
	tell(&t, START + 100000, FRAME_CHANGES, &what);
	teller_close(&t);
	history_store_close(store);
	is("requests", NULL, 60, 200, "web: 61=6 90=7 100=8\n");
	is("requests", NULL, 95, 200, "web: 100=8\n");
}

/* Minutes that have no ticks any more, a gap in them, and a series that is gone. */
static void ends_of_minutes(void **state)
{
	struct history_store *store = store_open();
	struct told what = {.requests = 100};
	struct teller t;

	(void)state;
	teller_open(&t, store, "web", life);
	for (uint64_t i = 0; i < 10; i++) {
		what.requests += 7;
		what.has_workers = i < 5;
		what.workers = (double)i;
		if (i == 6)
			continue;
		tell(&t, START + i * 60000, i ? FRAME_TOTALS : FRAME_KEY, &what);
		what.requests += 3;
		tell(&t, START + i * 60000 + 59000, FRAME_CHANGES, &what);
	}
	teller_close(&t);
	assert_int_equal(history_store_begin(store, NULL), 0);
	while (history_store_age(store, START + HOUR + 8 * 60000, 100, NULL) > 0)
		;
	assert_int_equal(history_store_commit(store, NULL), 0);
	history_store_close(store);
	is("requests", NULL, 0, 600,
	   "web: 59=110m 119=120m 179=130m 239=140m 299=150m 359=160m 479=177m 480=184 "
	   "539=187 540=194 599=197\n");
	is("workers", NULL, 200, 500, "web: 239=3m 299=4m 359=-m\n");
}

/* Where ticks of a life are too many, the ends of its minutes are answered. */
static void too_many_ticks(void **state)
{
	struct history_store *store = store_open();
	struct told what = {.has_workers = true};
	static struct reading g;
	struct history_request q;
	struct history_reader *r;
	struct teller t;
	unsigned int one;
	struct err e = {{0}};

	(void)state;
	what.cells[histogram_index(500)] = 3;
	teller_open(&t, store, "web", life);
	for (uint64_t i = 0; i < 600; i++) {
		what.requests = i;
		tell(&t, START + i * 1000,
		     !i       ? FRAME_KEY
		     : i % 10 ? FRAME_CHANGES
			      : FRAME_TOTALS,
		     &what);
	}
	teller_close(&t);
	history_store_close(store);
	assert_int_equal(history_reader_open(path, NULL, &r, NULL), 0);
	g = (struct reading){.name = "requests"};
	q = request(&g, START, START + 570000);
	q.bytes_max = 12000;
	assert_int_equal(history_read(r, &q, NULL), -E2BIG);
	q.may_thin = true;
	assert_int_equal(history_read(r, &q, NULL), 0);
	assert_string_equal(g.text, "web: 59=59m 119=119m 179=179m 239=239m 299=299m 359=359m "
				    "419=419m 479=479m 539=539m\n");
	/* All series of a life count together: one bucket has the room that three have not. */
	g = (struct reading){.name = "wait_bucket", .le = "1us"};
	q = request(&g, START, START + 59000);
	q.bytes_max = 3500;
	assert_int_equal(history_read(r, &q, NULL), 0);
	assert_int_equal(strncmp(g.text, "web1us: 0=3 1=3", 15), 0);
	g = (struct reading){.name = "wait_bucket"};
	assert_int_equal(history_read(r, &q, &e), -E2BIG);
	assert_non_null(strstr(e.text, "more than 3 KiB"));
	assert_string_equal(g.text, "");
	/* Each series is asked for: whoever takes it may take long. */
	g = (struct reading){.name = "wait_bucket", .le = "1us", .patience = UINT_MAX};
	q = request(&g, START, START + 5000);
	assert_int_equal(history_read(r, &q, NULL), 0);
	one = g.asked;
	g = (struct reading){.name = "wait_bucket", .patience = UINT_MAX};
	assert_int_equal(history_read(r, &q, NULL), 0);
	assert_int_equal(g.asked, one + 2);
	g = (struct reading){.name = "wait_bucket", .patience = one + 1};
	assert_int_equal(history_read(r, &q, NULL), -ETIMEDOUT);
	history_reader_close(r);
}

static void limits(void **state)
{
	struct history_store *store = store_open();
	struct told what = {.requests = 100};
	static struct reading g;
	struct history_request q;
	struct history_reader *r;
	struct teller t;
	struct err e = {{0}};

	(void)state;
	teller_open(&t, store, "web", life);
	for (uint64_t i = 0; i < 5; i++)
		tell(&t, START + i * 60000, FRAME_KEY, &what);
	teller_close(&t);
	history_store_close(store);
	assert_int_equal(history_reader_open(path, NULL, &r, NULL), 0);
	g = (struct reading){.name = "requests", .patience = 3};
	q = request(&g, START, START + HOUR);
	assert_int_equal(history_read(r, &q, &e), -ETIMEDOUT);
	assert_non_null(strstr(e.text, "too long"));
	q.bound_count = HISTORY_BOUNDS_MAX + 1;
	assert_int_equal(history_read(r, &q, NULL), -EINVAL);
	g = (struct reading){.name = "wait_bucket", .patience = 1};
	q = request(&g, START, START + HOUR);
	assert_int_equal(history_list(r, &q, NULL), -ETIMEDOUT);
	/* A list has no points. */
	g = (struct reading){.name = "wait_bucket"};
	q = request(&g, START, START + HOUR);
	assert_int_equal(history_list(r, &q, NULL), 0);
	assert_string_equal(g.text, "web1us:\nweb1ms:\nweb+Inf:\n");
	history_reader_close(r);
}

static int setup(void **state)
{
	(void)state;
	return history_db_begin();
}

static int teardown(void **state)
{
	(void)state;
	return history_db_end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(each_tick_has_its_value, setup, teardown),
		cmocka_unit_test_setup_teardown(lives_and_ids, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_not_named_is_gone, setup, teardown),
		cmocka_unit_test_setup_teardown(a_clock_that_steps_back, setup, teardown),
		cmocka_unit_test_setup_teardown(a_beginning_between_key_frames, setup, teardown),
		cmocka_unit_test_setup_teardown(ends_of_minutes, setup, teardown),
		cmocka_unit_test_setup_teardown(too_many_ticks, setup, teardown),
		cmocka_unit_test_setup_teardown(limits, setup, teardown),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
