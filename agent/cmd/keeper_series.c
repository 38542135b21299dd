/* SPDX-License-Identifier: Apache-2.0 */
/* Series of one gateway instance. Indices of series that were registered are remembered, so that
 * a tick compares no strings. */
#include "cmd/keeper_series.h"

#include "base/str.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const method_names[HTTP_METHODS] = {
	[HTTP_GET] = "GET",         [HTTP_HEAD] = "HEAD",     [HTTP_POST] = "POST",
	[HTTP_PUT] = "PUT",         [HTTP_DELETE] = "DELETE", [HTTP_CONNECT] = "CONNECT",
	[HTTP_OPTIONS] = "OPTIONS", [HTTP_TRACE] = "TRACE",   [HTTP_PATCH] = "PATCH",
	[HTTP_OTHER] = "_OTHER",
};
static const char *const class_names[HTTP_CLASSES] = {"1xx", "2xx", "3xx", "4xx", "5xx"};
static const char *const phase_names[GC_PHASES] = {
	[GC_STEP] = "step", [GC_TURN] = "turn", [GC_FULL] = "full", [GC_STW] = "stw"};
static const char *const syscall_names[SYSCALL_COUNT] = {
#define X(name, ...) [SYSCALL_##name] = #name,
	SYSCALL_ROWS(X)
#undef X
};
static const char *const errno_names[ERRNOS] = {[ERRNO_OTHER] = "other",
#define X(name, number) [ERRNO_CELL_##name] = #name,
						ERRNO_ROWS(X)
#undef X
};

enum gauge_row {
	ROW_IN_FLIGHT,
	ROW_IN_FLIGHT_MAX,
	ROW_CONNECTIONS,
	ROW_WORKERS,
	ROW_DRAINING,
	ROW_REQUESTS_STATE,
	GAUGE_ROWS
};
enum counter_row { ROW_LOST, ROW_ABORTED, ROW_HEALTH, ROW_ACCEPTS, ROW_BUSY, COUNTER_ROWS };

static const enum metric_id gauge_metrics[GAUGE_ROWS] = {
	[ROW_IN_FLIGHT] = METRIC_ID_REQUESTS_IN_FLIGHT,
	[ROW_IN_FLIGHT_MAX] = METRIC_ID_REQUESTS_IN_FLIGHT_MAX,
	[ROW_CONNECTIONS] = METRIC_ID_CONNECTIONS_OPEN,
	[ROW_WORKERS] = METRIC_ID_WORKERS,
	[ROW_DRAINING] = METRIC_ID_DRAINING,
	[ROW_REQUESTS_STATE] = METRIC_ID_REQUESTS_STATE,
};
static const enum metric_id counter_metrics[COUNTER_ROWS] = {
	[ROW_LOST] = METRIC_ID_REQUESTS_LOST,     [ROW_ABORTED] = METRIC_ID_REQUESTS_ABORTED,
	[ROW_HEALTH] = METRIC_ID_REQUESTS_HEALTH, [ROW_ACCEPTS] = METRIC_ID_ACCEPTS,
	[ROW_BUSY] = METRIC_ID_LOOP_BUSY,
};

/* 0: not registered; else index + 1; negative: refused, not tried again. */
typedef int series_ref;

struct keeper_series {
	struct segment_writer *w;
	char name[SEGMENT_NAME_BYTES], instance[SEGMENT_NAME_BYTES];
	series_ref gauges[GAUGE_ROWS], counters[COUNTER_ROWS];
	series_ref requests[REQUEST_ROWS];
	series_ref request_ns[HTTP_CLASSES], first_byte_ns[HTTP_CLASSES];
	series_ref syscalls[SYSCALL_COUNT], syscall_ns[SYSCALL_COUNT], syscall_long[SYSCALL_COUNT];
	series_ref errors[ERROR_ROWS];
	series_ref stall, gc_ns[GC_PHASES], gc_cycles, gc_seconds, gc_observed, gc_heap;
};

int keeper_series_new(struct segment_writer *w, const char *name, const char *instance,
		      struct keeper_series **ret)
{
	struct keeper_series *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->w = w;
	str_copy(s->name, sizeof(s->name), name);
	str_copy(s->instance, sizeof(s->instance), instance);
	*ret = s;
	return 0;
}

struct keeper_series *keeper_series_free(struct keeper_series *s)
{
	free(s);
	return NULL;
}

/* key and value of up to two labels; NULL for none. Returns the index or -1. */
static int lookup(struct keeper_series *s, series_ref *ref, enum metric_id metric, const char *key0,
		  const char *value0, const char *key1, const char *value1)
{
	const char *labels[4][2] = {{"gateway", s->name}, {"instance", s->instance}};
	size_t n = 2;
	int index;

	if (*ref)
		return *ref - 1;
	if (key0) {
		labels[n][0] = key0;
		labels[n++][1] = value0;
	}
	if (key1) {
		labels[n][0] = key1;
		labels[n++][1] = value1;
	}
	index = segment_writer_series(s->w, &metric_descs[metric], (const char *const(*)[2])labels,
				      n);
	*ref = index < 0 ? -1 : index + 1;
	return index < 0 ? -1 : index;
}

static void put_counter(struct keeper_series *s, series_ref *ref, enum metric_id metric,
			const char *key0, const char *value0, const char *key1, const char *value1,
			uint64_t value)
{
	int index;

	if (!value && *ref <= 0)
		return;
	index = lookup(s, ref, metric, key0, value0, key1, value1);
	if (index >= 0)
		segment_writer_counter(s->w, index, value);
}

static void put_histogram(struct keeper_series *s, series_ref *ref, enum metric_id metric,
			  const char *key0, const char *value0, const char *key1,
			  const char *value1, const uint64_t *cells)
{
	int index;

	if (*ref < 0 || (!*ref && !histogram_count(cells)))
		return;
	index = lookup(s, ref, metric, key0, value0, key1, value1);
	if (index >= 0)
		segment_writer_histogram(s->w, index, cells);
}

static void put_gauge(struct keeper_series *s, enum gauge_row row, bool is_known, double value)
{
	int index;

	if (!is_known && s->gauges[row] <= 0)
		return;
	index = lookup(s, &s->gauges[row], gauge_metrics[row], NULL, NULL, NULL, NULL);
	if (index < 0)
		return;
	if (is_known)
		segment_writer_gauge(s->w, index, value);
	else
		segment_writer_absent(s->w, index);
}

/* A counter that users divide by must be there from the start: 0 is its true value. */
static void put_plain(struct keeper_series *s, enum counter_row row, uint64_t value)
{
	int index = lookup(s, &s->counters[row], counter_metrics[row], NULL, NULL, NULL, NULL);

	if (index >= 0)
		segment_writer_counter(s->w, index, value);
}

static void write_requests(struct keeper_series *s, const struct keeper_values *v)
{
	const struct cells *c = v->cells;
	enum http_method method;
	unsigned int number;
	char code[4];

	for (unsigned int i = 0; probe_request_row(v->probes, i, &method, &number); i++) {
		if (!c->requests[i] && s->requests[i] <= 0)
			continue;
		snprintf(code, sizeof(code), "%u", number % 1000);
		put_counter(s, &s->requests[i], METRIC_ID_REQUESTS, "method", method_names[method],
			    "code", code, c->requests[i]);
	}
	for (unsigned int i = 0; i < HTTP_CLASSES; i++) {
		put_histogram(s, &s->request_ns[i], METRIC_ID_REQUEST_DURATION, "code_class",
			      class_names[i], NULL, NULL, c->request_ns[i]);
		put_histogram(s, &s->first_byte_ns[i], METRIC_ID_REQUEST_FIRST_BYTE, "code_class",
			      class_names[i], NULL, NULL, c->first_byte_ns[i]);
	}
	put_plain(s, ROW_LOST, c->requests_lost);
	put_plain(s, ROW_ABORTED, c->requests_aborted);
	put_plain(s, ROW_HEALTH, c->requests_health);
	put_plain(s, ROW_ACCEPTS, c->accepts);
}

/* Sums of times that always grow are told in microseconds: what is below is noise, and more than a
 * byte in each frame. */
static uint64_t whole_us(uint64_t ns)
{
	return ns - ns % 1000;
}

static void write_syscalls(struct keeper_series *s, const struct keeper_values *v)
{
	const struct cells *c = v->cells;
	enum errno_cell error;
	enum syscall_id id;

	for (unsigned int i = 0; i < SYSCALL_COUNT; i++) {
		const char *name = syscall_names[i];

		put_counter(s, &s->syscalls[i], METRIC_ID_SYSCALLS, "syscall", name, NULL, NULL,
			    c->syscalls[i]);
		put_histogram(s, &s->syscall_ns[i], METRIC_ID_SYSCALL_DURATION, "syscall", name,
			      NULL, NULL, c->syscall_ns[i]);
		put_counter(s, &s->syscall_long[i], METRIC_ID_SYSCALL_LONG, "syscall", name, NULL,
			    NULL, whole_us(c->syscall_long_ns[i]));
	}
	for (unsigned int i = 0; probe_error_row(v->probes, i, &id, &error); i++)
		put_counter(s, &s->errors[i], METRIC_ID_SYSCALL_ERRORS, "syscall",
			    syscall_names[id], "errno", errno_names[error], c->syscall_errors[i]);
}

static void write_gc(struct keeper_series *s, const struct cells *c, const char *runtime,
		     const struct probe_gc_now *now)
{
	int index;

	for (unsigned int i = 0; i < GC_PHASES; i++)
		put_histogram(s, &s->gc_ns[i], METRIC_ID_GC_PAUSE, "runtime", runtime, "phase",
			      phase_names[i], c->gc_ns[i]);
	put_counter(s, &s->gc_cycles, METRIC_ID_GC_CYCLES, "runtime", runtime, NULL, NULL,
		    c->gc_cycles);
	put_counter(s, &s->gc_seconds, METRIC_ID_GC_SECONDS, "runtime", runtime, NULL, NULL,
		    c->gc_sum_ns[GC_STEP] + c->gc_sum_ns[GC_FULL] + c->gc_sum_ns[GC_STW] +
			    now->missed_ns);
	if (now->has_heap || s->gc_heap > 0) {
		index = lookup(s, &s->gc_heap, METRIC_ID_GC_HEAP, "runtime", runtime, NULL, NULL);
		if (index >= 0 && now->has_heap)
			segment_writer_gauge(s->w, index, (double)now->heap_bytes);
		else if (index >= 0)
			segment_writer_absent(s->w, index);
	}
	if (!now->is_known && s->gc_observed <= 0)
		return;
	index = lookup(s, &s->gc_observed, METRIC_ID_GC_OBSERVED, "runtime", runtime, NULL, NULL);
	if (index >= 0 && now->is_known)
		segment_writer_gauge(s->w, index, now->observed_ratio);
}

void keeper_series_write(struct keeper_series *s, const struct keeper_values *v)
{
	const struct cells *c = v->cells;

	put_gauge(s, ROW_IN_FLIGHT, v->has_requests && v->has_mean, v->in_flight_mean);
	put_gauge(s, ROW_IN_FLIGHT_MAX, v->has_requests, (double)v->now->in_flight_max);
	put_gauge(s, ROW_CONNECTIONS, v->has_requests, (double)v->now->connections_open);
	put_gauge(s, ROW_WORKERS, true, v->now->threads);
	put_gauge(s, ROW_DRAINING, true, v->is_draining ? 1 : 0);
	put_gauge(s, ROW_REQUESTS_STATE, true,
		  !v->has_requests      ? 0
		  : v->is_quic_possible ? 0.5
					: 1);
	if (v->has_requests)
		write_requests(s, v);
	if (v->has_syscalls)
		write_syscalls(s, v);
	if (v->has_loop) {
		put_histogram(s, &s->stall, METRIC_ID_LOOP_STALL, NULL, NULL, NULL, NULL,
			      c->stall_ns);
		put_plain(s, ROW_BUSY, whole_us(c->loop_busy_ns));
	}
	if (v->gc_runtime[0])
		write_gc(s, c, v->gc_runtime, v->gc);
}

void keeper_series_gone(struct keeper_series *s)
{
	for (unsigned int i = 0; i < GAUGE_ROWS; i++)
		put_gauge(s, i, false, 0);
	if (s->gc_heap > 0)
		segment_writer_absent(s->w, s->gc_heap - 1);
	if (s->gc_observed > 0)
		segment_writer_absent(s->w, s->gc_observed - 1);
}
