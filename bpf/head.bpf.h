/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Shortcuts for what nearly all calls bring: a head that is whole in one piece, and chunk sizes that
 * are pieces of their own. They do what walk.bpf.h would do with the same bytes, or nothing; what
 * remains of a call is left to it. Runs in the watched thread.
 */
#pragma once

#include "walk.bpf.h"

#define HEAD_STEPS  176 /* words of the window, and lines */
#define PIECE_STEPS 12
#define SKIP_STEPS  4
#define AHEAD_BYTES 256 /* more than nginx puts between a head and its first chunk's size */

/* Where the head ends that begins the window; 0: not in there. What is read from memory and compared
 * by differences has no range that the verifier could refine at each step: it would look at each
 * step again for each range. */
static __always_inline u32 head_find(struct slot *s, const u32 side)
{
	struct scan *sc = &s->scan;
	u64 p = *(volatile u32 *)&sc->pos, n = *(volatile u32 *)&sc->len, found, name;
	u32 letter;

	sc->second_line = sc->length_at = sc->agent_at = sc->is_chunked = sc->trace_at = 0;
	sc->is_h2c = 0;
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < HEAD_STEPS; i++) {
		found = newlines(window_word(sc, p));
		if (!found) {
			p += 8;
			BOUND(p, 2047);
			if ((s64)(n - p) <= 0)
				return 0;
			continue;
		}
		p += bytes_through(found);
		BOUND(p, 2047);
		if ((s64)(n - p) <= 0)
			return 0;
		if (!sc->second_line)
			sc->second_line = p;
		letter = window_byte(sc, p);
		if (!(LETTERS_OF_INTEREST >> (letter & 31) & 1))
			continue;
		if (letter == '\n')
			return p + 1;
		name = window_word(sc, p);
		if (letter == '\r')
			return (name >> 8 & 0xff) == '\n' && (s64)(n - p) >= 2 ? p + 2 : 0;
		name |= LOWER;
		if (name == WORD('c', 'o', 'n', 't', 'e', 'n', 't', '-')) {
			name = window_word(sc, p + 8) | LOWER;
			if ((name & FIRST_BYTES(7)) == WORD('l', 'e', 'n', 'g', 't', 'h', ':', 0))
				sc->length_at = p + 15;
		} else if (name == WORD('t', 'r', 'a', 'n', 's', 'f', 'e', 'r')) {
			/* Written otherwise, or another coding before it: not here. */
			if ((window_word(sc, p + 8) | LOWER) !=
				    WORD('-', 'e', 'n', 'c', 'o', 'd', 'i', 'n') ||
			    (window_word(sc, p + 16) | LOWER) !=
				    WORD('g', ':', ' ', 'c', 'h', 'u', 'n', 'k') ||
			    (window_word(sc, p + 24) & FIRST_BYTES(4)) !=
				    WORD('e', 'd', '\r', '\n', 0, 0, 0, 0))
				return 0;
			sc->is_chunked = 1;
		} else if (side == SIDE_REQUEST &&
			   name == WORD('u', 's', 'e', 'r', '-', 'a', 'g', 'e')) {
			name = window_word(sc, p + 8) | LOWER;
			if ((name & FIRST_BYTES(3)) == WORD('n', 't', ':', 0, 0, 0, 0, 0))
				sc->agent_at = p + 11;
		} else if (side == SIDE_REQUEST &&
			   name == WORD('t', 'r', 'a', 'c', 'e', 'p', 'a', 'r')) {
			name = window_word(sc, p + 8) | LOWER;
			if ((name & FIRST_BYTES(4)) == WORD('e', 'n', 't', ':', 0, 0, 0, 0))
				sc->trace_at = p + 12;
		} else if (side == SIDE_RESPONSE &&
			   name == WORD('u', 'p', 'g', 'r', 'a', 'd', 'e', ':')) {
			sc->is_h2c = is_h2c(window_word(sc, p + 8));
		}
	}
	return 0;
}

static __always_inline void head_framing(struct slot *s, struct stream *st)
{
	if (s->scan.length_at) {
		window_decimal(s, s->scan.length_at);
		st->length = s->scan.number;
		st->has_length = 1;
	}
	st->is_chunked = s->scan.is_chunked;
	st->is_h2c = s->scan.is_h2c;
}

/* With what follows the piece in memory: there nginx puts a chunk's size, and a read costs more than
 * its bytes. False: read as usual. */
static __always_inline bool window_ahead(struct scan *sc)
{
	u64 n = sc->segment;

	if (sc->left == n || n > WINDOW_BYTES - CARRY_BYTES - AHEAD_BYTES)
		return 0;
	if (bpf_probe_read_user(sc->window, n + AHEAD_BYTES, (void *)sc->user))
		return 0;
	sc->ahead = n + AHEAD_BYTES;
	sc->ahead_user = sc->user;
	segment_advance(sc, n);
	sc->len = n;
	return 1;
}

/* The first bytes of a call at the beginning of a message. False: nothing can be done here. */
static __always_inline bool head_fetch(struct slot *s, struct connection *c, const u32 side)
{
	struct scan *sc = &s->scan;
	struct stream *st = &c->streams[side];

	sc->ahead = 0;
	if (st->state != STREAM_FIRST || st->carry_len || st->is_skipping)
		return 0;
	if (!sc->segment && segment_next(s, c))
		return 0;
	return (side == SIDE_RESPONSE && window_ahead(sc)) || !window_fetch(s, c, side);
}

/* The word at the beginning of a piece; what is behind the piece's end is any. */
static __always_inline bool piece_word(const struct scan *sc, u64 *ret)
{
	u64 at = sc->user - sc->ahead_user;

	if (sc->ahead >= 8 && at <= sc->ahead - 8) {
		*ret = window_word(sc, at);
		return 1;
	}
	/* Into the stack, for which the kernel's check of the place is shortest. */
	return !bpf_probe_read_user(ret, sizeof(*ret), (void *)sc->user);
}

/* True: all bytes of this call are taken. */
GLOBAL int request_head(struct slot *s, struct connection *c)
{
	struct scan *sc;
	u32 end, n;

	if (!s || !c)
		return 0;
	sc = &s->scan;
	if (!head_fetch(s, c, SIDE_REQUEST))
		return 0;
	end = head_find(s, SIDE_REQUEST);
	if (!end)
		return 0;
	n = sc->second_line - 1;
	n -= window_byte(sc, n - 1) == '\r';
	if (!request_line(s, c, 0, n, 1))
		return 0;
	sc->pos = sc->line = end;
	head_framing(s, &c->streams[SIDE_REQUEST]);
	if (sc->agent_at && control.agent_count && agent_is_health(s, sc->agent_at))
		c->method[(c->started - 1) & (PIPELINE - 1)] |= PENDING_HEALTH;
	if (sc->trace_at)
		head_trace(s, sc->trace_at);
	request_head_done(s, c);
	return end >= sc->len && !sc->left;
}

/* A piece of a vector that is a chunk's size and nothing else, or the last one's with the end. */
static __always_inline bool chunk_piece(struct slot *s, struct connection *c)
{
	struct scan *sc = &s->scan;
	struct stream *st = &c->streams[SIDE_RESPONSE];
	u64 w = 0, x, text, mask, n = sc->segment, bits;

	if (n < 3 || n > 8 || !piece_word(sc, &w))
		return 0;
	if (n == 5 && (w & FIRST_BYTES(5)) == WORD('0', '\r', '\n', '\r', '\n', 0, 0, 0)) {
		segment_advance(sc, n);
		message_done(s, c, SIDE_RESPONSE);
		return 1;
	}
	bits = (n - 2) * 8;
	if ((w >> (bits & 63) & 0xffff) != WORD('\r', '\n', 0, 0, 0, 0, 0, 0))
		return 0;
	/* Digits as a number, the last one in the lowest byte; then each byte's value. */
	mask = ~0ULL >> ((64 - bits) & 63);
	text = __builtin_bswap64(w) >> ((64 - bits) & 63) | (LOWER & mask);
	x = (text & ONES * 0xf & mask) + (text >> 6 & ONES) * 9;
	w = x + ONES * '0' + ((x + ONES * 6) >> 4 & ONES) * 39;
	if (x & ONES * 0xf0 || (w ^ text) & mask)
		return 0;
	x = (x | x >> 4) & 0x00ff00ff00ff00ffULL;
	x = (x | x >> 8) & 0x0000ffff0000ffffULL;
	x = (x | x >> 16) & 0xffffffffULL;
	segment_advance(sc, n);
	if (x) {
		st->skip = x + 2;
		st->state = STREAM_CHUNK_DATA;
	} else {
		st->state = STREAM_TRAILER;
	}
	return 1;
}

#define PIECE_ON   0
#define PIECE_LAST 1 /* all bytes of this call are taken */
#define PIECE_ELSE 2 /* nothing for this file */

GLOBAL int piece_take(struct slot *s, struct connection *c)
{
	struct scan *sc;
	struct stream *st;

	if (!s || !c)
		return PIECE_ELSE;
	sc = &s->scan;
	st = &c->streams[SIDE_RESPONSE];
	if (sc->pos >= sc->len && !sc->segment && segment_next(s, c))
		return PIECE_LAST;
	if (st->skip)
		return skip_step(s, c, SIDE_RESPONSE) ? PIECE_LAST : PIECE_ON;
	if (st->state != STREAM_CHUNK_SIZE || sc->pos < sc->len || !chunk_piece(s, c))
		return PIECE_ELSE;
		/* Mostly the chunk and its end are the next two. */
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < SKIP_STEPS && st->skip; i++)
		if (skip_step(s, c, SIDE_RESPONSE))
			return PIECE_LAST;
	return sc->left ? PIECE_ON : PIECE_LAST;
}

/* True: all bytes of this call are taken. */
GLOBAL int response_head(struct slot *s, struct connection *c)
{
	struct scan *sc;
	u32 end, piece;

	if (!s || !c)
		return 0;
	sc = &s->scan;
	if (!head_fetch(s, c, SIDE_RESPONSE))
		return 0;
	end = head_find(s, SIDE_RESPONSE);
	if (!end || !status_line(s, c, 0))
		return 0;
	sc->pos = sc->line = end;
	head_framing(s, &c->streams[SIDE_RESPONSE]);
	response_head_done(s, c);
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < PIECE_STEPS; i++) {
		piece = piece_take(s, c);
		if (piece)
			return piece == PIECE_LAST;
	}
	return 0;
}
