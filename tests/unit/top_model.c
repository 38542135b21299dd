/* SPDX-License-Identifier: Apache-2.0 */
/* Rates, ratios and quantiles of `tidegate top` from two looks, given as literal structs. */
#include "cmd/top_model.h"
#include "cmd/top_detail.h"

#include "base/str.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define SERIES_MOST 64
#define SECOND      1000000000ULL

/* A file as a list of series. */
struct file {
	struct segment_series series[SERIES_MOST];
	unsigned int count;
};

static struct file before, now, app_before, app_now;
static struct segment_gateway gateways[3];
static struct top_sample old_sample, new_sample;
static uint64_t some_cells[SERIES_MOST][HIST_CELLS];
static unsigned int cells_used;
static struct top_view view;

static bool get(const void *data, unsigned int index, struct segment_series *ret)
{
	const struct file *f = data;

	if (index >= f->count)
		return false;
	*ret = f->series[index];
	return true;
}

static struct segment_series *add(struct file *f, enum metric_id id, const char *gateway,
				  const char *key0, const char *value0, const char *key1,
				  const char *value1)
{
	struct segment_series *s = &f->series[f->count];

	assert_true(f->count < SERIES_MOST);
	*s = (struct segment_series){
		.index = f->count++,
		.name = metric_descs[id].name,
		.unit = metric_descs[id].unit,
		.help = "",
		.kind = metric_descs[id].kind,
		.is_present = true,
		.label_count = 2,
		.labels = {{"gateway", gateway}, {"instance", "host/1"}},
	};
	if (key0)
		s->labels[s->label_count++] = (struct segment_label){key0, value0};
	if (key1)
		s->labels[s->label_count++] = (struct segment_label){key1, value1};
	return s;
}

/* The same series in both looks. */
static void counter(enum metric_id id, const char *gateway, const char *key0, const char *value0,
		    const char *key1, const char *value1, uint64_t was, uint64_t is)
{
	add(&before, id, gateway, key0, value0, key1, value1)->counter = was;
	add(&now, id, gateway, key0, value0, key1, value1)->counter = is;
}

static void gauge(enum metric_id id, const char *key0, const char *value0, double is)
{
	add(&before, id, "web", key0, value0, NULL, NULL)->gauge = 99;
	add(&now, id, "web", key0, value0, NULL, NULL)->gauge = is;
}

/* n events of value_ns between the looks, and 1000 of a minute before. */
static void histogram(enum metric_id id, const char *key0, const char *value0, const char *key1,
		      const char *value1, uint64_t value_ns, uint64_t n)
{
	uint64_t *was = some_cells[cells_used++], *is = some_cells[cells_used++];

	was[histogram_index(60 * SECOND)] = is[histogram_index(60 * SECOND)] = 1000;
	is[histogram_index(value_ns)] += n;
	add(&before, id, "web", key0, value0, key1, value1)->cells = was;
	add(&now, id, "web", key0, value0, key1, value1)->cells = is;
}

static int setup(void **state)
{
	(void)state;
	before.count = now.count = app_before.count = app_now.count = cells_used = 0;
	memset(some_cells, 0, sizeof(some_cells));
	memset(gateways, 0, sizeof(gateways));
	str_copy(gateways[0].name, SEGMENT_NAME_BYTES, "web");
	str_copy(gateways[0].instance, SEGMENT_NAME_BYTES, "host/1");
	gateways[0].state = SEGMENT_GATEWAY_LIVE;
	gateways[0].requests_known = 1;
	old_sample = (struct top_sample){
		.host = {.life = 7, .tick_mono_ns = 10 * SECOND, .get = get, .data = &before},
		.app = {.life = 9, .tick_mono_ns = 10 * SECOND, .get = get, .data = &app_before},
		.gateways = gateways,
		.gateway_count = 1,
	};
	new_sample = (struct top_sample){
		.host = {.life = 7, .tick_mono_ns = 12 * SECOND, .get = get, .data = &now},
		.app = {.life = 9, .tick_mono_ns = 14 * SECOND, .get = get, .data = &app_now},
		.gateways = gateways,
		.gateway_count = 1,
	};
	return 0;
}

static const struct top_row *model(void)
{
	old_sample.host.count = before.count;
	new_sample.host.count = now.count;
	old_sample.app.count = app_before.count;
	new_sample.app.count = app_now.count;
	assert_int_equal(top_model(&old_sample, &new_sample, &view), 0);
	return &view.rows[0];
}

static void expect(double got, double want)
{
	if (!(fabs(got - want) <= 1e-9 * fabs(want)))
		fail_msg("got %.12g, wanted %.12g", got, want);
}

static void expect_unknown(double got)
{
	if (!isnan(got))
		fail_msg("got %.12g, wanted none", got);
}

static void test_rates_are_over_the_time_between_ticks(void **state)
{
	const struct top_row *row;

	(void)state;
	counter(METRIC_ID_REQUESTS, "web", "method", "GET", "code", "200", 1000, 1101);
	counter(METRIC_ID_REQUESTS, "web", "method", "GET", "code", "404", 50, 57);
	counter(METRIC_ID_REQUESTS, "web", "method", "POST", "code", "502", 5, 8);
	counter(METRIC_ID_REQUESTS, "other", "method", "GET", "code", "200", 0, 100000);
	counter(METRIC_ID_REQUESTS_LOST, "web", NULL, NULL, NULL, NULL, 3, 4);
	counter(METRIC_ID_CPU_SECONDS, "web", NULL, NULL, NULL, NULL, SECOND, 4 * SECOND);
	row = model();
	assert_int_equal(view.count, 1);
	expect(view.window_s, 2);
	expect(row->values[TOP_REQUESTS], (101 + 7 + 3) / 2.0);
	expect(row->values[TOP_ERRORS_4XX], 3.5);
	expect(row->values[TOP_ERRORS_5XX], 1.5);
	expect(row->values[TOP_LOST], 0.5);
	expect(row->values[TOP_CPU], 1.5);
	expect_unknown(row->values[TOP_BUSY]);
	expect_unknown(row->values[TOP_UPSTREAM_ERRORS]);
}

static void test_a_first_look_has_no_rates(void **state)
{
	const struct top_row *row;

	(void)state;
	counter(METRIC_ID_REQUESTS, "web", "method", "GET", "code", "200", 0, 100);
	histogram(METRIC_ID_REQUEST_DURATION, "code_class", "2xx", NULL, NULL, 1000, 5);
	gauge(METRIC_ID_WORKERS, NULL, NULL, 3);
	old_sample.host.life = 0;
	row = model();
	expect_unknown(view.window_s);
	expect_unknown(row->values[TOP_REQUESTS]);
	expect_unknown(row->values[TOP_ERRORS_5XX]);
	expect_unknown(row->values[TOP_P99]);
	expect(row->values[TOP_WORKERS], 3);
	/* Another file, and a tick that was seen already. */
	old_sample.host.life = 8;
	expect_unknown(model()->values[TOP_REQUESTS]);
	old_sample.host.life = 7;
	old_sample.host.tick_mono_ns = new_sample.host.tick_mono_ns;
	expect_unknown(model()->values[TOP_REQUESTS]);
}

static void test_a_series_that_appears_began_at_nothing(void **state)
{
	(void)state;
	counter(METRIC_ID_REQUESTS, "web", "method", "GET", "code", "200", 10, 12);
	add(&now, METRIC_ID_REQUESTS, "web", "method", "GET", "code", "500")->counter = 6;
	expect(model()->values[TOP_REQUESTS], 4);
	expect(view.rows[0].values[TOP_ERRORS_5XX], 3);
	/* One that was absent for a while kept its value. */
	before.series[0].is_present = false;
	expect(model()->values[TOP_REQUESTS], 4);
	/* And one that is absent now does not count. */
	now.series[0].is_present = false;
	expect(model()->values[TOP_REQUESTS], 3);
}

static void test_requests_unseen_are_unknown(void **state)
{
	(void)state;
	expect(model()->values[TOP_REQUESTS], 0);
	expect(view.rows[0].values[TOP_ERRORS_5XX], 0);
	gateways[0].requests_known = 0;
	expect_unknown(model()->values[TOP_REQUESTS]);
	expect_unknown(view.rows[0].values[TOP_ERRORS_5XX]);
}

static void test_quantiles_are_of_the_window_with_their_bucket(void **state)
{
	const uint64_t *t = histogram_thresholds();
	unsigned int i = histogram_index(1000000);
	const struct top_row *row;

	(void)state;
	histogram(METRIC_ID_REQUEST_DURATION, "code_class", "2xx", NULL, NULL, 1000000, 98);
	histogram(METRIC_ID_REQUEST_DURATION, "code_class", "5xx", NULL, NULL, 30 * SECOND, 2);
	row = model();
	expect(row->quantiles[TOP_P50].low, (double)t[i - 1] / 1e9);
	expect(row->quantiles[TOP_P50].high, (double)t[i] / 1e9);
	assert_true(row->values[TOP_P50] > row->quantiles[TOP_P50].low);
	assert_true(row->values[TOP_P50] < row->quantiles[TOP_P50].high);
	i = histogram_index(30 * SECOND);
	expect(row->quantiles[TOP_P99].high, (double)t[i] / 1e9);
	expect_unknown(row->values[TOP_UPSTREAM_P99]);
}

static void test_quantile_bounds(void **state)
{
	uint64_t cells[HIST_CELLS] = {0};
	const uint64_t *t = histogram_thresholds();
	struct top_quantile q = top_quantile(cells, 0.5);

	(void)state;
	expect_unknown(q.value);
	cells[HIST_CELLS - 1] = 1;
	q = top_quantile(cells, 0.5);
	expect(q.low, (double)t[HIST_THRESHOLDS - 1] / 1e9);
	assert_true(isinf(q.high));
	cells[HIST_CELLS - 1] = 0;
	cells[100] = 1000000;
	cells[120] = 1;
	q = top_quantile(cells, 1);
	expect(q.value, (double)t[120] / 1e9);
	expect(q.low, (double)t[119] / 1e9);
	q = top_quantile(cells, 0.99);
	expect(q.high, (double)t[100] / 1e9);
}

static void test_loops(void **state)
{
	const struct top_row *row;

	(void)state;
	gauge(METRIC_ID_WORKERS, NULL, NULL, 4);
	counter(METRIC_ID_LOOP_BUSY, "web", NULL, NULL, NULL, NULL, 0, 2 * SECOND);
	/* 10 ms is a threshold: it belongs to the turns that are no stall. */
	histogram(METRIC_ID_LOOP_STALL, NULL, NULL, NULL, NULL, 10000000, 5);
	some_cells[cells_used - 1][histogram_index(10000001)] += 7;
	row = model();
	expect(row->values[TOP_BUSY], 0.25);
	expect(row->values[TOP_STALLS], 3.5);
	expect(row->quantiles[TOP_STALL_MAX].low, 0.01);
}

static void test_collectors(void **state)
{
	(void)state;
	gauge(METRIC_ID_WORKERS, NULL, NULL, 2);
	counter(METRIC_ID_GC_SECONDS, "web", "runtime", "luajit", NULL, NULL, 0, SECOND);
	histogram(METRIC_ID_GC_PAUSE, "runtime", "luajit", "phase", "step", SECOND, 50);
	histogram(METRIC_ID_GC_PAUSE, "runtime", "luajit", "phase", "turn", 1000, 50);
	expect(model()->values[TOP_GC], 0.25);
	/* Of turns, not of steps: phases overlap. */
	assert_true(view.rows[0].values[TOP_GC_P99] < 2e-6);
	/* A pause of the world holds up all workers of a process. */
	histogram(METRIC_ID_GC_PAUSE, "runtime", "go", "phase", "stw", 1000000, 50);
	expect(model()->values[TOP_GC], 0.5);
	assert_true(view.rows[0].values[TOP_GC_P99] > 0.9e-3);
}

static void test_the_fullest_queue_is_shown(void **state)
{
	(void)state;
	gauge(METRIC_ID_ACCEPT_QUEUE_LENGTH, "port", "80", 40);
	gauge(METRIC_ID_ACCEPT_QUEUE_LENGTH, "port", "443", 30);
	gauge(METRIC_ID_ACCEPT_QUEUE_LIMIT, "port", "80", 511);
	gauge(METRIC_ID_ACCEPT_QUEUE_LIMIT, "port", "443", 100);
	expect(model()->values[TOP_QUEUE], 30);
	expect(view.rows[0].values[TOP_QUEUE_LIMIT], 100);
}

static void test_gateways_that_ended_have_no_values(void **state)
{
	(void)state;
	counter(METRIC_ID_REQUESTS, "web", "method", "GET", "code", "200", 0, 100);
	gateways[0].state = SEGMENT_GATEWAY_GONE;
	expect_unknown(model()->values[TOP_REQUESTS]);
	assert_int_equal(view.count, 1);
	gateways[0].state = SEGMENT_GATEWAY_FREE;
	model();
	assert_int_equal(view.count, 0);
}

/* ---- details ---- */

static const struct top_item *item(const struct top_detail *d, enum top_section section,
				   const char *label)
{
	for (unsigned int i = 0; i < d->count; i++)
		if (d->items[i].section == section && str_equal(d->items[i].label, label))
			return &d->items[i];
	fail_msg("no %s in section %u", label, section);
	return NULL;
}

static void test_details(void **state)
{
	struct top_detail d = {0};
	struct segment_series *s;
	const struct top_item *i;

	(void)state;
	counter(METRIC_ID_SYSCALLS, "web", "syscall", "read", NULL, NULL, 100, 300);
	counter(METRIC_ID_SYSCALLS, "web", "syscall", "writev", NULL, NULL, 100, 101);
	counter(METRIC_ID_SYSCALL_ERRORS, "web", "syscall", "read", "errno", "EAGAIN", 1, 5);
	counter(METRIC_ID_SYSCALL_ERRORS, "web", "syscall", "read", "errno", "EIO", 0, 2);
	histogram(METRIC_ID_SYSCALL_DURATION, "syscall", "writev", NULL, NULL, SECOND, 1);
	histogram(METRIC_ID_UPSTREAM, "upstream", "10.0.0.1:80", NULL, NULL, 1000000, 20);
	histogram(METRIC_ID_UPSTREAM_CONNECT, "upstream", "10.0.0.1:80", NULL, NULL, SECOND, 3);
	counter(METRIC_ID_ACCEPTS, "web", NULL, NULL, NULL, NULL, 1, 2);
	s = add(&app_before, METRIC_ID_ACCEPTS, "web", "route", "/pay", NULL, NULL);
	s->name = "orders_total";
	s->counter = 5;
	s = add(&app_now, METRIC_ID_ACCEPTS, "web", "route", "/pay", NULL, NULL);
	s->name = "orders_total";
	s->counter = 13;
	s = add(&app_now, METRIC_ID_ACCEPTS, "other", "route", "/pay", NULL, NULL);
	s->name = "orders_total";
	model();
	top_detail(&old_sample, &new_sample, &gateways[0], &d);
	i = item(&d, TOP_SECTION_SYSCALLS, "read");
	expect(i->rate, 100);
	expect(i->error_rate, 3);
	assert_int_equal(i->total, 300);
	assert_int_equal(i->errors, 7);
	expect_unknown(i->time_ratio);
	/* Called less often, but it took the time: first. */
	assert_true(item(&d, TOP_SECTION_SYSCALLS, "writev") < i);
	expect(item(&d, TOP_SECTION_SYSCALLS, "writev")->error_rate, 0);
	i = item(&d, TOP_SECTION_UPSTREAMS, "10.0.0.1:80");
	expect(i->rate, 10);
	assert_int_equal(i->total, 1020);
	assert_true(i->p99.value < 2e-3 && i->connect_p99.value > 0.9);
	i = item(&d, TOP_SECTION_APPLICATION, "orders_total");
	expect(d.app_window_s, 4);
	expect(i->rate, 2);
	assert_int_equal(i->total, 13);
	/* Neither another gateway's, nor what no section is for. */
	assert_int_equal(d.count, 4);
	top_detail_fini(&d);
}

/* One series again and again, each time another index. */
static bool get_many(const void *data, unsigned int index, struct segment_series *ret)
{
	*ret = *(const struct segment_series *)data;
	ret->index = index;
	return true;
}

static void test_details_have_a_limit(void **state)
{
	struct top_detail d = {0};

	(void)state;
	add(&app_now, METRIC_ID_ACCEPTS, "web", NULL, NULL, NULL, NULL);
	model();
	new_sample.app.get = get_many;
	new_sample.app.data = &app_now.series[0];
	new_sample.app.count = TOP_DETAIL_MAX + 11;
	top_detail(&old_sample, &new_sample, &gateways[0], &d);
	assert_int_equal(d.count, TOP_DETAIL_MAX);
	assert_int_equal(d.left_out, 11);
	top_detail_fini(&d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_rates_are_over_the_time_between_ticks, setup),
		cmocka_unit_test_setup(test_a_first_look_has_no_rates, setup),
		cmocka_unit_test_setup(test_a_series_that_appears_began_at_nothing, setup),
		cmocka_unit_test_setup(test_requests_unseen_are_unknown, setup),
		cmocka_unit_test_setup(test_quantiles_are_of_the_window_with_their_bucket, setup),
		cmocka_unit_test_setup(test_quantile_bounds, setup),
		cmocka_unit_test_setup(test_loops, setup),
		cmocka_unit_test_setup(test_collectors, setup),
		cmocka_unit_test_setup(test_the_fullest_queue_is_shown, setup),
		cmocka_unit_test_setup(test_gateways_that_ended_have_no_values, setup),
		cmocka_unit_test_setup(test_details, setup),
		cmocka_unit_test_setup(test_details_have_a_limit, setup),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
