/* SPDX-License-Identifier: Apache-2.0 */
/* The Lua host: loading, order, wishes, and every way out of the sandbox that we know of. */
#include "drain/script.h"

#include "base/clock.h"
#include "base/str.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define CPU_NS (50 * NS_PER_MS)

struct bench {
	struct script_host *host;
	char dir[40];
	char problems[2048], log[4096], order[512], error[256], calls[512];
	unsigned int problem_count, ran, failed, done, log_lines;
	bool has_acted, is_manual;
	struct script_call last;
	char last_text[64];
};

static void on_call(void *data, const struct script_call *c)
{
	struct bench *b = data;
	struct script_answer a = {.is_ok = true, .text = "out", .number = 3};
	size_t used = strlen(b->calls);

	snprintf(b->calls + used, sizeof(b->calls) - used, "%s:%g:%s ", script_op_name(c->op),
		 c->number,
		 c->op == SCRIPT_SIGNAL ? c->text
		 : c->op == SCRIPT_EXEC ? c->argv[0]
					: "");
	b->last = *c;
	if (b->is_manual)
		return;
	if (c->op == SCRIPT_SIGNAL && str_equal(c->text, "KILL"))
		a = (struct script_answer){.is_ok = false, .text = "not allowed"};
	if (c->op == SCRIPT_NUMBERS) {
		a.pair_count = 1;
		strcpy(a.pairs[0].key, "in_flight");
		a.pairs[0].value = 42;
	}
	script_answer(b->host, c->run, c->call, &a);
}

static void on_hook_done(void *data, uint64_t run, const char *name, bool is_ok, uint32_t ms,
			 const char *error)
{
	struct bench *b = data;

	(void)run;
	(void)ms;
	strncat(b->order, name, sizeof(b->order) - strlen(b->order) - 2);
	strcat(b->order, " ");
	if (!is_ok)
		str_copy(b->error, sizeof(b->error), error);
}

static void on_run_done(void *data, uint64_t run, unsigned int ran, unsigned int failed,
			bool has_acted)
{
	struct bench *b = data;

	(void)run;
	b->ran = ran;
	b->failed = failed;
	b->has_acted = has_acted;
	b->done++;
}

static void on_log(void *data, const char *hook, const char *text)
{
	struct bench *b = data;
	size_t used;

	(void)hook;
	b->log_lines++;
	used = strlen(b->log);
	snprintf(b->log + used, sizeof(b->log) - used, "%s|", text);
}

static void on_problem(void *data, const char *text)
{
	struct bench *b = data;
	size_t used;

	b->problem_count++;
	used = strlen(b->problems);
	snprintf(b->problems + used, sizeof(b->problems) - used, "%s\n", text);
}

static void put(const struct bench *b, const char *name, const char *text)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", b->dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static int setup(void **state)
{
	struct bench *b = calloc(1, sizeof(*b));
	struct script_options options = {.hooks_dir = NULL,
					 .memory_bytes = 2u << 20,
					 .cpu_ns = CPU_NS,
					 .call = on_call,
					 .hook_done = on_hook_done,
					 .run_done = on_run_done,
					 .log = on_log,
					 .problem = on_problem,
					 .data = b};

	strcpy(b->dir, "/tmp/tidegate-script-XXXXXX");
	if (!mkdtemp(b->dir) || script_open(&options, &b->host, NULL) < 0)
		return -1;
	*state = b;
	return 0;
}

static int teardown(void **state)
{
	struct bench *b = *state;
	char command[80];

	script_close(b->host);
	snprintf(command, sizeof(command), "rm -rf %s", b->dir);
	if (system(command) != 0)
		return -1;
	free(b);
	return 0;
}

static void run_point(struct bench *b, const char *point)
{
	static uint64_t id;

	b->order[0] = b->error[0] = b->log[0] = b->calls[0] = '\0';
	assert_int_equal(
		script_start(b->host, &(struct script_event){.run = ++id,
							     .point = point,
							     .gateway = "edge",
							     .instance = "host/1",
							     .driver = "nginx",
							     .reason = "stop",
							     .deadline_ns = clock_mono_ns() +
									    10 * NS_PER_S}),
		0);
}

/* Runs a hook with this body; returns the error it ended with ("": none). */
static const char *run_body(struct bench *b, const char *body)
{
	char text[4096];

	snprintf(text, sizeof(text),
		 "tidegate.hook({name='t', point='drain.quiet', run=function(ctx)\n%s\nend})",
		 body);
	put(b, "10-t.lua", text);
	if (script_load_dir(b->host, b->dir) != 0)
		fail_msg("%s", b->problems);
	run_point(b, "drain.quiet");
	return b->error;
}

static void assert_has(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("no \"%s\" in \"%s\"", part, text);
}

static void test_wishes(void **state)
{
	struct bench *b = *state;

	run_body(b,
		 "assert(tidegate.wait_quiet(2) == true)\n"
		 "assert(tidegate.wait_in_flight() == true)\n"
		 "assert(tidegate.signal('QUIT') == true)\n"
		 "local no, why = tidegate.signal('KILL') assert(no == nil and why == 'not "
		 "allowed')\n"
		 "assert(tidegate.numbers().in_flight == 42)\n"
		 "tidegate.sleep(0.5)\n"
		 "local s, out = tidegate.exec({'/bin/x', 'a'}) assert(s == 3 and out == 'out')\n"
		 "assert(ctx.gateway == 'edge' and ctx.deadline_s() > 5 and ctx.reason == 'stop')");
	assert_string_equal(b->error, "");
	assert_string_equal(b->calls, "wait_quiet:2: wait_in_flight:0: signal:0:QUIT "
				      "signal:0:KILL numbers:0: sleep:0.5: exec:10:/bin/x ");
	assert_int_equal(b->ran, 1);
	assert_true(b->has_acted);
}

static void test_bad_arguments(void **state)
{
	struct bench *b = *state;

	assert_has(run_body(b, "tidegate.sleep(-1)"), "seconds must be");
}

static void test_nan(void **state)
{
	assert_has(run_body(*state, "tidegate.sleep(0/0)"), "seconds must be");
}

static void test_infinite_loop(void **state)
{
	assert_has(run_body(*state, "while true do end"), "CPU time");
}

static void test_pcall_cannot_swallow(void **state)
{
	assert_has(run_body(*state, "while true do pcall(function() while true do end end) end"),
		   "CPU time");
}

static void test_nested_pcall(void **state)
{
	assert_has(
		run_body(*state, "local function f() pcall(f) while true do pcall(f) end end f()"),
		"CPU time");
}

static void test_coroutine_shares_the_budget(void **state)
{
	assert_has(
		run_body(*state,
			 "while true do local c = coroutine.wrap(function() while true do end end)"
			 " pcall(c) end"),
		"CPU time");
}

static void test_coroutine_made_at_load(void **state)
{
	struct bench *b = *state;

	put(b, "10-a.lua",
	    "local co = coroutine.create(function() while true do end end)\n"
	    "tidegate.hook({name='a', point='drain.end', run=function()\n"
	    "  while true do coroutine.resume(co) end end})");
	assert_int_equal(script_load_dir(b->host, b->dir), 0);
	run_point(b, "drain.end");
	assert_has(b->error, "CPU time");
}

static void test_close_variable_is_bounded(void **state)
{
	assert_has(
		run_body(
			*state,
			"local x <close> = setmetatable({}, {__close = function() while true do end"
			" end}) while true do end"),
		"CPU time");
}

static void test_budget_is_of_one_hook(void **state)
{
	struct bench *b = *state;

	put(b, "10-a.lua",
	    "tidegate.hook({name='a', point='drain.end', run=function() while true do "
	    "end end})\ntidegate.hook({name='b', point='drain.end', run=function() "
	    "for i = 1, 100000 do end print('b ran') end})");
	assert_int_equal(script_load_dir(b->host, b->dir), 0);
	run_point(b, "drain.end");
	assert_int_equal(b->ran, 2);
	assert_int_equal(b->failed, 1);
	assert_has(b->log, "b ran");
}

static void test_memory_bomb(void **state)
{
	struct bench *b = *state;

	assert_has(run_body(b, "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(100000) .. i end"),
		   "memory");
	/* The host is as good as before. */
	run_point(b, "drain.quiet");
	assert_has(b->error, "memory");
}

static void test_memory_bomb_by_rep(void **state)
{
	assert_has(run_body(*state, "local s = ('x'):rep(1 << 30)"), "memory");
}

static void test_no_finalizers(void **state)
{
	assert_has(run_body(*state, "setmetatable({}, {__gc = function() while true do end end})"),
		   "__gc");
}

static void test_no_late_finalizer(void **state)
{
	struct bench *b = *state;

	/* Set after setmetatable, Lua does not mark it: it must never run. Whoever sees memory
	 * shrink for the second time has seen the end of a collection. */
	run_body(b, "local m = {} setmetatable({}, m) m.__gc = function() print('finalizer') end\n"
		    "for _ = 1, 2 do local last repeat last = collectgarbage('count')\n"
		    "local t = ('x'):rep(10000) until collectgarbage('count') < last end");
	assert_string_equal(b->error, "");
	assert_null(strstr(b->log, "finalizer"));
}

static void test_absent(void **state)
{
	static const char *const absent[] = {
		"io",         "debug",        "package",     "dofile",    "loadfile",
		"os.execute", "os.exit",      "os.remove",   "os.getenv", "os.tmpname",
		"os.rename",  "os.setlocale", "string.dump", "xpcall",    "math.randomseed"};
	struct bench *b = *state;
	char body[2048] = "";

	for (size_t i = 0; i < ARRAY_LEN(absent); i++) {
		size_t used = strlen(body);

		snprintf(body + used, sizeof(body) - used, "assert(%s == nil, '%s is there')\n",
			 absent[i], absent[i]);
	}
	assert_string_equal(run_body(b, body), "");
}

static void test_no_bytecode(void **state)
{
	assert_string_equal(run_body(*state, "local f, why = load('\\27Lua') assert(not f)\n"
					     "assert(why:find('binary'))\n"
					     "assert(load('return 1 + 1')() == 2)\n"
					     "assert(load('return x', 'n', 'bt', {x = 5})() == 5)\n"
					     "assert(not pcall(load, function() return nil end))"),
			    "");
}

static void test_guards(void **state)
{
	assert_string_equal(run_body(*state, "assert(getmetatable('') == false)\n"
					     "assert(not pcall(setmetatable, '', {}))\n"
					     "assert(not pcall(collectgarbage, 'stop'))\n"
					     "assert(collectgarbage('count') > 0)\n"
					     "assert(not pcall(require, '../../etc/passwd'))\n"
					     "assert(not pcall(require, 'a..b'))\n"
					     "assert(not pcall(tidegate.hook, {}))"),
			    "");
}

static void test_pattern_subject_is_bounded(void **state)
{
	assert_has(run_body(*state, "(('a'):rep(20000)):find('a-b')"), "matched against at most");
}

/* A C function cannot be interrupted: only the death of the process ends it. */
static void test_pathological_pattern_needs_the_kill(void **state)
{
	struct bench *b = *state;
	int status;
	pid_t pid = fork();

	if (!pid) {
		struct rlimit limit = {1, 1};

		setrlimit(RLIMIT_CPU, &limit);
		run_body(b, "(('a'):rep(16000)):find(('a-'):rep(30) .. 'b')");
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
}

static void test_foreign_yield(void **state)
{
	assert_has(run_body(*state, "coroutine.yield()"), "coroutine.yield");
}

static void test_wish_from_own_coroutine(void **state)
{
	assert_has(run_body(*state, "coroutine.wrap(function() tidegate.sleep(1) end)()"),
		   "not from a coroutine");
}

static void test_wish_inside_pcall(void **state)
{
	struct bench *b = *state;

	assert_string_equal(run_body(b, "assert(pcall(tidegate.sleep, 1))"), "");
	assert_has(b->calls, "sleep:1");
}

static void test_output_is_capped(void **state)
{
	struct bench *b = *state;

	run_body(b, "for i = 1, 200 do print(('x'):rep(1000)) end");
	assert_string_equal(b->error, "");
	assert_true(b->log_lines < 70);
}

static void test_order(void **state)
{
	struct bench *b = *state;

	put(b, "10-a.lua",
	    "local function h(n, t) t.name, t.point, t.run = n, 'drain.begin', function() end\n"
	    "tidegate.hook(t) end\n"
	    "h('last', {after = {'mid', 'first'}}) h('mid', {}) h('first', {before = 'mid'})");
	put(b, "20-b.lua",
	    "tidegate.hook({name='z', point='drain.begin', run=function() end,\n"
	    "before='nobody', after='who'})\n"
	    "tidegate.hook({name='hap', drivers='haproxy', point='drain.begin',\n"
	    "run=function() end})");
	put(b, "README", "this is no Lua");
	assert_int_equal(script_load_dir(b->host, b->dir), 0);
	run_point(b, "drain.begin");
	assert_string_equal(b->order, "first mid last z ");
}

static void test_cycle(void **state)
{
	struct bench *b = *state;

	put(b, "10-a.lua",
	    "for _, p in ipairs({{'a','b'},{'b','c'},{'c','a'}}) do tidegate.hook({name=p[1],\n"
	    "point='drain.stop', after=p[2], run=function() end}) end");
	assert_int_equal(script_load_dir(b->host, b->dir), 1);
	assert_has(b->problems, "circle");
	assert_has(b->problems, "\"a\"");
	assert_has(b->problems, "\"c\"");
	run_point(b, "drain.stop");
	assert_int_equal(b->ran, 0);
	assert_int_equal(b->done, 1);
}

static void test_syntax_error_skips_one_file(void **state)
{
	struct bench *b = *state;

	put(b, "10-bad.lua",
	    "tidegate.hook({name='x', point='drain.stop', run=function() end})\n"
	    "this is no Lua\n");
	put(b, "20-half.lua",
	    "tidegate.hook({name='h', point='drain.stop', run=function() end})\n"
	    "error('later')");
	put(b, "30-good.lua", "tidegate.hook({name='g', point='drain.stop', run=function() end})");
	assert_int_equal(script_load_dir(b->host, b->dir), 2);
	assert_has(b->problems, "10-bad.lua:2:");
	assert_has(b->problems, "20-half.lua:2: later");
	run_point(b, "drain.stop");
	assert_string_equal(b->order, "g ");
}

static void test_bad_hooks_are_named(void **state)
{
	struct bench *b = *state;

	put(b, "1.lua", "tidegate.hook({name='x', point='drain.stopp', run=function() end})");
	put(b, "2.lua", "tidegate.hook({name='x', point='drain.stop', befor='y', run=print})");
	put(b, "3.lua", "tidegate.hook({name='x', point='drain.stop'})");
	put(b, "4.lua", "tidegate.hook({name=('x'):rep(100), point='drain.stop', run=print})");
	put(b, "5.lua", "tidegate.hook(1)");
	put(b, "6.lua", "while true do end");
	put(b, "7.lua", "tidegate.sleep(1)");
	put(b, "8.lua", "\27Lua");
	assert_int_equal(script_load_dir(b->host, b->dir), 8);
	assert_has(b->problems, "did you mean drain.stop");
	assert_has(b->problems, "did you mean before");
	assert_has(b->problems, "CPU time");
	assert_has(b->problems, "only inside of a hook");
}

static void test_missing_directory(void **state)
{
	struct bench *b = *state;

	assert_int_equal(script_load_dir(b->host, "/nonexistent/hooks"), 1);
}

static void test_cancel_and_late_answers(void **state)
{
	struct bench *b = *state;
	struct script_answer a = {.is_ok = true, .text = ""};
	struct script_call c;

	b->is_manual = true;
	run_body(b, "tidegate.sleep(1) tidegate.sleep(2)");
	assert_int_equal(b->done, 0);
	c = b->last;
	script_answer(b->host, c.run, c.call + 7, &a); /* nobody's */
	script_answer(b->host, c.run + 1, c.call, &a);
	assert_string_equal(b->calls, "sleep:1: ");
	script_answer(b->host, c.run, c.call, &a);
	script_answer(b->host, c.run, c.call, &a); /* twice */
	assert_string_equal(b->calls, "sleep:1: sleep:2: ");
	script_cancel(b->host, c.run, "out of time");
	assert_int_equal(b->done, 1);
	assert_int_equal(b->failed, 1);
	assert_string_equal(b->error, "out of time");
	script_answer(b->host, c.run, b->last.call, &a);
	script_cancel(b->host, c.run, "again");
	assert_int_equal(b->done, 1);
}

static void test_many_runs(void **state)
{
	struct bench *b = *state;
	struct script_event e = {
		.point = "drain.quiet", .gateway = "", .instance = "", .driver = "", .reason = ""};

	b->is_manual = true;
	run_body(b, "tidegate.sleep(1)");
	for (e.run = 1000; e.run < 1000 + SCRIPT_RUNS_MAX - 1; e.run++)
		assert_int_equal(script_start(b->host, &e), 0);
	assert_int_equal(script_start(b->host, &e), -EBUSY);
	e.point = "nowhere";
	assert_int_equal(script_start(b->host, &e), -EINVAL);
}

static void test_shipped_library(void **state)
{
	struct bench *b = *state;
	struct script_options options = {.lua_dir = "lua",
					 .hooks_dir = b->dir,
					 .memory_bytes = 2u << 20,
					 .cpu_ns = CPU_NS,
					 .call = on_call,
					 .hook_done = on_hook_done,
					 .run_done = on_run_done,
					 .log = on_log,
					 .problem = on_problem,
					 .data = b};

	script_close(b->host);
	assert_int_equal(script_open(&options, &b->host, NULL), 0);
	assert_int_equal(script_load(b->host), 0);
	run_point(b, "drain.quiet");
	assert_string_equal(b->calls, "wait_quiet:-1: ");
	run_point(b, "drain.stop");
	assert_string_equal(b->calls, "signal:0:QUIT ");
	run_point(b, "drain.wait");
	assert_string_equal(b->calls, "wait_in_flight:0: ");

	/* A file of the same name takes the shipped one's place. */
	put(b, "50-drain.lua", "");
	script_close(b->host);
	assert_int_equal(script_open(&options, &b->host, NULL), 0);
	assert_int_equal(script_load(b->host), 0);
	run_point(b, "drain.stop");
	assert_int_equal(b->ran, 0);
}

#define HOST_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		HOST_TEST(test_wishes),
		HOST_TEST(test_bad_arguments),
		HOST_TEST(test_nan),
		HOST_TEST(test_infinite_loop),
		HOST_TEST(test_pcall_cannot_swallow),
		HOST_TEST(test_nested_pcall),
		HOST_TEST(test_coroutine_shares_the_budget),
		HOST_TEST(test_coroutine_made_at_load),
		HOST_TEST(test_close_variable_is_bounded),
		HOST_TEST(test_budget_is_of_one_hook),
		HOST_TEST(test_memory_bomb),
		HOST_TEST(test_memory_bomb_by_rep),
		HOST_TEST(test_no_finalizers),
		HOST_TEST(test_no_late_finalizer),
		HOST_TEST(test_absent),
		HOST_TEST(test_no_bytecode),
		HOST_TEST(test_guards),
		HOST_TEST(test_pattern_subject_is_bounded),
		HOST_TEST(test_pathological_pattern_needs_the_kill),
		HOST_TEST(test_foreign_yield),
		HOST_TEST(test_wish_from_own_coroutine),
		HOST_TEST(test_wish_inside_pcall),
		HOST_TEST(test_output_is_capped),
		HOST_TEST(test_order),
		HOST_TEST(test_cycle),
		HOST_TEST(test_syntax_error_skips_one_file),
		HOST_TEST(test_bad_hooks_are_named),
		HOST_TEST(test_missing_directory),
		HOST_TEST(test_cancel_and_late_answers),
		HOST_TEST(test_many_runs),
		HOST_TEST(test_shipped_library),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
