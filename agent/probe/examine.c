/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From an ELF file to the places of its garbage collector: symbol table, call vote, .gopclntab.
 * Process: the finder's child; it owns what it reads and the scratch space.
 */
#include "base/str.h"
#include "probe/elffile.h"
#include "probe/finder.h"
#include "probe/flow.h"
#include "probe/gopclntab.h"
#include "probe/sdt.h"
#include "probe/vote.h"

#include "base/cleanup.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static struct flow scratch;

/* ---- from an address to probe points ---- */

static int read_flow(const struct elffile *f, uint64_t start, uint64_t end)
{
	static uint8_t code[FLOW_CODE_MAX];
	size_t size = sizeof(code);
	int r;

	if (end > start && end - start < size)
		size = end - start;
	r = elffile_read_code(f, start, code, size, &size);
	if (r < 0)
		return r;
	return flow_decode(&scratch, start, code, size);
}

static int to_offset(const struct elffile *f, uint64_t *address)
{
	return elffile_offset(f, *address, address);
}

#define LUA_GCCOLLECT 2 /* lua.h, the same in Lua 5.1 to 5.4 and LuaJIT */

/* lua_gc is a switch, and only one of its cases is timed: with its exits alone, all other calls pass
 * no more than the entry probe. Where the table cannot be read, every exit stays. */
static void keep_collect_case(const struct elffile *f)
{
	uint64_t table = flow_leap_table(&scratch);
	int32_t distance;

	if (table &&
	    elffile_read_data(f, table + LUA_GCCOLLECT * 4, &distance, sizeof(distance)) == 0)
		flow_only_case(&scratch, table + (uint64_t)(int64_t)distance);
}

static int locate(const struct elffile *f, const char *name, uint64_t start, uint64_t end,
		  bool with_exits, struct finder_function *ret, struct err *e)
{
	struct finder_function found;
	unsigned int i;
	int r;

	r = read_flow(f, start, end);
	if (r == 0 && str_equal(name, "lua_gc"))
		keep_collect_case(f);
	if (r == 0)
		r = flow_points(&scratch, with_exits, &found);
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

/* ---- Lua ---- */

struct lua {
	struct elffile_symbols exported, all; /* .dynsym, .symtab */
};

static const Elf64_Sym *find(const struct lua *lua, const char *name)
{
	const Elf64_Sym *sym = elffile_find_symbol(&lua->exported, name);

	return sym ? sym : elffile_find_symbol(&lua->all, name);
}

static bool is_lua(const struct lua *lua)
{
	return find(lua, "lua_newstate") || find(lua, "luaL_newstate") ||
	       find(lua, "lua_createtable") || find(lua, "lua_gc");
}

static void name_lua(const struct lua *lua, struct finder_result *ret)
{
	static const struct {
		const char *symbol, *name;
	} marks[] = {
		{"lua_newuserdatauv", "lua5.4"},
		{"lua_rotate", "lua5.3"},
		{"lua_callk", "lua5.2"},
	};
	unsigned int i;

	if (find(lua, "luaJIT_setmode") || find(lua, "luaopen_jit")) {
		ret->runtime = FINDER_LUAJIT;
		str_copy(ret->name, sizeof(ret->name), "luajit");
		return;
	}
	ret->runtime = FINDER_PUC;
	str_copy(ret->name, sizeof(ret->name), "lua5.1");
	for (i = 0; i < ARRAY_LEN(marks); i++) {
		if (find(lua, marks[i].symbol)) {
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

static int find_step(const struct elffile *f, const struct lua *lua, struct finder_result *ret,
		     uint64_t *ret_start, uint64_t *ret_end, struct err *e)
{
	bool is_jit = ret->runtime == FINDER_LUAJIT;
	const Elf64_Sym *sym;
	struct vote vote;
	int r;

	sym = elffile_find_symbol(&lua->all, is_jit ? "lj_gc_step" : "luaC_step");
	if (sym) {
		str_copy(ret->how, sizeof(ret->how), "symtab");
		ret->confidence = 1;
		*ret_start = sym->st_value;
		*ret_end = end_of(f, sym->st_value, sym->st_size);
		return 0;
	}
	r = vote_count(f, lua->exported.count ? &lua->exported : &lua->all, &scratch, &vote, e);
	if (r < 0)
		return r;
	str_copy(ret->how, sizeof(ret->how), "call-vote");
	ret->confidence = (double)vote.votes / vote.voters;
	*ret_start = vote.step;
	*ret_end = end_of(f, vote.step, 0);
	if (!*ret_end)
		return err_set(e, -ENOENT, "no .eh_frame_hdr says where the function at %#llx ends",
			       (unsigned long long)vote.step);
	if (!is_jit &&
	    !(str_equal(ret->name, "lua5.1") ? vote.is_threshold_checked : vote.is_debt_checked))
		return err_set(
			e, -ENOENT,
			"the call vote's winner is not called behind a check of the GC debt");
	return 0;
}

static int examine_lua(const struct elffile *f, const struct lua *lua, struct finder_result *ret,
		       struct err *e)
{
	uint64_t start = 0, end = 0;
	const Elf64_Sym *gc;
	int r;

	name_lua(lua, ret);
	gc = find(lua, "lua_gc");
	if (!gc)
		return err_set(e, -ENOENT, "lua_gc is not exported");
	r = find_step(f, lua, ret, &start, &end, e);
	if (r < 0)
		return r;
	r = locate(f, "the collector's step", start, end, true, &ret->step, e);
	if (r < 0)
		return r;
	if (ret->runtime == FINDER_LUAJIT && !flow_stores_gc(&scratch))
		return err_set(e, -ENOENT,
			       "the function at %#llx is not lj_gc_step: it does not set the VM "
			       "state to GC",
			       (unsigned long long)start);
	return locate(f, "lua_gc", gc->st_value, end_of(f, gc->st_value, gc->st_size), true,
		      &ret->full, e);
}

static int read_lua_symbols(const struct elffile *f, struct lua *ret, struct err *e)
{
	int r;

	r = elffile_read_symbols(f, ".dynsym", &ret->exported, e);
	if (r < 0 && r != -ENOENT)
		return r;
	r = elffile_read_symbols(f, ".symtab", &ret->all, e);
	return r == -ENOENT ? 0 : r;
}

/* ---- Go ---- */

static const Elf64_Shdr *go_table(const struct elffile *f)
{
	const Elf64_Shdr *s = elffile_section(f, ".gopclntab");

	return s ? s : elffile_section(f, ".data.rel.ro.gopclntab");
}

static int examine_go(const struct elffile *f, const Elf64_Shdr *section, struct finder_result *ret,
		      struct err *e)
{
	struct gopclntab_function functions[] = {
		{.name = "runtime.stopTheWorldWithSema"},
		{.name = "runtime.startTheWorldWithSema"},
		{.name = "runtime.gcMarkTermination"},
	};
	struct finder_function *const places[] = {&ret->stop, &ret->start, &ret->cycle};
	_cleanup_free_ uint8_t *table = NULL;
	const char *version;
	unsigned int i;
	size_t size;
	int r;

	ret->runtime = FINDER_GO;
	str_copy(ret->name, sizeof(ret->name), "go");
	r = elffile_read_section(f, section, &table, &size, e);
	if (r < 0)
		return err_set(e, r, ".gopclntab");
	r = gopclntab_find(table, size, functions, ARRAY_LEN(functions), &version, e);
	if (r < 0)
		return r;
	for (i = 0; i < ARRAY_LEN(functions); i++) {
		if (!functions[i].start)
			return err_set(e, -ENOENT, "%s is not in .gopclntab", functions[i].name);
		r = locate(f, functions[i].name, functions[i].start, functions[i].end, false,
			   places[i], e);
		if (r < 0)
			return r;
	}
	str_copy(ret->how, sizeof(ret->how), "gopclntab");
	ret->confidence = 1;
	return 0;
}

/* ---- OpenJDK ---- */

/* Each place is a nop by itself; whether the kernel emulates it is said by its decoding. */
static int locate_sdt(const struct elffile *f, const struct sdt_probe *probe,
		      struct finder_function *ret, struct err *e)
{
	struct finder_function found = {.exit_count = probe->count};
	unsigned int i;
	int r = 0;

	_Static_assert(SDT_PLACES_MAX <= FINDER_EXITS_MAX, "all places fit");
	for (i = 0; i < probe->count && r == 0; i++) {
		r = read_flow(f, probe->places[i], probe->places[i] + 16);
		if (r == 0 && !scratch.insns[0].is_emulated)
			found.exits[i].flags = FINDER_STEPPED;
		if (r == 0)
			r = elffile_offset(f, probe->places[i], &found.exits[i].offset);
	}
	if (r == 0 && probe->semaphore)
		r = elffile_data_offset(f, probe->semaphore, &found.semaphore);
	if (r < 0)
		return err_set(e, r, "SDT probe %s:%s: no code at the place that it names",
			       probe->provider, probe->name);
	found.entry = found.exits[0];
	found.offset = found.entry.offset;
	*ret = found;
	return 0;
}

/* gc__begin and gc__end enclose what -Xlog:gc calls a pause (Serial, Parallel, G1 with remark and
 * cleanup), inside the safepoint, whose other operations are no collections. */
static int examine_openjdk(const struct elffile *f, struct finder_result *ret, struct err *e)
{
	const Elf64_Shdr *notes = elffile_section(f, ".note.stapsdt");
	const Elf64_Shdr *base = elffile_section(f, ".stapsdt.base");
	struct sdt_probe probes[] = {
		{.provider = "hotspot", .name = "gc__begin"},
		{.provider = "hotspot", .name = "gc__end"},
	};
	_cleanup_free_ uint8_t *data = NULL;
	size_t size;
	int r;

	if (!notes)
		return -ESRCH;
	r = elffile_read_section(f, notes, &data, &size, e);
	if (r < 0)
		return err_set(e, r, ".note.stapsdt");
	r = sdt_find(data, size, base ? base->sh_addr : 0, probes, ARRAY_LEN(probes));
	if (r == 0 && !probes[0].count && !probes[1].count)
		return -ESRCH; /* notes of something else */
	ret->runtime = FINDER_OPENJDK;
	str_copy(ret->name, sizeof(ret->name), "openjdk");
	if (r < 0)
		return err_set(e, r, ".note.stapsdt is damaged, or names too many places");
	if (!probes[0].count || !probes[1].count)
		return err_set(e, -ENOENT, "only one of hotspot:gc__begin and gc__end is there");
	r = locate_sdt(f, &probes[0], &ret->stop, e);
	if (r == 0)
		r = locate_sdt(f, &probes[1], &ret->start, e);
	if (r < 0)
		return r;
	ret->cycle = ret->start;
	str_copy(ret->how, sizeof(ret->how), "sdt");
	ret->confidence = 1;
	return 0;
}

/* ---- all ---- */

static int examine(const struct elffile *f, struct finder_result *ret, struct err *e)
{
	const Elf64_Shdr *table = go_table(f);
	struct lua lua = {0};
	int r;

	if (table)
		return examine_go(f, table, ret, e);
	r = read_lua_symbols(f, &lua, e);
	if (r == 0)
		r = is_lua(&lua) ? examine_lua(f, &lua, ret, e) : examine_openjdk(f, ret, e);
	elffile_free_symbols(&lua.exported);
	elffile_free_symbols(&lua.all);
	return r;
}

void finder_examine(int fd, struct finder_result *ret)
{
	struct elffile f = {.fd = -1};
	struct err e = {0};
	int r;

	memset(ret, 0, sizeof(*ret));
	r = elffile_init(&f, fd, &e);
	if (r == 0) {
		r = examine(&f, ret, &e);
		elffile_fini(&f);
	}
	if (r == 0) {
		ret->is_found = 1;
		return;
	}
	ret->confidence = 0;
	/* No runtime in it is an answer, not a failure. */
	if (r != -ESRCH)
		str_copy(ret->why, sizeof(ret->why), e.text[0] ? e.text : err_text(r));
}
