/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A crowd of agents that only connect, as agents do (bus/dialer.h: tickets, waits with jitter):
 * crowd ADDRESS FOLDER COUNT. FOLDER holds ca.pem, cert.pem and key.pem. One JSON object a line when
 * all are there, and when all are there again after having lost the server:
 *   {"event":"ready","seconds":1.5,"handshakes":10000,"resumed":0,"failed":12}
 * seconds since the first was told to connect or was lost; the rest since the line before. Ends with
 * the end of stdin.
 */
#include "base/clock.h"
#include "bus/credentials.h"
#include "bus/dialer.h"
#include "bus/sp.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#define BACKOFF_NS (30 * NS_PER_S) /* uplink.backoff's default */

struct crowd {
	struct loop *loop;
	struct credentials *tls;
	struct member *members;
	unsigned int count, ready;
	uint64_t since_ns;
	struct dialer_stats said;
};

struct member {
	struct crowd *crowd;
	struct dialer *dialer;
	bool is_ready;
};

static void say_ready(struct crowd *c)
{
	struct dialer_stats now = {0}, one;

	for (unsigned int i = 0; i < c->count; i++) {
		dialer_stats(c->members[i].dialer, &one);
		now.connects += one.connects;
		now.failures += one.failures;
		now.resumed += one.resumed;
	}
	printf("{\"event\":\"ready\",\"seconds\":%.3f,\"handshakes\":%lu,\"resumed\":%lu,"
	       "\"failed\":%lu}\n",
	       (double)(clock_mono_ns() - c->since_ns) / NS_PER_S,
	       (unsigned long)(now.connects - c->said.connects),
	       (unsigned long)(now.resumed - c->said.resumed),
	       (unsigned long)(now.failures - c->said.failures));
	fflush(stdout);
	c->said = now;
}

static void on_ready(void *data)
{
	struct member *m = data;

	m->is_ready = true;
	if (++m->crowd->ready == m->crowd->count)
		say_ready(m->crowd);
}

static void on_lost(void *data, const char *why)
{
	struct member *m = data;

	(void)why;
	if (!m->is_ready)
		return;
	if (m->crowd->ready == m->crowd->count)
		m->crowd->since_ns = clock_mono_ns();
	m->is_ready = false;
	m->crowd->ready--;
}

static int on_message(void *data, const uint8_t *message, size_t size)
{
	(void)data;
	(void)message;
	(void)size;
	return -EPROTO; /* nothing was asked */
}

static void on_stdin(void *data, int fd, unsigned int events)
{
	struct crowd *c = data;

	(void)fd;
	(void)events;
	loop_stop(c->loop);
}

static int crowd_dial(struct crowd *c, const char *address, struct err *e)
{
	const struct dialer_spec spec = {
		.address = address,
		.self = SP_REQ,
		.expect = SP_REP,
		.message_max = SP_MESSAGE_MAX,
		.queue_bytes = 65536,
		.backoff_ns = BACKOFF_NS,
		.tls = &c->tls,
		.on_ready = on_ready,
		.on_message = on_message,
		.on_lost = on_lost,
	};
	int r = 0;

	c->since_ns = clock_mono_ns();
	for (unsigned int i = 0; i < c->count && r == 0; i++) {
		c->members[i].crowd = c;
		r = dialer_open(c->loop, &spec, &c->members[i], &c->members[i].dialer, e);
	}
	return r;
}

int main(int argc, char **argv)
{
	char ca[512], certificate[512], key[512];
	const struct credentials_files files = {ca, certificate, key};
	struct crowd c = {0};
	struct loop_watch *watch;
	struct rlimit limit;
	struct err e = {0};

	if (argc != 4 || (c.count = (unsigned int)atoi(argv[3])) == 0) {
		fprintf(stderr, "usage: crowd ADDRESS FOLDER COUNT\n");
		return 2;
	}
	snprintf(ca, sizeof(ca), "%s/ca.pem", argv[2]);
	snprintf(certificate, sizeof(certificate), "%s/cert.pem", argv[2]);
	snprintf(key, sizeof(key), "%s/key.pem", argv[2]);
	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
	c.members = calloc(c.count, sizeof(*c.members));
	if (!c.members || loop_open(&c.loop) < 0 || credentials_open(&files, &c.tls, &e) < 0 ||
	    loop_add_fd(c.loop, 0, LOOP_READ, on_stdin, &c, &watch) < 0 ||
	    crowd_dial(&c, argv[1], &e) < 0) {
		fprintf(stderr, "crowd: %s\n", e.text);
		return 1;
	}
	loop_run(c.loop);
	for (unsigned int i = 0; i < c.count; i++)
		dialer_close(c.members[i].dialer);
	free(c.members);
	credentials_close(c.tls);
	loop_close(c.loop);
	return 0;
}
