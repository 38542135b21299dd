/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control protocol: one JSON object a line each way, over <runtime_dir>/control.sock. Pure.
 *
 *   {"op":"drain","gateway":null|"name","deadline_s":30,"wait":true}
 *       {"ok":true,"gateways":[{"gateway","instance"},…]}          at once
 *       {"report":{…}}                                             wait: one a gateway, at its end
 *       {"done":true,"code":0|1|3}                                 wait: the last line
 *   {"op":"undrain","gateway":null|"name"}     {"ok":true,"undrained":n}
 *   {"op":"profile","gateway":"name","seconds":10}
 *       {"ok":true,"id":"16 hex digits","until_mono_ns":n,"gateways":[{"gateway","instance"},…]}
 *   {"op":"status"}                            {"ok":true,"leases":[…],"gateways":[…]}
 *   anything else                              {"error":"…"}
 *
 * "gateway" is the label of a gateway, or of one instance.
 */
#pragma once

#include "base/err.h"

#include <stdint.h>

#define CONTROL_LINE_MAX       65536
#define CONTROL_DEADLINE_MAX_S 86400.0
#define CONTROL_PROFILE_MAX_S  300.0

enum control_op { CONTROL_DRAIN, CONTROL_UNDRAIN, CONTROL_STATUS, CONTROL_PROFILE };

struct control_request {
	enum control_op op;
	char gateway[64];     /* "": all */
	uint64_t deadline_ns; /* 0: as configured */
	uint64_t profile_ns;  /* CONTROL_PROFILE: how long */
	bool is_wait;
};

/* The line without its newline. -EINVAL with the reason in e; hostile input gets no further. */
int control_parse(const char *line, size_t size, struct control_request *ret, struct err *e);
