/* SPDX-License-Identifier: Apache-2.0 */
/* From sections to sealed bytes. Internal to frame_*.c. Pure. */
#pragma once

#include "bus/frame_sections.h"

#include <zstd.h>

struct frame_head {
	uint64_t sequence, time_ms, events_dropped;
	uint32_t interval_ms, series;
	bool is_key;
	const struct frame_event *events;
	unsigned int event_count;
};

/* Zero to begin. */
struct frame_seal {
	ZSTD_CCtx *zstd;
	uint8_t *plain, *sealed, *tried;
	size_t plain_cap, sealed_cap, tried_cap;
};

/* -ENOMEM. The result is borrowed until the next call. */
int frame_seal(struct frame_seal *seal, const struct frame_head *head,
	       const struct frame_sections *sections, const uint8_t **ret_data, size_t *ret_size);
void frame_seal_fini(struct frame_seal *seal);
