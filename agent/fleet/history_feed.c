/* SPDX-License-Identifier: Apache-2.0 */
#include "fleet/history_feed.h"

#include "fleet/merge.h"
#include "fleet/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(HISTORY_LABELS_MAX >= MERGE_LABELS_MAX, "labels of an instance");

static int compare(const void *a, const void *b)
{
	const struct segment_label *x = a, *y = b;

	return strcmp(x->key, y->key);
}

static bool pack_definition(const struct fleet *f, uint32_t session, uint32_t id, struct pack *out)
{
	const struct metric_desc *desc;
	struct merge_series s;

	if (!merge_describe(f, session, id, &s))
		return false;
	/* Catalogue metrics travel without their texts. */
	desc = metric_find(s.name);
	qsort(s.labels, s.label_count, sizeof(s.labels[0]), compare);
	pack_u64(out, id);
	pack_text(out, s.name);
	pack_text(out, *s.unit || !desc ? s.unit : desc->unit);
	pack_text(out, *s.help || !desc ? s.help : desc->help);
	pack_u64(out, s.kind);
	pack_u64(out, s.label_count);
	for (unsigned int i = 0; i < s.label_count; i++) {
		pack_text(out, s.labels[i].key);
		pack_text(out, s.labels[i].value);
	}
	return true;
}

int history_feed_pack(const struct fleet *f, const struct fleet_incarnation *inc,
		      const struct frame *defined, struct pack *out)
{
	struct pack list = {0};
	uint64_t count = 0;

	for (size_t i = 0; defined && i < defined->definition_count; i++)
		count += pack_definition(f, inc->session, defined->definitions[i].id, &list);
	for (uint32_t i = 0; !defined && i < inc->id_count; i++)
		count += pack_definition(f, inc->session, inc->ids[i].id, &list);
	pack_text(out, inc->agent->id);
	pack_bytes(out, inc->id, FRAME_INCARNATION_BYTES);
	pack_u64(out, count);
	if (list.size)
		pack_bytes(out, list.data, list.size);
	out->has_failed = out->has_failed || list.has_failed;
	pack_fini(&list);
	return out->has_failed ? -ENOMEM : 0;
}

int history_feed_read(const uint8_t *data, size_t size, struct history_feed *ret)
{
	struct unpack *u = &ret->rest;

	unpack_init(u, data, size);
	ret->agent = unpack_text(u);
	ret->incarnation = unpack_bytes(u, FRAME_INCARNATION_BYTES);
	ret->count = unpack_u64_max(u, FLEET_IDS_MAX);
	return u->is_bad ? -EBADMSG : 0;
}

int history_feed_next(struct history_feed *feed, struct history_definition *ret)
{
	struct unpack *u = &feed->rest;

	ret->id = (uint32_t)unpack_u64_max(u, FRAME_ID_MAX);
	ret->name = unpack_text(u);
	ret->unit = unpack_text(u);
	ret->help = unpack_text(u);
	ret->kind = (enum metric_kind)unpack_u64_max(u, METRIC_HISTOGRAM);
	ret->label_count = (unsigned int)unpack_u64_max(u, HISTORY_LABELS_MAX);
	for (unsigned int i = 0; i < ret->label_count; i++) {
		ret->labels[i].key = unpack_text(u);
		ret->labels[i].value = unpack_text(u);
	}
	return u->is_bad ? -EBADMSG : 0;
}
