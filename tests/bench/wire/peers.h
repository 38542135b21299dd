/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What other exporters would send for the same samples: one tick a request, all series in each, as
 * they do. Where they leave a choice the smaller one is taken: integers as integers, series grouped by
 * resource and metric, native (exponential) histograms where there are such, no help texts.
 */
#pragma once

#include "segment/reader.h"

#include <stddef.h>
#include <stdint.h>

struct peer_tick {
	const struct segment_series *series; /* those with a name that are present */
	unsigned int count;
	bool has_histograms; /* only they are sent; else only counters and gauges */
	uint64_t start_ms, time_ms;
};

/* Bytes of the request's compressed body. They end the program when memory does. */
size_t peer_otlp_zstd(const struct peer_tick *t);
size_t peer_remote_write_snappy(const struct peer_tick *t);
size_t peer_text_gzip(const struct peer_tick *t);
