/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers of gateways from two looks at host.seg. Pure; owns nothing beyond one call. */
#include "cmd/top_model.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"

#include <errno.h>
#include <string.h>

#define STALL_NS 10000000 /* also a threshold of the cells, so their number is exact */

const struct top_column top_columns[TOP_VALUES] = {
#define TOP_COLUMN(ident, key_, title_, width_, form_, of_, help_) \
	[TOP_##ident] = {                                          \
		.key = key_,                                       \
		.title = title_,                                   \
		.help = help_,                                     \
		.width = width_,                                   \
		.form = TOP_FORM_##form_,                          \
		.of = TOP_##of_,                                   \
	},
#include "cmd/top_columns.def"
#undef TOP_COLUMN
};

enum sum { SUM_DURATION, SUM_UPSTREAM, SUM_STALL, SUM_GC_TURN, SUM_GC_WORLD, SUMS };

/* What is summed over a gateway's series before it is divided. */
struct gather_row {
	uint64_t cells[SUMS][HIST_CELLS];
	bool is_world; /* its collector stops the whole process */
};

struct work {
	const struct top_sample *before, *now;
	struct top_view *view;
	struct gather_row *rows;
	double window;
};

/* ---- pieces ---- */

const char *top_label(const struct segment_series *s, const char *key)
{
	for (unsigned int i = 0; i < s->label_count; i++)
		if (str_equal(s->labels[i].key, key))
			return s->labels[i].value;
	return NULL;
}

double top_window(const struct top_file *before, const struct top_file *now)
{
	if (!before->life || before->life != now->life || now->tick_mono_ns <= before->tick_mono_ns)
		return NAN;
	return (double)(now->tick_mono_ns - before->tick_mono_ns) / (double)NS_PER_S;
}

static uint64_t grown(uint64_t now, uint64_t before)
{
	return now > before ? now - before : 0;
}

bool top_growth(const struct top_file *before, const struct segment_series *s, uint64_t *ret,
		uint64_t ret_cells[HIST_CELLS])
{
	struct segment_series old;
	bool has_old = before->life && s->index < before->count &&
		       before->get(before->data, s->index, &old) && old.kind == s->kind;

	if (!before->life)
		return false;
	if (s->kind == METRIC_COUNTER)
		*ret = grown(s->counter, has_old ? old.counter : 0);
	if (s->kind == METRIC_HISTOGRAM)
		for (unsigned int i = 0; i < HIST_CELLS; i++)
			ret_cells[i] = grown(s->cells[i], has_old ? old.cells[i] : 0);
	return true;
}

struct top_quantile top_quantile(const uint64_t cells[HIST_CELLS], double q)
{
	const uint64_t *t = histogram_thresholds();
	uint64_t total = histogram_count(cells), below = 0;
	struct top_quantile r = {NAN, NAN, NAN};
	unsigned int i = 0;

	if (!total)
		return r;
	for (; i < HIST_CELLS - 1; i++) {
		below += cells[i];
		if (cells[i] && (q < 1 ? (double)below >= q * (double)total : below == total))
			break;
	}
	r.low = i ? (double)t[i - 1] / 1e9 : 0;
	r.high = i < HIST_THRESHOLDS ? (double)t[i] / 1e9 : INFINITY;
	r.value = i == HIST_THRESHOLDS ? r.low : q < 1 ? histogram_quantile(cells, q) : r.high;
	return r;
}

/* NAN + x is x here: the first value makes the sum known. */
static void add(double *sum, double x)
{
	*sum = isnan(*sum) ? x : *sum + x;
}

/* ---- one series ---- */

static void add_cells(uint64_t *sum, const uint64_t *cells)
{
	for (unsigned int i = 0; i < HIST_CELLS; i++)
		sum[i] += cells[i];
}

static void take_histogram(struct work *w, unsigned int row, enum metric_id id,
			   const struct segment_series *s)
{
	const char *phase = id == METRIC_ID_GC_PAUSE ? top_label(s, "phase") : NULL;
	struct gather_row *g = &w->rows[row];
	uint64_t cells[HIST_CELLS];
	enum sum sum;

	if (id == METRIC_ID_REQUEST_DURATION)
		sum = SUM_DURATION;
	else if (id == METRIC_ID_UPSTREAM)
		sum = SUM_UPSTREAM;
	else if (id == METRIC_ID_LOOP_STALL)
		sum = SUM_STALL;
	else if (str_equal(phase ? phase : "", "turn"))
		sum = SUM_GC_TURN;
	else if (str_equal(phase ? phase : "", "stw"))
		sum = SUM_GC_WORLD;
	else
		return;
	g->is_world |= sum == SUM_GC_WORLD;
	if (top_growth(&w->before->host, s, NULL, cells))
		add_cells(g->cells[sum], cells);
}

static void take_requests(struct top_row *row, const struct segment_series *s, double rate)
{
	const char *code = top_label(s, "code");

	add(&row->values[TOP_REQUESTS], rate);
	if (code && *code == '4')
		add(&row->values[TOP_ERRORS_4XX], rate);
	if (code && *code == '5')
		add(&row->values[TOP_ERRORS_5XX], rate);
}

static enum top_value counter_value(enum metric_id id)
{
	switch (id) {
	case METRIC_ID_REQUESTS_LOST:
		return TOP_LOST;
	case METRIC_ID_REQUESTS_ABORTED:
		return TOP_ABORTED;
	case METRIC_ID_LOOP_BUSY:
		return TOP_BUSY;
	case METRIC_ID_CPU_SECONDS:
		return TOP_CPU;
	case METRIC_ID_THROTTLED_SECONDS:
		return TOP_THROTTLED;
	case METRIC_ID_UPSTREAM_ERRORS:
		return TOP_UPSTREAM_ERRORS;
	case METRIC_ID_ACCEPT_QUEUE_DROPS:
		return TOP_DROPS;
	case METRIC_ID_GC_SECONDS:
		return TOP_GC;
	default:
		return TOP_NONE;
	}
}

static void take_counter(struct work *w, struct top_row *row, enum metric_id id,
			 const struct segment_series *s)
{
	enum top_value value = counter_value(id);
	uint64_t growth;
	double rate;

	if ((value == TOP_NONE && id != METRIC_ID_REQUESTS) || isnan(w->window) ||
	    !top_growth(&w->before->host, s, &growth, NULL))
		return;
	rate = (double)growth / w->window;
	if (str_equal(s->unit, "nanoseconds"))
		rate /= (double)NS_PER_S;
	if (id == METRIC_ID_REQUESTS)
		take_requests(row, s, rate);
	else
		add(&row->values[value], rate);
}

static enum top_value gauge_value(enum metric_id id)
{
	switch (id) {
	case METRIC_ID_WORKERS:
		return TOP_WORKERS;
	case METRIC_ID_REQUESTS_IN_FLIGHT:
		return TOP_IN_FLIGHT;
	case METRIC_ID_CONNECTIONS_OPEN:
		return TOP_CONNECTIONS;
	case METRIC_ID_CPU_LIMIT:
		return TOP_CPU_LIMIT;
	case METRIC_ID_MEMORY_BYTES:
		return TOP_MEMORY;
	case METRIC_ID_MEMORY_LIMIT:
		return TOP_MEMORY_LIMIT;
	case METRIC_ID_OPEN_FDS:
		return TOP_FDS;
	case METRIC_ID_GC_HEAP:
		return TOP_HEAP;
	default:
		return TOP_NONE;
	}
}

/* The limit of the same port is another series; the directory is short enough to look for it. */
static double port_limit(const struct top_file *f, const struct segment_series *length)
{
	const char *name = metric_descs[METRIC_ID_ACCEPT_QUEUE_LIMIT].name, *value;
	struct segment_series s;

	for (unsigned int i = 0; i < f->count; i++) {
		if (!f->get(f->data, i, &s) || !s.is_present || s.kind != METRIC_GAUGE ||
		    !str_equal(s.name, name) || s.label_count != length->label_count)
			continue;
		for (unsigned int k = 0; k < s.label_count; k++) {
			value = top_label(length, s.labels[k].key);
			if (!value || !str_equal(value, s.labels[k].value))
				break;
			if (k + 1 == s.label_count)
				return s.gauge;
		}
	}
	return NAN;
}

/* The fullest port is the one that will drop first. */
static void take_queue(struct work *w, struct top_row *row, const struct segment_series *s)
{
	double limit = port_limit(&w->now->host, s), *value = row->values;

	if (!isnan(value[TOP_QUEUE]) &&
	    !(s->gauge / limit > value[TOP_QUEUE] / value[TOP_QUEUE_LIMIT]))
		return;
	value[TOP_QUEUE] = s->gauge;
	value[TOP_QUEUE_LIMIT] = limit;
}

static void take_series(struct work *w, unsigned int row, const struct segment_series *s)
{
	const struct metric_desc *d = metric_find(s->name);
	enum metric_id id = d ? (enum metric_id)(d - metric_descs) : METRIC_ID_COUNT;
	enum top_value value;

	if (!d || d->kind != s->kind)
		return;
	if (s->kind == METRIC_HISTOGRAM) {
		take_histogram(w, row, id, s);
	} else if (s->kind == METRIC_COUNTER) {
		take_counter(w, &w->view->rows[row], id, s);
	} else if (id == METRIC_ID_ACCEPT_QUEUE_LENGTH) {
		take_queue(w, &w->view->rows[row], s);
	} else {
		value = gauge_value(id);
		if (value != TOP_NONE)
			add(&w->view->rows[row].values[value], s->gauge);
	}
}

/* ---- a gateway, when all of its series are summed ---- */

static void divide(struct work *w, unsigned int index)
{
	struct top_row *row = &w->view->rows[index];
	struct gather_row *g = &w->rows[index];
	double *v = row->values, workers = v[TOP_WORKERS];
	static const struct {
		enum top_value value;
		enum sum sum;
		double q;
	} quantiles[] = {
		{TOP_P50, SUM_DURATION, 0.5},    {TOP_P99, SUM_DURATION, 0.99},
		{TOP_STALL_MAX, SUM_STALL, 1},   {TOP_UPSTREAM_P99, SUM_UPSTREAM, 0.99},
		{TOP_GC_P99, SUM_GC_TURN, 0.99},
	};

	for (size_t i = 0; i < ARRAY_LEN(quantiles); i++) {
		enum sum sum = quantiles[i].sum;

		if (sum == SUM_GC_TURN && g->is_world)
			sum = SUM_GC_WORLD;
		row->quantiles[quantiles[i].value] = top_quantile(g->cells[sum], quantiles[i].q);
		v[quantiles[i].value] = row->quantiles[quantiles[i].value].value;
	}
	if (row->gateway->state != SEGMENT_GATEWAY_LIVE)
		for (unsigned int i = 0; i < TOP_VALUES; i++)
			v[i] = NAN;
	if (isnan(w->window) || row->gateway->state != SEGMENT_GATEWAY_LIVE)
		return;
	/* Series appear with their first event: until then the true number is 0. */
	if (row->gateway->requests_known) {
		add(&v[TOP_REQUESTS], 0);
		add(&v[TOP_ERRORS_4XX], 0);
		add(&v[TOP_ERRORS_5XX], 0);
	}
	if (!isnan(v[TOP_BUSY])) {
		uint64_t stalls = 0;

		for (unsigned int i = histogram_index(STALL_NS) + 1; i < HIST_CELLS; i++)
			stalls += g->cells[SUM_STALL][i];
		v[TOP_STALLS] = (double)stalls / w->window;
		v[TOP_BUSY] = workers > 0 ? v[TOP_BUSY] / workers : NAN;
	}
	/* A pause of the world holds up all workers of its process at once. */
	if (!isnan(v[TOP_GC]) && !g->is_world)
		v[TOP_GC] = workers > 0 ? v[TOP_GC] / workers : NAN;
}

static int row_of(const struct top_view *v, const struct segment_series *s)
{
	const char *gateway = top_label(s, "gateway"), *instance = top_label(s, "instance");

	if (!gateway || !instance)
		return -1;
	for (unsigned int i = 0; i < v->count; i++)
		if (str_equal(v->rows[i].gateway->instance, instance) &&
		    str_equal(v->rows[i].gateway->name, gateway))
			return (int)i;
	return -1;
}

static void begin_rows(const struct top_sample *now, struct top_view *v)
{
	v->count = 0;
	for (unsigned int i = 0; i < now->gateway_count && i < SEGMENT_GATEWAYS; i++) {
		struct top_row *row = &v->rows[v->count];

		if (now->gateways[i].state != SEGMENT_GATEWAY_LIVE &&
		    now->gateways[i].state != SEGMENT_GATEWAY_GONE)
			continue;
		row->index = i;
		row->gateway = &now->gateways[i];
		for (unsigned int k = 0; k < TOP_VALUES; k++) {
			row->values[k] = NAN;
			row->quantiles[k] = (struct top_quantile){NAN, NAN, NAN};
		}
		v->count++;
	}
}

int top_model(const struct top_sample *before, const struct top_sample *now, struct top_view *v)
{
	static const struct top_sample none;
	_cleanup_free_ struct gather_row *rows = NULL;
	struct work w = {.now = now, .view = v, .window = top_window(&before->host, &now->host)};
	struct segment_series s;
	int row;

	v->life = now->host.life;
	v->window_s = w.window;
	w.before = isnan(w.window) ? &none : before;
	begin_rows(now, v);
	w.rows = rows = calloc(v->count ? v->count : 1, sizeof(*rows));
	if (!rows)
		return -ENOMEM;
	for (unsigned int i = 0; i < now->host.count; i++) {
		if (!now->host.get(now->host.data, i, &s) || !s.is_present)
			continue;
		row = row_of(v, &s);
		if (row >= 0)
			take_series(&w, (unsigned int)row, &s);
	}
	for (unsigned int i = 0; i < v->count; i++)
		divide(&w, i);
	return 0;
}
