/* SPDX-License-Identifier: Apache-2.0 */
/*
 * require "tidegate" for PUC Lua 5.3 and 5.4 (HAProxy): libtidegate, which is linked in. One handle a
 * Lua state, made when it is first needed; a state runs on one thread at a time, so the handle does
 * too, whichever thread that is.
 *
 * Lua raises by longjmp: no function here holds a resource that Lua does not know of (see owner).
 */
#include "tidegate.h"

#include <lauxlib.h>
#include <lua.h>
#include <math.h>
#include <stdlib.h>

#if LUA_VERSION_NUM != 503 && LUA_VERSION_NUM != 504
#error "PUC Lua 5.3 or 5.4 is needed; for LuaJIT there is resty.tidegate"
#endif

/* The handle lives as long as anything that was bound through it: finalizers run in no order. */
struct owner {
	struct tidegate *t;
	unsigned int users;
	bool is_started;
};

struct metric {
	struct owner *owner;
	struct tidegate_metric *m;
	int label_count;
	int methods; /* upvalue of with() that has the metatable of its series */
};

struct series {
	uint64_t *cell;
	struct owner *owner;
};

enum { COUNTER = 1, GAUGE, HISTOGRAM, KINDS = HISTOGRAM };

/* Where a finalizer of somebody else may still write to. */
static uint64_t nowhere[TIDEGATE_HIST_CELLS];

static const char owner_key, metric_name[] = "tidegate.metric";

static int raise_error(lua_State *L)
{
	return luaL_error(L, "tidegate: %s", tidegate_error());
}

/* ---- the handle ---- */

static void owner_unref(struct owner *o)
{
	if (o && --o->users == 0) {
		tidegate_close(o->t);
		free(o);
	}
}

static int owner_gc(lua_State *L)
{
	struct owner **p = lua_touserdata(L, 1);

	owner_unref(*p);
	*p = NULL;
	return 0;
}

/* The state's handle. Raises when the options are bad. */
static struct owner *owner_of(lua_State *L)
{
	struct tidegate_options o = {.size = sizeof(o), .flags = TIDEGATE_FORK_AT_ONCE};
	struct owner **p;

	lua_rawgetp(L, LUA_REGISTRYINDEX, &owner_key);
	p = lua_touserdata(L, -1);
	lua_pop(L, 1);
	if (!*p) {
		luaL_error(L, "tidegate: the state is being closed");
		__builtin_unreachable();
	}
	if (!(*p)->t && tidegate_open(&o, &(*p)->t) < 0)
		raise_error(L);
	return *p;
}

static uint32_t option_count(lua_State *L, const char *name)
{
	lua_Integer n;
	int is_integer;

	if (lua_getfield(L, 1, name) == LUA_TNIL)
		return 0;
	n = lua_tointegerx(L, -1, &is_integer);
	if (!is_integer || n < 1 || n > UINT32_MAX)
		luaL_error(L, "tidegate: %s: a whole number from 1 on is needed, not %s", name,
			   luaL_tolstring(L, -1, NULL));
	return (uint32_t)n;
}

static const char *option_text(lua_State *L, const char *name)
{
	if (lua_getfield(L, 1, name) == LUA_TNIL)
		return NULL;
	if (lua_type(L, -1) != LUA_TSTRING)
		luaL_error(L, "tidegate: %s: text is needed, not a %s", name, luaL_typename(L, -1));
	return lua_tostring(L, -1);
}

/* init{runtime_dir, gateway, series, histograms}, before the first metric. Returns the module. */
static int tg_init(lua_State *L)
{
	struct tidegate_options o = {.size = sizeof(o), .flags = TIDEGATE_FORK_AT_ONCE};
	struct owner **p;

	luaL_checktype(L, 1, LUA_TTABLE);
	lua_rawgetp(L, LUA_REGISTRYINDEX, &owner_key);
	p = lua_touserdata(L, -1);
	if (!*p || (*p)->t)
		return luaL_error(L, "tidegate: init() comes before the first metric");
	/* The texts stay on the stack, and so alive. */
	o.runtime_dir = option_text(L, "runtime_dir");
	o.gateway = option_text(L, "gateway");
	o.series = option_count(L, "series");
	o.histograms = option_count(L, "histograms");
	if (tidegate_open(&o, &(*p)->t) < 0)
		return raise_error(L);
	lua_pushvalue(L, lua_upvalueindex(1));
	return 1;
}

/* ---- values: what a bound series can do; the metatable is the first upvalue ---- */

static inline uint64_t *cell_of(lua_State *L, const char *call)
{
	struct series *s = lua_touserdata(L, 1);

	if (!s || !lua_getmetatable(L, 1) || !lua_rawequal(L, -1, lua_upvalueindex(1)))
		luaL_error(L, "tidegate: call it as %s, on what with() returned", call);
	lua_pop(L, 1);
	return s->cell;
}

static int counter_inc(lua_State *L)
{
	tidegate_inc(cell_of(L, "counter:inc()"));
	return 0;
}

static int counter_add(lua_State *L)
{
	uint64_t *cell = cell_of(L, "counter:add(n)");
	int is_integer;
	lua_Integer n = lua_tointegerx(L, 2, &is_integer);

	if (!is_integer || n < 0)
		return luaL_error(L, "tidegate: a counter takes whole numbers from 0 on, not %s",
				  luaL_tolstring(L, 2, NULL));
	tidegate_add(cell, (uint64_t)n);
	return 0;
}

static int counter_get(lua_State *L)
{
	lua_pushinteger(L, (lua_Integer)*cell_of(L, "counter:get()"));
	return 1;
}

static double gauge_value(const uint64_t *cell)
{
	double value;

	memcpy(&value, cell, sizeof(value));
	return value;
}

static int gauge_set(lua_State *L)
{
	tidegate_set(cell_of(L, "gauge:set(value)"), luaL_checknumber(L, 2));
	return 0;
}

static int gauge_add(lua_State *L)
{
	uint64_t *cell = cell_of(L, "gauge:add(n)");
	double value = gauge_value(cell);

	tidegate_set(cell, (isnan(value) ? 0 : value) + luaL_checknumber(L, 2));
	return 0;
}

/* This process has no value until the next set() or add(). */
static int gauge_clear(lua_State *L)
{
	tidegate_set(cell_of(L, "gauge:clear()"), (double)NAN);
	return 0;
}

static int gauge_get(lua_State *L)
{
	lua_pushnumber(L, gauge_value(cell_of(L, "gauge:get()")));
	return 1;
}

static int histogram_observe(lua_State *L)
{
	tidegate_observe(cell_of(L, "histogram:observe(seconds)"), luaL_checknumber(L, 2));
	return 0;
}

static int series_gc(lua_State *L)
{
	struct series *s = lua_touserdata(L, 1);

	owner_unref(s->owner);
	*s = (struct series){.cell = nowhere};
	return 0;
}

/* ---- metrics ---- */

/* with(value, …): a series for as many label values as the metric has labels. Never fails for want
 * of room: what finds none counts in the series whose values are all "_overflow". */
static int metric_with(lua_State *L)
{
	struct metric *m = luaL_checkudata(L, 1, metric_name);
	const char *values[TIDEGATE_LABELS_MAX];
	struct series *s;

	if (!m->owner)
		return luaL_error(L, "tidegate: the metric was collected");
	if (lua_gettop(L) - 1 != m->label_count)
		return luaL_error(L, "tidegate: %d label values, %d are needed", lua_gettop(L) - 1,
				  m->label_count);
	luaL_checkstack(L, TIDEGATE_LABELS_MAX + 4, "label values");
	for (int i = 0; i < m->label_count; i++)
		values[i] = luaL_tolstring(L, i + 2, NULL);
	s = lua_newuserdata(L, sizeof(*s));
	*s = (struct series){.cell = nowhere};
	lua_pushvalue(L, lua_upvalueindex(m->methods));
	lua_setmetatable(L, -2);
	tidegate_with(m->m, values, &s->cell);
	s->owner = m->owner;
	m->owner->users++;
	return 1;
}

static int metric_gc(lua_State *L)
{
	struct metric *m = lua_touserdata(L, 1);

	owner_unref(m->owner);
	m->owner = NULL;
	return 0;
}

static int labels_take(lua_State *L, int at, const char *labels[TIDEGATE_LABELS_MAX + 1])
{
	int n = 0;

	if (lua_isnoneornil(L, at))
		return 0;
	luaL_checktype(L, at, LUA_TTABLE);
	luaL_checkstack(L, TIDEGATE_LABELS_MAX + 4, "labels");
	/* One too many is the library's to refuse. */
	while (n <= TIDEGATE_LABELS_MAX && lua_rawgeti(L, at, n + 1) != LUA_TNIL) {
		if (lua_type(L, -1) != LUA_TSTRING)
			luaL_error(L, "tidegate: label %d is a %s, not text", n + 1,
				   luaL_typename(L, -1));
		labels[n++] = lua_tostring(L, -1);
	}
	return n;
}

static int declare(lua_State *L, int kind, enum tidegate_merge merge)
{
	const char *name = luaL_checkstring(L, 1), *help = luaL_optstring(L, 3, "");
	const char *labels[TIDEGATE_LABELS_MAX + 1];
	struct owner *o = owner_of(L);
	struct metric *m;
	size_t n;
	int r;

	n = (size_t)labels_take(L, 2, labels);
	m = lua_newuserdata(L, sizeof(*m));
	*m = (struct metric){.label_count = (int)n, .methods = kind};
	luaL_setmetatable(L, metric_name);
	switch (kind) {
	case COUNTER:
		r = tidegate_counter(o->t, name, help, labels, n, &m->m);
		break;
	case GAUGE:
		r = tidegate_gauge(o->t, name, help, merge, labels, n, &m->m);
		break;
	default:
		r = tidegate_histogram(o->t, name, help, labels, n, &m->m);
	}
	if (r < 0)
		return raise_error(L);
	m->owner = o;
	o->users++;
	return 1;
}

static int tg_counter(lua_State *L)
{
	return declare(L, COUNTER, TIDEGATE_SUM);
}

static int tg_gauge(lua_State *L)
{
	static const char *const merges[] = {"sum", "max", "last", NULL};

	return declare(L, GAUGE, (enum tidegate_merge)luaL_checkoption(L, 4, "sum", merges));
}

static int tg_histogram(lua_State *L)
{
	return declare(L, HISTOGRAM, TIDEGATE_SUM);
}

/* ---- the gateway ---- */

static int tg_draining(lua_State *L)
{
	lua_pushboolean(L, tidegate_draining(owner_of(L)->t));
	return 1;
}

/* true, or nil and why there is no file; counting goes on in any case. */
static int tg_heartbeat(lua_State *L)
{
	if (tidegate_heartbeat(owner_of(L)->t) == 0) {
		lua_pushboolean(L, true);
		return 1;
	}
	lua_pushnil(L);
	lua_pushstring(L, tidegate_error());
	return 2;
}

/* A C function could not be resumed in the middle of a loop without more of it than this. */
static const char beat[] = "local heartbeat = ...\n"
			   "core.register_task(function()\n"
			   "	while true do heartbeat() core.msleep(1000) end\n"
			   "end)\n";

/* In HAProxy: heartbeat once a second, in a task of its own. */
static int tg_start(lua_State *L)
{
	struct owner *o = owner_of(L);

	if (o->is_started)
		return 0;
	if (lua_getglobal(L, "core") != LUA_TTABLE ||
	    lua_getfield(L, -1, "register_task") != LUA_TFUNCTION)
		return luaL_error(L, "tidegate: start() needs HAProxy's core.register_task; "
				     "elsewhere call heartbeat() about once a second");
	if (luaL_loadbuffer(L, beat, sizeof(beat) - 1, "=tidegate.start"))
		return lua_error(L);
	lua_pushcfunction(L, tg_heartbeat);
	lua_call(L, 1, 0);
	o->is_started = true;
	return 0;
}

/* ---- loading ---- */

static const luaL_Reg counter_methods[] = {
	{"inc", counter_inc}, {"add", counter_add}, {"get", counter_get}, {NULL, NULL}};
static const luaL_Reg gauge_methods[] = {{"set", gauge_set},
					 {"add", gauge_add},
					 {"get", gauge_get},
					 {"clear", gauge_clear},
					 {NULL, NULL}};
static const luaL_Reg histogram_methods[] = {{"observe", histogram_observe}, {NULL, NULL}};

/* Pushes the metatable of a kind of series. */
static void series_type(lua_State *L, const luaL_Reg *methods)
{
	lua_newtable(L);
	lua_newtable(L);
	lua_pushvalue(L, -2);
	luaL_setfuncs(L, methods, 1);
	lua_setfield(L, -2, "__index");
	lua_pushcfunction(L, series_gc);
	lua_setfield(L, -2, "__gc");
	lua_pushboolean(L, false);
	lua_setfield(L, -2, "__metatable"); /* a script may not take __gc and call it */
}

static void metric_type(lua_State *L)
{
	luaL_newmetatable(L, metric_name);
	lua_newtable(L);
	series_type(L, counter_methods);
	series_type(L, gauge_methods);
	series_type(L, histogram_methods);
	lua_pushcclosure(L, metric_with, KINDS);
	lua_setfield(L, -2, "with");
	lua_setfield(L, -2, "__index");
	lua_pushcfunction(L, metric_gc);
	lua_setfield(L, -2, "__gc");
	lua_pushboolean(L, false);
	lua_setfield(L, -2, "__metatable");
	lua_pop(L, 1);
}

static void owner_new(lua_State *L)
{
	struct owner **p = lua_newuserdata(L, sizeof(struct owner *));

	*p = NULL;
	lua_newtable(L);
	lua_pushcfunction(L, owner_gc);
	lua_setfield(L, -2, "__gc");
	lua_setmetatable(L, -2);
	*p = calloc(1, sizeof(**p));
	if (!*p)
		luaL_error(L, "tidegate: out of memory");
	(*p)->users = 1;
	lua_rawsetp(L, LUA_REGISTRYINDEX, &owner_key);
}

__attribute__((visibility("default"))) int luaopen_tidegate(lua_State *L);

int luaopen_tidegate(lua_State *L)
{
	static const luaL_Reg functions[] = {
		{"init", tg_init},         {"counter", tg_counter},
		{"gauge", tg_gauge},       {"histogram", tg_histogram},
		{"draining", tg_draining}, {"heartbeat", tg_heartbeat},
		{"start", tg_start},       {NULL, NULL},
	};

	luaL_checkversion(L);
	owner_new(L);
	metric_type(L);
	lua_newtable(L);
	lua_pushvalue(L, -1);
	luaL_setfuncs(L, functions, 1); /* the module itself is their upvalue */
	return 1;
}
