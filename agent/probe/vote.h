/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Call vote: the exported functions of Lua's C API that allocate all call the collector's step
 * function, which itself is hidden. The direct call target that they share is it. Pure; runs in
 * the finder's child.
 */
#pragma once

#include "probe/elffile.h"
#include "probe/flow.h"

struct vote {
	uint64_t step;        /* address */
	unsigned int voters;  /* functions that are exported */
	unsigned int votes;   /* of them, how many call it */
	bool is_debt_checked; /* most of those functions compare 64-bit memory with 0 (Lua 5.2 on) */
	bool is_threshold_checked; /* … or with a register (5.1) */
};

/* symbols: .dynsym (or .symtab). -ENOENT: which symbol is missing, or that they share no target. */
int vote_count(const struct elffile *f, const struct elffile_symbols *symbols, struct flow *scratch,
	       struct vote *ret, struct err *e);
