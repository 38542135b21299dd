/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cost of shared memory: one tick of 200 series and 20 histograms written, one copy of it taken by
 * a reader, one copy of the gateway records alone, and the copy rendered as Prometheus text.
 * Median of 1,000 each (100 of the text).
 * Then the text of 250,000 counters, as a whole and in the steps of the courier's /metrics: what its
 * loop waits is the median and the 99th percentile of a step (CPU time: whoever shares the machine is
 * not counted).
 *
 * Prints JSON lines as tests/bench expects them: name, value, unit, budget, holds.
 */
#include "outlet/prometheus.h"
#include "segment/reader.h"
#include "segment/writer.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SERIES     200
#define HISTOGRAMS 20
#define ROUNDS     1000
#define MANY       250000
#define STEP_LINES 2000 /* as agent/cmd/courier_outlets.c */

static const struct metric_desc counter = {
	.name = "t_total", .unit = "", .labels = "", .help = "A counter.", .kind = METRIC_COUNTER};
static const struct metric_desc histogram = {.name = "t_seconds",
					     .unit = "seconds",
					     .labels = "",
					     .help = "A histogram.",
					     .kind = METRIC_HISTOGRAM};

static int indexes[SERIES + HISTOGRAMS];
static uint64_t times[4][ROUNDS];

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void row(const char *name, uint64_t *ns, size_t n, double budget_us)
{
	double us;

	qsort(ns, n, sizeof(*ns), compare);
	us = (double)ns[n / 2] / 1e3;
	printf("{\"name\":\"%s\",\"value\":%.1f,\"unit\":\"us\",\"peer\":null,\"ratio\":null,",
	       name, us);
	if (budget_us > 0)
		printf("\"budget\":%g,\"holds\":%s}\n", budget_us,
		       us <= budget_us ? "true" : "false");
	else
		printf("\"budget\":null,\"holds\":null}\n");
}

static void tick(struct segment_writer *w, uint64_t k)
{
	static uint64_t cells[HIST_CELLS];

	for (unsigned int i = 0; i < 100; i++)
		cells[100 + i] += k % 3;
	segment_writer_tick_begin(w);
	for (unsigned int i = 0; i < SERIES; i++)
		segment_writer_counter(w, indexes[i], k * 7);
	for (unsigned int i = 0; i < HISTOGRAMS; i++)
		segment_writer_histogram(w, indexes[SERIES + i], cells);
	segment_writer_tick_end(w, k, k, NS_PER_S);
}

static bool many_get(const void *data, size_t index, struct prometheus_series *ret)
{
	static struct segment_label labels[] = {{"gateway", "nginx"}, {"route", NULL}};
	static char route[32];

	(void)data;
	snprintf(route, sizeof(route), "/api/v1/orders/%zu", index);
	labels[1].value = route;
	*ret = (struct prometheus_series){.name = "orders_total",
					  .unit = "",
					  .help = "Orders.",
					  .labels = labels,
					  .label_count = 2,
					  .counter = index};
	return true;
}

static int measure_steps(void)
{
	static const struct prometheus_source many = {.count = MANY, .get = many_get};
	static uint64_t steps[2 * MANY / STEP_LINES + 16], whole, median;
	struct prometheus_job *job;
	struct strbuf out;
	size_t n = 0;
	int k;

	strbuf_init(&out, 64u << 20);
	if (prometheus_begin(&many, 1, PROMETHEUS_TEXT, &out, &job) < 0)
		return 1;
	do {
		uint64_t t0 = clock_read_ns(CLOCK_THREAD_CPUTIME_ID);

		k = prometheus_step(job, STEP_LINES, NULL);
		steps[n] = clock_read_ns(CLOCK_THREAD_CPUTIME_ID) - t0;
		whole += steps[n++];
	} while (k > 0 && n < sizeof(steps) / sizeof(*steps));
	prometheus_end(job);
	strbuf_fini(&out);
	if (k != 0)
		return 1;
	row("prometheus_250k_whole", &whole, 1, 0);
	qsort(steps, n, sizeof(*steps), compare);
	median = steps[n / 2];
	row("prometheus_250k_step", &median, 1, 0);
	row("prometheus_250k_step_p99", &steps[n * 99 / 100], 1, 0);
	return 0;
}

static int measure(struct segment_writer *w, struct segment_reader *r)
{
	struct prometheus_source source;
	struct strbuf out;

	for (unsigned int i = 0; i < ROUNDS; i++) {
		uint64_t t0 = clock_mono_ns(), t1, t2, t3;

		tick(w, i + 1);
		t1 = clock_mono_ns();
		if (segment_reader_refresh(r, NULL) < 0)
			return 1;
		t2 = clock_mono_ns();
		if (segment_reader_refresh_gateways(r, NULL) < 0)
			return 1;
		t3 = clock_mono_ns();
		times[0][i] = t1 - t0;
		times[1][i] = t2 - t1;
		times[2][i] = t3 - t2;
	}
	for (unsigned int i = 0; i < ROUNDS / 10; i++) {
		uint64_t t0 = clock_mono_ns();
		int k;

		prometheus_from_segment(r, &source);
		strbuf_init(&out, 16u << 20);
		k = prometheus_render(&source, 1, PROMETHEUS_TEXT, &out, NULL);
		strbuf_fini(&out);
		if (k < 0)
			return 1;
		times[3][i] = clock_mono_ns() - t0;
	}
	row("segment_tick_write", times[0], ROUNDS, 0);
	row("segment_refresh", times[1], ROUNDS, 1000);
	row("segment_refresh_gateways", times[2], ROUNDS, 0);
	row("prometheus_render", times[3], ROUNDS / 10, 0);
	return measure_steps();
}

int main(void)
{
	char dir[] = "/dev/shm/tidegate-bench-XXXXXX", path[64], lock[80];
	struct segment_options o = {
		.path = path,
		.kind = SEGMENT_HOST,
		.group = (gid_t)-1,
		.series = SERIES + HISTOGRAMS,
		.histograms = HISTOGRAMS,
		.heap_bytes = 64 << 10,
	};
	struct segment_writer *w = NULL;
	struct segment_reader *r = NULL;
	struct err e = {0};
	bool continued;
	int failed = 1;

	if (!mkdtemp(dir))
		return 1;
	snprintf(path, sizeof(path), "%s/b.seg", dir);
	snprintf(lock, sizeof(lock), "%s.lock", path);
	if (segment_writer_open(&o, &w, &continued, &e) == 0 &&
	    segment_reader_open(path, &r, &e) == 0) {
		for (unsigned int i = 0; i < SERIES + HISTOGRAMS; i++) {
			char value[16];
			const char *labels[][2] = {
				{"gateway", "nginx"}, {"instance", "host/1"}, {"code", value}};

			snprintf(value, sizeof(value), "%u", i);
			indexes[i] = segment_writer_series(w, i < SERIES ? &counter : &histogram,
							   labels, 3);
		}
		for (unsigned int i = 0; i < 4; i++) {
			char instance[16];

			snprintf(instance, sizeof(instance), "host/%u", i);
			segment_writer_gateway(w, "nginx", instance);
		}
		failed = measure(w, r);
	} else {
		fprintf(stderr, "%s\n", e.text);
	}
	segment_reader_close(r);
	segment_writer_close(w);
	unlink(path);
	unlink(lock);
	rmdir(dir);
	return failed;
}
