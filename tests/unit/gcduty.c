/* SPDX-License-Identifier: Apache-2.0 */
/* The duty cycle of the GC step probes over simulated hours: what it costs, and what it estimates. */
#include "probe/gcduty.h"
#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define COST_NS 1500
#define STEP_NS 3300

/* What the worker does in a second: its CPU time, and steps for each second of that. */
struct load {
	double cpu;
	uint64_t steps;
};

struct run {
	struct gc_duty duty;
	struct gc_estimate estimate;
	uint64_t now_ns, on_ns, cpu_ns, cost_ns, allowed_ns;
	uint64_t true_ns, timed_ns; /* of all steps, of those that were timed */
	unsigned int switches;
	uint64_t longest_ns; /* between two looks at a burst */
};

static void run_begin(struct run *r, double budget)
{
	*r = (struct run){.now_ns = 1000 * NS_PER_S};
	gc_duty_begin(&r->duty, budget, r->now_ns);
	gc_estimate_begin(&r->estimate, 0);
}

static void run_part(struct run *r, uint64_t tick_ns, const struct load *load)
{
	struct gc_elapsed t = {.ns = tick_ns, .is_timed = r->duty.is_on};
	double seconds = (double)tick_ns / 1e9;
	uint64_t steps = (uint64_t)(load->cpu * seconds * (double)load->steps);
	uint64_t probed = t.is_timed ? steps : 0;
	bool was_on = r->duty.is_on;

	t.cpu_ns = (uint64_t)(load->cpu * (double)tick_ns) + probed * COST_NS;
	t.step_ns = probed * STEP_NS;
	t.probe_ns = probed * COST_NS;
	r->now_ns += tick_ns;
	r->on_ns += was_on ? tick_ns : 0;
	r->cpu_ns += t.cpu_ns;
	r->cost_ns += t.probe_ns;
	r->allowed_ns += t.cpu_ns > tick_ns / 10 ? t.cpu_ns : tick_ns / 10;
	r->true_ns += steps * STEP_NS;
	r->timed_ns += t.step_ns;
	gc_estimate_next(&r->estimate, &t);
	r->switches += gc_duty_next(&r->duty, r->now_ns, t.probe_ns, t.cpu_ns) != was_on;
}

/* A tick of the keeper, and what it does in between when a burst is to be short. */
static void run_tick(struct run *r, uint64_t tick_ns, const struct load *load)
{
	uint64_t part;

	for (; tick_ns; tick_ns -= part) {
		part = r->duty.is_short && tick_ns > GC_DUTY_BURST_NS ? GC_DUTY_BURST_NS : tick_ns;
		if (r->duty.is_on && part > r->longest_ns)
			r->longest_ns = part;
		run_part(r, part, load);
	}
}

static double cost_of(const struct run *r)
{
	return (double)r->cost_ns / (double)r->allowed_ns;
}

static double estimate_error(const struct run *r)
{
	return (double)(r->timed_ns + r->estimate.missed_ns) / (double)r->true_ns - 1;
}

static void a_constant_load_costs_the_budget(void **state)
{
	static const uint64_t ticks[] = {50000000, NS_PER_S, 10 * NS_PER_S};
	static const double budgets[] = {0.001, 0.01, 0.02};
	const struct load load = {.cpu = 1, .steps = 28000};
	struct run r;

	(void)state;
	for (size_t t = 0; t < 3; t++) {
		for (size_t b = 0; b < 3; b++) {
			run_begin(&r, budgets[b]);
			while (r.now_ns < 20000 * NS_PER_S)
				run_tick(&r, ticks[t], &load);
			assert_true(cost_of(&r) < budgets[b] * 1.1);
			/* Not all is saved up over ticks of 10 s. */
			assert_true(cost_of(&r) > budgets[b] * (t < 2 ? 0.9 : 0.4));
			assert_true(estimate_error(&r) > -0.02);
			assert_true(estimate_error(&r) < 0.02);
			assert_true(r.switches > 10);
		}
	}
	/* A fixed pattern, so the last budget's share is known: 2 % of 4.2 %. */
	assert_true(r.estimate.observed_ratio > 0.35 && r.estimate.observed_ratio < 0.6);
}

static void many_workers_have_one_purse(void **state)
{
	const struct load load = {.cpu = 32, .steps = 28000};
	struct run r;

	(void)state;
	run_begin(&r, 0.01);
	for (unsigned int i = 0; i < 3600; i++)
		run_tick(&r, NS_PER_S, &load);
	assert_true(cost_of(&r) < 0.011);
	assert_true(cost_of(&r) > 0.009);
	assert_true(estimate_error(&r) > -0.02 && estimate_error(&r) < 0.02);
}

static void a_bursty_load_costs_at_most_the_budget(void **state)
{
	const struct load busy = {.cpu = 1, .steps = 40000}, quiet = {.cpu = 0.02, .steps = 40000};
	struct run r;

	(void)state;
	run_begin(&r, 0.01);
	for (unsigned int i = 0; i < 4 * 3600; i++)
		run_tick(&r, NS_PER_S, i % 47 < 11 ? &busy : &quiet);
	assert_true(cost_of(&r) < 0.011);
	assert_true(cost_of(&r) > 0.009);
	/* What is learnt in one moment is applied to another: only as good as they are alike. */
	assert_true(estimate_error(&r) > -0.1 && estimate_error(&r) < 0.1);
}

/* Steps that come and go with the load, in a ratio to it that changes all the time. */
static void a_changing_load_is_estimated(void **state)
{
	uint64_t random = 88172645463325252ull;
	struct load load;
	struct run r;

	(void)state;
	run_begin(&r, 0.01);
	for (unsigned int i = 0; i < 6 * 3600; i++) {
		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		load.cpu = (double)(random % 1000) / 1000;
		load.steps = 10000 + (random >> 20) % 30000;
		run_tick(&r, NS_PER_S, &load);
	}
	assert_true(cost_of(&r) < 0.011);
	assert_true(cost_of(&r) > 0.009);
	assert_true(estimate_error(&r) > -0.1 && estimate_error(&r) < 0.1);
}

static void a_quiet_load_is_always_timed(void **state)
{
	static const struct load loads[] = {{0, 0}, {0.02, 30000}, {1, 6000}, {0.5, 6500}};
	struct run r;

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		run_begin(&r, 0.01);
		while (r.now_ns < 9000 * NS_PER_S)
			run_tick(&r, NS_PER_S, &loads[i]);
		assert_int_equal(r.switches, 0);
		assert_true(r.on_ns == 8000 * NS_PER_S);
		assert_true(r.estimate.observed_ratio == 1);
		assert_true(r.estimate.missed_ns == 0);
	}
}

/* A collector that runs all the time: even then no burst is felt for long. */
static void an_extreme_load_is_timed_in_short_bursts(void **state)
{
	const struct load load = {.cpu = 1, .steps = 260000};
	struct run r;

	(void)state;
	run_begin(&r, 0.01);
	for (unsigned int i = 0; i < 3600; i++)
		run_tick(&r, NS_PER_S, &load);
	assert_true(cost_of(&r) < 0.011);
	assert_true(cost_of(&r) > 0.009);
	assert_true(r.longest_ns <= GC_DUTY_BURST_NS);
	assert_true(r.switches > 1000);
	assert_true(r.estimate.observed_ratio > 0.01 && r.estimate.observed_ratio < 0.06);
	assert_true(estimate_error(&r) > -0.02 && estimate_error(&r) < 0.02);
}

static void all_of_the_budget_is_always(void **state)
{
	const struct load load = {.cpu = 1, .steps = 400000};
	struct run r;

	(void)state;
	run_begin(&r, 1);
	for (unsigned int i = 0; i < 3600; i++)
		run_tick(&r, NS_PER_S, &load);
	assert_false(r.duty.is_short);
	assert_int_equal(r.switches, 0);
}

static void hours_of_idling_do_not_pay_for_minutes(void **state)
{
	const struct load idle = {.cpu = 0}, busy = {.cpu = 1, .steps = 28000};
	struct run r;
	uint64_t cost;

	(void)state;
	run_begin(&r, 0.01);
	for (unsigned int i = 0; i < 7200; i++)
		run_tick(&r, NS_PER_S, &idle);
	cost = r.cost_ns;
	for (unsigned int i = 0; i < 60; i++)
		run_tick(&r, NS_PER_S, &busy);
	/* What one look earned is saved; and the last burst may be paid later. */
	assert_true(r.cost_ns - cost < (uint64_t)(0.01 * (60 + 1 + 1) * 1e9));
}

/* Not only in the long run: whatever was saved before, no two seconds cost much more. */
static void any_two_seconds_keep_the_budget(void **state)
{
	const struct load idle = {.cpu = 0.01, .steps = 28000}, busy = {.cpu = 1, .steps = 28000};
	struct run r;
	uint64_t cost;

	(void)state;
	run_begin(&r, 0.01);
	for (unsigned int round = 0; round < 20; round++) {
		for (unsigned int i = 0; i < 400; i++)
			run_tick(&r, GC_DUTY_LOOK_NS, &idle);
		cost = r.cost_ns;
		for (unsigned int i = 0; i < 8; i++)
			run_tick(&r, GC_DUTY_LOOK_NS, &busy);
		/* Two seconds, what was saved, and a burst begun with the last credit. */
		assert_true(r.cost_ns - cost < (uint64_t)(0.01 * (2 + 0.5) * 1e9) +
						       GC_DUTY_LOOK_NS * 28 * COST_NS / 1000000);
	}
}

static void a_step_more_than_the_clock_is_survived(void **state)
{
	struct gc_estimate e;
	struct gc_duty d;
	unsigned int i;

	(void)state;
	gc_duty_begin(&d, 0.01, 500);
	assert_false(gc_duty_next(&d, NS_PER_S, UINT64_MAX, 0));
	for (i = 1; i < 40000 && !d.is_on; i++)
		gc_duty_next(&d, i * NS_PER_S, 0, NS_PER_S);
	assert_true(i > 3000 && i < 4000);
	/* A clock that stands still or goes back earns nothing and changes nothing. */
	assert_true(gc_duty_next(&d, 7, 0, 0));
	gc_estimate_begin(&e, 11);
	gc_estimate_next(&e, &(struct gc_elapsed){.ns = 1, .cpu_ns = NS_PER_S});
	assert_true(e.missed_ns == 11);
	gc_estimate_next(&e,
			 &(struct gc_elapsed){
				 .ns = 1, .step_ns = UINT64_MAX, .cpu_ns = 1, .is_timed = true});
	gc_estimate_next(&e, &(struct gc_elapsed){.ns = 1, .cpu_ns = NS_PER_S});
	assert_true(e.missed_ns == 11 + NS_PER_S);
	gc_estimate_next(&e, &(struct gc_elapsed){
				     .ns = 1, .step_ns = 5, .cpu_ns = 3, .probe_ns = UINT64_MAX});
	assert_true(e.missed_ns >= 11 + NS_PER_S);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_constant_load_costs_the_budget),
		cmocka_unit_test(many_workers_have_one_purse),
		cmocka_unit_test(a_bursty_load_costs_at_most_the_budget),
		cmocka_unit_test(a_changing_load_is_estimated),
		cmocka_unit_test(a_quiet_load_is_always_timed),
		cmocka_unit_test(an_extreme_load_is_timed_in_short_bursts),
		cmocka_unit_test(all_of_the_budget_is_always),
		cmocka_unit_test(hours_of_idling_do_not_pay_for_minutes),
		cmocka_unit_test(any_two_seconds_keep_the_budget),
		cmocka_unit_test(a_step_more_than_the_clock_is_survived),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("gcduty", tests, NULL, NULL);
}
