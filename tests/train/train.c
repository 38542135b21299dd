/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `make dictionary` makes of recorded frames (arguments: recordings).
 *   train codes FILE...             prints agent/bus/frame_code.def: prefix codes of at most
 *                                   FRAME_CODE_BITS bits by how often each symbol was wanted
 *   train dictionary ID FILE...     prints a zstd dictionary (proto/frames.ID.dict)
 * The encoder itself says which symbols it wants: its codes are compiled in here with a count.
 */
#include <stdint.h>

static uint64_t seen[32][128];
#define FRAME_CODE_SEEN(code, symbol) ((void)seen[code][symbol]++)
#include "bus/frame_code.c"

#include "base/str.h"
#include "recording.h"

#include <zdict.h>
#include <zstd.h>

static const char *const names[FRAME_CODES] = {
#define FRAME_CODE(name, text) #name,
#include "bus/frame_code.def"
#undef FRAME_CODE
};

static const char page_head[] =
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
	if (symbol > FRAME_CODE_ESCAPE) {
		/* What is of the host (pressure) comes again with each gateway: the training has one
		 * gateway a recording, so far repetitions are rarer there than elsewhere. */
		if (code == FRAME_CODE_COUNTER && symbol < FRAME_CODE_DECIMAL && n < 2000)
			return 2000;
		return code == FRAME_CODE_COUNTER ? n : 0;
	}
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
	fputs(page_head, stdout);
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

/* -------- dictionary -------- */

#define DICTIONARY_BYTES 4096u
#define SAMPLES_MAX      8192u

static struct {
	uint8_t *data;
	size_t size, cap;
	size_t sizes[SAMPLES_MAX];
	unsigned int count;
} samples;

/* The frame as it is before it is packed. */
static void sample_add(const uint8_t *sealed, size_t size)
{
	uint8_t *repacked;

	if (samples.count == SAMPLES_MAX)
		return;
	if (samples.size + FRAME_PLAIN_MAX > samples.cap) {
		samples.cap = samples.size * 2 + 2 * FRAME_PLAIN_MAX;
		samples.data = realloc(samples.data, samples.cap);
		if (!samples.data)
			exit(1);
	}
	if (frame_without_dictionary(sealed, size, &repacked, &size) < 0)
		exit(1);
	if (repacked)
		sealed = repacked;
	size -= FRAME_SEAL_BYTES;
	if (sealed[0] & FRAME_FLAG_ZSTD)
		size = ZSTD_decompress(samples.data + samples.size, FRAME_PLAIN_MAX,
				       sealed + FRAME_SEAL_BYTES, size);
	else
		memcpy(samples.data + samples.size, sealed + FRAME_SEAL_BYTES, size);
	if (ZSTD_isError(size))
		exit(1);
	samples.sizes[samples.count++] = size;
	samples.size += size;
	free(repacked);
}

/* Frames with texts, which alone a dictionary helps: some series that are new (as many as a worker, a
 * gateway or a host brings), at each tick others; and the events of the tick. */
static void sample_tick(const struct recording *rec, unsigned int tick)
{
	static const unsigned int widths[] = {3, 12, 40, RECORDING_SERIES};
	unsigned int width = widths[tick % ARRAY_LEN(widths)];
	unsigned int first = tick * 7 % (rec->count ? rec->count : 1);
	struct frame_encoder *enc;
	const uint8_t *data;
	uint32_t ignored;
	size_t size;

	if (frame_encoder_new(&enc) < 0)
		exit(1);
	for (unsigned int round = 0; round < 2; round++) {
		frame_encoder_begin(enc, rec->frame->sequence, rec->frame->time_ms, 1000,
				    FRAME_CHANGES);
		for (unsigned int i = 0; i < rec->count; i++)
			if (rec->series[i].name && (width >= rec->count || i - first < width) &&
			    frame_encoder_series(enc, &rec->series[i]) < 0)
				exit(1);
		/* The second round has them alone. */
		for (size_t i = 0; round && i < rec->frame->event_count; i++)
			frame_encoder_event(enc, &rec->frame->events[i]);
		if (round && !rec->frame->event_count)
			break;
		if (frame_encoder_finish(enc, &data, &size, &ignored) < 0)
			exit(1);
		sample_add(data, size);
	}
	frame_encoder_free(enc);
}

static void sample(const char *path)
{
	static struct recording rec;

	if (recording_open(&rec, path) < 0)
		exit(1);
	for (unsigned int tick = 0; recording_next(&rec); tick++)
		sample_tick(&rec, tick);
	recording_close(&rec);
}

static int dictionary(unsigned int id)
{
	static uint8_t trained[DICTIONARY_BYTES], out[DICTIONARY_BYTES];
	ZDICT_params_t params = {.compressionLevel = 3, .dictID = id};
	size_t size, skip;

	/* The content by zstd's trainer, the id by us. */
	size = ZDICT_trainFromBuffer(trained, sizeof(trained), samples.data, samples.sizes,
				     samples.count);
	skip = ZDICT_isError(size) ? 0 : ZDICT_getDictHeaderSize(trained, size);
	if (!ZDICT_isError(size))
		size = ZDICT_finalizeDictionary(out, sizeof(out), trained + skip, size - skip,
						samples.data, samples.sizes, samples.count, params);
	if (ZDICT_isError(size)) {
		fprintf(stderr, "train: %s\n", ZDICT_getErrorName(size));
		return 1;
	}
	return fwrite(out, 1, size, stdout) == size ? 0 : 1;
}

int main(int argc, char **argv)
{
	if (argc > 2 && str_equal(argv[1], "codes")) {
		for (int i = 2; i < argc; i++)
			replay(argv[i]);
		return codes();
	}
	if (argc > 3 && str_equal(argv[1], "dictionary")) {
		for (int i = 3; i < argc; i++)
			sample(argv[i]);
		return dictionary((unsigned int)strtoul(argv[2], NULL, 10));
	}
	fputs("usage: train codes FILE... | train dictionary ID FILE...\n", stderr);
	return 2;
}
