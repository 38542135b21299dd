/* SPDX-License-Identifier: Apache-2.0 */
/* Duty cycle of the GC step probes: arithmetic only. Process: the keeper. */
#include "probe/gcduty.h"

#include <string.h>

#define BURST_FADE_NS 2e9 /* CPU time in which the beginning of a long burst fades to half */
#define RATE_FADE_NS \
	0.3e9 /* the same of the bursts before, each taken for GC_DUTY_BURST_NS at most */
#define RATIO_FADE_NS 60e9 /* the same of the observed share, on the clock */

void gc_duty_begin(struct gc_duty *d, double budget, uint64_t now_ns)
{
	memset(d, 0, sizeof(*d));
	d->budget = budget;
	d->ticked_ns = d->switched_ns = now_ns;
	d->is_on = d->is_short = true;
}

bool gc_duty_next(struct gc_duty *d, uint64_t now_ns, uint64_t spent_ns, uint64_t cpu_ns)
{
	double wall_ns = now_ns > d->ticked_ns ? (double)(now_ns - d->ticked_ns) : 0;
	double earned_ns = (double)cpu_ns;
	double saved_ns = wall_ns, before_ns = d->credit_ns;
	bool is_on;

	d->ticked_ns = now_ns;
	if (d->budget >= 1) {
		d->is_short = false;
		return d->is_on = true;
	}
	if (earned_ns < GC_DUTY_CPU_LEAST * wall_ns)
		earned_ns = GC_DUTY_CPU_LEAST * wall_ns;
	d->credit_ns += d->budget * earned_ns - (double)spent_ns;
	/* What one look has earned is there for the next ones, or rare looks would time too little. */
	if (saved_ns < GC_DUTY_SAVED_NS)
		saved_ns = GC_DUTY_SAVED_NS;
	if (saved_ns > GC_DUTY_EARNED_NS)
		saved_ns = GC_DUTY_EARNED_NS;
	if (wall_ns > 0 && earned_ns > wall_ns)
		saved_ns *= earned_ns / wall_ns;
	saved_ns *= d->budget;
	if (saved_ns < before_ns)
		saved_ns = before_ns;
	if (d->credit_ns > saved_ns)
		d->credit_ns = saved_ns;
	if (d->credit_ns < -d->budget * GC_DUTY_DEBT_NS)
		d->credit_ns = -d->budget * GC_DUTY_DEBT_NS;
	is_on = d->credit_ns >= 0;
	d->is_short = is_on && (double)spent_ns > d->budget * earned_ns;
	if (is_on != d->is_on && now_ns - d->switched_ns >= GC_DUTY_BURST_NS) {
		d->is_on = d->is_short = is_on;
		d->switched_ns = now_ns;
	}
	return d->is_on;
}

void gc_estimate_begin(struct gc_estimate *e, uint64_t missed_ns)
{
	memset(e, 0, sizeof(*e));
	e->missed_ns = missed_ns;
	e->observed_ratio = 1;
}

static void rate_add(struct gc_rate *to, double step_ns, double cpu_ns, double fade_ns)
{
	double kept = fade_ns / (fade_ns + cpu_ns);

	to->step_ns = to->step_ns * kept + step_ns;
	to->cpu_ns = to->cpu_ns * kept + cpu_ns;
}

/* The budget ends a burst the sooner the more it costs. So that cheap moments do not weigh more, all
 * bursts weigh the same, unless the gateway was idle in them. */
static void burst_end(struct gc_estimate *e)
{
	double cpu_ns = e->burst.cpu_ns;
	double scale = cpu_ns > GC_DUTY_BURST_NS ? GC_DUTY_BURST_NS / cpu_ns : 1;

	if (cpu_ns > 0)
		rate_add(&e->rate, e->burst.step_ns * scale, cpu_ns * scale, RATE_FADE_NS);
	memset(&e->burst, 0, sizeof(e->burst));
}

void gc_estimate_next(struct gc_estimate *e, const struct gc_elapsed *t)
{
	double ns = (double)t->ns, cpu_ns = (double)t->cpu_ns, expected;

	e->observed_ratio +=
		((t->is_timed ? 1 : 0) - e->observed_ratio) * ns / (RATIO_FADE_NS + ns);
	/* Without the probes the worker had done more in the same time. */
	cpu_ns -= (double)t->probe_ns < cpu_ns ? (double)t->probe_ns : 0;
	if (t->is_timed) {
		rate_add(&e->burst, (double)t->step_ns, cpu_ns, BURST_FADE_NS);
		return;
	}
	burst_end(e);
	if (e->rate.cpu_ns <= 0)
		return;
	/* Some were timed before the probes were off, or since they are on. */
	expected = e->rate.step_ns / e->rate.cpu_ns * cpu_ns - (double)t->step_ns;
	if (expected > cpu_ns)
		expected = cpu_ns;
	if (expected > 0)
		e->missed_ns += (uint64_t)expected;
}
