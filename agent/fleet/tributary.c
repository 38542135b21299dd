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

static bool is_name(const struct merge_series *s)
{
	return strcmp(s->name, metric_descs[METRIC_ID_AGGREGATOR_FEEDS].name) == 0;
}

static bool is_name_of(const struct merge_series *s, const char *name)
{
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

/* The view's names, or all of it but these. 1: name is one of them. */
static int part_add(struct merge_view *view, bool wants_names, const char *name,
		    struct frame_encoder *enc, uint64_t *refused)
{
	int found = 0;

	for (size_t i = 0; i < merge_view_count(view); i++) {
		struct merge_series sum;
		struct segment_series series;

		if (!merge_view_get(view, i, &sum) || is_name(&sum) != wants_names)
			continue; /* a gauge of nobody: left out, it becomes absent above */
		if (wants_names && name && is_name_of(&sum, name))
			found = 1; /* said already */
		else if (!series_fill(&sum, &series))
			++*refused;
		else if (frame_encoder_series(enc, &series) == -ENOMEM)
			return -ENOMEM; /* then the frame must not go out */
	}
	return found;
}

int tributary_encode(struct merge_view *view, const char *name, struct frame_encoder *enc,
		     uint64_t *refused)
{
	uint64_t before = frame_encoder_refused(enc);
	int r = name ? name_add(enc, name) : 0;

	/* Names first: they must not be what has no room. */
	if (r >= 0)
		r = part_add(view, true, name, enc, refused);
	if (r == 0)
		r = part_add(view, false, name, enc, refused);
	*refused += frame_encoder_refused(enc) - before;
	return r;
}
