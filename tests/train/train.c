/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `make dictionary` makes of recorded frames (arguments: recordings).
 *   train codes FILE...             prints agent/bus/frame_code.def: prefix codes of at most
 *                                   FRAME_CODE_BITS bits by how often each symbol was wanted
 * The encoder itself says which symbols it wants: its codes are compiled in here with a count.
 */
#include <stdint.h>

static uint64_t seen[32][128];
#define FRAME_CODE_SEEN(code, symbol) ((void)seen[code][symbol]++)
#include "bus/frame_code.c"

#include "base/str.h"
#include "recording.h"

static const char *const names[FRAME_CODES] = {
#define FRAME_CODE(name, text) #name,
#include "bus/frame_code.def"
#undef FRAME_CODE
};

static const char head[] =
	"/* SPDX-License-Identifier: Apache-2.0 */\n"
	"/* Lengths of the trained codes, set 1, as `make dictionary` wrote them: see\n"
	" * bus/frame_code.h. CONTRACT: what was released never changes. A digit a symbol, 0: it "
	"has no\n"
	" * code, a: 10. */\n";

/* -------- the encoder over a recording, key frames as the courier's -------- */

static void replay(const char *path)
{
	static struct recording rec;
	struct frame_encoder *enc;
	const uint8_t *data;
	uint32_t samples;
	size_t size;

	if (recording_open(&rec, path) < 0 || frame_encoder_new(&enc) < 0)
		exit(1);
	while (recording_next(&rec)) {
		frame_encoder_begin(enc, rec.frame->sequence, rec.frame->time_ms, 1000,
				    rec.frame->is_key ? FRAME_TOTALS : FRAME_CHANGES);
		for (unsigned int i = 0; i < rec.count; i++)
			if (rec.series[i].name && frame_encoder_series(enc, &rec.series[i]) < 0)
				exit(1);
		if (frame_encoder_finish(enc, &data, &size, &samples) < 0)
			exit(1);
	}
	recording_close(&rec);
	frame_encoder_free(enc);
}

/* -------- code lengths -------- */

/* A symbol that was never wanted counts a little where values like it may come; what is above is
 * escaped. Rare ones are better escaped, too: their codes lengthen all others. */
static uint64_t weight_of(enum frame_code code, unsigned int symbol)
{
	uint64_t n = seen[code][symbol] * 64;

	if (symbol == FRAME_CODE_ESCAPE) {
		for (unsigned int s = FRAME_CODE_ESCAPE; s <= 64; s++)
			if (code != FRAME_CODE_COUNTER)
				n += seen[code][s] * 64;
		return n + 8;
	}
	if (symbol > FRAME_CODE_ESCAPE)
		return code == FRAME_CODE_COUNTER ? n : 0;
	return n ? n : symbol <= 8 ? 16 : symbol <= 16 ? 4 : 0;
}

/* Huffman's lengths by pairing the two lightest; weights are flattened until all fit. */
static void lengths_of(const uint64_t *weights, unsigned int *ret)
{
	for (unsigned int flatten = 0;; flatten++) {
		uint64_t w[FRAME_CODE_SYMBOLS];
		int group[FRAME_CODE_SYMBOLS];
		unsigned int most = 0;

		for (unsigned int s = 0; s < FRAME_CODE_SYMBOLS; s++) {
			w[s] = weights[s] ? (weights[s] >> flatten) + 1 : 0;
			group[s] = (int)s;
			ret[s] = 0;
		}
		for (;;) {
			int a = -1, b = -1;

			for (int s = 0; s < (int)FRAME_CODE_SYMBOLS; s++) {
				if (!w[s])
					continue;
				if (a < 0 || w[s] < w[a]) {
					b = a;
					a = s;
				} else if (b < 0 || w[s] < w[b]) {
					b = s;
				}
			}
			if (b < 0)
				break;
			w[a] += w[b];
			w[b] = 0;
			for (unsigned int s = 0; s < FRAME_CODE_SYMBOLS; s++) {
				if (!weights[s] || (group[s] != a && group[s] != b))
					continue;
				group[s] = a;
				if (++ret[s] > most)
					most = ret[s];
			}
		}
		if (most <= FRAME_CODE_BITS)
			return;
	}
}

static int codes(void)
{
	fputs(head, stdout);
	for (enum frame_code code = 0; code < FRAME_CODES; code++) {
		uint64_t weights[FRAME_CODE_SYMBOLS];
		unsigned int bits[FRAME_CODE_SYMBOLS], last = 0;

		for (unsigned int s = 0; s < FRAME_CODE_SYMBOLS; s++) {
			weights[s] = weight_of(code, s);
			if (weights[s])
				last = s;
		}
		lengths_of(weights, bits);
		printf("FRAME_CODE(%s, \"", names[code]);
		for (unsigned int s = 0; s <= last; s++)
			putchar("0123456789a"[bits[s]]);
		puts("\")");
	}
	return 0;
}

int main(int argc, char **argv)
{
	for (int i = 2; i < argc; i++)
		replay(argv[i]);
	if (argc > 2 && str_equal(argv[1], "codes"))
		return codes();
	fputs("usage: train codes FILE...\n", stderr);
	return 2;
}
