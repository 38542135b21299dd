/* SPDX-License-Identifier: Apache-2.0 */
/* Step probes under a budget: they come and go, pinned or not, and lose nothing else. */
#include "gc_host.h"

/* Does what it is told, a line at a time: "step 100", "collect 13", "cycle 7" (in steps). */
static const char obedient[] =
	"if jit then jit.off() end local gc = collectgarbage gc('stop') local keep = {} "
	"for i = 1, 30000 do keep[i] = { i } end gc('collect') gc('stop') "
	"io.write('ready\\n') io.flush() for line in io.lines() do "
	"local what, n = line:match('(%a+) (%d+)') if not what then return end "
	"for i = 1, n do if what == 'cycle' then repeat until gc('step') else gc(what) end "
	"gc('stop') end io.write(n, '\\n') io.flush() end";

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
	uint64_t missed, cycles;
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
	/* And cycles, whoever makes them. */
	cycles = cells.gc_cycles;
	assert_int_equal(host_do(host, "cycle", 1).steps, 0);
	assert_true(cells.gc_cycles > cycles);
	cycles = cells.gc_cycles;
	assert_int_equal(host_do(host, "cycle", 7).steps, 0);
	assert_int_equal(cells.gc_cycles - cycles, 7);
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

/* NULL: no such row. */
static const struct probe_report *report_of(const struct probe_set *of, const char *name)
{
	size_t count;
	const struct probe_report *reports = probe_reports(of, &count);

	for (size_t i = 0; i < count; i++)
		if (!strcmp(reports[i].name, name))
			return &reports[i];
	return NULL;
}

static void pinned_steps_survive_the_keeper(void **state)
{
	struct host host = {.library = LIBS "libluajit-5.1.so.2"};
	struct probe_set *others = set;
	bool is_pinned;

	(void)state;
	assert_int_equal(open_set(&set, 100, PIN_DIR, 0), 0);
	is_pinned = report_of(set, "pin")->state == PROBE_OK;
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(steps_come_and_go_with_the_budget),
		cmocka_unit_test(a_step_without_its_end_hides_no_collection),
		cmocka_unit_test(pinned_steps_survive_the_keeper),
	};

	if (geteuid() != 0) {
		printf("1..0 # SKIP needs root (CAP_BPF, CAP_PERFMON)\n");
		return EXIT_DONE;
	}
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
