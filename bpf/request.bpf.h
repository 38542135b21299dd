/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Connections of watched processes and the calls that move bytes on them. Runs in the watched
 * thread.
 */
#pragma once

#include "head.bpf.h"
#include "http2.bpf.h"

#define NEG_EPIPE      (-32)
#define NEG_ECONNRESET (-104)
#define NEG_ETIMEDOUT  (-110)

#define PEEK 2 /* MSG_PEEK */

static __always_inline u64 connection_key(const struct slot *s, u32 fd)
{
	return (u64)s->tgid << 32 | fd;
}

/* connect.bpf.h: connections that the gateway makes. */
int upstream_end(struct slot *s, struct connection *c, u32 fd);
int upstream_read(struct slot *s, struct connection *c, u32 class, u32 is_peek, s64 ret);
int upstream_write(struct slot *s, struct connection *c, s64 ret);

/* A client may leave without the gateway reading the end: ask the socket. */
static __always_inline u32 socket_flags(u32 fd)
{
	u32 state = socket_state(socket_of(fd));

	if (state == STATE_CLOSE)
		return CONNECTION_CLIENT_RESET;
	return state_has_end(state) ? CONNECTION_CLIENT_LEFT : 0;
}

static __always_inline void connection_end(struct slot *s, struct connection *c, u32 fd)
{
	u64 now;
	u32 flags, n;

	s->cells.closes++;
	if (c->flags & CONNECTION_HTTP2)
		http2_end(c);
	if (!requests_pending(c))
		return;
	now = bpf_ktime_get_ns();
	flags = (c->flags | socket_flags(fd)) & CONNECTION_CLIENT_GONE;
	if (c->streams[SIDE_RESPONSE].state == STREAM_UNTIL_CLOSE &&
	    !(flags & CONNECTION_CLIENT_RESET))
		request_complete(s, c, now);
	n = requests_drop(s, c, now);
	if (flags)
		s->cells.requests_aborted += n;
	else
		s->cells.requests_lost += n;
}

/* False: at this very moment the agent ends the connection, and counts it. */
static __always_inline bool connection_claim(u64 key)
{
	u64 *claim = &control.claims[claim_place(key)];
	u64 seen = *(volatile u64 *)claim;

	if (seen == key)
		seen = __sync_val_compare_and_swap(claim, key, 0);
	return seen != (key | CLAIM_TAKEN);
}

/* The descriptor is about to be closed, or turns out to have become another one. 1: the agent is just
 * ending what was there, so that nothing new may be put there. */
GLOBAL int connection_drop(struct slot *s, u32 fd)
{
	struct connection *c;
	u64 key;

	if (!s)
		return 0;
	key = connection_key(s, fd);
	if (!connection_claim(key))
		return 1;
	c = bpf_map_lookup_elem(&connections, &key);
	if (!c)
		return 0;
	s->scan.key = key;
	if (c->flags & CONNECTION_TLS)
		tls_end(s, c);
	if (c->flags & CONNECTION_UPSTREAM)
		upstream_end(s, c, fd);
	else
		connection_end(s, c, fd);
	bpf_map_delete_elem(&connections, &key);
	return 0;
}

static __always_inline void connection_accepted(struct slot *s, u32 fd, u64 now)
{
	u64 key = connection_key(s, fd);

	s->cells.accepts++;
	s->last_accept_ns = now;
	if (connection_drop(s, fd) ||
	    bpf_map_update_elem(&connections, &key, (const void *)&blank, BPF_ANY)) {
		s->cells.closes++;
		lost(LOST_CONNECTIONS);
	}
}

static __always_inline void scan_begin(struct scan *sc, u64 n)
{
	sc->left = n;
	sc->pos = sc->len = sc->line = 0;
	sc->iov_at = sc->iov_have = 0;
	sc->now_ns = bpf_ktime_get_ns();
}

static __always_inline void scan_buffer(struct slot *s, u64 at, u64 n)
{
	scan_begin(&s->scan, n);
	s->scan.user = at;
	s->scan.segment = n;
	s->scan.iov_left = 0;
}

static __always_inline void scan_vector(struct slot *s, u64 n, u64 iov, u64 count)
{
	scan_begin(&s->scan, n);
	s->scan.segment = 0;
	s->scan.iov = iov;
	s->scan.iov_left = count;
}

/* False: the header could not be read. */
static __always_inline bool scan_message(struct slot *s, u64 n)
{
	u64 iov[2] = {}; /* struct msghdr: the vector and its length at offset 16 */

	if (bpf_probe_read_user(iov, sizeof(iov), (void *)(s->args[1] + 16))) {
		lost(LOST_MEMORY);
		return 0;
	}
	scan_vector(s, n, iov[0], iov[1]);
	return 1;
}

static __always_inline bool scan_setup(struct slot *s, u32 class, u64 n)
{
	if (class == CLASS_READ || class == CLASS_WRITE)
		scan_buffer(s, s->args[1], n);
	else if (class == CLASS_READV || class == CLASS_WRITEV)
		scan_vector(s, n, s->args[1], s->args[2]);
	else
		return scan_message(s, n);
	return 1;
}

static __always_inline void walk_all(struct slot *s, struct connection *c, const u32 side)
{
	struct walk w = {.slot = s, .connection = c};
	long steps;

	if (side == SIDE_REQUEST) {
		steps = bpf_loop(STEPS_MOST, walk_request, &w, 0);
		sync_again(c);
	} else {
		steps = bpf_loop(STEPS_MOST, walk_response, &w, 0);
	}
	if (steps >= STEPS_MOST) {
		lost(LOST_PARSE);
		connection_off(s, c, s->scan.now_ns);
	}
}

static __always_inline struct connection *connection_of(struct slot *s, u32 fd)
{
	u64 key = connection_key(s, fd);

	s->scan.key = key;
	return bpf_map_lookup_elem(&connections, &key);
}

/* What s->scan was set up for: plain bytes of one side, wherever they came from. */
GLOBAL int bytes_take(struct slot *s, struct connection *c, u32 side)
{
	if (!s || !c)
		return 0;
	BOUND(side, 1);
	if (c->streams[side].state != STREAM_HTTP2) {
		if (side == SIDE_REQUEST) {
			if (!request_head(s, c))
				walk_all(s, c, SIDE_REQUEST);
		} else if (!response_head(s, c)) {
			walk_all(s, c, SIDE_RESPONSE);
		}
	}
	/* Perhaps these bytes began it. */
	if (c->streams[side].state == STREAM_HTTP2)
		http2_take(s, c, side);
	return 0;
}

static __always_inline bool is_peek(const struct slot *s, u32 id, u32 class)
{
	return (class == CLASS_READ && id == SYSCALL_recvfrom && s->args[3] & PEEK) ||
	       (class == CLASS_RECVMSG && s->args[2] & PEEK);
}

/* Bytes that never were in the process: only a counted body can be these. */
static __always_inline void unseen_take(struct slot *s, struct connection *c, const u32 side, u64 n)
{
	s->scan.now_ns = bpf_ktime_get_ns();
	if (c->streams[side].state == STREAM_SYNC) {
		c->streams[side].carry_len = 0;
		c->first_ns = 0;
	} else if (c->streams[side].skip == n) {
		skip_take(s, c, side, n);
	} else {
		connection_off(s, c, s->scan.now_ns);
	}
}

/* What the call moved on a connection, on its way to the parser. Not a function of its own: calls go
 * deep below, and the kernel allows eight frames. */
static __always_inline int side_take(struct slot *s, struct connection *c, u32 side, u32 class,
				     u64 n)
{
	struct stream *st = &c->streams[side];

	if (st->skip > n) {
		st->skip -= n;
		return 0;
	}
	if (class == CLASS_SENDFILE || class == CLASS_SPLICE) {
		if (st->state == STREAM_HTTP2)
			return http2_unseen(s, c, st, n) ? bytes_take(s, c, side) : 0;
		unseen_take(s, c, side, n);
		return 0;
	}
	return scan_setup(s, class, n) ? bytes_take(s, c, side) : 0;
}

GLOBAL int request_read(struct slot *s, u32 id, u32 class, s64 ret)
{
	struct connection *c;
	bool is_cipher;

	if (!s)
		return 0;
	c = connection_of(s, (u32)s->args[0]);
	if (!c)
		return 0;
	is_cipher = (c->flags & CONNECTION_TLS || s->tls_object ||
		     c->streams[SIDE_REQUEST].state == STREAM_SYNC) &&
		    tls_call(s, c, (u32)s->args[0], class);
	if (c->flags & CONNECTION_UPSTREAM) {
		if (!upstream_read(s, c, class, is_peek(s, id, class), ret) || is_cipher)
			return 0;
		return side_take(s, c, SIDE_RESPONSE, class, ret);
	}
	if (ret <= 0) {
		if (ret == NEG_ECONNRESET || ret == NEG_EPIPE || ret == NEG_ETIMEDOUT)
			c->flags |= CONNECTION_CLIENT_RESET;
		else if (!ret && (class != CLASS_READ || s->args[2]))
			c->flags |= CONNECTION_CLIENT_LEFT;
		return 0;
	}
	if (is_cipher || is_peek(s, id, class) || c->streams[SIDE_REQUEST].state == STREAM_OFF)
		return 0;
	return side_take(s, c, SIDE_REQUEST, class, ret);
}

GLOBAL int response_write(struct slot *s, u32 class, u32 fd, s64 ret)
{
	struct connection *c;
	bool is_cipher;

	if (!s)
		return 0;
	c = connection_of(s, fd);
	if (!c)
		return 0;
	is_cipher = (c->flags & CONNECTION_TLS || s->tls_object) && class_writes(class) &&
		    tls_call(s, c, fd, class);
	if (c->flags & CONNECTION_UPSTREAM) {
		if (!upstream_write(s, c, ret) || is_cipher)
			return 0;
		return side_take(s, c, SIDE_REQUEST, class, ret);
	}
	if (ret <= 0) {
		if (ret == NEG_ECONNRESET || ret == NEG_EPIPE)
			c->flags |= CONNECTION_CLIENT_RESET;
		return 0;
	}
	if (is_cipher || c->streams[SIDE_RESPONSE].state >= STREAM_UNTIL_CLOSE)
		return 0;
	if (!requests_pending(c) && c->streams[SIDE_RESPONSE].state != STREAM_HTTP2)
		return 0;
	return side_take(s, c, SIDE_RESPONSE, class, ret);
}
