/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames of hostile agents, in any order, against the fleet's state. Input, again and again: u8
 * (bits 0-1: who sends, bit 2: a key frame, bit 3: an hour passes, bit 4: all is read) | u8 sequence
 * | u16 size | a sealed frame, whose checksum is made right here. Limits hold, and the books agree.
 */
#include "base/crc32c.h"
#include "fleet/ingest.h"
#include "fleet/merge.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(cond)            \
	do {                     \
		if (!(cond))     \
			abort(); \
	} while (0)
#define SENDERS 4
#define HOUR_MS 3600000u

static void read_all(const struct fleet *f, uint64_t now_ms)
{
	struct merge_options options = {.now_ms = now_ms};
	struct merge_view *view;
	struct merge_series series;
	struct merge_agent agent;

	REQUIRE(merge_view_new(f, &options, &view) == 0);
	for (size_t i = 0; i < merge_view_count(view); i++)
		if (merge_view_get(view, i, &series))
			REQUIRE(strlen(series.name) <= FRAME_NAME_MAX);
	merge_view_free(view);
	for (size_t i = 0; i < merge_agent_count(f); i++)
		REQUIRE(!merge_agent_get(f, i, &agent) || *agent.id);
}

static struct frame *decode(const uint8_t *data, size_t size)
{
	struct frame *frame = NULL;
	uint8_t *copy = malloc(size ? size : 1);

	REQUIRE(copy);
	memcpy(copy, data, size);
	if (size >= FRAME_SEAL_BYTES) {
		uint32_t crc = crc32c(0, copy + FRAME_SEAL_BYTES, size - FRAME_SEAL_BYTES);

		for (unsigned int i = 0; i < 4; i++)
			copy[1 + i] = (uint8_t)(crc >> (8 * i));
	}
	if (frame_decode(copy, size, &frame, NULL) < 0)
		frame = NULL;
	free(copy);
	return frame;
}

static uint32_t hello(struct fleet *f, unsigned int who, uint64_t now_ms)
{
	const uint8_t incarnation[FRAME_INCARNATION_BYTES] = {(uint8_t)(1 + who % 2)};
	struct fleet_hello h = {.agent = who < 2 ? "a" : "b",
				.incarnation = incarnation,
				.labels = {"c", "", "pod", "node"}};
	uint32_t session = 0;

	return fleet_say_hello(f, &h, 0, now_ms, &session, NULL) == 0 ? session : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct fleet_limits limits = {.agents = 2, .agent_series = 64, .series = 128};
	uint64_t now_ms = 1700000000000;
	struct fleet_stats stats;
	struct fleet *f;
	unsigned int sent = 0;

	REQUIRE(fleet_new(&limits, &f) == 0);
	while (size >= 4) {
		uint8_t what = data[0], sequence = data[1];
		size_t n = (size_t)(data[2] | data[3] << 8);
		struct frame *frame;

		data += 4;
		size -= 4;
		n = n < size ? n : size;
		frame = decode(data, n);
		if (frame) {
			frame->sequence = sequence + 1u;
			frame->is_key = what & 4;
			fleet_apply(f, hello(f, what % SENDERS, now_ms), frame, n, now_ms, NULL);
			frame_free(frame);
			sent++;
		}
		if (what & 8) {
			now_ms += HOUR_MS;
			fleet_depart(f, now_ms, HOUR_MS / 2);
		}
		if (what & 16)
			read_all(f, now_ms);
		data += n;
		size -= n;
	}
	read_all(f, now_ms);
	fleet_stats(f, &stats);
	REQUIRE(stats.applied + stats.duplicates + stats.need_hello + stats.need_key +
			stats.refused <=
		sent);
	REQUIRE(stats.agents <= limits.agents && stats.series <= limits.series);
	fleet_free(f);
	return 0;
}
