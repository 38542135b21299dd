/* SPDX-License-Identifier: Apache-2.0 */
/* The writer from inside: shared by writer.c (structure) and writer_values.c (values). */
#pragma once

#include "segment/file.h"
#include "segment/writer.h"

#define WRITER_MAGIC 0x53475752u

struct interned {
	uint32_t offset, bytes; /* bytes: with the final NUL; 0: empty place */
};

struct segment_writer {
	uint32_t magic;
	struct segment_file file;
	struct segment_header *h;
	struct segment_gateway *gateways;
	struct segment_entry *directory;
	char *heap;
	uint64_t *cells;
	uint32_t histograms, histograms_max;
	unsigned int change_depth;
	bool is_ticking;
	uint32_t *series_index; /* open addressing: entry + 1, 0 empty */
	struct interned *strings;
	uint32_t series_mask, strings_mask;
};

/* Relaxed, whole: order comes from the two sequence numbers alone. */
#define STORE(field, value) __atomic_store_n(&(field), (value), __ATOMIC_RELAXED)

/* Regions of the mapping, which is another one now. */
void segment_writer_point(struct segment_writer *w, const struct segment_header *layout);
int segment_writer_life_new(uint64_t *ret, struct err *e);
