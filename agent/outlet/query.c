/* SPDX-License-Identifier: Apache-2.0 */
/* Recursive descent over a bounded text. Nodes, matchers and labels are arrays of one block; strings
 * go into a buffer of the lexer's, twice the text and 2 bytes, which they never outgrow. */
#include "outlet/query.h"

#include "outlet/query_lex.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct query {
	struct query_node nodes[QUERY_NODES_MAX];
	struct query_matcher matchers[QUERY_NODES_MAX];
	const char *labels[QUERY_NODES_MAX];
	unsigned int node_count, matcher_count, label_count;
	const struct query_node *root;
	struct query_lex lex;
};

struct parser {
	struct query *q;
	struct query_lex *lex;
	struct err *e;
	unsigned int depth;
};

static int expression(struct parser *p, struct query_node **ret);

static int fail(struct parser *p, const char *what)
{
	return err_set(p->e, -EINVAL, "%s at character %zu", what, query_lex_place(p->lex));
}

static int limit(struct parser *p, const char *what, unsigned int max)
{
	return err_set(p->e, -E2BIG, "more than %u %s", max, what);
}

static int next(struct parser *p)
{
	return query_lex_next(p->lex, p->e);
}

static bool is_at(const struct parser *p, enum query_token token)
{
	return p->lex->token == token;
}

static bool is_word(const struct parser *p, const char *word)
{
	return is_at(p, QUERY_TOKEN_WORD) && strcmp(p->lex->text, word) == 0;
}

static int expect(struct parser *p, enum query_token token, const char *what)
{
	return is_at(p, token) ? next(p) : fail(p, what);
}

static int node_new(struct parser *p, enum query_op op, enum query_type type,
		    struct query_node **ret)
{
	struct query *q = p->q;

	if (q->node_count == QUERY_NODES_MAX)
		return limit(p, "parts", QUERY_NODES_MAX);
	*ret = &q->nodes[q->node_count++];
	**ret = (struct query_node){.op = op, .type = type};
	return 0;
}

/* -------- selectors -------- */

static int matcher_add(struct parser *p, struct query_node *n, const char *label,
		       enum query_match match, const char *value)
{
	struct query *q = p->q;

	if (n->matcher_count == QUERY_MATCHERS_MAX)
		return limit(p, "matchers in one selector", QUERY_MATCHERS_MAX);
	if (q->matcher_count == QUERY_NODES_MAX)
		return limit(p, "matchers", QUERY_NODES_MAX);
	if (!n->matcher_count)
		n->matchers = &q->matchers[q->matcher_count];
	q->matchers[q->matcher_count++] = (struct query_matcher){label, value, match};
	n->matcher_count++;
	return 0;
}

static int matcher(struct parser *p, struct query_node *n)
{
	const char *label = p->lex->text;
	enum query_match match;
	int r;

	if (!is_at(p, QUERY_TOKEN_WORD) || strchr(label, ':'))
		return fail(p, "a label name is missing");
	r = next(p);
	if (r < 0)
		return r;
	if (is_at(p, QUERY_TOKEN_EQUAL))
		match = QUERY_EQUAL;
	else if (is_at(p, QUERY_TOKEN_NOT_EQUAL))
		match = QUERY_NOT_EQUAL;
	else if (is_at(p, QUERY_TOKEN_REGEX))
		match = QUERY_REGEX;
	else if (is_at(p, QUERY_TOKEN_NOT_REGEX))
		match = QUERY_NOT_REGEX;
	else
		return fail(p, "=, !=, =~ or !~ is missing");
	r = next(p);
	if (r < 0)
		return r;
	if (!is_at(p, QUERY_TOKEN_STRING))
		return fail(p, "a quoted value is missing");
	r = matcher_add(p, n, label, match, p->lex->text);
	return r < 0 ? r : next(p);
}

static int matchers(struct parser *p, struct query_node *n)
{
	int r = next(p);

	while (r >= 0 && !is_at(p, QUERY_TOKEN_RIGHT_BRACE)) {
		r = matcher(p, n);
		if (r >= 0 && is_at(p, QUERY_TOKEN_COMMA))
			r = next(p);
		else if (r >= 0 && !is_at(p, QUERY_TOKEN_RIGHT_BRACE))
			r = fail(p, ", or } is missing");
	}
	return r < 0 ? r : next(p);
}

static int range(struct parser *p, struct query_node *n)
{
	int r = next(p);

	if (r < 0)
		return r;
	if (!is_at(p, QUERY_TOKEN_DURATION) || !p->lex->duration_ms)
		return fail(p, "a duration as 5m is missing");
	n->type = QUERY_RANGE;
	n->range_ms = p->lex->duration_ms;
	r = next(p);
	return r < 0 ? r : expect(p, QUERY_TOKEN_RIGHT_BRACKET, "] is missing");
}

/* name: what was read already, NULL before a "{". A selector that any series would pass is refused
 * as Prometheus refuses it: it is a mistake, and it costs the most. */
static int selector(struct parser *p, const char *name, struct query_node **ret)
{
	bool is_narrow = false;
	int r = node_new(p, QUERY_SELECT, QUERY_VECTOR, ret);

	if (r >= 0 && name)
		r = matcher_add(p, *ret, "__name__", QUERY_EQUAL, name);
	if (r >= 0 && is_at(p, QUERY_TOKEN_LEFT_BRACE))
		r = matchers(p, *ret);
	if (r < 0)
		return r;
	for (unsigned int i = 0; i < (*ret)->matcher_count; i++) {
		const struct query_matcher *m = &(*ret)->matchers[i];

		is_narrow = is_narrow || (m->match == QUERY_EQUAL && *m->value) ||
			    (m->match == QUERY_REGEX && strcmp(m->value, ".*") != 0 && *m->value);
	}
	if (!is_narrow)
		return fail(p, "a selector needs a name or a label with a value");
	return is_at(p, QUERY_TOKEN_LEFT_BRACKET) ? range(p, *ret) : 0;
}

/* -------- aggregates and functions -------- */

static const struct {
	const char *name;
	enum query_op op;
	unsigned int arg_count; /* 0: an aggregate */
	enum query_type args[2];
} functions[] = {
	{"rate", QUERY_RATE, 1, {QUERY_RANGE}},
	{"increase", QUERY_INCREASE, 1, {QUERY_RANGE}},
	{"histogram_quantile", QUERY_QUANTILE, 2, {QUERY_SCALAR, QUERY_VECTOR}},
	{"sum", QUERY_SUM, 0, {0}},
	{"avg", QUERY_AVG, 0, {0}},
	{"min", QUERY_MIN, 0, {0}},
	{"max", QUERY_MAX, 0, {0}},
	{"count", QUERY_COUNT, 0, {0}},
};

#define FUNCTIONS (sizeof(functions) / sizeof(functions[0]))

static int type_check(struct parser *p, const struct query_node *n, enum query_type type)
{
	static const char *const wrong[] = {
		[QUERY_SCALAR] = "a number was expected before",
		[QUERY_VECTOR] = "an instant vector (no [range]) was expected before",
		[QUERY_RANGE] = "a range as name[5m] was expected before",
	};

	return n->type == type ? 0 : fail(p, wrong[type]);
}

static int grouping(struct parser *p, struct query_node *n)
{
	struct query *q = p->q;
	int r;

	n->is_without = is_word(p, "without");
	n->labels = &q->labels[q->label_count];
	r = next(p);
	if (r >= 0)
		r = expect(p, QUERY_TOKEN_LEFT, "( is missing");
	while (r >= 0 && !is_at(p, QUERY_TOKEN_RIGHT)) {
		if (!is_at(p, QUERY_TOKEN_WORD))
			return fail(p, "a label name is missing");
		if (n->label_count == QUERY_LABELS_MAX || q->label_count == QUERY_NODES_MAX)
			return limit(p, "labels to group by", QUERY_LABELS_MAX);
		q->labels[q->label_count++] = p->lex->text;
		n->label_count++;
		r = next(p);
		if (r >= 0 && is_at(p, QUERY_TOKEN_COMMA))
			r = next(p);
		else if (r >= 0 && !is_at(p, QUERY_TOKEN_RIGHT))
			r = fail(p, ", or ) is missing");
	}
	return r < 0 ? r : next(p);
}

static bool is_grouping(const struct parser *p)
{
	return is_word(p, "by") || is_word(p, "without");
}

static int aggregate(struct parser *p, enum query_op op, struct query_node **ret)
{
	struct query_node *arg = NULL, *n = NULL;
	bool is_grouped = is_grouping(p);
	int r = node_new(p, op, QUERY_VECTOR, &n);

	if (r >= 0 && is_grouped)
		r = grouping(p, n);
	if (r >= 0)
		r = expect(p, QUERY_TOKEN_LEFT, "( is missing");
	if (r >= 0)
		r = expression(p, &arg);
	if (r >= 0)
		r = type_check(p, arg, QUERY_VECTOR);
	if (r >= 0)
		r = expect(p, QUERY_TOKEN_RIGHT, ") is missing");
	if (r >= 0 && is_grouping(p))
		r = is_grouped ? fail(p, "by or without is there twice") : grouping(p, n);
	if (r < 0)
		return r;
	n->args[0] = arg;
	*ret = n;
	return 0;
}

static int call(struct parser *p, size_t function, struct query_node **ret)
{
	struct query_node *n = NULL;
	int r = node_new(p, functions[function].op, QUERY_VECTOR, &n);

	if (r >= 0)
		r = next(p);
	for (unsigned int i = 0; i < functions[function].arg_count && r >= 0; i++) {
		struct query_node *arg = NULL;

		if (i)
			r = expect(p, QUERY_TOKEN_COMMA, ", is missing");
		if (r >= 0)
			r = expression(p, &arg);
		if (r >= 0)
			r = type_check(p, arg, functions[function].args[i]);
		if (r >= 0)
			n->args[i] = arg;
	}
	if (r >= 0)
		r = expect(p, QUERY_TOKEN_RIGHT, ") is missing");
	if (r >= 0)
		*ret = n;
	return r;
}

static int word(struct parser *p, struct query_node **ret)
{
	const char *name = p->lex->text;
	int r = next(p);

	if (r < 0)
		return r;
	/* A metric may be called as a function is: what follows decides. */
	for (size_t i = 0; i < FUNCTIONS; i++) {
		if (strcmp(name, functions[i].name) != 0)
			continue;
		if (!functions[i].arg_count && (is_at(p, QUERY_TOKEN_LEFT) || is_grouping(p)))
			return aggregate(p, functions[i].op, ret);
		if (functions[i].arg_count && is_at(p, QUERY_TOKEN_LEFT))
			return call(p, i, ret);
	}
	if (is_at(p, QUERY_TOKEN_LEFT))
		return err_set(p->e, -EINVAL, "unknown function with name \"%.64s\"", name);
	return selector(p, name, ret);
}

/* -------- operators -------- */

static int primary(struct parser *p, struct query_node **ret)
{
	int r;

	switch (p->lex->token) {
	case QUERY_TOKEN_NUMBER:
		r = node_new(p, QUERY_NUMBER, QUERY_SCALAR, ret);
		if (r < 0)
			return r;
		(*ret)->number = p->lex->number;
		return next(p);
	case QUERY_TOKEN_LEFT:
		r = next(p);
		if (r >= 0)
			r = expression(p, ret);
		return r < 0 ? r : expect(p, QUERY_TOKEN_RIGHT, ") is missing");
	case QUERY_TOKEN_LEFT_BRACE:
		return selector(p, NULL, ret);
	case QUERY_TOKEN_WORD:
		return word(p, ret);
	default:
		return fail(p, "a metric, function or number is missing");
	}
}

static int factor(struct parser *p, struct query_node **ret)
{
	struct query_node *arg = NULL, *n = NULL;
	int r;

	if (!is_at(p, QUERY_TOKEN_MINUS))
		return primary(p, ret);
	r = next(p);
	if (r >= 0)
		r = primary(p, &arg);
	if (r >= 0 && arg->type == QUERY_RANGE)
		r = fail(p, "a range cannot be negated before");
	if (r >= 0)
		r = node_new(p, QUERY_NEGATE, arg->type, &n);
	if (r < 0)
		return r;
	n->args[0] = arg;
	*ret = n;
	return 0;
}

static bool operator_of(const struct parser *p, bool is_product, enum query_op *ret)
{
	switch (p->lex->token) {
	case QUERY_TOKEN_PLUS:
		*ret = QUERY_ADD;
		return !is_product;
	case QUERY_TOKEN_MINUS:
		*ret = QUERY_SUBTRACT;
		return !is_product;
	case QUERY_TOKEN_STAR:
		*ret = QUERY_MULTIPLY;
		return is_product;
	case QUERY_TOKEN_SLASH:
		*ret = QUERY_DIVIDE;
		return is_product;
	default:
		return false;
	}
}

/* A level of the grammar: operands of the level below, joined from left to right. */
static int chain(struct parser *p, bool is_product, struct query_node **ret)
{
	struct query_node *left = NULL, *right = NULL, *n = NULL;
	enum query_op op;
	int r = is_product ? factor(p, &left) : chain(p, true, &left);

	while (r >= 0 && operator_of(p, is_product, &op)) {
		r = next(p);
		if (r >= 0)
			r = is_product ? factor(p, &right) : chain(p, true, &right);
		if (r >= 0 && (left->type == QUERY_RANGE || right->type == QUERY_RANGE))
			r = fail(p, "a range cannot be calculated with before");
		if (r >= 0)
			r = node_new(p, op, left->type == QUERY_SCALAR ? right->type : QUERY_VECTOR,
				     &n);
		if (r < 0)
			return r;
		n->args[0] = left;
		n->args[1] = right;
		left = n;
	}
	if (r >= 0)
		*ret = left;
	return r;
}

static int expression(struct parser *p, struct query_node **ret)
{
	int r;

	if (p->depth == QUERY_DEPTH_MAX)
		return limit(p, "levels of brackets", QUERY_DEPTH_MAX);
	p->depth++;
	r = chain(p, false, ret);
	p->depth--;
	return r;
}

int query_parse(const char *text, struct query **ret, struct err *e)
{
	struct query_node *root = NULL;
	struct query *q;
	struct parser p = {.e = e};
	int r;

	if (strlen(text) > QUERY_TEXT_MAX)
		return err_set(e, -E2BIG, "a query of more than %u bytes", QUERY_TEXT_MAX);
	q = calloc(1, sizeof(*q));
	if (!q)
		return -ENOMEM;
	p.q = q;
	p.lex = &q->lex;
	r = query_lex_init(&q->lex, text);
	if (r >= 0)
		r = next(&p);
	if (r >= 0)
		r = expression(&p, &root);
	if (r >= 0 && !is_at(&p, QUERY_TOKEN_END))
		r = fail(&p, "the query should have ended");
	if (r < 0) {
		query_free(q);
		return r;
	}
	q->root = root;
	*ret = q;
	return 0;
}

struct query *query_free(struct query *q)
{
	if (q)
		query_lex_fini(&q->lex);
	free(q);
	return NULL;
}

const struct query_node *query_root(const struct query *q)
{
	return q->root;
}
