/* SPDX-License-Identifier: Apache-2.0 */
/* The leaves of the tree (selectors, rates) and aggregates, which take a leaf's series as they
 * come; operators and quantiles are query_vector.c's. */
#include "outlet/query_eval.h"

#include "outlet/query_math.h"
#include "outlet/query_vector.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#define NAME       "__name__"
#define MINUTE_MS  60000u
#define ASK_STEPS  16              /* between questions whether it is over */
#define THIN_LEAST (2 * MINUTE_MS) /* a range that holds two minutes' ends, mostly */

int query_times_set(uint64_t start_ms, uint64_t end_ms, uint64_t step_ms, uint64_t lookback_ms,
		    struct query_times *ret, struct err *e)
{
	if (end_ms < start_ms)
		return err_set(e, -EINVAL, "end timestamp must not be before start time");
	if (end_ms > start_ms && !step_ms)
		return err_set(e, -EINVAL,
			       "zero or negative query resolution step widths are not accepted. "
			       "Try a positive integer");
	if (step_ms && (end_ms - start_ms) / step_ms >= QUERY_STEPS_MAX)
		return err_set(e, -E2BIG,
			       "exceeded maximum resolution of %u points per timeseries. Try "
			       "decreasing the query resolution (?step=XX)",
			       QUERY_STEPS_MAX);
	*ret = (struct query_times){
		.start_ms = start_ms,
		.step_ms = step_ms,
		.steps = step_ms ? (size_t)((end_ms - start_ms) / step_ms) + 1 : 1,
		.lookback_ms = lookback_ms,
	};
	return 0;
}

uint64_t query_time_ms(const struct query_times *t, size_t step)
{
	return t->start_ms + step * t->step_ms;
}

static int too_large(struct query_eval *q, int r)
{
	if (r != -E2BIG)
		return r;
	return err_set(q->e, r,
		       "the query needs more than %u values or %u MiB; ask for fewer series or a "
		       "longer step",
		       MATRIX_VALUES_MAX, MATRIX_BYTES_MAX >> 20);
}

void query_matrix_init(struct query_eval *q, struct matrix *m)
{
	matrix_init(m, q->times->steps);
	m->shared = &q->bytes;
}

int query_matrix_find(struct query_eval *q, struct matrix *m, const struct segment_label *labels,
		      unsigned int n, struct matrix_series **ret, bool *ret_is_new)
{
	return too_large(q, matrix_find(m, labels, n, ret, ret_is_new));
}

/* -------- aggregates -------- */

static bool is_kept(const struct query_node *n, const char *label)
{
	bool is_listed = false;

	for (unsigned int i = 0; i < n->label_count; i++)
		is_listed = is_listed || str_equal(n->labels[i], label);
	return n->is_without ? !is_listed && !str_equal(label, NAME) : is_listed;
}

static void aggregate_value(enum query_op op, double *to, uint32_t count, double v)
{
	bool is_first = count == 0;

	switch (op) {
	case QUERY_MIN:
		*to = is_first || v < *to || isnan(*to) ? v : *to;
		break;
	case QUERY_MAX:
		*to = is_first || v > *to || isnan(*to) ? v : *to;
		break;
	case QUERY_COUNT:
		*to = count + 1;
		break;
	default:
		*to = is_first ? v : *to + v;
	}
}

static int aggregate_add(struct query_eval *q, const struct query_node *n, struct matrix *out,
			 const struct matrix_series *s)
{
	struct segment_label labels[MATRIX_LABELS_MAX];
	struct matrix_series *group;
	unsigned int count = 0;
	bool is_new;
	int r;

	for (unsigned int i = 0; i < s->label_count; i++)
		if (is_kept(n, s->labels[i].key))
			labels[count++] = s->labels[i];
	r = query_matrix_find(q, out, labels, count, &group, &is_new);
	if (r >= 0)
		r = matrix_count(out, group);
	for (size_t i = 0; i < q->times->steps && r >= 0; i++)
		if (!matrix_is_none(s->values[i]))
			aggregate_value(n->op, &group->values[i], group->counts[i]++, s->values[i]);
	return r;
}

static void aggregate_end(struct query_eval *q, const struct query_node *n, struct matrix *out)
{
	for (size_t k = 0; k < out->count && n->op == QUERY_AVG; k++)
		for (size_t i = 0; i < q->times->steps; i++)
			if (out->series[k]->counts[i])
				out->series[k]->values[i] /= out->series[k]->counts[i];
}

/* -------- leaves -------- */

struct leaf {
	struct query_eval *q;
	const struct query_node *n, *select; /* select: n or its argument */
	const struct query_node *aggregate;  /* takes what comes out; NULL: it is the result */
	struct matrix owned;                 /* series of the owner at hand */
	struct matrix *out;
	char owner[256];
	bool has_owner;
};

static bool is_range(const struct leaf *l)
{
	return l->n->op == QUERY_RATE || l->n->op == QUERY_INCREASE;
}

static int give_one(struct leaf *l, const struct matrix_series *s)
{
	/* Functions of a range drop the name, which no longer is what the values are. */
	struct segment_label labels[MATRIX_LABELS_MAX];
	struct matrix_series *to;
	unsigned int n = 0;
	bool is_new;
	int r;

	if (l->aggregate)
		return aggregate_add(l->q, l->aggregate, l->out, s);
	for (unsigned int i = 0; i < s->label_count; i++)
		if (!is_range(l) || !str_equal(s->labels[i].key, NAME))
			labels[n++] = s->labels[i];
	r = query_matrix_find(l->q, l->out, labels, n, &to, &is_new);
	if (r >= 0 && !is_new)
		r = err_set(l->q->e, -EINVAL,
			    "vector cannot contain metrics with the same labelset");
	if (r >= 0)
		memcpy(to->values, s->values, l->q->times->steps * sizeof(*s->values));
	return r;
}

static int give_owned(struct leaf *l)
{
	int r = 0;

	for (size_t i = 0; i < l->owned.count && r >= 0; i++)
		r = give_one(l, l->owned.series[i]);
	matrix_reset(&l->owned);
	return r;
}

/* Lives of an owner that have the same labels: increases add up, of instants the later counts. */
static int values_join(struct leaf *l, const struct query_series *s, double *to)
{
	const struct query_source *source = l->q->source;
	const struct query_times *t = l->q->times;
	struct query_window window;

	query_window_init(&window, s->points, s->point_count, l->select->range_ms);

	for (size_t i = 0; i < t->steps; i++) {
		uint64_t at = query_time_ms(t, i);
		double v = 0;

		if (i % ASK_STEPS == 0 && source->is_over && source->is_over(source->data))
			return err_set(l->q->e, -ETIMEDOUT, "it takes too long; ask for less");
		if (!is_range(l)) {
			if (query_at(s->points, s->point_count, at, t->lookback_ms, &v))
				to[i] = v;
			continue;
		}
		if (!query_window_increase(&window, at, &v))
			continue;
		if (l->n->op == QUERY_RATE)
			v /= (double)l->select->range_ms / 1000;
		to[i] = matrix_is_none(to[i]) ? v : to[i] + v;
	}
	return 0;
}

static int on_series(void *data, const struct query_series *s)
{
	struct segment_label labels[MATRIX_LABELS_MAX];
	struct leaf *l = data;
	struct matrix_series *to;
	bool is_new;
	int r = 0;

	if (l->has_owner && strncmp(l->owner, s->owner, sizeof(l->owner) - 1) != 0)
		r = give_owned(l);
	str_copy(l->owner, sizeof(l->owner), s->owner);
	l->has_owner = true;
	if (r < 0 || s->label_count + 1 > MATRIX_LABELS_MAX)
		return r;
	/* Sorts before all names of labels but those with capitals. */
	labels[0] = (struct segment_label){NAME, s->name};
	for (size_t i = 0; i < s->label_count; i++)
		labels[i + 1] = s->labels[i];
	r = query_matrix_find(l->q, &l->owned, labels, (unsigned int)s->label_count + 1, &to,
			      &is_new);
	if (r >= 0)
		r = values_join(l, s, to->values);
	return r;
}

static int leaf_eval(struct query_eval *q, const struct query_node *n,
		     const struct query_node *aggregate, struct matrix *out)
{
	struct leaf l = {.q = q, .n = n, .aggregate = aggregate, .out = out};
	const struct query_times *t = q->times;
	struct query_selection what = {.to_ms = query_time_ms(t, t->steps - 1)};
	struct query_filter *filter = NULL;
	uint64_t back;
	int r;

	l.select = is_range(&l) ? n->args[0] : n;
	back = is_range(&l) ? l.select->range_ms : t->lookback_ms + MINUTE_MS;
	what.from_ms = t->start_ms > back ? t->start_ms - back : 0;
	what.may_thin = !is_range(&l) || back >= THIN_LEAST;
	r = query_filter_new(l.select, &filter, q->e);
	what.filter = filter;
	query_matrix_init(q, &l.owned);
	if (r >= 0)
		r = q->source->select(q->source->data, &what, on_series, &l, q->e);
	if (r >= 0)
		r = give_owned(&l);
	matrix_fini(&l.owned);
	query_filter_free(filter);
	return r;
}

/* -------- the tree -------- */

static bool is_leaf(const struct query_node *n)
{
	return n->op == QUERY_SELECT || n->op == QUERY_RATE || n->op == QUERY_INCREASE;
}

static int aggregate_eval(struct query_eval *q, const struct query_node *n, struct matrix *out)
{
	struct matrix arg;
	int r;

	if (is_leaf(n->args[0])) {
		r = leaf_eval(q, n->args[0], n, out);
	} else {
		r = query_node_eval(q, n->args[0], &arg);
		for (size_t i = 0; i < arg.count && r >= 0; i++)
			r = aggregate_add(q, n, out, arg.series[i]);
		matrix_fini(&arg);
	}
	if (r >= 0)
		aggregate_end(q, n, out);
	return r;
}

static int number_eval(struct query_eval *q, double v, struct matrix *out)
{
	struct matrix_series *s;
	bool is_new;
	int r = query_matrix_find(q, out, NULL, 0, &s, &is_new);

	for (size_t i = 0; i < q->times->steps && r >= 0; i++)
		s->values[i] = v;
	return r;
}

int query_node_eval(struct query_eval *q, const struct query_node *n, struct matrix *out)
{
	query_matrix_init(q, out);
	switch (n->op) {
	case QUERY_NUMBER:
		return number_eval(q, n->number, out);
	case QUERY_SELECT:
		if (n->type == QUERY_RANGE)
			return err_set(q->e, -EINVAL,
				       "a range (name[5m]) is no answer; use rate or increase");
		return leaf_eval(q, n, NULL, out);
	case QUERY_RATE:
	case QUERY_INCREASE:
		return leaf_eval(q, n, NULL, out);
	case QUERY_SUM:
	case QUERY_AVG:
	case QUERY_MIN:
	case QUERY_MAX:
	case QUERY_COUNT:
		return aggregate_eval(q, n, out);
	case QUERY_QUANTILE:
		return query_quantile_eval(q, n, out);
	case QUERY_NEGATE:
	case QUERY_ADD:
	case QUERY_SUBTRACT:
	case QUERY_MULTIPLY:
	case QUERY_DIVIDE:
		return query_operator_eval(q, n, out);
	}
	return err_set(q->e, -EINVAL, "unknown operation");
}

int query_eval(const struct query_node *root, const struct query_times *times,
	       const struct query_source *source, struct matrix *ret, struct err *e)
{
	struct query_eval q = {times, source, e, 0};
	int r = query_node_eval(&q, root, ret);

	if (r < 0)
		matrix_fini(ret);
	else
		matrix_sort(ret);
	ret->shared = NULL;
	return r;
}
