/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the probes add to the calls of one request, without a gateway around them: one recvfrom of a
 * request and one writev of an answer in pieces, as nginx makes them, on a unix socket, in HTTP/1 and in
 * HTTP/2 (there with a health check's path and agent to be looked for). Rounds in
 * turn: the thread watched, and not watched; what programs cost threads that nobody watches is not in
 * the difference, it is in gateway-cost. Of all rounds the quick ones: others use the machine too. As
 * root.
 *
 * Prints JSON lines as tests/bench expects them: name, value, unit, budget, holds.
 */
#include "probe/probe.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "config/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#define ROUNDS   401
#define REQUESTS 200

static char request[] = "GET /bench HTTP/1.1\r\nHost: 127.0.0.1:24097\r\n"
			"User-Agent: wrk/4.1.0\r\nAccept: */*\r\n\r\n";
/* Head and chunk size as far apart as in nginx's pool. */
static char pool[512] = "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\n"
			"Date: Sat, 21 Nov 2026 20:30:17 GMT\r\nContent-Type: text/plain\r\n"
			"Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n";
static char size_line[] = "6\r\n", body[] = "hello\n", crlf[] = "\r\n", last[] = "0\r\n\r\n";

/* As h2load sends them and nginx answers them; the stream's number is filled in. */
static char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0";
static char settings[] = "\0\0\0\4\0\0\0\0";
static char stream[] = "\0\0\xf\1\5\0\0\0\0\x82\x86\xbf\4\6/bench\x90\xbe\xc0\xc1";
static char answer[] = "\0\0\xe\1\4\0\0\0\0\x88\x76\x85\xaa\x63\x55\xe5\x80\xbe\xbf\x5c\1\x36\xc0";
static char data[] = "\0\0\6\0\1\0\0\0\0";

struct pair {
	int client, server;
};

static struct pair connect_pair(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	socklen_t size = sizeof(a.sun_family);
	struct pair p;
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);

	/* A name that the kernel chooses. */
	if (listener < 0 || bind(listener, (struct sockaddr *)&a, size) || listen(listener, 1))
		exit(1);
	size = sizeof(a);
	if (getsockname(listener, (struct sockaddr *)&a, &size))
		exit(1);
	p.client = socket(AF_UNIX, SOCK_STREAM, 0);
	if (p.client < 0 || connect(p.client, (struct sockaddr *)&a, size))
		exit(1);
	p.server = accept(listener, NULL, NULL);
	close(listener);
	return p;
}

/* Nanoseconds of the gateway's two calls, the mean of a round. */
static double round_ns(struct pair p)
{
	size_t head = strlen(pool);
	struct iovec v[] = {{pool, head}, {pool + 368, 3}, {body, 6}, {crlf, 2}, {last, 5}};
	char in[1024];
	uint64_t total = 0, start;

	memcpy(pool + 368, size_line, 3);
	for (unsigned int i = 0; i < REQUESTS; i++) {
		if (write(p.client, request, sizeof(request) - 1) < 0)
			exit(1);
		start = clock_mono_ns();
		if (recvfrom(p.server, in, sizeof(in), 0, NULL, NULL) <= 0 ||
		    writev(p.server, v, 5) <= 0)
			exit(1);
		total += clock_mono_ns() - start;
		if (read(p.client, in, sizeof(in)) <= 0)
			exit(1);
	}
	return (double)total / REQUESTS;
}

static void number(char *frame, unsigned int id)
{
	frame[7] = (char)(id >> 8);
	frame[8] = (char)id;
}

static double round_http2_ns(struct pair p)
{
	struct iovec v[] = {{answer, sizeof(answer) - 1}, {data, 9}, {body, 6}};
	char in[1024];
	uint64_t total = 0, start;

	if (write(p.client, preface, sizeof(preface)) < 0 ||
	    recvfrom(p.server, in, sizeof(in), 0, NULL, NULL) <= 0 ||
	    write(p.server, settings, sizeof(settings)) < 0 || read(p.client, in, sizeof(in)) <= 0)
		exit(1);
	for (unsigned int i = 0; i < REQUESTS; i++) {
		number(stream, 2 * i + 1);
		number(answer, 2 * i + 1);
		number(data, 2 * i + 1);
		if (write(p.client, stream, sizeof(stream) - 1) < 0)
			exit(1);
		start = clock_mono_ns();
		if (recvfrom(p.server, in, sizeof(in), 0, NULL, NULL) <= 0 ||
		    writev(p.server, v, 3) <= 0)
			exit(1);
		total += clock_mono_ns() - start;
		if (read(p.client, in, sizeof(in)) <= 0)
			exit(1);
	}
	return (double)total / REQUESTS;
}

static int compare(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static double quick(double *v)
{
	qsort(v, ROUNDS, sizeof(*v), compare);
	return v[ROUNDS / 10];
}

static void row(const char *tier, bool is_http2, double ns, double peer)
{
	printf("{\"name\":\"probe_time_per_%srequest_%s\",\"value\":%.0f,\"unit\":\"ns\","
	       "\"peer\":\"of a thread that is not watched (%.0f ns)\",\"ratio\":null,"
	       "\"budget\":null,\"holds\":null}\n",
	       is_http2 ? "http2_" : "", tier, ns, peer);
}

static double round_of_new_pair(bool is_http2)
{
	struct pair p = connect_pair();
	double ns = is_http2 ? round_http2_ns(p) : round_ns(p);

	close(p.client);
	close(p.server);
	return ns;
}

/* False: this rung was not measured as it should have been. */
static bool bench_tier(const char *tier, bool is_http2, struct cells *cells)
{
	char path[] = "/healthz", agent[] = "kube-probe", *paths[] = {path}, *agents[] = {agent};
	const struct config_list health = {paths, 1}, probes = {agents, 1};
	const struct probe_options options = {
		.tier = tier,
		.threads = 8,
		.connections = 1024,
		.sample = 8,
		.gateways = 1,
		.health_paths = is_http2 ? &health : NULL,
		.health_user_agents = is_http2 ? &probes : NULL,
		.slow_request_ns = NS_PER_S,
	};
	static double watched[ROUNDS], unwatched[ROUNDS];
	struct probe_set *set = NULL;
	struct err e = {.text = ""};
	uint32_t pid = (uint32_t)getpid();
	struct probe_now now;
	double base;

	if (probe_open(&options, 0, &set, &e)) {
		printf("# %s: %s\n", tier, e.text);
		return true;
	}
	for (unsigned int i = 0; i < ROUNDS; i++) {
		unwatched[i] = round_of_new_pair(is_http2);
		if (probe_watch_thread(set, 0, pid, pid, ROLE_WORKER))
			exit(1);
		watched[i] = round_of_new_pair(is_http2);
		probe_forget_process(set, pid);
		probe_fold(set, clock_mono_ns());
	}
	probe_totals(set, 0, clock_mono_ns(), cells, &now);
	probe_close(set);
	if (cells->requests_completed != ROUNDS * REQUESTS) {
		fprintf(stderr, "%s: %llu requests were seen\n", tier,
			(unsigned long long)cells->requests_completed);
		return false;
	}
	base = quick(unwatched);
	row(tier, is_http2, quick(watched) - base, base);
	return true;
}

int main(int argc, char **argv)
{
	static const char *const tiers[] = {"fentry", "tp_btf", "raw_tp", "tracepoint"};
	struct cells *cells = malloc(sizeof(*cells));

	bool is_good = cells != NULL;

	for (size_t i = 0; is_good && i < ARRAY_LEN(tiers); i++)
		if (argc < 2 || str_equal(argv[1], tiers[i]))
			is_good = bench_tier(tiers[i], false, cells) &&
				  bench_tier(tiers[i], true, cells);
	free(cells);
	return is_good ? 0 : 1;
}
