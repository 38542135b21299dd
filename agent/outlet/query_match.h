/* SPDX-License-Identifier: Apache-2.0 */
/* Whether a series is meant by a selector. Pure. */
#pragma once

#include "outlet/query.h"
#include "segment/reader.h"

struct query_filter;

/* Of a node of QUERY_SELECT, which it borrows. -EINVAL, -E2BIG: a pattern, e says which. */
int query_filter_new(const struct query_node *selector, struct query_filter **ret, struct err *e);
struct query_filter *query_filter_free(struct query_filter *f);

bool query_filter_name(const struct query_filter *f, const char *name);
/* A label that is not there matches as an empty one. */
bool query_filter_labels(const struct query_filter *f, const struct segment_label *labels,
			 size_t n);
