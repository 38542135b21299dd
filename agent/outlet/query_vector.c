/* SPDX-License-Identifier: Apache-2.0 */
#include "outlet/query_vector.h"

#include "outlet/query_math.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

#define NAME "__name__"
#define LE   "le"

static double calculate(enum query_op op, double a, double b)
{
	if (matrix_is_none(a) || matrix_is_none(b))
		return matrix_none();
	switch (op) {
	case QUERY_ADD:
		return a + b;
	case QUERY_SUBTRACT:
		return a - b;
	case QUERY_MULTIPLY:
		return a * b;
	case QUERY_DIVIDE:
		return a / b;
	default:
		return matrix_none();
	}
}

/* Labels but for one or two; how many. */
static unsigned int labels_without(const struct matrix_series *s, const char *one, const char *two,
				   struct segment_label *ret)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < s->label_count; i++)
		if (!str_equal(s->labels[i].key, one) && !(two && str_equal(s->labels[i].key, two)))
			ret[n++] = s->labels[i];
	return n;
}

static int same_twice(struct query_eval *q)
{
	return err_set(q->e, -EINVAL,
		       "found duplicate series for the match group: two series differ only in "
		       "their names");
}

/* A series without its name; it must be the first of these labels. */
static int unnamed(struct query_eval *q, struct matrix *out, const struct matrix_series *s,
		   struct matrix_series **ret)
{
	struct segment_label labels[MATRIX_LABELS_MAX];
	unsigned int n = labels_without(s, NAME, NULL, labels);
	bool is_new;
	int r = query_matrix_find(q, out, labels, n, ret, &is_new);

	return r >= 0 && !is_new ? same_twice(q) : r;
}

/* Vectors are matched one to one, on all labels but the name. */
static int vectors(struct query_eval *q, enum query_op op, const struct matrix *a,
		   const struct matrix *b, struct matrix *out)
{
	struct matrix right;
	struct matrix_series *to;
	int r = 0;

	query_matrix_init(q, &right);
	for (size_t i = 0; i < b->count && r >= 0; i++) {
		r = unnamed(q, &right, b->series[i], &to);
		for (size_t k = 0; k < q->times->steps && r >= 0; k++)
			to->values[k] = b->series[i]->values[k];
	}
	for (size_t i = 0; i < a->count && r >= 0; i++) {
		struct segment_label labels[MATRIX_LABELS_MAX];
		unsigned int n = labels_without(a->series[i], NAME, NULL, labels);
		const struct matrix_series *other = matrix_lookup(&right, labels, n);

		if (!other)
			continue;
		r = unnamed(q, out, a->series[i], &to);
		for (size_t k = 0; k < q->times->steps && r >= 0; k++)
			to->values[k] = calculate(op, a->series[i]->values[k], other->values[k]);
	}
	matrix_fini(&right);
	return r;
}

static int with_scalar(struct query_eval *q, enum query_op op, const struct matrix *vector,
		       const struct matrix *scalar, bool is_left, struct matrix *out)
{
	int r = 0;

	for (size_t i = 0; i < vector->count && r >= 0; i++) {
		const double *v = vector->series[i]->values, *s = scalar->series[0]->values;
		struct matrix_series *to;

		r = unnamed(q, out, vector->series[i], &to);
		for (size_t k = 0; k < q->times->steps && r >= 0; k++)
			to->values[k] =
				is_left ? calculate(op, s[k], v[k]) : calculate(op, v[k], s[k]);
	}
	return r;
}

static int negate(struct query_eval *q, const struct matrix *a, struct matrix *out)
{
	int r = 0;

	for (size_t i = 0; i < a->count && r >= 0; i++) {
		struct matrix_series *to;

		r = unnamed(q, out, a->series[i], &to);
		for (size_t k = 0; k < q->times->steps && r >= 0; k++)
			to->values[k] = matrix_is_none(a->series[i]->values[k])
						? matrix_none()
						: -a->series[i]->values[k];
	}
	return r;
}

int query_operator_eval(struct query_eval *q, const struct query_node *n, struct matrix *out)
{
	struct matrix a, b = {0};
	int r = query_node_eval(q, n->args[0], &a);

	if (r >= 0 && n->args[1])
		r = query_node_eval(q, n->args[1], &b);
	if (r < 0)
		; /* e says why */
	else if (!n->args[1])
		r = negate(q, &a, out);
	else if (n->args[1]->type == QUERY_SCALAR)
		r = with_scalar(q, n->op, &a, &b, false, out);
	else if (n->args[0]->type == QUERY_SCALAR)
		r = with_scalar(q, n->op, &b, &a, true, out);
	else
		r = vectors(q, n->op, &a, &b, out);
	matrix_fini(&a);
	matrix_fini(&b);
	return r;
}

/* -------- quantiles -------- */

struct part {
	struct matrix_series *to; /* of its labels without le */
	const struct matrix_series *from;
	double le;
};

static bool le_of(const struct matrix_series *s, double *ret)
{
	for (unsigned int i = 0; i < s->label_count; i++) {
		char *end;

		if (!str_equal(s->labels[i].key, LE))
			continue;
		*ret = strtod(s->labels[i].value, &end);
		return *s->labels[i].value && !*end;
	}
	return false;
}

/* The n parts of one histogram. */
static void histogram_at(const struct part *parts, size_t n, size_t step, double q,
			 struct query_bucket *buckets)
{
	size_t count = 0;

	for (size_t i = 0; i < n; i++)
		if (!matrix_is_none(parts[i].from->values[step]))
			buckets[count++] =
				(struct query_bucket){parts[i].le, parts[i].from->values[step]};
	if (count)
		parts[0].to->values[step] = query_quantile(q, buckets, count);
}

static int compare_parts(const void *a, const void *b)
{
	const struct part *x = a, *y = b;

	return ((uintptr_t)x->to > (uintptr_t)y->to) - ((uintptr_t)x->to < (uintptr_t)y->to);
}

/* Series without a le are no buckets. */
static int parts_find(struct query_eval *q, const struct matrix *args, struct matrix *out,
		      struct part *parts, size_t *ret_count)
{
	int r = 0;

	*ret_count = 0;
	for (size_t i = 0; i < args->count && r >= 0; i++) {
		struct segment_label labels[MATRIX_LABELS_MAX];
		struct part *part = &parts[*ret_count];
		unsigned int n = labels_without(args->series[i], NAME, LE, labels);
		bool is_new;

		if (!le_of(args->series[i], &part->le))
			continue;
		part->from = args->series[i];
		r = query_matrix_find(q, out, labels, n, &part->to, &is_new);
		++*ret_count;
	}
	return r;
}

static int groups_eval(struct query_eval *q, const struct matrix *args, const double *quantiles,
		       struct matrix *out)
{
	struct part *parts = calloc(args->count + 1, sizeof(*parts));
	struct query_bucket *buckets = calloc(args->count + 1, sizeof(*buckets));
	int r = parts && buckets ? 0 : -ENOMEM;
	size_t count = 0;

	if (r >= 0)
		r = parts_find(q, args, out, parts, &count);
	if (count && r >= 0)
		qsort(parts, count, sizeof(*parts), compare_parts);
	for (size_t i = 0; i < count && r >= 0;) {
		size_t n = 1;

		while (i + n < count && parts[i + n].to == parts[i].to)
			n++;
		for (size_t k = 0; k < q->times->steps; k++)
			histogram_at(parts + i, n, k, quantiles[k], buckets);
		i += n;
	}
	free(parts);
	free(buckets);
	return r;
}

int query_quantile_eval(struct query_eval *q, const struct query_node *n, struct matrix *out)
{
	struct matrix quantile, args = {0};
	int r = query_node_eval(q, n->args[0], &quantile);

	if (r >= 0)
		r = query_node_eval(q, n->args[1], &args);
	if (r >= 0)
		r = groups_eval(q, &args, quantile.series[0]->values, out);
	matrix_fini(&quantile);
	matrix_fini(&args);
	return r;
}
