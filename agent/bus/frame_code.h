/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trained codes of the frame codec. Internal to frame_*.c. Pure.
 *
 * A value is a symbol, coded by a prefix code, and bits behind it. Symbol s <= 31: the value has s
 * significant bits; its s - 1 bits below the highest follow. FRAME_CODE_ESCAPE: a length code
 * (bus/frame_bits.h) follows. Counters have more symbols: 33 to 40 repeat the value that stands 1
 * to 8 places before; 41 to 64 and 65 to 88 stand for 1 to 24 significant bits of the value divided
 * by 10^3 and by 10^7 (times in ns come from clocks of a µs and of 10 ms).
 *
 * The prefix codes are canonical: ordered by length, then by symbol. Their lengths (frame_code.def,
 * trained by `make dictionary` from tests/data/frames) are set 1, part of the format for ever; a
 * better set would be another one under another parameter.
 */
#pragma once

#include "bus/frame_bits.h"

enum frame_code {
#define FRAME_CODE(name, lengths) FRAME_CODE_##name,
#include "bus/frame_code.def"
#undef FRAME_CODE
	FRAME_CODES
};

#define FRAME_CODE_ESCAPE  32u
#define FRAME_CODE_REPEAT  33u
#define FRAME_CODE_REPEATS 8u
#define FRAME_CODE_DECIMAL (FRAME_CODE_REPEAT + FRAME_CODE_REPEATS)
#define FRAME_CODE_SYMBOLS 89u
#define FRAME_CODE_BITS    10u /* longest code of a symbol */

/* Before anything else of this page; may be called again and from any thread. */
void frame_code_init(void);

/* What frame_code_put() would write. */
unsigned int frame_code_bits(enum frame_code code, uint64_t v);
void frame_code_put(struct frame_bits_writer *w, enum frame_code code, uint64_t v);
uint64_t frame_code_get(struct frame_bits_reader *r, enum frame_code code);

/* What the next FRAME_CODE_BITS bits of a stream begin with: symbol << 8 | length of its code. */
extern uint16_t frame_code_decode[FRAME_CODES][1u << FRAME_CODE_BITS];

/* What stands behind a symbol of s significant bits, k more. The symbol was n bits of word. Inline:
 * most of a frame's decoding is here; and nobody else gets the reader's address, so that it can stay
 * in registers. */
static inline uint64_t frame_code_get_low(struct frame_bits_reader *r, uint64_t word,
					  unsigned int n, unsigned int s, unsigned int k)
{
	unsigned int low = k + (s > 1 ? s - 1 : 0);
	uint64_t v;

	if (__builtin_expect(low + n <= FRAME_BITS_WORD, 1)) {
		frame_bits_skip(r, low + n);
		v = word << n >> 1 >> (63 - low);
	} else {
		struct frame_bits_reader slow = *r;

		frame_bits_skip(&slow, n);
		slow.failed |= low > 63;
		v = frame_bits_get(&slow, low & 63);
		*r = slow;
	}
	return s ? v | (uint64_t)1 << (low & 63) : v;
}

/* The symbol stands for v >> k; k bits more follow. Escaped values are whole. */
void frame_code_put_shifted(struct frame_bits_writer *w, enum frame_code code, uint64_t v,
			    unsigned int k);
static inline uint64_t frame_code_get_shifted(struct frame_bits_reader *r, enum frame_code code,
					      unsigned int k)
{
	uint64_t word = frame_bits_peek(r);
	unsigned int entry = frame_code_decode[code][word >> (64 - FRAME_CODE_BITS)];

	if (__builtin_expect(entry >> 8 == FRAME_CODE_ESCAPE, 0)) {
		struct frame_bits_reader slow = *r;
		uint64_t v;

		frame_bits_skip(&slow, entry & 0xff);
		v = frame_bits_get_length(&slow);
		*r = slow;
		return v;
	}
	return frame_code_get_low(r, word, entry & 0xff, entry >> 8, k);
}

/* Counters of a section, in order; zero to begin. */
struct frame_code_recent {
	uint64_t values[FRAME_CODE_REPEATS];
	unsigned int count;
};
unsigned int frame_code_counter_bits(struct frame_code_recent *recent, uint64_t v);
void frame_code_put_counter(struct frame_bits_writer *w, struct frame_code_recent *recent,
			    uint64_t v);
uint64_t frame_code_get_counter(struct frame_bits_reader *r, struct frame_code_recent *recent);
