/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where things lie in a segment (proto/segment.h), and whether they do: what writer and reader
 * check before they trust a file. Pure.
 */
#pragma once

#include "base/err.h"
#include "metrics.h"
#include "segment.h"

#define SEGMENT_BYTES_MAX (64ULL << 20)

/* Fills the layout fields of h (everything but counts) for these capacities. -EINVAL for none or
 * more histograms than series, -E2BIG beyond SEGMENT_BYTES_MAX. */
int segment_layout_plan(struct segment_header *h, enum segment_kind kind, uint32_t series,
			uint32_t histograms, uint64_t heap_bytes, struct err *e);

/* -EBADMSG unless every region and count of h fits into file_bytes. */
int segment_layout_check(const struct segment_header *h, uint64_t file_bytes, struct err *e);

/* What an entry points into: a copy or a mapping that is as long as the counts say. */
struct segment_view {
	enum segment_kind kind; /* of the file */
	const char *heap;
	uint64_t heap_used;
	uint64_t cells_used;
};

/* A NUL-terminated string of exactly that length lies there. */
bool segment_string_check(const struct segment_view *v, uint32_t offset, uint32_t bytes);

/* Number of key, value pairs of an encoded label set, or -EBADMSG (no final NUL, odd number of
 * strings, an empty key, more than max). */
int segment_labels_check(const char *labels, uint32_t bytes, unsigned int max);

/* The entry is in use and everything that it names is there. */
bool segment_entry_check(const struct segment_view *v, const struct segment_entry *entry);

/* The same but for the labels, which are where they should be; names that are those of `checked`, an
 * entry that was checked before in this view (or all 0), are not looked at again. */
bool segment_entry_check_after(const struct segment_view *v, const struct segment_entry *entry,
			       struct segment_entry *checked);

/* Cells that an entry of this kind occupies: value and, but for gauges and in the file of a process,
 * base. */
uint32_t segment_kind_cells(enum segment_kind file, enum metric_kind kind);
