/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A gateway that makes a known number of upstream connections and requests, and a backend that
 * answers, refuses, delays, resets or leaves, under the probes of each rung: every count exactly.
 * TAP; as root. Argument: the only rung to try.
 */
#include "rungs.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

static struct cells cells;
static struct probe_now now;
static uint16_t port, dead_port;
static char unix_path[64];

/* ---- the backend: one thread a listener, one a connection ---- */

static void say(int fd, const char *text)
{
	(void)!send(fd, text, strlen(text), MSG_NOSIGNAL);
}

static bool read_head(int fd, char *buf, size_t size)
{
	size_t n = 0;

	for (;;) {
		ssize_t r = read(fd, buf + n, 1);

		if (r <= 0)
			return false;
		buf[++n] = '\0';
		if (n + 1 == size || (n >= 4 && !memcmp(buf + n - 4, "\r\n\r\n", 4)))
			return true;
	}
}

static bool has(const char *head, const char *path)
{
	return strstr(head, path) != NULL;
}

/* False: the connection ends. */
static bool answer(int fd, const char *head)
{
	static const struct linger hard = {1, 0};
	char c;

	if (has(head, " /old ")) {
		say(fd, "HTTP/1.0 200 OK\r\n\r\nuntil the end");
		return false;
	} else if (has(head, " /half ")) {
		say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
		return false;
	} else if (has(head, " /none ")) {
		return false;
	} else if (has(head, " /reset ")) {
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
		return false;
	} else if (has(head, " /hang ")) {
		return read(fd, &c, 1) > 0;
	} else if (has(head, " /chunk ")) {
		say(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r");
		say(fd, "\n10\r\n0123456789abcdef\r\n0\r\n\r\n");
	} else if (has(head, " /204 ")) {
		say(fd, "HTTP/1.1 204 No Content\r\n\r\n");
	} else if (has(head, " /continue ")) {
		say(fd, "HTTP/1.1 100 Continue\r\n\r\n");
		must(read(fd, &c, 1) == 1);
		say(fd, "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
	} else if (has(head, " /up ")) {
		say(fd, "HTTP/1.1 101 Switching Protocols\r\n\r\n");
		say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
	} else if (has(head, " /slow ")) {
		poll(NULL, 0, 30);
		say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
		say(fd, "ok");
	} else if (has(head, " /next ")) {
		/* the answer of the next request, which is on its way already */
		say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
		say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
	} else if (has(head, " /bye ")) {
		say(fd, "HTTP/1.1 204 No Content\r\n\r\n");
		say(fd, "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n");
	} else if (has(head, " /void ")) {
		;
	} else if (has(head, "HEAD ")) {
		say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n");
	} else {
		say(fd, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
	}
	return true;
}

static void *converse(void *connection)
{
	int fd = (int)(intptr_t)connection;
	char head[4096];

	while (read_head(fd, head, sizeof(head)) && answer(fd, head))
		;
	close(fd);
	return NULL;
}

static void *serve(void *listener)
{
	pthread_t thread;
	int fd;

	while ((fd = accept((int)(intptr_t)listener, NULL, NULL)) >= 0) {
		must(pthread_create(&thread, NULL, converse, (void *)(intptr_t)fd) == 0);
		pthread_detach(thread);
	}
	return NULL;
}

static int listen_on(const void *address, socklen_t size)
{
	const struct sockaddr *a = address;
	int fd = socket(a->sa_family, SOCK_STREAM, 0), one = 1;

	if (a->sa_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	must(bind(fd, a, size) == 0 && listen(fd, 64) == 0);
	return fd;
}

static socklen_t unix_address(struct sockaddr_un *a, bool is_abstract)
{
	memset(a, 0, sizeof(*a));
	a->sun_family = AF_UNIX;
	memcpy(a->sun_path + is_abstract, unix_path, strlen(unix_path));
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + is_abstract +
			   strlen(unix_path));
}

static uint16_t port_of(int fd)
{
	struct sockaddr_in6 a;
	socklen_t size = sizeof(a);

	must(getsockname(fd, (struct sockaddr *)&a, &size) == 0);
	return a.sin6_port;
}

/* Its listeners are made before it is forked, so that connections to them never have to wait. */
static pid_t start_backend(void)
{
	struct sockaddr_in in = {.sin_family = AF_INET};
	struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
	struct sockaddr_un un;
	pthread_t thread;
	int fds[4], dead;
	pid_t pid;

	fds[0] = listen_on(&in, sizeof(in));
	in6.sin6_port = port = port_of(fds[0]);
	fds[1] = listen_on(&in6, sizeof(in6));
	snprintf(unix_path, sizeof(unix_path), "/tmp/tidegate upstream.%d", getpid());
	unlink(unix_path);
	fds[2] = listen_on(&un, unix_address(&un, false));
	fds[3] = listen_on(&un, unix_address(&un, true));
	/* Bound, so that nobody else gets it, and not listening: it refuses. */
	dead = socket(AF_INET, SOCK_STREAM, 0);
	must(bind(dead, (struct sockaddr *)&in, sizeof(in)) == 0);
	dead_port = port_of(dead);
	pid = fork();
	if (pid)
		return pid;
	for (int i = 1; i < 4; i++)
		pthread_create(&thread, NULL, serve, (void *)(intptr_t)fds[i]);
	serve((void *)(intptr_t)fds[0]);
	_exit(0);
}

/* ---- the gateway ---- */

enum how { BLOCKING, BY_ERROR, BY_CONNECT, BY_WRITE };

static struct sockaddr_in at(unsigned int last)
{
	return (struct sockaddr_in){.sin_family = AF_INET,
				    .sin_port = port,
				    .sin_addr.s_addr = htonl(0x7f010000 + last)};
}

static int dial_address(const void *address, socklen_t size, enum how how)
{
	const struct sockaddr *a = address;
	int fd = socket(a->sa_family, SOCK_STREAM | (how == BLOCKING ? 0 : SOCK_NONBLOCK), 0);
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	int r = connect(fd, a, size), e = 0;
	socklen_t n = sizeof(e);

	if (how == BLOCKING)
		return fd;
	must(r < 0 && errno == EINPROGRESS);
	must(poll(&p, 1, 10000) == 1);
	if (how == BY_ERROR)
		must(getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &n) == 0);
	else if (how == BY_CONNECT)
		(void)!connect(fd, a, size);
	fcntl(fd, F_SETFL, 0);
	return fd;
}

static int dial(unsigned int last, enum how how)
{
	struct sockaddr_in a = at(last);

	return dial_address(&a, sizeof(a), how);
}

static void put(int fd, const char *text)
{
	must(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
}

static void get(int fd, size_t want)
{
	char buf[4096];
	ssize_t n;

	for (size_t all = 0; all < want; all += (size_t)n) {
		n = read(fd, buf, sizeof(buf) < want - all ? sizeof(buf) : want - all);
		must(n > 0);
	}
}

/* Until the end or an error. */
static void drain(int fd)
{
	char buf[4096];

	while (read(fd, buf, sizeof(buf)) > 0)
		;
}

#define OK_BYTES (strlen("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"))

static void ask(int fd, const char *path)
{
	char text[128];

	snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path);
	put(fd, text);
}

static void ends(unsigned int last, const char *path, int times)
{
	for (int i = 0; i < times; i++) {
		int fd = dial(last, BY_ERROR);

		ask(fd, path);
		drain(fd);
		close(fd);
	}
}

static void answers(void)
{
	int fd = dial(1, BY_ERROR);

	for (int i = 0; i < 13; i++) {
		ask(fd, "/a");
		get(fd, OK_BYTES);
	}
	close(fd);
	ends(2, "/old", 7);
	fd = dial(3, BLOCKING);
	ask(fd, "/chunk");
	get(fd, 79);
	put(fd, "HEAD /a HTTP/1.1\r\n\r\n");
	get(fd, 40);
	ask(fd, "/204");
	get(fd, 27);
	put(fd, "POST /continue HTTP/1.1\r\nContent-Length: 1\r\n\r\n");
	get(fd, 25);
	put(fd, "x");
	get(fd, 43);
	/* two at once, their answers in any pieces */
	put(fd, "GET /a HTTP/1.1\r\n\r\nGET /a HTTP/1.1\r\n\r\n");
	get(fd, 3);
	get(fd, 2 * OK_BYTES - 3);
	ask(fd, "/up");
	get(fd, 38 + 38);
	close(fd);
	fd = dial(4, BY_WRITE);
	for (int i = 0; i < 3; i++) {
		ask(fd, "/slow");
		get(fd, OK_BYTES - 3);
	}
	close(fd);
	fd = dial(6, BY_ERROR);
	for (int i = 0; i < 3; i++) {
		ask(fd, "/next");
		get(fd, OK_BYTES);
		get(fd, OK_BYTES);
		ask(fd, "/void");
	}
	ask(fd, "/bye");
	get(fd, 27);
	get(fd, 51);
	close(fd);
	fd = dial(5, BY_CONNECT); /* no HTTP */
	put(fd, "PING\r\n\r\n");
	get(fd, OK_BYTES);
	close(fd);
}

static void failures(void)
{
	struct sockaddr_in dead = at(10);
	struct sockaddr_un nowhere = {.sun_family = AF_UNIX, .sun_path = "/nonexistent/socket"};

	dead.sin_port = dead_port;
	for (int i = 0; i < 5; i++)
		close(dial_address(&dead, sizeof(dead), BLOCKING));
	for (int i = 0; i < 3; i++)
		close(dial_address(&dead, sizeof(dead), BY_ERROR));
	for (int i = 0; i < 11; i++)
		close(dial_address(&dead, sizeof(dead), BY_CONNECT));
	for (int i = 0; i < 3; i++)
		close(dial_address(&nowhere, sizeof(nowhere), BLOCKING));
	ends(11, "/reset", 3);
	ends(12, "/half", 5);
	ends(13, "/none", 7);
	close(dial(14, BY_ERROR)); /* never used */
	/* the gateway leaves an upstream that owes it an answer, and says nothing of it */
	for (int i = 0; i < 3; i++) {
		int fd = dial(15, BY_ERROR);

		ask(fd, "/hang");
		close(fd);
	}
}

static void addresses(void)
{
	struct sockaddr_in6 in6 = {
		.sin6_family = AF_INET6, .sin6_port = port, .sin6_addr = in6addr_loopback};
	struct sockaddr_in name = at(30);
	struct sockaddr_un un;
	int fds[5];

	fds[0] = dial_address(&in6, sizeof(in6), BY_ERROR);
	memset(&in6.sin6_addr, 0, 10);
	memset(&in6.sin6_addr.s6_addr[10], 0xff, 2);
	memcpy(&in6.sin6_addr.s6_addr[12], &name.sin_addr, 4);
	fds[1] = dial_address(&in6, sizeof(in6), BY_ERROR);
	fds[2] = dial_address(&un, unix_address(&un, false), BLOCKING);
	fds[3] = dial_address(&un, unix_address(&un, true), BLOCKING);
	for (int i = 0; i < 4; i++) {
		ask(fds[i], "/a");
		get(fds[i], OK_BYTES);
		close(fds[i]);
	}
	for (int i = 0; i < 11; i++) {
		int fd = socket(AF_INET, SOCK_DGRAM, 0);

		name.sin_port = htons(53);
		must(connect(fd, (struct sockaddr *)&name, sizeof(name)) == 0);
		close(fd);
	}
}

/* A client of the gateway is told 504 after, or before, the gateway gives its upstream up; and once
 * because the upstream itself said so, which is no reason to doubt another. */
static void verdicts(void)
{
	static const char said[] = "HTTP/1.1 504 Gateway Time-out\r\nContent-Length: 0\r\n\r\n";
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int listener = listen_on(&a, sizeof(a)), client = socket(AF_INET, SOCK_STREAM, 0), fd, up;
	char buf[256];

	/* What was given up before is long ago: there is no event loop here that would tell. */
	poll(NULL, 0, 20);
	a.sin_port = port_of(listener);
	must(connect(client, (struct sockaddr *)&a, sizeof(a)) == 0);
	fd = accept(listener, NULL, NULL);
	for (int i = 0; i < 2; i++) {
		up = dial(20, BY_ERROR);
		ask(up, "/hang");
		ask(client, "/");
		must(read(fd, buf, sizeof(buf)) > 0);
		if (i)
			close(up);
		put(fd, said);
		if (!i)
			close(up);
		poll(NULL, 0, 20);
	}
	close(client);
	close(fd);
	close(listener);
}

static void many(void)
{
	for (unsigned int i = 100; i < 141; i++) {
		int fd = dial(i, BY_ERROR);

		ask(fd, "/a");
		get(fd, OK_BYTES);
		close(fd);
	}
}

static void killed(void)
{
	int fd = dial(40, BY_ERROR);

	ask(fd, "/a");
	get(fd, OK_BYTES);
	ask(fd, "/hang");
}

struct child {
	pid_t pid;
	int to, from;
};

static struct child start(void (*const fns[])(void))
{
	struct child c;
	int to[2], from[2];
	char byte = 'd';

	must(pipe(to) == 0 && pipe(from) == 0);
	c.pid = fork();
	if (!c.pid) {
		dup2(to[0], 0);
		close(to[0]);
		close(to[1]);
		for (size_t i = 0; fns[i]; i++) {
			must(read(0, &byte, 1) == 1);
			fns[i]();
			must(write(from[1], "d", 1) == 1);
		}
		(void)!read(0, &byte, 1);
		_exit(0);
	}
	close(to[0]);
	close(from[1]);
	c.to = to[1];
	c.from = from[0];
	return c;
}

static void go(const struct child *c)
{
	char said = 0;

	if (write(c->to, "g", 1) != 1 || read(c->from, &said, 1) != 1)
		said = 'x';
	is("the gateway ran", (uint64_t)said, 'd');
}

static void stop(struct child *c)
{
	close(c->to);
	close(c->from);
	kill(c->pid, SIGKILL);
	waitpid(c->pid, NULL, 0);
}

/* ---- what was counted ---- */

struct wanted {
	unsigned int gateway;
	const char *name;
	struct upstream found;
	unsigned int times, records;
};

static void look(void *data, unsigned int index, const struct upstream *u)
{
	struct wanted *w = data;
	char name[PROBE_UPSTREAM_BYTES];

	(void)index;
	if (u->address.gateway != w->gateway)
		return;
	w->records++;
	probe_upstream_name(&u->address, name);
	if (!w->name || !str_equal(name, w->name))
		return;
	w->times++;
	w->found = *u;
}

static struct wanted find(struct probe_set *set, unsigned int gateway, const char *name)
{
	struct wanted w = {.gateway = gateway, .name = name};

	probe_each_upstream(set, look, &w);
	return w;
}

/* errors: one of a reason, none of the others. */
static void expect(struct probe_set *set, const char *name, uint64_t connects, uint64_t answered,
		   enum upstream_error reason, uint64_t errors)
{
	struct wanted w = find(set, 0, name);
	char what[128];
	uint64_t others = 0;

	snprintf(what, sizeof(what), "%s is one record", name);
	is(what, w.times, 1);
	snprintf(what, sizeof(what), "%s connects", name);
	is(what, histogram_count(w.found.connect_ns), connects);
	snprintf(what, sizeof(what), "%s answers", name);
	is(what, histogram_count(w.found.response_ns), answered);
	snprintf(what, sizeof(what), "%s %s", name, probe_upstream_error_name(reason));
	is(what, w.found.errors[reason], errors);
	for (unsigned int i = 0; i < UPSTREAM_ERRORS; i++)
		others += i == reason ? 0 : w.found.errors[i];
	snprintf(what, sizeof(what), "%s other errors", name);
	is(what, others, 0);
}

static const char *ip(unsigned int last)
{
	static char text[32];

	snprintf(text, sizeof(text), "127.1.0.%u:%u", last, ntohs(port));
	return text;
}

static void expect_all(struct probe_set *set, bool knows_sockets)
{
	char name[128];
	double sum;

	expect(set, ip(1), 1, 13, UPSTREAM_OTHER, 0);
	expect(set, ip(2), 7, 7, UPSTREAM_OTHER, 0);
	expect(set, ip(3), 1, 7, UPSTREAM_OTHER, 0);
	expect(set, ip(4), 1, 3, UPSTREAM_OTHER, 0);
	sum = histogram_sum(find(set, 0, ip(4)).found.response_ns);
	is("three answers of 30 ms each", sum > 0.088 && sum < 3, true);
	expect(set, ip(5), 1, 0, UPSTREAM_OTHER, 0);
	expect(set, ip(6), 1, 7, UPSTREAM_OTHER, 0);
	snprintf(name, sizeof(name), "127.1.0.10:%u", ntohs(dead_port));
	expect(set, name, 0, 0, UPSTREAM_REFUSED, 5 + 3 + 11);
	expect(set, "unix:/nonexistent/socket", 0, 0, UPSTREAM_REFUSED, 3);
	expect(set, ip(11), 3, 0, UPSTREAM_RESET, 3);
	expect(set, ip(12), 5, 0, UPSTREAM_CLOSED, 5);
	expect(set, ip(13), 7, 0, UPSTREAM_CLOSED, 7);
	expect(set, ip(14), 1, 0, UPSTREAM_OTHER, 0);
	expect(set, ip(15), 3, 0, UPSTREAM_OTHER, 0);
	snprintf(name, sizeof(name), "[::1]:%u", ntohs(port));
	expect(set, name, 1, 1, UPSTREAM_OTHER, 0);
	expect(set, ip(30), 1, 1, UPSTREAM_OTHER, 0);
	snprintf(name, sizeof(name), "unix:/tmp/tidegate%%20%s", unix_path + 14);
	expect(set, name, 1, 1, UPSTREAM_OTHER, 0);
	snprintf(name, sizeof(name), "unix:@/tmp/tidegate%%20%s", unix_path + 14);
	expect(set, name, 1, 1, UPSTREAM_OTHER, 0);
	if (knows_sockets)
		is("datagrams have no upstreams", find(set, 0, "127.1.0.30:53").times, 0);
	expect(set, ip(20), 2, 0, UPSTREAM_TIMEOUT, 2);
}

static void test_counts(struct probe_set *set)
{
	static void (*const fns[])(void) = {answers, failures, addresses, verdicts, NULL};
	struct child c = start(fns);

	probe_watch_thread(set, 0, (uint32_t)c.pid, (uint32_t)c.pid, ROLE_WORKER);
	for (int i = 0; i < 3; i++)
		go(&c);
	probe_totals(set, 0, clock_mono_ns(), &cells, &now);
	is("nothing of it is downstream: requests", cells.requests_started, 0);
	is("accepts", cells.accepts, 0);
	is("closes", cells.closes, 0);
	is("lost", cells.requests_lost + cells.requests_aborted, 0);
	is("in flight", now.in_flight, 0);
	is("open", now.connections_open, 0);
	is("last request", now.last_request_ns, 0);
	go(&c);
	expect_all(set, true);
	probe_totals(set, 0, clock_mono_ns(), &cells, &now);
	is("downstream requests", cells.requests_completed, 2);
	stop(&c);
	for (const struct probe_lost *l = probe_lost(set); l->reason; l++)
		is(l->reason, l->count, 0);
}

static void test_many(struct probe_set *set)
{
	static void (*const fns[])(void) = {many, many, NULL};
	struct child c = start(fns);
	struct wanted w;

	probe_watch_thread(set, 1, (uint32_t)c.pid, (uint32_t)c.pid, ROLE_WORKER);
	go(&c);
	go(&c);
	w = find(set, 1, "other");
	is("records of a gateway", w.records, UPSTREAM_NAMES + 1);
	is("the rest is other", histogram_count(w.found.response_ns), 2 * (41 - UPSTREAM_NAMES));
	is("connects of others", histogram_count(w.found.connect_ns), 2 * (41 - UPSTREAM_NAMES));
	is("the last with a name", histogram_count(find(set, 1, ip(131)).found.response_ns), 2);
	is("none of another gateway", find(set, 2, "other").records, 0);
	stop(&c);
}

/* Counting goes on while nobody holds the probes, and nothing is doubled; what a dead gateway was
 * owed is nobody's fault. */
static void test_pins(const struct probe_options *unpinned)
{
	static void (*const fns[])(void) = {killed, killed, NULL};
	struct probe_options options = *unpinned;
	struct probe_set *set = NULL;
	struct err e = {.text = ""};
	struct child c;
	uint64_t id;

	options.pin_dir = "/sys/fs/bpf/tidegate-test-upstream/host";
	is("opened", (uint64_t)probe_open(&options, 0, &set, &e), 0);
	if (!set)
		return;
	id = probe_maps_id(set);
	c = start(fns);
	probe_watch_thread(set, 0, (uint32_t)c.pid, (uint32_t)c.pid, ROLE_WORKER);
	go(&c);
	probe_close(set);
	go(&c);
	set = NULL;
	is("opened again", (uint64_t)probe_open(&options, id, &set, &e), 0);
	if (!set)
		return;
	is("adopted", probe_is_adopted(set), true);
	expect(set, ip(40), 2, 2, UPSTREAM_OTHER, 0);
	stop(&c);
	for (int i = 0; i < 3; i++)
		probe_fold(set, clock_mono_ns());
	expect(set, ip(40), 2, 2, UPSTREAM_OTHER, 0);
	probe_totals(set, 0, clock_mono_ns(), &cells, &now);
	is("no connection was closed", cells.closes, 0);
	is("no request was lost", cells.requests_lost, 0);
	probe_close(set);
	probe_unpin(options.pin_dir, NULL);
	rmdir("/sys/fs/bpf/tidegate-test-upstream");
}

static void test_tier(void)
{
	struct probe_options options = {
		.tier = tier,
		.threads = 32,
		.connections = 1024,
		.upstreams = 96,
		.sample = 1,
		.gateways = 4,
		.slow_request_ns = NS_PER_S,
	};
	struct probe_set *set;
	struct err e = {.text = ""};

	if (!open_rung(&options, &set))
		return;
	test_counts(set);
	test_many(set);
	probe_close(set);
	/* The pool is smaller than what one gateway could have. */
	options.upstreams = 2;
	set = NULL;
	is("opened with a small pool", (uint64_t)probe_open(&options, 0, &set, &e), 0);
	if (set) {
		static void (*const fns[])(void) = {many, NULL};
		struct child c = start(fns);
		struct wanted w;

		probe_watch_thread(set, 3, (uint32_t)c.pid, (uint32_t)c.pid, ROLE_WORKER);
		go(&c);
		w = find(set, 3, "other");
		is("the pool and others", w.records, 3);
		is("answers of others", histogram_count(w.found.response_ns), 39);
		stop(&c);
		probe_close(set);
	}
	options.upstreams = 96;
	test_pins(&options);
}

int main(int argc, char **argv)
{
	pid_t backend;
	int code;

	rungs_setup();
	backend = start_backend();
	code = rungs_run(argc > 1 ? argv[1] : NULL, test_tier);
	kill(backend, SIGKILL);
	waitpid(backend, NULL, 0);
	unlink(unix_path);
	return code;
}
