/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections that processes had before they were watched, looked for in small steps: a thousand
 * workers have millions of descriptors. Owns the queue of processes and one reading of the socket
 * table. Keeper.
 */
#pragma once

#include "probe/gateways.h"

#include <stdbool.h>
#include <stdint.h>

#define SEEDS_MOST 16384 /* processes that wait */

struct seeds;

int seeds_new(struct seeds **ret);
struct seeds *seeds_free(struct seeds *s);

/* All threads of pid must be watched by now: what it accepts from here on is known without us. gateway
 * is an index below GATEWAYS; its ports are copied. -ENOSPC, -ENOMEM, -EINVAL. */
int seeds_add(struct seeds *s, pid_t pid, unsigned int gateway, const struct gateway_found *found);

/* Looks for about budget_ns (a table of sockets is read whole). Calls fn for each established
 * connection whose local end is one of the gateway's ports, for accepted unix connections, and for TCP
 * connections to upstreams (their local end is no port that anybody listens on). True: there is more. */
bool seeds_step(struct seeds *s, uint64_t budget_ns, void (*fn)(void *data, pid_t pid, int fd),
		void *data);
