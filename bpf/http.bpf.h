/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * HTTP/1 framing: both directions of a connection are lines, and counted bytes between them that
 * are never looked at. One step of bpf_loop() takes one line, one piece of 32 bytes without a line's
 * end, one skip or one fetch; all that changes lies in map memory, so that the verifier needs to see
 * a step only once. Runs in the watched thread.
 */
#pragma once

#include "flight.bpf.h"

#define WINDOW_MASK (WINDOW_BYTES - 1)
#define CARRY_MOST  48u
#define STEPS_MOST  4096

#define SIDE_REQUEST  0
#define SIDE_RESPONSE 1

#define ONES  0x0101010101010101ULL
#define LOWER 0x2020202020202020ULL

/* Eight characters as a little-endian word. */
#define WORD(a, b, c, d, e, f, g, h)                                                   \
	((u64)(a) | (u64)(b) << 8 | (u64)(c) << 16 | (u64)(d) << 24 | (u64)(e) << 32 | \
	 (u64)(f) << 40 | (u64)(g) << 48 | (u64)(h) << 56)
#define FIRST_BYTES(n) (~0ULL >> (64 - 8 * (n)))

/* Lines that begin with other letters are passed over: Content-Length, Transfer-Encoding,
 * User-Agent, and the end of the head. By the low five bits. */
#define LETTERS_OF_INTEREST \
	(1u << ('c' & 31) | 1u << ('t' & 31) | 1u << ('u' & 31) | 1u << '\r' | 1u << '\n')

struct walk {
	struct slot *slot;
	struct connection *connection;
};

static __always_inline u64 window_word(const struct scan *sc, u32 at)
{
	return *(const u64 *)&sc->window[at & WINDOW_MASK];
}

static __always_inline u32 window_byte(const struct scan *sc, u32 at)
{
	return sc->window[at & WINDOW_MASK];
}

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

/* Numbers are built in map memory: what comes back from there is one unknown value to the verifier,
 * not a different one for each way through the digits. */
GLOBAL int window_decimal(struct slot *s, u32 at)
{
	volatile u64 *v;
	u32 ch, i;

	if (!s)
		return 0;
	v = &s->scan.number;
	*v = 0;
	for (i = 0; i < 24; i++) {
		ch = window_byte(&s->scan, at + i);
		if (ch == ' ')
			continue;
		ch -= '0';
		if (ch > 9)
			break;
		*v = *v * 10 + ch;
	}
	return 0;
}

GLOBAL int window_hex(struct slot *s, u32 at)
{
	volatile u64 *v;
	u32 ch, i;

	if (!s)
		return 0;
	v = &s->scan.number;
	*v = 0;
	for (i = 0; i < 16; i++) {
		ch = window_byte(&s->scan, at + i);
		if (ch >= 'A')
			ch = (ch | 0x20) - 'a' + 10;
		else if (ch <= '9')
			ch -= '0';
		if (ch > 15)
			break;
		*v = *v << 4 | ch;
	}
	return 0;
}

static __always_inline bool pattern_matches(const struct pattern *p, const struct scan *sc, u32 at)
{
	u64 differs = 0;

#pragma unroll
	for (u32 i = 0; i < PATTERN_WORDS; i++)
		differs |= (window_word(sc, at + 8 * i) ^ p->word[i]) & p->mask[i];
	return !differs;
}

GLOBAL int path_is_health(struct slot *s, u32 at)
{
	const struct scan *sc;
	u32 second, i, end;

	if (!s)
		return 0;
	sc = &s->scan;
	second = window_byte(sc, at + 1);
	/* Most paths end here: no health path has their second character. */
	if (!(control.path_seconds[(second >> 6) & 3] >> (second & 63) & 1))
		return 0;
	for (i = 0; i < PATTERNS; i++) {
		const struct pattern *p = &control.paths[i];

		if (i >= control.path_count)
			break;
		if ((window_word(sc, at) ^ p->word[0]) & p->mask[0])
			continue;
		end = window_byte(sc, at + p->len);
		if ((end == ' ' || end == '?') && pattern_matches(p, sc, at))
			return 1;
	}
	return 0;
}

GLOBAL int agent_is_health(struct slot *s, u32 at)
{
	const struct scan *sc;
	u32 i;

	if (!s)
		return 0;
	sc = &s->scan;
	if (window_byte(sc, at) == ' ')
		at++;
	for (i = 0; i < PATTERNS; i++) {
		const struct pattern *p = &control.agents[i];

		if (i >= control.agent_count)
			break;
		if ((window_word(sc, at) ^ p->word[0]) & p->mask[0])
			continue;
		if (pattern_matches(p, sc, at))
			return 1;
	}
	return 0;
}

/* Method of a request line and its length with the space; HTTP_OTHER with 0: none that is known. */
static __always_inline u32 method_parse(u64 w, u32 *ret_len)
{
	u32 w4 = (u32)w;

	if (w4 == (u32)WORD('G', 'E', 'T', ' ', 0, 0, 0, 0))
		return *ret_len = 4, HTTP_GET;
	if (w4 == (u32)WORD('P', 'U', 'T', ' ', 0, 0, 0, 0))
		return *ret_len = 4, HTTP_PUT;
	if ((w & FIRST_BYTES(5)) == WORD('P', 'O', 'S', 'T', ' ', 0, 0, 0))
		return *ret_len = 5, HTTP_POST;
	if ((w & FIRST_BYTES(5)) == WORD('H', 'E', 'A', 'D', ' ', 0, 0, 0))
		return *ret_len = 5, HTTP_HEAD;
	if ((w & FIRST_BYTES(6)) == WORD('P', 'A', 'T', 'C', 'H', ' ', 0, 0))
		return *ret_len = 6, HTTP_PATCH;
	if ((w & FIRST_BYTES(6)) == WORD('T', 'R', 'A', 'C', 'E', ' ', 0, 0))
		return *ret_len = 6, HTTP_TRACE;
	if ((w & FIRST_BYTES(7)) == WORD('D', 'E', 'L', 'E', 'T', 'E', ' ', 0))
		return *ret_len = 7, HTTP_DELETE;
	if (w == WORD('O', 'P', 'T', 'I', 'O', 'N', 'S', ' '))
		return *ret_len = 8, HTTP_OPTIONS;
	if (w == WORD('C', 'O', 'N', 'N', 'E', 'C', 'T', ' '))
		return *ret_len = 8, HTTP_CONNECT;
	*ret_len = 0;
	return HTTP_OTHER;
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
	if (is_whole) {
		if (n < 14 || (window_word(sc, at + n - 8) & FIRST_BYTES(7)) !=
				      WORD('H', 'T', 'T', 'P', '/', '1', '.', 0))
			return 0;
	} else if (!len) {
		return 0;
	}
	if (len && path_is_health(s, at + len))
		method |= PENDING_HEALTH;
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

static __always_inline void message_reset(struct stream *st)
{
	st->is_chunked = 0;
	st->has_length = 0;
	st->length = 0;
	st->skip = 0;
	st->state = STREAM_FIRST;
}

static __always_inline void message_done(struct slot *s, struct connection *c, const u32 side)
{
	if (side == SIDE_RESPONSE)
		request_complete(s, c, s->scan.now_ns);
	message_reset(&c->streams[side]);
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
	} else if (side == SIDE_REQUEST && name == WORD('u', 's', 'e', 'r', '-', 'a', 'g', 'e')) {
		more = window_word(sc, at + 8) | LOWER;
		if (n > 11 && (more & FIRST_BYTES(3)) == WORD('n', 't', ':', 0, 0, 0, 0, 0) &&
		    agent_is_health(s, at + 11))
			c->method[(c->started - 1) & (PIPELINE - 1)] |= PENDING_HEALTH;
	}
}

static __always_inline void request_head_done(struct slot *s, struct connection *c)
{
	struct stream *st = &c->streams[SIDE_REQUEST];
	u32 i = (c->started - 1) & (PIPELINE - 1);
	u32 method = c->method[i];

	if (!(method & PENDING_HEALTH))
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
			if (st->state == STREAM_FIRST)
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

/* 0: go on, 1: stop. */
static __always_inline long walk_step(struct slot *s, struct connection *c, const u32 side)
{
	struct scan *sc = &s->scan;
	struct stream *st = &c->streams[side];
	u32 at, n, p = sc->pos;
	u64 take, found;
	bool is_headers;

	if (st->state >= STREAM_UNTIL_CLOSE)
		return 1;
	if (st->skip) {
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
	is_headers = st->state == STREAM_HEADERS && !st->is_skipping;
	if (sc->line >= sc->len) {
		if (side == SIDE_RESPONSE && st->state == STREAM_FIRST && !requests_pending(c))
			return 1;
		if (!sc->segment && segment_next(s, c))
			return 1;
		return window_fetch(s, c, side);
	}
	for (u32 i = 0; i < 16; i++) {
		found = window_word(sc, p) ^ (ONES * '\n');
		found = (found - ONES) & ~found & (ONES << 7);
		if (!found) {
			p += 8;
			continue;
		}
		/* Bytes below the lowest mark, by adding up one bit of each. */
		p += (((found - 1) & ~found & ONES) * ONES >> 56) - 1;
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
