/* SPDX-License-Identifier: Apache-2.0 */
/* SP connections. Owns their descriptors. */
#include "bus/peer.h"

#include "base/clock.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define PEER_MAGIC   0x53505045u
#define READ_CHUNK   (256u << 10)
#define RATE_WAIT_MS 50

struct peer {
	uint32_t magic;
	struct loop *loop;
	struct peer_spec spec;
	void *data;
	int fd;
	struct loop_watch *watch;
	struct loop_watch *timer; /* handshake time, later the rate */
	struct sp_parser parser;
	struct outbox own, *outbox;
	uint8_t hello_sent; /* bytes of the handshake that are gone */
	struct tls *tls;
	struct turnstile_place place; /* while its TLS handshake lasts */
	bool has_ticket;
	bool is_secure; /* the TLS handshake is done, or there is none */
	struct passport *passport;
	char address[PASSPORT_PEER_MAX + 1];
	bool is_connecting, is_paused, is_slowed, wants_write, was_high;
	uint64_t tokens, filled_ns;
	uint64_t partial_ns; /* since when a message is begun and not ended */
};

static void update_events(struct peer *p)
{
	unsigned int events = 0;

	/* Who may not go on yet may finish its handshakes: else their time ends, and it is no stranger. */
	if (!p->is_connecting && !(p->is_paused && p->parser.is_ready) && !p->is_slowed)
		events |= LOOP_READ;
	if (p->is_connecting || p->wants_write)
		events |= LOOP_WRITE;
	loop_set_events(p->watch, events);
}

struct peer *peer_close(struct peer *p)
{
	if (!p)
		return NULL;
	CHECK(p->magic == PEER_MAGIC);
	p->magic = 0;
	turnstile_leave(p->spec.turnstile, &p->place);
	loop_remove(p->watch);
	loop_remove(p->timer);
	tls_close(p->tls);
	free(p->passport);
	close(p->fd);
	sp_parser_fini(&p->parser);
	outbox_fini(&p->own);
	free(p);
	return NULL;
}

/* Negative: none, it left by itself. */
static int refusal_of(const struct peer *p, int r)
{
	switch (r) {
	case -EACCES:
		return TURNSTILE_CERTIFICATE;
	case -ETIMEDOUT:
		return p->parser.is_ready ? -1 : TURNSTILE_TIMEOUT;
	case -EBUSY:
		return TURNSTILE_EVICTED;
	case -EMSGSIZE:
		return TURNSTILE_SIZE;
	case -ENOMEM:
	case -ENOBUFS:
		return TURNSTILE_MEMORY;
	case -EPROTONOSUPPORT:
	case -EPROTO:
		return !p->is_secure        ? TURNSTILE_TLS
		       : p->parser.is_ready ? TURNSTILE_PROTOCOL
					    : TURNSTILE_HANDSHAKE;
	default:
		/* Who says hello and hangs up has made us compute, too. */
		return p->place.has_spoken && !p->is_secure ? TURNSTILE_TLS : -1;
	}
}

/* The owner hears of it while the peer is still whole. */
static void peer_end(struct peer *p, int r)
{
	int reason = p->spec.turnstile ? refusal_of(p, r) : -1;

	/* Not for a timeout: it may be us who are slow, with thousands of one address behind. Nor later,
	 * when a certificate is looked at that was good: it cost us nothing. */
	if (p->tls && !p->is_secure && (reason == TURNSTILE_TLS || reason == TURNSTILE_CERTIFICATE))
		turnstile_charge(p->spec.turnstile, peer_address(p), clock_mono_ns());
	if (reason >= 0)
		turnstile_refuse(p->spec.turnstile, (enum turnstile_reason)reason, p->spec.where,
				 peer_address(p), peer_why(p));
	p->spec.on_closed(p->data, p, r);
	peer_close(p);
}

struct peer *peer_refuse(struct peer *p, enum turnstile_reason reason)
{
	turnstile_refuse(p->spec.turnstile, reason, p->spec.where, peer_address(p), "");
	return peer_close(p);
}

void peer_recheck(struct peer *p, int64_t now_s)
{
	int r;

	CHECK(p->magic == PEER_MAGIC);
	if (!p->tls || !p->is_secure || p->spec.tls_host)
		return;
	r = tls_recheck(p->tls, p->spec.tls, now_s);
	if (r < 0)
		peer_end(p, r);
}

static void on_evicted(struct turnstile_place *place)
{
	struct peer *p = (struct peer *)(void *)((char *)place - offsetof(struct peer, place));

	CHECK(p->magic == PEER_MAGIC);
	peer_end(p, -EBUSY);
}

static ssize_t peer_write(void *data, const struct iovec *iov, size_t n)
{
	struct peer *p = data;
	/* sendmsg() does not write to them. */
	const struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = n};
	ssize_t sent;

	if (p->tls)
		return tls_write(p->tls, iov, n);
	sent = sendmsg(p->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent < 0)
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	return sent;
}

static int send_hello(struct peer *p)
{
	uint8_t hello[SP_HANDSHAKE];

	sp_handshake_put(hello, p->spec.self);
	while (p->hello_sent < SP_HANDSHAKE) {
		struct iovec rest = {hello + p->hello_sent, SP_HANDSHAKE - p->hello_sent};
		ssize_t n = peer_write(p, &rest, 1);

		if (n == -EINTR)
			continue;
		if (n < 0)
			return (int)n;
		p->hello_sent = (uint8_t)(p->hello_sent + n);
	}
	return 0;
}

static int flush(struct peer *p)
{
	struct outbox *o = p->outbox;
	int r = send_hello(p);

	if (o->bytes > o->limit / 2 || o->count > o->most / 2)
		p->was_high = true;
	/* Before the handshake is done the other side may be no peer at all. */
	if (r == 0 && p->parser.is_ready)
		r = outbox_flush(o, peer_write, p, p->spec.is_ipc);
	if (r == 0 && p->tls && tls_wants_write(p->tls))
		r = (int)tls_write(p->tls, NULL, 0);
	p->wants_write = r < 0;
	return r == -EAGAIN ? 0 : r;
}

/* False: over its rate; reading stops for a moment. */
static bool rate_allows(struct peer *p, size_t n)
{
	uint64_t now = clock_mono_ns();
	uint64_t add = (now - p->filled_ns) / 1000 * p->spec.read_rate / 1000000;

	if (add) {
		p->tokens =
			p->tokens + add > p->spec.read_rate ? p->spec.read_rate : p->tokens + add;
		p->filled_ns = now;
	}
	if (n <= p->tokens) {
		p->tokens -= n;
		return true;
	}
	p->tokens = 0;
	return false;
}

static void on_timer(void *data)
{
	struct peer *p = data;

	CHECK(p->magic == PEER_MAGIC);
	if (!p->parser.is_ready) {
		peer_end(p, -ETIMEDOUT);
		return;
	}
	p->is_slowed = false;
	update_events(p);
}

static int feed(struct peer *p, const uint8_t *data, size_t size)
{
	while (size) {
		size_t used = 0;
		int r;

		/* Who may send nothing has no business to send half a header either. */
		if (p->parser.is_ready && !p->spec.message_max)
			return -EPROTO;
		r = sp_parser_feed(&p->parser, data, size, &used);
		if (r < 0)
			return r;
		data += used;
		size -= used;
		if (r == SP_READY) {
			loop_set_timer(p->timer, 0, 0);
			loop_remove(p->timer);
			p->timer = NULL;
			p->partial_ns = 0;
			if (p->spec.on_ready)
				p->spec.on_ready(p->data, p);
			r = flush(p);
			if (r < 0)
				return r;
		} else if (r == SP_MESSAGE) {
			if (!p->spec.on_message)
				return -EPROTO;
			p->partial_ns = 0;
			r = p->spec.on_message(p->data, p, p->parser.message, p->parser.size);
			if (r < 0)
				return r;
		} else if (!p->partial_ns) {
			p->partial_ns = clock_mono_ns();
		}
	}
	return 0;
}

/* The server sends it after the handshake, with or before its first bytes. */
static void keep_ticket(struct peer *p)
{
	if (p->has_ticket)
		return;
	tls_keep_ticket(p->tls, p->spec.tls_ticket);
	p->has_ticket = true;
}

static int read_some(struct peer *p)
{
	static uint8_t chunk[READ_CHUNK]; /* one thread, and no callback reads */
	ssize_t n;
	int r;

	if (p->tls) {
		n = tls_read(p->tls, chunk, sizeof(chunk));
	} else {
		n = recv(p->fd, chunk, sizeof(chunk), MSG_DONTWAIT);
		n = n < 0 ? -errno : n;
	}

	if (n == 0)
		return -ECONNRESET;
	if (n < 0)
		return n == -EAGAIN || n == -EINTR ? 0 : (int)n;
	r = feed(p, chunk, (size_t)n);
	if (r < 0)
		return r;
	if (p->tls && p->spec.tls_ticket)
		keep_ticket(p);
	if (p->spec.read_rate && p->parser.is_ready && !rate_allows(p, (size_t)n)) {
		if (p->timer)
			r = loop_set_timer(p->timer, RATE_WAIT_MS, 0);
		else
			r = loop_add_timer(p->loop, RATE_WAIT_MS, 0, on_timer, p, &p->timer);
		if (r < 0)
			return r;
		p->is_slowed = true;
	}
	return 0;
}

/* One step of the TLS handshake; the timer of the SP handshake limits both together. */
static int secure(struct peer *p)
{
	int r = tls_handshake(p->tls);

	if (r == -EAGAIN) {
		p->wants_write = tls_wants_write(p->tls);
		return 0;
	}
	if (r < 0)
		return r;
	p->is_secure = true;
	turnstile_leave(p->spec.turnstile, &p->place);
	turnstile_secured(p->spec.turnstile, tls_is_resumed(p->tls));
	if (p->spec.turnstile)
		turnstile_trust(p->spec.turnstile, peer_address(p), clock_mono_ns());
	if (!p->spec.tls_host) {
		p->passport = malloc(sizeof(*p->passport));
		if (!p->passport)
			return -ENOMEM;
		r = tls_passport(p->tls, peer_address(p), p->passport);
		if (r == 0 && p->spec.on_secure)
			r = p->spec.on_secure(p->data, p, p->passport);
	}
	if (r == 0)
		r = flush(p);
	/* What came with the end of the handshake is no event of the socket any more. */
	return r < 0 ? r : read_some(p);
}

static int finish_connect(struct peer *p)
{
	int error = 0;
	socklen_t len = sizeof(error);

	if (getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		return -errno;
	if (error)
		return -error;
	p->is_connecting = false;
	return p->is_secure ? flush(p) : secure(p);
}

/* Who could not be written to may have said why: in TLS 1.3 a server judges our certificate when we
 * are done with the handshake and write already. */
static int last_words(struct peer *p, int r)
{
	int last = read_some(p);

	return last < 0 ? last : r;
}

/* An end of file says nothing: who only looks whether the port is open is no stranger. False: nothing came
 * yet, and nobody may read before it was heard that something did. */
static bool hear(struct peer *p)
{
	uint8_t byte;
	ssize_t n;

	if (!p->place.is_in || p->place.has_spoken)
		return true;
	n = recv(p->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	if (n > 0)
		turnstile_heard(p->spec.turnstile, &p->place, clock_mono_ns());
	else if (n < 0 && errno == EAGAIN)
		return false;
	return true;
}

static void on_io(void *data, int fd, unsigned int events)
{
	struct peer *p = data;
	int r = 0;

	(void)fd;
	CHECK(p->magic == PEER_MAGIC);
	if (p->is_connecting) {
		r = finish_connect(p);
	} else if (!p->is_secure) {
		if (hear(p))
			r = secure(p);
		else
			p->wants_write = false;
	} else if (events & LOOP_WRITE) {
		r = flush(p);
	}
	if (r == 0 && events & LOOP_READ && !p->is_connecting && p->is_secure)
		r = read_some(p);
	else if (r == -ECONNRESET && p->tls && p->is_secure)
		r = last_words(p, r);
	if (r < 0) {
		peer_end(p, r);
		return;
	}
	if (p->was_high && p->outbox->bytes <= p->outbox->limit / 2 &&
	    p->outbox->count <= p->outbox->most / 2) {
		p->was_high = false;
		if (p->spec.on_drained)
			p->spec.on_drained(p->data, p);
	}
	update_events(p);
}

static int open_tls(struct peer *p)
{
	p->is_secure = !p->spec.tls;
	if (!p->spec.tls)
		return 0;
	if (p->spec.tls_host)
		return tls_open_client(p->spec.tls, p->fd, p->spec.tls_host, p->spec.tls_ticket,
				       &p->tls);
	p->place.evict = on_evicted;
	return tls_open_server(p->spec.tls, p->fd, &p->tls);
}

int peer_open(struct loop *loop, int fd, const struct peer_spec *spec, bool is_connecting,
	      void *data, struct peer **ret)
{
	struct peer *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return -ENOMEM;
	p->magic = PEER_MAGIC;
	p->loop = loop;
	p->spec = *spec;
	p->data = data;
	p->fd = fd;
	p->is_connecting = is_connecting;
	p->tokens = spec->read_rate;
	p->filled_ns = clock_mono_ns();
	sp_parser_init(&p->parser, spec->expect, spec->is_ipc, spec->message_max, spec->budget);
	outbox_init(&p->own, spec->queue_bytes, spec->queue_messages);
	p->outbox = &p->own;
	/* The loop's first write event sends the handshake: nothing can fail in here but memory. */
	p->wants_write = true;
	r = open_tls(p);
	if (r == 0)
		r = loop_add_fd(loop, fd, LOOP_WRITE | (is_connecting ? 0 : LOOP_READ), on_io, p,
				&p->watch);
	if (r == 0)
		r = loop_add_timer(loop, spec->tls_host ? PEER_TLS_CLIENT_MS : PEER_HANDSHAKE_MS, 0,
				   on_timer, p, &p->timer);
	if (r < 0) {
		loop_remove(p->watch);
		tls_close(p->tls);
		free(p);
		return r;
	}
	/* Once it has hung up nobody knows any more who it was. */
	if (spec->turnstile)
		peer_address(p);
	if (p->place.evict)
		turnstile_enter(p->spec.turnstile, &p->place, clock_mono_ns());
	*ret = p;
	return 0;
}

bool peer_is_ready(const struct peer *p)
{
	return p->parser.is_ready;
}

bool peer_is_resumed(const struct peer *p)
{
	return p->tls && p->is_secure && tls_is_resumed(p->tls);
}

const char *peer_why(const struct peer *p)
{
	return p->tls ? tls_why(p->tls) : "";
}

const char *peer_address(struct peer *p)
{
	if (!p->address[0])
		acceptor_peer_address(p->fd, p->address, sizeof(p->address));
	return p->address;
}

uint64_t peer_partial_ns(const struct peer *p)
{
	return p->is_paused || !p->parser.is_ready ? 0 : p->partial_ns;
}

struct outbox *peer_outbox(struct peer *p)
{
	return p->outbox;
}

void peer_use_outbox(struct peer *p, struct outbox *o)
{
	outbox_rewind(o);
	p->outbox = o;
}

void peer_kick(struct peer *p)
{
	CHECK(p->magic == PEER_MAGIC);
	if (p->is_connecting || !p->parser.is_ready || p->wants_write)
		return;
	/* An error is found again, and handled, by the write event that is now asked for. */
	flush(p);
	update_events(p);
}

void peer_pause(struct peer *p, bool is_paused)
{
	CHECK(p->magic == PEER_MAGIC);
	if (p->is_paused == is_paused)
		return;
	p->is_paused = is_paused;
	/* While it was paused the peer could not go on. */
	if (!is_paused && p->partial_ns)
		p->partial_ns = clock_mono_ns();
	update_events(p);
}
