/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ingest in the core: uplink requests with one frame of the standard agent each (100 counters and
 * gauges, 40 % of them changing, and 4 histograms) from many agents, decoded, applied, written to a
 * commit log on disk and committed every 100 requests. CPU time of this thread; making the
 * requests is not counted.
 */
#include "base/clock.h"
#include "fleet/merge.h"
#include "fleet/uplink.h"
#include "tidegate.pb-c.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define AGENTS     200u
#define TICKS      30u
#define COUNTERS   90u
#define GAUGES     10u
#define HISTOGRAMS 4u
#define SERIES     (COUNTERS + GAUGES + HISTOGRAMS)
#define COMMIT     100u

struct agent {
	struct frame_encoder *encoder;
	uint64_t counters[COUNTERS];
	double gauges[GAUGES];
	uint64_t cells[HISTOGRAMS][HIST_CELLS];
	uint32_t session;
};

static char names[SERIES][32];
static struct agent agents[AGENTS];
static uint64_t ingest_ns, samples, requests, reply_bytes, scrape_ns;

static size_t request_make(unsigned int a, unsigned int tick, uint8_t *ret)
{
	uint8_t incarnation[FRAME_INCARNATION_BYTES] = {(uint8_t)a, (uint8_t)(a >> 8), 1};
	ProtobufCBinaryData frames[1];
	Tidegate__Uplink request;
	Tidegate__Hello hello;
	struct agent *g = &agents[a];
	const uint8_t *data;
	char id[16], instance[20];
	uint32_t ignored;
	size_t size;

	snprintf(id, sizeof(id), "agent-%u", a);
	snprintf(instance, sizeof(instance), "%s/1", id);
	frame_encoder_begin(g->encoder, tick + 1, 1700000000000ULL + tick * 1000, 1000,
			    tick ? FRAME_CHANGES : FRAME_KEY);
	for (unsigned int i = 0; i < SERIES; i++) {
		struct segment_series s = {.name = names[i],
					   .unit = "",
					   .help = "",
					   .is_present = true,
					   .label_count = 2};

		s.labels[0] = (struct segment_label){"gateway", "nginx"};
		s.labels[1] = (struct segment_label){"instance", instance};
		if (i < COUNTERS) {
			if (rand() % 10 < 4)
				g->counters[i] += (uint64_t)(-log(drand48() + 1e-12) * 20) + 1;
			s.kind = METRIC_COUNTER;
			s.counter = g->counters[i];
		} else if (i < COUNTERS + GAUGES) {
			if (rand() % 10 < 4)
				g->gauges[i - COUNTERS] = rand() % 1000;
			s.kind = METRIC_GAUGE;
			s.gauge = g->gauges[i - COUNTERS];
		} else {
			uint64_t *cells = g->cells[i - COUNTERS - GAUGES];

			for (unsigned int k = 0; k < 20; k++)
				cells[150 + rand() % 12 + rand() % 12]++;
			s.kind = METRIC_HISTOGRAM;
			s.cells = cells;
		}
		frame_encoder_series(g->encoder, &s);
	}
	if (frame_encoder_finish(g->encoder, &data, &size, &ignored) < 0)
		abort();
	tidegate__uplink__init(&request);
	tidegate__hello__init(&hello);
	hello.agent = id;
	hello.incarnation = (ProtobufCBinaryData){sizeof(incarnation), incarnation};
	request.hello = tick ? NULL : &hello;
	request.session = g->session;
	/* protobuf-c's bytes are not const; packing only reads them. */
	frames[0] = (ProtobufCBinaryData){size, (uint8_t *)(uintptr_t)data};
	request.n_frames = 1;
	request.frames = frames;
	return tidegate__uplink__pack(&request, ret);
}

static int request_send(struct uplink *u, unsigned int a, const uint8_t *data, size_t size)
{
	uint64_t start = clock_read_ns(CLOCK_THREAD_CPUTIME_ID);
	Tidegate__UplinkReply *reply;
	uint8_t *bytes;
	size_t n;
	int r = uplink_handle(u, data, size, 1, &bytes, &n);

	if (r >= 0 && ++requests % COMMIT == 0)
		r = commitlog_commit(u->log, NULL);
	ingest_ns += clock_read_ns(CLOCK_THREAD_CPUTIME_ID) - start;
	if (r < 0)
		return r;
	reply_bytes += n;
	reply = tidegate__uplink_reply__unpack(NULL, n, bytes);
	if (!reply || reply->n_acknowledged != 1)
		r = -1;
	else
		agents[a].session = reply->session;
	if (reply)
		tidegate__uplink_reply__free_unpacked(reply, NULL);
	free(bytes);
	samples += SERIES;
	return r;
}

/* The sums that the fleet shows against those of the generator. */
static int check(const struct fleet *f)
{
	struct merge_options o = {.now_ms = 1, .stale_ms = 10};
	uint64_t want = 0, got = 0, start = clock_read_ns(CLOCK_THREAD_CPUTIME_ID);
	struct merge_view *v;
	struct merge_series s;

	if (merge_view_new(f, &o, &v) < 0)
		return -1;
	for (size_t i = 0; i < merge_view_count(v); i++)
		if (merge_view_get(v, i, &s))
			got += s.kind == METRIC_COUNTER     ? s.counter
			       : s.kind == METRIC_HISTOGRAM ? histogram_count(s.cells)
							    : 0;
	merge_view_free(v);
	scrape_ns = clock_read_ns(CLOCK_THREAD_CPUTIME_ID) - start;
	for (unsigned int a = 0; a < AGENTS; a++) {
		for (unsigned int i = 0; i < COUNTERS; i++)
			want += agents[a].counters[i];
		for (unsigned int h = 0; h < HISTOGRAMS; h++)
			want += histogram_count(agents[a].cells[h]);
	}
	return got == want ? 0 : -1;
}

static int run(struct uplink *u)
{
	static uint8_t request[1 << 20];

	for (unsigned int tick = 0; tick < TICKS; tick++) {
		/* Key frames are a start's business, not the steady state's. */
		if (tick == 1)
			ingest_ns = samples = 0;
		for (unsigned int a = 0; a < AGENTS; a++)
			if (request_send(u, a, request, request_make(a, tick, request)) < 0)
				return -1;
	}
	return check(u->fleet);
}

static void print(const char *name, double value, const char *unit)
{
	printf("{\"name\":\"%s\",\"value\":%.4g,\"unit\":\"%s\",\"peer\":null,\"ratio\":null,"
	       "\"budget\":null,\"holds\":null}\n",
	       name, value, unit);
}

int main(void)
{
	const struct fleet_limits limits = {
		.agents = 1000, .agent_series = 1000, .series = 1000000};
	char dir[] = "/tmp/tidegate-bench-XXXXXX", path[64];
	struct uplink u = {0};
	int r = -1;

	for (unsigned int i = 0; i < SERIES; i++)
		snprintf(names[i], sizeof(names[i]), "bench_series_%u_total", i);
	for (unsigned int a = 0; a < AGENTS; a++)
		if (frame_encoder_new(&agents[a].encoder) < 0)
			return 1;
	if (!mkdtemp(dir))
		return 1;
	if (fleet_new(&limits, &u.fleet) >= 0 && uplink_init(&u) >= 0 &&
	    commitlog_open(dir, uplink_replay, &u, &u.log, NULL) >= 0)
		r = run(&u);
	commitlog_close(u.log);
	uplink_fini(&u);
	fleet_free(u.fleet);
	for (unsigned int a = 0; a < AGENTS; a++)
		frame_encoder_free(agents[a].encoder);
	snprintf(path, sizeof(path), "%s/commit.0.log", dir);
	if (!getenv("TIDEGATE_BENCH_KEEP")) {
		unlink(path);
		rmdir(dir);
	}
	if (r < 0) {
		fprintf(stderr, "bench ingest: a frame was not acknowledged or totals are wrong\n");
		return 1;
	}
	print("aggregator: samples ingested per CPU second",
	      (double)samples * 1e9 / (double)ingest_ns, "samples/s");
	print("aggregator: CPU of one merged view, a series", (double)scrape_ns / (AGENTS * SERIES),
	      "ns");
	return 0;
}
