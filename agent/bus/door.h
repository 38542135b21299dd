/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The door: the aggregator's public listeners, without nanomsg. Requests (and asks for snapshots)
 * get one hop in front of their backtrace and go to the gate; replies find their connection by that
 * hop; what the gate publishes is fanned out. Only whole, checked messages go in.
 */
#pragma once

#include "base/err.h"
#include "base/loop.h"
#include "bus/credentials.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct door;

struct door_spec {
	const char *address, *bus_address, *snapshot_address; /* "" : none */
	const char *gate_dir;                                 /* the private directory */
	unsigned int connections;
	unsigned int subscribers;
	size_t subscriber_bytes; /* that may wait for each; 0: fanout's default */
	/* Of tls+tcp:// addresses, may be NULL; names: who may subscribe (bus/passport.h), none: all.
	 * Borrowed. */
	struct credentials *tls;
	const char *const *names;
	size_t name_count;
	struct turnstile *turnstile; /* borrowed; may be NULL */
	/* For tests; 0: 64 MiB of half-read messages, 16 MiB/s a connection. */
	size_t budget_bytes;
	uint64_t read_rate;
};

struct door_stats {
	unsigned int connections;
	uint64_t accepted, refused; /* refused: too many, or no memory */
	uint64_t hostile;           /* cut off: handshake, framing, size, backtrace, too slow */
	uint64_t requests, replies;
	uint64_t requests_dropped; /* the way to the gate was full; snapshots: too many at once */
	uint64_t replies_lost;     /* the connection was gone or its queue full */
	uint64_t budget_refused, stalls;
	uint64_t gate_connects;
	size_t queued_bytes;
	bool has_gate;
	struct {
		unsigned int subscribers;
		uint64_t published, dropped, hostile, refused;
	} bus;
};

int door_open(struct loop *loop, const struct door_spec *spec, struct door **ret, struct err *e);
struct door *door_close(struct door *d);
/* Subscribers connected now; no walk, unlike the statistics. */
unsigned int door_subscribers(const struct door *d);
void door_stats(const struct door *d, struct door_stats *ret);
/* Ports that were got, for tests: requests, bus, snapshots. */
void door_ports(const struct door *d, unsigned int ret[3]);
