/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What gc.bpf.h and agent/probe/gc.c share. */
#pragma once

#include "types.h"

/* Cookie of a probe: frame size in the low half, flags above. */
#define GC_COOKIE_STEPPED (1ull << 32)
#define GC_COOKIE_CYCLE   (1ull << 33)

/* Low bits of slot.gc_sp (a stack pointer is a multiple of eight). */
#define GC_SLOT_FULL    1u
#define GC_SLOT_STEPPED 2u

#define GC_SAMPLES 2048u

/* What the probe itself adds, by how the kernel runs the probed instruction at entry: emulated,
 * single-stepped. */
struct gc_control {
	u64 how; /* enum uprobe_how of agent/probe: how the programs were loaded; 0: not measured yet */
	u64 bias_ns[2];
};

struct gc_calibration {
	u64 since_ns, count;
	u64 samples[GC_SAMPLES];
};
