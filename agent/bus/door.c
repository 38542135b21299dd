/* SPDX-License-Identifier: Apache-2.0 */
/* Clients of the door and their way to the gate and back. Owns all of it. Process: door. */
#include "bus/door.h"

#include "base/clock.h"
#include "base/listen.h"
#include "bus/bundle.h"
#include "bus/fanout.h"
#include "bus/passport.h"
#include "bus/peer.h"
#include "bus/seats.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUDGET_BYTES   (64u << 20)
#define READ_RATE      (16u << 20)
#define REPLY_BYTES    (2u << 20) /* queued for one connection */
#define REPLY_MESSAGES 256
#define LINK_HIGH      (4u << 20) /* queued for the gate: from here on no client is read */
/* What one read event can still bring after that: one large message or a chunk of small ones. */
#define LINK_BYTES     (LINK_HIGH + (4u << 20))
#define LINK_BUNDLES   65536
#define ANSWER_NS      (5 * NS_PER_S) /* then its requests are taken for lost */
#define MESSAGE_NS     (30 * NS_PER_S)
#define TICK_MS        1000
#define RECHECKS       500 /* clients a tick whose certificates are looked at again */
#define RETRY_FIRST_MS 20
#define RETRY_LAST_MS  500

enum { LINK_REQ, LINK_SNAP, LINK_PUB, LINKS };

static const struct {
	const char *name;
	uint16_t self, expect;
	const char *where;      /* of its clients */
	unsigned int in_flight; /* requests of one connection that wait for replies */
	bool is_strict;         /* what a read brings beyond that is dropped: each costs much */
} kinds[LINKS] = {
	[LINK_REQ] = {"gate.req", SP_PAIR, SP_PAIR, "requests", 64, false},
	[LINK_SNAP] = {"gate.snap", SP_PAIR, SP_PAIR, "snapshots", 4, true},
	[LINK_PUB] = {"gate.pub", SP_PULL, SP_PUSH, "bus", 0, false},
};

struct client {
	struct door *door;
	struct peer *peer;
	uint32_t seat;
	unsigned int link;
	unsigned int in_flight;
	const struct passport *passport;
	bool is_blocked; /* by in_flight */
	uint64_t blocked_ns;
};

struct link {
	struct door *door;
	unsigned int kind;
	char address[160];
	struct peer *peer;
	struct bundle open;   /* what came in this turn of the loop */
	struct outbox outbox; /* bundles; outlives the gate */
	struct loop_watch *retry;
	unsigned int retry_ms;
	bool is_full; /* its clients are not read */
};

struct listener {
	struct door *door;
	struct acceptor *acceptor;
	unsigned int link;
};

struct door {
	struct loop *loop;
	struct door_spec spec;
	struct listener listeners[2]; /* LINK_REQ, LINK_SNAP */
	struct fanout *fanout;
	struct link links[LINKS];
	struct seats seats; /* of clients */
	uint32_t recheck;   /* the seat that was looked at last */
	struct sp_budget budget;
	struct passport local; /* of clients without TLS */
	size_t held;           /* bytes of all parcels */
	struct loop_watch *tick, *turn;
	struct door_stats stats;
};

/* ---- clients ---- */

static void client_update(struct client *c)
{
	peer_pause(c->peer, c->is_blocked || c->door->links[c->link].is_full);
}

static void link_update_clients(struct link *l, bool has_lost)
{
	struct door *d = l->door;

	for (unsigned int i = 0; i < d->seats.used; i++) {
		struct client *c = seats_at(&d->seats, i);

		if (!c || c->link != l->kind)
			continue;
		if (has_lost) {
			c->in_flight = 0;
			c->is_blocked = false;
		}
		client_update(c);
	}
}

static size_t link_queued(const struct link *l)
{
	return l->outbox.bytes + l->open.size;
}

/* The open bundle becomes one message on its way to the gate. */
static void bundle_close(struct link *l)
{
	struct parcel *p;

	if (!l->open.count)
		return;
	p = parcel_new(l->open.data, l->open.size, NULL, 0, &l->door->held);
	if (p && outbox_push(&l->outbox, p) == 0)
		l->door->stats.requests += l->open.count;
	else
		l->door->stats.requests_dropped += l->open.count;
	parcel_unref(p);
	bundle_reset(&l->open);
	if (l->peer)
		peer_kick(l->peer);
}

static void on_turn(void *data)
{
	struct door *d = data;

	for (unsigned int i = 0; i < LINKS; i++)
		bundle_close(&d->links[i]);
}

static int on_request(void *data, struct peer *peer, const uint8_t *message, size_t size)
{
	struct client *c = data;
	struct door *d = c->door;
	struct link *l = &d->links[c->link];
	uint8_t head[SP_HOPS_MAX * 4 + PASSPORT_BYTES_MAX];
	size_t head_size = 4, trace;
	int r = sp_backtrace(message, size);

	(void)peer;
	if (r < 0)
		return r;
	if (r > (SP_HOPS_MAX - 1) * 4)
		return -EPROTO;
	trace = (size_t)r;
	sp_put32(head, seats_hop(&d->seats, c->seat));
	memcpy(head + head_size, message, trace);
	head_size += trace;
	head_size += passport_pack(c->passport, head + head_size);
	if ((c->is_blocked && kinds[c->link].is_strict) ||
	    link_queued(l) + head_size + size > LINK_BYTES ||
	    bundle_add(&l->open, head, head_size, message + trace, size - trace) < 0) {
		/* Who asks sends it again. */
		d->stats.requests_dropped++;
		return 0;
	}
	c->in_flight++;
	if (c->in_flight >= kinds[c->link].in_flight && !c->is_blocked) {
		c->is_blocked = true;
		c->blocked_ns = clock_mono_ns();
		client_update(c);
	}
	if (l->open.size >= BUNDLE_BYTES)
		bundle_close(l);
	if (!l->is_full && link_queued(l) > LINK_HIGH) {
		l->is_full = true;
		link_update_clients(l, false);
	}
	return 0;
}

static void client_free(struct client *c)
{
	struct door *d = c->door;

	seats_give_back(&d->seats, c->seat);
	d->stats.connections--;
	free(c);
}

static void on_client_closed(void *data, struct peer *peer, int r)
{
	struct client *c = data;

	(void)peer;
	if (r == -EPROTO || r == -EPROTONOSUPPORT || r == -EMSGSIZE || r == -ETIMEDOUT ||
	    r == -EACCES || r == -EBUSY)
		c->door->stats.hostile++;
	client_free(c);
}

static void client_end(struct client *c)
{
	struct peer *peer = c->peer;

	client_free(c);
	peer_close(peer);
}

static int on_secure(void *data, struct peer *peer, const struct passport *passport)
{
	struct client *c = data;
	const struct door_spec *s = &c->door->spec;

	(void)peer;
	c->passport = passport;
	/* Whom an agent may speak for only the core can say. */
	if (c->link == LINK_SNAP && !passport_is_under(passport, s->names, s->name_count))
		return -EACCES;
	return 0;
}

static void refuse(const struct listener *l, int fd, enum turnstile_reason reason)
{
	char peer[PASSPORT_PEER_MAX + 1];

	acceptor_peer_address(fd, peer, sizeof(peer));
	turnstile_refuse(l->door->spec.turnstile, reason, kinds[l->link].where, peer, "");
	l->door->stats.refused++;
	close(fd);
}

static void on_accept(void *data, int fd)
{
	struct listener *listener = data;
	struct door *d = listener->door;
	const struct peer_spec spec = {
		.self = SP_REP,
		.expect = SP_REQ,
		.is_ipc = acceptor_is_ipc(listener->acceptor),
		.message_max = SP_MESSAGE_MAX,
		.queue_bytes = REPLY_BYTES,
		.queue_messages = REPLY_MESSAGES,
		.read_rate = d->spec.read_rate,
		.budget = &d->budget,
		.tls = acceptor_is_tls(listener->acceptor) ? d->spec.tls : NULL,
		.turnstile = d->spec.turnstile,
		.where = kinds[listener->link].where,
		.on_secure = on_secure,
		.on_message = on_request,
		.on_closed = on_client_closed,
	};
	struct client *c = calloc(1, sizeof(*c));
	uint32_t seat = c ? seats_take(&d->seats, c) : SEATS_NONE;

	if (seat == SEATS_NONE || peer_open(d->loop, fd, &spec, false, c, &c->peer) < 0) {
		refuse(listener, fd, c && seat == SEATS_NONE ? TURNSTILE_FULL : TURNSTILE_MEMORY);
		if (seat != SEATS_NONE)
			seats_give_back(&d->seats, seat);
		free(c);
		return;
	}
	c->door = d;
	c->seat = seat;
	c->link = listener->link;
	c->passport = &d->local;
	d->stats.connections++;
	d->stats.accepted++;
	turnstile_accepted(d->spec.turnstile);
	client_update(c);
}

/* ---- the gate ---- */

static int on_reply(struct link *l, const uint8_t *message, size_t size)
{
	struct door *d = l->door;
	struct client *c;
	struct parcel *p;
	int r;

	if (size < 8)
		return -EPROTO;
	c = seats_find(&d->seats, sp_get32(message));
	if (!c || c->link != l->kind) {
		d->stats.replies_lost++;
		return 0;
	}
	if (c->in_flight)
		c->in_flight--;
	if (c->is_blocked && c->in_flight < kinds[c->link].in_flight) {
		c->is_blocked = false;
		client_update(c);
	}
	p = parcel_new(message + 4, size - 4, NULL, 0, &d->held);
	r = p ? outbox_push(peer_outbox(c->peer), p) : -ENOMEM;
	parcel_unref(p);
	if (r < 0) {
		d->stats.replies_lost++;
		return 0;
	}
	d->stats.replies++;
	peer_kick(c->peer);
	return 0;
}

static int on_link_message(void *data, struct peer *peer, const uint8_t *message, size_t size)
{
	struct link *l = data;
	const uint8_t *one;
	size_t at = 0, n;
	int r;

	(void)peer;
	while ((r = bundle_next(message, size, &at, &one, &n)) > 0) {
		if (l->kind != LINK_PUB)
			r = on_reply(l, one, n);
		else if (l->door->fanout)
			fanout_publish(l->door->fanout, one, n);
		if (r < 0)
			return r;
	}
	return r;
}

static void link_release(struct link *l)
{
	if (l->is_full && link_queued(l) <= LINK_HIGH / 2) {
		l->is_full = false;
		link_update_clients(l, false);
	}
}

static void on_link_ready(void *data, struct peer *peer)
{
	struct link *l = data;

	(void)peer;
	l->retry_ms = RETRY_FIRST_MS;
	l->door->stats.gate_connects++;
}

static void on_link_drained(void *data, struct peer *peer)
{
	(void)peer;
	link_release(data);
}

static void link_retry(struct link *l)
{
	loop_set_timer(l->retry, l->retry_ms, 0);
	l->retry_ms = l->retry_ms * 2 > RETRY_LAST_MS ? RETRY_LAST_MS : l->retry_ms * 2;
}

static void on_link_closed(void *data, struct peer *peer, int r)
{
	struct link *l = data;

	(void)peer;
	(void)r;
	l->peer = NULL;
	/* What the gate had is lost with it; the agents send it again. */
	link_update_clients(l, true);
	link_retry(l);
}

static void link_connect(void *data)
{
	struct link *l = data;
	const struct peer_spec spec = {
		.self = kinds[l->kind].self,
		.expect = kinds[l->kind].expect,
		.is_ipc = true,
		.message_max = BUNDLE_BYTES + SP_MESSAGE_MAX + 64,
		.on_ready = on_link_ready,
		.on_message = on_link_message,
		.on_drained = on_link_drained,
		.on_closed = on_link_closed,
	};
	int fd, r;

	r = listen_connect(l->address, &fd, NULL);
	if (r == 0) {
		r = peer_open(l->door->loop, fd, &spec, false, l, &l->peer);
		if (r < 0)
			close(fd);
	}
	if (r < 0)
		link_retry(l);
	else
		peer_use_outbox(l->peer, &l->outbox);
}

/* ---- the tick: who is too slow ---- */

/* A slice: after a change of files each costs a look at a chain, 0.2 ms. */
static void recheck_clients(struct door *d)
{
	int64_t now_s = (int64_t)(clock_real_ns() / NS_PER_S);

	for (unsigned int i = 0; i < RECHECKS && i < d->seats.used; i++) {
		struct client *c;

		d->recheck = d->recheck + 1 < d->seats.used ? d->recheck + 1 : 0;
		c = seats_at(&d->seats, d->recheck);
		if (c)
			peer_recheck(c->peer, now_s);
	}
	if (d->fanout)
		fanout_recheck(d->fanout, now_s);
}

static void on_tick(void *data)
{
	struct door *d = data;
	uint64_t now = clock_mono_ns();

	for (unsigned int i = 0; i < d->seats.used; i++) {
		struct client *c = seats_at(&d->seats, i);
		struct peer *peer;
		uint64_t partial;

		if (!c)
			continue;
		partial = peer_partial_ns(c->peer);
		if (partial && now - partial > MESSAGE_NS) {
			d->stats.hostile++;
			peer = c->peer;
			client_free(c);
			peer_refuse(peer, TURNSTILE_SLOW);
		} else if (c->is_blocked && now - c->blocked_ns > ANSWER_NS) {
			c->in_flight = 0;
			c->is_blocked = false;
			client_update(c);
		}
	}
	for (unsigned int i = 0; i < LINKS; i++)
		link_release(&d->links[i]);
	if (d->spec.tls)
		recheck_clients(d);
}

/* ---- opening ---- */

static int listen_for(struct door *d, unsigned int link, const char *address, struct err *e)
{
	struct listener *l = &d->listeners[link];
	int r;

	l->door = d;
	l->link = link;
	if (!address || !*address)
		return 0;
	r = acceptor_open(d->loop, address, d->spec.tls != NULL, on_accept, l, &l->acceptor, e);
	if (r == 0)
		acceptor_use_turnstile(l->acceptor, d->spec.turnstile, kinds[link].where);
	return r;
}

static int open_all(struct door *d, struct err *e)
{
	const struct fanout_limits limits = {.subscribers = d->spec.subscribers,
					     .queue_bytes = d->spec.subscriber_bytes,
					     .tls = d->spec.tls,
					     .names = d->spec.names,
					     .name_count = d->spec.name_count,
					     .turnstile = d->spec.turnstile};
	int r;

	if (seats_init(&d->seats, d->spec.connections) < 0)
		return err_set(e, -ENOMEM, "door: out of memory");
	for (unsigned int i = 0; i < LINKS; i++) {
		struct link *l = &d->links[i];

		snprintf(l->address, sizeof(l->address), "ipc://%.120s/%s", d->spec.gate_dir,
			 kinds[i].name);
		r = loop_add_timer(d->loop, 0, 0, link_connect, l, &l->retry);
		if (r < 0)
			return err_set(e, r, "door: %s", err_text(r));
	}
	r = loop_add_timer(d->loop, TICK_MS, TICK_MS, on_tick, d, &d->tick);
	if (r == 0)
		r = loop_add_turn(d->loop, on_turn, d, &d->turn);
	if (r < 0)
		return err_set(e, r, "door: %s", err_text(r));
	r = listen_for(d, LINK_REQ, d->spec.address, e);
	if (r == 0)
		r = listen_for(d, LINK_SNAP, d->spec.snapshot_address, e);
	if (r == 0 && d->spec.bus_address && *d->spec.bus_address)
		r = fanout_open(d->loop, d->spec.bus_address, &limits, &d->fanout, e);
	return r;
}

int door_open(struct loop *loop, const struct door_spec *spec, struct door **ret, struct err *e)
{
	struct door *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return err_set(e, -ENOMEM, "door: out of memory");
	d->loop = loop;
	d->spec = *spec;
	if (!d->spec.connections || d->spec.connections > SEATS_MOST)
		d->spec.connections = SEATS_MOST;
	if (!d->spec.read_rate)
		d->spec.read_rate = READ_RATE;
	d->budget.limit = spec->budget_bytes ? spec->budget_bytes : BUDGET_BYTES;
	passport_init(&d->local, PASSPORT_LOCAL, "");
	for (unsigned int i = 0; i < LINKS; i++) {
		struct link *l = &d->links[i];

		l->door = d;
		l->kind = i;
		l->retry_ms = RETRY_FIRST_MS;
		outbox_init(&l->outbox, LINK_BYTES + BUNDLE_BYTES, LINK_BUNDLES);
	}
	r = open_all(d, e);
	if (r < 0) {
		door_close(d);
		return r;
	}
	*ret = d;
	return 0;
}

struct door *door_close(struct door *d)
{
	if (!d)
		return NULL;
	for (unsigned int i = 0; i < 2; i++)
		acceptor_close(d->listeners[i].acceptor);
	for (unsigned int i = 0; i < d->seats.used; i++)
		if (seats_at(&d->seats, i))
			client_end(seats_at(&d->seats, i));
	for (unsigned int i = 0; i < LINKS; i++) {
		loop_remove(d->links[i].retry);
		peer_close(d->links[i].peer);
		bundle_fini(&d->links[i].open);
		outbox_fini(&d->links[i].outbox);
	}
	loop_remove(d->tick);
	loop_remove(d->turn);
	fanout_close(d->fanout);
	seats_fini(&d->seats);
	free(d);
	return NULL;
}

unsigned int door_subscribers(const struct door *d)
{
	return d->fanout ? fanout_subscribers(d->fanout) : 0;
}

void door_stats(const struct door *d, struct door_stats *ret)
{
	struct fanout_stats bus = {0};

	*ret = d->stats;
	ret->budget_refused = d->budget.refused;
	ret->queued_bytes = d->held;
	ret->has_gate = d->links[LINK_REQ].peer && peer_is_ready(d->links[LINK_REQ].peer);
	for (unsigned int i = 0; i < 2; i++)
		if (d->listeners[i].acceptor)
			ret->stalls += acceptor_stalls(d->listeners[i].acceptor);
	if (d->fanout)
		fanout_stats(d->fanout, &bus);
	ret->bus.subscribers = bus.subscribers;
	ret->bus.published = bus.published;
	ret->bus.dropped = bus.dropped;
	ret->bus.hostile = bus.hostile;
	ret->bus.refused = bus.refused;
}

void door_ports(const struct door *d, unsigned int ret[3])
{
	ret[0] = d->listeners[0].acceptor ? acceptor_port(d->listeners[0].acceptor) : 0;
	ret[1] = d->fanout ? fanout_port(d->fanout) : 0;
	ret[2] = d->listeners[1].acceptor ? acceptor_port(d->listeners[1].acceptor) : 0;
}
