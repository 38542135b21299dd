/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gate: the aggregator's one process with nanomsg. Carries requests from the door to the core,
 * replies and published messages back. Its sockets, all in <runtime_dir>/private, and only for the
 * door: gate.req and gate.snap (PAIR; [backtrace][payload], the door's hop first), gate.pub (PUSH);
 * all in bundles (bus/bundle.h). Not XREP and PUB: both drop without a word whatever the kernel's socket buffer
 * does not take at once, while PAIR and PUSH say so and let us queue.
 */
#pragma once

#include "base/err.h"
#include "base/loop.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gate;

struct gate_stats {
	uint64_t requests, replies, published;
	uint64_t refused;                          /* requests with a bad backtrace */
	uint64_t replies_dropped, publish_dropped; /* the door is away or too slow */
	uint64_t core_connects;
	size_t queued_bytes;
	bool has_core;
};

/* dir: the private directory. */
int gate_open(struct loop *loop, const char *dir, struct gate **ret, struct err *e);
struct gate *gate_close(struct gate *g);
void gate_stats(const struct gate *g, struct gate_stats *ret);
