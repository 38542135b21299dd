/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records of slow requests, on each rung: a gateway that does what it is told, call by call, and a
 * threshold that every request passes. TAP; as root.
 */
#include "probe/records.h"
#include "rungs.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define OK          "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
#define TRACE       "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
#define CONNECTIONS 4
#define SEEN_MOST   512
#define FLOOD       307

static struct sockaddr_in address;
static int listener, to_gateway[2], from_gateway[2], to_thread[2];
static int clients[CONNECTIONS];
static struct probe_slow seen[SEEN_MOST];
static unsigned int seen_count;

static void is_text(const char *what, const char *got, const char *want)
{
	check(what, !strcmp(got, want));
	if (strcmp(got, want))
		printf("# got '%s', want '%s'\n", got, want);
}

/* ---- the gateway: two threads that obey ---- */

struct order {
	char call; /* accept, read, write, epoll, close, Read in the other thread */
	char connection;
};

static int served[CONNECTIONS], loop_fd;

static void obey(const struct order *o)
{
	static char buf[65536];
	struct epoll_event event;
	int *fd = &served[(int)o->connection];

	switch (o->call) {
	case 'a':
		*fd = accept(listener, NULL, NULL);
		must(*fd >= 0);
		break;
	case 'r':
	case 'R':
		must(read(*fd, buf, sizeof(buf)) >= 0);
		break;
	case 'w':
		must(write(*fd, OK, strlen(OK)) == (ssize_t)strlen(OK));
		break;
	case 'e':
		epoll_wait(loop_fd, &event, 1, 0);
		break;
	case 'c':
		close(*fd);
		break;
	}
	must(write(from_gateway[1], "d", 1) == 1);
}

static void *other_thread(void *data)
{
	struct order o;

	while (read(to_thread[0], &o, sizeof(o)) == sizeof(o))
		obey(&o);
	return data;
}

static void gateway(void)
{
	struct order o;
	pthread_t thread;

	loop_fd = epoll_create1(0);
	must(pthread_create(&thread, NULL, other_thread, NULL) == 0);
	must(write(from_gateway[1], "d", 1) == 1);
	while (read(to_gateway[0], &o, sizeof(o)) == sizeof(o)) {
		if (o.call == 'R')
			must(write(to_thread[1], &o, sizeof(o)) == sizeof(o));
		else
			obey(&o);
	}
	_exit(0);
}

/* ---- its client ---- */

static void tell(char call, int connection)
{
	struct order o = {call, (char)connection};
	char done;

	must(write(to_gateway[1], &o, sizeof(o)) == sizeof(o));
	must(read(from_gateway[0], &done, 1) == 1);
}

static void dial(int i)
{
	clients[i] = socket(AF_INET, SOCK_STREAM, 0);
	must(connect(clients[i], (struct sockaddr *)&address, sizeof(address)) == 0);
	tell('a', i);
}

static void ask(int i, const char *text)
{
	must(write(clients[i], text, strlen(text)) == (ssize_t)strlen(text));
}

static void take(int i)
{
	char buf[4096];

	must(read(clients[i], buf, sizeof(buf)) > 0);
}

static void on_slow(void *data, const struct probe_slow *slow)
{
	struct probe_slow *all = data;

	if (seen_count < SEEN_MOST)
		all[seen_count++] = *slow;
}

static void fetch(struct probe_set *set)
{
	seen_count = 0;
	probe_slow_each(set, SEEN_MOST, on_slow, seen);
}

static uint64_t lost(struct probe_set *set, const char *reason)
{
	for (const struct probe_lost *l = probe_lost(set); l->reason; l++)
		if (!strcmp(l->reason, reason))
			return l->count;
	return 0;
}

/* ---- what is seen ---- */

static void test_one(struct probe_set *set)
{
	ask(0, "GET /one?key=1 HTTP/1.1\r\nHost: a\r\nTraceparent: " TRACE "\r\n\r\n");
	tell('r', 0);
	tell('w', 0);
	take(0);
	fetch(set);
	is("one record", seen_count, 1);
	is_text("method", seen[0].method, "GET");
	is_text("path without the query", seen[0].path, "/one");
	is_text("traceparent", seen[0].traceparent, TRACE);
	is("code", seen[0].code, 200);
	is("gateway", seen[0].gateway, 2);
	is("nothing waits", probe_slow_each(set, 1, on_slow, seen), 0);
}

/* Each time the head of the first is no longer what its thread read last. */
static void test_kept(struct probe_set *set)
{
	ask(0, "POST /first HTTP/1.1\r\nContent-Length: 0\r\ntraceparent: " TRACE "\r\n\r\n");
	ask(1, "GET /second HTTP/1.1\r\n\r\n");
	tell('r', 0);
	tell('r', 1);
	tell('w', 1);
	tell('e', 0);
	tell('w', 0);
	ask(0, "GET /turned HTTP/1.1\r\n\r\n");
	tell('r', 0);
	tell('e', 0);
	tell('e', 0);
	tell('w', 0);
	ask(1, "GET /threads HTTP/1.1\r\n\r\n");
	tell('R', 1);
	tell('w', 1);
	take(0);
	take(1);
	fetch(set);
	is("four records", seen_count, 4);
	is_text("the second was first", seen[0].path, "/second");
	is_text("no traceparent", seen[0].traceparent, "");
	is_text("the first was kept", seen[1].path, "/first");
	is_text("with its traceparent", seen[1].traceparent, TRACE);
	is_text("and method", seen[1].method, "POST");
	is_text("kept over turns of the loop", seen[2].path, "/turned");
	is_text("read by another thread", seen[3].path, "/threads");
}

static void test_shapes(struct probe_set *set)
{
	char text[3000];
	size_t n;

	ask(0, "GET /p1 HTTP/1.1\r\n\r\nDELETE /p2 HTTP/1.1\r\n\r\n");
	tell('r', 0);
	tell('w', 0);
	tell('w', 0);
	ask(0, "GET /sp");
	tell('r', 0);
	ask(0, "lit HTTP/1.1\r\ntracep");
	tell('r', 0);
	ask(0, "arent:  " TRACE "\r\n\r\n");
	tell('r', 0);
	tell('w', 0);
	n = (size_t)(stpcpy(text, "GET /long/") - text);
	memset(text + n, 'x', 200);
	n += 200;
	n += (size_t)(stpcpy(text + n, " HTTP/1.1\r\nCookie: ") - (text + n));
	memset(text + n, 'y', 1500);
	stpcpy(text + n + 1500, "\r\nTraceParent:" TRACE "\r\n\r\n");
	ask(0, text);
	tell('r', 0);
	tell('w', 0);
	ask(0, "PURGE /\x01\xff\"\\ HTTP/1.1\r\ntraceparent: 00-zz\r\n\r\n");
	tell('r', 0);
	tell('w', 0);
	take(0);
	fetch(set);
	is("five records", seen_count, 5);
	is_text("pipelined", seen[0].path, "/p1");
	is_text("the one behind it", seen[1].path, "/p2");
	is_text("its method", seen[1].method, "DELETE");
	is_text("split", seen[2].path, "/split");
	is_text("split traceparent", seen[2].traceparent, TRACE);
	check("long path is cut", seen[3].is_cut && strlen(seen[3].path) == PATH_BYTES);
	is_text("traceparent behind 1,500 bytes", seen[3].traceparent, TRACE);
	is_text("unknown method", seen[4].method, "PURGE");
	is_text("hostile bytes", seen[4].path, "/%01%FF\"\\");
	is_text("no traceparent but of its form", seen[4].traceparent, "");
}

static void test_ends(struct probe_set *set)
{
	ask(1, "GET /left HTTP/1.1\r\n\r\nGET /behind HTTP/1.1\r\n\r\n");
	tell('r', 1);
	tell('c', 1);
	fetch(set);
	is("records of what got no answer", seen_count, 2);
	is("code 0", seen[0].code, 0);
	is("no first byte", seen[0].first_byte_ns, 0);
	is_text("path", seen[0].path, "/left");
	is_text("path behind", seen[1].path, "/behind");
}

/* What a tunnel carries is no request. */
static void test_tunnel(struct probe_set *set)
{
	static struct cells cells;
	struct probe_now now;

	dial(3);
	ask(3, "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n");
	tell('r', 3);
	tell('w', 3);
	ask(3, "GET /inside HTTP/1.1\r\n\r\n");
	tell('r', 3);
	tell('w', 3);
	tell('c', 3);
	fetch(set);
	is("one record of a tunnel", seen_count, 1);
	is_text("its target", seen[0].path, "a.example:443");
	probe_totals(set, 2, clock_mono_ns(), &cells, &now);
	is("CONNECT", probe_requests(set, &cells, HTTP_CONNECT, 200), 1);
	is("lost", cells.requests_lost, 2);
	is("in flight", now.in_flight, 0);
	is("open", now.connections_open, 1);
}

/* Notes are given back, and more than 100 a second are counted, not kept. */
static void test_flood(struct probe_set *set)
{
	const uint64_t before = lost(set, "records"), began = clock_mono_ns();
	unsigned int with_path = 0;

	for (int i = 0; i < FLOOD; i++) {
		ask(0, "GET /flood HTTP/1.1\r\n\r\n");
		tell('r', 0);
		tell('e', 0);
		tell('w', 0);
		take(0);
	}
	fetch(set);
	for (unsigned int i = 0; i < seen_count; i++)
		with_path += !strcmp(seen[i].path, "/flood");
	is("each with its path", with_path, seen_count);
	/* An emulated machine may be too slow for a flood; else two seconds began, at most. */
	check("some were kept, some not",
	      seen_count > 0 && (seen_count < FLOOD || clock_mono_ns() - began > NS_PER_S));
	is("kept and refused are all", seen_count + lost(set, "records") - before, FLOOD);
	is("every note was given back", lost(set, "notes"), 0);
}

/* We are not watched, and listen. (So may others here, which can only say it earlier.) */
static void test_notice(struct probe_set *set)
{
	struct pollfd ready = {.fd = probe_notice_fd(set), .events = POLLIN};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	probe_notices(set);
	must(poll(NULL, 0, 60) == 0); /* no more than one in 50 ms */
	must(listen(fd, 1) == 0);
	is("listening wakes the keeper", (uint64_t)poll(&ready, 1, 10000), 1);
	check("and can be fetched", probe_notices(set));
	close(fd);
}

static void test_fast(const struct probe_options *slower, pid_t pid)
{
	struct probe_set *set = NULL;
	struct err e = {.text = ""};

	must(probe_open(slower, 0, &set, &e) == 0);
	probe_watch_thread(set, 2, (uint32_t)pid, (uint32_t)pid, ROLE_WORKER);
	dial(2);
	ask(2, "GET /fast HTTP/1.1\r\n\r\n");
	tell('r', 2);
	tell('w', 2);
	fetch(set);
	is("a fast one leaves nothing", seen_count, 0);
	tell('c', 2);
	close(clients[2]);
	probe_close(set);
}

static pid_t start_gateway(pid_t *ret_thread)
{
	struct dirent *entry;
	char path[64], done;
	DIR *tasks;
	pid_t pid;

	must(pipe(to_gateway) == 0 && pipe(from_gateway) == 0 && pipe(to_thread) == 0);
	pid = fork();
	if (!pid)
		gateway();
	must(read(from_gateway[0], &done, 1) == 1);
	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	tasks = opendir(path);
	while (tasks && (entry = readdir(tasks)))
		if (atoi(entry->d_name) > 0 && atoi(entry->d_name) != pid)
			*ret_thread = atoi(entry->d_name);
	closedir(tasks);
	return pid;
}

static void test_tier(void)
{
	struct probe_options options = {
		.tier = tier,
		.threads = 16,
		.connections = 256,
		.sample = 8,
		.gateways = 4,
		.slow_request_ns = 1,
	};
	struct probe_set *set;
	pid_t pid, thread = 0;

	if (!open_rung(&options, &set))
		return;
	pid = start_gateway(&thread);
	probe_watch_thread(set, 2, (uint32_t)pid, (uint32_t)pid, ROLE_WORKER);
	probe_watch_thread(set, 2, (uint32_t)pid, (uint32_t)thread, ROLE_WORKER);
	dial(0);
	dial(1);
	test_one(set);
	test_kept(set);
	test_shapes(set);
	test_ends(set);
	test_tunnel(set);
	test_flood(set);
	test_notice(set);
	probe_close(set);
	options.slow_request_ns = 3600 * NS_PER_S;
	test_fast(&options, pid);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

int main(int argc, char **argv)
{
	socklen_t size = sizeof(address);

	rungs_setup();
	listener = socket(AF_INET, SOCK_STREAM, 0);
	address = (struct sockaddr_in){.sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	must(bind(listener, (struct sockaddr *)&address, sizeof(address)) == 0 &&
	     listen(listener, 16) == 0 &&
	     getsockname(listener, (struct sockaddr *)&address, &size) == 0);
	return rungs_run(argc > 1 ? argv[1] : NULL, test_tier);
}
