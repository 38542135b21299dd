/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes at the aggregator's listeners, the whole way: a door, a gate with its nanomsg sockets and
 * the core's end of its link run in this process. The input is what a stranger writes on a connection
 * of its own; beside it an honest connection asks and must be answered, and what comes out at the core
 * must be what the door lets in: with a passport that says local, answered nowhere but at the stranger.
 *
 * Byte 0: bits 0-1 the listener (requests, snapshots, bus), bit 2 a right handshake goes first, bits
 * 3-7 how the bytes are cut.
 */
#include "bus/gate.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"
#include "bus/door.h"
#include "bus/gatelink.h"
#include "bus/sp.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define HONEST "an honest question"
#define LATE   (8 * NS_PER_S)

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct loop *loop;
static struct gatelink_server *core;
static struct gate *gate;
static struct door *door;
static char dir[64];
static int honest_fd = -1;
static uint32_t asked, answered;
static uint64_t deadline_ns;
static bool is_in_between; /* the stranger is still there */

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "fuzz gate: %s\n", what);
	abort();
}

static void on_request(void *data, const struct gatelink_handle *handle,
		       const struct passport *from, const uint8_t *payload, size_t size)
{
	uint8_t packed[PASSPORT_BYTES_MAX];
	struct passport again;
	size_t n = passport_pack(from, packed);

	(void)data;
	must(from->kind == PASSPORT_LOCAL && from->size == 0, "a stranger wrote its own passport");
	must(passport_unpack(packed, n, &again) == (int)n, "a passport that does not come back");
	must(handle->size >= 8 && handle->size <= GATELINK_HANDLE_MAX, "the way back is too short");
	must(size <= GATELINK_PAYLOAD_MAX, "a request above the limit");
	gatelink_reply(core, handle, payload, size);
}

static int dial(const char *name)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	snprintf(un.sun_path, sizeof(un.sun_path), "%s/%s", dir, name);
	must(fd >= 0 && connect(fd, (struct sockaddr *)&un, sizeof(un)) == 0, "cannot connect");
	return fd;
}

static bool is_settled(void)
{
	struct door_stats s;

	door_stats(door, &s);
	return answered == asked &&
	       (is_in_between || (s.connections == 1 && s.bus.subscribers == 0));
}

/* Called in every turn of the loop: a descriptor that can always be read. */
static void on_look(void *data, int fd, unsigned int events)
{
	(void)data;
	(void)fd;
	(void)events;
	if (clock_mono_ns() >= deadline_ns) {
		struct door_stats s;

		door_stats(door, &s);
		fprintf(stderr, "fuzz gate: connections %u, asked %u, answered %u, dropped %lu\n",
			s.connections, asked, answered, (unsigned long)s.requests_dropped);
		must(false, "the honest connection is not served, or the stranger stays");
	}
	if (is_settled())
		loop_stop(loop);
}

static void run_until_settled(void)
{
	deadline_ns = clock_mono_ns() + LATE;
	loop_run(loop);
}

static void on_answer(void *data, int fd, unsigned int events)
{
	static uint8_t buf[256];
	static size_t have;
	static bool is_ready;
	const size_t whole = SP_HEADER_MAX + 4 + strlen(HONEST);
	ssize_t n = read(fd, buf + have, sizeof(buf) - have);

	(void)data;
	(void)events;
	if (n < 0 && errno == EAGAIN)
		return;
	must(n > 0, "the honest connection was cut");
	have += (size_t)n;
	if (!is_ready && have >= SP_HANDSHAKE) {
		is_ready = true;
		have -= SP_HANDSHAKE;
		memmove(buf, buf + SP_HANDSHAKE, have);
	}
	while (is_ready && have >= whole) {
		must(memcmp(buf + SP_HEADER_MAX + 4, HONEST, strlen(HONEST)) == 0 &&
			     sp_get32(buf + SP_HEADER_MAX) == (asked | 0x80000000u),
		     "the honest connection got another's answer");
		answered++;
		have -= whole;
		memmove(buf, buf + whole, have);
	}
	must(have < whole || !is_ready, "the honest connection got something else");
}

static void ask(void)
{
	uint8_t message[SP_HEADER_MAX + 4 + sizeof(HONEST)];
	size_t n = sp_header_put(message, true, 4 + strlen(HONEST));

	sp_put32(message + n, ++asked | 0x80000000u);
	memcpy(message + n + 4, HONEST, strlen(HONEST));
	n += 4 + strlen(HONEST);
	must(send(honest_fd, message, n, MSG_NOSIGNAL) == (ssize_t)n, "cannot ask");
}

static void clean_up(void)
{
	char path[128];

	for (unsigned int i = 0; i < 7; i++) {
		static const char *const names[] = {"req",       "snap",     "bus",      "gate.req",
						    "gate.snap", "gate.pub", "core.sock"};

		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		unlink(path);
	}
	rmdir(dir);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	char request[96], snapshot[96], bus[96], path[96];
	struct door_spec spec = {
		.address = request,
		.bus_address = bus,
		.snapshot_address = snapshot,
		.gate_dir = dir,
		.connections = 64,
		.subscribers = 64,
	};
	struct loop_watch *watch;
	uint8_t hello[SP_HANDSHAKE];
	struct err e = {0};

	(void)argc;
	(void)argv;
	strcpy(dir, "/tmp/tidegate-fuzz-XXXXXX");
	must(mkdtemp(dir), "no directory");
	atexit(clean_up);
	snprintf(request, sizeof(request), "ipc://%s/req", dir);
	snprintf(snapshot, sizeof(snapshot), "ipc://%s/snap", dir);
	snprintf(bus, sizeof(bus), "ipc://%s/bus", dir);
	snprintf(path, sizeof(path), "%s/core.sock", dir);
	must(loop_open(&loop) == 0, "no loop");
	must(loop_add_fd(loop, eventfd(1, EFD_CLOEXEC), LOOP_READ, on_look, NULL, &watch) == 0,
	     "no watch");
	must(gatelink_server_open(loop, path, on_request, NULL, &core, &e) == 0, e.text);
	must(gate_open(loop, dir, &gate, &e) == 0, e.text);
	must(door_open(loop, &spec, &door, &e) == 0, e.text);
	honest_fd = dial("req");
	must(loop_add_fd(loop, honest_fd, LOOP_READ, on_answer, NULL, &watch) == 0, "no watch");
	sp_handshake_put(hello, SP_REQ);
	must(send(honest_fd, hello, sizeof(hello), 0) == sizeof(hello), "no handshake");
	ask();
	run_until_settled();
	return 0;
}

/* What a core reads of its link, and the names of a certificate, without a connection. */
static void read_passport(const uint8_t *data, size_t size)
{
	uint8_t packed[PASSPORT_BYTES_MAX];
	struct gatelink_message m;
	struct passport p, again;
	int n;

	if (gatelink_parse(data, size, &m) == 0 && m.type != GATELINK_PUBLISH)
		must(m.payload + m.size == data + size, "a message that ends elsewhere");
	n = passport_unpack(data, size, &p);
	if (n >= 0) {
		must(n <= (int)size, "a passport beyond its message");
		passport_allows(&p, "chaos-1");
		must(passport_pack(&p, packed) <= (size_t)n, "a passport that grows");
	}
	passport_init(&p, PASSPORT_NAMED, "192.0.2.1:5000");
	for (size_t at = 0; at < size; at += 17) {
		size_t part = size - at < 17 ? size - at : 17;

		passport_add_dns(&p, (const char *)data + at, part);
		passport_add_uri(&p, (const char *)data + at, size - at);
	}
	n = (int)passport_pack(&p, packed);
	must(passport_unpack(packed, (size_t)n, &again) == n, "a passport that does not come back");
	must(passport_allows(&p, "team-a/x") == passport_allows(&again, "team-a/x"),
	     "a passport that changed its mind");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct {
		const char *name;
		uint16_t protocol;
	} listeners[] = {{"req", SP_REQ}, {"snap", SP_REQ}, {"bus", SP_SUB}, {"req", SP_REQ}};
	unsigned int which;
	size_t step;
	int fd;

	if (size < 1)
		return 0;
	read_passport(data + 1, size - 1);
	which = data[0] & 3;
	step = data[0] >> 3 ? 1u << (data[0] >> 3) % 12 : size;
	fd = dial(listeners[which].name);
	if (data[0] & 4) {
		uint8_t hello[SP_HANDSHAKE];

		sp_handshake_put(hello, listeners[which].protocol);
		send(fd, hello, sizeof(hello), MSG_NOSIGNAL);
	}
	for (size_t at = 1, turns = 0; at < size; at += step, turns++) {
		size_t n = size - at < step ? size - at : step;

		/* Now and then the door sees the part that is there. */
		if (turns && turns < 4) {
			is_in_between = true;
			ask();
			run_until_settled();
			is_in_between = false;
		}
		if (send(fd, data + at, n, MSG_NOSIGNAL) < 0)
			break;
	}
	close(fd);
	ask();
	run_until_settled();
	return 0;
}
