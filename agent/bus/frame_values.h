/* SPDX-License-Identifier: Apache-2.0 */
/* Values of a frame from its hostile bit sections. Internal to frame_*.c. Pure. */
#pragma once

#include "bus/frame.h"
#include "bus/frame_budget.h"
#include "tidegate.pb-c.h"

#define FRAME_BUDGET_BYTES (8u * FRAME_PLAIN_MAX)

/* Counters, gauges, histograms and absent series into f, memory from the budget. -EBADMSG, -E2BIG,
 * -ENOMEM. */
int frame_values_read(struct frame *f, struct frame_budget *budget, const Tidegate__Frame *m,
		      struct err *e);

/* -EBADMSG with what is damaged. */
int frame_is_damaged(struct err *e, const char *what);
/* Why an allocation from the budget failed. */
int frame_budget_error(const struct frame_budget *b, struct err *e);
