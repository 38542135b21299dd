/* SPDX-License-Identifier: Apache-2.0 */
/* Values of many series at the same steps: what parts of a query come to. Pure. */
#pragma once

#include "segment/reader.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MATRIX_VALUES_MAX (8u << 20)
#define MATRIX_LABELS_MAX 24u
#define MATRIX_BYTES_MAX  (256u << 20) /* labels too: an instant has many series of one value */

struct matrix_series {
	unsigned int label_count;
	struct segment_label labels[MATRIX_LABELS_MAX]; /* by key; __name__ is one */
	double *values;   /* by step; matrix_none() where there is none */
	uint32_t *counts; /* of what was added up; NULL until asked */
	char *text;       /* what labels point to */
	uint64_t hash;
};

struct matrix {
	size_t steps, count, capacity;
	struct matrix_series **series;
	uint32_t *index; /* open addressing: series + 1 */
	size_t index_mask;
	size_t values_max;
	size_t bytes;   /* that its series take */
	size_t *shared; /* what matrices of one query take together; NULL: it is alone */
};

double matrix_none(void);
bool matrix_is_none(double v);

void matrix_init(struct matrix *m, size_t steps);
void matrix_fini(struct matrix *m);
void matrix_reset(struct matrix *m);
/* Finds or makes the series of these labels (by key, none empty). *ret_is_new: made, without
 * values. -E2BIG beyond MATRIX_VALUES_MAX or
 * MATRIX_BYTES_MAX, -ENOMEM. */
int matrix_find(struct matrix *m, const struct segment_label *labels, unsigned int n,
		struct matrix_series **ret, bool *ret_is_new);
/* NULL: there is none. */
struct matrix_series *matrix_lookup(const struct matrix *m, const struct segment_label *labels,
				    unsigned int n);
/* Room for counts, all 0. */
int matrix_count(struct matrix *m, struct matrix_series *s);
/* By labels, for output that is the same every time. */
void matrix_sort(struct matrix *m);
