/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The query language of /api/v1/query: the part of Prometheus's that series of this project need.
 * Pure: text in, checked tree out. Whatever is not in the subset is an error that names it, never
 * something that looks like an answer.
 *
 *   expr     = term { ("+" | "-") term }            term = factor { ("*" | "/") factor }
 *   factor   = [ "-" ] ( number | "(" expr ")" | aggregate | call | selector )
 *   call     = ("rate" | "increase") "(" selector "[" duration "]" ")"
 *            | "histogram_quantile" "(" expr "," expr ")"
 *   aggregate = ("sum" | "avg" | "min" | "max" | "count") [ grouping ] "(" expr ")" [ grouping ]
 *   grouping = ("by" | "without") "(" [ label { "," label } ] ")"
 *   selector = name [ "{" matchers "}" ] | "{" matchers "}"
 *   matcher  = label ("=" | "!=" | "=~" | "!~") string
 */
#pragma once

#include "base/err.h"
#include "base/str.h"

#include <stdbool.h>
#include <stdint.h>

#define QUERY_TEXT_MAX     4096u
#define QUERY_NODES_MAX    64u
#define QUERY_DEPTH_MAX    16u
#define QUERY_MATCHERS_MAX 16u
#define QUERY_LABELS_MAX   16u
#define QUERY_RANGE_MAX_MS (400ull * 24 * 3600 * 1000)

enum query_match { QUERY_EQUAL, QUERY_NOT_EQUAL, QUERY_REGEX, QUERY_NOT_REGEX };

enum query_type { QUERY_SCALAR, QUERY_VECTOR, QUERY_RANGE };

enum query_op {
	QUERY_NUMBER,
	QUERY_SELECT,
	QUERY_NEGATE,
	QUERY_ADD,
	QUERY_SUBTRACT,
	QUERY_MULTIPLY,
	QUERY_DIVIDE,
	QUERY_RATE,
	QUERY_INCREASE,
	QUERY_QUANTILE,
	QUERY_SUM,
	QUERY_AVG,
	QUERY_MIN,
	QUERY_MAX,
	QUERY_COUNT,
};

struct query_matcher {
	const char *label, *value;
	enum query_match match;
};

/* Strings are the query's and live as long as it. */
struct query_node {
	enum query_op op;
	enum query_type type;
	const struct query_node *args[2]; /* in order; NULL: none */
	double number;                    /* QUERY_NUMBER */
	uint64_t range_ms;                /* QUERY_SELECT of type QUERY_RANGE */
	unsigned int matcher_count;       /* QUERY_SELECT; the name is a matcher of __name__ */
	const struct query_matcher *matchers;
	bool is_without; /* aggregates */
	unsigned int label_count;
	const char *const *labels;
};

struct query;

/* -EINVAL: e says what is wrong and where; -E2BIG: a limit above, e says which; -ENOMEM. */
int query_parse(const char *text, struct query **ret, struct err *e);
struct query *query_free(struct query *q);
const struct query_node *query_root(const struct query *q);

/* "15s", "1h30m", "250ms", or seconds as a number ("15", "0.5"): what start, step and timeout are
 * written in. -EINVAL; -ERANGE above QUERY_RANGE_MAX_MS. */
int query_duration(const char *text, uint64_t *ret_ms);
