/* SPDX-License-Identifier: Apache-2.0 */
/* The gate's socket to the core: its messages, its limits, hostile peers; the gate without a core. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/str.h"
#include "bus/bundle.h"
#include "bus/gate.h"
#include "bus/gatelink.h"
#include "bus/sp.h"

#include <errno.h>
#include <nanomsg/nn.h>
#include <nanomsg/pair.h>
#include <nanomsg/pipeline.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static struct loop *loop;
static struct loop_watch *poller;
static bool (*until)(void);
static uint64_t deadline_ns;
static char dir[64], core_path[128];

static struct gatelink_server *server;
static struct gatelink_stats stats;
static struct gatelink_handle last;
static uint8_t last_payload[64];
static size_t last_size;
static unsigned int requests;
static uint64_t wanted;

static void poll_condition(void *data)
{
	(void)data;
	if (until() || clock_mono_ns() > deadline_ns)
		loop_stop(loop);
}

#define run_until(condition) run_until_at(condition, #condition, __LINE__)

static void run_until_at(bool (*condition)(void), const char *what, int line)
{
	until = condition;
	deadline_ns = clock_mono_ns() + 10 * NS_PER_S;
	assert_int_equal(loop_set_timer(poller, 0, 1), 0);
	loop_run(loop);
	if (!condition())
		fail_msg("line %d: never: %s", line, what);
}

static void on_request(void *data, const struct gatelink_handle *handle,
		       const struct passport *from, const uint8_t *payload, size_t size)
{
	(void)data;
	assert_int_equal(from->kind, PASSPORT_LOCAL);
	last = *handle;
	last_size = size;
	memcpy(last_payload, payload, size < sizeof(last_payload) ? size : sizeof(last_payload));
	requests++;
}

static bool is_connected(void)
{
	gatelink_server_stats(server, &stats);
	return stats.is_connected;
}

static bool is_gone(void)
{
	return !is_connected();
}

static bool has_requests(void)
{
	return requests >= wanted;
}

static int setup(void **state)
{
	struct err e = {0};

	(void)state;
	strcpy(dir, "/tmp/tidegate-gate-XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(core_path, sizeof(core_path), "%s/core.sock", dir);
	assert_int_equal(loop_open(&loop), 0);
	assert_int_equal(loop_add_timer(loop, 1000000, 0, poll_condition, NULL, &poller), 0);
	assert_int_equal(gatelink_server_open(loop, core_path, on_request, NULL, &server, &e), 0);
	requests = 0;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	server = gatelink_server_close(server);
	loop_close(loop);
	return rmdir(dir);
}

static int dial(void)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct timeval tv = {.tv_sec = 10};
	uint8_t hello[SP_HANDSHAKE];
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	assert_true(str_copy(un.sun_path, sizeof(un.sun_path), core_path));
	assert_int_equal(connect(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	sp_handshake_put(hello, SP_PAIR);
	assert_int_equal(send(fd, hello, sizeof(hello), 0), sizeof(hello));
	run_until(is_connected);
	assert_int_equal(recv(fd, hello, sizeof(hello), MSG_WAITALL), sizeof(hello));
	return fd;
}

static void send_message(int fd, const void *data, size_t size)
{
	uint8_t head[SP_HEADER_MAX];

	assert_int_equal(send(fd, head, sp_header_put(head, true, size), 0), 9);
	assert_int_equal(send(fd, data, size, 0), size);
}

static void parses(void **state)
{
	static const uint8_t good[] = {1, 0, 4, 0x80, 0, 0, 1, 'p', 'q'};
	struct gatelink_message m;
	uint8_t b[9];

	(void)state;
	assert_int_equal(gatelink_parse(good, sizeof(good), &m), 0);
	assert_int_equal(m.handle_size, 4);
	assert_int_equal(m.size, 2);
	assert_memory_equal(m.payload, "pq", 2);
	for (size_t size = 0; size < 7; size++)
		assert_int_equal(gatelink_parse(good, size, &m), -EBADMSG);
	assert_int_equal(gatelink_parse(good, 7, &m), 0); /* an empty payload is one */
	for (size_t i = 0; i < 3; i++) {
		static const uint8_t bad[] = {4, 2, 65};

		memcpy(b, good, sizeof(b));
		b[i] = bad[i];
		assert_int_equal(gatelink_parse(b, sizeof(b), &m), -EBADMSG);
	}
	memcpy(b, good, sizeof(b));
	b[2] = 0;
	assert_int_equal(gatelink_parse(b, sizeof(b), &m), -EBADMSG);
	b[0] = GATELINK_PUBLISH;
	assert_int_equal(gatelink_parse(b, 1, &m), -EBADMSG);
	assert_int_equal(gatelink_parse(b, 2, &m), 0);
}

static void request_and_reply(void **state)
{
	static const uint8_t request[] = {1, 1, 4, 0x80, 0, 0, 9, 0, 0, 0, 0, 'a', 's', 'k'};
	static const uint8_t reply[] = {2, 1, 4, 0x80, 0, 0, 9, 'o', 'k'};
	struct gatelink_handle old;
	uint8_t b[64];
	int fd;

	(void)state;
	assert_int_equal(gatelink_publish(server, (const uint8_t *)"t\0x", 3), -ENOTCONN);
	fd = dial();
	send_message(fd, request, sizeof(request));
	wanted = 1;
	run_until(has_requests);
	assert_int_equal(last.channel, GATELINK_SNAPSHOT);
	assert_int_equal(last.size, 4);
	assert_int_equal(last_size, 3);
	assert_memory_equal(last_payload, "ask", 3);
	assert_int_equal(gatelink_reply(server, &last, (const uint8_t *)"ok", 2), 0);
	gatelink_flush(server);
	assert_int_equal(recv(fd, b, 9 + sizeof(reply), MSG_WAITALL), 9 + sizeof(reply));
	assert_memory_equal(b + 9, reply, sizeof(reply));
	assert_int_equal(gatelink_publish(server, (const uint8_t *)"t\0x", 3), 0);
	gatelink_flush(server);
	assert_int_equal(recv(fd, b, 9 + 4, MSG_WAITALL), 13);
	assert_memory_equal(b + 9, "\3t\0x", 4);
	/* A reply to who asked through an older gate goes nowhere. */
	old = last;
	close(fd);
	run_until(is_gone);
	assert_int_equal(gatelink_reply(server, &old, (const uint8_t *)"ok", 2), -ENOTCONN);
	fd = dial();
	assert_int_equal(gatelink_reply(server, &old, (const uint8_t *)"ok", 2), -ENOTCONN);
	gatelink_server_stats(server, &stats);
	assert_int_equal(stats.replies_dropped, 2);
	assert_int_equal(stats.publish_dropped, 1);
	close(fd);
}

static void limits(void **state)
{
	static const uint8_t request[] = {1, 0, 4, 0x80, 0, 0, 9, 0, 0, 0, 0};
	static uint8_t big[GATELINK_MESSAGE_MAX + 1];
	unsigned int n = 0;
	int fd = dial();

	(void)state;
	send_message(fd, request, sizeof(request));
	wanted = 1;
	run_until(has_requests);
	assert_int_equal(gatelink_reply(server, &last, big, GATELINK_PAYLOAD_MAX + 1), -EMSGSIZE);
	assert_int_equal(gatelink_publish(server, big, sizeof(big)), -EMSGSIZE);
	/* Nobody reads: publishing stops first, replies still have room, then they stop, too. */
	while (n < 1000 && gatelink_publish(server, big, 1 << 20) == 0)
		n++;
	assert_in_range(n, 40, 60);
	for (n = 0; n < 1000 && gatelink_reply(server, &last, big, 1 << 19) == 0;)
		n++;
	assert_in_range(n, 16, 64);
	gatelink_server_stats(server, &stats);
	assert_true(stats.queued_bytes <= 64u << 20);
	close(fd);
}

static void hostile(void **state)
{
	static const uint8_t wrong[][4] = {{9}, {2, 0, 1, 1}, {3, 'x'}, {1, 7, 1, 1}};

	(void)state;
	for (unsigned int i = 0; i < 4; i++) {
		int fd = dial();
		uint8_t b[1];

		send_message(fd, wrong[i], sizeof(wrong[i]));
		run_until(is_gone);
		assert_int_equal(recv(fd, b, 1, 0), 0);
		close(fd);
	}
	assert_int_equal(requests, 0);
}

static unsigned int ticks;

/* The loop has been round often enough to have read what there was. */
static bool has_ticked(void)
{
	return ticks++ > 30;
}

static void pause_holds(void **state)
{
	static const uint8_t request[] = {1, 0, 4, 0x80, 0, 0, 9, 0, 0, 0, 0};
	int fd = dial();

	(void)state;
	gatelink_pause(server, true);
	for (unsigned int i = 0; i < 10; i++)
		send_message(fd, request, sizeof(request));
	ticks = 0;
	run_until(has_ticked);
	assert_int_equal(requests, 0);
	gatelink_pause(server, false);
	wanted = 10;
	run_until(has_requests);
	close(fd);
}

/* ---- the gate itself, with nanomsg on the door's side ---- */

static struct gate *gate;
static struct gate_stats gate_said;

static bool gate_has_core(void)
{
	gate_stats(gate, &gate_said);
	return gate_said.has_core;
}

static bool gate_has_none(void)
{
	return !gate_has_core();
}

static int pull;

static bool is_published;

static bool has_published(void)
{
	char b[64];

	if (nn_recv(pull, b, sizeof(b), NN_DONTWAIT) == BUNDLE_HEAD + 3 &&
	    memcmp(b, "\0\0\0\3t\0x", BUNDLE_HEAD + 3) == 0)
		is_published = true;
	return is_published;
}

static void gate_carries(void **state)
{
	/* Bundles: each message after its size. */
	static const uint8_t ask[] = {0, 0, 0, 14, 0, 0, 0, 5, 0x80, 0, 0, 1, 0, 0, 0, 0, 'h', 'i'};
	static const uint8_t refused[] = {
		0, 0, 0, 10, 0, 0, 0, 5, 0x80, 0, 0, 1, 'h', 'i', /* no passport */
		0, 0, 0, 10, 0, 0, 0, 5, 0,    0, 0, 1, 'h', 'i', /* no trace */
		0, 0, 0, 9,  0};                                  /* cut off */
	struct gatelink_server *s;
	struct err e = {0};
	char address[128];
	int req, timeout = 10000, n;
	uint8_t b[64];

	(void)state;
	assert_int_equal(gate_open(loop, dir, &gate, &e), 0);
	run_until(gate_has_core);
	req = nn_socket(AF_SP, NN_PAIR);
	nn_setsockopt(req, NN_SOL_SOCKET, NN_RCVTIMEO, &timeout, sizeof(timeout));
	snprintf(address, sizeof(address), "ipc://%s/gate.req", dir);
	assert_true(nn_connect(req, address) >= 0);
	pull = nn_socket(AF_SP, NN_PULL);
	snprintf(address, sizeof(address), "ipc://%s/gate.pub", dir);
	assert_true(nn_connect(pull, address) >= 0);
	nn_send(req, refused, sizeof(refused), 0);
	nn_send(req, ask, sizeof(ask), 0);
	wanted = 1;
	run_until(has_requests);
	assert_int_equal(last.size, 8);
	assert_memory_equal(last.bytes, ask + BUNDLE_HEAD, 8);
	assert_int_equal(last_size, 2);
	assert_memory_equal(last_payload, "hi", 2);
	gatelink_server_stats(server, &stats);
	assert_int_equal(stats.malformed, 1);
	gate_stats(gate, &gate_said);
	assert_int_equal(gate_said.refused, 2);
	assert_int_equal(gatelink_reply(server, &last, (const uint8_t *)"yes", 3), 0);
	assert_int_equal(gatelink_publish(server, (const uint8_t *)"t\0x", 3), 0);
	run_until(has_published);
	n = nn_recv(req, b, sizeof(b), 0);
	assert_int_equal(n, BUNDLE_HEAD + 11);
	assert_memory_equal(b + BUNDLE_HEAD + 8, "yes", 3);
	/* Without a core nothing is read; with a new one it comes. */
	s = server;
	server = NULL;
	gatelink_server_close(s);
	run_until(gate_has_none);
	for (unsigned int i = 0; i < 5; i++)
		assert_int_equal(nn_send(req, ask, sizeof(ask), 0), sizeof(ask));
	assert_int_equal(gatelink_server_open(loop, core_path, on_request, NULL, &server, &e), 0);
	wanted = 6;
	run_until(has_requests);
	gate_close(gate);
	nn_close(req);
	nn_close(pull);
}

static void gate_says_why(void **state)
{
	struct err e = {0};

	(void)state;
	assert_true(gate_open(loop, "/nonexistent/tidegate", &gate, &e) < 0);
	assert_non_null(strstr(e.text, "/nonexistent/tidegate: "));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(parses, setup, teardown),
		cmocka_unit_test_setup_teardown(request_and_reply, setup, teardown),
		cmocka_unit_test_setup_teardown(limits, setup, teardown),
		cmocka_unit_test_setup_teardown(hostile, setup, teardown),
		cmocka_unit_test_setup_teardown(pause_holds, setup, teardown),
		cmocka_unit_test_setup_teardown(gate_carries, setup, teardown),
		cmocka_unit_test_setup_teardown(gate_says_why, setup, teardown),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
