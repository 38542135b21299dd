/* SPDX-License-Identifier: Apache-2.0 */
/*
 * More pairs of method and code, and of call and error, than there are rows: those that have one go on
 * counting exactly, the others are counted as lost. The rows are taken beforehand, but for one of each
 * kind; this thread watches itself. TAP; as root.
 */
#include "probe/set.h"
#include "rungs.h"

#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

static struct cells cells;

static void exchange(int client, int server, unsigned int n, const char *answer)
{
	static const char request[] = "GET / HTTP/1.1\r\n\r\n";
	char in[256];

	for (unsigned int i = 0; i < n; i++)
		if (write(client, request, sizeof(request) - 1) < 0 ||
		    read(server, in, sizeof(in)) <= 0 ||
		    write(server, answer, strlen(answer)) < 0 || read(client, in, sizeof(in)) <= 0)
			exit(1);
}

static void requests(unsigned int seen, unsigned int unseen)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	socklen_t size = sizeof(a.sun_family);
	int listener = socket(AF_UNIX, SOCK_STREAM, 0), client, server;

	/* A name that the kernel chooses. */
	if (listener < 0 || bind(listener, (struct sockaddr *)&a, size) || listen(listener, 1))
		exit(1);
	size = sizeof(a);
	client = socket(AF_UNIX, SOCK_STREAM, 0);
	if (getsockname(listener, (struct sockaddr *)&a, &size) || client < 0 ||
	    connect(client, (struct sockaddr *)&a, size))
		exit(1);
	server = accept(listener, NULL, NULL);
	exchange(client, server, seen, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
	exchange(client, server, unseen, "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n");
	exchange(client, server, seen, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
	close(client);
	close(server);
	close(listener);
}

static void errors(unsigned int seen, unsigned int unseen)
{
	struct iovec v = {.iov_base = &v, .iov_len = 1};

	for (unsigned int i = 0; i < seen; i++)
		is("write fails", (uint64_t)write(-1, &v, 1), (uint64_t)-1);
	for (unsigned int i = 0; i < unseen; i++)
		is("readv fails", (uint64_t)readv(-1, &v, 1), (uint64_t)-1);
}

static uint64_t lost_rows(struct probe_set *set)
{
	for (const struct probe_lost *l = probe_lost(set); l->reason; l++)
		if (str_equal(l->reason, "rows"))
			return l->count;
	return UINT64_MAX;
}

static void test_tier(void)
{
	const struct probe_options options = {.tier = tier,
					      .threads = 8,
					      .connections = 64,
					      .sample = 1,
					      .gateways = 1,
					      .slow_request_ns = NS_PER_S};
	struct probe_set *set;
	uint32_t pid = (uint32_t)getpid();
	struct probe_now now;
	enum http_method method;
	unsigned int code;

	if (!open_rung(&options, &set))
		return;
	is("no row has a meaning yet", probe_request_row(set, 0, &method, &code), false);
	/* The last pairs there are, which nothing here makes. */
	for (unsigned int i = 0; i < REQUEST_ROWS - 1; i++)
		set->control->request_pairs[i] = REQUEST_PAIRS - i;
	for (unsigned int i = 0; i < ERROR_ROWS - 1; i++)
		set->control->error_pairs[i] = ERROR_PAIRS - i;
	is("watched", (uint64_t)probe_watch_thread(set, 0, pid, pid, ROLE_WORKER), 0);
	requests(7, 5);
	errors(13, 11);
	probe_forget_process(set, pid);
	probe_fold(set, clock_mono_ns());
	probe_totals(set, 0, clock_mono_ns(), &cells, &now);
	is("GET 200", probe_requests(set, &cells, HTTP_GET, 200), 14);
	is("GET 404 has no row", probe_requests(set, &cells, HTTP_GET, 404), 0);
	is("all are completed", cells.requests_completed, 14 + 5);
	is("the last row is known", probe_request_row(set, REQUEST_ROWS - 1, &method, &code), true);
	is("its code", code, 200);
	is("its method", method, HTTP_GET);
	is("write EBADF", probe_errors(set, &cells, SYSCALL_write, ERRNO_CELL_EBADF), 13);
	is("readv has no row", probe_errors(set, &cells, SYSCALL_readv, ERRNO_CELL_EBADF), 0);
	is("readv is counted", cells.syscalls[SYSCALL_readv], 11);
	is("lost", lost_rows(set), 5 + 11);
	probe_close(set);
}

int main(int argc, char **argv)
{
	rungs_setup();
	return rungs_run(argc > 1 ? argv[1] : NULL, test_tier);
}
