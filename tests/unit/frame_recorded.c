/* SPDX-License-Identifier: Apache-2.0 */
/* Recorded frames of all versions are read, and say the same when they are written anew. */
#include "recording.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* The encoder over a recording; each of its frames must lead to the values that went in. */
static void replay(const char *path, unsigned int least_ticks, unsigned int least_changes)
{
	static struct recording rec;
	static uint64_t cells[RECORDING_SERIES][HIST_CELLS];
	static uint64_t counters[RECORDING_SERIES];
	static double gauges[RECORDING_SERIES];
	static unsigned int id_of[RECORDING_SERIES];
	unsigned int ticks = 0, changes = 0;
	struct frame_encoder *enc;

	assert_int_equal(recording_open(&rec, path), 0);
	assert_int_equal(frame_encoder_new(&enc), 0);
	memset(cells, 0, sizeof(cells));
	memset(counters, 0, sizeof(counters));
	memset(id_of, 0, sizeof(id_of));
	while (recording_next(&rec)) {
		const uint8_t *data;
		struct frame *f;
		uint32_t samples;
		unsigned int next = 0;
		size_t size;

		frame_encoder_begin(enc, rec.frame->sequence, rec.frame->time_ms, 1000,
				    rec.frame->is_key ? FRAME_TOTALS : FRAME_CHANGES);
		for (unsigned int i = 0; i < rec.count; i++)
			if (rec.series[i].name)
				assert_int_equal(frame_encoder_series(enc, &rec.series[i]), 0);
		assert_int_equal(frame_encoder_finish(enc, &data, &size, &samples), 0);
		assert_int_equal(frame_decode(data, size, &f, NULL), 0);
		/* Definitions come in the order of the series: so ids are told apart. */
		for (size_t i = 0; i < f->definition_count; i++) {
			while (!rec.series[next].name || id_of[next])
				next++;
			id_of[next] = f->definitions[i].id;
		}
		for (size_t i = 0; i < f->counter_count; i++)
			counters[f->counters[i].id] = f->counters[i].value +
						      (f->is_key ? 0 : counters[f->counters[i].id]);
		for (size_t i = 0; i < f->gauge_count; i++)
			gauges[f->gauges[i].id] = f->gauges[i].value;
		for (size_t i = 0; i < f->histogram_count; i++) {
			const struct frame_histogram *h = &f->histograms[i];

			if (f->is_key)
				memset(cells[h->id], 0, sizeof(cells[h->id]));
			for (uint32_t c = 0; c < h->count; c++)
				cells[h->id][h->cells[c]] += h->counts[c];
		}
		changes += f->counter_count + f->gauge_count + f->histogram_count;
		for (unsigned int i = 0; i < rec.count; i++) {
			const struct segment_series *s = &rec.series[i];

			if (!s->name || !id_of[i])
				continue;
			if (s->kind == METRIC_COUNTER)
				assert_int_equal(counters[id_of[i]], s->counter);
			else if (s->kind == METRIC_GAUGE)
				assert_memory_equal(&gauges[id_of[i]], &s->gauge, sizeof(double));
			else
				assert_memory_equal(cells[id_of[i]], s->cells,
						    sizeof(cells[id_of[i]]));
		}
		frame_free(f);
		ticks++;
	}
	assert_true(ticks >= least_ticks);
	assert_true(changes >= least_changes);
	frame_encoder_free(enc);
	recording_close(&rec);
}

static void test_nginx(void **state)
{
	(void)state;
	replay("tests/data/frames/nginx.spool", 70, 2500);
	replay("tests/data/frames/1/nginx.spool", 70, 2500);
}

static void test_haproxy(void **state)
{
	(void)state;
	replay("tests/data/frames/haproxy.spool", 70, 2500);
	replay("tests/data/frames/1/haproxy.spool", 70, 2500);
}

static void test_caddy(void **state)
{
	(void)state;
	replay("tests/data/frames/caddy.spool", 70, 2000);
	replay("tests/data/frames/1/caddy.spool", 70, 2000);
}

static void test_mixed(void **state)
{
	(void)state;
	replay("tests/data/frames/mixed.spool", 70, 5000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nginx),
		cmocka_unit_test(test_haproxy),
		cmocka_unit_test(test_caddy),
		cmocka_unit_test(test_mixed),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
