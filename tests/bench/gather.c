/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cost of reading 250,000 series of gateway scripts: four processes' files, 62,500 series each, no two
 * alike, are gathered and written to app.seg (what the courier does each second), app.seg is copied
 * and every series of it looked at (what a reader does). The median of 100 ticks while the
 * counters move; the first ticks, in which all of the series are new, in one sum. Then 50,000 more
 * series, and an app.seg that has room for the default of 8,192: what is over costs time once, and
 * no memory that grows.
 *
 * Prints JSON lines as tests/bench expects them: name, value, unit, budget, holds.
 */
#include "segment/gather.h"
#include "segment/reader.h"
#include "tidegate.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILES  4
#define SERIES 62500
#define ROUNDS 100
#define MORE   50000

static char dir[] = "/dev/shm/tidegate-bench-XXXXXX", app_path[64], app_dir[64];
static struct tidegate *writers[FILES + 1];
static uint64_t *cells[FILES + 1][SERIES];
static uint64_t times[5][ROUNDS], counted;

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static double median_ms(uint64_t *ns)
{
	qsort(ns, ROUNDS, sizeof(*ns), compare);
	return (double)ns[ROUNDS / 2] / 1e6;
}

static void row(const char *name, double value, const char *unit, double budget)
{
	printf("{\"name\":\"%s\",\"value\":%.2f,\"unit\":\"%s\",\"peer\":null,\"ratio\":null,",
	       name, value, unit);
	if (budget > 0)
		printf("\"budget\":%g,\"holds\":%s}\n", budget, value <= budget ? "true" : "false");
	else
		printf("\"budget\":null,\"holds\":null}\n");
}

static bool owner(void *data, const struct gather_writer *w, struct gather_owner *ret)
{
	(void)data;
	(void)w;
	strcpy(ret->gateway, "nginx");
	strcpy(ret->instance, "host/1");
	return true;
}

static int writer_open(unsigned int i, unsigned int series)
{
	static const char *const labels[] = {"route"};
	const struct tidegate_options o = {
		.size = sizeof(o), .runtime_dir = dir, .series = series + series / 8};
	struct tidegate_metric *m;

	if (tidegate_open(&o, &writers[i]) < 0 ||
	    tidegate_counter(writers[i], "orders_total", "Orders taken.", labels, 1, &m) < 0)
		return 1;
	for (unsigned int j = 0; j < series; j++) {
		char value[32];
		const char *const values[] = {value};

		snprintf(value, sizeof(value), "/route/%u/%u", i, j);
		if (tidegate_with(m, values, &cells[i][j]) < 0)
			return 1;
	}
	return 0;
}

static int writers_open(void)
{
	int failed = 0;

	for (unsigned int i = 0; i < FILES && !failed; i++)
		failed = writer_open(i, SERIES);
	return failed;
}

static void count(void)
{
	for (unsigned int i = 0; i < FILES; i++)
		for (unsigned int j = 0; j < SERIES; j += 7, counted++)
			tidegate_inc(cells[i][j]);
}

static void tick(struct gather *g, struct segment_writer *w, uint64_t at[3])
{
	at[0] = clock_mono_ns();
	gather_collect(g, at[0]);
	at[1] = clock_mono_ns();
	segment_writer_tick_begin(w);
	gather_write(g);
	segment_writer_tick_end(w, at[0], at[0], NS_PER_S);
	at[2] = clock_mono_ns();
}

/* All of them, by name and value, as `tidegate metrics` would; false: it does not add up. */
static bool read_all(const struct segment_reader *r)
{
	unsigned int n = segment_reader_series_count(r), found = 0;
	struct segment_series s;
	uint64_t sum = 0;

	for (unsigned int i = 0; i < n; i++) {
		if (!segment_reader_series(r, i, &s) || s.label_count != 3)
			continue;
		found++;
		sum += s.counter;
	}
	return found == FILES * SERIES && sum == counted;
}

static double memory_mb(void)
{
	unsigned long pages = 0, shared = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	if (f && fscanf(f, "%*u %lu %lu", &pages, &shared) != 2)
		pages = 0;
	if (f)
		fclose(f);
	return (double)(pages - shared) * (double)sysconf(_SC_PAGESIZE) / (1 << 20);
}

/* 300,000 series want into 8,192 places. */
static int measure_capped(const struct gather_options *options)
{
	const struct segment_options o = {
		.path = app_path,
		.kind = SEGMENT_APP,
		.group = (gid_t)-1,
		.series = 8192,
		.histograms = 16,
		.heap_bytes = 8192 * 96,
	};
	uint64_t at[3], first = 0, before = 0, refused = 0;
	struct segment_writer *w;
	struct gather_stats s;
	struct gather *g;
	double memory;
	bool continued;

	if (writer_open(FILES, MORE) || segment_writer_open(&o, &w, &continued, NULL) < 0)
		return 1;
	memory = memory_mb();
	if (gather_new(options, w, &g) < 0)
		return 1;
	do {
		before = refused;
		tick(g, w, at);
		first += at[2] - at[0];
		gather_stats(g, &s);
		refused = s.refused[GATHER_SERIES];
	} while (refused != before);
	for (unsigned int i = 0; i < ROUNDS; i++) {
		tick(g, w, at);
		times[0][i] = at[2] - at[0];
	}
	row("gather_300k_into_8192_tick", median_ms(times[0]), "ms", 50);
	row("gather_300k_into_8192_first_ticks", (double)first / 1e6, "ms", 0);
	row("gather_300k_into_8192_refused", (double)refused, "series", 0);
	row("gather_300k_into_8192_memory", memory_mb() - memory, "MB", 0);
	gather_free(g);
	segment_writer_close(w);
	return 0;
}

static int measure(struct gather *g, struct segment_writer *w)
{
	struct segment_reader *r = NULL;
	uint64_t at[3], first = 0;
	struct rusage usage;

	while (segment_writer_header(w)->directory_count < FILES * SERIES) {
		tick(g, w, at);
		first += at[2] - at[0];
	}
	if (segment_reader_open(app_path, &r, NULL) < 0)
		return 1;
	for (unsigned int i = 0; i < ROUNDS; i++) {
		uint64_t read, looked;

		count();
		tick(g, w, at);
		if (segment_reader_refresh(r, NULL) < 0)
			return 1;
		read = clock_mono_ns();
		if (!read_all(r))
			return 1;
		looked = clock_mono_ns();
		times[0][i] = at[1] - at[0];
		times[1][i] = at[2] - at[1];
		times[2][i] = read - at[2];
		times[3][i] = looked - read;
		times[4][i] = looked - at[0];
	}
	segment_reader_close(r);
	getrusage(RUSAGE_SELF, &usage);
	row("gather_250k_all", median_ms(times[4]), "ms", 50);
	row("gather_250k_collect", median_ms(times[0]), "ms", 0);
	row("gather_250k_write", median_ms(times[1]), "ms", 0);
	row("gather_250k_refresh", median_ms(times[2]), "ms", 0);
	row("gather_250k_look_at_each", median_ms(times[3]), "ms", 0);
	row("gather_250k_first_ticks", (double)first / 1e6, "ms", 0);
	row("gather_250k_peak_memory_all_sides", (double)usage.ru_maxrss / 1024, "MB", 0);
	return 0;
}

int main(void)
{
	const struct gather_options g = {
		.dir = app_dir, .files = 64, .bytes = 64 << 20, .owner = owner};
	const struct segment_options o = {
		.path = app_path,
		.kind = SEGMENT_APP,
		.group = (gid_t)-1,
		.series = FILES * SERIES + FILES * SERIES / 8,
		.histograms = 16,
		.heap_bytes = 24 << 20,
	};
	struct segment_writer *w = NULL;
	struct gather *gather = NULL;
	char command[64];
	struct err e = {0};
	bool continued;
	int failed = 1;

	if (!mkdtemp(dir))
		return 1;
	snprintf(app_path, sizeof(app_path), "%s/app.seg", dir);
	snprintf(app_dir, sizeof(app_dir), "%s/app", dir);
	if (mkdir(app_dir, 0700) == 0 && writers_open() == 0 &&
	    segment_writer_open(&o, &w, &continued, &e) == 0 && gather_new(&g, w, &gather) == 0)
		failed = measure(gather, w);
	gather = gather_free(gather);
	w = segment_writer_close(w);
	failed = failed || measure_capped(&g);
	if (failed)
		fprintf(stderr, "bench: %s%s\n", e.text, tidegate_error());
	for (unsigned int i = 0; i <= FILES; i++)
		tidegate_close(writers[i]);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command) == 0 ? failed : 1;
}
