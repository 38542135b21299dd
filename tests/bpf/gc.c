/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GC probes on real runtimes: exact counts of steps, full collections and cycles, and what a probe
 * must never do to a gateway. With arguments (PID [TID ...]) it is the counter of gc-nginx.t and of
 * the bench: it watches these and prints what was counted, a JSON line for each line read.
 */
#include "gc_host.h"

/* 7 cycles in steps, 13 at once; n is the number of steps. */
static const char counted[] =
	BEGIN "local n = 0 "
	      "for c = 1, 7 do repeat n = n + 1 until collectgarbage('step') end "
	      "for i = 1, 13 do collectgarbage('collect') collectgarbage('stop') end " END;

static void counts_are_exact(const char *library, const char *runtime)
{
	struct host host = {.library = library};
	unsigned long steps;

	host_start(&host, counted);
	assert_string_equal(host.report.runtime, runtime);
	assert_string_equal(host.report.how, "call-vote");
	assert_string_equal(host.report.object, realpath(library, NULL));
	assert_string_equal(host.report.why, "");
	assert_int_equal(host.report.state, PROBE_OK);
	steps = host_run(&host);
	assert_true(steps >= 7);
	assert_int_equal(host.step, steps);
	assert_int_equal(host.full, 13);
	assert_int_equal(host.cycles, 7 + 13);
	host_end(&host);
}

static void luajit_is_counted_exactly(void **state)
{
	(void)state;
	counts_are_exact(LIBS "libluajit-5.1.so.2", "luajit");
}

static void lua53_is_counted_exactly(void **state)
{
	(void)state;
	counts_are_exact(LIBS "liblua5.3.so.0", "lua5.3");
}

static void lua54_is_counted_exactly(void **state)
{
	(void)state;
	counts_are_exact(LIBS "liblua5.4.so.0", "lua5.4");
}

/* What the state says of itself, right after it collected; then what it allocates is there too, also
 * when it was not seen collecting again. */
static void the_heap_is_what_lua_says(const char *library)
{
	static const char script[] =
		BEGIN "collectgarbage('collect') collectgarbage('stop') local n = "
		      "collectgarbage('count') * 1024 io.write(n, '\\n') io.flush() io.read('*l') "
		      "for i = 1, 20000 do keep[#keep + 1] = { i } end local n = "
		      "collectgarbage('count') * 1024 io.write(n, '\\n') io.flush() io.read('*l')";
	struct host host = {.library = library};
	unsigned long before, after;
	uint64_t now = clock_mono_ns();
	struct probe_gc_now gc;

	host_start(&host, script);
	before = host_run(&host);
	probe_gc_tick(set, now);
	probe_gc_now(set, 0, &gc);
	assert_true(gc.has_heap);
	/* The number was asked for and written since. */
	assert_true(gc.heap_bytes >= before && gc.heap_bytes < before + 16384);
	after = host_run(&host);
	assert_true(after > before + 20000 * sizeof(double));
	probe_gc_tick(set, now + NS_PER_S);
	probe_gc_now(set, 0, &gc);
	assert_true(gc.heap_bytes >= after && gc.heap_bytes < after + 16384);
	host_end(&host);
	probe_gc_tick(set, now + 2 * NS_PER_S);
	probe_gc_now(set, 0, &gc);
	assert_false(gc.has_heap);
}

static void the_heap_of_luajit(void **state)
{
	(void)state;
	the_heap_is_what_lua_says(LIBS "libluajit-5.1.so.2");
}

static void the_heap_of_lua53(void **state)
{
	(void)state;
	the_heap_is_what_lua_says(LIBS "liblua5.3.so.0");
}

static void the_heap_of_lua54(void **state)
{
	(void)state;
	the_heap_is_what_lua_says(LIBS "liblua5.4.so.0");
}

/* LuaJIT unwinds an error of a __gc metamethod through lj_gc_step and lua_gc. With a return probe on
 * them the unwinder meets a return address that is none, and the process ends in a panic. */
static void an_error_in_a_finalizer_stays_an_error(void **state)
{
	static const char script[] =
		BEGIN "local function thing() getmetatable(newproxy(true)).__gc = function() "
		      "error('x') end "
		      "end local n = 0 for i = 1, 20 do thing() "
		      "if not pcall(function() repeat until collectgarbage('step') end) then n = n "
		      "+ 1 end "
		      "thing() if not pcall(collectgarbage, 'collect') then n = n + 1 end end " END;
	struct host host = {.library = LIBS "libluajit-5.1.so.2"};

	(void)state;
	host_start(&host, script);
	assert_true(host_run(&host) > 0);
	/* Left by an error, some have no end; the next ones count again. */
	assert_true(host.step > 0);
	host_end(&host);
	counts_are_exact(LIBS "libluajit-5.1.so.2", "luajit");
}

/* A step that a finalizer makes inside a full collection is part of it. */
static void a_collection_inside_a_collection_counts_once(void **state)
{
	static const char script[] =
		BEGIN "local n = 0 for i = 1, 11 do "
		      "getmetatable(newproxy(true)).__gc = function() n = n + 1 "
		      "collectgarbage('step') end end "
		      "collectgarbage('collect') collectgarbage('stop') " END;
	struct host host = {.library = LIBS "libluajit-5.1.so.2"};

	(void)state;
	host_start(&host, script);
	assert_int_equal(host_run(&host), 11);
	assert_int_equal(host.full, 1);
	assert_int_equal(host.step, 0);
	assert_int_equal(host.cycles, 1);
	host_end(&host);
}

/* Another program; returns once it runs. */
static pid_t start_sleep(void)
{
	int ends[2];
	pid_t pid;
	char c;

	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execl("/bin/sleep", "sleep", "600", (char *)NULL);
		_exit(127);
	}
	close(ends[1]);
	assert_int_equal(read(ends[0], &c, 1), 0);
	close(ends[0]);
	return pid;
}

static void a_process_without_a_runtime_says_so(void **state)
{
	struct probe_gc_report report;
	pid_t pid = start_sleep();

	(void)state;
	assert_true(probe_gc_attach(set, 0, (uint32_t)pid, &report) < 0);
	assert_int_equal(report.state, PROBE_UNAVAILABLE);
	assert_string_equal(report.runtime, "");
	assert_string_equal(report.why,
			    "no LuaJIT, Lua, Go or Java runtime in what the process has mapped");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	assert_true(probe_gc_attach(set, 0, (uint32_t)pid, &report) < 0);
	assert_int_equal(report.state, PROBE_UNAVAILABLE);
	assert_true(report.why[0] != 0);
}

static void the_bias_was_measured(void **state)
{
	(void)state;
	assert_true(probe_gc_bias_ns(set) > 20);
	assert_true(probe_gc_bias_ns(set) < 100000);
	/* The way into the first probe and out of the last is not in the measure, but is paid. */
	assert_true(probe_gc_cost_ns(set) > probe_gc_bias_ns(set));
	assert_true(probe_gc_cost_ns(set) < 100000);
}

/* ---- the counter ---- */

#define COUNTER_TICK_NS NS_PER_S

static void print_totals(void)
{
	struct probe_gc_now gc;

	take_totals(set);
	probe_gc_now(set, 0, &gc);
	printf("{\"step\":%lu,\"step_ns\":%.0f,\"full\":%lu,\"full_ns\":%.0f,\"turn\":%lu,"
	       "\"turn_ns\":%.0f,\"stw\":%lu,\"stw_ns\":%.0f,\"cycles\":%lu,\"bias_ns\":%lu,"
	       "\"cost_ns\":%lu,\"missed_ns\":%lu,\"sum_ns\":%lu,\"observed\":%.3f}\n",
	       count_of(GC_STEP), ns_of(GC_STEP), count_of(GC_FULL), ns_of(GC_FULL),
	       count_of(GC_TURN), ns_of(GC_TURN), count_of(GC_STW), ns_of(GC_STW),
	       (unsigned long)cells.gc_cycles, (unsigned long)probe_gc_bias_ns(set),
	       (unsigned long)probe_gc_cost_ns(set), (unsigned long)gc.missed_ns,
	       (unsigned long)(cells.gc_sum_ns[GC_STEP] + cells.gc_sum_ns[GC_FULL] +
			       cells.gc_sum_ns[GC_STW]),
	       gc.observed_ratio);
	fflush(stdout);
}

static int watch(int argc, char **argv)
{
	struct probe_gc_report report;
	uint64_t pid = 0, tid;
	int r, i;

	for (i = 1; i < argc; i++) {
		r = str_to_u64(argv[i], &tid);
		if (r < 0)
			return r;
		pid = pid ? pid : tid;
		r = probe_watch_thread(set, 0, (uint32_t)pid, (uint32_t)tid, ROLE_WORKER);
		if (r < 0)
			return r;
	}
	r = probe_gc_attach(set, 0, (uint32_t)pid, &report);
	printf("{\"state\":%u,\"runtime\":\"%s\",\"how\":\"%s\",\"attach\":\"%s\","
	       "\"confidence\":%.2f,\"why\":\"%s\"}\n",
	       report.state, report.runtime, report.how, report.attach, report.confidence,
	       report.why);
	fflush(stdout);
	return r;
}

/* Ticks as the keeper does, and answers each line. */
static int count(int argc, char **argv)
{
	struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
	uint64_t now, next = 0;
	char line[64];
	int r;

	r = watch(argc, argv);
	while (r >= 0) {
		now = clock_mono_ns();
		if (now >= next) {
			probe_heartbeat(set, now);
			next = probe_gc_tick(set, now);
			next = now + (next ? next : COUNTER_TICK_NS);
		}
		r = poll(&in, 1, (int)((next - now) / NS_PER_MS) + 1);
		if (r <= 0)
			continue;
		if (read(STDIN_FILENO, line, sizeof(line)) <= 0)
			return EXIT_DONE;
		print_totals();
	}
	return EXIT_FAILED;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(luajit_is_counted_exactly),
		cmocka_unit_test(lua53_is_counted_exactly),
		cmocka_unit_test(lua54_is_counted_exactly),
		cmocka_unit_test(the_heap_of_luajit),
		cmocka_unit_test(the_heap_of_lua53),
		cmocka_unit_test(the_heap_of_lua54),
		cmocka_unit_test(an_error_in_a_finalizer_stays_an_error),
		cmocka_unit_test(a_collection_inside_a_collection_counts_once),
		cmocka_unit_test(a_process_without_a_runtime_says_so),
		cmocka_unit_test(the_bias_was_measured),
	};
	const char *budget = getenv("GC_BUDGET");
	uint64_t millionths = 0;
	int r;

	if (geteuid() != 0) {
		printf("1..0 # SKIP needs root (CAP_BPF, CAP_PERFMON)\n");
		return EXIT_DONE;
	}
	/* GC_BUDGET: millionths, for the counter; without it all steps are timed. */
	if (argc > 1 && budget && str_to_u64(budget, &millionths) < 0)
		return EXIT_FAILED;
	if (open_set(&set, millionths, NULL, 0) < 0)
		return EXIT_FAILED;
	if (argc > 1) {
		r = count(argc, argv);
	} else {
		cmocka_set_message_output(CM_OUTPUT_TAP);
		r = cmocka_run_group_tests(tests, NULL, NULL);
	}
	probe_close(set);
	return r;
}
