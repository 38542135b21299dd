/* SPDX-License-Identifier: Apache-2.0 */
/* The keeper process: what agent.c and doctor.c need to know of it. */
#pragma once

#include "base/process.h"
#include "config/config.h"
#include "probe/probe.h"

#include <sys/capability.h>

#define KEEPER_CAPS                                                                      \
	(PROCESS_CAP(CAP_BPF) | PROCESS_CAP(CAP_PERFMON) | PROCESS_CAP(CAP_SYS_PTRACE) | \
	 PROCESS_CAP(CAP_DAC_READ_SEARCH))

/* <bpffs>/tidegate/<agent id, made safe for a file name>; "" when pinning is off. */
void keeper_pin_dir(const struct config *config, char *buf, size_t size);

/* Options of the probes as configured; pin_dir is borrowed. */
struct probe_options keeper_probe_options(const struct config *config, const char *pin_dir);
