/* SPDX-License-Identifier: Apache-2.0 */
/*
 * When GC steps are timed, and what they took while they were not. Probes on a step cost the worker
 * more than a microsecond, and a busy one makes tens of thousands a second: so they are attached for
 * as long as a budget pays for them. Pure. Process: the keeper.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Below this share of one CPU a worker counts as using it: what nobody feels is not saved. */
#define GC_DUTY_CPU_LEAST 0.1
/* What was not used in quiet times pays for so much time, of one CPU or of those now in use: little, so
 * that the budget holds within seconds, and not only in the long run. */
#define GC_DUTY_SAVED_NS 0.5e9
/* What is earned from one look to the next is kept, for as much time as this. */
#define GC_DUTY_EARNED_NS 5e9
/* Debt beyond this is forgotten: one absurd number must not end all timing. */
#define GC_DUTY_DEBT_NS 3600000000000.0
/* Shortest burst: attaching and detaching have a price of their own, in the process as well. */
#define GC_DUTY_BURST_NS 100000000ULL
/* While steps are timed and cheap: an idle gateway may become a busy one at any moment. */
#define GC_DUTY_LOOK_NS 250000000ULL

/* A purse: CPU time of the watched processes fills it, probed steps empty it. Steps are timed until
 * it is empty, and again when the debt is paid; so in the long run the budget holds whatever the
 * load does, and a load that stays below it is timed always. */
struct gc_duty {
	double budget; /* share of the CPU time; 1: all steps are timed */
	double credit_ns;
	uint64_t ticked_ns, switched_ns;
	bool is_on;
	bool is_short; /* ask again after GC_DUTY_BURST_NS: the purse empties, or nobody knows yet */
};

/* Begins attached. */
void gc_duty_begin(struct gc_duty *d, double budget, uint64_t now_ns);

/* spent_ns: what the probes cost since the last call, whether or not is_on; cpu_ns: used since then by
 * all processes that run the collector. Returns whether steps are to be timed from now on. */
bool gc_duty_next(struct gc_duty *d, uint64_t now_ns, uint64_t spent_ns, uint64_t cpu_ns);

/* Time in steps, and CPU time in all. */
struct gc_rate {
	double step_ns, cpu_ns;
};

/* What one gateway's steps take, seen or not. While they are timed their share of the CPU time is
 * learnt (the last bursts weigh most), while they are not it is applied to the CPU time used then: a
 * gateway that idles meanwhile collects nothing. */
struct gc_estimate {
	struct gc_rate burst; /* under way */
	struct gc_rate rate;  /* of those before */
	uint64_t missed_ns; /* estimated for the times in which steps were not timed; never falls */
	double observed_ratio; /* share of the last minute in which they were */
};

void gc_estimate_begin(struct gc_estimate *e, uint64_t missed_ns);

struct gc_elapsed {
	uint64_t ns;       /* on the clock */
	uint64_t step_ns;  /* timed in it */
	uint64_t cpu_ns;   /* used in it by the gateway */
	uint64_t probe_ns; /* of which the probes cost so much */
	bool is_timed;     /* all its steps were timed; else a part, or none */
};

void gc_estimate_next(struct gc_estimate *e, const struct gc_elapsed *t);
