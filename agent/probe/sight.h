/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of a gateway's requests no system call shows: io_uring moves bytes without calls, HTTP/3
 * without connections. Looks at descriptors in /proc; no state. In the keeper and in doctor.
 */
#pragma once

#include "probe/gateways.h"
#include "probe/probe.h"

#define SIGHT_PROCESSES 16 /* of a gateway that are looked at */
#define SIGHT_DESCRIPTORS \
	128 /* the first ones of each: rings and listeners are made at the start */

struct sight {
	/* unavailable: io_uring, what is counted is not all; degraded: a listener of HTTP/3 beside */
	enum probe_state state;
	char why[256];
};

/* What cannot be looked at shows nothing. */
void sight_look(const struct gateway_found *gateway, struct sight *ret);
