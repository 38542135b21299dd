/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sealed frames on their way to aggregators: the spool, one uplink an aggregator, and what is logged
 * of them. The courier has one, and so has an aggregator that feeds another (the ferry). Loop
 * thread.
 */
#pragma once

#include "base/log.h"
#include "bus/spool.h"
#include "bus/uplink.h"
#include "cmd/tls_files.h"
#include "config/config.h"

#define DISPATCH_UPLINKS_MAX 8
#define DISPATCH_LINES       3

struct dispatch {
	const char *process; /* the name that is logged */
	struct spool *spool;
	struct uplink *uplinks[DISPATCH_UPLINKS_MAX];
	unsigned int uplink_count;
	struct tls_files tls;
	struct uplink_events events; /* ours to log; on_need_key is passed on */
	void (*on_need_key)(void *data);
	void *data;
	struct log_limit refusals;
	uint64_t flush_ns;
	bool is_disk_failing;
};

struct dispatch_options {
	const char *process; /* borrowed until close */
	const struct config *config;
	const char *twin_dir; /* spool_options */
	uint64_t life;        /* spool_options */
	/* An aggregator wants a key frame with definitions. */
	void (*on_need_key)(void *data);
	void *data;
};

/* What the books say; drops in the order of spool_drop_reasons, lines in that of
 * dispatch_line_states. */
struct dispatch_counts {
	uint64_t sent, acknowledged;
	uint64_t lines[DISPATCH_LINES];
	uint64_t timeouts, tls_loads, tls_failures;
	bool has_tls;
	double tls_lived_ratio; /* if so */
	uint64_t pending_bytes; /* for the aggregator that waits for most */
	uint64_t drops[SPOOL_DROPS];
};

extern const char *const dispatch_line_states[DISPATCH_LINES];

/* -EINVAL: an address of uplink.aggregators is none, or would need TLS, or needs the files of tls.*,
 * and e says which. Pure. */
int dispatch_check(const struct config *config, struct err *e);

/* Opens the spool; what is wrong with it is logged and survived but for -ENOMEM. */
int dispatch_open(struct dispatch *d, const struct dispatch_options *options);
/* One uplink for each of uplink.aggregators; what dispatch_check() refuses is logged and left out.
 * Of hello what says who we are: agent, labels, is_sum. */
void dispatch_connect(struct dispatch *d, struct loop *loop, const struct config *config,
		      const struct uplink_options *hello);
/* d may be all zero. */
void dispatch_close(struct dispatch *d);

/* spool_append as its next sequence, with ids below next_id given. Negative: the frame is gone, the
 * next must be a key frame. */
int dispatch_append(struct dispatch *d, uint32_t next_id, uint64_t time_ms, const uint8_t *data,
		    size_t size);
/* There are new frames; cursors are written down now and then. True when they were. */
bool dispatch_kick(struct dispatch *d, uint64_t now_ns);
/* Nothing waits for any aggregator. */
bool dispatch_is_done(const struct dispatch *d);
void dispatch_counts(const struct dispatch *d, struct dispatch_counts *ret);
