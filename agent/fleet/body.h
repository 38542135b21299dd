/* SPDX-License-Identifier: Apache-2.0 */
/* Series of the fleet as bodies of bus messages, which name them in full. Pure. */
#pragma once

#include "fleet/merge.h"
#include "tidegate.pb-c.h"

#define BODY_SERIES_MAX 256          /* of one message */
#define BODY_BYTES_MAX  (900u << 10) /* packed: with its topic it is a message of SP's 1 MiB */

struct body;

/* series_max 0: BODY_SERIES_MAX. */
int body_new(unsigned int series_max, struct body **ret);
struct body *body_free(struct body *b);
void body_reset(struct body *b, uint64_t time_ms);
/* Copies. -ENOSPC when it is full, by number or bytes; -ENOMEM. An empty one takes any series. */
int body_add(struct body *b, const struct merge_series *series);
size_t body_count(const struct body *b);
/* Borrowed until the next add or reset; events and topics may be set by the caller. */
Tidegate__BusBody *body_message(struct body *b);
