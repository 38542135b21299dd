/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a gateway process's profile: merged, printed, drawn. What comes out must be text that a
 * terminal and an XML parser take, every sample must be in it once, and it must read back as itself.
 */
#include "outlet/flame.h"

#include "base/err.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool sum_own(void *data, const struct stacks_frame *f)
{
	*(uint64_t *)data += f->own;
	return true;
}

static void check(bool holds)
{
	if (!holds)
		abort();
}

static void check_text(const struct strbuf *b)
{
	for (size_t at = 0; at < b->len;) {
		size_t n = str_utf8_length(b->data + at);

		check(n > 0);
		check((unsigned char)b->data[at] >= ' ' || b->data[at] == '\n' ||
		      b->data[at] == '\t');
		at += n;
	}
}

static struct stacks *merged(const void *text, size_t size)
{
	struct stacks *s;

	check(stacks_new(&s) == 0);
	check(stacks_add(s, text, size) == 0);
	return s;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct stacks *s = merged(data, size), *again;
	struct strbuf folded, graph, second;
	struct stacks_stats stats;
	uint64_t own = 0;

	stacks_stats(s, &stats);
	check(stacks_walk(s, sum_own, &own) == 0);
	check(own == stats.samples);
	strbuf_init(&folded, 64u << 20);
	strbuf_init(&graph, FLAME_BYTES);
	strbuf_init(&second, 64u << 20);
	check(stacks_print(s, &folded) == 0);
	check_text(&folded);
	/* What it prints is a profile again; sums beyond a line's limit are not. */
	if (stats.samples <= STACKS_COUNT_MAX) {
		again = merged(folded.data ? folded.data : "", folded.len);
		check(stacks_print(again, &second) == 0);
		check(folded.len == second.len);
		check(!folded.len || memcmp(folded.data, second.data, folded.len) == 0);
		stacks_free(again);
	}
	check(flame_print(s, "t", &graph) == 0);
	check_text(&graph);
	strbuf_fini(&folded);
	strbuf_fini(&graph);
	strbuf_fini(&second);
	stacks_free(s);
	return 0;
}
