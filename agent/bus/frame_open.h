/* SPDX-License-Identifier: Apache-2.0 */
/* From sealed bytes, hostile ones, to the plain message. Internal to frame_*.c. Pure. */
#pragma once

#include "base/err.h"
#include "bus/frame_budget.h"

#include <errno.h>
#include <stdint.h>

/* Size, checksum, then zstd into memory of the budget; the result may also lie in data. -EBADMSG,
 * -E2BIG, -ENOKEY (its dictionary is not here: e says which), -ENOMEM. */
int frame_open(struct frame_budget *b, const uint8_t *data, size_t size, const uint8_t **ret_data,
	       size_t *ret_size, struct err *e);

/* -EBADMSG with what is damaged. */
static inline int frame_is_damaged(struct err *e, const char *what)
{
	err_set(e, -EBADMSG, "frame: damaged: %s", what);
	return -EBADMSG;
}

/* Why an allocation from the budget failed. */
static inline int frame_budget_error(const struct frame_budget *b, struct err *e)
{
	if (b->is_failed) {
		err_set(e, -ENOMEM, "frame: out of memory");
		return -ENOMEM;
	}
	err_set(e, -E2BIG, "frame: needs more memory than it may");
	return -E2BIG;
}
