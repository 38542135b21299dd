/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Call vote: the exported functions of Lua's C API that allocate all call the collector's step
 * function, which itself is hidden. The direct call target that they share is it. Pure; runs in
 * the finder's child.
 */
#pragma once

#include "probe/elffile.h"
#include "probe/flow.h"
#include "probe/symbols.h"

struct vote {
	uint64_t step;          /* address */
	uint64_t called;        /* what the voters call: step, or what does nothing but call it */
	unsigned int voters;    /* functions that are there */
	unsigned int votes;     /* of them, how many call it */
	unsigned int debt;      /* of those, how many compare 64-bit memory with 0 (Lua 5.2 on) */
	unsigned int threshold; /* … or with other memory (5.1) */
};

/* is_split: lua_gc calls another function than the rest, and that is what the rest's calls (Lua
 * 5.2: luaC_step checks a flag, then luaC_forcestep collects). -ENOENT: which symbol is missing, or
 * that they share no target. */
int vote_count(const struct elffile *f, const struct symbols *symbols, bool is_split,
	       struct flow *scratch, struct vote *ret, struct err *e);
