/* SPDX-License-Identifier: Apache-2.0 */
/* Plans and checks the layout of segments. Pure; used by the writer's and the readers' process. */
#include "segment/layout.h"

#include "segment/reader.h"

#include <errno.h>
#include <string.h>

#define CELLS_ALIGN 64

uint32_t segment_kind_cells(enum segment_kind file, enum metric_kind kind)
{
	const uint32_t runs = file == SEGMENT_PROCESS ? 1 : 2;

	switch (kind) {
	case METRIC_COUNTER:
		return runs;
	case METRIC_GAUGE:
		return 1;
	case METRIC_HISTOGRAM:
		return runs * HIST_CELLS;
	}
	return 0;
}

int segment_layout_plan(struct segment_header *h, enum segment_kind kind, uint32_t series,
			uint32_t histograms, uint64_t heap_bytes, struct err *e)
{
	uint64_t at = SEGMENT_HEADER_BYTES, cells;

	if (!series || histograms > series || !heap_bytes)
		return err_set(e, -EINVAL,
			       "segment for %u series, %u histograms, %llu bytes of names: no such "
			       "shape",
			       series, histograms, (unsigned long long)heap_bytes);
	if (heap_bytes > SEGMENT_BYTES_MAX)
		return err_set(e, -E2BIG, "segment with %llu bytes of names: the limit is %llu",
			       (unsigned long long)heap_bytes,
			       (unsigned long long)SEGMENT_BYTES_MAX);
	h->magic = SEGMENT_MAGIC;
	h->version = SEGMENT_VERSION;
	h->header_bytes = SEGMENT_HEADER_BYTES;
	h->endian = SEGMENT_ENDIAN;
	h->kind = kind;
	h->hist_cells = HIST_CELLS;
	h->gateways_offset = at;
	h->gateways_capacity = kind == SEGMENT_PROCESS ? 0 : SEGMENT_GATEWAYS;
	at += sizeof(struct segment_gateway) * h->gateways_capacity;
	h->thresholds_offset = at;
	at += sizeof(uint64_t) * HIST_THRESHOLDS;
	h->directory_offset = at;
	h->directory_capacity = series;
	at += sizeof(struct segment_entry) * (uint64_t)series;
	h->heap_offset = at;
	h->heap_capacity = (heap_bytes + 7) & ~7ULL;
	at += h->heap_capacity;
	at = (at + CELLS_ALIGN - 1) & ~(uint64_t)(CELLS_ALIGN - 1);
	cells = (uint64_t)histograms * segment_kind_cells(kind, METRIC_HISTOGRAM) +
		(uint64_t)(series - histograms) * segment_kind_cells(kind, METRIC_COUNTER);
	h->cells_offset = at;
	h->cells_capacity = cells;
	h->total_bytes = at + cells * sizeof(uint64_t);
	if (h->total_bytes > SEGMENT_BYTES_MAX)
		return err_set(e, -E2BIG,
			       "segment for %u series, %u of them histograms, needs %llu bytes: "
			       "the limit is %llu; allow fewer series",
			       series, histograms, (unsigned long long)h->total_bytes,
			       (unsigned long long)SEGMENT_BYTES_MAX);
	return 0;
}

/* Whether count records of that size at offset lie behind the header and within total. */
static bool region_fits(uint64_t offset, uint64_t count, uint64_t size, uint64_t total)
{
	if (offset % sizeof(uint64_t) || offset < SEGMENT_HEADER_BYTES || offset > total)
		return false;
	return count <= (total - offset) / size;
}

int segment_layout_check(const struct segment_header *h, uint64_t file_bytes, struct err *e)
{
	uint64_t total = h->total_bytes;

	if (h->magic != SEGMENT_MAGIC)
		return err_set(e, -EBADMSG, "not a segment (no magic number)");
	if (h->endian != SEGMENT_ENDIAN)
		return err_set(e, -EBADMSG, "segment of the other byte order");
	if (h->version != SEGMENT_VERSION)
		return err_set(e, -EBADMSG, "segment of version %u, this program knows %u",
			       h->version, SEGMENT_VERSION);
	if (h->hist_cells != HIST_CELLS)
		return err_set(e, -EBADMSG, "histograms of %u cells, this program knows %u",
			       h->hist_cells, HIST_CELLS);
	if (h->kind < SEGMENT_HOST || h->kind > SEGMENT_PROCESS)
		return err_set(e, -EBADMSG, "segment of unknown kind %u", h->kind);
	if (h->header_bytes != SEGMENT_HEADER_BYTES || total < SEGMENT_HEADER_BYTES ||
	    total > file_bytes || total > SEGMENT_BYTES_MAX)
		return err_set(e, -EBADMSG, "damaged segment: %llu bytes in a file of %llu",
			       (unsigned long long)total, (unsigned long long)file_bytes);
	if (h->gateways_capacity > SEGMENT_GATEWAYS || h->gateways_count > h->gateways_capacity ||
	    !region_fits(h->gateways_offset, h->gateways_capacity, sizeof(struct segment_gateway),
			 total))
		return err_set(e, -EBADMSG, "damaged segment: gateway records out of bounds");
	if (!region_fits(h->thresholds_offset, HIST_THRESHOLDS, sizeof(uint64_t), total))
		return err_set(e, -EBADMSG, "damaged segment: thresholds out of bounds");
	if (h->directory_count > h->directory_capacity ||
	    !region_fits(h->directory_offset, h->directory_capacity, sizeof(struct segment_entry),
			 total))
		return err_set(e, -EBADMSG, "damaged segment: directory out of bounds");
	if (h->heap_used > h->heap_capacity ||
	    !region_fits(h->heap_offset, h->heap_capacity, 1, total))
		return err_set(e, -EBADMSG, "damaged segment: heap out of bounds");
	if (h->cells_used > h->cells_capacity ||
	    !region_fits(h->cells_offset, h->cells_capacity, sizeof(uint64_t), total))
		return err_set(e, -EBADMSG, "damaged segment: cells out of bounds");
	return 0;
}

bool segment_string_check(const struct segment_view *v, uint32_t offset, uint32_t bytes)
{
	if (offset >= v->heap_used || bytes >= v->heap_used - offset)
		return false;
	return memchr(v->heap + offset, '\0', (size_t)bytes + 1) == v->heap + offset + bytes;
}

int segment_labels_check(const char *labels, uint32_t bytes, unsigned int max)
{
	unsigned int strings = 0;
	uint32_t at = 0;

	while (at < bytes) {
		const char *end = memchr(labels + at, '\0', bytes - at);

		if (!end)
			return -EBADMSG;
		if (strings % 2 == 0 && end == labels + at)
			return -EBADMSG;
		if (++strings > 2 * max)
			return -EBADMSG;
		at = (uint32_t)(end - labels) + 1;
	}
	return strings % 2 ? -EBADMSG : (int)(strings / 2);
}

static bool shape_check(const struct segment_view *v, const struct segment_entry *entry)
{
	uint32_t want, run;

	if (entry->state != SEGMENT_ENTRY_PRESENT && entry->state != SEGMENT_ENTRY_ABSENT)
		return false;
	if (entry->kind > METRIC_HISTOGRAM || entry->merge > METRIC_LAST ||
	    entry->scope > METRIC_AGENT)
		return false;
	want = entry->kind == METRIC_HISTOGRAM ? HIST_CELLS : 1;
	run = segment_kind_cells(v->kind, entry->kind);
	if (entry->cell_count != want || run > v->cells_used ||
	    entry->value_cell > v->cells_used - run)
		return false;
	/* labels_bytes counts the NUL of the last value, so nothing follows it. */
	return entry->labels_bytes <= v->heap_used &&
	       entry->labels_offset <= v->heap_used - entry->labels_bytes;
}

static bool names_check(const struct segment_view *v, const struct segment_entry *entry)
{
	return entry->name_bytes &&
	       segment_string_check(v, entry->name_offset, entry->name_bytes) &&
	       segment_string_check(v, entry->unit_offset, entry->unit_bytes) &&
	       segment_string_check(v, entry->help_offset, entry->help_bytes);
}

bool segment_entry_check(const struct segment_view *v, const struct segment_entry *entry)
{
	return shape_check(v, entry) && names_check(v, entry) &&
	       segment_labels_check(v->heap + entry->labels_offset, entry->labels_bytes,
				    SEGMENT_LABELS_MAX) >= 0;
}

bool segment_entry_check_after(const struct segment_view *v, const struct segment_entry *entry,
			       struct segment_entry *checked)
{
	const size_t at = offsetof(struct segment_entry, name_offset);
	const size_t bytes = offsetof(struct segment_entry, labels_offset) - at;

	if (!shape_check(v, entry) || !entry->name_bytes)
		return false;
	if (memcmp((const char *)checked + at, (const char *)entry + at, bytes) == 0)
		return true;
	checked->name_bytes = 0;
	if (!names_check(v, entry))
		return false;
	*checked = *entry;
	return true;
}
