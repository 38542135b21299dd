/* SPDX-License-Identifier: Apache-2.0 */
/* The core's side of the socket to the gate. Owns the listener and the one connection. */
#include "bus/gatelink.h"

#include "bus/peer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define QUEUE_BYTES    (64u << 20)
#define QUEUE_MESSAGES 262144
/* Published messages leave this much of the queue to replies, which agents wait for. */
#define REPLY_BYTES (16u << 20)
#define FLUSH_BYTES (256u << 10) /* so much does not wait for the turn's end */

struct gatelink_server {
	struct loop *loop;
	struct acceptor *acceptor;
	struct peer *peer;
	struct loop_watch *turn;
	bool has_queued;
	uint32_t generation;
	gatelink_request_fn on_request;
	void *data;
	bool is_paused;
	struct gatelink_stats stats;
};

int gatelink_parse(const uint8_t *data, size_t size, struct gatelink_message *ret)
{
	struct gatelink_message m = {0};

	if (size < 1)
		return -EBADMSG;
	m.type = data[0];
	if (m.type == GATELINK_PUBLISH) {
		m.payload = data + 1;
		m.size = size - 1;
		if (!m.size || m.size > GATELINK_MESSAGE_MAX)
			return -EBADMSG;
		*ret = m;
		return 0;
	}
	if ((m.type != GATELINK_REQUEST && m.type != GATELINK_REPLY) || size < 3)
		return -EBADMSG;
	m.channel = data[1];
	m.handle_size = data[2];
	if (m.channel > GATELINK_SNAPSHOT || !m.handle_size ||
	    m.handle_size > GATELINK_HANDLE_MAX || m.handle_size > size - 3)
		return -EBADMSG;
	m.handle = data + 3;
	m.payload = m.handle + m.handle_size;
	m.size = size - 3 - m.handle_size;
	*ret = m;
	return 0;
}

size_t gatelink_head(uint8_t out[GATELINK_HANDLE_MAX + 3], uint8_t type, uint8_t channel,
		     const uint8_t *handle, size_t handle_size)
{
	CHECK(handle_size && handle_size <= GATELINK_HANDLE_MAX);
	out[0] = type;
	out[1] = channel;
	out[2] = (uint8_t)handle_size;
	memcpy(out + 3, handle, handle_size);
	return handle_size + 3;
}

static int on_message(void *data, struct peer *peer, const uint8_t *message, size_t size)
{
	struct gatelink_server *s = data;
	struct gatelink_handle handle = {.generation = s->generation};
	struct gatelink_message m;
	struct passport from;
	int r = gatelink_parse(message, size, &m);

	(void)peer;
	if (r < 0 || m.type != GATELINK_REQUEST)
		return -EPROTO;
	r = passport_unpack(m.payload, m.size, &from);
	if (r < 0) {
		s->stats.malformed++;
		return 0;
	}
	handle.channel = m.channel;
	handle.size = (uint8_t)m.handle_size;
	memcpy(handle.bytes, m.handle, m.handle_size);
	s->stats.requests++;
	s->on_request(s->data, &handle, &from, m.payload + r, m.size - (size_t)r);
	return 0;
}

static void on_closed(void *data, struct peer *peer, int r)
{
	struct gatelink_server *s = data;

	(void)r;
	if (s->peer == peer)
		s->peer = NULL;
}

static void on_accept(void *data, int fd)
{
	struct gatelink_server *s = data;
	const struct peer_spec spec = {
		.self = SP_PAIR,
		.expect = SP_PAIR,
		.is_ipc = true,
		.message_max = GATELINK_FRAME_MAX,
		.queue_bytes = QUEUE_BYTES,
		.queue_messages = QUEUE_MESSAGES,
		.on_message = on_message,
		.on_closed = on_closed,
	};

	/* There is one gate. A new one means that the old one is gone, whatever the kernel says:
	 * the supervisor starts it only then. */
	if (s->peer) {
		s->stats.refused++;
		s->peer = peer_close(s->peer);
	}
	if (peer_open(s->loop, fd, &spec, false, s, &s->peer) < 0) {
		s->stats.refused++;
		close(fd);
		return;
	}
	s->generation++;
	s->stats.connections++;
	peer_pause(s->peer, s->is_paused);
}

static void on_turn(void *data)
{
	gatelink_flush(data);
}

int gatelink_server_open(struct loop *loop, const char *path, gatelink_request_fn on_request,
			 void *data, struct gatelink_server **ret, struct err *e)
{
	struct gatelink_server *s = calloc(1, sizeof(*s));
	char address[128];
	int r;

	if (!s)
		return err_set(e, -ENOMEM, "%s: out of memory", path);
	s->loop = loop;
	s->on_request = on_request;
	s->data = data;
	if ((size_t)snprintf(address, sizeof(address), "ipc://%s", path) >= sizeof(address))
		r = err_set(e, -ENAMETOOLONG, "%.200s: path too long", path);
	else
		r = acceptor_open(loop, address, false, on_accept, s, &s->acceptor, e);
	if (r == 0) {
		r = loop_add_turn(loop, on_turn, s, &s->turn);
		if (r < 0) {
			acceptor_close(s->acceptor);
			err_set(e, r, "%s: %s", path, err_text(r));
		}
	}
	if (r < 0) {
		free(s);
		return r;
	}
	*ret = s;
	return 0;
}

struct gatelink_server *gatelink_server_close(struct gatelink_server *s)
{
	if (!s)
		return NULL;
	gatelink_flush(s);
	loop_remove(s->turn);
	acceptor_close(s->acceptor);
	peer_close(s->peer);
	free(s);
	return NULL;
}

static int send_parts(struct gatelink_server *s, const void *head, size_t head_size,
		      const void *body, size_t size, size_t reserve)
{
	struct outbox *o = peer_outbox(s->peer);
	struct parcel *p;
	int r;

	if (o->bytes + head_size + size > o->limit - reserve)
		return -ENOBUFS;
	p = parcel_new(head, head_size, body, size, NULL);
	if (!p)
		return -ENOMEM;
	r = outbox_push(o, p);
	parcel_unref(p);
	s->has_queued |= r == 0;
	if (o->bytes > FLUSH_BYTES)
		gatelink_flush(s);
	return r;
}

int gatelink_reply(struct gatelink_server *s, const struct gatelink_handle *handle,
		   const uint8_t *payload, size_t size)
{
	uint8_t head[GATELINK_HANDLE_MAX + 3];
	size_t head_size;
	int r;

	head_size =
		gatelink_head(head, GATELINK_REPLY, handle->channel, handle->bytes, handle->size);
	if (size > GATELINK_PAYLOAD_MAX)
		r = -EMSGSIZE;
	else if (!s->peer || handle->generation != s->generation)
		r = -ENOTCONN;
	else
		r = send_parts(s, head, head_size, payload, size, 0);
	if (r < 0)
		s->stats.replies_dropped++;
	else
		s->stats.replies++;
	return r;
}

int gatelink_publish(struct gatelink_server *s, const uint8_t *message, size_t size)
{
	const uint8_t type = GATELINK_PUBLISH;
	int r;

	if (!size || size > GATELINK_MESSAGE_MAX)
		r = -EMSGSIZE;
	else if (!s->peer || !peer_is_ready(s->peer))
		r = -ENOTCONN;
	else
		r = send_parts(s, &type, 1, message, size, REPLY_BYTES);
	if (r < 0)
		s->stats.publish_dropped++;
	else
		s->stats.published++;
	return r;
}

void gatelink_flush(struct gatelink_server *s)
{
	if (s->has_queued && s->peer)
		peer_kick(s->peer);
	s->has_queued = false;
}

void gatelink_pause(struct gatelink_server *s, bool is_paused)
{
	s->is_paused = is_paused;
	if (s->peer)
		peer_pause(s->peer, is_paused);
}

void gatelink_server_stats(const struct gatelink_server *s, struct gatelink_stats *ret)
{
	*ret = s->stats;
	ret->is_connected = s->peer && peer_is_ready(s->peer);
	ret->queued_bytes = s->peer ? peer_outbox(s->peer)->bytes : 0;
}
