/* SPDX-License-Identifier: Apache-2.0 */
/* Sums of the fleet as series of an agent. */
#include "fleet/tributary.h"

#include <errno.h>
#include <string.h>

static bool series_fill(const struct merge_series *in, struct segment_series *ret)
{
	if (in->label_count > SEGMENT_LABELS_MAX)
		return false;
	*ret = (struct segment_series){
		.name = in->name,
		.unit = in->unit,
		.help = in->help,
		.kind = in->kind,
		.merge = in->merge,
		.scope = in->scope,
		.is_present = true,
		.label_count = in->label_count,
		.counter = in->counter,
		.gauge = in->gauge,
		.cells = in->cells,
	};
	memcpy(ret->labels, in->labels, in->label_count * sizeof(in->labels[0]));
	return true;
}

int tributary_encode(struct merge_view *view, struct frame_encoder *enc, uint64_t *refused)
{
	for (size_t i = 0; i < merge_view_count(view); i++) {
		struct merge_series sum;
		struct segment_series series;

		if (!merge_view_get(view, i, &sum))
			continue; /* a gauge of nobody: left out, it becomes absent above */
		if (!series_fill(&sum, &series)) {
			++*refused;
			continue;
		}
		/* Limits are the encoder's to count; without memory the frame must not go out. */
		if (frame_encoder_series(enc, &series) == -ENOMEM)
			return -ENOMEM;
	}
	return 0;
}
