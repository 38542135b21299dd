/* SPDX-License-Identifier: Apache-2.0 */
/* Sums of the fleet as series of an agent. */
#include "fleet/tributary.h"

#include <errno.h>
#include <string.h>

#define FEEDS_LABEL "aggregator"

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

static bool names(const struct merge_series *s, const char *name)
{
	if (strcmp(s->name, metric_descs[METRIC_ID_AGGREGATOR_FEEDS].name) != 0)
		return false;
	for (unsigned int i = 0; i < s->label_count; i++)
		if (strcmp(s->labels[i].key, FEEDS_LABEL) == 0 &&
		    strcmp(s->labels[i].value, name) == 0)
			return true;
	return false;
}

static int name_add(struct frame_encoder *enc, const char *name)
{
	const struct metric_desc *d = &metric_descs[METRIC_ID_AGGREGATOR_FEEDS];
	const struct segment_series s = {
		.name = d->name,
		.unit = d->unit,
		.help = d->help,
		.kind = d->kind,
		.merge = d->merge,
		.scope = d->scope,
		.is_present = true,
		.label_count = 1,
		.labels = {{FEEDS_LABEL, name}},
		.gauge = 1,
	};

	return frame_encoder_series(enc, &s) == -ENOMEM ? -ENOMEM : 0;
}

int tributary_encode(struct merge_view *view, const char *name, struct frame_encoder *enc,
		     uint64_t *refused)
{
	for (size_t i = 0; i < merge_view_count(view); i++) {
		struct merge_series sum;
		struct segment_series series;

		if (!merge_view_get(view, i, &sum))
			continue; /* a gauge of nobody: left out, it becomes absent above */
		if (name && names(&sum, name))
			return -ELOOP;
		if (!series_fill(&sum, &series)) {
			++*refused;
			continue;
		}
		/* Limits are the encoder's to count; without memory the frame must not go out. */
		if (frame_encoder_series(enc, &series) == -ENOMEM)
			return -ENOMEM;
	}
	return name ? name_add(enc, name) : 0;
}
