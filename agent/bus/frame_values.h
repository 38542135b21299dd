/* SPDX-License-Identifier: Apache-2.0 */
/* Values of a frame from its hostile bit sections. Internal to frame_*.c. Pure. */
#pragma once

#include "bus/frame.h"
#include "bus/frame_open.h"
#include "tidegate.pb-c.h"

/* Counters, gauges, histograms and absent series into f, memory from the budget. -EBADMSG, -E2BIG,
 * -ENOMEM. */
int frame_values_read(struct frame *f, struct frame_budget *budget, const Tidegate__Frame *m,
		      struct err *e);
