/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GC probes on real runtimes: exact counts of steps, full collections and cycles, and what a probe
 * must never do to a gateway. With arguments (PID [TID ...]) it is the counter of gc-nginx.t and of
 * the bench: it watches these and prints what was counted, a JSON line for each line read.
 */
#include "base/clock.h"
#include "base/str.h"
#include "metrics.h"
#include "probe/probe.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static struct cells cells;

static unsigned long count_of(enum gc_phase phase)
{
	return (unsigned long)histogram_count(cells.gc_ns[phase]);
}

static double ns_of(enum gc_phase phase)
{
	return histogram_sum(cells.gc_ns[phase]) * 1e9;
}

static void take_totals(struct probe_set *set)
{
	struct probe_now now;

	probe_heartbeat(set, clock_mono_ns());
	probe_totals(set, 0, clock_mono_ns(), &cells, &now);
}

static int open_set(struct probe_set **ret, uint64_t budget, const char *pin_dir, uint64_t adopt_id)
{
	const struct probe_options options = {
		.tier = "auto",
		.threads = 256,
		.connections = 1024,
		.sample = 1,
		.want_gc = true,
		.gc_budget = budget,
		.pin_dir = pin_dir,
		.slow_request_ns = NS_PER_S,
	};
	struct err e = {.text = ""};
	int r;

	histogram_thresholds();
	r = probe_open(&options, adopt_id, ret, &e);
	if (r < 0)
		fprintf(stderr, "gc: %s\n", e.text);
	else
		probe_heartbeat(*ret, clock_mono_ns());
	return r;
}

/* ---- a process with a Lua in it ---- */

#define LIBS "/usr/lib/x86_64-linux-gnu/"

struct host {
	const char *library;
	pid_t pid;
	FILE *in, *out; /* of its script: what we write, what it writes */
	struct probe_gc_report report;
	unsigned long step, full, cycles; /* counted before */
};

static struct probe_set *set;

__attribute__((noreturn)) static void host_main(const char *library, const char *script)
{
	void *lib = dlopen(library, RTLD_NOW | RTLD_GLOBAL), *state;
	void *(*new_state)(void) = NULL;
	void (*open_libs)(void *) = NULL;
	int (*load)(void *, const char *) = NULL, (*call)(void *, int, int, int) = NULL;
	int (*callk)(void *, int, int, int, intptr_t, void *) = NULL;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!lib)
		_exit(77);
	*(void **)&new_state = dlsym(lib, "luaL_newstate");
	*(void **)&open_libs = dlsym(lib, "luaL_openlibs");
	*(void **)&load = dlsym(lib, "luaL_loadstring");
	*(void **)&call = dlsym(lib, "lua_pcall");
	*(void **)&callk = dlsym(lib, "lua_pcallk");
	if (!new_state || !open_libs || !load || (!call && !callk))
		_exit(78);
	state = new_state();
	open_libs(state);
	if (load(state, script))
		_exit(79);
	_exit(callk ? callk(state, 0, 0, 0, 0, NULL) : call(state, 0, 0, 0));
}

static void host_start(struct host *host, const char *script)
{
	int to[2], from[2];
	char line[64];

	if (access(host->library, R_OK) < 0) {
		print_message("# SKIP %s is not installed\n", host->library);
		skip();
	}
	assert_int_equal(pipe(to), 0);
	assert_int_equal(pipe(from), 0);
	host->pid = fork();
	assert_true(host->pid >= 0);
	if (host->pid == 0) {
		dup2(to[0], 0);
		dup2(from[1], 1);
		/* Links as well: open here, they would outlive their detaching. */
		close_range(3, ~0U, 0);
		host_main(host->library, script);
	}
	close(to[0]);
	close(from[1]);
	host->in = fdopen(to[1], "w");
	host->out = fdopen(from[0], "r");
	assert_non_null(fgets(line, sizeof(line), host->out));
	assert_string_equal(line, "ready\n");
	assert_true(probe_watch_thread(set, 0, (uint32_t)host->pid, (uint32_t)host->pid,
				       ROLE_WORKER) >= 0);
	assert_int_equal(probe_gc_attach(set, 0, (uint32_t)host->pid, &host->report), 0);
	take_totals(set);
	host->step = count_of(GC_STEP);
	host->full = count_of(GC_FULL);
	host->cycles = (unsigned long)cells.gc_cycles;
}

/* Lets the script go on; the number that it writes. */
static unsigned long host_run(struct host *host)
{
	char line[64];

	fprintf(host->in, "go\n");
	fflush(host->in);
	if (!fgets(line, sizeof(line), host->out))
		fail_msg("the process with %s ended", host->library);
	take_totals(set);
	host->step = count_of(GC_STEP) - host->step;
	host->full = count_of(GC_FULL) - host->full;
	host->cycles = (unsigned long)cells.gc_cycles - host->cycles;
	return strtoul(line, NULL, 10);
}

static void host_end(struct host *host)
{
	int status;

	fclose(host->in);
	fclose(host->out);
	assert_int_equal(waitpid(host->pid, &status, 0), host->pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	probe_forget_process(set, (uint32_t)host->pid);
}

#define BEGIN                                                                \
	"if jit then jit.off() end collectgarbage('stop') local keep = {} "  \
	"for i = 1, 30000 do keep[i] = { i } end collectgarbage('collect') " \
	"collectgarbage('stop') io.write('ready\\n') io.flush() io.read('*l') "
#define END "io.write(n, '\\n') io.flush() io.read('*l')"

/* 7 cycles in steps, 13 at once; n is the number of steps. */
static const char counted[] =
	BEGIN "local n = 0 "
	      "for c = 1, 7 do repeat n = n + 1 until collectgarbage('step') end "
	      "for i = 1, 13 do collectgarbage('collect') collectgarbage('stop') end " END;

static void counts_are_exact(const char *library, const char *runtime, bool has_cycles)
{
	struct host host = {.library = library};
	unsigned long steps;

	host_start(&host, counted);
	assert_string_equal(host.report.runtime, runtime);
	assert_string_equal(host.report.how, "call-vote");
	assert_string_equal(host.report.object, realpath(library, NULL));
	assert_true(host.report.state != PROBE_UNAVAILABLE);
	steps = host_run(&host);
	assert_true(steps >= 7);
	assert_int_equal(host.step, steps);
	assert_int_equal(host.full, 13);
	assert_int_equal(host.cycles, has_cycles ? 7 + 13 : 13);
	host_end(&host);
}

static void luajit_is_counted_exactly(void **state)
{
	(void)state;
	counts_are_exact(LIBS "libluajit-5.1.so.2", "luajit", true);
}

static void lua53_is_counted_exactly(void **state)
{
	(void)state;
	counts_are_exact(LIBS "liblua5.3.so.0", "lua5.3", false);
}

static void lua54_is_counted_exactly(void **state)
{
	(void)state;
	counts_are_exact(LIBS "liblua5.4.so.0", "lua5.4", false);
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
	counts_are_exact(LIBS "libluajit-5.1.so.2", "luajit", true);
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

/* ---- the budget ---- */

/* Does what it is told, a line at a time: "step 100", "collect 13". */
static const char obedient[] =
	"if jit then jit.off() end local gc = collectgarbage gc('stop') local keep = {} "
	"for i = 1, 30000 do keep[i] = { i } end gc('collect') gc('stop') "
	"io.write('ready\\n') io.flush() for line in io.lines() do "
	"local what, n = line:match('(%a+) (%d+)') if not what then return end "
	"for i = 1, n do gc(what) gc('stop') end io.write(n, '\\n') io.flush() end";

/* What was counted of it: {steps, full collections}. */
struct done {
	unsigned long steps, full;
};

static struct done host_do(struct host *host, const char *what, unsigned int n)
{
	struct done done = {0};
	char line[64];

	take_totals(set);
	done.steps -= count_of(GC_STEP);
	done.full -= count_of(GC_FULL);
	fprintf(host->in, "%s %u\n", what, n);
	fflush(host->in);
	if (!fgets(line, sizeof(line), host->out))
		fail_msg("the process with %s ended", host->library);
	take_totals(set);
	done.steps += count_of(GC_STEP);
	done.full += count_of(GC_FULL);
	assert_int_equal(done.steps, cells.gc_steps - host->step);
	host->step = (unsigned long)cells.gc_steps;
	return done;
}

/* The kernel takes the last probe away a moment after it was told so. */
static void wait_until_not_timed(struct host *host)
{
	uint64_t deadline = clock_mono_ns() + 10 * NS_PER_S;

	while (host_do(host, "step", 1).steps && clock_mono_ns() < deadline)
		;
	assert_int_equal(host_do(host, "step", 100).steps, 0);
}

static struct probe_gc_now gc_now(void)
{
	struct probe_gc_now now;

	probe_gc_now(set, 0, &now);
	assert_true(now.is_known);
	return now;
}

static void follow_the_budget(struct host *host, uint64_t now)
{
	uint64_t missed;
	struct done done;

	probe_gc_tick(set, now);
	assert_int_equal(host_do(host, "step", 1000).steps, 1000);
	/* A second with a budget for some ten steps, of which a tenth of a CPU is the least. */
	probe_gc_tick(set, now + NS_PER_S);
	wait_until_not_timed(host);
	/* Full collections are counted whatever the budget says. */
	done = host_do(host, "collect", 13);
	assert_int_equal(done.full, 13);
	assert_int_equal(done.steps, 0);
	missed = gc_now().missed_ns;
	host_do(host, "step", 1000);
	probe_gc_tick(set, now + 2 * NS_PER_S);
	assert_true(gc_now().missed_ns > missed);
	assert_true(gc_now().observed_ratio < 1);
	assert_int_equal(host_do(host, "step", 100).steps, 0);
	/* The debt is paid. */
	probe_gc_tick(set, now + 3600 * NS_PER_S);
	assert_int_equal(host_do(host, "step", 1000).steps, 1000);
	assert_int_equal(host_do(host, "collect", 13).full, 13);
}

static void steps_come_and_go_with_the_budget(void **state)
{
	struct host host = {.library = LIBS "libluajit-5.1.so.2"};
	struct probe_set *others = set;
	int r;

	(void)state;
	r = open_set(&set, 100, NULL, 0);
	if (r == 0) {
		host_start(&host, obedient);
		host.step = (unsigned long)cells.gc_steps;
		follow_the_budget(&host, clock_mono_ns());
		fprintf(host.in, "end\n");
		host_end(&host);
		probe_close(set);
	}
	set = others;
	assert_int_equal(r, 0);
}

/* A step under way when the probes went has no end; what comes deeper in the stack is not part of it. */
static void a_step_without_its_end_hides_no_collection(void **state)
{
	static const char script[] =
		"jit.off() local gc = collectgarbage gc('stop') gc('collect') gc('stop') "
		"local is_in = false getmetatable(newproxy(true)).__gc = function() is_in = true "
		"io.write('in\\n') io.flush() io.read('*l') end "
		"io.write('ready\\n') io.flush() io.read('*l') "
		"while not is_in do gc('step') gc('stop') end "
		"io.write('out\\n') io.flush() io.read('*l') "
		"local function deep(n) if n == 0 then gc('collect') gc('stop') return '' end "
		"return (string.gsub('x', 'x', function() return deep(n - 1) end)) end deep(20) "
		"io.write('done\\n') io.flush() io.read('*l')";
	struct host host = {.library = LIBS "libluajit-5.1.so.2"}, other = host;
	struct probe_set *others = set;
	unsigned long full;
	uint64_t now;
	char line[64];

	(void)state;
	assert_int_equal(open_set(&set, 100, NULL, 0), 0);
	host_start(&host, script);
	host_start(&other, obedient);
	other.step = (unsigned long)cells.gc_steps;
	now = clock_mono_ns();
	probe_gc_tick(set, now);
	fprintf(host.in, "go\n");
	fflush(host.in);
	assert_non_null(fgets(line, sizeof(line), host.out));
	assert_string_equal(line, "in\n");
	take_totals(set);
	other.step = (unsigned long)cells.gc_steps;
	host_do(&other, "step", 1000);
	probe_gc_tick(set, now + NS_PER_S);
	wait_until_not_timed(&other);
	fprintf(host.in, "go\n");
	fflush(host.in);
	assert_non_null(fgets(line, sizeof(line), host.out));
	take_totals(set);
	full = count_of(GC_FULL);
	fprintf(host.in, "go\n");
	fflush(host.in);
	assert_non_null(fgets(line, sizeof(line), host.out));
	assert_string_equal(line, "done\n");
	take_totals(set);
	assert_int_equal(count_of(GC_FULL) - full, 1);
	fprintf(other.in, "end\n");
	host_end(&other);
	host_end(&host);
	probe_close(set);
	set = others;
}

#define PIN_DIR "/sys/fs/bpf/tidegate-test-gc/host"

/* The next keeper goes on from either state, and counts nothing twice. */
static void pinned_steps_come_and_go(struct host *host, uint64_t id)
{
	uint64_t now = clock_mono_ns(), missed;

	probe_gc_tick(set, now);
	assert_int_equal(host_do(host, "step", 1000).steps, 1000);
	set = probe_close(set);
	assert_int_equal(open_set(&set, 100, PIN_DIR, id), 0);
	assert_true(probe_is_adopted(set));
	/* Before the gateway is found again, and after. */
	assert_int_equal(host_do(host, "step", 70).steps, 70);
	assert_int_equal(probe_gc_attach(set, 0, (uint32_t)host->pid, &host->report), 0);
	assert_int_equal(host_do(host, "step", 70).steps, 70);
	probe_gc_tick(set, now + NS_PER_S);
	host_do(host, "step", 1000);
	probe_gc_tick(set, now + 2 * NS_PER_S);
	wait_until_not_timed(host);
	probe_gc_tick(set, now + 3 * NS_PER_S);
	missed = gc_now().missed_ns;
	assert_true(missed > 0);
	set = probe_close(set);
	/* Detached and without a keeper: only full collections. */
	assert_int_equal(open_set(&set, 100, PIN_DIR, id), 0);
	assert_true(probe_is_adopted(set));
	assert_int_equal(host_do(host, "step", 70).steps, 0);
	assert_int_equal(host_do(host, "collect", 13).full, 13);
	assert_int_equal(probe_gc_attach(set, 0, (uint32_t)host->pid, &host->report), 0);
	assert_true(gc_now().missed_ns == missed);
	assert_int_equal(host_do(host, "step", 70).steps, 70);
	assert_int_equal(host_do(host, "collect", 13).full, 13);
}

static void pinned_steps_survive_the_keeper(void **state)
{
	struct host host = {.library = LIBS "libluajit-5.1.so.2"};
	struct probe_set *others = set;
	bool is_pinned;

	(void)state;
	assert_int_equal(open_set(&set, 100, PIN_DIR, 0), 0);
	is_pinned = probe_reports(set, &(size_t){0})[5].state == PROBE_OK;
	if (is_pinned) {
		host_start(&host, obedient);
		host.step = (unsigned long)cells.gc_steps;
		pinned_steps_come_and_go(&host, probe_maps_id(set));
		fprintf(host.in, "end\n");
		host_end(&host);
	}
	set = probe_close(set);
	set = others;
	assert_int_equal(probe_unpin(PIN_DIR, NULL), 0);
	rmdir("/sys/fs/bpf/tidegate-test-gc");
	if (!is_pinned) {
		print_message("# SKIP no bpffs here\n");
		skip();
	}
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
		cmocka_unit_test(an_error_in_a_finalizer_stays_an_error),
		cmocka_unit_test(a_collection_inside_a_collection_counts_once),
		cmocka_unit_test(a_process_without_a_runtime_says_so),
		cmocka_unit_test(the_bias_was_measured),
		cmocka_unit_test(steps_come_and_go_with_the_budget),
		cmocka_unit_test(a_step_without_its_end_hides_no_collection),
		cmocka_unit_test(pinned_steps_survive_the_keeper),
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
