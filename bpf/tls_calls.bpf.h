/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Plain bytes of TLS connections: entry and exit of OpenSSL's SSL_read and SSL_write, and of Go's
 * crypto/tls. A call's buffer is read when it returns, so an answer is complete when the library has
 * taken its last byte; what Go writes, when it begins. Plain uprobes only (gc.bpf.h says why). Runs in
 * the watched thread.
 */
#pragma once

#include "request.bpf.h"

/* n plain bytes at `buffer`, read or written through `object`; 0: the peer said that it leaves. -1: it
 * is not known yet whose they are. */
GLOBAL int tls_take(struct slot *s, u64 object, u64 buffer, u64 n, u32 is_write)
{
	struct tls_key key = {.object = object};
	struct connection *c;
	struct stream *st;
	const u32 *fd;
	u32 side;

	if (!s)
		return 0;
	key.tgid = s->tgid;
	fd = bpf_map_lookup_elem(&tls_ties, &key);
	if (!fd)
		return -1;
	c = connection_of(s, *fd);
	/* The number may be another connection's by now. */
	if (!c || c->tls_object != object)
		return -1;
	if (!n) {
		if (!(c->flags & CONNECTION_UPSTREAM))
			c->flags |= CONNECTION_CLIENT_LEFT;
		return 0;
	}
	side = !is_write == !(c->flags & CONNECTION_UPSTREAM) ? SIDE_REQUEST : SIDE_RESPONSE;
	st = &c->streams[side & 1];
	if (st->state == STREAM_OFF)
		return 0;
	if (side == SIDE_RESPONSE && st->state != STREAM_HTTP2 &&
	    (st->state == STREAM_UNTIL_CLOSE ||
	     !(c->flags & CONNECTION_UPSTREAM ? upstream_expects(s, c, buffer, n)
					      : requests_pending(c))))
		return 0;
	if (st->skip > n) {
		st->skip -= n;
		return 0;
	}
	scan_buffer(s, buffer, n);
	bytes_take(s, c, side);
	return 0;
}

/* ---- OpenSSL: a call stays on its thread ---- */

SEC("uprobe")
int tls_enter(struct pt_regs *ctx)
{
	struct slot *s = slot_current();

	if (!s)
		return 0;
	s->tls_buffer = ctx->si;
	s->tls_count = ctx->cx;
	s->tls_object = ctx->di;
	return 0;
}

SEC("uprobe")
int tls_exit(struct pt_regs *ctx)
{
	struct slot *s = slot_current();
	s64 n = (s32)ctx->ax;
	u64 object, cookie;

	if (!s)
		return 0;
	object = s->tls_object;
	s->tls_object = 0;
	if (!object || object & TLS_HINT)
		return 0;
	cookie = bpf_get_attach_cookie(ctx);
	if (cookie & TLS_COOKIE_COUNT) {
		/* 1: done; a failure does not tell which. */
		if (n != 1 || bpf_probe_read_user(&n, sizeof(n), (void *)s->tls_count))
			return 0;
	}
	if (n < 0 || (!n && cookie))
		return 0;
	tls_take(s, object, s->tls_buffer, n, cookie & TLS_COOKIE_WRITE);
	return 0;
}

/* A handshake may read the first request's record as well: its calls say whose connection it is. */
SEC("uprobe")
int tls_handshake(struct pt_regs *ctx)
{
	struct slot *s = slot_current();

	if (s)
		s->tls_object = ctx->di | TLS_HINT;
	return 0;
}

/* ---- Go from 1.18 on: arguments and result in registers, the goroutine in r14 ---- */

SEC("uprobe")
int tls_go_enter(struct pt_regs *ctx)
{
	struct tls_call call = {.object = ctx->ax, .buffer = ctx->bx};
	struct tls_key key = {.object = ctx->r14};
	struct slot *s = slot_current();

	if (!s)
		return 0;
	key.tgid = s->tgid;
	/* The peer has an answer before Write returns, and another goroutine may see it leave and close
	 * the connection meanwhile; so what is written counts at once, if it is known whose it is. */
	if (bpf_get_attach_cookie(ctx) & TLS_COOKIE_WRITE && (s64)ctx->cx > 0 &&
	    tls_take(s, call.object, call.buffer, ctx->cx, 1) == 0)
		call.buffer = 0;
	if (bpf_map_update_elem(&tls_calls, &key, &call, BPF_ANY))
		lost(LOST_TLS);
	return 0;
}

/* As with OpenSSL; it may also be part of a read or write, which is known already. */
SEC("uprobe")
int tls_go_handshake(struct pt_regs *ctx)
{
	struct tls_call call = {.object = ctx->ax};
	struct tls_key key = {.object = ctx->r14};
	struct slot *s = slot_current();
	const struct tls_call *found;

	if (!s)
		return 0;
	key.tgid = s->tgid;
	found = bpf_map_lookup_elem(&tls_calls, &key);
	if (found && found->object == call.object)
		return 0;
	if (bpf_map_update_elem(&tls_calls, &key, &call, BPF_ANY))
		lost(LOST_TLS);
	return 0;
}

SEC("uprobe")
int tls_go_exit(struct pt_regs *ctx)
{
	struct tls_key key = {.object = ctx->r14};
	struct slot *s = slot_current();
	const struct tls_call *found;
	struct tls_call call;
	s64 n = ctx->ax;

	if (!s)
		return 0;
	key.tgid = s->tgid;
	found = bpf_map_lookup_elem(&tls_calls, &key);
	if (!found)
		return 0;
	call = *found;
	bpf_map_delete_elem(&tls_calls, &key);
	if (n > 0 && call.buffer)
		tls_take(s, call.object, call.buffer, n,
			 bpf_get_attach_cookie(ctx) & TLS_COOKIE_WRITE);
	return 0;
}
