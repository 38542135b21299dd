/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What gc.bpf.h and agent/probe/gc.c share. */
#pragma once

#include "types.h"

/* Cookie of a probe: frame size in the low half, flags above. */
#define GC_COOKIE_STEPPED (1ull << 32)
#define GC_COOKIE_SHORT   (1ull << 33) /* pointers of the collector have 32 bits */
#define GC_COOKIE_GLOBALS 34 /* six bits: where lua_State points to its global_State, / 4 */
#define GC_COOKIE_FILE    40 /* from this bit on: index in gc_control.files */

#define GC_FILES 16u /* files with a collector whose steps are timed */

/* Low bits of slot.gc_sp (a stack pointer is a multiple of eight). */
#define GC_SLOT_FULL    1u
#define GC_SLOT_STEPPED 2u

#define GC_SAMPLES 2048u

/* A file whose step probes come and go (agent/probe/gcwatch.c). */
struct gc_file {
	u64 device, inode;  /* 0, 0: free */
	u64 steps_since_ns; /* all steps since then are timed; GC_NOT_TIMED */
};

#define GC_NOT_TIMED (~0ull)

/* Written by the agent alone. */
struct gc_control {
	u64 how; /* enum uprobe_how of agent/probe: how the programs were loaded; 0: not measured yet */
	/* By how the kernel runs the probed instruction at entry: emulated, single-stepped. What both
	 * probes add to the measured time, and what they cost the process. */
	u64 bias_ns[2], cost_ns[2];
	struct gc_file files[GC_FILES];
	u64 missed_ns[GATEWAYS]; /* estimated: steps that were not timed */
};

struct gc_calibration {
	u64 since_ns, count;
	u64 samples[GC_SAMPLES];
	u64 cells[TYPES_HIST_CELLS]; /* so that the programs do the work of the real ones */
};
