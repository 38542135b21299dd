/* SPDX-License-Identifier: Apache-2.0 */
/*
 * History: what a minute of a standard agent (60 ticks, a key frame in each minute) costs to write
 * and takes on disk, as its ticks and as its end; and what questions of all agents take. CPU time
 * of this thread; making the frames is not counted.
 */
#include "base/clock.h"
#include "fleet/history_read.h"
#include "load/standard.h"
#include "outlet/prometheus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define AGENTS   100u
#define MINUTES  10u
#define START_MS 1700000040000ull
#define HOUR_MS  (3600 * 1000ull)

static struct agent {
	struct standard load;
	struct frame_encoder *encoder;
	uint64_t sequence;
	uint32_t stream;
	char name[16], instance[20];
} agents[AGENTS];

static uint64_t write_ns, tick_bytes, end_bytes, minutes;

static uint64_t cpu_ns(void)
{
	return clock_read_ns(CLOCK_THREAD_CPUTIME_ID);
}

static int define(struct history_store *s, struct agent *a)
{
	int r = 0;

	for (uint32_t i = 0; i < STANDARD_SERIES && r >= 0; i++) {
		struct history_definition d = {.id = i + 1, .help = ""};
		struct segment_series series;

		standard_series(&a->load, i, &series);
		d.name = series.name;
		d.unit = series.unit;
		d.kind = series.kind;
		d.label_count = series.label_count;
		memcpy(d.labels, series.labels, series.label_count * sizeof(d.labels[0]));
		r = history_store_define(s, a->stream, &d, NULL);
	}
	return r;
}

static int minute_make(struct agent *a, unsigned int minute, struct sheaf **ret)
{
	uint64_t start_ms = START_MS + minute * (uint64_t)MINUTE_MS;
	int r = sheaf_new(start_ms, ret);

	for (unsigned int tick = 0; tick < 60 && r >= 0; tick++) {
		enum frame_type type = tick == 30 ? FRAME_TOTALS : FRAME_CHANGES;
		const uint8_t *data;
		size_t size;

		standard_step(&a->load);
		a->sequence++;
		r = standard_frame(&a->load, a->encoder, a->sequence, start_ms + tick * 1000,
				   a->sequence == 1 ? FRAME_KEY : type, &data, &size);
		if (r >= 0)
			r = sheaf_add(*ret, a->sequence, start_ms + tick * 1000,
				      a->sequence == 1 || tick == 30, data, size);
	}
	return r < 0 ? r : 0;
}

static int measure_bytes(struct sheaf *sheaf)
{
	struct pack p = {0};
	struct minute *m;
	int r = sheaf_encode(sheaf, &p);

	tick_bytes += p.size;
	if (r >= 0)
		r = sheaf_minute(sheaf, 0, UINT64_MAX, &m);
	if (r < 0)
		return r;
	r = minute_thin(m);
	pack_reset(&p);
	if (r >= 0)
		r = minute_encode(m, &p);
	end_bytes += p.size;
	minutes++;
	minute_free(m);
	pack_fini(&p);
	return r;
}

static int minute_write(struct history_store *s, unsigned int minute)
{
	struct sheaf *sheaves[AGENTS] = {NULL};
	uint64_t start;
	int r = 0;

	for (unsigned int i = 0; i < AGENTS && r >= 0; i++) {
		r = minute_make(&agents[i], minute, &sheaves[i]);
		if (r >= 0)
			r = measure_bytes(sheaves[i]);
	}
	start = cpu_ns();
	if (r >= 0)
		r = history_store_begin(s, NULL);
	for (unsigned int i = 0; i < AGENTS && r >= 0; i++)
		r = history_store_put(s, agents[i].stream, sheaves[i], NULL) == 60 ? 0 : -1;
	if (r >= 0)
		r = history_store_age(s, START_MS + minute * (uint64_t)MINUTE_MS, 512, NULL);
	if (r >= 0)
		r = history_store_commit(s, NULL);
	write_ns += cpu_ns() - start;
	for (unsigned int i = 0; i < AGENTS; i++)
		sheaf_free(sheaves[i]);
	return r;
}

/* -------- questions -------- */

struct question {
	const char *name;
	bool is_over;
	uint64_t series, points;
	double last;
};

static bool wants_name(void *data, const char *name)
{
	return strcmp(name, ((struct question *)data)->name) == 0;
}

static int on_series(void *data, const struct history_series *s)
{
	struct question *q = data;

	q->series++;
	q->points += s->point_count;
	if (s->point_count)
		q->last += s->points[s->point_count - 1].value;
	return 0;
}

static double ask_ms(struct history_reader *reader, struct question *q, unsigned int back_minutes)
{
	uint64_t end_ms = START_MS + MINUTES * (uint64_t)MINUTE_MS - 1, start = cpu_ns();
	const struct history_request request = {
		.from_ms = end_ms - back_minutes * (uint64_t)MINUTE_MS,
		.to_ms = end_ms,
		.bounds_ns = prometheus_bounds_ns,
		.les = prometheus_les,
		.bound_count = PROMETHEUS_BOUNDS,
		.wants_name = wants_name,
		.fn = on_series,
		.data = q,
	};

	q->series = q->points = 0;
	q->last = 0;
	if (history_read(reader, &request, NULL) < 0)
		return -1;
	return (double)(cpu_ns() - start) / 1e6;
}

static void print(const char *name, double value, const char *unit)
{
	printf("{\"name\":\"%s\",\"value\":%.4g,\"unit\":\"%s\",\"peer\":null,\"ratio\":null,"
	       "\"budget\":null,\"holds\":null}\n",
	       name, value, unit);
}

static int ask(const char *path)
{
	struct question counter, histogram;
	struct history_reader *reader;
	struct segment_series series;
	char bucket[FRAME_NAME_MAX + 16];
	double minute_ms, all_ms, buckets_ms, want = 0;
	uint64_t count = 0;

	if (history_reader_open(path, NULL, &reader, NULL) < 0)
		return -1;
	standard_series(&agents[0].load, 0, &series);
	counter = (struct question){.name = series.name};
	standard_series(&agents[0].load, STANDARD_COUNTERS + STANDARD_GAUGES, &series);
	snprintf(bucket, sizeof(bucket), "%s_bucket", series.name);
	histogram = (struct question){.name = bucket};
	minute_ms = ask_ms(reader, &counter, 1);
	all_ms = ask_ms(reader, &counter, MINUTES);
	for (unsigned int i = 0; i < STANDARD_COUNTERS; i++) {
		standard_series(&agents[0].load, i, &series);
		if (strcmp(series.name, counter.name) != 0)
			continue;
		count += AGENTS;
		for (unsigned int k = 0; k < AGENTS; k++)
			want += (double)agents[k].load.counters[i];
	}
	/* A figure for wrong answers would be worth nothing. */
	if (counter.series != count || counter.points != count * MINUTES * 60 ||
	    counter.last < want || counter.last > want)
		return -1;
	buckets_ms = ask_ms(reader, &histogram, 1);
	if (histogram.series < AGENTS * (PROMETHEUS_BOUNDS + 1))
		return -1;
	history_reader_close(reader);
	print("history: reading a counter over 1 minute, an instance", minute_ms * 1000 / AGENTS,
	      "us");
	print("history: reading a counter, an instance and minute",
	      all_ms * 1000 / AGENTS / MINUTES, "us");
	print("history: reading a histogram over 1 minute, an instance", buckets_ms * 1000 / AGENTS,
	      "us");
	return 0;
}

static int run(const char *path)
{
	const struct history_options options = {.ticks_ms = HOUR_MS, .keep_ms = 336 * HOUR_MS};
	struct history_store *s;
	int r = history_store_open(path, &options, &s, NULL);

	if (r < 0)
		return r;
	for (unsigned int i = 0; i < AGENTS && r >= 0; i++) {
		struct agent *a = &agents[i];
		uint8_t life[FRAME_INCARNATION_BYTES] = {(uint8_t)i, 1};

		snprintf(a->name, sizeof(a->name), "agent-%u", i);
		snprintf(a->instance, sizeof(a->instance), "%s/1", a->name);
		standard_init(&a->load, i + 1, a->instance);
		r = frame_encoder_new(&a->encoder);
		if (r >= 0)
			r = history_store_stream(s, a->name, life, START_MS, &a->stream, NULL);
		if (r >= 0)
			r = define(s, a);
	}
	for (unsigned int minute = 0; minute < MINUTES && r >= 0; minute++)
		r = minute_write(s, minute);
	if (r >= 0)
		r = ask(path);
	history_store_close(s);
	for (unsigned int i = 0; i < AGENTS; i++)
		frame_encoder_free(agents[i].encoder);
	return r;
}

int main(void)
{
	static const char *const endings[] = {"", "-wal", "-shm"};
	char dir[] = "/tmp/tidegate-bench-XXXXXX", path[64], name[80];
	int r;

	if (!mkdtemp(dir))
		return 1;
	snprintf(path, sizeof(path), "%s/history.db", dir);
	r = run(path);
	for (size_t i = 0; i < 3; i++) {
		snprintf(name, sizeof(name), "%s%s", path, endings[i]);
		unlink(name);
	}
	rmdir(dir);
	if (r < 0) {
		fprintf(stderr, "bench history: a minute was not written or not read back\n");
		return 1;
	}
	print("history: CPU to write a minute of an instance",
	      (double)write_ns / 1e3 / (double)minutes, "us");
	print("history: bytes of ticks, an instance and hour",
	      (double)tick_bytes / (double)minutes * 60, "bytes");
	print("history: bytes of ends of minutes, an instance and day",
	      (double)end_bytes / (double)minutes * 1440, "bytes");
	return 0;
}
