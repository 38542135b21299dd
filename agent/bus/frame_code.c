/* SPDX-License-Identifier: Apache-2.0 */
/* Trained prefix codes: see frame_code.h. Tables are made once from the lengths. Pure. */
#include "bus/frame_code.h"

#include "base/err.h"

#include <pthread.h>

#ifndef FRAME_CODE_SEEN /* tests/bench/train.c counts symbols here */
#define FRAME_CODE_SEEN(code, symbol) ((void)0)
#endif

/* A digit or letter a symbol: 0 has no code, 1 to 9, a is 10. */
static const char *const lengths[FRAME_CODES] = {
#define FRAME_CODE(name, text) text,
#include "bus/frame_code.def"
#undef FRAME_CODE
};

uint16_t frame_code_decode[FRAME_CODES][1u << FRAME_CODE_BITS];

static struct {
	uint16_t bits[FRAME_CODE_SYMBOLS];
	uint8_t length[FRAME_CODE_SYMBOLS]; /* 0: none */
} tables[FRAME_CODES];

static void table_make(enum frame_code code)
{
	const char *text = lengths[code];
	unsigned int next = 0;

	for (unsigned int s = 0; text[s]; s++) {
		CHECK(s < FRAME_CODE_SYMBOLS);
		tables[code].length[s] = (uint8_t)(text[s] == 'a' ? 10 : text[s] - '0');
	}
	CHECK(tables[code].length[FRAME_CODE_ESCAPE]);
	for (unsigned int n = 1; n <= FRAME_CODE_BITS; n++) {
		for (unsigned int s = 0; s < FRAME_CODE_SYMBOLS; s++) {
			if (tables[code].length[s] != n)
				continue;
			tables[code].bits[s] = (uint16_t)(next >> (FRAME_CODE_BITS - n));
			for (unsigned int i = 0; i < 1u << (FRAME_CODE_BITS - n); i++)
				frame_code_decode[code][next++] = (uint16_t)(s << 8 | n);
		}
	}
	/* Complete: whatever a stream holds is some symbol. */
	CHECK(next == 1u << FRAME_CODE_BITS);
}

static void tables_make(void)
{
	for (enum frame_code code = 0; code < FRAME_CODES; code++)
		table_make(code);
}

void frame_code_init(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, tables_make);
}

static unsigned int symbol_of(enum frame_code code, uint64_t v)
{
	unsigned int s = frame_bits_significant(v);

	return s < FRAME_CODE_ESCAPE && tables[code].length[s] ? s : FRAME_CODE_ESCAPE;
}

static unsigned int bits_of(enum frame_code code, unsigned int symbol, uint64_t v)
{
	unsigned int s = frame_bits_significant(v);

	return tables[code].length[symbol] + (symbol == FRAME_CODE_ESCAPE ? 7 : 0) +
	       (s > 1 ? s - 1 : 0);
}

unsigned int frame_code_bits(enum frame_code code, uint64_t v)
{
	FRAME_CODE_SEEN(code, frame_bits_significant(v));
	return bits_of(code, symbol_of(code, v), v);
}

static void put_symbol(struct frame_bits_writer *w, enum frame_code code, unsigned int symbol)
{
	frame_bits_put(w, tables[code].bits[symbol], tables[code].length[symbol]);
}

/* Symbol s of v >> k, and the bits below. */
static void put(struct frame_bits_writer *w, enum frame_code code, unsigned int symbol,
		unsigned int s, uint64_t v, unsigned int k)
{
	unsigned int low = k + (s > 1 ? s - 1 : 0), n = tables[code].length[symbol];

	if (symbol == FRAME_CODE_ESCAPE) {
		put_symbol(w, code, symbol);
		frame_bits_put_code(w, v, FRAME_BITS_K_LENGTH);
	} else if (low + n <= FRAME_BITS_WORD) {
		v &= ((uint64_t)1 << low) - 1;
		frame_bits_put(w, (uint64_t)tables[code].bits[symbol] << low | v, low + n);
	} else {
		put_symbol(w, code, symbol);
		frame_bits_put(w, v, low);
	}
}

void frame_code_put(struct frame_bits_writer *w, enum frame_code code, uint64_t v)
{
	put(w, code, symbol_of(code, v), frame_bits_significant(v), v, 0);
}

void frame_code_put_shifted(struct frame_bits_writer *w, enum frame_code code, uint64_t v,
			    unsigned int k)
{
	FRAME_CODE_SEEN(code, frame_bits_significant(v >> k));
	put(w, code, symbol_of(code, v >> k), frame_bits_significant(v >> k), v, k);
}

uint64_t frame_code_get(struct frame_bits_reader *r, enum frame_code code)
{
	return frame_code_get_shifted(r, code, 0);
}

/* -------- counters -------- */

#define DECIMAL_BITS 24u

static const uint64_t decimals[2] = {1000, 10000000};

static void recent_add(struct frame_code_recent *recent, uint64_t v)
{
	recent->values[recent->count++ % FRAME_CODE_REPEATS] = v;
}

static uint64_t recent_get(const struct frame_code_recent *recent, unsigned int back)
{
	return back < recent->count
		       ? recent->values[(recent->count - 1 - back) % FRAME_CODE_REPEATS]
		       : 0;
}

struct counter_code {
	unsigned int symbol, bits;
	uint64_t v; /* what the bits behind the symbol are of */
};

static void consider(struct counter_code *best, unsigned int symbol, uint64_t v)
{
	unsigned int s = frame_bits_significant(v), bits;

	if (!tables[FRAME_CODE_COUNTER].length[symbol])
		return;
	bits = tables[FRAME_CODE_COUNTER].length[symbol] + (s > 1 ? s - 1 : 0);
	if (bits < best->bits)
		*best = (struct counter_code){symbol, bits, v};
}

static struct counter_code counter_code_of(const struct frame_code_recent *recent, uint64_t v)
{
	unsigned int symbol = symbol_of(FRAME_CODE_COUNTER, v);
	struct counter_code best = {symbol, bits_of(FRAME_CODE_COUNTER, symbol, v), v};

	for (unsigned int back = 0; back < FRAME_CODE_REPEATS && back < recent->count; back++)
		if (recent_get(recent, back) == v)
			consider(&best, FRAME_CODE_REPEAT + back, 0);
	for (unsigned int i = 0; v && i < 2 && v % decimals[i] == 0; i++) {
		unsigned int s = frame_bits_significant(v / decimals[i]);

		if (s <= DECIMAL_BITS)
			consider(&best, FRAME_CODE_DECIMAL + i * DECIMAL_BITS + s - 1,
				 v / decimals[i]);
	}
	return best;
}

unsigned int frame_code_counter_bits(struct frame_code_recent *recent, uint64_t v)
{
	struct counter_code c = counter_code_of(recent, v);

	FRAME_CODE_SEEN(FRAME_CODE_COUNTER, c.symbol);
	recent_add(recent, v);
	return c.bits;
}

void frame_code_put_counter(struct frame_bits_writer *w, struct frame_code_recent *recent,
			    uint64_t v)
{
	struct counter_code c = counter_code_of(recent, v);

	recent_add(recent, v);
	put(w, FRAME_CODE_COUNTER, c.symbol, frame_bits_significant(c.v), c.v, 0);
}

uint64_t frame_code_get_counter(struct frame_bits_reader *r, struct frame_code_recent *recent)
{
	uint64_t word = frame_bits_peek(r), v;
	unsigned int entry = frame_code_decode[FRAME_CODE_COUNTER][word >> (64 - FRAME_CODE_BITS)];
	unsigned int symbol = entry >> 8, n = entry & 0xff;

	if (symbol >= FRAME_CODE_DECIMAL) {
		symbol -= FRAME_CODE_DECIMAL;
		v = frame_code_get_low(r, word, n, symbol % DECIMAL_BITS + 1, 0) *
		    decimals[symbol / DECIMAL_BITS];
	} else if (symbol >= FRAME_CODE_REPEAT) {
		frame_bits_skip(r, n);
		r->failed |= symbol - FRAME_CODE_REPEAT >= recent->count;
		v = recent_get(recent, symbol - FRAME_CODE_REPEAT);
	} else {
		v = frame_code_get(r, FRAME_CODE_COUNTER);
	}
	recent_add(recent, v);
	return v;
}
