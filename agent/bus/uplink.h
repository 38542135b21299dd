/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sender's line to one aggregator: takes frames from the spool, sends them as SP requests (a REP
 * socket of nanomsg or nng could answer them), and settles what is acknowledged. Several requests
 * are in flight at once; while a backlog drains, every other message carries what is new. Never
 * blocks. On trouble everything unacknowledged is simply sent again: the aggregator applies no frame
 * twice.
 */
#pragma once

#include "base/err.h"
#include "base/loop.h"
#include "bus/credentials.h"
#include "bus/spool.h"

#include <stdbool.h>
#include <stdint.h>

#define UPLINK_WINDOW         4u           /* requests in flight, by default */
#define UPLINK_MESSAGE_BYTES  (768u << 10) /* an SP message stays below 1 MiB */
#define UPLINK_MESSAGE_FRAMES 1024u
#define UPLINK_TIMEOUT_NS     5000000000ULL
#define UPLINK_REASONS        4u

struct uplink;

/* Called from the loop. Strings are borrowed for the call. */
struct uplink_events {
	void (*on_lost)(void *data, const char *address, const char *why);
	/* For another reason than the last one told; at most UPLINK_REASONS times an outage. */
	void (*on_still_lost)(void *data, const char *address, const char *why);
	void (*on_returned)(void *data, const char *address, uint64_t pending_frames);
	void (*on_refused)(void *data, const char *address, const char *why);
	/* The next frame must be a key frame with definitions. */
	void (*on_need_key)(void *data, const char *address);
	void *data;
};

struct uplink_options {
	const char *address; /* tcp://…, ipc://… or tls+tcp://… */
	const char *agent;
	const char *const *labels; /* key, value, key, value … */
	size_t label_count;        /* pairs, at most 8 */
	bool is_sum;               /* an aggregator's sums (Hello.sums) */
	uint64_t backoff_ns;       /* longest wait between two tries */
	uint64_t timeout_ns;       /* of a reply; 0: UPLINK_TIMEOUT_NS */
	unsigned int window;       /* 0: UPLINK_WINDOW; at most 16 */
	/* Of tls+tcp://, see bus/dialer.h; may be NULL without. */
	struct credentials *const *tls;
	struct uplink_events events;
};

struct uplink_stats {
	uint64_t messages, frames_sent, frames_acknowledged;
	uint64_t payload_bytes; /* of SP messages */
	uint64_t timeouts;
	uint64_t connects, failures, resumed; /* of connections, see bus/dialer.h */
	bool is_lost;
};

/* Opens its own cursor of the spool, which must outlive it. -EINVAL for an address that is none,
 * -EPERM for one beyond this host without TLS (e says why), -ENOSPC, -ENOMEM. That nobody is there is no error. */
int uplink_open(struct loop *loop, struct spool *spool, const struct uplink_options *options,
		struct uplink **ret, struct err *e);
struct uplink *uplink_close(struct uplink *u);

/* There are new frames in the spool. */
void uplink_kick(struct uplink *u);

/* The credentials changed: the connection is made anew with them, soon. */
void uplink_renew(struct uplink *u);

/* Frames and bytes that wait for this aggregator. */
uint64_t uplink_pending(const struct uplink *u, uint64_t *ret_frames);
void uplink_stats(const struct uplink *u, struct uplink_stats *ret);
