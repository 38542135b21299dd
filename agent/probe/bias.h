/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an entry and an exit probe add to the time between them (FACTS K7): measured on functions of
 * our own that do nothing, with the same kind of first instruction. Process: the keeper.
 */
#pragma once

#include "probe/uprobe.h"

#include <stdint.h>

enum bias_kind { BIAS_EMULATED, BIAS_STEPPED, BIAS_KINDS };

/* File offset in /proc/self/exe of the function's first instruction, or of its exit; 0 when this
 * architecture has none. */
uint64_t bias_entry_offset(enum bias_kind kind);
uint64_t bias_exit_offset(enum bias_kind kind);

/* Attaches both programs, calls the function, and gives the median of what was measured less what
 * a call takes without probes, and what both probes cost the caller. calibrations_fd: map
 * gc_calibrations. */
int bias_measure(enum uprobe_how how, int enter_fd, int exit_fd, int calibrations_fd,
		 enum bias_kind kind, uint64_t *ret_ns, uint64_t *ret_cost_ns, struct err *e);

/* Puts other things into the first-level cache: between its probes a gateway does so too. */
void bias_cool_cache(void);
