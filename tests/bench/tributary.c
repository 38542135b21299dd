/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What feeding an upper aggregator costs the core each second: the sums of a fleet of standard agents
 * (90 counters, 10 gauges, 4 histograms; half of them nginx, half kong) as a frame. CPU time of this
 * thread, the least of five.
 */
#include "fleet/tributary.h"
#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNTERS   90u
#define GAUGES     10u
#define HISTOGRAMS 4u
#define SERIES     (COUNTERS + GAUGES + HISTOGRAMS)
#define TICKS      6u

static struct frame_definition definitions[SERIES];
static char names[SERIES][32];

static void definitions_fill(const char *gateway, const char *instance)
{
	for (unsigned int i = 0; i < SERIES; i++) {
		snprintf(names[i], sizeof(names[i]), "bench_series_%u", i);
		definitions[i] = (struct frame_definition){
			.id = i + 1,
			.metric = names[i],
			.unit = "",
			.help = "",
			.kind = i < COUNTERS            ? METRIC_COUNTER
				: i < COUNTERS + GAUGES ? METRIC_GAUGE
							: METRIC_HISTOGRAM,
			.label_count = 2,
			.labels = {{"gateway", gateway}, {"instance", instance}},
		};
	}
}

/* A frame of one agent: all series in the first, then two of five. */
static enum fleet_verdict agent_tick(struct fleet *f, uint32_t session, unsigned int tick)
{
	static const uint16_t cells[] = {150, 151, 152, 153, 155, 158, 160, 161, 165, 170};
	uint64_t counts[10];
	struct frame_counter counters[COUNTERS];
	struct frame_gauge gauges[GAUGES];
	struct frame_histogram histograms[HISTOGRAMS];
	struct frame frame = {.sequence = tick + 1,
			      .time_ms = 1000 * (uint64_t)tick,
			      .interval_ms = 1000,
			      .is_key = !tick,
			      .definition_count = tick ? 0 : SERIES,
			      .definitions = definitions,
			      .counters = counters,
			      .gauges = gauges,
			      .histograms = histograms};

	for (unsigned int i = 0; i < 10; i++)
		counts[i] = 1 + (i * 7 + tick) % 5;
	for (unsigned int i = 0; i < SERIES; i++) {
		if (tick && (i + tick) % 5 > 1 && i < COUNTERS + GAUGES)
			continue;
		if (i < COUNTERS)
			counters[frame.counter_count++] = (struct frame_counter){i + 1, i * 3 + 1};
		else if (i < COUNTERS + GAUGES)
			gauges[frame.gauge_count++] = (struct frame_gauge){i + 1, tick + i};
		else
			histograms[frame.histogram_count++] =
				(struct frame_histogram){i + 1, 10, cells, counts};
	}
	return fleet_apply(f, session, &frame, 300, frame.time_ms, NULL);
}

static int agents_begin(struct fleet *f, unsigned int n, uint32_t *sessions)
{
	for (unsigned int a = 0; a < n; a++) {
		uint8_t incarnation[FRAME_INCARNATION_BYTES] = {(uint8_t)a, (uint8_t)(a >> 8), 1};
		char id[24], instance[32];
		const struct fleet_hello hello = {
			.agent = id, .incarnation = incarnation, .labels = {"one", "", "", ""}};

		snprintf(id, sizeof(id), "agent-%u", a);
		snprintf(instance, sizeof(instance), "%s/1", id);
		definitions_fill(a % 2 ? "nginx" : "kong", instance);
		if (fleet_say_hello(f, &hello, 0, 0, &sessions[a], NULL) < 0 ||
		    agent_tick(f, sessions[a], 0) != FLEET_APPLIED)
			return -1;
	}
	return 0;
}

/* One frame of sums; CPU time goes to *ret_ns. */
static int sums(struct fleet *f, struct frame_encoder *enc, unsigned int tick, uint64_t *ret_ns,
		size_t *size)
{
	const struct merge_options o = {.now_ms = 1000 * (uint64_t)tick, .stale_ms = 10000};
	uint64_t start = clock_read_ns(CLOCK_THREAD_CPUTIME_ID), refused = 0;
	struct merge_view *view;
	const uint8_t *data;
	uint32_t samples;
	int r = merge_view_new(f, &o, &view);

	if (r < 0)
		return r;
	frame_encoder_begin(enc, tick + 1, o.now_ms, 1000, tick ? FRAME_CHANGES : FRAME_KEY);
	r = tributary_encode(view, "bench", enc, &refused);
	if (r >= 0)
		r = frame_encoder_finish(enc, &data, size, &samples);
	merge_view_free(view);
	*ret_ns = clock_read_ns(CLOCK_THREAD_CPUTIME_ID) - start;
	return r < 0 || refused || samples != 2 * SERIES + 1 ? -1 : 0;
}

static int measure(unsigned int n)
{
	const struct fleet_limits limits = {
		.agents = 20000, .agent_series = 1000, .series = 4000000};
	uint32_t *sessions = calloc(n, sizeof(*sessions));
	uint64_t ns = 0, least = UINT64_MAX;
	struct frame_encoder *enc;
	struct fleet *f;
	size_t size = 0;
	int r = -1;

	if (!sessions || fleet_new(&limits, &f) < 0 || frame_encoder_new(&enc) < 0)
		return -1;
	r = agents_begin(f, n, sessions);
	for (unsigned int tick = 0; tick < TICKS && r >= 0; tick++) {
		for (unsigned int a = 0; a < n && tick && r >= 0; a++)
			r = agent_tick(f, sessions[a], tick) == FLEET_APPLIED ? 0 : -1;
		if (r >= 0)
			r = sums(f, enc, tick, &ns, &size);
		if (tick && ns < least)
			least = ns;
	}
	frame_encoder_free(enc);
	fleet_free(f);
	free(sessions);
	if (r < 0)
		return r;
	printf("{\"name\":\"ferry: core's CPU for the sums of %u agents, each second\","
	       "\"value\":%.4g,\"unit\":\"ms\",\"peer\":null,\"ratio\":null,\"budget\":null,"
	       "\"holds\":null}\n",
	       n, (double)least / 1e6);
	return 0;
}

int main(void)
{
	static const unsigned int agents[] = {100, 1000, 10000};

	for (size_t i = 0; i < sizeof(agents) / sizeof(agents[0]); i++)
		if (measure(agents[i]) < 0) {
			fprintf(stderr, "bench tributary: a frame was not made\n");
			return 1;
		}
	return 0;
}
