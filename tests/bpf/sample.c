/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calls that are timed stand for those that are not, and how many are timed follows the budget: this
 * program watches itself, by each rung that works here. TAP; as root.
 */
#include "rungs.h"

#include <sys/syscall.h>

#define CALLS 40009u

static struct cells cells;

static struct probe_set *open_set(unsigned int sample, uint64_t budget)
{
	const struct probe_options options = {
		.tier = tier,
		.threads = 8,
		.connections = 64,
		.sample = sample,
		.cost_budget = budget,
		.gateways = 1,
		.slow_request_ns = NS_PER_S,
	};
	struct probe_set *set;

	return open_rung(&options, &set) ? set : NULL;
}

static void call(unsigned int times)
{
	while (times--)
		syscall(SYS_read, -1, NULL, 0);
}

/* Calls of read, and what its histogram holds. */
static uint64_t totals(struct probe_set *set, uint64_t *ret_timed)
{
	struct probe_now now;

	probe_totals(set, 0, clock_mono_ns(), &cells, &now);
	*ret_timed = 0;
	for (unsigned int i = 0; i < TYPES_HIST_CELLS; i++)
		*ret_timed += cells.syscall_ns[SYSCALL_read][i];
	return cells.syscalls[SYSCALL_read];
}

/* 16: about 2,500 are timed, of which 2 % are the standard deviation; 20 % are refused. */
static void test_weights(unsigned int every)
{
	struct probe_set *set = open_set(every, 0);
	uint32_t pid = (uint32_t)getpid();
	uint64_t calls, timed, calls_before, timed_before;

	if (!set)
		return;
	check("the number is fixed", probe_sample(set) == every);
	calls = totals(set, &timed);
	check("measuring the cost leaves nothing behind", !calls && !timed);
	check("timing has a cost", probe_timing_ns(set) > 0);
	printf("# timing a call costs %llu ns\n", (unsigned long long)probe_timing_ns(set));
	probe_watch_thread(set, 0, pid, pid, ROLE_WORKER);
	/* It reads of this thread, too. */
	calls_before = totals(set, &timed_before);
	call(CALLS);
	calls = totals(set, &timed) - calls_before;
	timed -= timed_before;
	check("every call is counted", calls == CALLS);
	if (every == 1)
		check("each is timed", timed == calls);
	else
		check("those that are timed stand for all",
		      timed % every == 0 && timed > calls / 5 * 4 && timed < calls / 5 * 6);
	probe_sample_tick(set, clock_mono_ns() + 10 * NS_PER_S);
	check("no budget changes a fixed number", probe_sample(set) == every);
	probe_close(set);
}

static void test_budget(void)
{
	struct probe_set *set = open_set(0, 100); /* 0.01 % */
	uint32_t pid = (uint32_t)getpid(), before;
	uint64_t now = clock_mono_ns();

	if (!set)
		return;
	before = probe_sample(set);
	probe_watch_thread(set, 0, pid, pid, ROLE_WORKER);
	probe_sample_tick(set, now += 2 * NS_PER_S);
	call(200000);
	probe_sample_tick(set, now += 2 * NS_PER_S);
	check("a small budget times fewer", probe_sample(set) > before);
	before = probe_sample(set);
	for (unsigned int i = 0; i < 30; i++)
		probe_sample_tick(set, now += NS_PER_S);
	check("more when there is less to do", probe_sample(set) < before);
	probe_close(set);
}

static void test_tier(void)
{
	test_weights(1);
	test_weights(16);
	test_budget();
}

int main(int argc, char **argv)
{
	rungs_setup();
	return rungs_run(argc > 1 ? argv[1] : NULL, test_tier);
}
