/* SPDX-License-Identifier: Apache-2.0 */
/* Readings of one gateway's system level metrics: which files, how often. Keeper. */
#include "cmd/keeper_system_state.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SLOW_NS   (5 * NS_PER_S - NS_PER_S / 20)
#define NET_BYTES 32768

static int read_proc(pid_t pid, const char *file, char *buf, size_t size)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, file);
	return str_read_file(path, buf, size);
}

static int read_held(struct system_process *p, enum system_process_file file,
		     struct system_budget *budget, char *buf, size_t size)
{
	static const char *const names[PROCESS_FILES] = {[FILE_STAT] = "stat",
							 [FILE_WAIT] = "schedstat",
							 [FILE_IO] = "io",
							 [FILE_MEMORY] = "statm"};
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)p->pid, names[file]);
	return system_file_read(&p->files[file], budget, path, buf, size);
}

void keeper_system_close_process(struct system_process *p, struct system_budget *budget)
{
	for (unsigned int i = 0; i < PROCESS_FILES; i++)
		system_file_close(&p->files[i], budget);
}

void keeper_system_close_files(struct keeper_system *s, struct system_budget *budget)
{
	for (unsigned int i = 0; i < s->process_count; i++)
		keeper_system_close_process(&s->processes[i], budget);
	for (unsigned int i = 0; i < RESOURCES; i++)
		system_file_close(&s->pressure_files[i], budget);
	system_file_close(&s->net_file, budget);
}

static void grow(struct keeper_system *s, enum system_counter row, uint64_t by)
{
	s->grown[row] += by;
	s->has_counter[row] = true;
}

static void set(struct keeper_system *s, enum system_gauge row, double value)
{
	s->gauges[row] = value;
	s->has_gauge[row] = true;
}

/* ---- processes ---- */

/* A start time and a number name one process for ever. */
static uint64_t process_name(const struct system_process *p)
{
	return p->start_ticks << 22 | (uint64_t)p->pid;
}

struct thread_reading {
	struct keeper_system *s;
	const struct system_process *process;
};

static void add_wait(struct keeper_system *s, const struct system_process *p, pid_t tid,
		     const char *text)
{
	uint64_t run, wait;

	if (system_parse_schedstat(text, &run, &wait) >= 0)
		system_sum_add(&s->wait, p->start_ticks << 22 | (uint64_t)tid, wait, 0,
			       p->is_old && !p->is_seen);
}

static void read_thread(void *data, pid_t tid)
{
	struct thread_reading *t = data;
	char file[48], text[128];

	snprintf(file, sizeof(file), "task/%d/schedstat", (int)tid);
	if (read_proc(t->process->pid, file, text, sizeof(text)) >= 0)
		add_wait(t->s, t->process, tid, text);
}

static void read_wait(struct keeper_system *s, struct system_process *p, unsigned int threads,
		      struct system_budget *budget)
{
	struct thread_reading t = {s, p};
	char text[128];

	if (threads > 1)
		gateways_each_thread(p->pid, read_thread, &t);
	else if (read_held(p, FILE_WAIT, budget, text, sizeof(text)) >= 0)
		add_wait(s, p, p->pid, text);
	p->is_seen = true;
}

static void read_disk(struct keeper_system *s, struct system_process *p,
		      struct system_budget *budget)
{
	bool is_parent = p->pid == s->master; /* others' children are not watched */
	uint64_t read, written;
	char text[512];

	if (read_held(p, FILE_IO, budget, text, sizeof(text)) < 0 ||
	    system_parse_io(text, &read, &written) < 0)
		return;
	system_sum_add(&s->read, process_name(p), read, is_parent ? read : 0, p->is_old);
	system_sum_add(&s->written, process_name(p), written, is_parent ? written : 0, p->is_old);
}

static bool read_stat(struct keeper_system *s, struct system_process *p,
		      const struct system_context *c, struct system_stat *ret)
{
	char text[1024];

	if (read_held(p, FILE_STAT, c->budget, text, sizeof(text)) < 0 ||
	    system_parse_stat(text, ret) < 0)
		return false;
	if (!p->start_ticks) {
		p->start_ticks = ret->start_ticks;
		p->is_old = ret->start_ticks <= c->since_ticks;
	}
	p->is_other = p->start_ticks != ret->start_ticks;
	if (p->is_other)
		return false;
	system_sum_add(&s->cpu, process_name(p), ret->own_ticks + ret->reaped_ticks,
		       ret->reaped_ticks, p->is_old);
	return true;
}

static void read_processes(struct keeper_system *s, const struct system_context *c, bool is_slow)
{
	uint64_t tick_ns = NS_PER_S / (uint64_t)sysconf(_SC_CLK_TCK);
	uint64_t pages = 0, more, fds = 0;
	bool has_fds = false, has_threads = false;
	/* Each thread has a file of its own: read all of them or none. */
	bool has_wait = is_slow || !s->has_threads;
	unsigned int live = 0;

	system_sum_begin(&s->cpu);
	system_sum_begin(&s->read);
	system_sum_begin(&s->written);
	if (has_wait)
		system_sum_begin(&s->wait);
	for (unsigned int i = 0; i < s->process_count; i++) {
		struct system_process *p = &s->processes[i];
		struct system_stat stat;
		char text[256];

		if (!read_stat(s, p, c, &stat))
			continue;
		live++;
		has_threads |= stat.threads > 1;
		if (has_wait)
			read_wait(s, p, stat.threads, c->budget);
		read_disk(s, p, c->budget);
		if (!s->has_own_cgroup &&
		    read_held(p, FILE_MEMORY, c->budget, text, sizeof(text)) >= 0 &&
		    system_parse_statm(text, &more) >= 0)
			pages += more;
		if (is_slow && system_count_fds(p->pid, &more) >= 0) {
			fds += more;
			has_fds = true;
		}
	}
	s->has_threads = has_threads;
	if (!live)
		return;
	grow(s, SYSTEM_CPU, system_sum_end(&s->cpu) * tick_ns);
	if (has_wait && s->wait.count)
		grow(s, SYSTEM_RUN_QUEUE, system_sum_end(&s->wait));
	if (s->read.count) {
		grow(s, SYSTEM_READ, system_sum_end(&s->read));
		grow(s, SYSTEM_WRITTEN, system_sum_end(&s->written));
	}
	if (!s->has_own_cgroup)
		set(s, SYSTEM_MEMORY, (double)pages * (double)sysconf(_SC_PAGESIZE));
	if (has_fds)
		set(s, SYSTEM_FDS, (double)fds);
}

/* ---- control groups, pressure, network ---- */

static void read_pressure(struct keeper_system *s, struct system_budget *budget)
{
	static const char *const resources[RESOURCES] = {
		[RESOURCE_CPU] = "cpu", [RESOURCE_MEMORY] = "memory", [RESOURCE_IO] = "io"};
	static const char *const kinds[KINDS] = {[KIND_SOME] = "some", [KIND_FULL] = "full"};
	const struct cgroup_dir *d = &s->cgroup.unified;
	/* The topmost group's pressure is the host's, unless it is a container's own view. */
	bool is_group = s->has_cgroup && d->path[0] &&
			(strlen(d->path) > d->top || str_starts(d->path, "/proc/"));
	enum system_scope scope = is_group ? SCOPE_CGROUP : SCOPE_HOST;

	for (unsigned int i = 0; i < RESOURCES; i++) {
		char path[CGROUP_PATH_BYTES + 32], text[512];
		uint64_t ns;

		if (is_group)
			snprintf(path, sizeof(path), "%s/%s.pressure", d->path, resources[i]);
		else
			snprintf(path, sizeof(path), "/proc/pressure/%s", resources[i]);
		if (system_file_read(&s->pressure_files[i], budget, path, text, sizeof(text)) < 0)
			continue;
		for (unsigned int k = 0; k < KINDS; k++)
			if (system_parse_pressure(text, kinds[k], &ns) >= 0)
				grow(s, SYSTEM_PRESSURE + (scope * RESOURCES + i) * KINDS + k,
				     system_meter_update(&s->pressure[scope][i][k], ns));
	}
}

static void read_limits(struct keeper_system *s)
{
	double cores;
	uint64_t bytes;

	s->has_gauge[SYSTEM_CPU_LIMIT] = s->has_gauge[SYSTEM_MEMORY_LIMIT] = false;
	if (cgroup_cpu_limit(&s->cgroup, &cores) >= 0)
		set(s, SYSTEM_CPU_LIMIT, cores);
	if (cgroup_memory_limit(&s->cgroup, &bytes) >= 0)
		set(s, SYSTEM_MEMORY_LIMIT, (double)bytes);
	if (s->has_own_cgroup && cgroup_memory(&s->cgroup, &bytes) >= 0)
		set(s, SYSTEM_MEMORY, (double)bytes);
}

static void read_net(struct keeper_system *s, struct system_budget *budget)
{
	static char text[NET_BYTES]; /* one thread, and too large for the stack */
	uint64_t received, sent;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/net/dev", (int)s->master);
	if (system_file_read(&s->net_file, budget, path, text, sizeof(text)) < 0 ||
	    system_net_update(&s->net, text, &received, &sent) < 0)
		return;
	grow(s, SYSTEM_RECEIVED, received);
	grow(s, SYSTEM_SENT, sent);
}

/* ---- accept queues ---- */

static bool is_ours(const struct keeper_system *s, const struct queue *q)
{
	return bsearch(&q->state.inode, s->listeners, s->listener_count, sizeof(s->listeners[0]),
		       keeper_system_compare_listeners);
}

static void add_queue(struct system_port *p, struct queue *q)
{
	p->is_known = true;
	p->length += q->state.length;
	p->limit += q->state.limit;
	if (q->state.has_drops)
		p->drops += q->pending;
	q->pending = 0;
}

/* Listeners of one port that are this gateway's; where it has made new ones since the last scan,
 * all of the port. */
static void read_port(struct keeper_system *s, struct system_port *p, struct queue *rows, size_t n)
{
	p->is_known = false;
	p->length = p->limit = 0;
	for (size_t i = 0; i < n; i++)
		if (rows[i].state.port == p->port && is_ours(s, &rows[i]))
			add_queue(p, &rows[i]);
	if (p->is_known)
		return;
	for (size_t i = 0; i < n; i++)
		if (rows[i].state.port == p->port)
			add_queue(p, &rows[i]);
}

static void read_queues(struct keeper_system *s, struct queues *queues)
{
	size_t n = 0;
	struct queue *rows = queues && !s->netns ? queues_rows(queues, &n) : NULL;

	for (unsigned int i = 0; i < s->port_count; i++)
		read_port(s, &s->ports[i], rows, n);
}

/* ---- one reading ---- */

/* What was found out once for this master. */
static void tell(struct keeper_system *s, const struct queues *queues)
{
	s->is_told = true;
	log_info("keeper", "system level",
		 "gateway=%s cgroup=\"%s\" memory_of=%s accept_queues=\"%s\"", s->name,
		 s->has_cgroup ? s->cgroup.memory.path : "none that can be read",
		 s->has_own_cgroup ? "cgroup" : "processes",
		 s->netns ? "unavailable: the gateway has a network namespace of its own"
		 : queues ? "sock_diag"
			  : "unavailable: no sock_diag");
}

/* Groups and namespace may change while a gateway runs. */
static void look_around(struct keeper_system *s, const struct system_context *c)
{
	pid_t pids[GATEWAY_PROCESSES];
	struct cgroup now = {0};

	for (unsigned int i = 0; i < s->process_count; i++)
		pids[i] = s->processes[i].pid;
	if (system_net_namespace(s->master, &s->netns) < 0)
		return;
	s->has_cgroup = cgroup_of(s->master, &now) >= 0;
	/* Another group's numbers do not continue this one's. */
	if (!str_equal(now.cpu.path, s->cgroup.cpu.path))
		s->throttled = (struct system_meter){0};
	if (!str_equal(now.unified.path, s->cgroup.unified.path)) {
		for (unsigned int i = 0; i < RESOURCES; i++)
			system_file_close(&s->pressure_files[i], c->budget);
		memset(s->pressure, 0, sizeof(s->pressure));
	}
	s->cgroup = now;
	s->has_own_cgroup = s->has_cgroup && cgroup_is_own(&s->cgroup, pids, s->process_count);
	if (!s->is_told)
		tell(s, c->queues);
}

void keeper_system_read(struct keeper_system *s, const struct system_context *c)
{
	bool is_slow = !s->slow_ns || c->now_ns - s->slow_ns >= SLOW_NS;
	uint64_t ns;

	if (is_slow) {
		look_around(s, c);
		s->slow_ns = c->now_ns;
	}
	read_processes(s, c, is_slow);
	read_net(s, c->budget);
	read_pressure(s, c->budget);
	if (s->has_cgroup && cgroup_throttled_ns(&s->cgroup, &ns) >= 0)
		grow(s, SYSTEM_THROTTLED, system_meter_update(&s->throttled, ns));
	if (is_slow && s->has_cgroup)
		read_limits(s);
	read_queues(s, c->queues);
}
