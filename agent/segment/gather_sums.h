/* SPDX-License-Identifier: Apache-2.0 */
/* What the series of app.seg are told in one tick: sums over files. Used by gather.c alone. */
#pragma once

#include "segment/gather_file.h"
#include "segment/writer.h"

struct gather_sums;

int gather_sums_new(struct gather_sums **ret);
struct gather_sums *gather_sums_free(struct gather_sums *s);

/* A place for the series of this index in app.seg; may be called again. -ENOMEM. */
int gather_sums_add(struct gather_sums *s, int index, enum metric_kind kind,
		    enum metric_merge merge);

/* All sums are 0 and untold. */
void gather_sums_begin(struct gather_sums *s);
/* Adds what a file tells; cells are its f->h.cells_used cells. */
void gather_sums_file(struct gather_sums *s, const struct gather_file *f, const uint64_t *cells);
/* Inside a tick. */
void gather_sums_write(const struct gather_sums *s, struct segment_writer *w);
