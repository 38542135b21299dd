/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Connections that the gateway makes: connect() and how it ends, and the calls that move bytes on
 * them, requests out and responses in. Runs in the watched thread.
 */
#pragma once

#include "request.bpf.h"

#define E_NOENT       2
#define E_INTR        4
#define E_BADF        9
#define E_AGAIN       11
#define E_FAULT       14
#define E_INVAL       22
#define E_PIPE        32
#define E_NOTSOCK     88
#define E_PROTOTYPE   91
#define E_AFNOSUPPORT 97
#define E_NETDOWN     100
#define E_NETUNREACH  101
#define E_CONNABORTED 103
#define E_CONNRESET   104
#define E_ISCONN      106
#define E_NOTCONN     107
#define E_TIMEDOUT    110
#define E_CONNREFUSED 111
#define E_HOSTDOWN    112
#define E_HOSTUNREACH 113
#define E_ALREADY     114
#define E_INPROGRESS  115

#define SOL_SOCKET 1
#define SO_ERROR   4

/* -ERESTART…: the process sees EINTR, or the same call again. */
static __always_inline bool error_is_interrupt(u32 e)
{
	return e == E_INTR || (e >= 512 && e <= 516);
}

/* Says something about the call, not about the upstream. */
static __always_inline bool error_is_own(u32 e)
{
	return error_is_interrupt(e) || e == E_BADF || e == E_FAULT || e == E_INVAL ||
	       e == E_NOTSOCK || e == E_PROTOTYPE || e == E_AFNOSUPPORT || e == E_ISCONN ||
	       e == E_NOTCONN || e == E_ALREADY;
}

static __always_inline u32 error_reason(u32 e)
{
	switch (e) {
	case E_NOENT:
	case E_CONNREFUSED:
		return UPSTREAM_REFUSED;
	case E_TIMEDOUT:
		return UPSTREAM_TIMEOUT;
	case E_PIPE:
	case E_CONNABORTED:
	case E_CONNRESET:
		return UPSTREAM_RESET;
	case E_NETDOWN:
	case E_NETUNREACH:
	case E_HOSTDOWN:
	case E_HOSTUNREACH:
		return UPSTREAM_UNREACHABLE;
	default:
		return UPSTREAM_OTHER;
	}
}

/* Nothing more is expected of this connection. */
static __always_inline void upstream_fail(struct connection *c, u32 reason, u32 n)
{
	if (n)
		upstream_error_add(c->upstream, reason, n);
	c->flags |= CONNECTION_FAILED;
	c->connect_ns = 0;
	c->ended = c->started;
	c->streams[SIDE_REQUEST].state = STREAM_OFF;
	c->streams[SIDE_RESPONSE].state = STREAM_OFF;
}

/* What a call, or SO_ERROR, said. least: counted even if no request waits for its answer. */
GLOBAL int upstream_failed(struct connection *c, u32 e, u32 least)
{
	u32 reason, n;

	if (!c || c->flags & CONNECTION_FAILED || error_is_own(e) || e == E_AGAIN ||
	    e == E_INPROGRESS)
		return 0;
	reason = error_reason(e);
	n = requests_pending(c);
	if (c->connect_ns)
		upstream_fail(c, reason, 1);
	else if (reason != UPSTREAM_OTHER)
		upstream_fail(c, reason, n ? n : least);
	return 0;
}

/* The descriptor is about to be closed. */
GLOBAL int upstream_end(struct slot *s, struct connection *c, u32 fd)
{
	u32 n, state;
	u64 now, sk;

	if (!s || !c)
		return 0;
	n = requests_pending(c);
	if (!n && !c->connect_ns)
		return 0;
	now = bpf_ktime_get_ns();
	sk = socket_of(fd);
	state = socket_state(sk);
	if (n && c->streams[SIDE_RESPONSE].state == STREAM_UNTIL_CLOSE &&
	    (!state || state_has_end(state)))
		request_complete(s, c, now);
	n = requests_pending(c);
	if (state == STATE_CLOSE) {
		u32 e = socket_error(sk);

		upstream_fail(c, e ? error_reason(e) : UPSTREAM_RESET, c->connect_ns ? 1 : n);
	} else if (c->connect_ns && (!state || state == STATE_SYN_SENT)) {
		if (now - c->connect_ns >= UNANSWERED_NS)
			upstream_fail(c, UPSTREAM_TIMEOUT, 1);
		else
			upstream_given_up(s, c, now);
	} else if (n && state_has_end(state)) {
		upstream_fail(c, UPSTREAM_CLOSED, n);
	} else if (n) {
		upstream_given_up(s, c, now);
	}
	return 0;
}

/* ---- connect() ---- */

/* False: no address of an upstream. */
static __always_inline bool address_read(struct upstream_address *a, u64 user, u64 len)
{
	u8 in[28] = {}; /* struct sockaddr_in6 */

	if (len < 3)
		return 0;
	if (bpf_probe_read_user(&a->family, sizeof(a->family), (void *)user))
		return 0;
	if (a->family == FAMILY_UNIX) {
		len -= 2;
		if (len > 108)
			len = 108;
		/* A path ends at its NUL; a name without a path begins with one, and has all of it. */
		if (bpf_probe_read_user(a->bytes, 1, (void *)(user + 2)))
			return 0;
		if (a->bytes[0])
			return bpf_probe_read_user_str(a->bytes, len + 1, (void *)(user + 2)) > 1;
		return !bpf_probe_read_user(a->bytes, len, (void *)(user + 2));
	}
	if (a->family == FAMILY_INET && len >= 8) {
		if (bpf_probe_read_user(in, 8, (void *)user))
			return 0;
		a->port = *(u16 *)&in[2];
		*(u32 *)a->bytes = *(u32 *)&in[4];
		return 1;
	}
	if (a->family != FAMILY_INET6 || len < 24 || bpf_probe_read_user(in, 24, (void *)user))
		return 0;
	a->port = *(u16 *)&in[2];
	if (!*(u32 *)&in[8] && !*(u32 *)&in[12] && *(u32 *)&in[16] == 0xffff0000u) {
		a->family = FAMILY_INET;
		*(u32 *)a->bytes = *(u32 *)&in[20];
		return 1;
	}
#pragma unroll
	for (u32 i = 0; i < 16; i += 4)
		*(u32 *)&a->bytes[i] = *(u32 *)&in[8 + i];
	return 1;
}

/* Datagrams have no upstreams. Where the socket cannot be asked, only what cannot happen to a
 * datagram's socket tells. */
static __always_inline bool connect_is_stream(u32 fd, u32 family, u32 e)
{
	u32 type = socket_type(socket_of(fd));

	if (type)
		return type == TYPE_STREAM;
	return family == FAMILY_UNIX || e == E_INPROGRESS || e == E_CONNREFUSED || e == E_TIMEDOUT;
}

static __always_inline void upstream_begin(struct slot *s, u32 fd, u32 index, u64 since)
{
	u64 key = connection_key(s, fd);
	struct connection *c;

	if (!connection_claim(key) ||
	    bpf_map_update_elem(&connections, &key, (const void *)&blank, BPF_ANY)) {
		lost(LOST_CONNECTIONS);
		return;
	}
	c = bpf_map_lookup_elem(&connections, &key);
	if (!c)
		return;
	c->flags = CONNECTION_UPSTREAM;
	c->upstream = index;
	c->connect_ns = since;
}

/* connect() on a descriptor that has none under way. */
GLOBAL int connect_new(struct slot *s, u32 fd, u32 e)
{
	struct upstream_address a = {};
	struct connection *c;
	u64 since, now;
	u32 index;

	if (!s || (error_is_own(e) && !error_is_interrupt(e)))
		return 0;
	if (!address_read(&a, s->args[1], s->args[2]) || !connect_is_stream(fd, a.family, e))
		return 0;
	a.gateway = s->gateway;
	index = upstream_find(&a);
	now = bpf_ktime_get_ns();
	since = s->connect_since_ns ? s->connect_since_ns : now;
	s->connect_since_ns = 0;
	if (e && e != E_INPROGRESS && !error_is_interrupt(e)) {
		upstream_error_add(index, error_reason(e), 1);
		return 0;
	}
	upstream_begin(s, fd, index, since);
	if (e)
		return 0;
	c = connection_of(s, fd);
	if (c)
		upstream_established(c, now);
	return 0;
}

/* Some ask again with connect() whether it was successful. */
GLOBAL int connect_return(struct slot *s, s64 ret)
{
	struct connection *c;
	u32 fd, e = ret < 0 ? (u32)-ret : 0;

	if (!s)
		return 0;
	fd = (u32)s->args[0];
	c = connection_of(s, fd);
	if (c && c->flags & CONNECTION_UPSTREAM && c->connect_ns && e != E_INPROGRESS) {
		if (!e || e == E_ISCONN)
			upstream_established(c, bpf_ktime_get_ns());
		else
			upstream_failed(c, e, 1);
		return 0;
	}
	if (e == E_ISCONN || e == E_ALREADY)
		return 0;
	/* A new socket under a descriptor that was closed unseen. */
	if (c)
		connection_drop(s, fd);
	return connect_new(s, fd, e);
}

/* The other way to ask. */
GLOBAL int sockopt_return(struct slot *s, s64 ret)
{
	struct connection *c;
	u32 e = 0;

	if (!s || ret || (u32)s->args[1] != SOL_SOCKET || (u32)s->args[2] != SO_ERROR)
		return 0;
	c = connection_of(s, (u32)s->args[0]);
	if (!c || !(c->flags & CONNECTION_UPSTREAM) ||
	    bpf_probe_read_user(&e, sizeof(e), (void *)s->args[3]))
		return 0;
	if (e)
		upstream_failed(c, e, 0);
	else if (c->connect_ns && socket_state(socket_of((u32)s->args[0])) != STATE_SYN_SENT)
		upstream_established(c, bpf_ktime_get_ns());
	return 0;
}

/* ---- bytes ---- */

/* True: the bytes are to be looked at. */
GLOBAL int upstream_write(struct slot *s, struct connection *c, s64 ret)
{
	if (!s || !c || !ret)
		return 0;
	if (ret < 0) {
		upstream_failed(c, (u32)-ret, 1);
		return 0;
	}
	if (c->connect_ns)
		upstream_established(c, bpf_ktime_get_ns());
	return c->streams[SIDE_REQUEST].state != STREAM_OFF;
}

static __always_inline void upstream_eof(struct slot *s, struct connection *c)
{
	u32 n;

	if (!requests_pending(c))
		return;
	if (c->streams[SIDE_RESPONSE].state == STREAM_UNTIL_CLOSE)
		request_complete(s, c, bpf_ktime_get_ns());
	n = requests_pending(c);
	upstream_fail(c, UPSTREAM_CLOSED, n);
}

/* True: an answer may come now, and these bytes may be of it. Threads share a connection (Go): one
 * may have read the answer before another, which wrote the request, has returned from its call. The
 * request is begun here then, and nothing when it is seen. What no request asked for is left alone,
 * be it a greeting of another protocol or a 408 that says goodbye. */
GLOBAL int upstream_expects(struct slot *s, struct connection *c, u64 buffer, u64 n)
{
	u8 line[13] = {};

	if (!s || !c)
		return 0;
	if (requests_pending(c))
		return 1;
	if (n < sizeof(line) || c->streams[SIDE_REQUEST].state != STREAM_FIRST ||
	    c->streams[SIDE_RESPONSE].state != STREAM_FIRST ||
	    bpf_probe_read_user(line, sizeof(line), (void *)buffer))
		return 0;
	if (line[0] != 'H' || line[1] != 'T' || line[2] != 'T' || line[3] != 'P' ||
	    line[4] != '/' || line[5] != '1' || line[6] != '.' ||
	    (line[9] == '4' && line[10] == '0' && line[11] == '8'))
		return 0;
	request_start(s, c, HTTP_OTHER, bpf_ktime_get_ns());
	c->early++;
	return 1;
}

/* True: the bytes are to be looked at. */
GLOBAL int upstream_read(struct slot *s, struct connection *c, u32 class, u32 is_peek, s64 ret)
{
	if (!s || !c)
		return 0;
	if (ret < 0) {
		upstream_failed(c, (u32)-ret, 0);
		return 0;
	}
	if (!ret) {
		if (class != CLASS_READ || s->args[2])
			upstream_eof(s, c);
		return 0;
	}
	if (c->connect_ns)
		upstream_established(c, bpf_ktime_get_ns());
	if (is_peek || c->streams[SIDE_RESPONSE].state >= STREAM_UNTIL_CLOSE)
		return 0;
	return upstream_expects(s, c, s->args[1], class == CLASS_READ ? ret : 0);
}
