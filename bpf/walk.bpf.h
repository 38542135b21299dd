/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The bytes of one read or write, wherever they are cut. One step of bpf_loop() takes one line, one
 * piece of a line without its end, one skip or one fetch; all that changes lies in map memory, so
 * that the verifier needs to see a step only once. Runs in the watched thread.
 */
#pragma once

#include "message.bpf.h"

#define CARRY_MOST 48u
#define STEPS_MOST 4096

struct walk {
	struct slot *slot;
	struct connection *connection;
};

static __always_inline void segment_advance(struct scan *sc, u64 n)
{
	sc->user += n;
	sc->segment -= n;
	sc->left -= n;
}

/* Next piece of a vector. True: there is none. */
static __always_inline bool segment_next(struct slot *s, struct connection *c)
{
	struct scan *sc = &s->scan;
	u64 n, length;
	u32 i;

	if (!sc->left)
		return 1;
	if (sc->iov_at >= sc->iov_have) {
		n = sc->iov_left;
		if (!n)
			return 1;
		if (n > 8)
			n = 8;
		sc->iov_left -= n;
		sc->iov_have = n;
		sc->iov_at = 0;
		if (bpf_probe_read_user(sc->iovs, n * 16, (void *)sc->iov)) {
			lost(LOST_MEMORY);
			connection_off(s, c, sc->now_ns);
			return 1;
		}
		sc->iov += n * 16;
	}
	i = sc->iov_at++ & 7;
	sc->user = sc->iovs[2 * i];
	length = sc->iovs[2 * i + 1];
	sc->segment = length < sc->left ? length : sc->left;
	return 0;
}

static __always_inline bool window_fetch(struct slot *s, struct connection *c, const u32 side)
{
	struct scan *sc = &s->scan;
	struct stream *st = &c->streams[side];
	u32 carry = st->carry_len & (CARRY_BYTES - 1);
	u64 n = sc->segment;

	if (carry) {
#pragma unroll
		for (u32 i = 0; i < CARRY_MOST; i += 8)
			*(u64 *)&sc->window[i] = *(u64 *)&st->carry[i];
		st->carry_len = 0;
	}
	if (n > WINDOW_BYTES - CARRY_BYTES)
		n = WINDOW_BYTES - CARRY_BYTES;
	if (bpf_probe_read_user(&sc->window[carry], n, (void *)sc->user)) {
		lost(LOST_MEMORY);
		connection_off(s, c, sc->now_ns);
		return 1;
	}
	segment_advance(sc, n);
	sc->line = 0;
	/* What was carried has no line's end in it. */
	sc->pos = carry;
	sc->len = carry + n;
	return 0;
}

/* The window ended inside a line. True: stop. */
static __always_inline bool line_keep(struct slot *s, struct connection *c, const u32 side)
{
	struct scan *sc = &s->scan;
	struct stream *st = &c->streams[side];
	u32 at = sc->line, n = sc->len - at;

	sc->line = sc->pos = sc->len;
	if (st->is_skipping || !n)
		return 0;
	if (n > CARRY_MOST) {
		st->is_skipping = 1;
		return line_of(s, c, side, at, n, 0);
	}
	if (side == SIDE_REQUEST && st->state <= STREAM_FIRST && !c->first_ns)
		c->first_ns = sc->now_ns;
#pragma unroll
	for (u32 i = 0; i < CARRY_MOST; i += 8)
		*(u64 *)&st->carry[i] = window_word(sc, at + i);
	st->carry_len = n;
	return 0;
}

/* What a seeded connection's read ended with may be the end of a body, which needs no newline: unless
 * it looks like the beginning of a request, the next one may begin with the next read. */
static __always_inline void sync_again(struct connection *c)
{
	struct stream *st = &c->streams[SIDE_REQUEST];
	u32 len = 0;

	if (st->state != STREAM_SYNC)
		return;
	st->is_skipping = 0;
	method_parse(*(u64 *)st->carry, &len);
	if (len || (st->carry_len < 8 && st->carry[0] >= 'A' && st->carry[0] <= 'Z'))
		return;
	st->carry_len = 0;
	c->first_ns = 0;
}

/* Counted bytes. True: there are no more in this call. */
static __always_inline bool skip_step(struct slot *s, struct connection *c, const u32 side)
{
	struct scan *sc = &s->scan;
	struct stream *st = &c->streams[side];
	u64 take;

	if (sc->pos < sc->len) {
		take = sc->len - sc->pos;
		if (take > st->skip)
			take = st->skip;
		sc->pos += take;
		sc->line = sc->pos;
	} else {
		if (!sc->segment)
			return segment_next(s, c);
		take = sc->segment < st->skip ? sc->segment : st->skip;
		segment_advance(sc, take);
	}
	skip_take(s, c, side, take);
	return 0;
}

/* 0: go on, 1: stop. */
static __always_inline long walk_step(struct slot *s, struct connection *c, const u32 side)
{
	struct scan *sc = &s->scan;
	struct stream *st = &c->streams[side];
	u32 at, n, p = sc->pos;
	u64 found;
	bool is_headers;

	if (st->state >= STREAM_HTTP2)
		return 1;
	if (st->skip)
		return skip_step(s, c, side);
	is_headers = st->state == STREAM_HEADERS && !st->is_skipping;
	if (sc->line >= sc->len) {
		if (side == SIDE_RESPONSE && st->state == STREAM_FIRST && !requests_pending(c))
			return 1;
		if (!sc->segment && segment_next(s, c))
			return 1;
		return window_fetch(s, c, side);
	}
	for (u32 i = 0; i < 16; i++) {
		found = newlines(window_word(sc, p));
		if (!found) {
			p += 8;
			continue;
		}
		p += bytes_through(found) - 1;
		if (p >= sc->len)
			return line_keep(s, c, side);
		if (!is_headers || LETTERS_OF_INTEREST >> (window_byte(sc, sc->line) & 31) & 1)
			goto have;
		sc->line = ++p;
	}
	sc->pos = p;
	return p < sc->len ? 0 : line_keep(s, c, side);
have:
	at = sc->line;
	n = p - at;
	sc->pos = sc->line = p + 1;
	if (st->is_skipping) {
		st->is_skipping = 0;
		return 0;
	}
	if (n && window_byte(sc, p - 1) == '\r')
		n--;
	return line_of(s, c, side, at, n, 1);
}

static long walk_request(u32 i, void *ctx)
{
	struct walk *w = ctx;

	return walk_step(w->slot, w->connection, SIDE_REQUEST);
}

static long walk_response(u32 i, void *ctx)
{
	struct walk *w = ctx;

	return walk_step(w->slot, w->connection, SIDE_RESPONSE);
}
