/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as an SP connection, cut anywhere: the parser must give the same events however they
 * are cut, stay within its limits, and what comes out as a message must go through the decoder of
 * bus messages without harm. Byte 0: bit 0 ipc, the rest how the bytes are cut.
 */
#include "bus/sp.h"
#include "bus/bulletin.h"
#include "bus/gatelink.h"

#include <stdlib.h>
#include <string.h>

#define MESSAGE_MAX 65536

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A digest of all events, and how it ended. */
struct run {
	uint64_t digest;
	unsigned int messages;
	int end;
};

static void mix(struct run *run, const uint8_t *data, size_t size)
{
	run->digest = (run->digest ^ size) * 0x100000001b3ULL;
	for (size_t i = 0; i < size; i++)
		run->digest = (run->digest ^ data[i]) * 0x100000001b3ULL;
}

static void read_message(const uint8_t *message, size_t size)
{
	static struct arena arena;
	uint64_t cells[HIST_CELLS];
	struct gatelink_message m;
	struct bulletin b;

	if (!arena.base && arena_init(&arena, 1u << 20) < 0)
		abort();
	if (gatelink_parse(message, size, &m) == 0 && m.payload + m.size != message + size)
		abort();
	if (sp_backtrace(message, size) > (int)size)
		abort();
	if (bulletin_decode(message, size, &arena, &b) < 0)
		return;
	for (size_t i = 0; i < b.body->n_series; i++)
		bulletin_cells(b.body->series[i], cells);
}

static struct run run_with(const uint8_t *data, size_t size, bool is_ipc, size_t step)
{
	struct sp_budget budget = {.limit = 2 * MESSAGE_MAX};
	struct run run = {0};
	struct sp_parser p;

	sp_parser_init(&p, SP_SUB, is_ipc, MESSAGE_MAX, &budget);
	for (size_t at = 0; at < size;) {
		size_t n = size - at < step ? size - at : step, used = 0;
		int r = sp_parser_feed(&p, data + at, n, &used);

		if (r < 0) {
			run.end = r;
			break;
		}
		if (used > n || (used == 0 && n > 0) || budget.used > budget.limit)
			abort();
		at += used;
		if (r == SP_MESSAGE) {
			if (p.size > MESSAGE_MAX)
				abort();
			run.messages++;
			mix(&run, p.message, p.size);
			if (step == size)
				read_message(p.message, p.size);
		}
	}
	sp_parser_fini(&p);
	if (budget.used)
		abort();
	return run;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct run whole, cut;
	bool is_ipc;
	size_t step;

	if (size < 2)
		return 0;
	is_ipc = data[0] & 1;
	step = (data[0] >> 1) + 1;
	whole = run_with(data + 1, size - 1, is_ipc, size - 1);
	cut = run_with(data + 1, size - 1, is_ipc, step);
	if (whole.digest != cut.digest || whole.messages != cut.messages || whole.end != cut.end)
		abort();
	return 0;
}
