/* SPDX-License-Identifier: Apache-2.0 */
/* Series of the fleet as bodies of bus messages, which name them in full. Pure. */
#pragma once

#include "fleet/merge.h"
#include "tidegate.pb-c.h"

#define BODY_SERIES_MAX 256 /* of one message */

struct body;

int body_new(struct body **ret);
struct body *body_free(struct body *b);
void body_reset(struct body *b, uint64_t time_ms);
/* Copies. -ENOSPC when it holds BODY_SERIES_MAX; -ENOMEM. */
int body_add(struct body *b, const struct merge_series *series);
size_t body_count(const struct body *b);
/* Borrowed until the next add or reset; events and topics may be set by the caller. */
Tidegate__BusBody *body_message(struct body *b);
