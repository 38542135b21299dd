/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prometheus text 0.0.4 and OpenMetrics 1.0. Pure: series in, text out. Series of one family may
 * come in any order; the output groups them.
 */
#pragma once

#include "base/str.h"
#include "metrics.h"
#include "segment/reader.h"

enum prometheus_format { PROMETHEUS_TEXT, PROMETHEUS_OPENMETRICS };

/* Upper bounds of the buckets of a histogram, and their `le`. */
#define PROMETHEUS_BOUNDS 14
extern const uint64_t prometheus_bounds_ns[PROMETHEUS_BOUNDS];
extern const char *const prometheus_les[PROMETHEUS_BOUNDS + 1];

/* One series; everything is borrowed until the next call of get. */
struct prometheus_series {
	const char *name, *unit, *help;
	enum metric_kind kind;
	const struct segment_label *labels;
	size_t label_count;
	uint64_t counter;      /* METRIC_COUNTER; unit "nanoseconds" is shown in seconds */
	double gauge;          /* METRIC_GAUGE */
	const uint64_t *cells; /* METRIC_HISTOGRAM, HIST_CELLS of them */
	/* Room that labels may point to, for a source that has no array of its own. */
	struct segment_label room[SEGMENT_LABELS_MAX];
};

/* get is called twice for each index below count and must answer the same; false: no value. */
struct prometheus_source {
	size_t count;
	bool (*get)(const void *data, size_t index, struct prometheus_series *ret);
	const void *data;
};

struct prometheus_result {
	size_t series;  /* written */
	size_t refused; /* bad name, label key or kind within its family, or there already */
};

/* Appends the series of all sources (and # EOF) to out, whose limit is the limit of the output.
 * -E2BIG beyond it (or 16 million series), -ENOMEM. ret may be NULL. The sum of a histogram is estimated from its cells
 * (histogram_sum), bucket counts are exact. */
int prometheus_render(const struct prometheus_source *sources, size_t n,
		      enum prometheus_format format, struct strbuf *out,
		      struct prometheus_result *ret);

/* The same in steps, for a thread that has other work. Borrows sources' data and out. In between,
 * values may change and series may come or go; indexes must go on meaning the same series. */
struct prometheus_job;
int prometheus_begin(const struct prometheus_source *sources, size_t n,
		     enum prometheus_format format, struct strbuf *out,
		     struct prometheus_job **ret);
/* About so many lines. 1: there is more; 0: all is written; errors as above. */
int prometheus_step(struct prometheus_job *job, size_t lines, struct prometheus_result *ret);
/* Where it goes on writing: what it wrote so far has moved there. */
void prometheus_set_output(struct prometheus_job *job, struct strbuf *out);
struct prometheus_job *prometheus_end(struct prometheus_job *job);

/* The present series of the reader's copy. Borrows the reader. */
void prometheus_from_segment(const struct segment_reader *r, struct prometheus_source *ret);

/* For HTTP. */
const char *prometheus_content_type(enum prometheus_format format);
/* What an Accept header (may be NULL) asks for. */
enum prometheus_format prometheus_accepted(const char *accept);
