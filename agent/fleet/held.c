/* SPDX-License-Identifier: Apache-2.0 */
/* Increments of frames above a gap, kept until no key frame can come below them any more. */
#include "fleet/state.h"

#include "base/cleanup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void held_fini(struct fleet_incarnation *inc)
{
	for (uint32_t i = 0; i < inc->held_count; i++)
		free(inc->held[i].words);
	free(inc->held);
	inc->held = NULL;
	inc->held_count = inc->held_capacity = 0;
	inc->held_bytes = 0;
}

static size_t held_size(uint32_t word_count)
{
	return sizeof(struct fleet_held) + word_count * sizeof(uint64_t);
}

int held_restore(struct fleet *f, struct fleet_incarnation *inc, uint64_t sequence,
		 const uint64_t *words, uint32_t word_count)
{
	_cleanup_free_ uint64_t *copy = malloc((word_count + 1) * sizeof(*copy));
	uint32_t at = inc->held_count;

	if (!copy)
		return -ENOMEM;
	if (inc->held_count == inc->held_capacity) {
		uint32_t capacity = inc->held_capacity ? inc->held_capacity * 2 : 4;
		struct fleet_held *held = realloc(inc->held, capacity * sizeof(*held));

		if (!held)
			return -ENOMEM;
		inc->held = held;
		inc->held_capacity = capacity;
	}
	memcpy(copy, words, word_count * sizeof(*copy));
	while (at && inc->held[at - 1].sequence > sequence)
		at--;
	memmove(&inc->held[at + 1], &inc->held[at], (inc->held_count - at) * sizeof(*inc->held));
	inc->held[at] = (struct fleet_held){sequence, word_count, TAKE_PTR(copy)};
	inc->held_count++;
	inc->held_bytes += held_size(word_count);
	f->stats.held_bytes += held_size(word_count);
	return 0;
}

int held_keep(struct fleet *f, struct fleet_incarnation *inc, const struct frame *frame)
{
	_cleanup_free_ uint64_t *words = NULL;
	size_t most = frame->counter_count * 4 + frame->histogram_count * 2;
	uint32_t n = 0;

	for (size_t i = 0; i < frame->histogram_count; i++)
		most += frame->histograms[i].count * 2ULL;
	words = malloc((most + 1) * sizeof(*words));
	if (!words)
		return -ENOMEM;
	for (size_t i = 0; i < frame->counter_count; i++) {
		uint32_t series = fleet_id_find(inc, frame->counters[i].id)->series;

		if (series == FLEET_NO_SERIES)
			continue;
		words[n++] = series;
		words[n++] = 1;
		words[n++] = 0;
		words[n++] = frame->counters[i].value;
	}
	for (size_t i = 0; i < frame->histogram_count; i++) {
		const struct frame_histogram *h = &frame->histograms[i];
		uint32_t series = fleet_id_find(inc, h->id)->series;

		if (series == FLEET_NO_SERIES)
			continue;
		words[n++] = series;
		words[n++] = h->count;
		for (uint32_t c = 0; c < h->count; c++) {
			words[n++] = h->cells[c];
			words[n++] = h->counts[c];
		}
	}
	return n ? held_restore(f, inc, frame->sequence, words, n) : 0;
}

void held_drop(struct fleet *f, struct fleet_incarnation *inc, uint64_t upto)
{
	uint32_t n = 0;

	while (n < inc->held_count && inc->held[n].sequence <= upto) {
		inc->held_bytes -= held_size(inc->held[n].word_count);
		f->stats.held_bytes -= held_size(inc->held[n].word_count);
		free(inc->held[n].words);
		n++;
	}
	if (!n)
		return;
	memmove(inc->held, inc->held + n, (inc->held_count - n) * sizeof(*inc->held));
	inc->held_count -= n;
}
