/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Door, gate and the core's end in three processes, clients with plain sockets: what goes through,
 * what is cut off, and what a killed process costs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "bus/door.h"
#include "bus/gate.h"
#include "bus/gatelink.h"
#include "bus/sp.h"
#include "port.h"

#include <errno.h>
#include <nanomsg/nn.h>
#include <nanomsg/reqrep.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEADLINE_NS (20 * NS_PER_S)

/* What the children tell. */
static struct shared {
	struct door_stats door;
	struct gate_stats gate;
	struct gatelink_stats core;
	/* of the door that starts next */
	unsigned int connections;
	bool few_descriptors, wants_ipc;
} * shared;

/* The door's ports, held for as long as the tests run. */
enum { REQ, BUS, SNAP, PORTS };
static unsigned int ports[PORTS];
static int held[PORTS];
static char addresses[PORTS][32];

static char dir[64];
static pid_t door_pid, gate_pid, core_pid;

/* ---- children ---- */

static struct door *child_door;
static struct gate *child_gate;
static struct gatelink_server *child_core;

static void tell(void *data)
{
	(void)data;
	if (child_door)
		door_stats(child_door, &shared->door);
	if (child_gate)
		gate_stats(child_gate, &shared->gate);
	if (child_core)
		gatelink_server_stats(child_core, &shared->core);
}

/* The core of these tests: echoes with its channel in front; "publish N" publishes N messages,
 * "silent" gets no answer. */
static void on_request(void *data, const struct gatelink_handle *handle,
		       const struct passport *from, const uint8_t *payload, size_t size)
{
	static uint8_t reply[GATELINK_PAYLOAD_MAX + 1];
	unsigned int count;
	char text[64] = {0};

	(void)data;
	/* No TLS here: everybody may speak for all. */
	if (from->kind != PASSPORT_LOCAL || from->size)
		abort();
	memcpy(text, payload, size < 63 ? size : 63);
	if (strcmp(text, "silent") == 0)
		return;
	if (sscanf(text, "publish %u", &count) == 1)
		for (unsigned int i = 0; i < count; i++) {
			uint8_t message[1024] = "t/x";

			snprintf((char *)message + 4, 32, "%u", i);
			gatelink_publish(child_core, message, sizeof(message));
		}
	reply[0] = handle->channel == GATELINK_SNAPSHOT ? 's' : 'u';
	memcpy(reply + 1, payload, size);
	gatelink_reply(child_core, handle, reply, size + 1);
}

static void child_main(char kind)
{
	struct loop_watch *watch;
	struct loop *loop;
	struct err e = {0};
	char path[128];
	int r;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (unsigned int i = 0; i < PORTS; i++)
		close(held[i]);
	if (loop_open(&loop) < 0)
		_exit(9);
	if (kind == 'd') {
		const struct rlimit few = {.rlim_cur = 40, .rlim_max = 40};
		char ipc[128];
		struct door_spec spec = {
			.address = addresses[REQ],
			.bus_address = addresses[BUS],
			.snapshot_address = addresses[SNAP],
			.gate_dir = dir,
			.connections = shared->connections,
		};

		if (shared->few_descriptors)
			setrlimit(RLIMIT_NOFILE, &few);
		if (shared->wants_ipc) {
			snprintf(ipc, sizeof(ipc), "ipc://%s/door", dir);
			spec.address = ipc;
		}

		r = door_open(loop, &spec, &child_door, &e);
	} else if (kind == 'g') {
		r = gate_open(loop, dir, &child_gate, &e);
	} else {
		snprintf(path, sizeof(path), "%s/core.sock", dir);
		r = gatelink_server_open(loop, path, on_request, NULL, &child_core, &e);
	}
	if (r < 0) {
		fprintf(stderr, "# child %c: %s\n", kind, e.text);
		_exit(9);
	}
	if (loop_add_timer(loop, 1, 5, tell, NULL, &watch) < 0)
		_exit(9);
	loop_run(loop);
	_exit(0);
}

static pid_t start(char kind)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0)
		child_main(kind);
	return pid;
}

static void stop(pid_t *pid)
{
	int status;

	if (*pid <= 0)
		return;
	kill(*pid, SIGKILL);
	waitpid(*pid, &status, 0);
	*pid = 0;
}

static bool alive(pid_t pid)
{
	int status;

	return waitpid(pid, &status, WNOHANG) == 0;
}

/* Waits for a condition on what the children told. */
#define WAIT_FOR(cond)                                             \
	do {                                                       \
		uint64_t _until = clock_mono_ns() + DEADLINE_NS;   \
		while (!(cond)) {                                  \
			if (clock_mono_ns() > _until)              \
				fail_msg("never true: %s", #cond); \
			poll(NULL, 0, 2);                          \
		}                                                  \
	} while (0)

/* ---- clients ---- */

static int dial(unsigned int port)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	struct timeval tv = {.tv_sec = 15};
	uint64_t until = clock_mono_ns() + DEADLINE_NS;

	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	for (;;) {
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

		assert_true(fd >= 0);
		if (connect(fd, (struct sockaddr *)&in, sizeof(in)) == 0) {
			setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
			return fd;
		}
		close(fd);
		assert_true(clock_mono_ns() < until);
		poll(NULL, 0, 5);
	}
}

static int dial_sp(unsigned int port, uint16_t self, uint16_t other)
{
	uint8_t hello[SP_HANDSHAKE];
	int fd = dial(port);

	sp_handshake_put(hello, self);
	assert_int_equal(send(fd, hello, sizeof(hello), MSG_NOSIGNAL), sizeof(hello));
	assert_int_equal(recv(fd, hello, sizeof(hello), MSG_WAITALL), sizeof(hello));
	assert_int_equal(sp_handshake_check(hello, other), 0);
	return fd;
}

static void send_all(int fd, const void *data, size_t size)
{
	const uint8_t *p = data;

	while (size) {
		ssize_t n = send(fd, p, size, MSG_NOSIGNAL);

		assert_true(n > 0);
		p += n;
		size -= (size_t)n;
	}
}

static void ask(int fd, uint32_t id, const void *text, size_t size)
{
	uint8_t head[12];

	sp_header_put(head, false, size + 4);
	sp_put32(head + 8, id | 0x80000000u);
	send_all(fd, head, 12);
	send_all(fd, text, size);
}

/* Returns the reply's size, the payload in buf; *ret_id its request. -1: connection gone. */
static ssize_t answer(int fd, uint32_t *ret_id, void *buf, size_t size)
{
	uint8_t head[12];
	size_t n;

	if (recv(fd, head, sizeof(head), MSG_WAITALL) != sizeof(head))
		return -1;
	n = sp_get32(head + 4) - 4;
	assert_true(n <= size);
	*ret_id = sp_get32(head + 8) & 0x7fffffffu;
	if (n && recv(fd, buf, n, MSG_WAITALL) != (ssize_t)n)
		return -1;
	return (ssize_t)n;
}

static void echo(int fd, uint32_t id, const char *text)
{
	char buf[256] = {0};
	uint32_t got = 0;

	ask(fd, id, text, strlen(text));
	assert_int_equal(answer(fd, &got, buf, sizeof(buf)), strlen(text) + 1);
	assert_int_equal(got, id);
	assert_string_equal(buf + 1, text);
}

/* True when the other side has closed. */
static bool is_cut(int fd)
{
	uint8_t buf[64];
	ssize_t n;

	while ((n = recv(fd, buf, sizeof(buf), 0)) > 0)
		;
	return n == 0 || errno == ECONNRESET;
}

/* ---- fixture ---- */

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/tidegate-door-XXXXXX");
	assert_non_null(mkdtemp(dir));
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	assert_true(shared != MAP_FAILED);
	shared->connections = 800;
	for (unsigned int i = 0; i < PORTS; i++) {
		held[i] = port_hold(&ports[i]);
		assert_true(held[i] >= 0);
		snprintf(addresses[i], sizeof(addresses[i]), "tcp://127.0.0.1:%u", ports[i]);
	}
	core_pid = start('c');
	gate_pid = start('g');
	door_pid = start('d');
	WAIT_FOR(shared->door.has_gate && shared->gate.has_core);
	return 0;
}

static int teardown(void **state)
{
	static const char *const names[] = {"core.sock", "gate.req", "gate.snap", "gate.pub",
					    "door"};
	char path[128];

	(void)state;
	stop(&door_pid);
	stop(&gate_pid);
	stop(&core_pid);
	for (unsigned int i = 0; i < 5; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		unlink(path);
	}
	rmdir(dir);
	for (unsigned int i = 0; i < PORTS; i++)
		close(held[i]);
	munmap(shared, sizeof(*shared));
	return 0;
}

/* ---- tests ---- */

static void round_trip(void **state)
{
	int fd = dial_sp(ports[REQ], SP_REQ, SP_REP), snap = dial_sp(ports[SNAP], SP_REQ, SP_REP);
	char buf[64];
	uint32_t id;

	(void)state;
	echo(fd, 1, "hello");
	echo(fd, 0x7fffffff, "");
	ask(snap, 5, "x", 1);
	assert_int_equal(answer(snap, &id, buf, sizeof(buf)), 2);
	assert_memory_equal(buf, "sx", 2);
	close(fd);
	close(snap);
}

/* Each costs the core much: of many in one write four go in, and four again once those are answered. */
static void few_snapshots_at_once(void **state)
{
	int snap = dial_sp(ports[SNAP], SP_REQ, SP_REP);
	uint64_t dropped = shared->door.requests_dropped;
	uint8_t asked[10][12];
	char buf[64];
	uint32_t id;

	(void)state;
	for (uint32_t i = 0; i < 10; i++) {
		sp_header_put(asked[i], false, 4);
		sp_put32(asked[i] + 8, (i + 1) | 0x80000000u);
	}
	for (unsigned int n = 1; n <= 2; n++) {
		send_all(snap, asked, sizeof(asked));
		WAIT_FOR(shared->door.requests_dropped == dropped + n * 6);
		for (uint32_t i = 1; i <= 4; i++) {
			assert_int_equal(answer(snap, &id, buf, sizeof(buf)), 1);
			assert_int_equal(id, i);
		}
	}
	close(snap);
}

/* Longer backtraces than ours come back whole; the greatest message goes through. */
static void devices_and_size(void **state)
{
	int fd = dial_sp(ports[REQ], SP_REQ, SP_REP);
	static uint8_t big[SP_MESSAGE_MAX], back[SP_MESSAGE_MAX + 64];
	uint8_t bytes[8 + 28 + 2], got[64];
	uint32_t id;

	(void)state;
	sp_header_put(bytes, false, 30);
	for (unsigned int i = 0; i < 7; i++)
		sp_put32(bytes + 8 + i * 4, i == 6 ? 0x80000007u : i);
	memcpy(bytes + 36, "hi", 2);
	send_all(fd, bytes, sizeof(bytes));
	assert_int_equal(recv(fd, got, 39, MSG_WAITALL), 39);
	assert_memory_equal(got + 8, bytes + 8, 28);
	assert_memory_equal(got + 36, "uhi", 3);
	memset(big, 7, sizeof(big));
	ask(fd, 9, big, GATELINK_PAYLOAD_MAX - 1);
	assert_int_equal(answer(fd, &id, back, sizeof(back)), GATELINK_PAYLOAD_MAX);
	assert_memory_equal(back + 1, big, GATELINK_PAYLOAD_MAX - 1);
	close(fd);
}

static void cut_with(unsigned int port, uint16_t self, uint16_t other, const void *data,
		     size_t size)
{
	int fd = dial_sp(port, self, other);

	send_all(fd, data, size);
	assert_true(is_cut(fd));
	close(fd);
}

static void hostile_frames(void **state)
{
	static const uint8_t huge[8] = {0x00, 0x00, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff};
	static const uint8_t negative[8] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	static const uint8_t above[8] = {0, 0, 0, 0, 0, 0x10, 0, 1};
	static const uint8_t empty[8] = {0};
	static const uint8_t no_end[8 + 36] = {0, 0, 0, 0, 0, 0, 0, 36};
	static const uint8_t frame[17] = {0, 0, 0, 0, 0, 0, 0, 9, 'x'};
	static const char *const garbage = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
	const unsigned int speaking[] = {ports[REQ], ports[SNAP]};
	uint8_t eight_hops[8 + 32] = {0, 0, 0, 0, 0, 0, 0, 32};
	uint64_t hostile = shared->door.hostile, bus = shared->door.bus.hostile;
	uint8_t hello[SP_HANDSHAKE];
	int fd;

	(void)state;
	eight_hops[8 + 28] = 0x80;
	for (unsigned int i = 0; i < 2; i++) {
		cut_with(speaking[i], SP_REQ, SP_REP, huge, 8);
		cut_with(speaking[i], SP_REQ, SP_REP, negative, 8);
		cut_with(speaking[i], SP_REQ, SP_REP, above, 8);
		cut_with(speaking[i], SP_REQ, SP_REP, empty, 8);
		cut_with(speaking[i], SP_REQ, SP_REP, no_end, sizeof(no_end));
		cut_with(speaking[i], SP_REQ, SP_REP, eight_hops, sizeof(eight_hops));
		fd = dial(speaking[i]);
		send_all(fd, garbage, strlen(garbage));
		assert_true(is_cut(fd));
		close(fd);
		fd = dial(speaking[i]); /* another protocol */
		sp_handshake_put(hello, SP_SUB);
		send_all(fd, hello, sizeof(hello));
		assert_true(is_cut(fd));
		close(fd);
	}
	/* The packet that kills nanomsg's publisher, and half a header, and one byte. */
	cut_with(ports[BUS], SP_SUB, SP_PUB, frame, sizeof(frame));
	cut_with(ports[BUS], SP_SUB, SP_PUB, frame, 4);
	cut_with(ports[BUS], SP_SUB, SP_PUB, frame, 1);
	fd = dial(ports[BUS]);
	send_all(fd, garbage, strlen(garbage));
	assert_true(is_cut(fd));
	close(fd);
	WAIT_FOR(shared->door.hostile == hostile + 16);
	WAIT_FOR(shared->door.bus.hostile == bus + 4);
	assert_true(alive(door_pid) && alive(gate_pid) && alive(core_pid));
	fd = dial_sp(ports[REQ], SP_REQ, SP_REP);
	echo(fd, 3, "still here");
	close(fd);
}

/* Nobody holds a place by saying nothing, or half a handshake. */
static void slow_handshake(void **state)
{
	uint8_t hello[SP_HANDSHAKE];
	uint64_t began = clock_mono_ns();
	int fds[6];

	(void)state;
	sp_handshake_put(hello, SP_REQ);
	for (unsigned int i = 0; i < 6; i++) {
		fds[i] = dial(ports[i % 3]);
		if (i >= 3)
			send_all(fds[i], hello, 5);
	}
	for (unsigned int i = 0; i < 6; i++) {
		assert_true(is_cut(fds[i]));
		close(fds[i]);
	}
	assert_true(clock_mono_ns() - began > 4 * NS_PER_S);
	assert_true(clock_mono_ns() - began < 9 * NS_PER_S);
}

static void half_message(void **state)
{
	int fd = dial_sp(ports[REQ], SP_REQ, SP_REP), other = dial_sp(ports[REQ], SP_REQ, SP_REP);
	uint8_t head[SP_HEADER_MAX];

	(void)state;
	sp_header_put(head, false, 100);
	send_all(fd, head, 5);
	echo(other, 1, "not held up");
	send_all(fd, head + 5, 3);
	echo(other, 2, "nor now");
	close(fd);
	echo(other, 3, "nor after");
	close(other);
}

/* A nanomsg REQ socket, through our door, raw and cooked. */
static void nanomsg_speaks(void **state)
{
	int s = nn_socket(AF_SP, NN_REQ), timeout = 10000;
	char buf[64];

	(void)state;
	assert_true(s >= 0);
	nn_setsockopt(s, NN_SOL_SOCKET, NN_RCVTIMEO, &timeout, sizeof(timeout));
	assert_true(nn_connect(s, addresses[REQ]) >= 0);
	for (int i = 0; i < 100; i++) {
		int n = snprintf(buf, sizeof(buf), "number %d", i);

		assert_int_equal(nn_send(s, buf, (size_t)n, 0), n);
		assert_int_equal(nn_recv(s, buf, sizeof(buf), 0), n + 1);
		assert_int_equal(buf[0], 'u');
	}
	nn_close(s);
}

static void many_connections(void **state)
{
	static int fds[500];
	uint64_t dropped = shared->door.requests_dropped;
	char buf[64];

	(void)state;
	for (unsigned int i = 0; i < 500; i++)
		fds[i] = dial_sp(ports[REQ], SP_REQ, SP_REP);
	for (unsigned int round = 0; round < 5; round++) {
		for (unsigned int i = 0; i < 500; i++) {
			int n = snprintf(buf, sizeof(buf), "client %u round %u", i, round);

			ask(fds[i], i + 1, buf, (size_t)n);
		}
		for (unsigned int i = 0; i < 500; i++) {
			char want[64], got[64] = {0};
			uint32_t id;

			snprintf(want, sizeof(want), "uclient %u round %u", i, round);
			assert_true(answer(fds[i], &id, got, sizeof(got)) > 0);
			assert_string_equal(got, want);
			assert_int_equal(id, i + 1);
		}
	}
	for (unsigned int i = 0; i < 500; i++)
		close(fds[i]);
	WAIT_FOR(shared->door.connections == 0);
	assert_int_equal(shared->door.requests_dropped, dropped);
	assert_int_equal(shared->gate.replies_dropped, 0);
}

/* 20,000 requests sent without waiting: each is answered, none twice. */
static void flood_loses_nothing(void **state)
{
	enum { REQUESTS = 20000 };
	static uint8_t seen[REQUESTS + 1];
	int fd = dial_sp(ports[REQ], SP_REQ, SP_REP);
	static uint8_t body[500];
	uint32_t id;
	pid_t pid;

	(void)state;
	memset(body, 'b', sizeof(body));
	memset(seen, 0, sizeof(seen));
	pid = fork();
	if (pid == 0) {
		for (unsigned int i = 1; i <= REQUESTS; i++)
			ask(fd, i, body, sizeof(body));
		_exit(0);
	}
	for (unsigned int i = 1; i <= REQUESTS; i++) {
		uint8_t buf[512];

		assert_int_equal(answer(fd, &id, buf, sizeof(buf)), sizeof(body) + 1);
		assert_true(id >= 1 && id <= REQUESTS);
		assert_int_equal(seen[id], 0);
		seen[id] = 1;
	}
	waitpid(pid, NULL, 0);
	close(fd);
}

/* A burst of 5,000 x 1 KB arrives whole at a subscriber that reads. */
static void publish_burst(void **state)
{
	int sub = dial_sp(ports[BUS], SP_SUB, SP_PUB), fd = dial_sp(ports[REQ], SP_REQ, SP_REP);
	static uint8_t message[8 + 1024];

	(void)state;
	WAIT_FOR(shared->door.bus.subscribers == 1);
	echo(fd, 1, "publish 3000");
	for (unsigned int i = 0; i < 3000; i++) {
		assert_int_equal(recv(sub, message, sizeof(message), MSG_WAITALL), sizeof(message));
		assert_int_equal(sp_get32(message + 4), 1024);
		assert_int_equal(atoi((char *)message + 12), i);
	}
	close(sub);
	close(fd);
	assert_int_equal(shared->gate.publish_dropped, 0);
}

/* One that does not read loses messages of its own only, whole ones. */
static void slow_subscriber(void **state)
{
	int slow = dial_sp(ports[BUS], SP_SUB, SP_PUB), sub = dial_sp(ports[BUS], SP_SUB, SP_PUB);
	int fd = dial_sp(ports[REQ], SP_REQ, SP_REP);
	static uint8_t message[8 + 1024];
	int last = -1, gaps = 0;
	pid_t pid;

	(void)state;
	WAIT_FOR(shared->door.bus.subscribers == 2);
	pid = fork();
	if (pid == 0) {
		char buf[64];
		uint32_t id;

		for (unsigned int i = 0; i < 10; i++) {
			ask(fd, i + 1, "publish 2000", 12);
			if (answer(fd, &id, buf, sizeof(buf)) < 0)
				_exit(1);
		}
		_exit(0);
	}
	for (unsigned int i = 0; i < 20000; i++) {
		assert_int_equal(recv(sub, message, sizeof(message), MSG_WAITALL), sizeof(message));
		assert_int_equal(atoi((char *)message + 12), i % 2000);
	}
	waitpid(pid, NULL, 0);
	WAIT_FOR(shared->door.bus.dropped > 0);
	for (unsigned int n = 0; last != 1999 || gaps == 0; n++) {
		int value;

		assert_true(n < 20000);
		assert_int_equal(recv(slow, message, sizeof(message), MSG_WAITALL),
				 sizeof(message));
		assert_int_equal(sp_get32(message + 4), 1024);
		value = atoi((char *)message + 12);
		gaps += value != (last + 1) % 2000;
		last = value;
	}
	close(slow);
	close(sub);
	close(fd);
}

static void gate_killed(void **state)
{
	int fd = dial_sp(ports[REQ], SP_REQ, SP_REP);
	uint64_t connects = shared->door.gate_connects;
	char buf[64];
	uint32_t id;

	(void)state;
	echo(fd, 1, "before");
	stop(&gate_pid);
	WAIT_FOR(!shared->door.has_gate);
	/* What comes now waits. */
	for (uint32_t i = 10; i < 20; i++)
		ask(fd, i, "wait", 4);
	gate_pid = start('g');
	for (uint32_t i = 10; i < 20; i++) {
		assert_int_equal(answer(fd, &id, buf, sizeof(buf)), 5);
		assert_int_equal(id, i);
	}
	WAIT_FOR(shared->door.gate_connects >= connects + 3);
	close(fd);
}

static void core_killed(void **state)
{
	int fd = dial_sp(ports[REQ], SP_REQ, SP_REP);
	char buf[64];
	uint32_t id;

	(void)state;
	stop(&core_pid);
	WAIT_FOR(!shared->gate.has_core);
	for (uint32_t i = 1; i < 30; i++)
		ask(fd, i, "wait", 4);
	core_pid = start('c');
	for (uint32_t i = 1; i < 30; i++) {
		assert_int_equal(answer(fd, &id, buf, sizeof(buf)), 5);
		assert_int_equal(id, i);
	}
	close(fd);
}

static void door_killed(void **state)
{
	int fd = dial_sp(ports[REQ], SP_REQ, SP_REP);

	(void)state;
	echo(fd, 1, "before");
	stop(&door_pid);
	assert_true(is_cut(fd));
	close(fd);
	door_pid = start('d');
	fd = dial_sp(ports[REQ], SP_REQ, SP_REP);
	echo(fd, 2, "after");
	close(fd);
}

/* While nobody reads behind it the door takes a bounded amount, stops reading, and loses nothing. */
static void gate_away_is_bounded(void **state)
{
	enum { CLIENTS = 40, EACH = 63 };
	static uint8_t body[8000], buf[8192];
	int fds[CLIENTS];
	uint64_t dropped = shared->door.requests_dropped;
	uint32_t late_id = 0;
	pid_t pid;
	int late, silent;

	(void)state;
	for (unsigned int i = 0; i < CLIENTS; i++)
		fds[i] = dial_sp(ports[REQ], SP_REQ, SP_REP);
	stop(&gate_pid);
	WAIT_FOR(!shared->door.has_gate);
	pid = fork();
	if (pid == 0) {
		for (unsigned int n = 1; n <= EACH; n++)
			for (unsigned int i = 0; i < CLIENTS; i++)
				ask(fds[i], n, body, sizeof(body));
		_exit(0);
	}
	WAIT_FOR(shared->door.queued_bytes > (4u << 20));
	assert_true(shared->door.queued_bytes < (8u << 20));
	/* Who comes now has to wait, and is let in: it is there when who came later and says nothing
	 * is cut off. */
	late = dial_sp(ports[REQ], SP_REQ, SP_REP);
	silent = dial(ports[REQ]);
	assert_true(is_cut(silent));
	close(silent);
	ask(late, 5, "late", 4);
	gate_pid = start('g');
	for (unsigned int i = 0; i < CLIENTS; i++)
		for (unsigned int n = 1; n <= EACH; n++) {
			uint32_t id = 0;

			assert_int_equal(answer(fds[i], &id, buf, sizeof(buf)), sizeof(body) + 1);
			assert_int_equal(id, n);
		}
	assert_int_equal(answer(late, &late_id, buf, sizeof(buf)), 5);
	close(late);
	waitpid(pid, NULL, 0);
	assert_int_equal(shared->door.requests_dropped, dropped);
	for (unsigned int i = 0; i < CLIENTS; i++)
		close(fds[i]);
}

/* Unanswered requests hold up their sender for some seconds only. */
static void silent_core(void **state)
{
	int fd = dial_sp(ports[REQ], SP_REQ, SP_REP);
	char buf[64];
	uint32_t id;

	(void)state;
	for (uint32_t i = 1; i <= 70; i++)
		ask(fd, i, "silent", 6);
	ask(fd, 99, "answer", 6);
	assert_int_equal(answer(fd, &id, buf, sizeof(buf)), 7);
	assert_int_equal(id, 99);
	close(fd);
}

static void too_many(void **state)
{
	int fds[6];

	(void)state;
	stop(&door_pid);
	shared->connections = 4;
	door_pid = start('d');
	for (unsigned int i = 0; i < 4; i++)
		fds[i] = dial_sp(ports[REQ], SP_REQ, SP_REP);
	fds[4] = dial(ports[REQ]);
	assert_true(is_cut(fds[4]));
	WAIT_FOR(shared->door.refused == 1);
	close(fds[0]);
	WAIT_FOR(shared->door.connections == 3);
	fds[5] = dial_sp(ports[REQ], SP_REQ, SP_REP);
	echo(fds[5], 1, "a place is free again");
	for (unsigned int i = 1; i < 6; i++)
		close(fds[i]);
	stop(&door_pid);
	shared->connections = 800;
	door_pid = start('d');
	WAIT_FOR(shared->door.has_gate);
}

/* Restarts the door as shared says. */
static void restart_door(void)
{
	stop(&door_pid);
	memset(&shared->door, 0, sizeof(shared->door));
	door_pid = start('d');
	WAIT_FOR(shared->door.has_gate);
}

/* Without descriptors the door waits, it does not spin; who is in is served, who waits gets in. */
static void out_of_descriptors(void **state)
{
	int fds[60], fd;
	struct rusage usage;
	uint64_t began;
	int status;

	(void)state;
	shared->few_descriptors = true;
	restart_door();
	fd = dial_sp(ports[REQ], SP_REQ, SP_REP);
	began = clock_mono_ns();
	for (unsigned int i = 0; i < 60; i++)
		fds[i] = dial(ports[REQ]);
	WAIT_FOR(shared->door.stalls >= 2);
	echo(fd, 1, "served all the same");
	for (unsigned int i = 0; i < 60; i++)
		close(fds[i]);
	close(fd);
	fd = dial_sp(ports[REQ], SP_REQ, SP_REP);
	echo(fd, 2, "in at last");
	close(fd);
	kill(door_pid, SIGKILL);
	assert_int_equal(wait4(door_pid, &status, 0, &usage), door_pid);
	door_pid = 0;
	/* A spinning door would have used all of the time. */
	assert_true((uint64_t)usage.ru_utime.tv_sec * NS_PER_S +
			    (uint64_t)usage.ru_utime.tv_usec * 1000 +
			    (uint64_t)usage.ru_stime.tv_sec * NS_PER_S +
			    (uint64_t)usage.ru_stime.tv_usec * 1000 <
		    (clock_mono_ns() - began) / 4);
	shared->few_descriptors = false;
	restart_door();
}

static int dial_door_ipc(void)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct timeval tv = {.tv_sec = 15};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	uint8_t hello[SP_HANDSHAKE];

	snprintf(un.sun_path, sizeof(un.sun_path), "%s/door", dir);
	assert_int_equal(connect(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	sp_handshake_put(hello, SP_REQ);
	send_all(fd, hello, sizeof(hello));
	assert_int_equal(recv(fd, hello, sizeof(hello), MSG_WAITALL), sizeof(hello));
	return fd;
}

/* Over ipc: a type byte that kills nanomsg only ends its connection. */
static void ipc_door(void **state)
{
	static const uint8_t good[] = {1, 0, 0, 0, 0, 0, 0, 0, 6, 0x80, 0, 0, 1, 'h', 'i'};
	uint8_t b[32];
	int fd;

	(void)state;
	shared->wants_ipc = true;
	restart_door();
	for (uint8_t type = 0; type < 4; type++) {
		fd = dial_door_ipc();
		memcpy(b, good, sizeof(good));
		b[0] = type;
		send_all(fd, b, sizeof(good));
		if (type == 1) {
			assert_int_equal(recv(fd, b, 16, MSG_WAITALL), 16);
			assert_memory_equal(b + 9, "\x80\0\0\1uhi", 7);
		} else {
			assert_true(is_cut(fd));
		}
		close(fd);
	}
	WAIT_FOR(shared->door.hostile == 3);
	shared->wants_ipc = false;
	stop(&door_pid);
	restart_door();
}

/* An independent client: nngcat of nng. */
static void nngcat_asks(void **state)
{
	char line[64] = {0}, command[128];
	FILE *f;

	(void)state;
	if (access("/usr/bin/nngcat", X_OK) < 0)
		skip();
	snprintf(command, sizeof(command), "timeout 20 nngcat --req --dial %s --data snap --ascii",
		 addresses[SNAP]);
	f = popen(command, "r");
	assert_non_null(f);
	assert_non_null(fgets(line, sizeof(line), f));
	line[strcspn(line, "\n")] = '\0';
	assert_string_equal(line, "ssnap");
	pclose(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(few_snapshots_at_once),
		cmocka_unit_test(devices_and_size),
		cmocka_unit_test(hostile_frames),
		cmocka_unit_test(slow_handshake),
		cmocka_unit_test(half_message),
		cmocka_unit_test(many_connections),
		cmocka_unit_test(flood_loses_nothing),
		cmocka_unit_test(publish_burst),
		cmocka_unit_test(slow_subscriber),
		cmocka_unit_test(gate_killed),
		cmocka_unit_test(core_killed),
		cmocka_unit_test(door_killed),
		cmocka_unit_test(gate_away_is_bounded),
		cmocka_unit_test(silent_core),
		cmocka_unit_test(too_many),
		cmocka_unit_test(out_of_descriptors),
		cmocka_unit_test(ipc_door),
		cmocka_unit_test(nngcat_asks),
		/* Last: nanomsg's thread does not survive the forks of the others. */
		cmocka_unit_test(nanomsg_speaks),
	};

	signal(SIGPIPE, SIG_IGN);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, setup, teardown);
}
