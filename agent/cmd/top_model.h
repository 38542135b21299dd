/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What `tidegate top` shows: rates, ratios and quantiles between two looks at the segments. Pure: two
 * samples in, numbers out. A number that is not known is NAN, never 0.
 */
#pragma once

#include "segment/reader.h"

#include <math.h>

/* The series of one file as of one tick. While `life` stays, an index means the same series. */
struct top_file {
	uint64_t life; /* 0: there is no such file */
	uint64_t tick_mono_ns;
	unsigned int count;
	bool (*get)(const void *data, unsigned int index, struct segment_series *ret);
	const void *data;
};

/* One look. Borrows everything. */
struct top_sample {
	struct top_file host, app;
	const struct segment_gateway *gateways;
	unsigned int gateway_count;
};

enum top_form {
	TOP_FORM_COUNT,
	TOP_FORM_RATE,
	TOP_FORM_RATIO,
	TOP_FORM_SECONDS,
	TOP_FORM_QUANTILE,
	TOP_FORM_BYTES,
	TOP_FORM_CORES,
};

enum top_value {
#define TOP_COLUMN(ident, key, title, width, form, of, help) TOP_##ident,
#include "cmd/top_columns.def"
#undef TOP_COLUMN
	TOP_VALUES,
	TOP_NONE = TOP_VALUES,
};

struct top_column {
	const char *key, *title, *help;
	unsigned int width;
	enum top_form form;
	enum top_value of;
};

extern const struct top_column top_columns[TOP_VALUES];

/* In seconds; low and high are the bounds of the bucket that holds the value, which is interpolated
 * between them. All NAN when nothing was counted; high is INFINITY in the last bucket. */
struct top_quantile {
	double value, low, high;
};

/* q in [0, 1]; 1 is the highest bucket that counted anything, value its upper bound. */
struct top_quantile top_quantile(const uint64_t cells[HIST_CELLS], double q);

struct top_row {
	unsigned int index; /* of the gateway's record: the same while host.life stays */
	const struct segment_gateway *gateway;
	double values[TOP_VALUES];
	struct top_quantile quantiles[TOP_VALUES]; /* TOP_FORM_QUANTILE only */
};

struct top_view {
	uint64_t life;
	double window_s; /* what rates are over; NAN: no earlier sample, so there are no rates */
	unsigned int count;
	struct top_row rows[SEGMENT_GATEWAYS];
};

/* Fills v from now and, for rates, before (life 0: none). v borrows from now. -ENOMEM. */
int top_model(const struct top_sample *before, const struct top_sample *now, struct top_view *v);

/* ---- what rows and details are made of ---- */

/* Seconds between the two looks at a file; NAN when there are none. */
double top_window(const struct top_file *before, const struct top_file *now);

/* What a series of `now` grew by since `before`, into *ret_cells (histogram) or *ret (counter). A
 * series that was not there began at 0. False without an earlier look at the same file. */
bool top_growth(const struct top_file *before, const struct segment_series *s, uint64_t *ret,
		uint64_t ret_cells[HIST_CELLS]);

/* NULL when the series has no such label. */
const char *top_label(const struct segment_series *s, const char *key);
