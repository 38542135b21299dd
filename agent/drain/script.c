/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lua host: state, budgets, runs. Owns the Lua state; script process, `tidegate hooks`, tests.
 * No frame here holds a _cleanup_ variable across a raising Lua call (longjmp skips it).
 */
#include "drain/script.h"

#include "base/clock.h"
#include "base/str.h"
#include "drain/script_host.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Instructions between two looks at the CPU clock: about 10 us. */
#define HOOK_COUNT 1000

const char *const script_points[] = {"drain.begin", "drain.quiet", "drain.stop", "drain.wait",
				     "drain.end",   "terminate",   "start",      NULL};

static const char *const ops[SCRIPT_OPS] = {
	[SCRIPT_WAIT_QUIET] = "wait_quiet", [SCRIPT_WAIT_IN_FLIGHT] = "wait_in_flight",
	[SCRIPT_SIGNAL] = "signal",         [SCRIPT_NUMBERS] = "numbers",
	[SCRIPT_SLEEP] = "sleep",           [SCRIPT_EXEC] = "exec"};

const char *script_op_name(enum script_op op)
{
	return op < SCRIPT_OPS ? ops[op] : "?";
}

enum script_op script_op_find(const char *name)
{
	unsigned int i = 0;

	while (i < SCRIPT_OPS && !str_equal(ops[i], name))
		i++;
	return (enum script_op)i;
}

static int find_point(const char *point)
{
	for (int i = 0; script_points[i]; i++)
		if (str_equal(script_points[i], point))
			return i;
	return -EINVAL;
}

bool script_is_point(const char *point)
{
	return find_point(point) >= 0;
}

struct script_host *host_of(lua_State *L)
{
	return *(struct script_host **)lua_getextraspace(L);
}

/* Lua 5.4 passes a type tag as old size of a new block: that is no memory given back. */
static void *allocate(void *data, void *block, size_t old_size, size_t new_size)
{
	struct script_host *h = data;
	void *p;

	if (!block)
		old_size = 0;
	if (!new_size) {
		free(block);
		h->memory -= old_size;
		return NULL;
	}
	if (new_size > old_size && h->memory + (new_size - old_size) > h->options.memory_bytes) {
		h->memory_refused++;
		return NULL;
	}
	p = realloc(block, new_size);
	if (p)
		h->memory += new_size - old_size;
	return p;
}

/*
 * The budget. Once it is spent, every instruction raises: a pcall that catches one error meets the
 * next one at its next instruction. Coroutines inherit the hook, and all look at the same limit.
 */
static void watch(lua_State *L, lua_Debug *ar)
{
	struct script_host *h = host_of(L);

	(void)ar;
	if (!h->is_killed && clock_read_ns(CLOCK_THREAD_CPUTIME_ID) < h->cpu_limit_ns) {
		if (lua_gethookcount(L) != HOOK_COUNT)
			lua_sethook(L, watch, LUA_MASKCOUNT, HOOK_COUNT);
		return;
	}
	h->is_killed = true;
	lua_sethook(L, watch, LUA_MASKCOUNT | LUA_MASKLINE, 1);
	luaL_error(L, "the hook used more than %f s of CPU time (option drain.hook_cpu)",
		   (double)h->options.cpu_ns / 1e9);
}

uint64_t host_arm(struct script_host *h, lua_State *L, uint64_t budget_ns)
{
	uint64_t now_ns = clock_read_ns(CLOCK_THREAD_CPUTIME_ID);

	h->is_killed = false;
	h->cpu_limit_ns = now_ns + budget_ns;
	lua_sethook(L, watch, LUA_MASKCOUNT, HOOK_COUNT);
	return now_ns;
}

static void copy_error(lua_State *L, char *text, size_t size)
{
	/* lua_tostring would allocate for a number: only a string is a string here. */
	if (lua_type(L, -1) == LUA_TSTRING)
		str_copy(text, size, lua_tostring(L, -1));
	else
		str_copy(text, size, "an error that is no text");
}

int host_protect(struct script_host *h, lua_CFunction fn, void *arg, char *text, size_t size)
{
	int status;

	lua_pushcfunction(h->L, fn);
	lua_pushlightuserdata(h->L, arg);
	status = lua_pcall(h->L, 1, 0, 0);
	if (status == LUA_OK)
		return 0;
	copy_error(h->L, text, size);
	lua_settop(h->L, 0);
	return status == LUA_ERRMEM ? -ENOMEM : -EINVAL;
}

static int open_state(lua_State *L)
{
	lua_settop(L, 0);
	host_open_sandbox(L);
	lua_settop(L, 0);
	host_open_api(L);
	return 0;
}

int script_open(const struct script_options *options, struct script_host **ret, struct err *e)
{
	struct script_host *h = calloc(1, sizeof(*h));
	char why[256] = "out of memory";
	int r = -ENOMEM;

	if (!h)
		return err_set(e, -ENOMEM, "Lua: out of memory");
	h->options = *options;
	h->hooks = calloc(SCRIPT_HOOKS_MAX, sizeof(*h->hooks));
	h->runs = calloc(SCRIPT_RUNS_MAX, sizeof(*h->runs));
	if (h->hooks && h->runs)
		h->L = lua_newstate(allocate, h);
	if (h->L) {
		*(struct script_host **)lua_getextraspace(h->L) = h;
		h->cpu_limit_ns = UINT64_MAX;
		r = host_protect(h, open_state, NULL, why, sizeof(why));
	}
	if (r < 0) {
		script_close(h);
		return err_set(e, r, "Lua cannot start within %llu bytes: %s",
			       (unsigned long long)options->memory_bytes, why);
	}
	*ret = h;
	return 0;
}

struct script_host *script_close(struct script_host *h)
{
	if (!h)
		return NULL;
	if (h->L) {
		lua_sethook(h->L, NULL, 0, 0);
		lua_close(h->L);
	}
	for (unsigned int i = 0; h->runs && i < SCRIPT_RUNS_MAX; i++)
		free(h->runs[i].answer_text);
	free(h->hooks);
	free(h->runs);
	free(h);
	return NULL;
}

/* -------- order -------- */

static bool wants_driver(const struct host_hook *k, const char *driver)
{
	if (!k->drivers[0][0] || !driver)
		return true;
	for (unsigned int i = 0; i < HOST_LIST_MAX && k->drivers[i][0]; i++)
		if (str_equal(k->drivers[i], driver))
			return true;
	return false;
}

/* Hooks of a point in their order; none when they are in a circle (told when they were loaded). */
unsigned int host_order_point(const struct script_host *h, unsigned int point, const char *driver,
			      unsigned int *ret_order, struct err *e)
{
	struct order_hook *items = calloc(SCRIPT_HOOKS_MAX, sizeof(*items));
	unsigned int index[SCRIPT_HOOKS_MAX], order[SCRIPT_HOOKS_MAX], n = 0;

	if (!items)
		return 0;
	for (unsigned int i = 0; i < h->hook_count; i++) {
		const struct host_hook *k = &h->hooks[i];

		if (k->point != point || !wants_driver(k, driver))
			continue;
		items[n].name = k->name;
		for (unsigned int b = 0; b < HOST_LIST_MAX; b++) {
			items[n].before[b] = k->before[b][0] ? k->before[b] : NULL;
			items[n].after[b] = k->after[b][0] ? k->after[b] : NULL;
		}
		index[n++] = i;
	}
	if (order_hooks(items, n, order, e) < 0)
		n = 0;
	free(items);
	for (unsigned int i = 0; i < n; i++)
		ret_order[i] = index[order[i]];
	return n;
}

bool script_hook_at(const struct script_host *h, const char *point, const char *driver,
		    unsigned int i, struct script_hook_info *ret)
{
	unsigned int order[SCRIPT_HOOKS_MAX];
	int p = find_point(point);

	if (p < 0 || i >= host_order_point(h, (unsigned int)p, driver, order, NULL))
		return false;
	ret->name = h->hooks[order[i]].name;
	ret->file = h->hooks[order[i]].file;
	ret->point = point;
	return true;
}

/* -------- runs -------- */

struct prepare {
	struct script_host *h;
	struct host_run *run;
	const struct host_hook *hook;
};

static int deadline_s(lua_State *L)
{
	uint64_t deadline_ns = (uint64_t)lua_tointeger(L, lua_upvalueindex(1));
	uint64_t now_ns = clock_mono_ns();

	lua_pushnumber(L, deadline_ns > now_ns ? (double)(deadline_ns - now_ns) / 1e9 : 0);
	return 1;
}

static void set_field(lua_State *L, const char *key, const char *value)
{
	lua_pushstring(L, value); /* ctx value */
	lua_setfield(L, -2, key); /* ctx */
}

/* Makes the hook's coroutine with its function and ctx on its stack. */
static int prepare_hook(lua_State *L)
{
	struct prepare *p = lua_touserdata(L, 1);
	struct host_run *run = p->run;
	lua_State *co = lua_newthread(L); /* arg thread */

	lua_pushvalue(L, -1);                         /* arg thread thread */
	run->co_ref = luaL_ref(L, LUA_REGISTRYINDEX); /* arg thread */
	run->co = co;
	lua_rawgeti(L, LUA_REGISTRYINDEX, p->hook->run_ref); /* arg thread fn */
	lua_createtable(L, 0, 8);                            /* arg thread fn ctx */
	set_field(L, "gateway", run->gateway);
	set_field(L, "instance", run->instance);
	set_field(L, "driver", run->driver);
	set_field(L, "reason", run->reason);
	set_field(L, "point", script_points[run->point]);
	set_field(L, "hook", p->hook->name);
	lua_pushinteger(L, (lua_Integer)run->deadline_ns);
	lua_pushcclosure(L, deadline_s, 1);
	lua_setfield(L, -2, "deadline_s");
	lua_xmove(L, co, 2); /* arg thread */
	return 0;
}

static void drop_coroutine(struct script_host *h, struct host_run *run)
{
	if (!run->co)
		return;
	luaL_unref(h->L, LUA_REGISTRYINDEX, run->co_ref);
	run->co = NULL;
	run->has_call = run->is_answered = false;
	free(run->answer_text);
	run->answer_text = NULL;
}

static void end_hook(struct script_host *h, struct host_run *run, const char *error)
{
	const struct host_hook *k = &h->hooks[run->order[run->position]];
	uint64_t took_ns = clock_mono_ns() - run->hook_begin_ns;

	run->ran++;
	run->failed += *error ? 1 : 0;
	run->position++;
	drop_coroutine(h, run);
	h->options.hook_done(h->options.data, run->id, k->name, !*error,
			     (uint32_t)(took_ns / NS_PER_MS), error);
}

static void end_run(struct script_host *h, struct host_run *run)
{
	uint64_t id = run->id;

	run->is_used = false;
	h->options.run_done(h->options.data, id, run->ran, run->failed, run->has_acted);
}

/* Resumes the present hook once. True when it ended, with its error ("" for none). */
static bool resume(struct script_host *h, struct host_run *run, int args, char *error, size_t size)
{
	uint64_t left = h->options.cpu_ns > run->cpu_ns ? h->options.cpu_ns - run->cpu_ns : 1;
	uint64_t begin;
	int status, results = 0;

	h->active = run;
	run->has_call = false;
	begin = host_arm(h, run->co, left);
	status = lua_resume(run->co, h->L, args, &results);
	run->cpu_ns += clock_read_ns(CLOCK_THREAD_CPUTIME_ID) - begin;
	h->active = NULL;
	error[0] = '\0';
	if (status == LUA_YIELD && run->has_call)
		return false;
	if (status == LUA_YIELD)
		str_copy(error, size, "coroutine.yield() outside of a coroutine of the hook's own");
	else if (status != LUA_OK)
		copy_error(run->co, error, size);
	else if (h->is_killed)
		str_copy(error, size, "the hook used up its CPU time (option drain.hook_cpu)");
	h->is_killed = false;
	return true;
}

/* Goes on until the run waits for an answer or is over. */
static void go(struct script_host *h, struct host_run *run)
{
	char error[256];

	while (run->position < run->count) {
		int args = 0;

		if (!run->co) {
			struct prepare p = {h, run, &h->hooks[run->order[run->position]]};

			run->cpu_ns = 0;
			run->hook_begin_ns = clock_mono_ns();
			if (host_protect(h, prepare_hook, &p, error, sizeof(error)) < 0) {
				end_hook(h, run, error);
				continue;
			}
			args = 1;
		}
		if (resume(h, run, args, error, sizeof(error))) {
			end_hook(h, run, error);
			continue;
		}
		run->is_answered = false;
		run->is_calling = true;
		h->options.call(h->options.data, &(struct script_call){.run = run->id,
								       .call = run->call_id,
								       .op = run->op,
								       .number = run->number,
								       .text = run->text,
								       .argv = run->argv});
		run->is_calling = false;
		if (!run->is_answered)
			return;
	}
	end_run(h, run);
}

static struct host_run *find_run(struct script_host *h, uint64_t id)
{
	for (unsigned int i = 0; i < SCRIPT_RUNS_MAX; i++)
		if (h->runs[i].is_used && h->runs[i].id == id)
			return &h->runs[i];
	return NULL;
}

int script_start(struct script_host *h, const struct script_event *event)
{
	int point = find_point(event->point);
	struct host_run *run = NULL;

	if (point < 0)
		return -EINVAL;
	if (find_run(h, event->run))
		return -EEXIST;
	for (unsigned int i = 0; !run && i < SCRIPT_RUNS_MAX; i++)
		if (!h->runs[i].is_used)
			run = &h->runs[i];
	if (!run)
		return -EBUSY;
	memset(run, 0, sizeof(*run));
	run->is_used = true;
	run->id = event->run;
	run->point = (unsigned int)point;
	run->deadline_ns = event->deadline_ns;
	str_copy(run->gateway, sizeof(run->gateway), event->gateway);
	str_copy(run->instance, sizeof(run->instance), event->instance);
	str_copy(run->driver, sizeof(run->driver), event->driver);
	str_copy(run->reason, sizeof(run->reason), event->reason);
	run->count = host_order_point(h, run->point, event->driver[0] ? event->driver : NULL,
				      run->order, NULL);
	go(h, run);
	return 0;
}

void script_answer(struct script_host *h, uint64_t id, uint64_t call,
		   const struct script_answer *answer)
{
	struct host_run *run = find_run(h, id);

	if (!run || !run->co || !run->has_call || run->is_answered || run->call_id != call)
		return;
	free(run->answer_text);
	run->answer_text = strdup(answer->text ? answer->text : "");
	run->answer = *answer;
	run->answer.text = run->answer_text ? run->answer_text : "";
	if (run->answer.pair_count > SCRIPT_PAIRS_MAX)
		run->answer.pair_count = SCRIPT_PAIRS_MAX;
	if (run->op == SCRIPT_EXEC && answer->is_ok)
		run->has_acted = true;
	run->is_answered = true;
	if (!run->is_calling)
		go(h, run);
}

void script_cancel(struct script_host *h, uint64_t id, const char *why)
{
	struct host_run *run = find_run(h, id);

	if (!run)
		return;
	if (run->position < run->count)
		end_hook(h, run, why);
	end_run(h, run);
}

int script_find_lua_dir(const char *configured, char *buf, size_t size)
{
	char exe[PATH_MAX], probe[PATH_MAX + 64];
	static const char *const beside[] = {"/../lua", "/../share/tidegate/lua"};
	ssize_t n;

	if (*configured)
		return str_copy(buf, size, configured) ? 0 : -ENAMETOOLONG;
	n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	if (n > 0) {
		exe[n] = '\0';
		*strrchr(exe, '/') = '\0';
		for (size_t i = 0; i < ARRAY_LEN(beside); i++) {
			snprintf(probe, sizeof(probe), "%s%s/tidegate.lua", exe, beside[i]);
			if (access(probe, R_OK) < 0)
				continue;
			*strrchr(probe, '/') = '\0';
			return str_copy(buf, size, probe) ? 0 : -ENAMETOOLONG;
		}
	}
	return str_copy(buf, size, "/usr/share/tidegate/lua") ? 0 : -ENAMETOOLONG;
}
