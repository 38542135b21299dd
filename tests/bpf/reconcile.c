/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections whose descriptor ends without close(): by dup2, close_range, exec; and such as outlive one
 * of two holders. What is open is compared with the kernel's table of sockets, and the keeper is killed
 * at each of its system calls while it repairs. TAP; as root. Argument: the only rung to try.
 */
#include "rungs.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define MOST       256
#define MANY       197 /* more than are looked at at once */
#define LISTENER   3   /* the gateway's, also after an exec */
#define PIN_DIR    "/sys/fs/bpf/tidegate-test-reconcile/host"
#define GET        "GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
#define HTTP2_HELD "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

static struct cells cells;
static struct probe_now now;
static in_port_t port, backend_port;
static int listener;

/* ---- the gateway: does what it is told, one thing at a time ---- */

struct order {
	char what;
	int a;
	in_port_t port;
};

static int dial(in_port_t to)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = to};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	must(connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0);
	return fd;
}

static void fork_briefly(void)
{
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	must(waitpid(pid, NULL, 0) == pid);
}

static void obey(const struct order *o, int *fds, unsigned int *count)
{
	char buf[4096];
	int null;

	switch (o->what) {
	case 'a':
		must(*count < MOST);
		fds[*count] = accept(LISTENER, NULL, NULL);
		must(fds[(*count)++] > LISTENER);
		break;
	case 'u':
		must(*count < MOST);
		fds[*count] = dial(o->port);
		must(write(fds[(*count)++], GET, sizeof(GET) - 1) == sizeof(GET) - 1);
		break;
	case 'r':
		must(read(fds[o->a], buf, sizeof(buf)) >= 0);
		break;
	case 'd':
		null = open("/dev/null", O_RDONLY);
		must(dup2(null, fds[o->a]) == fds[o->a]);
		close(null);
		break;
	case 'e':
		must(fcntl(fds[o->a], F_SETFD, FD_CLOEXEC) == 0);
		break;
	case 'c': /* this one and all above */
		must(syscall(SYS_close_range, fds[o->a], ~0u, 0) == 0);
		*count = (unsigned int)o->a;
		break;
	case 'f':
		fork_briefly();
		break;
	case 'x':
		execl("/proc/self/exe", "reconcile.t", "--gateway", NULL);
		_exit(98);
	}
}

static void gateway(void)
{
	int fds[MOST];
	unsigned int count = 0;
	struct order o;

	/* A lower descriptor for the loader after an exec: it would close what we test. */
	must(open("/dev/null", O_RDONLY | O_CLOEXEC) == LISTENER + 1);
	while (read(0, &o, sizeof(o)) == sizeof(o)) {
		obey(&o, fds, &count);
		must(write(1, "d", 1) == 1);
	}
	_exit(0);
}

struct child {
	pid_t pid;
	int to, from;
};

static struct child start(void)
{
	int to[2], from[2];
	struct child c;

	must(pipe2(to, O_CLOEXEC) == 0 && pipe2(from, O_CLOEXEC) == 0);
	c.pid = fork();
	if (!c.pid) {
		dup2(to[0], 0);
		dup2(from[1], 1);
		must(listener == LISTENER || dup2(listener, LISTENER) == LISTENER);
		syscall(SYS_close_range, LISTENER + 1, ~0u, 0);
		execl("/proc/self/exe", "reconcile.t", "--gateway", NULL);
		_exit(98);
	}
	close(to[0]);
	close(from[1]);
	c.to = to[1];
	c.from = from[0];
	return c;
}

static void told(struct child *c, char what, int a)
{
	const struct order o = {.what = what, .a = a, .port = backend_port};
	char answer = 0;

	if (write(c->to, &o, sizeof(o)) != sizeof(o))
		is("the gateway hears", 0, 1);
	/* Another program answers its first order only. */
	if (what != 'x' && (read(c->from, &answer, 1) != 1 || answer != 'd'))
		is("the gateway obeys", 0, 1);
}

static void stop(struct child *c)
{
	close(c->to);
	close(c->from);
	kill(c->pid, SIGKILL);
	waitpid(c->pid, NULL, 0);
}

/* ---- clients, and what the kernel knows ---- */

static int listen_loopback(in_port_t *ret_port)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	socklen_t n = sizeof(a);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	must(bind(fd, (struct sockaddr *)&a, n) == 0 && listen(fd, 64) == 0 &&
	     getsockname(fd, (struct sockaddr *)&a, &n) == 0);
	*ret_port = a.sin_port;
	return fd;
}

/* A connection of the gateway's; what it says first is read there. */
static int client(struct child *c, int index, const char *says, size_t size)
{
	int fd = dial(port);

	told(c, 'a', 0);
	if (!size)
		return fd;
	must(write(fd, says, size) == (ssize_t)size);
	told(c, 'r', index);
	return fd;
}

/* Sockets of accepted connections that some process holds, by /proc/net/tcp. */
static uint64_t held(void)
{
	FILE *f = fopen("/proc/net/tcp", "re");
	char line[256];
	uint64_t n = 0;

	must(f != NULL);
	while (fgets(line, sizeof(line), f)) {
		unsigned int local, state;
		unsigned long inode;

		if (sscanf(line, "%*u: %*x:%x %*x:%*x %x %*s %*s %*s %*u %*u %lu", &local, &state,
			   &inode) == 3 &&
		    htons((uint16_t)local) == port && state != 0x0a && inode)
			n++;
	}
	fclose(f);
	return n;
}

static uint64_t unseen(struct probe_set *set)
{
	for (const struct probe_lost *l = probe_lost(set); l->reason; l++)
		if (str_equal(l->reason, "unseen_close"))
			return l->count;
	return UINT64_MAX;
}

static void look(struct probe_set *set)
{
	probe_fold(set, clock_mono_ns());
	probe_totals(set, 0, clock_mono_ns(), &cells, &now);
}

/* As many ticks as it takes, within 30 s. */
static void settle(struct probe_set *set, const char *what, uint64_t repaired)
{
	uint64_t end = clock_mono_ns() + 30 * NS_PER_S, want = held();
	unsigned int ticks = 0;

	do {
		look(set);
		ticks++;
		if (now.connections_open == want && unseen(set) == repaired)
			break;
		poll(NULL, 0, 50);
	} while (clock_mono_ns() < end);
	printf("# %s: %s after %u looks\n", tier, what, ticks);
	is(what, now.connections_open, want);
	is("repaired", unseen(set), repaired);
}

/* ---- tests ---- */

static void test_ends(struct probe_set *set)
{
	static const unsigned char head[] = {0, 0, 3, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x84};
	char preface[sizeof(HTTP2_HELD) - 1 + sizeof(head)];
	struct child c = start();
	int fds[7];

	told(&c, 'f', 0); /* it runs */
	is("watch",
	   (uint64_t)probe_watch_thread(set, 0, (uint32_t)c.pid, (uint32_t)c.pid, ROLE_MASTER), 0);
	memcpy(preface, HTTP2_HELD, sizeof(HTTP2_HELD) - 1);
	memcpy(preface + sizeof(HTTP2_HELD) - 1, head, sizeof(head));
	fds[0] = client(&c, 0, GET, sizeof(GET) - 1);
	fds[1] = client(&c, 1, GET, sizeof(GET) - 1);
	fds[2] = client(&c, 2, preface, sizeof(preface));
	for (int i = 3; i < 7; i++)
		fds[i] = client(&c, i, NULL, 0);
	told(&c, 'u', 0);
	shutdown(fds[1], SHUT_WR);
	told(&c, 'r', 1);
	settle(set, "all are open", 0);
	is("seven", now.connections_open, 7);
	is("three requests", now.in_flight, 3);
	told(&c, 'f', 0);
	settle(set, "one of two holders ends", 0);
	told(&c, 'd', 0);
	told(&c, 'd', 1);
	told(&c, 'd', 3);
	settle(set, "dup2 over three", 3);
	is("lost", cells.requests_lost, 1);
	is("aborted", cells.requests_aborted, 1);
	is("in flight", now.in_flight, 1);
	told(&c, 'e', 2);
	told(&c, 'e', 4);
	told(&c, 'e', 7); /* to the upstream */
	told(&c, 'x', 0);
	told(&c, 'f', 0);
	settle(set, "exec closes three", 6);
	is("two are left", now.connections_open, 2);
	is("the stream of HTTP/2 is lost", cells.requests_lost, 2);
	is("nothing in flight", now.in_flight, 0);
	is("accepts", cells.accepts, 7);
	is("closes", cells.closes, 5);
	for (int i = 0; i < 7; i++)
		close(fds[i]);
	stop(&c);
	settle(set, "all are closed", 6);
	is("closes in the end", cells.closes, 7);
}

/* Every other one ends; the walk comes by all of them. */
static void test_many(struct probe_set *set)
{
	struct child c = start();
	uint64_t accepts, before = unseen(set);
	int fds[MANY];

	told(&c, 'f', 0);
	look(set);
	accepts = cells.accepts;
	probe_watch_thread(set, 0, (uint32_t)c.pid, (uint32_t)c.pid, ROLE_WORKER);
	for (int i = 0; i < MANY; i++)
		fds[i] = client(&c, i, NULL, 0);
	for (int i = 0; i < MANY; i += 2)
		told(&c, 'd', i);
	settle(set, "dup2 over many", before + MANY / 2 + 1);
	is("accepted", cells.accepts - accepts, MANY);
	told(&c, 'c', 0);
	settle(set, "close_range", before + MANY);
	is("none is left", now.connections_open, 0);
	for (int i = 0; i < MANY; i++)
		close(fds[i]);
	stop(&c);
}

static struct probe_set *reopen(const struct probe_options *options, uint64_t id)
{
	struct probe_set *set = NULL;
	struct err e = {.text = ""};

	if (probe_open(options, id, &set, &e)) {
		printf("# %s\n", e.text);
		is("opened", 0, 1);
	}
	return set;
}

/* A keeper that claims, and then is killed at its `stops`th stop at a system call. True: it came
 * to the end before that. */
static bool keeper_dies(const struct probe_options *options, uint64_t id, unsigned int stops)
{
	pid_t pid = fork();
	int status = 0;

	if (!pid) {
		struct probe_set *set = reopen(options, id);
		uint64_t at = clock_mono_ns();

		must(set && probe_is_adopted(set));
		probe_fold(set, at);
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		probe_fold(set, at + NS_PER_S);
		_exit(0);
	}
	must(waitpid(pid, &status, 0) == pid && WIFSTOPPED(status));
	while (stops-- && WIFSTOPPED(status)) {
		ptrace(PTRACE_SYSCALL, pid, NULL, NULL);
		must(waitpid(pid, &status, 0) == pid);
	}
	if (WIFEXITED(status))
		return true;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return false;
}

/* Right after a repair that was cut off anywhere, and after the next keeper went on with it. */
static bool test_round(const struct probe_options *options, uint64_t id, struct child *c,
		       unsigned int round)
{
	int a = client(c, 0, GET, sizeof(GET) - 1), b = client(c, 1, GET, sizeof(GET) - 1);
	uint64_t end = clock_mono_ns() + 30 * NS_PER_S, at = clock_mono_ns() + 2 * NS_PER_S;
	struct probe_set *set;
	bool is_done;

	shutdown(b, SHUT_WR);
	told(c, 'r', 1);
	told(c, 'u', 0);
	told(c, 'c', 0);
	is_done = keeper_dies(options, id, round);
	set = reopen(options, id);
	must(set != NULL);
	do {
		at += NS_PER_S;
		probe_fold(set, at);
		probe_totals(set, 0, at, &cells, &now);
	} while (unseen(set) < 3 * round && clock_mono_ns() < end);
	if (now.connections_open || now.in_flight || cells.closes != 2 * round ||
	    cells.requests_lost != round || cells.requests_aborted != round ||
	    unseen(set) != 3 * round) {
		printf("# %s: killed at %u: %llu open, %llu in flight, %llu closed, %llu lost, "
		       "%llu aborted, %llu repaired\n",
		       tier, round, (unsigned long long)now.connections_open,
		       (unsigned long long)now.in_flight, (unsigned long long)cells.closes,
		       (unsigned long long)cells.requests_lost,
		       (unsigned long long)cells.requests_aborted, (unsigned long long)unseen(set));
		is("a keeper that dies counts once", round, 0);
		is_done = true;
	}
	probe_close(set);
	close(a);
	close(b);
	return is_done;
}

static void test_deaths(const struct probe_options *unpinned)
{
	struct probe_options options = *unpinned;
	unsigned int round = 0, before = failed;
	struct probe_set *set;
	struct child c;
	uint64_t id;

	options.pin_dir = PIN_DIR;
	set = reopen(&options, 0);
	if (!set)
		return;
	id = probe_maps_id(set);
	c = start();
	told(&c, 'f', 0);
	probe_watch_thread(set, 0, (uint32_t)c.pid, (uint32_t)c.pid, ROLE_WORKER);
	probe_close(set);
	while (!test_round(&options, id, &c, ++round) && round < 1000)
		;
	printf("# %s: killed at %u places\n", tier, round - 1);
	is("a repair is many calls", round > 20 && round < 1000, 1);
	is("each counted once", failed, before);
	stop(&c);
	is("unpin", (uint64_t)probe_unpin(PIN_DIR, NULL), 0);
	rmdir("/sys/fs/bpf/tidegate-test-reconcile");
}

static void test_tier(void)
{
	const struct probe_options options = {
		.tier = tier,
		.threads = 32,
		.connections = 1024,
		.upstreams = 8,
		.sample = 1,
		.gateways = 2,
		.slow_request_ns = NS_PER_S,
	};
	struct probe_set *set;

	if (!open_rung(&options, &set))
		return;
	test_ends(set);
	/* The keeper's side is the same on each rung. */
	if (loaded == 1)
		test_many(set);
	probe_close(set);
	if (loaded == 1)
		test_deaths(&options);
}

int main(int argc, char **argv)
{
	if (argc > 1 && str_equal(argv[1], "--gateway"))
		gateway();
	rungs_setup();
	listener = listen_loopback(&port);
	listen_loopback(&backend_port);
	return rungs_run(argc > 1 ? argv[1] : NULL, test_tier);
}
