/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sandbox: what of Lua's libraries a hook sees. An allow-list; what is not named is not there.
 * All functions here may raise and are called protected. Owns nothing.
 */
#include "drain/script_host.h"

#include "base/str.h"

#include <string.h>

/* No xpcall: an error that the CPU hook raises would call its handler inside of the hook, where Lua
 * calls no hooks: outside of every budget. */
static const char *const allowed_base[] = {
	"assert", "error",  "getmetatable", "ipairs", "next",     "pairs",    "pcall", "rawequal",
	"rawget", "rawlen", "rawset",       "select", "tonumber", "tostring", "type",
};
static const char *const allowed_string[] = {
	"byte",  "char", "find",     "format", "gmatch",  "gsub", "len",    "lower",
	"match", "pack", "packsize", "rep",    "reverse", "sub",  "unpack", "upper"};
static const char *const allowed_table[] = {"concat", "insert", "move",  "pack",
					    "remove", "sort",   "unpack"};
static const char *const allowed_math[] = {
	"abs",  "acos",   "asin", "atan", "ceil",       "cos",       "deg",        "exp",  "floor",
	"fmod", "huge",   "log",  "max",  "maxinteger", "min",       "mininteger", "modf", "pi",
	"rad",  "random", "sin",  "sqrt", "tan",        "tointeger", "type",       "ult"};
static const char *const allowed_utf8[] = {"char",  "charpattern", "codepoint",
					   "codes", "len",         "offset"};
static const char *const allowed_coroutine[] = {"close",   "create", "isyieldable", "resume",
						"running", "status", "wrap",        "yield"};
static const char *const allowed_os[] = {"clock", "date", "difftime", "time"};

/* Backtracking over a long subject is what no budget can interrupt. */
static const char *const bounded[] = {"find", "gmatch", "gsub", "match"};

/* Stack: … table. Drops every field that is not listed. */
static void keep_only(lua_State *L, const char *const *names, size_t n)
{
	lua_createtable(L, 0, (int)n); /* table kept */
	for (size_t i = 0; i < n; i++) {
		lua_getfield(L, -2, names[i]); /* table kept value */
		lua_setfield(L, -2, names[i]); /* table kept */
	}
	lua_pushnil(L); /* table kept nil */
	while (lua_next(L, -3)) {
		lua_pop(L, 1);        /* table kept key */
		lua_pushvalue(L, -1); /* table kept key key */
		lua_pushnil(L);       /* table kept key key nil */
		lua_rawset(L, -5);    /* table kept key */
	}
	for (size_t i = 0; i < n; i++) {
		lua_getfield(L, -1, names[i]); /* table kept value */
		lua_setfield(L, -3, names[i]); /* table kept */
	}
	lua_pop(L, 1); /* table */
}

static int call_bounded(lua_State *L)
{
	size_t len;

	luaL_checklstring(L, 1, &len);
	if (len > SCRIPT_SUBJECT_MAX)
		return luaL_error(L, "a pattern is matched against at most %d bytes, not %d",
				  (int)SCRIPT_SUBJECT_MAX, (int)len);
	lua_pushvalue(L, lua_upvalueindex(1));
	lua_insert(L, 1);
	lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
	return lua_gettop(L);
}

/* Finalizers run with hooks off: they would run outside of every budget. */
static int guarded_setmetatable(lua_State *L)
{
	luaL_checktype(L, 1, LUA_TTABLE);
	luaL_argexpected(L, lua_isnil(L, 2) || lua_istable(L, 2), 2, "nil or table");
	if (lua_istable(L, 2)) {
		lua_pushliteral(L, "__gc");
		if (lua_rawget(L, 2) != LUA_TNIL)
			return luaL_error(L, "__gc is not allowed in hooks");
		lua_pop(L, 1);
	}
	if (luaL_getmetafield(L, 1, "__metatable") != LUA_TNIL)
		return luaL_error(L, "cannot change a protected metatable");
	lua_settop(L, 2);
	lua_setmetatable(L, 1);
	return 1;
}

/* Only text, only strings: bytecode can crash the interpreter. */
static int guarded_load(lua_State *L)
{
	size_t len;
	const char *text = luaL_checklstring(L, 1, &len);
	const char *name = luaL_optstring(L, 2, "=(load)");
	bool has_env = lua_gettop(L) >= 4;

	if (luaL_loadbufferx(L, text, len, name, "t") != LUA_OK) {
		lua_pushnil(L);
		lua_insert(L, -2);
		return 2;
	}
	if (has_env) {
		lua_pushvalue(L, 4);
		if (!lua_setupvalue(L, -2, 1))
			lua_pop(L, 1);
	}
	return 1;
}

static int count_garbage(lua_State *L)
{
	const char *what = luaL_optstring(L, 1, "count");

	if (strcmp(what, "count") != 0)
		return luaL_error(L, "collectgarbage(\"%s\") is not allowed in hooks", what);
	lua_pushnumber(L, lua_gc(L, LUA_GCCOUNT) + lua_gc(L, LUA_GCCOUNTB) / 1024.0);
	return 1;
}

static int protect_library(lua_State *L, const char *name, lua_CFunction open,
			   const char *const *names, size_t n)
{
	luaL_requiref(L, name, open, 1); /* table */
	keep_only(L, names, n);
	return 1;
}

int host_open_sandbox(lua_State *L)
{
	luaL_requiref(L, "_G", luaopen_base, 1);
	keep_only(L, allowed_base, ARRAY_LEN(allowed_base));
	lua_pushcfunction(L, guarded_setmetatable);
	lua_setfield(L, -2, "setmetatable");
	lua_pushcfunction(L, guarded_load);
	lua_setfield(L, -2, "load");
	lua_pushcfunction(L, count_garbage);
	lua_setfield(L, -2, "collectgarbage");
	lua_pushliteral(L, LUA_VERSION);
	lua_setfield(L, -2, "_VERSION");
	protect_library(L, "table", luaopen_table, allowed_table, ARRAY_LEN(allowed_table));
	protect_library(L, "math", luaopen_math, allowed_math, ARRAY_LEN(allowed_math));
	protect_library(L, "utf8", luaopen_utf8, allowed_utf8, ARRAY_LEN(allowed_utf8));
	protect_library(L, "os", luaopen_os, allowed_os, ARRAY_LEN(allowed_os));
	protect_library(L, "coroutine", luaopen_coroutine, allowed_coroutine,
			ARRAY_LEN(allowed_coroutine));
	protect_library(L, "string", luaopen_string, allowed_string, ARRAY_LEN(allowed_string));
	for (size_t i = 0; i < ARRAY_LEN(bounded); i++) {
		lua_getfield(L, -1, bounded[i]);
		lua_pushcclosure(L, call_bounded, 1);
		lua_setfield(L, -2, bounded[i]);
	}
	/* The strings' metatable leads to the same table; nobody gets hold of it. */
	lua_pushliteral(L, "");
	if (lua_getmetatable(L, -1)) {
		lua_pushboolean(L, 0);
		lua_setfield(L, -2, "__metatable");
	}
	/* What a library left in the registry's table of loaded modules is out of reach:
	 * require() here never looks there. */
	lua_settop(L, 0);
	return 0;
}
