/* SPDX-License-Identifier: Apache-2.0 */
/*
 * forge KIND AGENT: what a hostile agent with a right certificate sends, on stdout, from its SP
 * handshake on. The frames are of the series forged_total, which counts 7, in incarnation "forge".
 */
#include "base/crc32c.h"
#include "bus/frame.h"
#include "bus/sp.h"
#include "tidegate.pb-c.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#define FRAMES_MAX 5000
#define BOMB_BYTES (256u << 20)

static ProtobufCBinaryData frames[FRAMES_MAX];
static size_t frame_count;
static Tidegate__Hello hello;
static Tidegate__Uplink uplink;
static char agent[65536];
static uint8_t incarnation[FRAME_INCARNATION_BYTES] = "forge";

static void must(bool ok)
{
	if (ok)
		return;
	fprintf(stderr, "forge: cannot\n");
	exit(1);
}

static void add(const void *data, size_t size)
{
	uint8_t *copy = malloc(size + 1);

	must(copy && frame_count < FRAMES_MAX);
	memcpy(copy, data, size);
	frames[frame_count++] = (ProtobufCBinaryData){.len = size, .data = copy};
}

/* A whole key frame of one counter. */
static ProtobufCBinaryData *add_frame(uint64_t sequence)
{
	static char name[] = "forged_total";
	struct segment_series series = {
		.name = name, .unit = "", .help = "", .kind = METRIC_COUNTER, .counter = 7};
	struct frame_encoder *e;
	const uint8_t *data;
	uint32_t samples;
	size_t size;

	must(frame_encoder_new(&e) == 0);
	series.is_present = true;
	frame_encoder_begin(e, sequence, 1700000000000, 1000, FRAME_KEY);
	must(frame_encoder_series(e, &series) == 0);
	must(frame_encoder_finish(e, &data, &size, &samples) == 0);
	add(data, size);
	frame_encoder_free(e);
	return &frames[frame_count - 1];
}

/* Compressed bytes under a right checksum. */
static void add_sealed(const uint8_t *data, size_t size, uint8_t flags)
{
	uint8_t *sealed = malloc(FRAME_SEAL_BYTES + size);
	uint32_t crc = crc32c(0, data, size);

	must(sealed);
	sealed[0] = flags;
	for (unsigned int i = 0; i < 4; i++)
		sealed[1 + i] = (uint8_t)(crc >> 8 * i);
	memcpy(sealed + FRAME_SEAL_BYTES, data, size);
	add(sealed, FRAME_SEAL_BYTES + size);
	free(sealed);
}

/* Zeros, 256 MiB of them; says_size: in the header, where a careless reader looks first. */
static void add_bomb(bool says_size)
{
	uint8_t *zeros = calloc(1, BOMB_BYTES), *out = malloc(FRAME_SEALED_MAX);
	ZSTD_CCtx *z = ZSTD_createCCtx();
	ZSTD_outBuffer to = {out, FRAME_SEALED_MAX, 0};
	ZSTD_inBuffer from = {zeros, BOMB_BYTES, 0};

	must(zeros && out && z);
	ZSTD_CCtx_setParameter(z, ZSTD_c_contentSizeFlag, says_size);
	if (says_size)
		must(!ZSTD_isError(ZSTD_CCtx_setPledgedSrcSize(z, BOMB_BYTES)));
	must(ZSTD_compressStream2(z, &to, &from, ZSTD_e_end) == 0);
	add_sealed(out, to.pos, FRAME_FLAG_ZSTD);
	ZSTD_freeCCtx(z);
	free(zeros);
	free(out);
}

static void put(const void *payload, size_t size)
{
	uint8_t head[SP_HEADER_MAX], id[4];

	sp_put32(id, 0x80000001u);
	fwrite(head, 1, sp_header_put(head, false, size + sizeof(id)), stdout);
	fwrite(id, 1, sizeof(id), stdout);
	fwrite(payload, 1, size, stdout);
}

static void put_uplink(void)
{
	size_t size;
	uint8_t *bytes;

	uplink.frames = frames;
	uplink.n_frames = frame_count;
	size = tidegate__uplink__get_packed_size(&uplink);
	bytes = malloc(size + 1);
	must(bytes);
	put(bytes, tidegate__uplink__pack(&uplink, bytes));
	free(bytes);
}

static void forge(const char *kind)
{
	ProtobufCBinaryData *f;

	if (!strcmp(kind, "honest")) {
		add_frame(1);
	} else if (!strcmp(kind, "replayed")) {
		add_frame(1);
		add_frame(1);
		put_uplink();
		put_uplink();
	} else if (!strcmp(kind, "truncated")) {
		f = add_frame(2);
		f->len /= 2;
		f = add_frame(2);
		f->len = 3;
		add("", 0);
	} else if (!strcmp(kind, "flipped")) {
		for (size_t i = 0, bits = 8; i < bits; i++) {
			f = add_frame(2);
			f->data[i / 8] ^= (uint8_t)(1 << i % 8);
			bits = 8 * f->len;
		}
	} else if (!strcmp(kind, "bomb")) {
		add_bomb(true);
		add_bomb(false);
	} else if (!strcmp(kind, "future")) {
		add_frame(UINT64_MAX / 2 + 1);
		add_frame(UINT64_MAX);
		add_frame(0);
	} else if (!strcmp(kind, "version")) {
		hello.version = 1000;
	} else if (!strcmp(kind, "name")) {
		memset(agent, 'x', sizeof(agent) - 1);
	} else if (!strcmp(kind, "many")) {
		for (unsigned int i = 0; i < FRAMES_MAX; i++)
			add("x", 1);
	} else if (!strcmp(kind, "session")) {
		uplink.hello = NULL;
		add_frame(3);
		for (uplink.session = 1; uplink.session < 64; uplink.session++)
			put_uplink();
	} else if (!strcmp(kind, "junk")) {
		uint8_t junk[4096];

		for (size_t i = 0; i < sizeof(junk); i++)
			junk[i] = (uint8_t)(i * 2654435761u >> 13);
		put(junk, sizeof(junk));
	} else {
		must(false);
	}
}

int main(int argc, char **argv)
{
	uint8_t handshake[SP_HANDSHAKE];

	must(argc == 3 && strlen(argv[2]) < 256);
	strcpy(agent, argv[2]);
	tidegate__hello__init(&hello);
	tidegate__uplink__init(&uplink);
	hello.version = FRAME_VERSION;
	hello.agent = agent;
	hello.incarnation = (ProtobufCBinaryData){.len = sizeof(incarnation), .data = incarnation};
	uplink.hello = &hello;
	sp_handshake_put(handshake, SP_REQ);
	fwrite(handshake, 1, sizeof(handshake), stdout);
	forge(argv[1]);
	if (strcmp(argv[1], "junk"))
		put_uplink();
	return fflush(stdout) == 0 ? 0 : 1;
}
