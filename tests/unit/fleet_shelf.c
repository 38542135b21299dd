/* SPDX-License-Identifier: Apache-2.0 */
/* Series by gateway: each comes out once, under its own, whatever the order and the number. */
#include "fleet/shelf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SERIES 3001

static unsigned int seen[SERIES], bodies;

static void on_body(void *data, const char *gateway, Tidegate__BusBody *body)
{
	(void)data;
	bodies++;
	assert_true(body->n_series > 0 && body->n_series <= BODY_SERIES_MAX);
	assert_int_equal(body->time_ms, 77);
	for (size_t i = 0; i < body->n_series; i++) {
		const Tidegate__BusSeries *s = body->series[i];

		assert_string_equal(s->n_labels ? s->labels[1] : "", gateway);
		seen[s->counter]++;
	}
}

static void run(unsigned int gateways, unsigned int most_bodies)
{
	struct shelf *s;

	memset(seen, 0, sizeof(seen));
	bodies = 0;
	assert_int_equal(shelf_new(on_body, NULL, &s), 0);
	shelf_begin(s, 77);
	srand(gateways);
	for (unsigned int i = 0; i < SERIES; i++) {
		char name[16];
		unsigned int g = (unsigned int)rand() % gateways;
		struct merge_series series = {.name = "test", .counter = i, .label_count = g > 0};

		snprintf(name, sizeof(name), "g%u", g);
		series.labels[0] = (struct segment_label){"gateway", name};
		assert_int_equal(shelf_add(s, &series), 0);
	}
	shelf_end(s);
	shelf_end(s); /* nothing twice */
	for (unsigned int i = 0; i < SERIES; i++)
		assert_int_equal(seen[i], 1);
	assert_true(bodies <= most_bodies);
	shelf_free(s);
}

static void each_comes_out_once(void **state)
{
	(void)state;
	run(1, SERIES / BODY_SERIES_MAX + 1);
	run(2, SERIES / BODY_SERIES_MAX + 2);
	run(SHELF_BODIES, SERIES / BODY_SERIES_MAX + SHELF_BODIES);
	run(100, SERIES);
}

static void what_was_begun_is_forgotten(void **state)
{
	struct merge_series series = {.name = "test", .counter = 1};
	struct shelf *s;

	(void)state;
	memset(seen, 0, sizeof(seen));
	assert_int_equal(shelf_new(on_body, NULL, &s), 0);
	shelf_begin(s, 1);
	assert_int_equal(shelf_add(s, &series), 0);
	shelf_begin(s, 77);
	shelf_end(s);
	assert_int_equal(seen[1], 0);
	shelf_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_comes_out_once),
		cmocka_unit_test(what_was_begun_is_forgotten),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
