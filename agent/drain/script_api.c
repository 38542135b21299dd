/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table `tidegate` that hooks see, in its raw form; lua/tidegate.lua adds the comfort. All
 * functions here may raise and hold nothing that would have to be released.
 */
#include "drain/script_host.h"

#include "base/clock.h"
#include "base/str.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NUMBER_MAX 86400.0

/* luaL_error never comes back, but its declaration does not say so. */
__attribute__((noreturn)) static void refuse(lua_State *L, const char *why)
{
	luaL_error(L, "%s", why);
	__builtin_unreachable();
}

static struct host_run *run_of(lua_State *L)
{
	struct script_host *h = host_of(L);

	if (!h->active)
		refuse(L, "only inside of a hook, not while its file is loaded");
	if (h->active->co != L)
		refuse(L, "only from the hook itself, not from a coroutine of its own");
	return h->active;
}

/* After the answer: ok -> true (or what was asked for); not ok -> nil, reason. */
static int answered(lua_State *L, int status, lua_KContext context)
{
	struct host_run *run = host_of(L)->active;
	const struct script_answer *a = &run->answer;

	(void)status;
	(void)context;
	if (run->op == SCRIPT_EXEC && a->is_ok) {
		lua_pushinteger(L, (lua_Integer)a->number);
		lua_pushstring(L, a->text);
		return 2;
	}
	if (!a->is_ok) {
		lua_pushnil(L);
		lua_pushstring(L, a->text);
		return 2;
	}
	if (run->op != SCRIPT_NUMBERS) {
		lua_pushboolean(L, 1);
		return 1;
	}
	lua_createtable(L, 0, (int)a->pair_count);
	for (unsigned int i = 0; i < a->pair_count; i++) {
		double v = a->pairs[i].value;

		if (v == floor(v) && fabs(v) < 9e15)
			lua_pushinteger(L, (lua_Integer)v);
		else
			lua_pushnumber(L, v);
		lua_setfield(L, -2, a->pairs[i].key);
	}
	return 1;
}

static int wish(lua_State *L, struct host_run *run, enum script_op op)
{
	run->op = op;
	run->call_id = ++host_of(L)->calls;
	run->has_call = true;
	return lua_yieldk(L, 0, 0, answered);
}

static double check_number(lua_State *L, int index, double least, const char *what)
{
	double v = luaL_checknumber(L, index);

	if (!(v >= least && v <= NUMBER_MAX))
		luaL_error(L, "%s must be from %f to %f", what, least, NUMBER_MAX);
	return v;
}

static int api_sleep(lua_State *L)
{
	struct host_run *run = run_of(L);

	run->number = check_number(L, 1, 0, "seconds");
	return wish(L, run, SCRIPT_SLEEP);
}

static int api_wait_quiet(lua_State *L)
{
	struct host_run *run = run_of(L);

	run->number = lua_isnoneornil(L, 1) ? -1 : check_number(L, 1, 0, "seconds");
	return wish(L, run, SCRIPT_WAIT_QUIET);
}

static int api_wait_in_flight(lua_State *L)
{
	struct host_run *run = run_of(L);

	run->number = lua_isnoneornil(L, 1) ? 0 : check_number(L, 1, 0, "requests");
	return wish(L, run, SCRIPT_WAIT_IN_FLIGHT);
}

static int api_signal(lua_State *L)
{
	struct host_run *run = run_of(L);

	if (!str_copy(run->text, sizeof(run->text), luaL_checkstring(L, 1)))
		return luaL_error(L, "no such signal");
	return wish(L, run, SCRIPT_SIGNAL);
}

static int api_numbers(lua_State *L)
{
	return wish(L, run_of(L), SCRIPT_NUMBERS);
}

static int api_exec(lua_State *L)
{
	struct host_run *run = run_of(L);
	lua_Unsigned n;
	size_t used = 0;

	luaL_checktype(L, 1, LUA_TTABLE);
	n = lua_rawlen(L, 1);
	if (n < 1 || n > SCRIPT_ARGS_MAX)
		return luaL_error(L, "from 1 to %d arguments", SCRIPT_ARGS_MAX);
	run->number = lua_isnoneornil(L, 2) ? 10 : check_number(L, 2, 0.001, "timeout");
	for (lua_Unsigned i = 0; i < n; i++) {
		const char *arg;
		size_t len;

		if (lua_rawgeti(L, 1, (lua_Integer)i + 1) != LUA_TSTRING)
			return luaL_error(L, "argument %d must be a string", (int)i + 1);
		arg = lua_tolstring(L, -1, &len);
		if (len >= sizeof(run->args) - used || strlen(arg) != len)
			return luaL_error(L, "argument %d is too long or holds a NUL", (int)i + 1);
		memcpy(run->args + used, arg, len + 1);
		run->argv[i] = run->args + used;
		used += len + 1;
		lua_pop(L, 1);
	}
	run->argv[n] = NULL;
	return wish(L, run, SCRIPT_EXEC);
}

/* print and tidegate.log: one line, capped for each run. */
static int api_log(lua_State *L)
{
	struct script_host *h = host_of(L);
	struct host_run *run = h->active;
	int n = lua_gettop(L);
	size_t used = 0, room = sizeof(h->scratch) - 1;

	if (run)
		room = run->output < room ? room - run->output : 0;
	for (int i = 1; i <= n; i++) {
		size_t len;
		const char *text = luaL_tolstring(L, i, &len);

		if (i > 1 && used < room)
			h->scratch[used++] = ' ';
		if (len > room - used)
			len = room - used;
		memcpy(h->scratch + used, text, len);
		used += len;
		lua_pop(L, 1);
	}
	h->scratch[used] = '\0';
	if (run) {
		run->output += used + 1;
		if (!room) {
			if (!run->is_output_said)
				h->options.log(h->options.data,
					       h->hooks[run->order[run->position]].name,
					       "(further output is dropped)");
			run->is_output_said = true;
			return 0;
		}
	}
	h->options.log(h->options.data, run ? h->hooks[run->order[run->position]].name : h->loading,
		       h->scratch);
	return 0;
}

/* Field of the table at 1: nil, a string, or a list of strings. */
static void read_names(lua_State *L, const char *field, char names[HOST_LIST_MAX][HOST_NAME_BYTES])
{
	int type = lua_getfield(L, 1, field); /* … value */
	lua_Unsigned n;

	if (type == LUA_TSTRING) {
		if (!str_copy(names[0], HOST_NAME_BYTES, lua_tostring(L, -1)))
			luaL_error(L, "hook: a name in `%s` is too long", field);
	} else if (type == LUA_TTABLE) {
		n = lua_rawlen(L, -1);
		if (n > HOST_LIST_MAX)
			luaL_error(L, "hook: `%s` holds more than %d names", field, HOST_LIST_MAX);
		for (lua_Unsigned i = 0; i < n; i++) {
			if (lua_rawgeti(L, -1, (lua_Integer)i + 1) != LUA_TSTRING ||
			    !str_copy(names[i], HOST_NAME_BYTES, lua_tostring(L, -1)) ||
			    !names[i][0])
				luaL_error(L, "hook: `%s` must be a list of names", field);
			lua_pop(L, 1);
		}
	} else if (type != LUA_TNIL) {
		luaL_error(L, "hook: `%s` must be a name or a list of names", field);
	}
	lua_pop(L, 1);
}

static const char *const hook_fields[] = {"name", "point", "before", "after", "drivers", "run"};

static void check_fields(lua_State *L)
{
	lua_pushnil(L);
	while (lua_next(L, 1)) {
		const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
		const char *near = str_nearest(key, hook_fields, ARRAY_LEN(hook_fields));
		bool is_known = false;

		for (size_t i = 0; i < ARRAY_LEN(hook_fields); i++)
			is_known |= str_equal(hook_fields[i], key);
		if (!is_known)
			luaL_error(L, "hook: unknown field `%s`%s%s", key,
				   near ? ": did you mean " : "", near ? near : "");
		lua_pop(L, 1);
	}
}

static unsigned int read_point(lua_State *L)
{
	const char *point, *near;
	size_t n = 0;

	lua_getfield(L, 1, "point");
	point = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
	for (; script_points[n]; n++)
		if (str_equal(script_points[n], point))
			return (unsigned int)n;
	near = str_nearest(point, script_points, n);
	luaL_error(L, "hook: no point `%s`%s%s", point, near ? ": did you mean " : "",
		   near ? near : "");
	return 0;
}

static int api_hook(lua_State *L)
{
	struct script_host *h = host_of(L);
	struct host_hook *k;

	luaL_checktype(L, 1, LUA_TTABLE);
	lua_settop(L, 1);
	if (!h->loading || h->active)
		return luaL_error(L, "hook: only while a hook file is loaded");
	if (h->hook_count >= SCRIPT_HOOKS_MAX)
		return luaL_error(L, "hook: more than %d hooks", SCRIPT_HOOKS_MAX);
	check_fields(L);
	k = &h->hooks[h->hook_count];
	memset(k, 0, sizeof(*k));
	k->point = read_point(L);
	if (lua_getfield(L, 1, "name") != LUA_TSTRING ||
	    !str_copy(k->name, sizeof(k->name), lua_tostring(L, -1)) || !k->name[0])
		return luaL_error(L, "hook: `name` must be a string of 1 to %d bytes",
				  HOST_NAME_BYTES - 1);
	for (unsigned int i = 0; i < h->hook_count; i++)
		if (h->hooks[i].point == k->point && str_equal(h->hooks[i].name, k->name))
			return luaL_error(L, "hook: `%s` is there already, in %s", k->name,
					  h->hooks[i].file);
	read_names(L, "before", k->before);
	read_names(L, "after", k->after);
	read_names(L, "drivers", k->drivers);
	str_copy(k->file, sizeof(k->file), h->loading);
	if (lua_getfield(L, 1, "run") != LUA_TFUNCTION)
		return luaL_error(L, "hook: `run` must be a function");
	k->run_ref = luaL_ref(L, LUA_REGISTRYINDEX);
	h->hook_count++;
	return 0;
}

int host_open_api(lua_State *L)
{
	static const luaL_Reg functions[] = {{"hook", api_hook},
					     {"log", api_log},
					     {"sleep", api_sleep},
					     {"wait_quiet", api_wait_quiet},
					     {"wait_in_flight", api_wait_in_flight},
					     {"signal", api_signal},
					     {"numbers", api_numbers},
					     {"exec", api_exec},
					     {NULL, NULL}};

	luaL_newlib(L, functions);
	lua_setglobal(L, "tidegate");
	lua_pushcfunction(L, api_log);
	lua_setglobal(L, "print");
	return 0;
}
