/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A query over stored series, at one time or at many. Pure: series come from a source, owner after
 * owner, and are forgotten once their values at the steps are known; so memory is that of the
 * answer (and of one owner's series), however many series a sum is made of.
 */
#pragma once

#include "base/point.h"
#include "outlet/matrix.h"
#include "outlet/query_match.h"

#define QUERY_STEPS_MAX 11000u /* as Prometheus */

struct query_series {
	const char *owner, *name;
	const struct segment_label *labels; /* by key */
	size_t label_count;
	const struct point *points; /* by time */
	size_t point_count;
};

struct query_selection {
	const struct query_filter *filter;
	uint64_t from_ms, to_ms; /* of points that are needed */
	bool may_thin;           /* one a minute is enough */
};

typedef int (*query_series_fn)(void *data, const struct query_series *series);

struct query_source {
	/* Gives series of the selection, those of one owner together. A negative answer of fn ends
	 * it and is returned. e says why it failed. */
	int (*select)(void *data, const struct query_selection *what, query_series_fn fn,
		      void *fn_data, struct err *e);
	void *data;
	/* Asked now and then; NULL: never over. */
	bool (*is_over)(void *data);
};

struct query_times {
	uint64_t start_ms, step_ms; /* step 0: one time */
	size_t steps;
	uint64_t lookback_ms;
};

/* -E2BIG beyond QUERY_STEPS_MAX, -EINVAL; e says which. */
int query_times_set(uint64_t start_ms, uint64_t end_ms, uint64_t step_ms, uint64_t lookback_ms,
		    struct query_times *ret, struct err *e);

/* A scalar is one series without labels. -EINVAL: what the query asks makes no sense (two series
 * of the same labels), -E2BIG: a limit; -ETIMEDOUT: is_over said so; and what the source says. */
int query_eval(const struct query_node *root, const struct query_times *times,
	       const struct query_source *source, struct matrix *ret, struct err *e);
