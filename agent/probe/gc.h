/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GC probes of one keeper: which files they are attached to, and their bias. Inside agent/probe
 * only; probe.h is what others use.
 */
#pragma once

#include "probe/bias.h"
#include "probe/probe.h"
#include "probe/uprobe.h"

/* Descriptors of loaded programs and maps (bpf/gc.bpf.h); borrowed. */
struct gc_programs {
	int step_enter, step_exit, full_enter, full_exit;
	int world_stop, world_start, world_cycle;
	int bias_enter, bias_exit;
	int settings, calibrations; /* maps */
};

struct gc;

/* How programs of bpf/gc.bpf.h must be loaded (uprobe_attach_type); before they are. */
int gc_choose(const char *tier, enum uprobe_how *ret, struct err *e);

/* Calibrates. pin_dir: where links are pinned and adopted from; NULL: nowhere. Borrows nothing. */
int gc_open(enum uprobe_how how, const struct gc_programs *programs, const char *pin_dir,
	    struct gc **ret, struct err *e);
/* Closes descriptors; what is pinned stays attached. NULL is fine. */
struct gc *gc_close(struct gc *gc);

/* As probe_gc_attach(). */
int gc_attach(struct gc *gc, uint32_t pid, struct probe_gc_report *ret);

uint64_t gc_bias_ns(const struct gc *gc);
