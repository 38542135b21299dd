/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files whose GC steps are timed under a budget: step probes come and go, those on full collections
 * stay. What the next keeper must know lies in the map gc_settings. Process: the keeper.
 */
#pragma once

#include "probe/finder.h"
#include "probe/gclink.h"

enum gcwatch_link {
	GC_STEP_EXIT,
	GC_STEP_ENTER,
	GC_FULL_EXIT,
	GC_FULL_ENTER,
	GC_CYCLE_END,
	GC_LINKS
};

struct gcwatch;

/* Takes up what the maps say. NULL: no memory. */
struct gcwatch *gcwatch_new(const struct probe_set *set, uint64_t budget_millionths);
struct gcwatch *gcwatch_free(struct gcwatch *w);

/* Index of the file in cookies and in gc_control.files; -ENOSPC. */
int gcwatch_index(struct probe_set *set, const struct gcfile *file);

/* Where the heaps of those who run this file are read. */
void gcwatch_heap(struct probe_set *set, unsigned int index, const struct finder_heap *heap);

/* Attaches all, or those on full collections and on ends of cycles if the file's steps are just not timed. Takes a
 * copy of the file's descriptor. cost_ns: of the probes of one step; stepped_cost_ns: more, when the
 * kernel single-steps the instruction at which it is left. */
int gcwatch_attach(struct probe_set *set, unsigned int index, enum uprobe_how how,
		   const struct gcfile *file, const struct gclink links[GC_LINKS], uint64_t cost_ns,
		   uint64_t stepped_cost_ns);

/* The gateway's collector is in this file; index -1: in one whose pauses are all timed. */
void gcwatch_gateway(struct probe_set *set, unsigned int gateway, int index);

/* The budget as text; "" when all is timed. */
void gcwatch_budget_text(const struct probe_set *set, char *buf, size_t size);
