/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From cells to series: registers what a gateway's cells hold as series of host.seg, each when it
 * is first non-zero, and writes their values. Owned by the keeper.
 */
#pragma once

#include "probe/probe.h"
#include "segment/writer.h"

struct keeper_series;

/* name and instance are copied. */
int keeper_series_new(struct segment_writer *w, const char *name, const char *instance,
		      struct keeper_series **ret);
struct keeper_series *keeper_series_free(struct keeper_series *s);

struct keeper_values {
	const struct probe_set *probes; /* whose cells they are */
	const struct cells *cells;
	const struct probe_now *now;
	const struct probe_gc_now *gc;
	double in_flight_mean;
	bool has_mean; /* false on the first tick */
	bool has_syscalls, has_requests, has_loop;
	bool is_quic_possible;  /* some of its requests may pass unseen */
	const char *gc_runtime; /* "" when GC is unavailable */
	bool is_draining;
};

/* Between segment_writer_tick_begin and _end. */
void keeper_series_write(struct keeper_series *s, const struct keeper_values *v);

/* The gateway is gone: gauges become absent, counters stay as they are. */
void keeper_series_gone(struct keeper_series *s);
