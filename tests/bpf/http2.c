/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP/2 under each rung of the ladder: frames as literals, in one piece, cut at every byte, and byte
 * by byte; every count exact. This process is the client, its child the gateway. TAP; as root.
 * Arguments: the only rung to try, or all; one in how many cuts is made.
 */
#include "rungs.h"

#include "config/config.h"
#include "http2_types.h"

#include "http2_bytes.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/wait.h>

static struct cells cells;
static struct probe_now now;
static int listener;
static size_t stride = 1;

/* ---- the two ends ---- */

static int connect_loopback(void)
{
	struct sockaddr_in a;
	socklen_t n = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	must(getsockname(listener, (struct sockaddr *)&a, &n) == 0);
	must(connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0);
	return fd;
}

static void read_exactly(int fd, size_t n)
{
	unsigned char buf[65536];

	while (n) {
		ssize_t got = read(fd, buf, n < sizeof(buf) ? n : sizeof(buf));

		must(got > 0);
		n -= (size_t)got;
	}
}

static void write_exactly(int fd, const unsigned char *at, size_t n)
{
	while (n) {
		ssize_t put = write(fd, at, n);

		must(put > 0);
		at += put;
		n -= (size_t)put;
	}
}

/* Reads or writes all of it in two pieces, or (cut 0) byte by byte. */
static void server_moves(int fd, const struct bytes *b, size_t cut, bool is_read)
{
	size_t n = cut < b->n ? cut : b->n;

	for (size_t at = 0; !cut && at < b->n; at++)
		is_read ? read_exactly(fd, 1) : write_exactly(fd, b->at + at, 1);
	if (!cut)
		return;
	is_read ? read_exactly(fd, n) : write_exactly(fd, b->at, n);
	if (n < b->n)
		is_read ? read_exactly(fd, b->n - n) : write_exactly(fd, b->at + n, b->n - n);
}

struct talk {
	struct bytes client, server;
	/* The gateway reads and writes so much of each, then the rest. */
	size_t client_first, server_first;
	size_t cuts;     /* one connection for each, from 0 (byte by byte) on; 1: in one piece */
	size_t sendfile; /* the last so many bytes come from a file */
};

static struct bytes slice(const struct bytes *b, size_t from, size_t to)
{
	return (struct bytes){.at = b->at + from, .n = to - from};
}

static void serve(const struct talk *t, size_t cut)
{
	const struct bytes client[] = {slice(&t->client, 0, t->client_first),
				       slice(&t->client, t->client_first, t->client.n)},
			   server[] = {
				   slice(&t->server, 0, t->server_first),
				   slice(&t->server, t->server_first, t->server.n - t->sendfile)};
	int fd = accept(listener, NULL, NULL), file;
	off_t at = 0;

	must(fd >= 0);
	for (int i = 0; i < 2; i++) {
		server_moves(fd, &client[i], cut, true);
		server_moves(fd, &server[i], cut, false);
	}
	if (t->sendfile) {
		file = fileno(tmpfile());
		must(ftruncate(file, (off_t)t->sendfile) == 0);
		must(sendfile(fd, file, &at, t->sendfile) == (ssize_t)t->sendfile);
		close(file);
	}
	close(fd);
}

static void ask(const struct talk *t)
{
	int fd = connect_loopback();
	unsigned char buf[4096];

	write_exactly(fd, t->client.at, t->client.n);
	while (read(fd, buf, sizeof(buf)) > 0)
		;
	close(fd);
}

static size_t first_cut(const struct talk *t)
{
	return t->cuts == 1 ? 1 << 30 : 0;
}

/* Runs it with a child as the gateway. */
static void run(struct probe_set *set, unsigned int gateway, const struct talk *t)
{
	int go[2], done[2];
	char c = 'g';
	pid_t pid;

	must(pipe(go) == 0 && pipe(done) == 0);
	pid = fork();
	if (!pid) {
		must(read(go[0], &c, 1) == 1);
		for (size_t i = 0; i < t->cuts; i++)
			serve(t, first_cut(t) + i * stride);
		must(write(done[1], "d", 1) == 1 && read(go[0], &c, 1) >= 0);
		_exit(0);
	}
	probe_watch_thread(set, gateway, (uint32_t)pid, (uint32_t)pid, ROLE_WORKER);
	must(write(go[1], &c, 1) == 1);
	for (size_t i = 0; i < t->cuts; i++)
		ask(t);
	must(read(done[0], &c, 1) == 1);
	probe_fold(set, clock_mono_ns());
	probe_totals(set, gateway, clock_mono_ns(), &cells, &now);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	close(go[0]);
	close(go[1]);
	close(done[0]);
	close(done[1]);
	probe_fold(set, clock_mono_ns());
}

#define REQUESTS(method, code, want) \
	is(#method " " #code, probe_requests(set, &cells, HTTP_##method, code), want)

static uint64_t all_requests(void)
{
	uint64_t n = 0;

	for (unsigned int i = 0; i < REQUEST_ROWS; i++)
		n += cells.requests[i];
	return n;
}

static void check_lost(struct probe_set *set)
{
	for (const struct probe_lost *l = probe_lost(set); l->reason; l++)
		is(l->reason, l->count, 0);
}

static void test_cuts(struct probe_set *set)
{
	struct talk t = {.cuts = 0};
	uint64_t n, durations = 0;

	client_bytes(&t.client);
	server_bytes(&t.server);
	n = t.cuts = (t.client.n > t.server.n ? t.client.n : t.server.n) / stride;
	run(set, 0, &t);
	is("accepted", cells.accepts, n);
	REQUESTS(GET, 200, n);
	REQUESTS(POST, 201, n);
	REQUESTS(HEAD, 304, n);
	REQUESTS(HEAD, 201, n);
	REQUESTS(DELETE, 503, n);
	REQUESTS(GET, 503, 2 * n);
	REQUESTS(OTHER, 404, n);
	REQUESTS(CONNECT, 200, n);
	REQUESTS(PUT, 204, n);
	REQUESTS(GET, 301, n);
	REQUESTS(GET, 599, n);
	is("all", all_requests(), 12 * n);
	is("completed", cells.requests_completed, 12 * n);
	is("started", cells.requests_started, 15 * n);
	is("aborted", cells.requests_aborted, n);
	is("lost", cells.requests_lost, 2 * n);
	is("health checks", cells.requests_health, 5 * n);
	is("in flight", now.in_flight, 0);
	is("open", now.connections_open, 0);
	for (unsigned int k = 0; k < HTTP_CLASSES; k++)
		durations += histogram_count(cells.request_ns[k]);
	is("durations", durations, 12 * n);
	check_lost(set);
	free(t.client.at);
	free(t.server.at);
}

/* Upgrade: h2c, then stream 1 is that request, and 3 one more. */
static void test_upgrade(struct probe_set *set)
{
	struct talk t = {.cuts = 211};
	struct bytes p = {0};

	text(&t.client, "PUT /a HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n"
			"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n");
	t.client_first = t.client.n;
	text(&t.client, PREFACE);
	frame(&t.client, SETTINGS, 0, 0, &p);
	get(&t.client, &p, 3, "/b");
	text(&t.server, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
			"Upgrade: h2c\r\n\r\n");
	frame(&t.server, SETTINGS, 0, 0, &p);
	t.server_first = t.server.n;
	literal(&p, 0x08, "202");
	frame(&t.server, HEADERS, WHOLE, 1, &p);
	add_byte(&p, 0x8d);
	frame(&t.server, HEADERS, WHOLE, 3, &p);
	run(set, 1, &t);
	REQUESTS(PUT, 202, 211);
	REQUESTS(GET, 404, 211);
	is("upgraded", all_requests(), 2 * 211);
	is("in flight", now.in_flight, 0);
	is("lost", cells.requests_lost, 0);
	check_lost(set);
	free(t.client.at);
	free(t.server.at);
	free(p.at);
}

/* GOAWAY: what comes after it is not the gateway's; and a body that comes from a file. */
static void test_goaway(struct probe_set *set)
{
	static const unsigned char last[8] = {0, 0, 0, 1};
	struct talk t = {.cuts = 1, .sendfile = 5003};
	struct bytes p = {0};

	text(&t.client, PREFACE);
	get(&t.client, &p, 1, "/a");
	t.client_first = t.client.n;
	get(&t.client, &p, 3, "/late");
	frame(&t.server, SETTINGS, 0, 0, &p);
	add(&p, last, 8);
	frame(&t.server, GOAWAY, 0, 0, &p);
	t.server_first = t.server.n;
	add_byte(&p, 0x88);
	frame(&t.server, HEADERS, END_HEADERS, 1, &p);
	header(&t.server, t.sendfile, DATA, END_STREAM, 1);
	many(&t.server, 0, (unsigned int)t.sendfile);
	run(set, 2, &t);
	REQUESTS(GET, 200, 1);
	is("started", cells.requests_started, 1);
	is("lost", cells.requests_lost, 0);
	check_lost(set);
	free(t.client.at);
	free(t.server.at);
	free(p.at);
}

/* More streams than are remembered are refused and said; all are forgotten with their connection,
 * which the second run would notice. */
static void test_full(struct probe_set *set)
{
	struct talk t = {.cuts = 1};
	struct bytes p = {0};
	uint64_t streams = 0;

	text(&t.client, PREFACE);
	for (uint32_t i = 0; i < HTTP2_STREAMS + 7; i++)
		get(&t.client, &p, 2 * i + 1, "/");
	frame(&t.server, SETTINGS, 0, 0, &p);
	for (int i = 0; i < 2; i++)
		run(set, 3, &t);
	is("started", cells.requests_started, 2 * HTTP2_STREAMS);
	is("lost by the gateway", cells.requests_lost, 2 * HTTP2_STREAMS);
	is("in flight", now.in_flight, 0);
	for (const struct probe_lost *l = probe_lost(set); l->reason; l++)
		if (str_equal(l->reason, "streams"))
			streams = l->count;
	is("streams that were too many", streams, 2 * 7);
	free(t.client.at);
	free(t.server.at);
	free(p.at);
}

/* Requests of a gateway that dies are lost, and forgotten by whoever folds it. */
static void test_killed(struct probe_set *set)
{
	struct bytes b = {0}, p = {0};
	int pipes[2], fd;
	char c;
	pid_t pid;

	text(&b, PREFACE);
	for (uint32_t id = 1; id <= 13; id += 2)
		get(&b, &p, id, "/");
	must(pipe(pipes) == 0);
	pid = fork();
	if (!pid) {
		fd = accept(listener, NULL, NULL);
		read_exactly(fd, b.n);
		must(write(pipes[1], "d", 1) == 1);
		pause();
	}
	probe_watch_thread(set, 1, (uint32_t)pid, (uint32_t)pid, ROLE_WORKER);
	probe_totals(set, 1, clock_mono_ns(), &cells, &now);
	is("lost before", cells.requests_lost, 0);
	fd = connect_loopback();
	write_exactly(fd, b.at, b.n);
	must(read(pipes[0], &c, 1) == 1);
	probe_totals(set, 1, clock_mono_ns(), &cells, &now);
	is("in flight", now.in_flight, 7);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	for (int i = 0; i < 3; i++)
		probe_fold(set, clock_mono_ns());
	probe_totals(set, 1, clock_mono_ns(), &cells, &now);
	is("lost with the gateway", cells.requests_lost, 7);
	is("in flight after", now.in_flight, 0);
	is("open after", now.connections_open, 0);
	close(fd);
	close(pipes[0]);
	close(pipes[1]);
	free(b.at);
	free(p.at);
}

/* Frames of any kind with any bytes in them, most of them wrong: what began must end. */
static void test_garbage(struct probe_set *set)
{
	/* Mostly heads; one that breaks the rules ends a connection for both. */
	static const unsigned char types[16] = {1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 3, 4, 8, 5, 7, 9},
				   flags[16] = {5, 5, 5, 5, 5, 5, 4,    4,
						4, 1, 0, 5, 5, 5, 0x24, 0xd};
	uint32_t random = 20261121;
	uint64_t started;

	for (int round = 0; round < 53; round++) {
		struct talk t = {.cuts = 1};
		struct bytes p = {0}, *sides[] = {&t.client, &t.server};

		text(&t.client, PREFACE);
		for (int i = 0; i < 2 * 97; i++) {
			many(&p, 0x82, i % 5 == 0);
			for (unsigned int n = i % 23; n; n--) {
				random = random * 1664525 + 1013904223;
				add_byte(&p, random >> 24);
			}
			random = random * 1664525 + 1013904223;
			frame(sides[i & 1], types[random >> 28], flags[random >> 20 & 15],
			      (uint32_t)i | (random >> 8 & 1), &p);
		}
		if (round % 7 == 0)
			many(&t.server, 'H', 1000);
		run(set, 2, &t);
		free(t.client.at);
		free(t.server.at);
		free(p.at);
	}
	started = cells.requests_started;
	printf("# %llu requests began\n", (unsigned long long)started);
	is("some began", started > 13, true);
	is("not more ended than began",
	   cells.requests_completed + cells.requests_lost + cells.requests_aborted <= started,
	   true);
	is("in flight after garbage", now.in_flight, 0);
	is("open after garbage", now.connections_open, 0);
}

static void test_tier(void)
{
	char path[] = "/healthz", agent[] = "kube-probe", *paths[] = {path}, *agents[] = {agent};
	const struct config_list health = {paths, 1}, probes = {agents, 1};
	const struct probe_options options = {
		.tier = tier,
		.threads = 32,
		.connections = 64,
		.sample = 1,
		.gateways = 4,
		.health_paths = &health,
		.health_user_agents = &probes,
		.slow_request_ns = NS_PER_S,
	};
	struct probe_set *set;

	if (!open_rung(&options, &set))
		return;
	test_cuts(set);
	test_upgrade(set);
	test_goaway(set);
	test_killed(set);
	test_full(set);
	test_garbage(set);
	probe_close(set);
}

int main(int argc, char **argv)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	rungs_setup();
	if (argc > 2)
		stride = strtoul(argv[2], NULL, 10);
	must(stride > 0);
	listener = socket(AF_INET, SOCK_STREAM, 0);
	must(bind(listener, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(listener, 16) == 0);
	return rungs_run(argc > 1 ? argv[1] : NULL, test_tier);
}
