/* SPDX-License-Identifier: Apache-2.0 */
/* Windows of histogram cells that grow towards both ends. */
#include "fleet/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int cell_window_reach(struct cell_window **w, unsigned int first, unsigned int last)
{
	struct cell_window *old = *w, *fresh;
	unsigned int count;

	if (old && first >= old->first && last < (unsigned int)old->first + old->count)
		return 0;
	if (old) {
		unsigned int end = (unsigned int)old->first + old->count - 1;

		first = first < old->first ? first : old->first;
		last = last > end ? last : end;
	}
	count = last - first + 1;
	fresh = calloc(1, sizeof(*fresh) + count * sizeof(fresh->counts[0]));
	if (!fresh)
		return -ENOMEM;
	fresh->first = (uint16_t)first;
	fresh->count = (uint16_t)count;
	if (old)
		memcpy(fresh->counts + (old->first - first), old->counts,
		       old->count * sizeof(old->counts[0]));
	free(old);
	*w = fresh;
	return 0;
}

void cell_window_add(struct cell_window *w, unsigned int cell, uint64_t count)
{
	w->counts[cell - w->first] += count;
}

int cell_window_raise(struct cell_window **w, const struct cell_window *by)
{
	int r = by && by->count ? cell_window_reach(w, by->first, by->first + by->count - 1u) : 0;

	for (unsigned int i = 0; r >= 0 && by && i < by->count; i++) {
		uint64_t *count = &(*w)->counts[by->first + i - (*w)->first];

		if (by->counts[i] > *count)
			*count = by->counts[i];
	}
	return r;
}
