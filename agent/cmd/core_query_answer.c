/* SPDX-License-Identifier: Apache-2.0 */
/* What a query comes to, on its thread: the history as a source of series, and lists of them. */
#include "cmd/core_query.h"

#include "outlet/prometheus.h"
#include "outlet/query_json.h"

#include <errno.h>
#include <stdio.h>

/* -------- the history as a source -------- */

struct source {
	struct history_reader *reader;
	struct core_query_job *job;
};

struct selecting {
	const struct source *source;
	const struct query_filter *filter; /* NULL: everything */
	query_series_fn fn;
	void *data;
};

static bool wants_name(void *data, const char *name)
{
	const struct selecting *s = data;

	return !s->filter || query_filter_name(s->filter, name);
}

static bool wants(void *data, const struct history_series *series)
{
	const struct selecting *s = data;

	return !s->filter || query_filter_labels(s->filter, series->labels, series->label_count);
}

static bool is_over(void *data)
{
	return core_query_is_over(((const struct selecting *)data)->source->job);
}

static bool source_is_over(void *data)
{
	return core_query_is_over(((const struct source *)data)->job);
}

static int on_series(void *data, const struct history_series *series)
{
	const struct selecting *s = data;
	const struct query_series out = {
		.owner = series->agent,
		.name = series->name,
		.labels = series->labels,
		.label_count = series->label_count,
		.points = series->points,
		.point_count = series->point_count,
	};

	return s->fn(s->data, &out);
}

static struct history_request request_of(struct selecting *s, uint64_t from_ms, uint64_t to_ms)
{
	return (struct history_request){
		.from_ms = from_ms,
		.to_ms = to_ms,
		.bounds_ns = prometheus_bounds_ns,
		.les = prometheus_les,
		.bound_count = PROMETHEUS_BOUNDS,
		.wants_name = wants_name,
		.wants = wants,
		.fn = on_series,
		.is_over = is_over,
		.data = s,
	};
}

static int source_select(void *data, const struct query_selection *what, query_series_fn fn,
			 void *fn_data, struct err *e)
{
	const struct source *source = data;
	struct selecting s = {source, what->filter, fn, fn_data};
	struct history_request q = request_of(&s, what->from_ms, what->to_ms);

	q.may_thin = what->may_thin;
	return history_read(source->reader, &q, e);
}

static int values(const struct source *source, struct err *e)
{
	const struct query_source from = {source_select, (void *)(uintptr_t)source, source_is_over};
	struct core_query_job *job = source->job;
	const struct query_node *root = query_root(job->queries[0]);
	struct matrix m;
	int r = query_eval(root, &job->times, &from, &m, e);

	if (r < 0)
		return r;
	r = query_json_answer(&job->out, &m, root->type, &job->times, job->is_range);
	matrix_fini(&m);
	return r < 0 ? err_set(e, r, "the answer is too large; ask for fewer series") : r;
}

/* -------- lists -------- */

struct listing {
	const struct source *source;
	struct matrix set; /* without values: each label set once */
	char last[FRAME_NAME_MAX + 1];
	struct err *e;
};

static int set_add(struct listing *l, const struct segment_label *labels, unsigned int n)
{
	struct matrix_series *s;
	bool is_new;
	int r = matrix_find(&l->set, labels, n, &s, &is_new);

	if (r >= 0 && l->set.count > CORE_QUERY_NAMES_MAX)
		r = -E2BIG;
	if (r == -E2BIG)
		return err_set(l->e, r, "the list is longer than %u, or larger than %u MiB",
			       CORE_QUERY_NAMES_MAX, MATRIX_BYTES_MAX >> 20);
	return r;
}

static int on_listed(void *data, const struct query_series *s)
{
	struct segment_label labels[MATRIX_LABELS_MAX] = {{"__name__", s->name}};
	struct listing *l = data;
	const struct core_query_job *job = l->source->job;
	unsigned int n = 1;
	int r = 0;

	for (size_t i = 0; i < s->label_count && n < MATRIX_LABELS_MAX; i++)
		labels[n++] = s->labels[i];
	if (job->kind == CORE_QUERY_SERIES)
		return set_add(l, labels, n);
	for (unsigned int i = 0; i < n && r >= 0; i++) {
		struct segment_label name = {"", labels[i].key}, value = {"", labels[i].value};

		if (!*job->label)
			r = set_add(l, &name, 1);
		else if (str_equal(job->label, labels[i].key))
			r = set_add(l, &value, 1);
	}
	return r;
}

static int on_name(void *data, const struct history_metric *m)
{
	static const char *const endings[] = {"_bucket", "_count", "_sum"};
	struct listing *l = data;
	char name[FRAME_NAME_MAX + 16];
	int r = 0;

	if (m->kind != METRIC_HISTOGRAM)
		return set_add(l, &(struct segment_label){"", m->name}, 1);
	for (size_t i = 0; i < 3 && r >= 0; i++) {
		snprintf(name, sizeof(name), "%s%s", m->name, endings[i]);
		r = set_add(l, &(struct segment_label){"", name}, 1);
	}
	return r;
}

static int list_selected(struct listing *l, const struct query *query)
{
	const struct core_query_job *job = l->source->job;
	struct selecting s = {l->source, NULL, on_listed, l};
	struct history_request q = request_of(&s, job->from_ms, job->to_ms);
	struct query_filter *filter = NULL;
	int r = query ? query_filter_new(query_root(query), &filter, l->e) : 0;

	s.filter = filter;
	if (r >= 0)
		r = history_list(l->source->reader, &q, l->e);
	query_filter_free(filter);
	return r;
}

static void list_write(struct listing *l)
{
	struct core_query_job *job = l->source->job;

	query_json_begin(&job->out);
	for (size_t i = 0; i < l->set.count; i++) {
		const struct matrix_series *s = l->set.series[i];

		if (i)
			strbuf_puts(&job->out, ",\n");
		if (job->kind == CORE_QUERY_SERIES)
			query_json_labels(&job->out, s->labels, s->label_count);
		else
			query_json_string(&job->out, s->labels[0].value);
	}
}

static int list(const struct source *source, struct err *e)
{
	struct core_query_job *job = source->job;
	struct listing l = {.source = source, .e = e};
	int r = 0;

	matrix_init(&l.set, 0);
	/* Names of all metrics need no look at their series. */
	if (job->kind == CORE_QUERY_LABELS && !job->query_count &&
	    str_equal(job->label, "__name__"))
		r = history_metrics(source->reader, on_name, &l, e);
	else if (!job->query_count)
		r = list_selected(&l, NULL);
	for (unsigned int i = 0; i < job->query_count && r >= 0; i++)
		r = list_selected(&l, job->queries[i]);
	if (r >= 0) {
		matrix_sort(&l.set);
		list_write(&l);
		r = query_json_end(&job->out);
	}
	matrix_fini(&l.set);
	return r;
}

/* -------- metadata -------- */

static int on_metadata(void *data, const struct history_metric *m)
{
	static const char *const kinds[] = {"counter", "gauge", "histogram"};
	struct listing *l = data;
	struct core_query_job *job = l->source->job;
	bool is_ns = str_equal(m->unit, "nanoseconds");

	if (*job->label && !str_equal(job->label, m->name))
		return 0;
	/* By name; of another kind or unit it was in the past. */
	if (str_equal(l->last, m->name))
		return 0;
	strbuf_puts(&job->out, *l->last ? ",\n" : "");
	str_copy(l->last, sizeof(l->last), m->name);
	query_json_string(&job->out, m->name);
	strbuf_puts(&job->out, ":[{\"type\":");
	query_json_string(&job->out, kinds[m->kind]);
	strbuf_puts(&job->out, ",\"help\":");
	query_json_string(&job->out, m->help);
	strbuf_puts(&job->out, ",\"unit\":");
	query_json_string(&job->out, is_ns ? "seconds" : m->unit);
	strbuf_puts(&job->out, "}]");
	return 0;
}

static int metadata(const struct source *source, struct err *e)
{
	struct strbuf *out = &source->job->out;
	struct listing l = {.source = source, .e = e};
	int r;

	strbuf_puts(out, "{\"status\":\"success\",\"data\":{");
	r = history_metrics(source->reader, on_metadata, &l, e);
	strbuf_puts(out, "}}\n");
	return r < 0 ? r : out->failed ? -E2BIG : 0;
}

void core_query_answer(struct history_reader *reader, struct core_query_job *job)
{
	const struct source source = {reader, job};
	struct err e = {{0}};
	int r = -ENOSYS;

	switch (job->kind) {
	case CORE_QUERY_VALUES:
		r = values(&source, &e);
		break;
	case CORE_QUERY_SERIES:
	case CORE_QUERY_LABELS:
		r = list(&source, &e);
		break;
	case CORE_QUERY_METADATA:
		r = metadata(&source, &e);
		break;
	}
	if (r < 0)
		core_query_fail(job, r, e.text);
}
