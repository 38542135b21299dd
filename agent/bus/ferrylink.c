/* SPDX-License-Identifier: Apache-2.0 */
/* Both sides of the socket between core and ferry. Owns the listener, and the one connection. */
#include "bus/ferrylink.h"

#include "base/listen.h"
#include "bus/peer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Messages: u8 type, then numbers of 8 bytes, little-endian, then bytes. */
#define ASK_WORDS      (6 + 6 + SPOOL_DROPS)
#define ASK_BYTES      (1 + 8 * ASK_WORDS)
#define ANSWER_BYTES   (1 + 8 * 4)
#define WELCOME_BYTES  (1 + 8)
#define ANSWER_MAX     (ANSWER_BYTES + FRAME_SEALED_MAX)
#define QUEUE_MESSAGES 8
#define RETRY_FIRST_MS 20
#define RETRY_LAST_MS  500

enum message_type { MESSAGE_WELCOME = 1, MESSAGE_ASK = 2, MESSAGE_ANSWER = 3 };

static uint8_t *put64(uint8_t *to, uint64_t v)
{
	for (unsigned int i = 0; i < 8; i++)
		*to++ = (uint8_t)(v >> 8 * i);
	return to;
}

static uint64_t get64(const uint8_t **at)
{
	uint64_t v = 0;

	for (unsigned int i = 0; i < 8; i++)
		v |= (uint64_t) * (*at)++ << 8 * i;
	return v;
}

static int push(struct peer *peer, const uint8_t *head, size_t head_size, const uint8_t *body,
		size_t size)
{
	struct parcel *p;
	int r;

	if (!peer || !peer_is_ready(peer))
		return -ENOTCONN;
	p = parcel_new(head, head_size, body, size, NULL);
	if (!p)
		return -ENOMEM;
	r = outbox_push(peer_outbox(peer), p);
	parcel_unref(p);
	if (r == 0)
		peer_kick(peer);
	return r;
}

static const struct peer_spec both = {
	.self = SP_PAIR,
	.expect = SP_PAIR,
	.is_ipc = true,
	.queue_bytes = QUEUE_MESSAGES * (size_t)ANSWER_MAX,
	.queue_messages = QUEUE_MESSAGES,
};

/* -------- core -------- */

struct ferrylink_server {
	struct loop *loop;
	struct acceptor *acceptor;
	struct peer *peer;
	uint64_t life;
	ferrylink_ask_fn fn;
	void *data;
};

static int on_ask(void *data, struct peer *peer, const uint8_t *message, size_t size)
{
	struct ferrylink_server *s = data;
	const uint8_t *at = message + 1;
	uint64_t words[ASK_WORDS];
	struct ferrylink_ask ask;

	(void)peer;
	if (size != ASK_BYTES || message[0] != MESSAGE_ASK)
		return -EPROTO;
	for (unsigned int i = 0; i < ASK_WORDS; i++)
		words[i] = get64(&at);
	if (!words[2] || words[3] > FRAME_ID_MAX || words[4] > UINT32_MAX ||
	    words[5] > FRAME_TOTALS)
		return -EPROTO;
	ask = (struct ferrylink_ask){
		.cookie = words[0],
		.kept = words[1],
		.sequence = words[2],
		.first_id = (uint32_t)words[3],
		.interval_ms = (uint32_t)words[4],
		.type = (enum frame_type)words[5],
		.counts =
			{
				.pending_bytes = words[6],
				.built = words[7],
				.sent = words[8],
				.acknowledged = words[9],
				.frame_bytes = words[10],
				.frame_samples = words[11],
			},
	};
	memcpy(ask.counts.drops, words + 12, sizeof(ask.counts.drops));
	s->fn(s->data, &ask);
	return 0;
}

static void on_ferry_ready(void *data, struct peer *peer)
{
	struct ferrylink_server *s = data;
	uint8_t welcome[WELCOME_BYTES] = {MESSAGE_WELCOME};

	put64(welcome + 1, s->life);
	push(peer, welcome, sizeof(welcome), NULL, 0); /* the queue is empty */
}

static void on_ferry_closed(void *data, struct peer *peer, int r)
{
	struct ferrylink_server *s = data;

	(void)r;
	if (s->peer == peer)
		s->peer = NULL;
}

static void on_accept(void *data, int fd)
{
	struct ferrylink_server *s = data;
	struct peer_spec spec = both;

	spec.message_max = ASK_BYTES;
	spec.on_ready = on_ferry_ready;
	spec.on_message = on_ask;
	spec.on_closed = on_ferry_closed;
	/* There is one ferry: the supervisor starts another only when the old one is gone. */
	s->peer = peer_close(s->peer);
	if (peer_open(s->loop, fd, &spec, false, s, &s->peer) < 0)
		close(fd);
}

int ferrylink_server_open(struct loop *loop, const char *path, uint64_t life, ferrylink_ask_fn fn,
			  void *data, struct ferrylink_server **ret, struct err *e)
{
	struct ferrylink_server *s = calloc(1, sizeof(*s));
	char address[128];
	int r;

	if (!s)
		return err_set(e, -ENOMEM, "%s: out of memory", path);
	*s = (struct ferrylink_server){.loop = loop, .life = life, .fn = fn, .data = data};
	if ((size_t)snprintf(address, sizeof(address), "ipc://%s", path) >= sizeof(address))
		r = err_set(e, -ENAMETOOLONG, "%.200s: path too long", path);
	else
		r = acceptor_open(loop, address, false, on_accept, s, &s->acceptor, e);
	if (r < 0) {
		free(s);
		return r;
	}
	*ret = s;
	return 0;
}

struct ferrylink_server *ferrylink_server_close(struct ferrylink_server *s)
{
	if (!s)
		return NULL;
	acceptor_close(s->acceptor);
	peer_close(s->peer);
	free(s);
	return NULL;
}

bool ferrylink_is_connected(const struct ferrylink_server *s)
{
	return s && s->peer && peer_is_ready(s->peer);
}

int ferrylink_answer(struct ferrylink_server *s, const struct ferrylink_answer *a)
{
	uint8_t head[ANSWER_BYTES] = {MESSAGE_ANSWER}, *to = head + 1;

	if (a->size > FRAME_SEALED_MAX)
		return -EMSGSIZE;
	to = put64(to, a->cookie);
	to = put64(to, a->time_ms);
	to = put64(to, a->next_id);
	put64(to, a->samples);
	return push(s->peer, head, sizeof(head), a->data, a->size);
}

/* -------- ferry -------- */

struct ferrylink {
	struct loop *loop;
	struct peer *peer;
	struct loop_watch *retry;
	struct ferrylink_events events;
	unsigned int retry_ms;
	char address[128];
};

static int on_core_message(void *data, struct peer *peer, const uint8_t *message, size_t size)
{
	struct ferrylink *l = data;
	const uint8_t *at = message + 1;
	struct ferrylink_answer answer;

	(void)peer;
	if (size == WELCOME_BYTES && message[0] == MESSAGE_WELCOME) {
		l->events.on_welcome(l->events.data, get64(&at));
		return 0;
	}
	if (size < ANSWER_BYTES || message[0] != MESSAGE_ANSWER)
		return -EPROTO;
	answer.cookie = get64(&at);
	answer.time_ms = get64(&at);
	answer.next_id = (uint32_t)get64(&at);
	answer.samples = (uint32_t)get64(&at);
	answer.data = at;
	answer.size = size - ANSWER_BYTES;
	l->events.on_answer(l->events.data, &answer);
	return 0;
}

static void core_retry(struct ferrylink *l)
{
	loop_set_timer(l->retry, l->retry_ms, 0);
	l->retry_ms = l->retry_ms * 2 > RETRY_LAST_MS ? RETRY_LAST_MS : l->retry_ms * 2;
}

static void on_core_ready(void *data, struct peer *peer)
{
	struct ferrylink *l = data;

	(void)peer;
	l->retry_ms = RETRY_FIRST_MS;
}

static void on_core_closed(void *data, struct peer *peer, int r)
{
	struct ferrylink *l = data;

	(void)peer;
	(void)r;
	l->peer = NULL;
	core_retry(l);
	l->events.on_lost(l->events.data);
}

static void core_connect(void *data)
{
	struct ferrylink *l = data;
	struct peer_spec spec = both;
	int fd, r;

	spec.message_max = ANSWER_MAX;
	spec.on_ready = on_core_ready;
	spec.on_message = on_core_message;
	spec.on_closed = on_core_closed;
	r = listen_connect(l->address, &fd, NULL);
	if (r == 0) {
		r = peer_open(l->loop, fd, &spec, false, l, &l->peer);
		if (r < 0)
			close(fd);
	}
	if (r < 0)
		core_retry(l);
}

int ferrylink_open(struct loop *loop, const char *path, const struct ferrylink_events *events,
		   struct ferrylink **ret, struct err *e)
{
	struct ferrylink *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return err_set(e, -ENOMEM, "%s: out of memory", path);
	l->loop = loop;
	l->events = *events;
	l->retry_ms = RETRY_FIRST_MS;
	if ((size_t)snprintf(l->address, sizeof(l->address), "ipc://%s", path) >=
	    sizeof(l->address)) {
		free(l);
		return err_set(e, -ENAMETOOLONG, "%.200s: path too long", path);
	}
	r = loop_add_timer(loop, 0, 0, core_connect, l, &l->retry);
	if (r < 0) {
		free(l);
		return err_set(e, r, "%s: %s", path, err_text(r));
	}
	*ret = l;
	return 0;
}

struct ferrylink *ferrylink_close(struct ferrylink *l)
{
	if (!l)
		return NULL;
	loop_remove(l->retry);
	peer_close(l->peer);
	free(l);
	return NULL;
}

int ferrylink_ask(struct ferrylink *l, const struct ferrylink_ask *ask)
{
	uint8_t message[ASK_BYTES] = {MESSAGE_ASK}, *to = message + 1;
	const struct ferrylink_counts *c = &ask->counts;
	const uint64_t words[] = {ask->cookie,      ask->kept,        ask->sequence,
				  ask->first_id,    ask->interval_ms, ask->type,
				  c->pending_bytes, c->built,         c->sent,
				  c->acknowledged,  c->frame_bytes,   c->frame_samples};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		to = put64(to, words[i]);
	for (size_t i = 0; i < sizeof(c->drops) / sizeof(c->drops[0]); i++)
		to = put64(to, c->drops[i]);
	return push(l->peer, message, sizeof(message), NULL, 0);
}
