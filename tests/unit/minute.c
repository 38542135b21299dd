/* SPDX-License-Identifier: Apache-2.0 */
#include "fleet/minute.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define START (1700000040000ull)

static const uint16_t cells_a[] = {3, 70}, cells_b[] = {70, 322};
static const uint64_t counts_a[] = {5, 7}, counts_b[] = {11, 13};

/* Literal frames: 1 key, 2 to 4 changes; series 1 counter, 2 gauge, 9 histogram. */
static int add(struct minute *m, uint64_t sequence)
{
	struct frame_counter counter = {.id = 1, .value = sequence == 1 ? 1000 : sequence * 10};
	struct frame_gauge gauge = {.id = 2, .value = (double)sequence / 8};
	struct frame_histogram histogram = {.id = 9, .count = 2};
	uint32_t absent = 2;
	struct frame f = {
		.sequence = sequence,
		.time_ms = START + sequence * 1000,
		.is_key = sequence == 1,
		.counter_count = 1,
		.counters = &counter,
		.gauge_count = sequence < 4,
		.gauges = &gauge,
		.histogram_count = sequence < 3,
		.histograms = &histogram,
		.absent_count = sequence == 4,
		.absent = &absent,
	};

	histogram.cells = sequence == 1 ? cells_a : cells_b;
	histogram.counts = sequence == 1 ? counts_a : counts_b;
	return minute_add(m, &f);
}

static struct minute *with(const char *sequences)
{
	struct minute *m;

	assert_int_equal(minute_new(START, &m), 0);
	for (; *sequences; sequences++)
		assert_int_equal(add(m, (uint64_t)(*sequences - '0')), 1);
	return m;
}

static int on_sample(void *data, const struct minute_sample *s)
{
	static const char *const kinds[] = {"+", "=", "g", "h+", "h=", "-"};
	char *text = data, *at = text + strlen(text);

	at += sprintf(at, "%u@%lu%s", s->id, (unsigned long)(s->time_ms - START) / 1000,
		      kinds[s->kind]);
	if (s->kind == MINUTE_GAUGE)
		at += sprintf(at, "%g", s->gauge);
	else if (s->kind <= MINUTE_COUNTER_TOTAL)
		at += sprintf(at, "%lu", (unsigned long)s->counter);
	for (size_t i = 0; i < s->cell_count; i++)
		at += sprintf(at, "%s%u:%lu", i ? "," : "", s->cells[i],
			      (unsigned long)s->counts[i]);
	strcpy(at, " ");
	return 0;
}

static void is(struct minute *m, const char *want)
{
	char text[4096] = "";

	assert_int_equal(minute_each(m, on_sample, text), 0);
	assert_string_equal(text, want);
}

#define ALL                                                                              \
	"1@1=1000 1@2+20 1@3+30 1@4+40 2@1g0.125 2@2g0.25 2@3g0.375 2@4- 9@1h=3:5,70:7 " \
	"9@2h+70:11,322:13 "
#define THIN "1@4=1090 2@4- 9@4h=3:5,70:18,322:13 "

static void order_does_not_matter(void **state)
{
	static const char *const orders[] = {"1234", "4321", "2413"};

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct minute *m = with(orders[i]);

		assert_int_equal(add(m, 3), 0);
		is(m, ALL);
		assert_int_equal(minute_ticks(m), 4);
		assert_true(minute_tick_get(m, 0).is_key && !minute_tick_get(m, 1).is_key);
		minute_free(m);
	}
}

static void thinned_it_keeps_the_end(void **state)
{
	struct minute *m = with("3142"), *part = with("23");

	(void)state;
	assert_int_equal(minute_thin(m), 0);
	is(m, THIN);
	assert_true(minute_is_thin(m));
	assert_int_equal(minute_thin(m), 0);
	is(m, THIN);
	/* A replay changes nothing, what is new is refused. */
	assert_int_equal(add(m, 2), 0);
	assert_int_equal(add(m, 5), -ESTALE);
	is(m, THIN);
	assert_true(minute_has(m, 1) && minute_has(m, 4) && !minute_has(m, 5));
	assert_int_equal(minute_tick_get(m, 0).sequence, 4);
	assert_true(minute_tick_get(m, 0).is_key);
	/* Without the key frame there is no total to know. */
	assert_int_equal(minute_thin(part), 0);
	is(part, "1@3+50 2@3g0.375 9@3h+70:11,322:13 ");
	minute_free(m);
	minute_free(part);
}

static void a_total_takes_the_place_of_what_was(void **state)
{
	struct frame_counter counter = {.id = 1, .value = 500};
	struct frame_histogram histogram = {
		.id = 9, .count = 2, .cells = cells_b, .counts = counts_b};
	struct frame f = {.sequence = 5,
			  .time_ms = START + 5000,
			  .is_key = true,
			  .counter_count = 1,
			  .counters = &counter,
			  .histogram_count = 1,
			  .histograms = &histogram};
	struct minute *m = with("12");

	(void)state;
	assert_int_equal(minute_add(m, &f), 1);
	assert_int_equal(minute_thin(m), 0);
	is(m, "1@5=500 2@5g0.25 9@5h=70:11,322:13 ");
	minute_free(m);
}

static void a_series_that_is_born_counts_from_0(void **state)
{
	struct frame_definition definitions[] = {{.id = 2, .kind = METRIC_COUNTER},
						 {.id = 3, .kind = METRIC_COUNTER},
						 {.id = 8, .kind = METRIC_HISTOGRAM}};
	struct frame_counter counters[] = {{.id = 1, .value = 5}, {.id = 3, .value = 7}};
	struct frame f = {.sequence = 2,
			  .time_ms = START + 2000,
			  .definition_count = 3,
			  .definitions = definitions,
			  .counter_count = 2,
			  .counters = counters};
	struct minute *m;

	(void)state;
	assert_int_equal(minute_new(START, &m), 0);
	assert_int_equal(minute_add(m, &f), 1);
	is(m, "1@2+5 2@2=0 3@2=7 8@2h= ");
	minute_free(m);
}

static void bytes_and_back(void **state)
{
	static const char *const wants[] = {ALL, THIN};

	(void)state;
	for (int thin = 0; thin < 2; thin++) {
		struct minute *m = with("2413"), *back;
		struct pack p = {0}, again = {0};

		if (thin)
			assert_int_equal(minute_thin(m), 0);
		assert_int_equal(minute_encode(m, &p), 0);
		assert_int_equal(minute_decode(p.data, p.size, &back), 0);
		is(back, wants[thin]);
		assert_int_equal(minute_start_ms(back), START);
		assert_int_equal(minute_is_thin(back), thin);
		assert_int_equal(minute_encode(back, &again), 0);
		assert_int_equal(again.size, p.size);
		assert_memory_equal(again.data, p.data, p.size);
		assert_int_equal(add(back, 5), thin ? -ESTALE : 1);
		/* Each bit, and each shorter length. */
		for (size_t i = 0; i < p.size * 8; i++) {
			struct minute *none = NULL;

			p.data[i / 8] ^= (uint8_t)(1u << (i % 8));
			assert_int_equal(minute_decode(p.data, p.size, &none), -EBADMSG);
			p.data[i / 8] ^= (uint8_t)(1u << (i % 8));
			assert_int_equal(minute_decode(p.data, i / 8, &none), -EBADMSG);
		}
		minute_free(m);
		minute_free(back);
		pack_fini(&p);
		pack_fini(&again);
	}
}

static void what_is_not_of_it(void **state)
{
	struct minute *m = with("1");
	struct frame f = {.sequence = 7, .time_ms = START - 1};

	(void)state;
	assert_int_equal(minute_add(m, &f), -ERANGE);
	f.time_ms = START + MINUTE_MS;
	assert_int_equal(minute_add(m, &f), -ERANGE);
	assert_false(minute_has(m, 7));
	f.time_ms--;
	assert_int_equal(minute_add(m, &f), 1);
	for (uint64_t s = 8; s < 6 + MINUTE_TICKS_MAX; s++) {
		f.sequence = s;
		assert_int_equal(minute_add(m, &f), 1);
	}
	f.sequence = 1u << 20;
	assert_int_equal(minute_add(m, &f), -ENOSPC);
	assert_int_equal(minute_ticks(m), MINUTE_TICKS_MAX);
	minute_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(order_does_not_matter),
		cmocka_unit_test(thinned_it_keeps_the_end),
		cmocka_unit_test(a_total_takes_the_place_of_what_was),
		cmocka_unit_test(a_series_that_is_born_counts_from_0),
		cmocka_unit_test(bytes_and_back),
		cmocka_unit_test(what_is_not_of_it),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
