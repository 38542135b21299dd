/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Adding what a dead process left to the bases of app.seg, exactly once even when the writer dies in
 * the middle: each addition is written down as an assignment (header fold_*) before it is made, so
 * that making it again changes nothing. Memory only.
 */
#pragma once

#include "segment.h"

struct fold {
	struct segment_header *h;
	uint64_t *cells; /* of app.seg */
	uint64_t done;   /* additions below this number */
};

/* Begins, or goes on where a dead writer stood in this life. Additions are numbered from 0 in an
 * order that depends on the dead file alone. */
void fold_begin(struct fold *f, struct segment_header *h, uint64_t *cells, uint64_t life);
/* The addition number `n`: cells[cell] += by. Skipped when it was done. */
void fold_add(struct fold *f, uint64_t n, uint64_t cell, uint64_t by);
/* The dead file is gone. */
void fold_end(struct fold *f);
