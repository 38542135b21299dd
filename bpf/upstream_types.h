/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Upstreams: where a gateway connects to. One record each, found by address; several threads write
 * to it, so all that is counted is counted by atomics. Beyond UPSTREAM_NAMES of a gateway, or with
 * the pool of `probe.upstreams` used up, all others of a gateway share its last record.
 * Included by types.h.
 */
#pragma once

#define UPSTREAM_NAMES 32u /* of one gateway */
#define UPSTREAM_BYTES 112 /* of an address; a unix socket's path has at most 108 */

/* Why an upstream failed; names in agent/probe/upstreams.c. */
enum upstream_error {
	UPSTREAM_REFUSED,     /* nobody listens there */
	UPSTREAM_TIMEOUT,     /* no answer as long as the gateway waited */
	UPSTREAM_RESET,       /* the connection was torn down */
	UPSTREAM_CLOSED,      /* its end came before the answer was complete */
	UPSTREAM_UNREACHABLE, /* no way there */
	UPSTREAM_OTHER,       /* also for want of something on our side: ports, a full backlog */
	UPSTREAM_ERRORS
};

/* The key of an upstream. What is not used is 0. */
struct upstream_address {
	u32 gateway;
	u16 family; /* AF_INET, AF_INET6 (never a mapped IPv4 address), AF_UNIX; 0: all others */
	u16 port;   /* as on the wire */
	u8 bytes[UPSTREAM_BYTES]; /* as on the wire; a unix socket's name, abstract ones from 0 on */
};

struct upstream {
	struct upstream_address address;
	u64 is_used; /* set last: the address is there */
	u64 errors[UPSTREAM_ERRORS];
	u64 connect_ns[TYPES_HIST_CELLS];
	u64 response_ns[TYPES_HIST_CELLS];
};
