/* SPDX-License-Identifier: Apache-2.0 */
/* System level metrics: which gateways there are, and their series. Keeper. */
#include "cmd/keeper_system_state.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define READ_NS     (NS_PER_S * 3 / 4) /* at each tick of a second, however late the one before was */
#define ABSENCE_NS  (30 * NS_PER_S)
#define THREADS_MAX 4096
#define FILES_HELD  384 /* beyond them files are opened each time: a soft limit of 1024 is usual */

struct keeper_systems {
	struct segment_writer *w;
	struct queues *queues; /* NULL: unavailable */
	uint64_t since_ticks, read_ns;
	struct system_budget budget;
	bool has_written;
	struct log_limit limit;
	struct keeper_system *gateways[SEGMENT_GATEWAYS];
};

static const enum metric_id gauge_metrics[SYSTEM_GAUGES] = {
	[SYSTEM_CPU_LIMIT] = METRIC_ID_CPU_LIMIT,
	[SYSTEM_MEMORY] = METRIC_ID_MEMORY_BYTES,
	[SYSTEM_MEMORY_LIMIT] = METRIC_ID_MEMORY_LIMIT,
	[SYSTEM_FDS] = METRIC_ID_OPEN_FDS,
};

static const struct counter_row {
	enum metric_id metric;
	const char *labels[3][2];
	size_t n;
} counter_rows[SYSTEM_COUNTERS] = {
	[SYSTEM_CPU] = {METRIC_ID_CPU_SECONDS, {{0}}, 0},
	[SYSTEM_RUN_QUEUE] = {METRIC_ID_RUN_QUEUE_SECONDS, {{0}}, 0},
	[SYSTEM_THROTTLED] = {METRIC_ID_THROTTLED_SECONDS, {{0}}, 0},
	[SYSTEM_RECEIVED] = {METRIC_ID_NETWORK_BYTES, {{"direction", "receive"}}, 1},
	[SYSTEM_SENT] = {METRIC_ID_NETWORK_BYTES, {{"direction", "transmit"}}, 1},
	[SYSTEM_READ] = {METRIC_ID_DISK_BYTES, {{"direction", "read"}}, 1},
	[SYSTEM_WRITTEN] = {METRIC_ID_DISK_BYTES, {{"direction", "write"}}, 1},
#define PRESSURE(SCOPE, scope, RESOURCE, resource, KIND, kind)                       \
	[SYSTEM_PRESSURE + (SCOPE * RESOURCES + RESOURCE) * KINDS +                  \
		KIND] = {METRIC_ID_PRESSURE_SECONDS,                                 \
			 {{"resource", resource}, {"kind", kind}, {"scope", scope}}, \
			 3}
#define PRESSURES(SCOPE, scope)                                                       \
	PRESSURE(SCOPE, scope, RESOURCE_CPU, "cpu", KIND_SOME, "some"),               \
		PRESSURE(SCOPE, scope, RESOURCE_CPU, "cpu", KIND_FULL, "full"),       \
		PRESSURE(SCOPE, scope, RESOURCE_MEMORY, "memory", KIND_SOME, "some"), \
		PRESSURE(SCOPE, scope, RESOURCE_MEMORY, "memory", KIND_FULL, "full"), \
		PRESSURE(SCOPE, scope, RESOURCE_IO, "io", KIND_SOME, "some"),         \
		PRESSURE(SCOPE, scope, RESOURCE_IO, "io", KIND_FULL, "full")
	PRESSURES(SCOPE_HOST, "host"),
	PRESSURES(SCOPE_CGROUP, "cgroup"),
};

/* ---- life ---- */

/* Clock ticks since boot, at a moment of CLOCK_MONOTONIC (which stands still in suspend). */
static uint64_t ticks_at(uint64_t mono_ns)
{
	uint64_t now = clock_mono_ns(), boot = clock_read_ns(CLOCK_BOOTTIME);
	uint64_t ago = now > mono_ns ? now - mono_ns : 0;

	return (boot > ago ? boot - ago : 0) / (NS_PER_S / (uint64_t)sysconf(_SC_CLK_TCK));
}

int keeper_systems_new(struct segment_writer *w, uint64_t last_tick_mono_ns,
		       struct keeper_systems **ret)
{
	struct keeper_systems *k = calloc(1, sizeof(*k));
	uint64_t now = clock_mono_ns();
	struct err e = {0};

	if (!k)
		return -ENOMEM;
	k->w = w;
	k->budget.limit = FILES_HELD;
	k->limit.interval_ns = 600 * NS_PER_S;
	/* After a longer absence what young processes have used would look like a burst. */
	if (!last_tick_mono_ns || now - last_tick_mono_ns > ABSENCE_NS)
		last_tick_mono_ns = now;
	k->since_ticks = ticks_at(last_tick_mono_ns);
	if (queues_open(&k->queues, &e) < 0)
		log_warning("keeper", "accept queues are unavailable", "why=\"%s\"", e.text);
	*ret = k;
	return 0;
}

static void forget_sums(struct keeper_system *s)
{
	system_sum_fini(&s->cpu);
	system_sum_fini(&s->wait);
	system_sum_fini(&s->read);
	system_sum_fini(&s->written);
}

static void begin_sums(struct keeper_system *s)
{
	system_sum_init(&s->cpu, GATEWAY_PROCESSES);
	system_sum_init(&s->wait, THREADS_MAX);
	system_sum_init(&s->read, GATEWAY_PROCESSES);
	system_sum_init(&s->written, GATEWAY_PROCESSES);
}

struct keeper_systems *keeper_systems_free(struct keeper_systems *k)
{
	if (!k)
		return NULL;
	for (unsigned int i = 0; i < SEGMENT_GATEWAYS; i++) {
		if (k->gateways[i]) {
			keeper_system_close_files(k->gateways[i], &k->budget);
			forget_sums(k->gateways[i]);
		}
		free(k->gateways[i]);
	}
	queues_close(k->queues);
	free(k);
	return NULL;
}

/* ---- gateways come and go ---- */

/* Another master: nothing of the one before is owed to it, and it may live elsewhere. */
static void begin_master(struct keeper_system *s, const struct gateway_found *f,
			 struct system_budget *budget)
{
	keeper_system_close_files(s, budget);
	forget_sums(s);
	begin_sums(s);
	s->master = f->master;
	s->master_start = f->master_start;
	s->net = (struct system_net){0};
	s->throttled = (struct system_meter){0};
	memset(s->pressure, 0, sizeof(s->pressure));
	memset(s->has_gauge, 0, sizeof(s->has_gauge));
	s->is_told = s->has_threads = false;
	s->process_count = 0;
	for (unsigned int i = 0; i < s->port_count; i++)
		s->ports[i].is_known = false;
}

/* Moves what is known of a process out of the old list. */
static struct system_process keep_process(struct keeper_system *s, pid_t pid)
{
	for (unsigned int i = 0; i < s->process_count; i++) {
		struct system_process p = s->processes[i];

		if (p.pid != pid || p.is_other)
			continue;
		s->processes[i].pid = 0;
		memset(s->processes[i].files, 0, sizeof(s->processes[i].files));
		return p;
	}
	return (struct system_process){.pid = pid};
}

/* The master first: see system_sum. */
static bool set_processes(struct keeper_system *s, const struct gateway_found *f,
			  struct system_budget *budget)
{
	static struct system_process next[GATEWAY_PROCESSES]; /* large, and one thread */
	unsigned int n = 0;
	bool is_changed;

	is_changed = f->process_count != s->process_count;
	for (unsigned int pass = 0; pass < 2; pass++) {
		for (unsigned int i = 0; i < f->process_count && n < GATEWAY_PROCESSES; i++) {
			if ((f->processes[i].pid == f->master) != !pass)
				continue;
			next[n] = keep_process(s, f->processes[i].pid);
			is_changed |= !next[n].start_ticks;
			n++;
		}
	}
	for (unsigned int i = 0; i < s->process_count; i++)
		keeper_system_close_process(&s->processes[i], budget);
	memcpy(s->processes, next, n * sizeof(next[0]));
	s->process_count = n;
	return is_changed;
}

int keeper_system_compare_listeners(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* A port that is no longer listened to keeps its place, and is absent, until it comes back or
 * another one needs the place. */
static void set_ports(struct keeper_system *s, const struct gateway_found *f)
{
	for (unsigned int i = 0; i < f->port_count; i++) {
		unsigned int at = 0, vacant = s->port_count;

		for (; at < s->port_count && s->ports[at].port != f->ports[i]; at++)
			if (!s->ports[at].is_known && !s->ports[at].drops)
				vacant = at;
		if (at < s->port_count)
			continue;
		if (s->port_count < GATEWAY_PORTS)
			vacant = s->port_count++;
		if (vacant < s->port_count)
			s->ports[vacant] = (struct system_port){.port = f->ports[i]};
	}
	s->listener_count = f->listener_count;
	memcpy(s->listeners, f->listeners, f->listener_count * sizeof(f->listeners[0]));
	qsort(s->listeners, s->listener_count, sizeof(s->listeners[0]),
	      keeper_system_compare_listeners);
}

void keeper_systems_found(struct keeper_systems *k, unsigned int index, const char *name,
			  const char *instance, const struct gateway_found *f)
{
	struct keeper_system *s;

	if (index >= SEGMENT_GATEWAYS)
		return;
	s = k->gateways[index];
	if (!s) {
		s = k->gateways[index] = calloc(1, sizeof(*s));
		if (!s)
			return;
		str_copy(s->name, sizeof(s->name), name);
		str_copy(s->instance, sizeof(s->instance), instance);
	}
	if (!s->is_live || s->master != f->master || s->master_start != f->master_start)
		begin_master(s, f, &k->budget);
	s->is_live = true;
	if (set_processes(s, f, &k->budget))
		s->slow_ns = 0;
	set_ports(s, f);
}

void keeper_systems_gone(struct keeper_systems *k, unsigned int index)
{
	struct keeper_system *s = index < SEGMENT_GATEWAYS ? k->gateways[index] : NULL;

	if (!s || !s->is_live)
		return;
	s->is_live = false;
	keeper_system_close_files(s, &k->budget);
	memset(s->has_gauge, 0, sizeof(s->has_gauge));
	for (unsigned int i = 0; i < s->port_count; i++)
		s->ports[i].is_known = false;
}

static struct queues *read_queues(struct keeper_systems *k, uint64_t now)
{
	uint64_t swallowed;
	int r;

	if (!k->queues)
		return NULL;
	r = queues_read(k->queues);
	if (r < 0 && log_allowed(&k->limit, now, &swallowed))
		log_warning("keeper", "accept queues cannot be read", "why=\"%s\"", err_text(r));
	if (r >= 0 && queues_refused(k->queues) && log_allowed(&k->limit, now, &swallowed))
		log_warning("keeper", "more listeners than are watched", "not_watched=%zu",
			    queues_refused(k->queues));
	return r < 0 ? NULL : k->queues;
}

void keeper_systems_read(struct keeper_systems *k, uint64_t now_mono_ns)
{
	struct system_context c = {
		.since_ticks = k->since_ticks, .now_ns = now_mono_ns, .budget = &k->budget};

	if (k->read_ns && now_mono_ns - k->read_ns < READ_NS)
		return;
	k->read_ns = now_mono_ns;
	c.queues = read_queues(k, now_mono_ns);
	for (unsigned int i = 0; i < SEGMENT_GATEWAYS; i++)
		if (k->gateways[i] && k->gateways[i]->is_live)
			keeper_system_read(k->gateways[i], &c);
}

/* ---- series ---- */

/* ref: index + 1, 0 not registered yet, -1 refused. Returns the index or -1. */
static int series(struct segment_writer *w, const struct keeper_system *s, int *ref,
		  enum metric_id metric, const char *const (*labels)[2], size_t n)
{
	const char *all[5][2] = {{"gateway", s->name}, {"instance", s->instance}};
	int index;

	if (*ref)
		return *ref > 0 ? *ref - 1 : -1;
	for (size_t i = 0; i < n && i < 3; i++) {
		all[2 + i][0] = labels[i][0];
		all[2 + i][1] = labels[i][1];
	}
	index = segment_writer_series(w, &metric_descs[metric], (const char *const(*)[2])all,
				      2 + n);
	*ref = index < 0 ? -1 : index + 1;
	return index < 0 ? -1 : index;
}

/* What was never known has no series; what no longer is, is absent. */
static void put_gauge(struct segment_writer *w, const struct keeper_system *s, int *ref,
		      enum metric_id metric, const char *const (*labels)[2], size_t n,
		      bool is_known, double value)
{
	if (is_known)
		segment_writer_gauge(w, series(w, s, ref, metric, labels, n), value);
	else if (*ref > 0)
		segment_writer_absent(w, *ref - 1);
}

static void write_port(struct segment_writer *w, struct keeper_system *s, struct system_port *p)
{
	const char *labels[1][2] = {{"port", NULL}};
	const char *const(*port)[2] = (const char *const(*)[2])labels;
	char number[8];

	snprintf(number, sizeof(number), "%u", p->port);
	labels[0][1] = number;
	put_gauge(w, s, &p->series[0], METRIC_ID_ACCEPT_QUEUE_LENGTH, port, 1, p->is_known,
		  (double)p->length);
	put_gauge(w, s, &p->series[1], METRIC_ID_ACCEPT_QUEUE_LIMIT, port, 1, p->is_known,
		  (double)p->limit);
	if (!p->is_known)
		return;
	segment_writer_increment(
		w, series(w, s, &p->series[2], METRIC_ID_ACCEPT_QUEUE_DROPS, port, 1), p->drops);
	p->drops = 0;
}

static void write_gateway(struct segment_writer *w, struct keeper_system *s)
{
	for (unsigned int i = 0; i < SYSTEM_GAUGES; i++)
		put_gauge(w, s, &s->gauge_series[i], gauge_metrics[i], NULL, 0, s->has_gauge[i],
			  s->gauges[i]);
	for (unsigned int i = 0; i < SYSTEM_COUNTERS; i++) {
		const struct counter_row *row = &counter_rows[i];
		uint64_t by = s->grown[i];

		/* The one time here of a finer clock: see whole_us() in keeper_series.c. */
		if (i == SYSTEM_RUN_QUEUE)
			by -= by % 1000;
		/* 0 is the true value of a counter that is known: it is there from the start. */
		if (!s->has_counter[i])
			continue;
		segment_writer_increment(
			w, series(w, s, &s->counter_series[i], row->metric, row->labels, row->n),
			by);
		s->grown[i] -= by;
	}
	for (unsigned int i = 0; i < s->port_count; i++)
		write_port(w, s, &s->ports[i]);
}

/* Gauges of the keeper before us, which may have been of ports and gateways that are gone. */
static void forget_gauges(struct keeper_systems *k)
{
	for (unsigned int i = 0; i < SYSTEM_GAUGES; i++)
		segment_writer_absent_all(k->w, &metric_descs[gauge_metrics[i]]);
	segment_writer_absent_all(k->w, &metric_descs[METRIC_ID_ACCEPT_QUEUE_LENGTH]);
	segment_writer_absent_all(k->w, &metric_descs[METRIC_ID_ACCEPT_QUEUE_LIMIT]);
	k->has_written = true;
}

void keeper_systems_write(struct keeper_systems *k)
{
	if (!k->has_written)
		forget_gauges(k);
	for (unsigned int i = 0; i < SEGMENT_GATEWAYS; i++)
		if (k->gateways[i])
			write_gateway(k->w, k->gateways[i]);
}
