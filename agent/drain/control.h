/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control protocol: one JSON object a line each way, over <runtime_dir>/control.sock. Pure.
 *
 *   {"op":"drain","gateway":null|"name","deadline_s":30,"wait":true}
 *       {"ok":true,"gateways":[{"gateway","instance"},…]}          at once
 *       {"report":{…}}                                             wait: one a gateway, at its end
 *       {"done":true,"code":0|1|3}                                 wait: the last line
 *   {"op":"undrain","gateway":null|"name"}     {"ok":true,"undrained":n}
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

enum control_op { CONTROL_DRAIN, CONTROL_UNDRAIN, CONTROL_STATUS };

struct control_request {
	enum control_op op;
	char gateway[64];     /* "": all */
	uint64_t deadline_ns; /* 0: as configured */
	bool is_wait;
};

/* The line without its newline. -EINVAL with the reason in e; hostile input gets no further. */
int control_parse(const char *line, size_t size, struct control_request *ret, struct err *e);
