/* SPDX-License-Identifier: Apache-2.0 */
/* All that `tidegate top` knows of one gateway, as items in sections. Pure. */
#pragma once

#include "cmd/top_model.h"

enum top_section {
	TOP_SECTION_REQUESTS, /* label: method, detail: status */
	TOP_SECTION_LATENCY,  /* label: name of the metric, detail: its own labels' values */
	TOP_SECTION_SYSCALLS, /* label: call */
	TOP_SECTION_UPSTREAMS,
	TOP_SECTION_PORTS,
	TOP_SECTION_APPLICATION, /* label: name of the metric; its labels are in `series` */
	TOP_SECTIONS,
};

#define TOP_DETAIL_MAX 20000 /* items; what is beyond is counted */

/* What an item has no number for is NAN. Borrows its strings from the sample, raw: they may hold
 * anything but NUL. */
struct top_item {
	enum top_section section;
	enum metric_kind kind;
	const char *label, *detail;
	struct segment_series series; /* the first one that made this item */
	bool has_total, is_ns;        /* is_ns: total is in nanoseconds, and is shown in seconds */
	uint64_t total, errors;       /* since counting began */
	double rate, error_rate;      /* a second */
	double time_ratio;            /* seconds a second */
	double gauge, limit;
	struct top_quantile p50, p99, max, connect_p99;
};

/* What a section shows of its items: a column each, and a key in --json. */
enum top_field {
	TOP_FIELD_END,
	TOP_FIELD_RATE,
	TOP_FIELD_TIME,
	TOP_FIELD_GAUGE,
	TOP_FIELD_LIMIT,
	TOP_FIELD_P50,
	TOP_FIELD_P99,
	TOP_FIELD_MAX,
	TOP_FIELD_CONNECT_P99,
	TOP_FIELD_ERROR_RATE,
	TOP_FIELD_ERRORS,
	TOP_FIELD_TOTAL,
	TOP_FIELDS,
};

struct top_field_desc {
	const char *key, *title;
	unsigned int width;
	enum top_form form;
	size_t offset; /* of the number in an item */
};

struct top_section_desc {
	const char *key, *title;
	const char *label_key, *detail_key; /* in --json; NULL: there is none */
	bool has_labels;                    /* items are told apart by all labels of their series */
	enum top_field fields[TOP_FIELDS];
};

extern const struct top_field_desc top_fields[TOP_FIELDS];
extern const struct top_section_desc top_sections[TOP_SECTIONS];

struct top_detail {
	struct top_item *items; /* section after section, the most important first */
	unsigned int count, places, left_out;
	double window_s, app_window_s;
};

void top_detail_fini(struct top_detail *d);

/* Replaces what is in d. An app series that names no instance is anybody's. What finds no memory is
 * left out, and counted. */
void top_detail(const struct top_sample *before, const struct top_sample *now,
		const struct segment_gateway *gateway, struct top_detail *d);
