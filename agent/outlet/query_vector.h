/* SPDX-License-Identifier: Apache-2.0 */
/* What nodes of a query calculate from what their arguments came to. query_eval.c's. */
#pragma once

#include "outlet/query_eval.h"

struct query_eval {
	const struct query_times *times;
	const struct query_source *source;
	struct err *e;
	size_t bytes; /* of all matrices that it has in hand */
};

uint64_t query_time_ms(const struct query_times *t, size_t step);
/* A matrix that counts among those of the query. */
void query_matrix_init(struct query_eval *q, struct matrix *m);
/* Begins *out, also when it fails: the caller's to fini. */
int query_node_eval(struct query_eval *q, const struct query_node *n, struct matrix *out);
/* As matrix_find, and says what is too large. */
int query_matrix_find(struct query_eval *q, struct matrix *m, const struct segment_label *labels,
		      unsigned int n, struct matrix_series **ret, bool *ret_is_new);

/* query_vector.c: into a matrix that is begun. */
int query_operator_eval(struct query_eval *q, const struct query_node *n, struct matrix *out);
int query_quantile_eval(struct query_eval *q, const struct query_node *n, struct matrix *out);
