/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attaches the GC probes to processes and prints what they counted, one JSON line for each line
 * read: gc-count PID [TID …]. Part of gc-truth.
 */
#include "base/clock.h"
#include "base/str.h"
#include "metrics.h"
#include "probe/probe.h"

#include <stdio.h>
#include <stdlib.h>

static struct cells cells;

static unsigned long count_of(enum gc_phase phase)
{
	return (unsigned long)histogram_count(cells.gc_ns[phase]);
}

static double ns_of(enum gc_phase phase)
{
	return histogram_sum(cells.gc_ns[phase]) * 1e9;
}

static void print_totals(struct probe_set *set)
{
	struct probe_now now;

	probe_heartbeat(set, clock_mono_ns());
	probe_totals(set, 0, clock_mono_ns(), &cells, &now);
	printf("{\"step\":%lu,\"step_ns\":%.0f,\"full\":%lu,\"full_ns\":%.0f,\"turn\":%lu,"
	       "\"turn_ns\":%.0f,\"stw\":%lu,\"stw_ns\":%.0f,\"cycles\":%lu,\"bias_ns\":%lu}\n",
	       count_of(GC_STEP), ns_of(GC_STEP), count_of(GC_FULL), ns_of(GC_FULL),
	       count_of(GC_TURN), ns_of(GC_TURN), count_of(GC_STW), ns_of(GC_STW),
	       (unsigned long)cells.gc_cycles, (unsigned long)probe_gc_bias_ns(set));
	fflush(stdout);
}

static int watch(struct probe_set *set, int argc, char **argv)
{
	struct probe_gc_report report;
	uint64_t pid = 0, tid;
	int r, i;

	for (i = 1; i < argc; i++) {
		r = str_to_u64(argv[i], &tid);
		if (r < 0)
			return r;
		pid = pid ? pid : tid;
		r = probe_watch_thread(set, 0, (uint32_t)pid, (uint32_t)tid, ROLE_WORKER);
		if (r < 0)
			return r;
	}
	r = probe_gc_attach(set, 0, (uint32_t)pid, &report);
	printf("{\"state\":%u,\"runtime\":\"%s\",\"how\":\"%s\",\"attach\":\"%s\","
	       "\"confidence\":%.2f,\"why\":\"%s\"}\n",
	       report.state, report.runtime, report.how, report.attach, report.confidence,
	       report.why);
	fflush(stdout);
	return r;
}

int main(int argc, char **argv)
{
	const struct probe_options options = {
		.tier = "auto",
		.threads = 256,
		.connections = 256,
		.sample = 1,
		.want_gc = true,
		.slow_request_ns = NS_PER_S,
		.pin_dir = getenv("GC_COUNT_PINS"),
	};
	struct probe_set *set = NULL;
	struct err e = { 0 };
	char line[64];
	int r;

	if (argc < 2) {
		fprintf(stderr, "usage: gc-count PID [TID ...]\n");
		return EXIT_USAGE;
	}
	histogram_thresholds();
	r = probe_open(&options, 0, &set, &e);
	if (r < 0) {
		fprintf(stderr, "gc-count: %s\n", e.text);
		return EXIT_FAILED;
	}
	probe_heartbeat(set, clock_mono_ns());
	r = watch(set, argc, argv);
	while (r == 0 && fgets(line, sizeof(line), stdin))
		print_totals(set);
	probe_close(set);
	return r == 0 ? EXIT_DONE : EXIT_FAILED;
}
