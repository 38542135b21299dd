/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Metric catalogue and the exact histogram. CONTRACT: the order and number of cells is what
 * segments, frames and the aggregator's log hold.
 */
#pragma once

#include <stdint.h>

/*
 * Histogram cells. T is the sorted, distinct union of floor(1e9 * 2^(k/8)) for k in [-240, 88]
 * (Prometheus native schema 3; OTLP scale 3 is its index minus 1) and the 14 boundaries of
 * OpenTelemetry's http.server.request.duration, all in nanoseconds: 322 thresholds. A value v_ns
 * is counted in the first cell j with v_ns <= T[j]; cell 322 is the overflow.
 */
#define HIST_THRESHOLDS 322
#define HIST_CELLS      323

/* Two-level lookup: start[e * 8 + m] is the first j that can hold a value whose highest bit is e
 * and whose next three bits are m; then at most HIST_STEPS comparisons upwards. */
#define HIST_STARTS (64 * 8)
#define HIST_STEPS  4

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };
enum metric_merge { METRIC_SUM, METRIC_MAX, METRIC_LAST };
enum metric_scope { METRIC_INSTANCE, METRIC_WORKER, METRIC_AGENT };

enum metric_id {
#define METRIC(ident, name, kind, unit, merge, scope, labels, help) METRIC_ID_##ident,
#include "metrics.def"
#undef METRIC
	METRIC_ID_COUNT
};

/* Counters whose unit is "nanoseconds" are shown in seconds. */
struct metric_desc {
	const char *name, *unit, *labels, *help;
	enum metric_kind kind;
	enum metric_merge merge;
	enum metric_scope scope;
};

extern const struct metric_desc metric_descs[METRIC_ID_COUNT];

/* NULL when there is no such row. */
const struct metric_desc *metric_find(const char *name);

/* The table, computed once (idempotent, no locks: call it before threads start). */
const uint64_t *histogram_thresholds(void);
const uint16_t *histogram_starts(void);

/* Index of the cell that counts v_ns. */
unsigned int histogram_index(uint64_t v_ns);

/* Quantile q in [0, 1] in seconds by linear interpolation inside the cell; NAN when empty. A value
 * in the overflow cell reads as the last threshold. */
double histogram_quantile(const uint64_t cells[HIST_CELLS], double q);

/* Sum in seconds estimated from cell midpoints (geometric); relative error <= 4.4 %. */
double histogram_sum(const uint64_t cells[HIST_CELLS]);
uint64_t histogram_count(const uint64_t cells[HIST_CELLS]);
