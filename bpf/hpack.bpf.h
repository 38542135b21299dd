/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Header fields of HTTP/2 (RFC 7541): method, status, and whether path or agent are those of health
 * checks; all else is passed over. Of the dynamic table only entries with these are remembered. One
 * step takes one number, one string or a byte of either. Runs in the watched thread.
 */
#pragma once

#include "streams.bpf.h"

/* Methods as they come in a literal: [0] plain, [1] Huffman's code. Filled by agent/probe. */
const volatile u64 method_words[2][16];

const volatile u16 hpack_static[64] = {
	[2] = HPACK_WHAT(HPACK_METHOD, HTTP_GET), [3] = HPACK_WHAT(HPACK_METHOD, HTTP_POST),
	[4] = HPACK_WHAT(HPACK_PATH, 0),          [5] = HPACK_WHAT(HPACK_PATH, 0),
	[8] = HPACK_WHAT(HPACK_STATUS, 200),      [9] = HPACK_WHAT(HPACK_STATUS, 204),
	[10] = HPACK_WHAT(HPACK_STATUS, 206),     [11] = HPACK_WHAT(HPACK_STATUS, 304),
	[12] = HPACK_WHAT(HPACK_STATUS, 400),     [13] = HPACK_WHAT(HPACK_STATUS, 404),
	[14] = HPACK_WHAT(HPACK_STATUS, 500),     [58] = HPACK_WHAT(HPACK_AGENT, 0),
};

static __always_inline void hpack_begin(struct http2_side *d, const u32 wanted)
{
	d->field = HPACK_FIRST;
	d->is_open = 1;
	d->is_done = 0;
	d->wanted = wanted;
	d->what = d->code = d->is_health = 0;
	d->method = HTTP_OTHER;
}

/* Value of a dynamic entry; 0: it means nothing here. */
static __always_inline u32 hpack_dynamic(const struct http2_side *d, u32 index)
{
	u32 number = d->inserted - (index - HPACK_STATIC), what = 0;

#pragma unroll
	for (u32 i = 0; i < HPACK_REMEMBERED; i++)
		if (d->remembered[i].number == number)
			what = d->remembered[i].what;
	return what;
}

static __always_inline u32 hpack_what(const struct http2_side *d, u32 index, u32 side)
{
	u32 what, at = index;

	if (index >= HPACK_STATIC) {
		what = d->is_counting ? hpack_dynamic(d, index) : 0;
	} else {
		BOUND(at, 63);
		what = hpack_static[at];
		if (HPACK_KIND(what) == HPACK_PATH)
			what |= http2_control.static_paths >> (index & 1) & 1;
	}
	return (HPACK_KIND(what) == HPACK_STATUS) == (side == SIDE_RESPONSE) ? what : 0;
}

/* Digits are codes of five bits (0 to 2) or six (3 to 9). */
static __always_inline u32 hpack_status_huffman(u32 bits)
{
	u32 code = 0, digit;

#pragma unroll
	for (u32 i = 0; i < 3; i++) {
		digit = bits >> 27;
		if (digit < 3) {
			bits <<= 5;
		} else {
			digit = (bits >> 26) - 0x16;
			if (digit - 3 > 6)
				return 0;
			bits <<= 6;
		}
		code = code * 10 + digit;
	}
	return code;
}

static __always_inline u32 hpack_status(const struct http2_side *d)
{
	u32 w = (u32)d->value[0], code;

	if (d->is_huffman)
		code = d->length == 2   ? hpack_status_huffman(__builtin_bswap32(w) & 0xffff0000)
		       : d->length == 3 ? hpack_status_huffman(__builtin_bswap32(w) & 0xffffff00)
					: 0;
	else
		code = d->length == 3 ? ((w & 0xff) - '0') * 100 + ((w >> 8 & 0xff) - '0') * 10 +
						(w >> 16 & 0xff) - '0'
				      : 0;
	return code - 100 < HTTP_CODES ? code : 0;
}

static __always_inline u32 hpack_method(const struct http2_side *d)
{
	u64 w = d->value[0];
	u32 method = HTTP_OTHER, bits = d->length * 8;

	if (d->length > 8)
		return HTTP_OTHER;
	w &= ~0ULL >> ((64 - bits) & 63);
#pragma unroll
	for (u32 i = 0; i < HTTP_OTHER; i++)
		if (method_words[d->is_huffman & 1][i] == w)
			method = i;
	return method;
}

static __always_inline bool text_matches(const struct pattern *p, const struct http2_side *d)
{
	u64 differs = (d->value[0] ^ p->word[0]) & p->mask[0];

	if (differs || (p->is_exact ? d->length != p->len : d->length < p->len))
		return 0;
#pragma unroll
	for (u32 i = 1; i < PATTERN_WORDS; i++)
		differs |= (d->value[i] ^ p->word[i]) & p->mask[i];
	return !differs;
}

GLOBAL int hpack_path_is_health(struct http2_side *d)
{
	u32 coding, i;

	if (!d)
		return 0;
	coding = d->is_huffman & 1;
	for (i = 0; i < 2 * PATTERNS; i++) {
		if (i >= http2_control.path_count[coding])
			break;
		if (text_matches(&http2_control.paths[coding][i], d))
			return 1;
	}
	return 0;
}

GLOBAL int hpack_agent_is_health(struct http2_side *d)
{
	u32 coding, i;

	if (!d)
		return 0;
	coding = d->is_huffman & 1;
	for (i = 0; i < PATTERNS; i++) {
		if (i >= http2_control.agent_count[coding])
			break;
		if (text_matches(&http2_control.agents[coding][i], d))
			return 1;
	}
	return 0;
}

/* Of a path or agent only a health check's is worth remembering. */
static __always_inline u32 hpack_value(struct http2_side *d)
{
	u32 is_health;

	if (d->kind == HPACK_STATUS)
		return HPACK_WHAT(HPACK_STATUS, hpack_status(d));
	if (d->kind == HPACK_METHOD)
		return HPACK_WHAT(HPACK_METHOD, hpack_method(d));
	is_health = d->kind == HPACK_PATH ? hpack_path_is_health(d) : hpack_agent_is_health(d);
	return is_health ? HPACK_WHAT(d->kind, 1) : 0;
}

GLOBAL int hpack_field_end(struct http2_side *d, u32 side)
{
	u32 what, i;

	if (!d)
		return 0;
	what = d->what;
	d->what = 0;
	d->field = HPACK_FIRST;
	if (HPACK_KIND(what) == HPACK_STATUS)
		d->code = HPACK_VALUE(what);
	else if (HPACK_KIND(what) == HPACK_METHOD)
		d->method = HPACK_VALUE(what);
	else if (HPACK_VALUE(what))
		d->is_health = 1;
	if (d->form == HPACK_INDEXING) {
		d->inserted++;
		if (what) {
			i = d->remembered_at++;
			BOUND(i, 15);
			d->remembered[i].number = d->inserted;
			d->remembered[i].what = what;
			d->is_counting = 1;
		}
	}
	/* The status comes first or, in trailers, not at all. */
	d->wanted = side == SIDE_RESPONSE ? 0 : d->wanted & ~(1u << (d->kind & 7));
	d->is_done = !d->wanted && !d->is_counting;
	return 0;
}

/* As much of a string as is in this frame. */
static __always_inline void hpack_pass(struct stream *st, struct http2_side *d, u32 side)
{
	u32 n = d->string < d->left ? d->string : d->left;

	d->string -= n;
	d->left -= n;
	st->skip = n;
	if (d->string) {
		d->field = HPACK_PASS;
	} else if (d->is_name) {
		d->is_name = 0;
		d->field = HPACK_LENGTH;
	} else {
		hpack_field_end(d, side);
	}
}

static __always_inline void hpack_index(struct http2_side *d, u32 side)
{
	u32 what;

	if (d->form == HPACK_SIZE) {
		d->field = HPACK_FIRST;
		return;
	}
	what = d->number ? hpack_what(d, d->number, side) : 0;
	d->kind = HPACK_KIND(what);
	if (d->form == HPACK_INDEXED) {
		if (d->kind >= HPACK_PATH && !HPACK_VALUE(what))
			what = 0;
		d->what = what;
		hpack_field_end(d, side);
		return;
	}
	d->is_name = !d->number;
	d->field = HPACK_LENGTH;
}

static __always_inline void hpack_string(struct stream *st, struct http2_side *d, u32 side)
{
	d->string = d->number;
	if (d->is_name || !d->kind || !d->string) {
		hpack_pass(st, d, side);
		return;
	}
	d->length = d->string;
	d->gathered = 0;
	d->field = HPACK_GATHER;
}

/* Whole, or byte by byte where it is cut. */
static __always_inline void hpack_gather(struct scan *sc, struct stream *st, struct http2_side *d,
					 u32 side)
{
	u32 n = d->length < HPACK_TEXT ? d->length : HPACK_TEXT, at = d->gathered, taken = 1;

	if (!at && n <= d->left && n <= sc->len - sc->pos) {
#pragma unroll
		for (u32 i = 0; i < HPACK_TEXT / 8; i++)
			d->value[i] = window_word(sc, sc->pos + 8 * i);
		taken = n;
	} else {
		BOUND(at, 63);
		((u8 *)d->value)[at] = window_byte(sc, sc->pos);
		d->gathered++;
	}
	sc->pos += taken;
	d->left -= taken;
	d->string -= taken;
	if (at + taken < n)
		return;
	d->what = hpack_value(d);
	hpack_pass(st, d, side);
}

/* True: the number that goes on with this byte is whole. */
static __always_inline bool hpack_number(struct http2_side *d, u32 byte)
{
	/* Nothing that is legal has more; what is cut off only misses bytes of its own frame. */
	if (d->shift < 28)
		d->number += (byte & 0x7f) << d->shift;
	if (d->shift < 200)
		d->shift += 7;
	return !(byte & 0x80);
}

static __always_inline void hpack_first(struct http2_side *d, u32 byte, u32 side)
{
	u32 mask;

	d->form = byte & 0x80   ? HPACK_INDEXED
		  : byte & 0x40 ? HPACK_INDEXING
		  : byte & 0x20 ? HPACK_SIZE
				: HPACK_LITERAL;
	mask = byte & 0x80 ? 0x7f : byte & 0x40 ? 0x3f : byte & 0x20 ? 0x1f : 0xf;
	d->number = byte & mask;
	d->shift = 0;
	if (d->number == mask)
		d->field = HPACK_INDEX;
	else
		hpack_index(d, side);
}

/* There is at least one byte, in the window and in the frame. */
GLOBAL int hpack_take(struct slot *s, struct stream *st, struct http2_side *d, u32 side)
{
	struct scan *sc;
	u32 byte;

	if (!s || !st || !d)
		return 0;
	sc = &s->scan;
	if (d->field == HPACK_GATHER) {
		hpack_gather(sc, st, d, side);
		return 0;
	}
	if (d->field == HPACK_PASS) {
		hpack_pass(st, d, side);
		return 0;
	}
	byte = window_byte(sc, sc->pos);
	sc->pos++;
	d->left--;
	switch (d->field) {
	case HPACK_FIRST:
		hpack_first(d, byte, side);
		break;
	case HPACK_INDEX:
		if (hpack_number(d, byte))
			hpack_index(d, side);
		break;
	case HPACK_LENGTH:
		d->is_huffman = byte >> 7;
		d->number = byte & 0x7f;
		d->shift = 0;
		if (d->number == 0x7f)
			d->field = HPACK_LENGTH_MORE;
		else
			hpack_string(st, d, side);
		break;
	default:
		if (hpack_number(d, byte))
			hpack_string(st, d, side);
	}
	return 0;
}
