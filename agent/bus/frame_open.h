/* SPDX-License-Identifier: Apache-2.0 */
/* From sealed bytes, hostile ones, to the plain message. Internal to frame_*.c. Pure. */
#pragma once

#include "base/err.h"
#include "bus/frame_budget.h"

#include <stdint.h>

/* Size, checksum, then zstd into memory of the budget; the result may also lie in data. -EBADMSG,
 * -E2BIG, -ENOKEY (its dictionary is not here: e says which), -ENOMEM. */
int frame_open(struct frame_budget *b, const uint8_t *data, size_t size, const uint8_t **ret_data,
	       size_t *ret_size, struct err *e);

/* -EBADMSG with what is damaged. */
int frame_is_damaged(struct err *e, const char *what);
/* Why an allocation from the budget failed. */
int frame_budget_error(const struct frame_budget *b, struct err *e);
