/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From an ELF file to the places of its garbage collector: what is the same for every runtime.
 * Process: the finder's child; it owns what it reads and the scratch space.
 */
#include "probe/examine.h"
#include "probe/tlsfind.h"

#include "base/str.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static struct flow scratch, callee;

struct flow *examine_flow(void)
{
	return &scratch;
}

static int read_flow(const struct elffile *f, uint64_t start, uint64_t end, struct flow *flow)
{
	static uint8_t code[FLOW_CODE_MAX];
	size_t size = sizeof(code);
	int r;

	if (end > start && end - start < size)
		size = end - start;
	r = elffile_read_code(f, start, code, size, &size);
	if (r < 0)
		return r;
	return flow_decode(flow, f->header.e_machine, start, code, size);
}

uint64_t examine_case(const struct elffile *f, unsigned int number)
{
	const struct flow_leap *leap = &scratch.leap;
	int64_t distance;
	uint32_t raw = 0;

	if (leap->width == 0 || leap->width > sizeof(raw) || leap->base == 0 ||
	    elffile_read_data(f, leap->table + (uint64_t)number * leap->width, &raw, leap->width) <
		    0)
		return 0;
	distance = leap->is_signed ? (int64_t)(int32_t)(raw << (32 - 8 * leap->width)) >>
					     (32 - 8 * leap->width)
				   : raw;
	return leap->base + ((uint64_t)distance << (leap->shift & 7));
}

#define LUA_GCCOLLECT 2 /* lua.h, the same in Lua 5.1 to 5.4 and LuaJIT */

/* lua_gc is a switch, and only one of its cases is timed: with its exits alone, all other calls pass
 * no more than the entry probe. Where the table cannot be read, every exit stays. */
static void keep_collect_case(const struct elffile *f)
{
	uint64_t address = examine_case(f, LUA_GCCOLLECT);

	if (address)
		flow_only_case(&scratch, address);
}

/* The ways out of the function at an address, when it does more than a few instructions: it calls
 * others. -ENOENT when not. */
static int callee_points(const struct elffile *f, uint64_t address, struct finder_function *ret)
{
	uint64_t end;
	int r;

	r = elffile_next_function(f, address, &end);
	if (r == 0)
		r = read_flow(f, address, end, &callee);
	if (r == 0 && !flow_has_calls(&callee))
		r = -ENOENT;
	return r < 0 ? r : flow_points(&callee, true, ret);
}

/* A function that ends in a jump to another has not ended while that works (Lua 5.3 with -Os runs
 * finalizers so): then the exits of the other are its own. The stack is the same at both entries. */
static void follow_tail_calls(const struct elffile *f, struct finder_function *function)
{
	struct finder_function whole = *function, other;
	unsigned int i, j;

	whole.exit_count = 0;
	for (i = 0; i < function->exit_count; i++) {
		uint64_t target = flow_leaves_to(&scratch, function->exits[i].offset);

		other.exit_count = 1;
		other.exits[0] = function->exits[i];
		if (target && callee_points(f, target, &other) < 0) {
			other.exit_count = 1;
			other.exits[0] = function->exits[i];
		}
		if (whole.exit_count + other.exit_count > FINDER_EXITS_MAX)
			return;
		for (j = 0; j < other.exit_count; j++) {
			other.exits[j].flags &= ~(uint32_t)(target ? FINDER_CYCLE : 0);
			whole.exits[whole.exit_count++] = other.exits[j];
		}
	}
	*function = whole;
}

static int to_offset(const struct elffile *f, uint64_t *address)
{
	return elffile_offset(f, *address, address);
}

int examine_locate(const struct elffile *f, const char *name, uint64_t start, uint64_t end,
		   bool with_exits, struct finder_function *ret, struct err *e)
{
	struct finder_function found;
	unsigned int i;
	int r;

	r = read_flow(f, start, end, &scratch);
	if (r == 0 && str_equal(name, "lua_gc"))
		keep_collect_case(f);
	if (r == 0)
		r = flow_points(&scratch, with_exits, &found);
	if (r == 0)
		follow_tail_calls(f, &found);
	if (r == 0)
		r = to_offset(f, &found.offset);
	if (r == 0)
		r = to_offset(f, &found.entry.offset);
	for (i = 0; r == 0 && i < found.exit_count; i++)
		r = to_offset(f, &found.exits[i].offset);
	if (r < 0)
		return err_set(e, r, "%s: cannot tell where it is left (%s)", name, err_text(r));
	*ret = found;
	return 0;
}

int examine_place(const struct elffile *f, uint64_t address, struct finder_point *ret)
{
	struct finder_point point = {.frame = 0};
	int r;

	r = read_flow(f, address, address + 16, &scratch);
	if (r == 0)
		r = elffile_offset(f, address, &point.offset);
	if (r < 0)
		return r;
	point.flags = scratch.insns[0].is_emulated ? 0 : FINDER_STEPPED;
	*ret = point;
	return 0;
}

static void note_build_id(const struct elffile *f, struct finder_result *ret)
{
	uint8_t id[ELFFILE_BUILD_ID_MAX];
	size_t size = elffile_build_id(f, id), i;

	for (i = 0; i < size; i++)
		snprintf(ret->build_id + i * 2, 3, "%02x", id[i]);
}

void finder_examine(int fd, int debug_fd, struct finder_result *ret)
{
	struct elffile f = {.fd = -1};
	struct err e = {0};
	int r;

	memset(ret, 0, sizeof(*ret));
	r = elffile_init(&f, fd, &e);
	if (r == 0) {
		note_build_id(&f, ret);
		r = examine_go(&f, ret, &e);
		if (r == -ESRCH)
			r = examine_lua(&f, debug_fd, ret, &e);
		if (r == -ESRCH)
			r = examine_openjdk(&f, ret, &e);
		tlsfind(&f, &scratch, &ret->tls);
		elffile_fini(&f);
	}
	if (r == 0) {
		ret->is_found = 1;
		return;
	}
	ret->confidence = 0;
	ret->how[0] = ret->reason[0] = 0;
	/* No runtime in it is an answer, not a failure. */
	if (r != -ESRCH)
		str_copy(ret->why, sizeof(ret->why), e.text[0] ? e.text : err_text(r));
}
