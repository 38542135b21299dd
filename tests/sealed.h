/* SPDX-License-Identifier: Apache-2.0 */
/* Sealed frames for tests of the history: one counter and its total. */
#pragma once

#include "fleet/sheaf.h"

#include <stdlib.h>

/* A key frame that says the total of a counter; with id 1. Borrowed until the next call. */
static inline void sealed_frame(uint64_t sequence, uint64_t time_ms, uint64_t total,
				const uint8_t **ret_data, size_t *ret_size)
{
	static struct frame_encoder *encoder;
	struct segment_series series = {.name = "tidegate_requests_total",
					.unit = "",
					.help = "",
					.kind = METRIC_COUNTER,
					.is_present = true,
					.label_count = 1,
					.labels = {{"instance", "web/1/1"}},
					.counter = total};
	uint32_t samples;

	frame_encoder_free(encoder);
	if (frame_encoder_new(&encoder) < 0)
		abort();
	frame_encoder_begin(encoder, sequence, time_ms, 1000, FRAME_KEY);
	if (frame_encoder_series(encoder, &series) < 0 ||
	    frame_encoder_finish(encoder, ret_data, ret_size, &samples) < 0)
		abort();
}

static inline int sealed_add(struct sheaf *s, uint64_t sequence, uint64_t time_ms, uint64_t total)
{
	const uint8_t *data;
	size_t size;

	sealed_frame(sequence, time_ms, total, &data, &size);
	return sheaf_add(s, sequence, time_ms, true, data, size);
}

static inline int sealed_on_sample(void *data, const struct minute_sample *s)
{
	*(uint64_t *)data = s->counter;
	return 0;
}

/* The last total of the minute. */
static inline uint64_t sealed_total(struct minute *m)
{
	uint64_t total = 0;

	minute_each(m, sealed_on_sample, &total);
	return total;
}
