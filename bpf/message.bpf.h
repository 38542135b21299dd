/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * HTTP/1 messages: what a line means, and what follows a head. Both directions of a connection are
 * lines, and counted bytes between them that are never looked at. Runs in the watched thread.
 */
#pragma once

#include "streams.bpf.h"
#include "tls.bpf.h"

/* Nothing on this connection is followed any more. */
GLOBAL int connection_off(struct slot *s, struct connection *c, u64 now)
{
	if (!s || !c)
		return 0;
	c->streams[SIDE_REQUEST].state = STREAM_OFF;
	c->streams[SIDE_RESPONSE].state = STREAM_OFF;
	if (requests_drop(s, c, now))
		lost(LOST_PARSE);
	return 0;
}

/* False: this is no request. is_whole: the line ends after n bytes. */
static __always_inline bool request_line(struct slot *s, struct connection *c, u32 at, u32 n,
					 bool is_whole)
{
	struct scan *sc = &s->scan;
	struct stream *st = &c->streams[SIDE_REQUEST];
	u64 word = window_word(sc, at);
	u32 len = 0, method, first = word & 0xff;

	if (first < 'A' || first > 'Z')
		return 0;
	method = method_parse(word, &len);
	/* Where it is not known that a message begins, this may be the end of a method. */
	if (!len && (!is_whole || st->state == STREAM_SYNC))
		return 0;
	if (is_whole && (n < 14 || (window_word(sc, at + n - 8) & FIRST_BYTES(7)) !=
					   WORD('H', 'T', 'T', 'P', '/', '1', '.', 0)))
		return 0;
	if (len && path_is_health(s, at + len))
		method |= PENDING_HEALTH;
	if (!(c->flags & CONNECTION_UPSTREAM))
		head_begin(s, c, at + len, n - len);
	request_start(s, c, method, c->first_ns ? c->first_ns : sc->now_ns);
	c->first_ns = 0;
	st->state = STREAM_HEADERS;
	return 1;
}

static __always_inline bool status_line(struct slot *s, struct connection *c, u32 at)
{
	struct scan *sc = &s->scan;
	u32 code;

	if ((window_word(sc, at) & FIRST_BYTES(7)) != WORD('H', 'T', 'T', 'P', '/', '1', '.', 0))
		return 0;
	code = (window_byte(sc, at + 9) - '0') * 100 + (window_byte(sc, at + 10) - '0') * 10 +
	       (window_byte(sc, at + 11) - '0');
	if (code - 100 >= HTTP_CODES)
		return 0;
	c->code = code;
	if (code >= 200 || code == 101)
		c->response_ns = sc->now_ns;
	c->streams[SIDE_RESPONSE].state = STREAM_HEADERS;
	return 1;
}

/* The first line of what HTTP/2 begins with. */
static __always_inline bool is_preface(const struct scan *sc, u32 at, u32 n)
{
	return n == 14 && window_word(sc, at) == WORD('P', 'R', 'I', ' ', '*', ' ', 'H', 'T') &&
	       window_word(sc, at + 6) == WORD('H', 'T', 'T', 'P', '/', '2', '.', '0');
}

static __always_inline void message_done(struct slot *s, struct connection *c, const u32 side)
{
	if (side == SIDE_RESPONSE)
		request_complete(s, c, s->scan.now_ns);
	message_reset(&c->streams[side]);
}

/* The value of Upgrade, with the space before it. */
static __always_inline bool is_h2c(u64 word)
{
	return (word & FIRST_BYTES(4)) == WORD(' ', 'h', '2', 'c', 0, 0, 0, 0);
}

/* A header line; only names whose first eight letters matter are looked at further. */
static __always_inline void header_line(struct slot *s, struct connection *c, const u32 side,
					u32 at, u32 n)
{
	struct scan *sc = &s->scan;
	struct stream *st = &c->streams[side];
	u64 name = window_word(sc, at) | LOWER, more;

	if (name == WORD('c', 'o', 'n', 't', 'e', 'n', 't', '-')) {
		more = window_word(sc, at + 8) | LOWER;
		if (n >= 16 &&
		    (more & FIRST_BYTES(7)) == WORD('l', 'e', 'n', 'g', 't', 'h', ':', 0)) {
			window_decimal(s, at + 15);
			st->length = sc->number;
			st->has_length = 1;
		}
	} else if (name == WORD('t', 'r', 'a', 'n', 's', 'f', 'e', 'r')) {
		more = window_word(sc, at + 8) | LOWER;
		if (n >= 25 && more == WORD('-', 'e', 'n', 'c', 'o', 'd', 'i', 'n') &&
		    (window_word(sc, at + n - 8) >> 8 | LOWER >> 8) ==
			    WORD('c', 'h', 'u', 'n', 'k', 'e', 'd', 0))
			st->is_chunked = 1;
	} else if (side == SIDE_RESPONSE && name == WORD('u', 'p', 'g', 'r', 'a', 'd', 'e', ':')) {
		st->is_h2c = n == 12 && is_h2c(window_word(sc, at + 8));
	} else if (side == SIDE_REQUEST && name == WORD('u', 's', 'e', 'r', '-', 'a', 'g', 'e')) {
		more = window_word(sc, at + 8) | LOWER;
		if (n > 11 && (more & FIRST_BYTES(3)) == WORD('n', 't', ':', 0, 0, 0, 0, 0) &&
		    agent_is_health(s, at + 11))
			c->method[(c->started - 1) & (PIPELINE - 1)] |= PENDING_HEALTH;
	} else if (side == SIDE_REQUEST && name == WORD('t', 'r', 'a', 'c', 'e', 'p', 'a', 'r')) {
		more = window_word(sc, at + 8) | LOWER;
		if (n > 12 && (more & FIRST_BYTES(4)) == WORD('e', 'n', 't', ':', 0, 0, 0, 0))
			head_trace(s, at + 12);
	}
}

static __always_inline void request_head_done(struct slot *s, struct connection *c)
{
	struct stream *st = &c->streams[SIDE_REQUEST];
	u32 i = (c->started - 1) & (PIPELINE - 1);
	u32 method = c->method[i];

	if (!(method & PENDING_HEALTH) && !(c->flags & CONNECTION_UPSTREAM))
		s->last_request_ns = c->start_ns[i];
	if (method == HTTP_CONNECT) {
		st->state = STREAM_OFF;
	} else if (st->is_chunked) {
		st->state = STREAM_CHUNK_SIZE;
	} else if (st->length) {
		st->skip = st->length;
		st->state = STREAM_BODY;
	} else {
		message_reset(st);
	}
}

static __always_inline void response_head_done(struct slot *s, struct connection *c)
{
	struct stream *st = &c->streams[SIDE_RESPONSE];
	u32 method = c->method[c->ended & (PIPELINE - 1)] & (PENDING_HEALTH - 1);
	u32 code = c->code;

	if (code < 200 && code != 101) {
		message_reset(st);
	} else if (code == 101 && st->is_h2c) {
		if (!http2_upgrade(s, c))
			connection_off(s, c, s->scan.now_ns);
	} else if (code == 101 || (method == HTTP_CONNECT && code < 300)) {
		request_complete(s, c, s->scan.now_ns);
		connection_off(s, c, s->scan.now_ns);
	} else if (method == HTTP_HEAD || code == 204 || code == 304) {
		message_done(s, c, SIDE_RESPONSE);
	} else if (st->is_chunked) {
		st->state = STREAM_CHUNK_SIZE;
	} else if (!st->has_length) {
		st->state = STREAM_UNTIL_CLOSE;
	} else if (st->length) {
		st->skip = st->length;
		st->state = STREAM_BODY;
	} else {
		message_done(s, c, SIDE_RESPONSE);
	}
}

/* One whole line (or, with !is_whole, the beginning of one that is too long to be carried). True:
 * stop. */
static __always_inline bool line_take(struct slot *s, struct connection *c, const u32 side, u32 at,
				      u32 n, bool is_whole)
{
	struct scan *sc = &s->scan;
	struct stream *st = &c->streams[side];
	u64 size;

	switch (st->state) {
	case STREAM_HEADERS:
		if (n)
			header_line(s, c, side, at, n);
		else if (side == SIDE_REQUEST)
			request_head_done(s, c);
		else
			response_head_done(s, c);
		return 0;
	case STREAM_SYNC:
	case STREAM_FIRST:
		if (side == SIDE_REQUEST) {
			if (!n || request_line(s, c, at, n, is_whole))
				return 0;
			c->first_ns = 0;
			if (is_whole && is_preface(sc, at, n) && http2_begin(s, c))
				return 1;
			if (st->state == STREAM_FIRST && !c->started && tls_hello(s, at))
				tls_begin(c);
			else if (st->state == STREAM_FIRST)
				connection_off(s, c, sc->now_ns);
			return 1;
		}
		if (!requests_pending(c))
			return 1;
		if (status_line(s, c, at))
			return 0;
		connection_off(s, c, sc->now_ns);
		return 1;
	case STREAM_CHUNK_SIZE:
		window_hex(s, at);
		size = sc->number;
		if (size) {
			st->skip = size + 2;
			st->state = STREAM_CHUNK_DATA;
		} else {
			st->state = STREAM_TRAILER;
		}
		return 0;
	case STREAM_TRAILER:
		if (!n)
			message_done(s, c, side);
		return 0;
	default:
		return 1;
	}
}

GLOBAL int request_line_take(struct slot *s, struct connection *c, u32 at, u32 n, u32 is_whole)
{
	return s && c ? line_take(s, c, SIDE_REQUEST, at, n, is_whole) : 1;
}

GLOBAL int response_line_take(struct slot *s, struct connection *c, u32 at, u32 n, u32 is_whole)
{
	return s && c ? line_take(s, c, SIDE_RESPONSE, at, n, is_whole) : 1;
}

static __always_inline bool line_of(struct slot *s, struct connection *c, const u32 side, u32 at,
				    u32 n, bool is_whole)
{
	return side == SIDE_REQUEST ? request_line_take(s, c, at, n, is_whole)
				    : response_line_take(s, c, at, n, is_whole);
}

static __always_inline void skip_take(struct slot *s, struct connection *c, const u32 side, u64 n)
{
	struct stream *st = &c->streams[side];

	st->skip -= n;
	if (st->skip)
		return;
	if (st->state == STREAM_CHUNK_DATA)
		st->state = STREAM_CHUNK_SIZE;
	else
		message_done(s, c, side);
}
