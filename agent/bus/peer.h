/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One connection that speaks SP, and a listener of them, both without nanomsg: handshake within
 * its time, limits on size, rate and memory, whole checked messages only. Owned by the event loop
 * of one process.
 */
#pragma once

#include "base/err.h"
#include "base/loop.h"
#include "bus/outbox.h"
#include "bus/sp.h"
#include "bus/tls.h"
#include "bus/turnstile.h"

#define PEER_HANDSHAKE_MS  5000 /* both handshakes; of a TLS client, who may wait in a queue: */
#define PEER_TLS_CLIENT_MS 20000

struct peer;

struct peer_spec {
	uint16_t self, expect; /* enum sp_protocol */
	bool is_ipc;
	size_t message_max; /* 0: any message is refused (-EPROTO) */
	size_t queue_bytes; /* of the outbox */
	unsigned int queue_messages;
	uint64_t read_rate; /* bytes a second, 0: no limit; a burst of one second is allowed */
	struct sp_budget *budget; /* of half-read messages; may be NULL */
	struct credentials *tls;  /* NULL: plain */
	const char *tls_host;     /* the server that we expect, borrowed; NULL: we are the server */
	struct tls_ticket *tls_ticket; /* of a client: used, and kept for the next; may be NULL */
	/* Of a server: counts what is refused, with where it was; borrowed, may be NULL. */
	struct turnstile *turnstile;
	const char *where;
	/* After the TLS handshake of a server; a negative result closes the peer. passport is
	 * borrowed for the life of the peer. */
	int (*on_secure)(void *data, struct peer *p, const struct passport *passport);
	/* All but on_closed may be NULL. Inside them the peer must not be closed by its owner: a
	 * negative result of on_message closes it. */
	void (*on_ready)(void *data, struct peer *p);
	int (*on_message)(void *data, struct peer *p, const uint8_t *message, size_t size);
	/* Queue fell below half after it was above. */
	void (*on_drained)(void *data, struct peer *p);
	/* The peer is gone when this returns. r: why; -ECONNRESET also for a normal end, -EACCES for
	 * a certificate that is not accepted. */
	void (*on_closed)(void *data, struct peer *p, int r);
};

/* Takes fd at once on success; is_connecting: listen_connect() gave -EINPROGRESS. spec is copied. */
int peer_open(struct loop *loop, int fd, const struct peer_spec *spec, bool is_connecting,
	      void *data, struct peer **ret);
/* Without on_closed. NULL is fine; returns NULL. */
struct peer *peer_close(struct peer *p);
/* The same, counted as refused. */
struct peer *peer_refuse(struct peer *p, enum turnstile_reason reason);
/* Of a server: looks at the certificate of who was let in again (tls_recheck()); ends the peer, with
 * on_closed, when it is good no more. */
void peer_recheck(struct peer *p, int64_t now_s);

bool peer_is_ready(const struct peer *p);
/* Its TLS session went on with a ticket. */
bool peer_is_resumed(const struct peer *p);
/* What TLS says in words about its end, else ""; and who it was, "" over ipc. In on_closed. */
const char *peer_why(const struct peer *p);
const char *peer_address(struct peer *p);
/* Monotonic time since which it owes us the rest of a message; 0: it does not. */
uint64_t peer_partial_ns(const struct peer *p);
struct outbox *peer_outbox(struct peer *p);
/* Instead of its own: an outbox that outlives the connection (the caller's). */
void peer_use_outbox(struct peer *p, struct outbox *o);
/* After something was pushed: sends what the socket takes, the rest later. Never closes. */
void peer_kick(struct peer *p);
void peer_pause(struct peer *p, bool is_paused);

/* ---- listener ---- */

struct acceptor;

/* Takes fd; may close it. */
typedef void (*acceptor_fn)(void *data, int fd);

/* Without descriptors or memory it stops accepting for one second. has_tls: fn speaks TLS when
 * acceptor_is_tls(), which the address says. */
int acceptor_open(struct loop *loop, const char *address, bool has_tls, acceptor_fn fn, void *data,
		  struct acceptor **ret, struct err *e);
/* TLS connections wait in the backlog while it has no room, and are closed where it does not let their
 * host; both borrowed, NULL is fine. */
void acceptor_use_turnstile(struct acceptor *a, struct turnstile *turnstile, const char *where);
bool acceptor_is_tls(const struct acceptor *a);
struct acceptor *acceptor_close(struct acceptor *a);
bool acceptor_is_ipc(const struct acceptor *a);
unsigned int acceptor_port(const struct acceptor *a);
uint64_t acceptor_stalls(const struct acceptor *a);
/* Address of the other end of a socket, "192.0.2.1:5000", "[2001:db8::1]:5000"; "" over ipc. */
void acceptor_peer_address(int fd, char *buf, size_t size);
