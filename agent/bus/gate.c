/* SPDX-License-Identifier: Apache-2.0 */
/* Between nanomsg (the door's side) and the core's socket. Owns both. Process: gate. */
#include "bus/gate.h"

#include "base/listen.h"
#include "bus/bundle.h"
#include "bus/gatelink.h"
#include "bus/peer.h"

#include <errno.h>
#include <nanomsg/nn.h>
#include <nanomsg/pair.h>
#include <nanomsg/pipeline.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define BATCH         256         /* bundles per event */
#define CORE_BYTES    (4u << 20)  /* requests on their way to the core; no more are read */
#define DOOR_BYTES    (16u << 20) /* replies or published messages that wait for the door */
#define DOOR_MESSAGES 65536
/* A whole message with what the door puts in: its hop and the passport. */
#define RECV_MAX       (BUNDLE_BYTES + SP_MESSAGE_MAX + 64 + PASSPORT_BYTES_MAX)
#define RETRY_FIRST_MS 20
#define RETRY_LAST_MS  500

struct socket {
	struct gate *gate;
	int nn;
	bool can_receive;
	uint8_t channel;
	struct loop_watch *receive, *send;
	struct bundle open; /* what came in this turn of the loop */
	struct outbox queue;
	uint64_t dropped;
};

enum { SOCKET_REQ = GATELINK_UPLINK, SOCKET_SNAP = GATELINK_SNAPSHOT, SOCKET_PUB, SOCKET_COUNT };

static const struct {
	const char *name;
	int protocol;
	bool can_receive;
} kinds[SOCKET_COUNT] = {
	[SOCKET_REQ] = {"gate.req", NN_PAIR, true},
	[SOCKET_SNAP] = {"gate.snap", NN_PAIR, true},
	[SOCKET_PUB] = {"gate.pub", NN_PUSH, false},
};

struct gate {
	struct loop *loop;
	struct socket sockets[SOCKET_COUNT];
	char core_address[160];
	struct peer *core;
	struct loop_watch *retry, *turn;
	unsigned int retry_ms;
	struct gate_stats stats;
};

/* ---- towards the door ---- */

static void socket_flush(struct socket *s)
{
	struct parcel *p;
	int n = 0;

	while ((p = outbox_first(&s->queue)) && n++ < BATCH) {
		if (nn_send(s->nn, parcel_message(p), p->size, NN_DONTWAIT) < 0)
			break;
		outbox_pop(&s->queue);
	}
	loop_set_events(s->send, s->queue.count ? LOOP_READ : 0);
}

static void on_sendable(void *data, int fd, unsigned int events)
{
	(void)fd;
	(void)events;
	socket_flush(data);
}

static void update_receive(struct gate *g);

/* The open bundle becomes one message for nanomsg. */
static void bundle_close(struct socket *s)
{
	struct parcel *p;

	if (!s->open.count)
		return;
	p = parcel_new(s->open.data, s->open.size, NULL, 0, NULL);
	if (!p || outbox_push(&s->queue, p) < 0)
		s->dropped += s->open.count;
	parcel_unref(p);
	bundle_reset(&s->open);
	socket_flush(s);
}

static void on_turn(void *data)
{
	struct gate *g = data;

	for (unsigned int i = 0; i < SOCKET_COUNT; i++)
		bundle_close(&g->sockets[i]);
	if (g->core)
		peer_kick(g->core);
	update_receive(g);
}

static void socket_push(struct socket *s, const void *head, size_t head_size, const void *body,
			size_t size)
{
	if (s->queue.bytes + s->open.size + head_size + size > DOOR_BYTES ||
	    bundle_add(&s->open, head, head_size, body, size) < 0)
		s->dropped++;
	else if (s->open.size >= BUNDLE_BYTES)
		bundle_close(s);
}

static int on_core_message(void *data, struct peer *peer, const uint8_t *message, size_t size)
{
	struct gate *g = data;
	struct gatelink_message m;
	int r = gatelink_parse(message, size, &m);

	(void)peer;
	if (r < 0 || m.type == GATELINK_REQUEST)
		return -EPROTO;
	if (m.type == GATELINK_PUBLISH) {
		g->stats.published++;
		socket_push(&g->sockets[SOCKET_PUB], NULL, 0, m.payload, m.size);
	} else {
		g->stats.replies++;
		socket_push(&g->sockets[m.channel], m.handle, m.handle_size, m.payload, m.size);
	}
	return 0;
}

/* ---- towards the core ---- */

static bool core_takes(const struct gate *g)
{
	const struct outbox *o = g->core && peer_is_ready(g->core) ? peer_outbox(g->core) : NULL;

	return o && o->bytes < CORE_BYTES && o->count < DOOR_MESSAGES / 2;
}

static void update_receive(struct gate *g)
{
	unsigned int events = core_takes(g) ? LOOP_READ : 0;

	for (unsigned int i = 0; i < SOCKET_COUNT; i++)
		if (g->sockets[i].receive)
			loop_set_events(g->sockets[i].receive, events);
}

static void forward(struct gate *g, uint8_t channel, const uint8_t *message, size_t size)
{
	uint8_t head[GATELINK_HANDLE_MAX + 3];
	struct parcel *p;
	size_t head_size;
	int trace = sp_backtrace(message, size);

	if (trace < 0) {
		g->stats.refused++;
		return;
	}
	head_size = gatelink_head(head, GATELINK_REQUEST, channel, message, (size_t)trace);
	p = parcel_new(head, head_size, message + trace, size - (size_t)trace, NULL);
	if (!p || outbox_push(peer_outbox(g->core), p) < 0)
		g->stats.refused++;
	else
		g->stats.requests++;
	parcel_unref(p);
}

static void forward_all(struct socket *s, const uint8_t *bundle, size_t size)
{
	const uint8_t *message;
	size_t at = 0, n;
	int r;

	while ((r = bundle_next(bundle, size, &at, &message, &n)) > 0)
		forward(s->gate, s->channel, message, n);
	s->gate->stats.refused += r < 0;
}

static void on_receivable(void *data, int fd, unsigned int events)
{
	struct socket *s = data;
	struct gate *g = s->gate;

	(void)fd;
	(void)events;
	for (int i = 0; i < BATCH && core_takes(g); i++) {
		void *message = NULL;
		int n = nn_recv(s->nn, &message, NN_MSG, NN_DONTWAIT);

		if (n < 0)
			break;
		forward_all(s, message, (size_t)n);
		nn_freemsg(message);
	}
}

static void core_retry(struct gate *g)
{
	/* One timer from the start: arming cannot fail for want of memory. */
	loop_set_timer(g->retry, g->retry_ms, 0);
	g->retry_ms = g->retry_ms * 2 > RETRY_LAST_MS ? RETRY_LAST_MS : g->retry_ms * 2;
}

static void on_core_ready(void *data, struct peer *peer)
{
	struct gate *g = data;

	(void)peer;
	g->retry_ms = RETRY_FIRST_MS;
	g->stats.core_connects++;
	update_receive(g);
}

static void on_core_drained(void *data, struct peer *peer)
{
	(void)peer;
	update_receive(data);
}

static void on_core_closed(void *data, struct peer *peer, int r)
{
	struct gate *g = data;

	(void)peer;
	(void)r;
	g->core = NULL;
	update_receive(g);
	core_retry(g);
}

static void core_connect(void *data)
{
	struct gate *g = data;
	const struct peer_spec spec = {
		.self = SP_PAIR,
		.expect = SP_PAIR,
		.is_ipc = true,
		.message_max = GATELINK_FRAME_MAX,
		.queue_bytes = CORE_BYTES + 2 * GATELINK_FRAME_MAX,
		.queue_messages = DOOR_MESSAGES,
		.on_ready = on_core_ready,
		.on_message = on_core_message,
		.on_drained = on_core_drained,
		.on_closed = on_core_closed,
	};
	int fd, r;

	r = listen_connect(g->core_address, &fd, NULL);
	if (r == 0) {
		r = peer_open(g->loop, fd, &spec, false, g, &g->core);
		if (r < 0)
			close(fd);
	}
	if (r < 0)
		core_retry(g);
}

/* ---- opening ---- */

static int socket_open(struct gate *g, unsigned int i, const char *dir, struct err *e)
{
	struct socket *s = &g->sockets[i];
	int receive_max = RECV_MAX, fd, r;
	size_t size = sizeof(fd);
	char address[160];

	s->gate = g;
	s->channel = (uint8_t)i;
	outbox_init(&s->queue, DOOR_BYTES + RECV_MAX, DOOR_MESSAGES);
	snprintf(address, sizeof(address), "ipc://%.120s/%s", dir, kinds[i].name);
	s->nn = nn_socket(AF_SP, kinds[i].protocol);
	if (s->nn < 0)
		return err_set(e, -nn_errno(), "%s: %s", address, nn_strerror(nn_errno()));
	if (kinds[i].can_receive &&
	    nn_setsockopt(s->nn, NN_SOL_SOCKET, NN_RCVMAXSIZE, &receive_max, sizeof(receive_max)))
		return err_set(e, -nn_errno(), "%s: %s", address, nn_strerror(nn_errno()));
	if (nn_bind(s->nn, address) < 0)
		return err_set(e, -nn_errno(), "%s: %s", address, nn_strerror(nn_errno()));
	if (nn_getsockopt(s->nn, NN_SOL_SOCKET, NN_SNDFD, &fd, &size) < 0)
		return err_set(e, -nn_errno(), "%s: %s", address, nn_strerror(nn_errno()));
	r = loop_add_fd(g->loop, fd, 0, on_sendable, s, &s->send);
	if (r == 0 && kinds[i].can_receive) {
		size = sizeof(fd);
		if (nn_getsockopt(s->nn, NN_SOL_SOCKET, NN_RCVFD, &fd, &size) < 0)
			return err_set(e, -nn_errno(), "%s: %s", address, nn_strerror(nn_errno()));
		r = loop_add_fd(g->loop, fd, 0, on_receivable, s, &s->receive);
	}
	return r < 0 ? err_set(e, r, "%s: %s", address, err_text(r)) : 0;
}

int gate_open(struct loop *loop, const char *dir, struct gate **ret, struct err *e)
{
	struct gate *g;
	int r = 0;

	/* nanomsg would say less, and leak. */
	if (access(dir, W_OK | X_OK) < 0) {
		r = -errno;
		return err_set(e, r, "cannot make sockets in %s: %s", dir, err_text(r));
	}
	g = calloc(1, sizeof(*g));
	if (!g)
		return err_set(e, -ENOMEM, "gate: out of memory");
	g->loop = loop;
	g->retry_ms = RETRY_FIRST_MS;
	for (unsigned int i = 0; i < SOCKET_COUNT; i++)
		g->sockets[i].nn = -1;
	snprintf(g->core_address, sizeof(g->core_address), "ipc://%.120s/core.sock", dir);
	for (unsigned int i = 0; i < SOCKET_COUNT && r == 0; i++)
		r = socket_open(g, i, dir, e);
	if (r == 0) {
		r = loop_add_timer(loop, 0, 0, core_connect, g, &g->retry);
		if (r == 0)
			r = loop_add_turn(loop, on_turn, g, &g->turn);
		if (r < 0)
			err_set(e, r, "gate: %s", err_text(r));
	}
	if (r < 0) {
		gate_close(g);
		return r;
	}
	*ret = g;
	return 0;
}

struct gate *gate_close(struct gate *g)
{
	if (!g)
		return NULL;
	loop_remove(g->retry);
	loop_remove(g->turn);
	peer_close(g->core);
	for (unsigned int i = 0; i < SOCKET_COUNT; i++) {
		struct socket *s = &g->sockets[i];

		loop_remove(s->receive);
		loop_remove(s->send);
		bundle_fini(&s->open);
		outbox_fini(&s->queue);
		if (s->nn >= 0)
			nn_close(s->nn);
	}
	free(g);
	return NULL;
}

void gate_stats(const struct gate *g, struct gate_stats *ret)
{
	*ret = g->stats;
	ret->has_core = g->core && peer_is_ready(g->core);
	for (unsigned int i = 0; i < SOCKET_COUNT; i++) {
		const struct socket *s = &g->sockets[i];

		ret->queued_bytes += s->queue.bytes + s->open.size;
		if (i == SOCKET_PUB)
			ret->publish_dropped += s->dropped;
		else
			ret->replies_dropped += s->dropped;
	}
}
