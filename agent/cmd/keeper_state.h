/* SPDX-License-Identifier: Apache-2.0 */
/* State of the keeper process, shared by keeper.c and keeper_gateways.c. */
#pragma once

#include "base/log.h"
#include "cmd/daemon.h"
#include "cmd/keeper.h"
#include "cmd/keeper_series.h"
#include "cmd/keeper_system.h"
#include "cmd/keeper_upstreams.h"
#include "probe/gateways.h"
#include "probe/records.h"
#include "probe/seeds.h"
#include "probe/sight.h"
#include "segment/writer.h"

/* One instance; its index is that of its record in host.seg and of its cells in BPF. */
struct watched {
	struct keeper_series *series;
	bool is_live;
	char gc_runtime[16];
	struct probe_gc_report gc;
	struct probe_tls_report tls;
	struct sight sight; /* of its requests */
	uint64_t sight_ns;
	unsigned int unwatched; /* threads, at the last scan */
	struct log_limit unwatched_limit;
	uint64_t integral_ns, integral_at_ns; /* of the tick before */
};

struct keeper {
	struct daemon_context *ctx;
	struct loop *loop;
	struct loop_watch *timer, *gc_timer, *scan_timer, *seed_timer;
	const char *scan_reason; /* "start", "interval", "listen" */
	struct segment_writer *segment;
	struct probe_set *probes;
	struct gateways *gateways;
	struct seeds *seeds;
	struct keeper_systems *systems;
	struct keeper_upstreams *upstreams;
	struct gateway_found *found; /* config->gateways_most of them */
	struct watched watched[SEGMENT_GATEWAYS];
	struct cells cells; /* scratch of a tick */
	uint64_t scanned_ns, interval_ns, interval_until_ns;
	bool is_scan_wanted, said_nothing_found, has_syscalls, has_requests, has_loop;
	int state_series[16], bias_series, sample_series, gap_series;
	uint64_t gap_from_ns, gap_ns; /* when counting stopped (0: it did not), and for how long */
	struct log_limit refused_limit, segment_limit, seeds_limit;
};

/* Record of an instance in host.seg. */
struct segment_gateway *keeper_record(struct keeper *k, unsigned int i);

/* Sends what programs told one by one to the courier, as events (keeper_events.c). */
void keeper_events(struct keeper *k);

/* Looks for gateways, watches what is new, marks what is gone. */
void keeper_scan(struct keeper *k);
/* Goes on taking up connections of before, for one slice of time. */
void keeper_seed(struct keeper *k);
