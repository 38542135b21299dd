/* SPDX-License-Identifier: Apache-2.0 */
/* The collectors of LuaJIT and PUC Lua. Process: the finder's child. */
#include "probe/examine.h"

#include "base/str.h"
#include "probe/luastate.h"
#include "probe/symbols.h"
#include "probe/vote.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* The step: where it is, and what speaks for it. */
struct step {
	uint64_t start, end;
};

static const Elf64_Sym *find(const struct symbols *symbols, const char *name)
{
	enum symbols_from from;

	return symbols_find(symbols, name, &from);
}

static bool is_lua(const struct symbols *symbols)
{
	return find(symbols, "lua_newstate") || find(symbols, "luaL_newstate") ||
	       find(symbols, "lua_createtable") || find(symbols, "lua_gc");
}

static void name_lua(const struct symbols *symbols, struct finder_result *ret)
{
	static const struct {
		const char *symbol, *name;
	} marks[] = {
		{"lua_newuserdatauv", "lua5.4"},
		{"lua_rotate", "lua5.3"},
		{"lua_callk", "lua5.2"},
	};
	unsigned int i;

	if (find(symbols, "luaJIT_setmode") || find(symbols, "luaopen_jit")) {
		ret->runtime = FINDER_LUAJIT;
		str_copy(ret->name, sizeof(ret->name), "luajit");
		return;
	}
	ret->runtime = FINDER_PUC;
	str_copy(ret->name, sizeof(ret->name), "lua5.1");
	for (i = 0; i < ARRAY_LEN(marks); i++) {
		if (find(symbols, marks[i].symbol)) {
			str_copy(ret->name, sizeof(ret->name), marks[i].name);
			return;
		}
	}
}

static uint64_t end_of(const struct elffile *f, uint64_t start, uint64_t size)
{
	uint64_t end;

	if (size > 0 && size <= FLOW_CODE_MAX)
		return start + size;
	return elffile_next_function(f, start, &end) == 0 ? end : 0;
}

static int step_by_vote(const struct elffile *f, const struct symbols *symbols, bool is_split,
			struct finder_result *ret, struct step *step, struct err *e)
{
	unsigned int checked;
	struct vote vote;
	char through[48] = "";
	int r;

	r = vote_count(f, symbols, is_split, examine_flow(), &vote, e);
	if (r < 0)
		return r;
	str_copy(ret->how, sizeof(ret->how), "call-vote");
	ret->confidence = (double)vote.votes / vote.voters;
	step->start = vote.step;
	step->end = end_of(f, vote.step, 0);
	if (!step->end)
		return err_set(e, -ENOENT, "no .eh_frame_hdr says where the function at %#llx ends",
			       (unsigned long long)vote.step);
	if (vote.called != vote.step)
		snprintf(through, sizeof(through), " through %#llx",
			 (unsigned long long)vote.called);
	if (ret->runtime == FINDER_LUAJIT) {
		snprintf(ret->reason, sizeof(ret->reason), "%u of %u API functions call %#llx",
			 vote.votes, vote.voters, (unsigned long long)vote.step);
		return 0;
	}
	checked = str_equal(ret->name, "lua5.1") ? vote.threshold : vote.debt;
	if (checked * 2 <= vote.votes)
		return err_set(
			e, -ENOENT,
			"the call vote's winner is not called behind a check of the GC debt");
	/* lua_gc calls the inner step without a check. */
	is_split = vote.called != vote.step;
	ret->confidence *= (double)(checked + is_split) / vote.votes;
	snprintf(ret->reason, sizeof(ret->reason),
		 "%u of %u API functions call %#llx%s, %u of them behind a check of the GC debt",
		 vote.votes, vote.voters, (unsigned long long)vote.step, through, checked);
	return 0;
}

static int find_step(const struct elffile *f, const struct symbols *symbols,
		     struct finder_result *ret, struct step *step, struct err *e)
{
	/* Lua 5.2: the step that both lua_gc and luaC_step call. */
	bool is_split = str_equal(ret->name, "lua5.2");
	const char *name = ret->runtime == FINDER_LUAJIT ? "lj_gc_step"
			   : is_split                    ? "luaC_forcestep"
							 : "luaC_step";
	enum symbols_from from;
	const Elf64_Sym *sym;

	sym = symbols_find(symbols, name, &from);
	if (!sym)
		return step_by_vote(f, symbols, is_split, ret, step, e);
	str_copy(ret->how, sizeof(ret->how), symbols_name(from));
	ret->confidence = 1;
	snprintf(ret->reason, sizeof(ret->reason), "%s is named by %s", name, symbols_name(from));
	step->start = sym->st_value;
	step->end = end_of(f, sym->st_value, sym->st_size);
	return 0;
}

/* The body of LuaJIT's step says that it is one; PUC Lua's has no such mark. */
static int check_body(struct finder_result *ret, uint64_t start, struct err *e)
{
	size_t length = strlen(ret->reason);

	if (ret->runtime != FINDER_LUAJIT)
		return 0;
	if (!flow_stores_gc(examine_flow()))
		return err_set(e, -ENOENT,
			       "the function at %#llx is not lj_gc_step: it does not set the VM "
			       "state to GC",
			       (unsigned long long)start);
	snprintf(ret->reason + length, sizeof(ret->reason) - length,
		 "; its body writes ~LJ_VMST_GC");
	return 0;
}

/* LuaJIT's step has a way out of its own for that; PUC Lua's compares its state. Right after the
 * step was located: its flow is still there. Not to find it is no failure. */
static void locate_cycle(const struct elffile *f, const struct step *step,
			 struct finder_result *ret)
{
	struct finder_function cycle = {0};
	uint64_t address;
	unsigned int i;

	for (i = 0; i < ret->step.exit_count; i++) {
		if (ret->runtime == FINDER_LUAJIT && ret->step.exits[i].flags & FINDER_CYCLE)
			cycle.exits[cycle.exit_count++] = ret->step.exits[i];
	}
	if (ret->runtime == FINDER_PUC &&
	    luastate_cycle_end(f, step->start, step->end, &ret->heap, &address) == 0 &&
	    flow_point_at(examine_flow(), address, &cycle.exits[0]) == 0 &&
	    elffile_offset(f, address, &cycle.exits[0].offset) == 0)
		cycle.exit_count = 1;
	if (!cycle.exit_count)
		return;
	cycle.entry = cycle.exits[0];
	cycle.offset = cycle.entry.offset;
	ret->cycle = cycle;
}

/* Full collections, and what the same function says of the heap; to know that is no must. */
static int locate_full(const struct elffile *f, const Elf64_Sym *gc, struct finder_result *ret,
		       struct err *e)
{
	uint64_t end = end_of(f, gc->st_value, gc->st_size);
	int r;

	r = examine_locate(f, "lua_gc", gc->st_value, end, true, &ret->full, e);
	if (r == 0 &&
	    luastate_read(f, gc->st_value, end, examine_case(f, LUASTATE_COUNT), &ret->heap) < 0)
		ret->heap.count = 0;
	return r;
}

static int examine(const struct elffile *f, const struct symbols *symbols,
		   struct finder_result *ret, struct err *e)
{
	const Elf64_Sym *gc = find(symbols, "lua_gc");
	struct step step = {.start = 0};
	int r;

	name_lua(symbols, ret);
	if (!gc)
		return err_set(e, -ENOENT, "lua_gc is not exported");
	r = find_step(f, symbols, ret, &step, e);
	if (r == 0)
		r = locate_full(f, gc, ret, e);
	if (r < 0)
		return r;
	r = examine_locate(f, "the collector's step", step.start, step.end, true, &ret->step, e);
	if (r == 0)
		r = check_body(ret, step.start, e);
	if (r == 0)
		locate_cycle(f, &step, ret);
	return r;
}

int examine_lua(const struct elffile *f, int debug_fd, struct finder_result *ret, struct err *e)
{
	struct symbols symbols = {0};
	int r;

	r = symbols_read(&symbols, f, debug_fd, e);
	if (r < 0)
		return r;
	r = is_lua(&symbols) ? examine(f, &symbols, ret, e) : -ESRCH;
	symbols_free(&symbols);
	return r;
}
