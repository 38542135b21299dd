/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loads the probes by each rung of the ladder that works here, runs tests/bpf/workload under them
 * and compares every count exactly. TAP; as root. Argument: the only rung to try.
 */
#include "rungs.h"

#include "config/config.h"

#include <sys/wait.h>

static char workload_path[4096];
static struct cells cells;
static struct probe_now now;

struct child {
	pid_t pid;
	int to, from;
};

static struct child start(const char *what)
{
	int to[2], from[2];
	struct child c;

	if (pipe(to) || pipe(from))
		exit(1);
	c.pid = fork();
	if (!c.pid) {
		dup2(to[0], 0);
		dup2(from[1], 1);
		close(to[1]);
		close(from[0]);
		execl(workload_path, "workload", what, NULL);
		_exit(97);
	}
	close(to[0]);
	close(from[1]);
	c.to = to[1];
	c.from = from[0];
	return c;
}

/* Until it sleeps in read(0): a call that began before we watched counts when it returns. */
static void settle(pid_t pid)
{
	char path[64], text[256];
	uint64_t end = clock_mono_ns() + 10 * NS_PER_S;

	snprintf(path, sizeof(path), "/proc/%d/syscall", pid);
	while (clock_mono_ns() < end)
		if (str_read_file(path, text, sizeof(text)) > 0 && str_starts(text, "0 0x0 "))
			return;
}

static void go(struct child *c)
{
	char answer = 0;

	if (write(c->to, "g", 1) != 1 || read(c->from, &answer, 1) != 1)
		answer = 'x';
	is("workload ran", (uint64_t)answer, 'd');
}

static void stop(struct child *c)
{
	close(c->to);
	close(c->from);
	kill(c->pid, SIGKILL);
	waitpid(c->pid, NULL, 0);
}

static uint64_t errors(const struct probe_set *set, enum syscall_id id)
{
	uint64_t n = 0;

	for (unsigned int i = 0; i < ERRNOS; i++)
		n += probe_errors(set, &cells, id, (enum errno_cell)i);
	return n;
}

#define CALLS(name, want) is(#name, cells.syscalls[SYSCALL_##name], want)
#define TIMED(name, unseen)                                                        \
	is(#name " each timed", histogram_count(cells.syscall_ns[SYSCALL_##name]), \
	   cells.syscalls[SYSCALL_##name] - (unseen))
#define FAILED(name, errno_, want)                                                        \
	do {                                                                              \
		is(#name " " #errno_,                                                     \
		   probe_errors(set, &cells, SYSCALL_##name, ERRNO_CELL_##errno_), want); \
		is(#name " all errors", errors(set, SYSCALL_##name), want);               \
	} while (0)

static void test_calls(struct probe_set *set)
{
	struct child c = start("calls");

	settle(c.pid);
	is("watch",
	   (uint64_t)probe_watch_thread(set, 0, (uint32_t)c.pid, (uint32_t)c.pid, ROLE_WORKER), 0);
	go(&c);
	settle(c.pid);
	probe_fold(set, clock_mono_ns());
	probe_totals(set, 0, clock_mono_ns(), &cells, &now);
	CALLS(read, 1 + 101 + 13);
	FAILED(read, EBADF, 13);
	CALLS(write, 103 + 1);
	CALLS(openat, 17);
	FAILED(openat, ENOENT, 17);
	CALLS(close, 107);
	FAILED(close, EBADF, 107);
	CALLS(epoll_wait, 31);
	CALLS(epoll_pwait, 29);
	CALLS(accept, 11);
	FAILED(accept, EAGAIN, 11);
	CALLS(accept4, 5);
	FAILED(accept4, EBADF, 5);
	CALLS(connect, 7);
	FAILED(connect, ECONNREFUSED, 7);
	CALLS(writev, 37);
	CALLS(readv, 41);
	CALLS(sendto, 43);
	CALLS(recvfrom, 43);
	CALLS(sendmsg, 19);
	CALLS(recvmsg, 19);
	CALLS(sendfile, 23);
	CALLS(splice, 3);
	TIMED(read, 1);
	TIMED(sendmsg, 0);
	TIMED(epoll_wait, 0);
	/* between the first return and the last call */
	is("stalls", histogram_count(cells.stall_ns), 31 + 29 - 1);
	is("no requests", cells.requests_started, 0);
	is("one worker", now.threads, 1);
	stop(&c);
	probe_fold(set, clock_mono_ns());
	probe_totals(set, 0, clock_mono_ns(), &cells, &now);
	CALLS(readv, 41);
	is("no worker", now.threads, 0);
}

/* One round of the workload: what the reads took by its own clock, and by the probes. */
static double blocked_ratio(struct probe_set *set, struct child *c, uint64_t long_before)
{
	uint64_t sum = 0;

	go(c);
	if (read(c->from, &sum, sizeof(sum)) != sizeof(sum))
		sum = 0;
	settle(c->pid);
	probe_totals(set, 0, clock_mono_ns(), &cells, &now);
	printf("# %s: blocking reads took %llu ns, by the probes %llu\n", tier,
	       (unsigned long long)sum,
	       (unsigned long long)(cells.syscall_long_ns[SYSCALL_readv] - long_before));
	return sum ? (double)(cells.syscall_long_ns[SYSCALL_readv] - long_before) / (double)sum : 0;
}

/* Each of the two clocks may be read late on a busy machine, so one good round of five will do. */
static void test_blocking(struct probe_set *set)
{
	struct child c = start("blocking");
	uint64_t before, timed;
	bool is_near = false;

	settle(c.pid);
	is("watch blocking",
	   (uint64_t)probe_watch_thread(set, 0, (uint32_t)c.pid, (uint32_t)c.pid, ROLE_WORKER), 0);
	for (unsigned int i = 0; i < 5 && !is_near; i++) {
		double ratio;

		probe_totals(set, 0, clock_mono_ns(), &cells, &now);
		before = cells.syscall_long_ns[SYSCALL_readv];
		timed = histogram_count(cells.syscall_ns[SYSCALL_readv]);
		ratio = blocked_ratio(set, &c, before);
		is_near = ratio > 0.99 && ratio < 1.01;
		is("blocking reads each timed",
		   histogram_count(cells.syscall_ns[SYSCALL_readv]) - timed, 17 + 17);
	}
	is("time of blocking reads within 1 %", is_near, true);
	stop(&c);
	probe_fold(set, clock_mono_ns());
}

static void test_family(struct probe_set *set)
{
	struct child c = start("family");

	settle(c.pid);
	probe_watch_thread(set, 1, (uint32_t)c.pid, (uint32_t)c.pid, ROLE_MASTER);
	go(&c);
	for (int i = 0; i < 3; i++)
		probe_fold(set, clock_mono_ns());
	probe_totals(set, 1, clock_mono_ns(), &cells, &now);
	CALLS(readv, 61);
	stop(&c);
	probe_fold(set, clock_mono_ns());
	probe_totals(set, 1, clock_mono_ns(), &cells, &now);
	CALLS(readv, 61);
}

/* A master that executes itself anew, and forks before anybody looked, is the same master. */
static void test_reload(struct probe_set *set)
{
	struct child c = start("reload");
	uint64_t before;

	probe_totals(set, 1, clock_mono_ns(), &cells, &now);
	before = cells.syscalls[SYSCALL_readv];
	settle(c.pid);
	probe_watch_thread(set, 1, (uint32_t)c.pid, (uint32_t)c.pid, ROLE_MASTER);
	is("reload begins", (uint64_t)write(c.to, "g", 1), 1);
	go(&c);
	probe_fold(set, clock_mono_ns());
	probe_totals(set, 1, clock_mono_ns(), &cells, &now);
	CALLS(readv, before + 61);
	is("master is known", probe_has_process(set, (uint32_t)c.pid), true);
	stop(&c);
	probe_fold(set, clock_mono_ns());
	is("and gone", probe_has_process(set, (uint32_t)c.pid), false);
}

#define REQUESTS(method, code, want) \
	is(#method " " #code, probe_requests(set, &cells, HTTP_##method, code), want)

static void test_http(struct probe_set *set)
{
	struct child c = start("http");
	uint64_t n = 0;

	settle(c.pid);
	probe_watch_thread(set, 2, (uint32_t)c.pid, (uint32_t)c.pid, ROLE_WORKER);
	go(&c);
	probe_totals(set, 2, clock_mono_ns(), &cells, &now);
	REQUESTS(GET, 200, 6 + 1 + 2 + 4 + 3 + 1 + 6);
	REQUESTS(HEAD, 200, 1);
	REQUESTS(GET, 204, 1);
	REQUESTS(GET, 304, 1);
	REQUESTS(GET, 404, 1);
	REQUESTS(POST, 500, 1);
	REQUESTS(PUT, 599, 1);
	REQUESTS(POST, 201, 1);
	REQUESTS(OTHER, 200, 1);
	REQUESTS(DELETE, 200, 1);
	REQUESTS(PATCH, 200, 1);
	REQUESTS(OPTIONS, 200, 1);
	REQUESTS(GET, 101, 1);
	for (unsigned int i = 0; i < REQUEST_ROWS; i++)
		n += cells.requests[i];
	is("all requests", n, 35);
	is("completed", cells.requests_completed, 35);
	is("health checks", cells.requests_health, 3);
	is("aborted", cells.requests_aborted, 2);
	is("lost", cells.requests_lost, 2);
	is("started", cells.requests_started, 39);
	is("accepted", cells.accepts, 13);
	is("closed", cells.closes, 13);
	is("open", now.connections_open, 0);
	is("in flight", now.in_flight, 0);
	n = 0;
	for (unsigned int k = 0; k < HTTP_CLASSES; k++)
		n += histogram_count(cells.request_ns[k]);
	is("durations", n, 35);
	n = 0;
	for (unsigned int k = 0; k < HTTP_CLASSES; k++)
		n += histogram_count(cells.first_byte_ns[k]);
	is("first bytes", n, 35);
	/* The client's end is in the same process: an upstream connection, whose answers it never
	 * reads, has more requests under way than are remembered. */
	/* Its client's ends are connections to an upstream; one sends HTTP/2's preface. */
	for (const struct probe_lost *l = probe_lost(set); l->reason; l++)
		is(l->reason, l->count,
		   str_equal(l->reason, "pipeline")         ? 10
		   : str_equal(l->reason, "upstream_http2") ? 1
							    : 0);
	stop(&c);
	probe_fold(set, clock_mono_ns());
}

static void test_killed(struct probe_set *set)
{
	struct child c = start("killed");

	settle(c.pid);
	probe_watch_thread(set, 3, (uint32_t)c.pid, (uint32_t)c.pid, ROLE_WORKER);
	go(&c);
	probe_totals(set, 3, clock_mono_ns(), &cells, &now);
	is("in flight", now.in_flight, 2);
	is("open", now.connections_open, 1);
	stop(&c);
	for (int i = 0; i < 3; i++)
		probe_fold(set, clock_mono_ns());
	probe_totals(set, 3, clock_mono_ns(), &cells, &now);
	is("completed", cells.requests_completed, 1);
	is("lost", cells.requests_lost, 2);
	is("in flight after", now.in_flight, 0);
	is("open after", now.connections_open, 0);
}

static struct probe_set *reopen(const struct probe_options *options, uint64_t id)
{
	struct probe_set *set = NULL;
	struct err e = {.text = ""};
	int r = probe_open(options, id, &set, &e);

	if (r)
		printf("# %s\n", e.text);
	is("opened", (uint64_t)r, 0);
	return set;
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

/* Counting goes on while nobody holds the probes; the next keeper finds all of it, and its totals do
 * not fall; a keeper that asks for other maps gets new ones. */
static void test_pins(const struct probe_options *unpinned)
{
	struct probe_options options = *unpinned;
	struct probe_set *set;
	struct child c;
	uint64_t id;

	options.pin_dir = "/sys/fs/bpf/tidegate-test/host";
	set = reopen(&options, 0);
	if (!set)
		return;
	if (report_of(set, "pin")->state != PROBE_OK) {
		printf("ok %u - %s: pins # SKIP %s\n", ++number, tier, report_of(set, "pin")->why);
		probe_close(set);
		return;
	}
	id = probe_maps_id(set);
	c = start("killed");
	settle(c.pid);
	probe_watch_thread(set, 3, (uint32_t)c.pid, (uint32_t)c.pid, ROLE_WORKER);
	set = probe_close(set);
	go(&c);
	set = reopen(&options, id);
	is("adopted", probe_is_adopted(set), true);
	probe_totals(set, 3, clock_mono_ns(), &cells, &now);
	is("completed while away", cells.requests_completed, 1);
	is("in flight while away", now.in_flight, 2);
	is("worker", now.threads, 1);
	set = probe_close(set);
	stop(&c);
	set = reopen(&options, id);
	probe_fold(set, clock_mono_ns());
	probe_fold(set, clock_mono_ns());
	probe_totals(set, 3, clock_mono_ns(), &cells, &now);
	is("folded after adoption", cells.requests_completed, 1);
	is("lost after adoption", cells.requests_lost, 2);
	is("open after adoption", now.connections_open, 0);
	set = probe_close(set);
	set = reopen(&options, id + 1);
	is("not adopted by another", probe_is_adopted(set), false);
	probe_totals(set, 3, clock_mono_ns(), &cells, &now);
	is("new maps are empty", cells.requests_completed, 0);
	probe_close(set);
	is("unpin", (uint64_t)probe_unpin("/sys/fs/bpf/tidegate-test/host", NULL), 0);
	is("nothing left", (uint64_t)access("/sys/fs/bpf/tidegate-test/host", F_OK), (uint64_t)-1);
	rmdir("/sys/fs/bpf/tidegate-test");
}

static void test_tier(void)
{
	char path[] = "/healthz", agent[] = "kube-probe", *paths[] = {path}, *agents[] = {agent};
	const struct config_list health = {paths, 1}, probes = {agents, 1};
	const struct probe_options options = {
		.tier = tier,
		.threads = 32,
		.connections = 1024,
		.sample = 1,
		.want_tls = true,
		.gateways = 4,
		.health_paths = &health,
		.health_user_agents = &probes,
		.slow_request_ns = NS_PER_S,
	};
	struct probe_set *set;

	if (!open_rung(&options, &set))
		return;
	is("the TLS programs are loaded", report_of(set, "tls")->state != PROBE_UNAVAILABLE, 1);
	test_calls(set);
	test_blocking(set);
	test_family(set);
	test_reload(set);
	test_http(set);
	test_killed(set);
	probe_close(set);
	test_pins(&options);
}

/* Beside this program. */
static void find_workload(void)
{
	ssize_t n = readlink("/proc/self/exe", workload_path, sizeof(workload_path) - 16);
	char *slash;

	workload_path[n > 0 ? n : 0] = '\0';
	slash = strrchr(workload_path, '/');
	if (slash)
		strcpy(slash + 1, "workload");
}

int main(int argc, char **argv)
{
	find_workload();
	rungs_setup();
	return rungs_run(argc > 1 ? argv[1] : NULL, test_tier);
}
