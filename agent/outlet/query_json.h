/* SPDX-License-Identifier: Apache-2.0 */
/* Answers of the query API as Prometheus's HTTP API v1 writes them; and the times that it reads. Pure. */
#pragma once

#include "outlet/query_eval.h"

/* Each appends one object. -E2BIG beyond the limit of out. */
int query_json_answer(struct strbuf *out, const struct matrix *m, enum query_type type,
		      const struct query_times *times, bool is_range);
int query_json_error(struct strbuf *out, const char *type, const char *text);
/* A list item by item: begin, strings or label sets with is_first for the first, end. */
void query_json_begin(struct strbuf *out);
void query_json_string(struct strbuf *out, const char *s);
void query_json_labels(struct strbuf *out, const struct segment_label *labels, size_t n);
int query_json_end(struct strbuf *out);

/* Unix seconds ("1700000000.5") or RFC 3339 ("2026-01-02T03:04:05Z"). -EINVAL. */
int query_time(const char *text, uint64_t *ret_ms);
