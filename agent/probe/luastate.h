/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a Lua of x86-64 keeps its collector's state, read from the code of lua_gc: what
 * LUA_GCCOUNT shifts right by ten is the heap in bytes, what LUA_GCSTEP compares says that a cycle
 * is complete. Pure but for reading the file; runs in the finder's child.
 */
#pragma once

#include "probe/elffile.h"
#include "probe/finder.h"

#define LUASTATE_COUNT 3u /* LUA_GCCOUNT of lua.h, the same in Lua 5.1 to 5.4 and LuaJIT */

/* gc, end: lua_gc; count: its case LUASTATE_COUNT, 0: not known. -ENOENT: not as expected,
 * -ENOTSUP: another machine. What is not found is 0 in *ret. */
int luastate_read(const struct elffile *f, uint64_t gc, uint64_t end, uint64_t count,
		  struct finder_heap *ret);

/* Address in luaC_step (start … end) that is passed once a cycle, at its end: where two comparisons of
 * the collector's state with "pause" lead, that of the loop and that behind it. -ENOENT. */
int luastate_cycle_end(const struct elffile *f, uint64_t start, uint64_t end,
		       const struct finder_heap *heap, uint64_t *ret);
