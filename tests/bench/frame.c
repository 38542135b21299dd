/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes a sample on the wire. Load: 80 counters and 20 gauges, labelled like an agent's; in each
 * of 60 ticks 40 % of them change. Bytes depend on how large increments are, which FACTS B4 does not
 * say, so two loads are shown: light (increments exponential with mean 6, gauges whole numbers below
 * 50) and busy (mean 20, below 500); and each with a minute's key frame as the courier sends it
 * (totals; definitions went out before) and with one that brings all definitions again. The budget
 * is held against all four. Counted is the SP payload, each frame in an Uplink of its own.
 * Histograms apart: 4, with 300 observations a tick.
 *
 * Prints JSON lines as tests/bench expects them: name, value, unit, budget, holds.
 */
#include "bus/frame.h"

#include "base/clock.h"
#include "base/str.h"
#include "tidegate.pb-c.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define TICKS      60
#define SERIES     100
#define HISTOGRAMS 4

static uint64_t random_state = 0x9e3779b97f4a7c15ULL;

static double random_unit(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (double)(random_state >> 11) / 9007199254740992.0;
}

static const char *const calls[] = {"read",       "write",    "epoll_wait", "accept4", "close",
				    "openat",     "writev",   "recvfrom",   "sendto",  "connect",
				    "setsockopt", "fstat",    "futex",      "mmap",    "munmap",
				    "socket",     "sendfile", "pread64",    "ioctl",   "brk"};
static const char *const errnos[] = {"EAGAIN", "EINTR", "ENOENT", "ECONNRESET"};
static const char *const codes[] = {"200", "204", "301", "304", "400",
				    "401", "403", "404", "499", "500"};
static const char *const methods[] = {"GET", "POST"};
static const char *const workers[] = {"1201", "1202", "1203", "1204", "1205",
				      "1206", "1207", "1208", "1209", "1210"};
static const char *const gauges[] = {"tidegate_requests_in_flight", "tidegate_workers",
				     "tidegate_connections_open",
				     "tidegate_requests_in_flight_max"};
static const char *const gateways[] = {"nginx", "kong", "apisix", "haproxy", "caddy"};

static struct segment_series series[SERIES + HISTOGRAMS];
static uint64_t cells[HISTOGRAMS][HIST_CELLS];
static unsigned int count;

static struct segment_series *add(const char *name, enum metric_kind kind, const char *gateway)
{
	struct segment_series *s = &series[count];

	*s = (struct segment_series){
		.index = count++,
		.name = name,
		.unit = "",
		.help = "",
		.kind = kind,
		.is_present = true,
		.label_count = 2,
		.labels = {{"gateway", gateway}, {"instance", "edge-7.example/1"}},
	};
	return s;
}

static void label(struct segment_series *s, const char *key, const char *value)
{
	s->labels[s->label_count++] = (struct segment_label){key, value};
}

static void source_make(void)
{
	struct segment_series *s;

	for (unsigned int i = 0; i < 20; i++) /* 20 calls, 20 errors, 20 requests, 10 + 10 others */
		label(add("tidegate_syscalls_total", METRIC_COUNTER, "nginx"), "syscall", calls[i]);
	for (unsigned int i = 0; i < 20; i++) {
		s = add("tidegate_syscall_errors_total", METRIC_COUNTER, "nginx");
		label(s, "syscall", calls[i / 4]);
		label(s, "errno", errnos[i % 4]);
	}
	for (unsigned int i = 0; i < 20; i++) {
		s = add("tidegate_requests_total", METRIC_COUNTER, "nginx");
		label(s, "method", methods[i / 10]);
		label(s, "code", codes[i % 10]);
	}
	for (unsigned int i = 0; i < 20; i++)
		label(add(i < 10 ? "tidegate_loop_busy_seconds_total" : "tidegate_accepts_total",
			  METRIC_COUNTER, "nginx"),
		      "worker", workers[i % 10]);
	for (unsigned int i = 0; i < 20; i++)
		add(gauges[i / 5], METRIC_GAUGE, gateways[i % 5]);
	for (unsigned int i = 0; i < HISTOGRAMS; i++) {
		s = add("tidegate_request_duration_seconds", METRIC_HISTOGRAM, gateways[i]);
		s->cells = cells[i];
	}
}

static double mean_increment, gauge_most;

static void source_step(void)
{
	for (unsigned int i = 0; i < SERIES; i++) {
		if (random_unit() >= 0.4)
			continue;
		if (series[i].kind == METRIC_GAUGE)
			series[i].gauge = floor(random_unit() * gauge_most);
		else
			series[i].counter +=
				1 + (uint64_t)(-log(1 - random_unit()) * mean_increment);
	}
	for (unsigned int i = 0; i < HISTOGRAMS; i++)
		for (unsigned int n = 0; n < 300; n++) /* log-normal about 2 ms */
			cells[i]
			     [histogram_index((uint64_t)(2e6 * exp((random_unit() + random_unit() +
								    random_unit() - 1.5) *
								   2)))]++;
}

struct result {
	size_t bytes, key_bytes, totals_bytes, uplink_bytes;
	uint64_t samples, encode_ns, decode_ns;
};

static size_t uplink_size(const uint8_t *data, size_t size)
{
	ProtobufCBinaryData frame;
	Tidegate__Uplink m;
	uint8_t copy[FRAME_SEALED_MAX];

	memcpy(copy, data, size);
	frame = (ProtobufCBinaryData){.len = size, .data = copy};
	tidegate__uplink__init(&m);
	m.session = 7;
	m.frames = &frame;
	m.n_frames = 1;
	return tidegate__uplink__get_packed_size(&m);
}

static int run(unsigned int first, unsigned int last, enum frame_type key, struct result *ret)
{
	struct frame_encoder *enc;
	struct result res = {0};
	int r = frame_encoder_new(&enc);

	for (unsigned int t = 0; !r && t <= TICKS; t++) {
		const uint8_t *data;
		struct frame *f;
		uint32_t samples;
		uint64_t start;
		size_t size;

		source_step();
		start = clock_read_ns(CLOCK_THREAD_CPUTIME_ID);
		frame_encoder_begin(enc, 100000 + t, 1790000000000 + t * 1000 + 3, 1000,
				    t == TICKS / 2 ? key : FRAME_CHANGES);
		for (unsigned int i = first; !r && i < last; i++)
			r = frame_encoder_series(enc, &series[i]);
		if (!r)
			r = frame_encoder_finish(enc, &data, &size, &samples);
		res.encode_ns += clock_read_ns(CLOCK_THREAD_CPUTIME_ID) - start;
		if (r)
			break;
		start = clock_read_ns(CLOCK_THREAD_CPUTIME_ID);
		r = frame_decode(data, size, &f, NULL);
		res.decode_ns += clock_read_ns(CLOCK_THREAD_CPUTIME_ID) - start;
		if (r)
			break;
		frame_free(f);
		if (!t) {
			res.key_bytes = size;
			continue;
		}
		if (t == TICKS / 2)
			res.totals_bytes = size;
		res.bytes += size;
		res.uplink_bytes += uplink_size(data, size);
		res.samples += samples;
	}
	frame_encoder_free(enc);
	*ret = res;
	return r;
}

static void print(const char *name, double value, const char *unit, double budget)
{
	if (budget > 0)
		printf("{\"name\":\"%s\",\"value\":%.4g,\"unit\":\"%s\",\"peer\":null,"
		       "\"ratio\":null,\"budget\":%.4g,\"holds\":%s}\n",
		       name, value, unit, budget, value <= budget ? "true" : "false");
	else
		printf("{\"name\":\"%s\",\"value\":%.4g,\"unit\":\"%s\",\"peer\":null,"
		       "\"ratio\":null,\"budget\":null,\"holds\":null}\n",
		       name, value, unit);
}

int main(void)
{
	static const struct {
		const char *name;
		double mean, most;
		enum frame_type key;
	} loads[] = {
		{"light load, totals", 6, 50, FRAME_TOTALS},
		{"light load, definitions again", 6, 50, FRAME_KEY},
		{"busy load, totals", 20, 500, FRAME_TOTALS},
		{"busy load, definitions again", 20, 500, FRAME_KEY},
	};
	struct result res;
	char name[128];

	source_make();
	for (size_t i = 0; i < ARRAY_LEN(loads); i++) {
		mean_increment = loads[i].mean;
		gauge_most = loads[i].most;
		if (run(0, SERIES, loads[i].key, &res))
			goto failed;
		snprintf(name, sizeof(name), "wire: bytes a sample, %s", loads[i].name);
		print(name, (double)res.uplink_bytes / (double)res.samples, "B", 0.7);
	}
	print("wire: key frame of 100 series", (double)res.key_bytes, "B", 0);
	print("wire: frame of 40 changes, busy load",
	      (double)(res.bytes - res.totals_bytes) / (TICKS - 1), "B", 0);
	print("frame: encode a sample", (double)res.encode_ns / (double)res.samples, "ns", 0);
	print("frame: decode a sample", (double)res.decode_ns / (double)res.samples, "ns", 0);
	if (run(SERIES, count, FRAME_TOTALS, &res))
		goto failed;
	print("wire: bytes a sample, histograms", (double)res.uplink_bytes / (double)res.samples,
	      "B", 0);
	print("frame: encode a histogram", (double)res.encode_ns / (double)res.samples, "ns", 0);
	print("frame: decode a histogram", (double)res.decode_ns / (double)res.samples, "ns", 0);
	return 0;
failed:
	fprintf(stderr, "bench frame: a frame could not be made or read\n");
	return 1;
}
