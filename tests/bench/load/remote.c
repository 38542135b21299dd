/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The peer's simulator: the standard agents of variants.h's kind, sending the same samples as
 * Prometheus remote write 1.0 (snappy), histograms as native ones. A connection an agent, one
 * request in flight on each, the next as soon as it is answered. --ticks N puts N ticks into one
 * request: with 5 it is as large as Prometheus itself makes them (500 samples). One JSON object:
 *   {"event":"end","samples":…,"requests":…,"refused":…,"bytes":…}
 * Usage: remote [--ticks N] HOST:PORT AGENTS SECONDS
 */
#include "base/clock.h"
#include "base/listen.h"
#include "base/loop.h"
#include "remote_write.h"
#include "standard.h"

#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TICKS_MOST 16u
#define VARIANTS   64u

struct agent {
	struct remote_write write; /* labels, packed once */
	unsigned int number;
	int fd;
	struct loop_watch *watch;
	uint8_t *out;
	size_t size, sent;
	char in[4096];
	size_t got;
	int64_t last_ms;
};

static struct standard states[VARIANTS];
static struct loop *loop;
static struct agent *agents;
static unsigned int agent_count, ticks = 1;
static uint64_t samples, requests, refused, bytes, steady_ns, seconds_ns;
static const char *address;

static void request_make(struct agent *a)
{
	struct standard *s = &states[a->number % VARIANTS];
	int64_t now = (int64_t)(clock_real_ns() / NS_PER_MS);
	char head[512];
	size_t body, n;

	remote_write_begin(&a->write);
	for (unsigned int t = 0; t < ticks; t++) {
		standard_step(s);
		a->last_ms = now > a->last_ms ? now : a->last_ms + 1;
		remote_write_tick(&a->write, s, a->last_ms);
	}
	free(a->out);
	a->out = remote_write_finish(&a->write, sizeof(head), &body);
	if (!a->out)
		abort();
	n = (size_t)snprintf(
		head, sizeof(head),
		"POST /api/v1/write HTTP/1.1\r\nHost: %s\r\n"
		"Content-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n"
		"X-Prometheus-Remote-Write-Version: 0.1.0\r\nContent-Length: %zu\r\n\r\n",
		address, body);
	/* The head ends where the body begins. */
	memcpy(a->out + sizeof(head) - n, head, n);
	a->sent = sizeof(head) - n;
	a->size = sizeof(head) + body;
	bytes += n + body;
}

static int flush(struct agent *a)
{
	while (a->sent < a->size) {
		ssize_t n = send(a->fd, a->out + a->sent, a->size - a->sent,
				 MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0)
			return -errno;
		a->sent += (size_t)n;
	}
	return loop_set_events(a->watch, LOOP_READ | (a->sent < a->size ? LOOP_WRITE : 0));
}

static int answer_read(struct agent *a)
{
	ssize_t n = recv(a->fd, a->in + a->got, sizeof(a->in) - 1 - a->got, MSG_DONTWAIT);

	if (n <= 0)
		return n < 0 && errno == EAGAIN ? 0 : -ECONNRESET;
	a->got += (size_t)n;
	a->in[a->got] = 0;
	if (!strstr(a->in, "\r\n\r\n"))
		return 0;
	a->got = 0;
	requests++;
	if (strncmp(a->in, "HTTP/1.1 204", 12) != 0) {
		if (!refused++)
			fprintf(stderr, "remote: refused: %s\n", a->in);
		return -EPROTO;
	}
	samples += ticks * STANDARD_SERIES;
	if (clock_mono_ns() - steady_ns > seconds_ns) {
		loop_stop(loop);
		return 0;
	}
	request_make(a);
	return flush(a);
}

static void on_io(void *data, int fd, unsigned int events)
{
	struct agent *a = data;
	int r = 0;

	(void)fd;
	if (events & LOOP_WRITE)
		r = flush(a);
	if (r >= 0 && events & LOOP_READ)
		r = answer_read(a);
	if (r >= 0)
		return;
	fprintf(stderr, "remote: connection %u: %s\n", a->number, strerror(-r));
	loop_stop(loop);
}

static int agent_open(struct agent *a, unsigned int number)
{
	const int on = 1;
	char instance[32];
	int r;

	a->number = number;
	snprintf(instance, sizeof(instance), "bench-%05u/1", number);
	r = remote_write_init(&a->write, instance);
	if (r >= 0)
		r = listen_connect(address, &a->fd, NULL);
	if (r < 0 && r != -EINPROGRESS)
		return r;
	setsockopt(a->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	request_make(a);
	return loop_add_fd(loop, a->fd, LOOP_READ | LOOP_WRITE, on_io, a, &a->watch);
}

static int parse(int argc, char **argv)
{
	static const struct option longs[] = {{"ticks", required_argument, NULL, 't'}, {0}};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (c != 't')
			return -EINVAL;
		ticks = (unsigned int)strtoul(optarg, NULL, 10);
	}
	if (argc - optind != 3 || !ticks || ticks > TICKS_MOST)
		return -EINVAL;
	address = argv[optind];
	agent_count = (unsigned int)strtoul(argv[optind + 1], NULL, 10);
	seconds_ns = strtoull(argv[optind + 2], NULL, 10) * NS_PER_S;
	return agent_count ? 0 : -EINVAL;
}

int main(int argc, char **argv)
{
	int r = parse(argc, argv);

	if (r < 0) {
		fprintf(stderr, "usage: remote [--ticks N] HOST:PORT AGENTS SECONDS\n");
		return 2;
	}
	for (unsigned int v = 0; v < VARIANTS; v++)
		standard_init(&states[v], v, "");
	agents = calloc(agent_count, sizeof(*agents));
	r = agents ? loop_open(&loop) : -ENOMEM;
	steady_ns = clock_mono_ns();
	for (unsigned int i = 0; i < agent_count && r >= 0; i++)
		r = agent_open(&agents[i], i);
	if (r < 0) {
		fprintf(stderr, "remote: cannot begin: %s\n", strerror(-r));
		return 1;
	}
	loop_run(loop);
	printf("{\"event\":\"end\",\"samples\":%lu,\"requests\":%lu,\"refused\":%lu,"
	       "\"bytes\":%lu,\"seconds\":%.2f}\n",
	       samples, requests, refused, bytes, (double)(clock_mono_ns() - steady_ns) / 1e9);
	return refused || !samples;
}
