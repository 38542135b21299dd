/* SPDX-License-Identifier: Apache-2.0 */
/* Sampling of system calls under a budget; see the header. Owns its readings of the slots. */
#include "probe/sample.h"

#include "base/clock.h"
#include "base/process.h"
#include "base/str.h"
#include "probe/bias.h"
#include "probe/set.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define READING_NS   NS_PER_S
#define CALLS        501
#define COST_MOST_NS 5000 /* something disturbed all of them */
/* Below this share of one CPU a gateway counts as using it: what nobody feels is not saved. */
#define CPU_LEAST 0.01

struct slot_reading {
	uint32_t tgid, generation;
	uint64_t calls, cpu_ns;
};

struct sampler {
	struct sample sample;
	double budget; /* 0: the number is fixed */
	uint64_t read_ns;
	struct slot_reading slots[];
};

uint32_t sample_wanted(uint64_t calls, uint64_t cost_ns, uint64_t cpu_ns, double budget)
{
	double allowed = (double)cpu_ns * budget, cost = (double)calls * (double)cost_ns;
	uint32_t every = 1;

	while (every < SAMPLE_MOST && cost > allowed * every)
		every *= 2;
	return every;
}

void sample_next(struct sample *s, uint32_t wanted)
{
	if (wanted >= s->every) {
		s->every = wanted;
		s->calm = 0;
	} else if (++s->calm >= SAMPLE_CALM) {
		s->every /= 2;
		s->calm = 0;
	}
}

/* ---- what it costs ---- */

/* Nanoseconds of a call that fails at once, among other work. */
static uint64_t call_ns(struct control *c, uint32_t every)
{
	uint64_t start;

	__atomic_store_n(&c->sample, every, __ATOMIC_SEQ_CST);
	bias_cool_cache();
	start = clock_mono_ns();
	syscall(SYS_read, -1, NULL, 0);
	return clock_mono_ns() - start;
}

static int compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static uint64_t median(uint64_t *v)
{
	qsort(v, CALLS, sizeof(*v), compare);
	return v[CALLS / 2];
}

/* Of this thread, which is watched for as long as that takes and leaves nothing behind. Nobody else
 * is watched yet. 0: it cannot be known. */
static uint64_t timing_cost_ns(struct probe_set *set)
{
	uint32_t pid = (uint32_t)getpid(), tid = (uint32_t)gettid();
	uint64_t timed[CALLS], untimed[CALLS], a, b;

	if (probe_watch_thread(set, 0, pid, tid, ROLE_HELPER))
		return 0;
	for (unsigned int i = 0; i < CALLS; i++) {
		timed[i] = call_ns(set->control, 1);
		untimed[i] = call_ns(set->control, UINT32_MAX);
	}
	slots_discard(set, pid);
	a = median(timed);
	b = median(untimed);
	if (a <= b)
		return 1;
	return a - b > COST_MOST_NS ? COST_MOST_NS : a - b;
}

/* ---- of a set ---- */

int sampler_open(struct probe_set *set, const struct probe_options *options)
{
	struct sampler *s = calloc(1, sizeof(*s) + set->threads * sizeof(s->slots[0]));
	struct control *c = set->control;

	if (!s)
		return -ENOMEM;
	if (!set->is_adopted) {
		c->timing_ns = timing_cost_ns(set);
		c->sample = SAMPLE_START;
	}
	if (options->sample)
		c->sample = options->sample;
	else if (c->timing_ns)
		s->budget = (double)options->cost_budget / 1e6;
	s->sample.every = c->sample;
	s->read_ns = clock_mono_ns();
	set->sampler = s;
	return 0;
}

struct sampler *sampler_free(struct sampler *s)
{
	free(s);
	return NULL;
}

static uint64_t calls_of(const struct slot *slot)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < SYSCALL_COUNT; i++)
		sum += __atomic_load_n(&slot->cells.syscalls[i], __ATOMIC_RELAXED);
	return sum;
}

struct reading {
	uint64_t calls, cpu_ns;
};

/* What is new in a slot. Threads that ended meanwhile are missed: they come again no more. */
static void read_slot(struct slot_reading *before, const struct slot *slot, struct reading *sum)
{
	struct slot_reading now = {.tgid = slot->tgid, .generation = slot->generation};

	now.calls = calls_of(slot);
	now.cpu_ns = slot->tid == slot->tgid ? process_cpu_ns(slot->tgid) : 0;
	if (before->tgid == now.tgid && before->generation == now.generation) {
		sum->calls += now.calls - before->calls;
		if (now.cpu_ns > before->cpu_ns)
			sum->cpu_ns += now.cpu_ns - before->cpu_ns;
	}
	*before = now;
}

void probe_sample_tick(struct probe_set *set, uint64_t now_mono_ns)
{
	struct sampler *s = set->sampler;
	struct reading sums[GATEWAYS] = {{0}};
	uint32_t wanted = 1;
	uint64_t least;

	if (s->budget <= 0 || now_mono_ns < s->read_ns + READING_NS)
		return;
	least = (uint64_t)((double)(now_mono_ns - s->read_ns) * CPU_LEAST);
	s->read_ns = now_mono_ns;
	slots_discover(set);
	for (unsigned int i = 0; i < set->threads; i++) {
		const struct slot *slot = set->is_used[i] ? set->slots[i] : NULL;

		if (slot && slot->state == SLOT_LIVE && slot->gateway < GATEWAYS)
			read_slot(&s->slots[i], slot, &sums[slot->gateway]);
	}
	for (unsigned int i = 0; i < set->gateways; i++) {
		uint64_t cpu_ns = sums[i].cpu_ns > least ? sums[i].cpu_ns : least;
		uint32_t n =
			sample_wanted(sums[i].calls, set->control->timing_ns, cpu_ns, s->budget);

		wanted = n > wanted ? n : wanted;
	}
	sample_next(&s->sample, wanted);
	__atomic_store_n(&set->control->sample, s->sample.every, __ATOMIC_RELAXED);
}

uint32_t probe_sample(const struct probe_set *set)
{
	return set->control->sample;
}

uint64_t probe_timing_ns(const struct probe_set *set)
{
	return set->control->timing_ns;
}
