/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * HTTP/2: frames in both directions, cut anywhere. One step takes one header, one skip, or one piece
 * of a header field. Runs in the watched thread.
 */
#pragma once

#include "hpack.bpf.h"
#include "walk.bpf.h"

#define FRAME_DATA         0
#define FRAME_HEADERS      1
#define FRAME_RST_STREAM   3
#define FRAME_PUSH_PROMISE 5
#define FRAME_GOAWAY       7
#define FRAME_CONTINUATION 9
#define FRAME_END_STREAM   0x1u
#define FRAME_END_HEADERS  0x4u
#define FRAME_PADDED       0x8u
#define FRAME_PRIORITY     0x20u
#define FRAME_HEADER_BYTES 9u
#define FRAME_LENGTH_HTTP1 0x485454u /* "HTT", then "P": an answer of HTTP/1 */

#define FIELDS_A_STEP 16
#define HTTP2_STEPS   (1 << 16) /* each takes a byte at least, or ends a frame */

struct http2_walk {
	struct slot *slot;
	struct connection *connection;
	struct http2 *http2;
	u32 side;
};

/* A header block of the gateway is whole: a 1xx, an answer's head, or trailers. */
static __always_inline void http2_answer(struct slot *s, struct connection *c,
					 const struct http2_side *d)
{
	bool is_end = d->block_flags & FRAME_END_STREAM;
	struct http2_stream *stream;
	u64 key;

	key = stream_key(c, d->block_stream);
	stream = bpf_map_lookup_elem(&http2_streams, &key);
	if (!stream)
		return;
	if (!stream->is_final && d->code - 100 >= 100) {
		stream->is_final = 1;
		stream->code = d->code;
		stream->first_ns = d->frame_ns;
		/* A tunnel from here on, as in HTTP/1. */
		if ((stream->method & (PENDING_HEALTH - 1)) == HTTP_CONNECT && d->code - 200 < 100)
			is_end = 1;
	}
	if (is_end)
		http2_stream_complete(s, c, d->block_stream);
}

static __always_inline void frame_end(struct slot *s, struct connection *c, struct http2 *h,
				      struct http2_side *d, u32 side)
{
	d->step = HTTP2_HEADER;
	switch (d->type) {
	case FRAME_HEADERS:
	case FRAME_PUSH_PROMISE:
	case FRAME_CONTINUATION:
		if (!(d->flags & FRAME_END_HEADERS) || !d->is_open)
			return;
		d->is_open = 0;
		if (d->block_type != FRAME_HEADERS)
			return;
		if (side == SIDE_REQUEST)
			http2_stream_start(s, c, h);
		else
			http2_answer(s, c, d);
		return;
	case FRAME_DATA:
		if (side == SIDE_RESPONSE && d->flags & FRAME_END_STREAM)
			http2_stream_complete(s, c, d->frame_stream);
		return;
	case FRAME_RST_STREAM:
		http2_stream_reset(s, c, d->frame_stream, side);
		return;
	}
}

static __always_inline void frame_skip(struct stream *st, struct http2_side *d)
{
	st->skip = d->left + d->pad;
	d->left = d->pad = 0;
	d->step = HTTP2_END;
}

/* What is between the length of the padding and the fields; 1: the frame is too short. */
static __always_inline bool block_prefix(struct stream *st, struct http2_side *d)
{
	u32 n = d->type == FRAME_PUSH_PROMISE                           ? 4
		: d->type == FRAME_HEADERS && d->flags & FRAME_PRIORITY ? 5
									: 0;

	if (d->left < n)
		return 1;
	d->left -= n;
	st->skip = n;
	d->step = HTTP2_BLOCK;
	return 0;
}

static __always_inline u32 block_wanted(u32 side)
{
	u32 wanted = 1 << HPACK_METHOD;

	if (side == SIDE_RESPONSE)
		return 1 << HPACK_STATUS;
	if (http2_control.path_count[0])
		wanted |= 1 << HPACK_PATH;
	if (http2_control.agent_count[0])
		wanted |= 1 << HPACK_AGENT;
	return wanted;
}

/* 1: these are no frames. */
static __always_inline bool frame_begin(struct stream *st, struct http2_side *d, u32 side)
{
	u64 w = __builtin_bswap64(*(u64 *)d->header);

	d->header_len = 0;
	d->left = w >> 40;
	d->type = w >> 32;
	d->flags = w >> 24;
	d->frame_stream = (w << 8 | d->header[8]) & 0x7fffffff;
	d->pad = 0;
	if (d->left == FRAME_LENGTH_HTTP1 && d->type == 'P')
		return 1;
	switch (d->type) {
	case FRAME_HEADERS:
	case FRAME_PUSH_PROMISE:
		d->block_type = d->type;
		d->block_flags = d->flags;
		d->block_stream = d->frame_stream;
		hpack_begin(d, block_wanted(side));
		if (!(d->flags & FRAME_PADDED))
			return block_prefix(st, d);
		d->step = HTTP2_PAD;
		return !d->left;
	case FRAME_CONTINUATION:
		d->step = HTTP2_BLOCK;
		return !d->is_open;
	case FRAME_GOAWAY:
		if (side == SIDE_RESPONSE && d->left >= 4) {
			d->step = HTTP2_GOAWAY;
			return 0;
		}
		/* fall through */
	default:
		frame_skip(st, d);
		return 0;
	}
}

/* The header of a frame, in one piece or byte by byte. */
static __always_inline bool frame_header(struct scan *sc, struct stream *st, struct http2_side *d,
					 u32 side)
{
	u32 at = d->header_len;

	if (!at)
		d->frame_ns = sc->now_ns;
	if (!at && sc->len - sc->pos >= FRAME_HEADER_BYTES) {
		*(u64 *)d->header = window_word(sc, sc->pos);
		d->header[8] = window_byte(sc, sc->pos + 8);
		sc->pos += FRAME_HEADER_BYTES;
		return frame_begin(st, d, side);
	}
	BOUND(at, 15);
	d->header[at] = window_byte(sc, sc->pos);
	sc->pos++;
	d->header_len++;
	return d->header_len >= FRAME_HEADER_BYTES ? frame_begin(st, d, side) : 0;
}

static __always_inline void goaway_byte(struct scan *sc, struct stream *st, struct http2 *h,
					struct http2_side *d)
{
	u32 at = d->header_len & 3;

	d->header[at] = window_byte(sc, sc->pos);
	sc->pos++;
	d->left--;
	if (++d->header_len < 4)
		return;
	d->header_len = 0;
	h->allowed = __builtin_bswap32(*(u32 *)d->header) & 0x7fffffff;
	frame_skip(st, d);
}

/* Bytes that mean nothing. True: there are no more in this call. */
static __always_inline bool frame_pass(struct slot *s, struct connection *c, struct stream *st)
{
	struct scan *sc = &s->scan;
	u64 take;

	if (sc->pos < sc->len) {
		take = sc->len - sc->pos;
		if (take > st->skip)
			take = st->skip;
		sc->pos += take;
	} else {
		if (!sc->segment)
			return segment_next(s, c);
		take = sc->segment < st->skip ? sc->segment : st->skip;
		segment_advance(sc, take);
	}
	st->skip -= take;
	return 0;
}

/* Some elements of header fields, as far as they are in the window. */
static __always_inline void fields_take(struct slot *s, struct stream *st, struct http2_side *d,
					u32 side)
{
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < FIELDS_A_STEP; i++) {
		hpack_take(s, st, d, side);
		if (st->skip || d->is_done || !d->left || s->scan.pos >= s->scan.len)
			return;
	}
}

/* True: stop. */
GLOBAL int http2_step(struct slot *s, struct connection *c, struct http2 *h, u32 side)
{
	struct http2_side *d;
	struct stream *st;
	struct scan *sc;
	bool is_bad = 0;

	if (!s || !c || !h)
		return 1;
	BOUND(side, 1);
	sc = &s->scan;
	st = &c->streams[side];
	d = &h->sides[side];
	if (st->state != STREAM_HTTP2)
		return 1;
	if (st->skip && frame_pass(s, c, st))
		return 1;
	if (d->step == HTTP2_BLOCK && !st->skip && (d->is_done || !d->left))
		frame_skip(st, d);
	if (st->skip)
		return 0;
	if (d->step == HTTP2_END) {
		frame_end(s, c, h, d, side);
		return 0;
	}
	if (sc->pos >= sc->len) {
		if (!sc->segment && segment_next(s, c))
			return 1;
		return window_fetch(s, c, side);
	}
	switch (d->step) {
	case HTTP2_HEADER:
		is_bad = frame_header(sc, st, d, side);
		break;
	case HTTP2_PAD:
		d->pad = window_byte(sc, sc->pos);
		sc->pos++;
		d->left--;
		is_bad = d->pad > d->left;
		d->left -= d->pad;
		if (!is_bad)
			is_bad = block_prefix(st, d);
		break;
	case HTTP2_GOAWAY:
		goaway_byte(sc, st, h, d);
		break;
	default:
		fields_take(s, st, d, side);
	}
	if (is_bad)
		connection_off(s, c, sc->now_ns);
	return is_bad;
}

static long http2_walk(u32 i, void *ctx)
{
	struct http2_walk *w = ctx;

	return http2_step(w->slot, w->connection, w->http2, w->side) != 0;
}

/* The rest of what s->scan was set up for. */
static __always_inline void http2_take(struct slot *s, struct connection *c, u32 side)
{
	struct http2_walk w = {.slot = s, .connection = c, .side = side};
	u32 number = c->http2;

	w.http2 = bpf_map_lookup_elem(&http2_connections, &number);
	if (!w.http2)
		return;
	if (bpf_loop(HTTP2_STEPS, http2_walk, &w, 0) >= HTTP2_STEPS) {
		lost(LOST_PARSE);
		connection_off(s, c, s->scan.now_ns);
	}
}

/* Bytes that never were in the process (sendfile): only a frame's payload can be these. True: a frame
 * ended with them. */
static __always_inline bool http2_unseen(struct slot *s, struct connection *c, struct stream *st,
					 u64 n)
{
	struct scan *sc = &s->scan;

	sc->now_ns = bpf_ktime_get_ns();
	if (st->skip < n) {
		connection_off(s, c, sc->now_ns);
		return 0;
	}
	st->skip -= n;
	sc->left = sc->segment = 0;
	sc->iov_left = sc->pos = sc->len = sc->iov_at = sc->iov_have = 0;
	return !st->skip;
}
