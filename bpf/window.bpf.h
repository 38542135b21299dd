/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Text in the window: eight bytes at a time. Numbers, methods, patterns of health checks. Runs in
 * the watched thread.
 */
#pragma once

#include "slot.bpf.h"

#define WINDOW_MASK (WINDOW_BYTES - 1)

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

/* Through a pointer of its own type: the compiler would put the word together from bytes, because it
 * sees that `at` may be odd. */
static __always_inline u64 window_word(const struct scan *sc, u32 at)
{
	const void *p = &sc->window[at & WINDOW_MASK];
	const u64 *word = p;

	return *word;
}

static __always_inline u32 window_byte(const struct scan *sc, u32 at)
{
	return sc->window[at & WINDOW_MASK];
}

/* The highest bit of each byte that ends a line, and perhaps of bytes after the first of these. */
static __always_inline u64 newlines(u64 word)
{
	word ^= ONES * '\n';
	return (word - ONES) & ~word & (ONES << 7);
}

/* Bytes up to and with the lowest mark, by adding up one bit of each. */
static __always_inline u32 bytes_through(u64 marks)
{
	return ((marks - 1) & ~marks & ONES) * ONES >> 56;
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
