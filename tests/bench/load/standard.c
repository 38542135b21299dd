/* SPDX-License-Identifier: Apache-2.0 */
#include "standard.h"

#include <math.h>
#include <string.h>

#define VALUES 300 /* of one histogram in a tick */

static const char *const calls[] = {"read",       "write",    "epoll_wait", "accept4", "close",
				    "openat",     "writev",   "recvfrom",   "sendto",  "connect",
				    "setsockopt", "fstat",    "futex",      "mmap",    "munmap",
				    "socket",     "sendfile", "pread64",    "ioctl",   "brk"};
static const char *const errnos[] = {"EAGAIN", "EINTR", "ENOENT", "ECONNRESET"};
static const char *const codes[] = {"200", "204", "301", "304", "400",
				    "401", "403", "404", "499", "500"};
static const char *const upstreams[] = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"};

/* Runs of series with one metric and one kind: labels count through their lists. */
static const struct run {
	const char *name;
	enum metric_kind kind;
	unsigned int count;
	const char *key_a, *const *values_a;
	unsigned int each_a; /* so many neighbours share a value of a */
	const char *key_b, *const *values_b;
	unsigned int of_b;
} runs[] = {
	{"bench_syscalls_total", METRIC_COUNTER, 20, "syscall", calls, 1, NULL, NULL, 1},
	{"bench_syscall_errors_total", METRIC_COUNTER, 20, "syscall", calls, 4, "errno", errnos, 4},
	{"bench_requests_total", METRIC_COUNTER, 10, "code", codes, 1, NULL, NULL, 1},
	{"bench_upstream_errors_total", METRIC_COUNTER, 40, "upstream", upstreams, 4, "errno",
	 errnos, 4},
	{"bench_requests_in_flight", METRIC_GAUGE, 10, "upstream", upstreams, 1, NULL, NULL, 1},
	{"bench_duration_seconds", METRIC_HISTOGRAM, 4, "code", codes, 1, NULL, NULL, 1},
};

static double unit(struct standard *s)
{
	s->random ^= s->random << 13;
	s->random ^= s->random >> 7;
	s->random ^= s->random << 17;
	return (double)(s->random >> 11) / 9007199254740992.0;
}

void standard_init(struct standard *s, uint64_t seed, const char *instance)
{
	memset(s, 0, sizeof(*s));
	s->random = (seed + 1) * 0x9e3779b97f4a7c15ULL;
	s->instance = instance;
}

void standard_step(struct standard *s)
{
	for (unsigned int i = 0; i < STANDARD_COUNTERS; i++)
		if (unit(s) < 0.4)
			s->counters[i] += 1 + (uint64_t)(-log(1 - unit(s)) * 20);
	for (unsigned int i = 0; i < STANDARD_GAUGES; i++)
		if (unit(s) < 0.4)
			s->gauges[i] = floor(unit(s) * 500);
	for (unsigned int h = 0; h < STANDARD_HISTOGRAMS; h++)
		for (unsigned int n = 0; n < VALUES; n++) {
			double x = unit(s) + unit(s) + unit(s) - 1.5; /* nearly normal */

			s->cells[h][histogram_index((uint64_t)(2e6 * exp(x * 2)))]++;
		}
}

void standard_series(const struct standard *s, unsigned int i, struct segment_series *ret)
{
	const struct run *run = runs;
	unsigned int at = i;

	for (; at >= run->count; run++)
		at -= run->count;
	*ret = (struct segment_series){
		.index = i,
		.name = run->name,
		.unit = "",
		.help = "",
		.kind = run->kind,
		.is_present = true,
		.label_count = 3,
		.labels = {{"gateway", "nginx"},
			   {"instance", s->instance},
			   {run->key_a, run->values_a[at / run->each_a]}},
	};
	if (run->key_b)
		ret->labels[ret->label_count++] =
			(struct segment_label){run->key_b, run->values_b[at % run->of_b]};
	if (i < STANDARD_COUNTERS)
		ret->counter = s->counters[i];
	else if (i < STANDARD_COUNTERS + STANDARD_GAUGES)
		ret->gauge = s->gauges[i - STANDARD_COUNTERS];
	else
		ret->cells = s->cells[i - STANDARD_COUNTERS - STANDARD_GAUGES];
}

uint64_t standard_total(const struct standard *s)
{
	uint64_t total = 0;

	for (unsigned int i = 0; i < STANDARD_COUNTERS; i++)
		total += s->counters[i];
	for (unsigned int h = 0; h < STANDARD_HISTOGRAMS; h++)
		total += histogram_count(s->cells[h]);
	return total;
}

int standard_frame(const struct standard *s, struct frame_encoder *enc, uint64_t sequence,
		   uint64_t time_ms, enum frame_type type, const uint8_t **ret, size_t *ret_size)
{
	struct segment_series series;
	uint32_t samples;
	int r = 0;

	frame_encoder_begin(enc, sequence, time_ms, 1000, type);
	for (unsigned int i = 0; i < STANDARD_SERIES && r >= 0; i++) {
		standard_series(s, i, &series);
		r = frame_encoder_series(enc, &series);
	}
	return r < 0 ? r : frame_encoder_finish(enc, ret, ret_size, &samples);
}
