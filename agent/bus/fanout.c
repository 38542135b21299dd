/* SPDX-License-Identifier: Apache-2.0 */
/* SP publisher without nanomsg. Owns its listener and its subscribers. In the door and the courier. */
#include "bus/fanout.h"

#include "bus/peer.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define SUBSCRIBERS    256
#define QUEUE_BYTES    (4u << 20)
#define QUEUE_MESSAGES 16384
#define RECHECKS       200 /* subscribers a call */
#define TOTAL_BYTES    (64u << 20)
#define UNSENT_BYTES   (128 << 10)

struct subscriber {
	struct fanout *fanout;
	struct subscriber *prev, *next;
	struct peer *peer;
	uint64_t done_seen, dropped_seen; /* of its outbox, already in the totals */
};

struct fanout {
	struct loop *loop;
	struct acceptor *acceptor;
	struct loop_watch *turn;
	bool has_new; /* since the last turn of the loop */
	struct fanout_limits limits;
	struct subscriber *first;
	struct subscriber *recheck; /* whose turn it is; NULL: the first's */
	struct fanout_stats stats;
	size_t held; /* bytes of the parcels that wait */
};

static void settle(struct subscriber *s)
{
	const struct outbox *o = peer_outbox(s->peer);

	s->fanout->stats.sent += o->done - s->done_seen;
	s->fanout->stats.dropped += o->dropped - s->dropped_seen;
	s->done_seen = o->done;
	s->dropped_seen = o->dropped;
}

static void subscriber_free(struct subscriber *s)
{
	struct fanout *f = s->fanout;

	settle(s);
	if (f->recheck == s)
		f->recheck = s->next;
	if (s->prev)
		s->prev->next = s->next;
	else
		f->first = s->next;
	if (s->next)
		s->next->prev = s->prev;
	f->stats.subscribers--;
	free(s);
}

static void on_closed(void *data, struct peer *peer, int r)
{
	struct subscriber *s = data;

	(void)peer;
	if (r == -EPROTO || r == -EPROTONOSUPPORT || r == -EMSGSIZE || r == -ETIMEDOUT ||
	    r == -EACCES || r == -EBUSY)
		s->fanout->stats.hostile++;
	subscriber_free(s);
}

static int on_secure(void *data, struct peer *peer, const struct passport *passport)
{
	const struct subscriber *s = data;
	const struct fanout_limits *l = &s->fanout->limits;

	(void)peer;
	return passport_is_under(passport, l->names, l->name_count) ? 0 : -EACCES;
}

static void refuse(struct fanout *f, int fd, enum turnstile_reason reason)
{
	char peer[PASSPORT_PEER_MAX + 1];

	acceptor_peer_address(fd, peer, sizeof(peer));
	turnstile_refuse(f->limits.turnstile, reason, "bus", peer, "");
	f->stats.refused++;
	close(fd);
}

static void on_accept(void *data, int fd)
{
	struct fanout *f = data;
	const struct peer_spec spec = {
		.self = SP_PUB,
		.expect = SP_SUB,
		.is_ipc = acceptor_is_ipc(f->acceptor),
		.queue_bytes = f->limits.queue_bytes,
		.queue_messages = QUEUE_MESSAGES,
		.tls = acceptor_is_tls(f->acceptor) ? f->limits.tls : NULL,
		.turnstile = f->limits.turnstile,
		.where = "bus",
		.on_secure = on_secure,
		.on_closed = on_closed,
	};
	const int unsent = UNSENT_BYTES;
	struct subscriber *s;

	if (f->stats.subscribers >= f->limits.subscribers) {
		refuse(f, fd, TURNSTILE_FULL);
		return;
	}
	/* What waits in the kernel cannot be dropped any more: little does. */
	if (!acceptor_is_ipc(f->acceptor))
		setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent));
	s = calloc(1, sizeof(*s));
	if (!s || peer_open(f->loop, fd, &spec, false, s, &s->peer) < 0) {
		free(s);
		refuse(f, fd, TURNSTILE_MEMORY);
		return;
	}
	s->fanout = f;
	s->next = f->first;
	if (s->next)
		s->next->prev = s;
	f->first = s;
	f->stats.subscribers++;
	f->stats.accepted++;
	turnstile_accepted(f->limits.turnstile);
}

void fanout_flush(struct fanout *f)
{
	if (!f->has_new)
		return;
	f->has_new = false;
	for (struct subscriber *s = f->first; s; s = s->next) {
		if (!peer_is_ready(s->peer) || !peer_outbox(s->peer)->count)
			continue;
		peer_kick(s->peer);
		settle(s);
	}
}

static void on_turn(void *data)
{
	fanout_flush(data);
}

int fanout_open(struct loop *loop, const char *address, const struct fanout_limits *limits,
		struct fanout **ret, struct err *e)
{
	struct fanout *f = calloc(1, sizeof(*f));
	int r;

	if (!f)
		return err_set(e, -ENOMEM, "%s: out of memory", address);
	f->loop = loop;
	if (limits)
		f->limits = *limits;
	if (!f->limits.subscribers)
		f->limits.subscribers = SUBSCRIBERS;
	if (!f->limits.queue_bytes)
		f->limits.queue_bytes = QUEUE_BYTES;
	if (!f->limits.total_bytes)
		f->limits.total_bytes = TOTAL_BYTES;
	r = acceptor_open(loop, address, f->limits.tls != NULL, on_accept, f, &f->acceptor, e);
	if (r == 0) {
		r = loop_add_turn(loop, on_turn, f, &f->turn);
		if (r < 0) {
			acceptor_close(f->acceptor);
			err_set(e, r, "%s: %s", address, err_text(r));
		}
	}
	if (r < 0) {
		free(f);
		return r;
	}
	acceptor_use_turnstile(f->acceptor, f->limits.turnstile, "bus");
	*ret = f;
	return 0;
}

struct fanout *fanout_close(struct fanout *f)
{
	if (!f)
		return NULL;
	fanout_flush(f);
	loop_remove(f->turn);
	acceptor_close(f->acceptor);
	while (f->first) {
		struct subscriber *s = f->first;
		struct peer *peer = s->peer;

		subscriber_free(s);
		peer_close(peer);
	}
	free(f);
	return NULL;
}

/* Too much waits in all: the longest queue gives way, so that one that does not read cannot take
 * from those that do. */
static void shed(struct fanout *f)
{
	while (f->held > f->limits.total_bytes) {
		struct outbox *longest = NULL;

		for (struct subscriber *s = f->first; s; s = s->next) {
			struct outbox *o = peer_outbox(s->peer);

			if (o->count > 1 && (!longest || o->bytes > longest->bytes))
				longest = o;
		}
		if (!longest || !outbox_drop(longest))
			return;
	}
}

int fanout_publish(struct fanout *f, const void *message, size_t size)
{
	struct parcel *p;

	if (size > SP_MESSAGE_MAX)
		return -EMSGSIZE;
	p = parcel_new(message, size, NULL, 0, &f->held);
	if (!p)
		return -ENOMEM;
	f->stats.published++;
	for (struct subscriber *s = f->first; s; s = s->next) {
		/* Who has not even said hello has missed nothing yet. */
		if (!peer_is_ready(s->peer))
			continue;
		outbox_push_over(peer_outbox(s->peer), p);
		if (peer_outbox(s->peer)->bytes > f->limits.queue_bytes / 8)
			peer_kick(s->peer);
		settle(s);
	}
	parcel_unref(p);
	f->has_new = true;
	shed(f);
	return 0;
}

void fanout_recheck(struct fanout *f, int64_t now_s)
{
	for (unsigned int i = 0; i < RECHECKS && i < f->stats.subscribers; i++) {
		struct subscriber *s = f->recheck ? f->recheck : f->first;

		f->recheck = s->next;
		peer_recheck(s->peer, now_s);
	}
}

void fanout_stats(const struct fanout *f, struct fanout_stats *ret)
{
	for (struct subscriber *s = f->first; s; s = s->next)
		settle(s);
	*ret = f->stats;
	ret->queued_bytes = f->held;
}

unsigned int fanout_subscribers(const struct fanout *f)
{
	return f->stats.subscribers;
}

unsigned int fanout_port(const struct fanout *f)
{
	return acceptor_port(f->acceptor);
}
