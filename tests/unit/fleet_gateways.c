/* SPDX-License-Identifier: Apache-2.0 */
/* Which gateways a frame is about: each once, whatever their order; with very many, each at least. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fleet/ingest.h"
#include "fleet/merge.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MANY 100u

static char names[MANY][16];
static struct frame_definition definitions[MANY];
static struct frame_counter counters[MANY];
static unsigned int heard[MANY + 1]; /* by number; the last: about none */

static void on_gateway(void *data, const char *gateway)
{
	unsigned int number;

	(void)data;
	if (sscanf(gateway, "g%u", &number) != 1) {
		assert_string_equal(gateway, "");
		number = MANY;
	}
	heard[number]++;
}

static struct fleet *fleet_with_session(uint32_t *ret_session)
{
	static const uint8_t incarnation[FRAME_INCARNATION_BYTES] = {1};
	const struct fleet_limits limits = {.agents = 2, .agent_series = 1000, .series = 1000};
	struct fleet_hello hello = {.agent = "a", .incarnation = incarnation};
	struct fleet *f;

	for (unsigned int i = 0; i < FLEET_AGENT_LABELS; i++)
		hello.labels[i] = "";
	assert_int_equal(fleet_new(&limits, &f), 0);
	assert_int_equal(fleet_say_hello(f, &hello, 0, 1, ret_session, NULL), 0);
	return f;
}

/* Series i is about gateway i % gateways; number `none` about none. */
static void tell(unsigned int series, unsigned int gateways, unsigned int none)
{
	struct frame frame = {.sequence = 1,
			      .is_key = true,
			      .definitions = definitions,
			      .definition_count = series,
			      .counters = counters,
			      .counter_count = series};
	uint32_t session;
	struct fleet *f = fleet_with_session(&session);

	memset(heard, 0, sizeof(heard));
	for (unsigned int i = 0; i < series; i++) {
		struct frame_definition *d = &definitions[i];

		snprintf(names[i], sizeof(names[i]), "g%u", i % gateways);
		*d = (struct frame_definition){.id = i + 1, .metric = "c", .kind = METRIC_COUNTER};
		d->labels[d->label_count++] = (struct segment_label){"a", "1"};
		if (i % gateways != none)
			d->labels[d->label_count++] = (struct segment_label){"gateway", names[i]};
		d->labels[d->label_count++] = (struct segment_label){"z", i < MANY / 2 ? "1" : "2"};
		counters[i] = (struct frame_counter){i + 1, 1};
	}
	merge_frame_gateways(f, session, &frame, on_gateway, NULL); /* nothing is known yet */
	assert_int_equal(fleet_apply(f, session, &frame, 1, 1, NULL), FLEET_APPLIED);
	for (unsigned int i = 0; i <= MANY; i++)
		assert_int_equal(heard[i], 0);
	merge_frame_gateways(f, session, &frame, on_gateway, NULL);
	fleet_free(f);
}

static void each_once(void **state)
{
	(void)state;
	tell(MANY, 3, 1);
	assert_int_equal(heard[0], 1);
	assert_int_equal(heard[1], 0);
	assert_int_equal(heard[2], 1);
	assert_int_equal(heard[MANY], 1);
	for (unsigned int i = 3; i < MANY; i++)
		assert_int_equal(heard[i], 0);
}

static void very_many(void **state)
{
	(void)state;
	tell(MANY, MANY, MANY);
	for (unsigned int i = 0; i < MANY; i++)
		assert_int_equal(heard[i], 1);
	assert_int_equal(heard[MANY], 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_once),
		cmocka_unit_test(very_many),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
