/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections that were there before the probes, in the middle of anything: what had begun counts
 * nowhere, the next request counts, wherever its reads are cut. TAP; as root.
 */
#include "probe/set.h"
#include "rungs.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>

#define X10     "xxxxxxxxxx"
#define X50     X10 X10 X10 X10 X10
#define X200    X50 X50 X50 X50
#define GET     "GET /x HTTP/1.1\r\nHost: x\r\n\r\n"
#define POST    "POST /x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
#define SPLICED "|"
#define SAYS    "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

static struct cells cells;
static int listener;

/* What is read after the probes came, a read each, or, after SPLICED, a splice into a pipe; NULL: the
 * gateway answers 200. */
static const struct talk {
	const char *name;
	unsigned int gets, posts, steps;
	const char *step[10];
} talks[] = {
	{"between two requests", 1, 1, 4, {GET, NULL, POST, NULL}},
	{"in a request line", 1, 0, 4, {" /x HTTP/1.1\r\nHost: x\r\n\r\n", NULL, GET, NULL}},
	{"in a method", 1, 0, 4, {"ET /x HTTP/1.1\r\nHost: x\r\n\r\n", NULL, GET, NULL}},
	{"in a header", 1, 0, 5, {"oo: " X50, X50 "\r\n\r\n", NULL, GET, NULL}},
	{"in a short body", 1, 0, 4, {"abc", NULL, GET, NULL}},
	{"in a body of capitals", 0, 1, 4, {"ABCDEFGHIJ", NULL, POST, NULL}},
	{"in a long body", 1, 1, 8, {X200, X200, X10, NULL, POST, NULL, GET, NULL}},
	{"in a body, then cut", 2, 0, 8, {X200, NULL, "G", "ET /x H", &GET[8], NULL, GET, NULL}},
	{"in a body, then a long line",
	 1,
	 0,
	 5,
	 {X10, NULL, "GET /" X50, X50 " HTTP/1.1\r\n\r\n", NULL}},
	{"in a body that is spliced",
	 1,
	 1,
	 7,
	 {SPLICED X200, SPLICED "ABC", NULL, GET, NULL, POST, NULL}},
	{"before an answer", 1, 0, 3, {NULL, GET, NULL}},
};

/* All of it into the pipe, and out of there. */
static ssize_t splice_away(int from, char *in, size_t n)
{
	int fds[2];

	must(pipe(fds) == 0 && splice(from, NULL, fds[1], NULL, n, 0) == (ssize_t)n);
	must(read(fds[0], in, n) == (ssize_t)n);
	close(fds[0]);
	close(fds[1]);
	return (ssize_t)n;
}

static void converse(const struct talk *t, int client, int server)
{
	char in[1024];
	ssize_t n;

	for (unsigned int i = 0; i < t->steps; i++) {
		const char *text = t->step[i] ? t->step[i] : SAYS;
		int from = t->step[i] ? client : server, to = t->step[i] ? server : client;
		bool is_spliced = *text == *SPLICED;

		text += is_spliced;
		n = (ssize_t)strlen(text);
		must(write(from, text, (size_t)n) == n);
		must((is_spliced ? splice_away(to, in, (size_t)n) : read(to, in, sizeof(in))) == n);
	}
}

static uint64_t requests(struct probe_set *set, enum http_method method)
{
	struct probe_now now;

	probe_totals(set, 0, clock_mono_ns(), &cells, &now);
	return probe_requests(set, &cells, method, 200);
}

static void is_of(const char *name, const char *what, uint64_t got, uint64_t want)
{
	char text[128];

	snprintf(text, sizeof(text), "%s: %s", name, what);
	is(text, got, want);
}

static void test_talk(struct probe_set *set, const struct talk *t)
{
	uint64_t gets = requests(set, HTTP_GET), posts = requests(set, HTTP_POST);
	uint64_t completed = cells.requests_completed;
	uint32_t pid = (uint32_t)getpid();
	struct sockaddr_un a;
	socklen_t size = sizeof(a);
	int client = socket(AF_UNIX, SOCK_STREAM, 0), server;

	must(getsockname(listener, (struct sockaddr *)&a, &size) == 0);
	must(client >= 0 && connect(client, (struct sockaddr *)&a, size) == 0);
	/* Nobody is watched yet: the connection is one of before. */
	server = accept(listener, NULL, NULL);
	must(server >= 0);
	must(probe_watch_thread(set, 0, pid, pid, ROLE_WORKER) == 0);
	is_of(t->name, "taken up", (uint64_t)probe_seed_connection(set, pid, server), 0);
	converse(t, client, server);
	close(client);
	close(server);
	probe_forget_process(set, pid);
	probe_fold(set, clock_mono_ns());
	is_of(t->name, "GET", requests(set, HTTP_GET) - gets, t->gets);
	is_of(t->name, "POST", requests(set, HTTP_POST) - posts, t->posts);
	is_of(t->name, "no other", cells.requests_completed - completed, t->gets + t->posts);
	is_of(t->name, "none lost", cells.requests_lost + cells.requests_aborted, 0);
}

static void test_tier(void)
{
	const struct probe_options options = {.tier = tier,
					      .threads = 8,
					      .connections = 64,
					      .sample = 1,
					      .gateways = 1,
					      .slow_request_ns = NS_PER_S};
	struct probe_set *set;

	if (!open_rung(&options, &set))
		return;
	for (size_t i = 0; i < ARRAY_LEN(talks); i++)
		test_talk(set, &talks[i]);
	for (const struct probe_lost *l = probe_lost(set); l->reason; l++)
		is_of("at the end nothing was lost", l->reason, l->count, 0);
	probe_close(set);
}

int main(int argc, char **argv)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	rungs_setup();
	/* A name that the kernel chooses. */
	listener = socket(AF_UNIX, SOCK_STREAM, 0);
	must(listener >= 0 && bind(listener, (struct sockaddr *)&a, sizeof(a.sun_family)) == 0 &&
	     listen(listener, 1) == 0);
	return rungs_run(argc > 1 ? argv[1] : NULL, test_tier);
}
