/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process whose system calls are known exactly. It waits for a byte on descriptor 0, makes them,
 * writes one byte to descriptor 1 (a write more) and waits again. Started by count.c, which holds
 * what must be counted. Static: no library makes calls of its own.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int listener, client, server;

static void must(int ok)
{
	if (!ok)
		_exit(99);
}

static void gate(void)
{
	char c;

	must(read(0, &c, 1) == 1);
}

static void done(void)
{
	must(write(1, "d", 1) == 1);
}

static void listen_loopback(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	listener = socket(AF_INET, SOCK_STREAM, 0);
	must(bind(listener, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(listener, 16) == 0);
}

static void pair(void)
{
	struct sockaddr_in a;
	socklen_t n = sizeof(a);

	must(getsockname(listener, (struct sockaddr *)&a, &n) == 0);
	client = socket(AF_INET, SOCK_STREAM, 0);
	must(connect(client, (struct sockaddr *)&a, sizeof(a)) == 0);
	server = accept(listener, NULL, NULL);
	must(server >= 0);
}

static void ask(const char *text)
{
	must(write(client, text, strlen(text)) == (ssize_t)strlen(text));
}

static void take(void)
{
	char buf[8192];

	must(read(server, buf, sizeof(buf)) >= 0);
}

static void answer(const char *text)
{
	must(write(server, text, strlen(text)) == (ssize_t)strlen(text));
}

static void part(void)
{
	close(server);
	close(client);
}

static void exchange(const char *request, const char *response)
{
	ask(request);
	take();
	answer(response);
}

#define GET "GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
#define OK  "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

static void by_bytes(const char *request, const char *response)
{
	char c;

	for (; *request; request++) {
		must(write(client, request, 1) == 1);
		must(read(server, &c, 1) == 1);
	}
	for (; *response; response++)
		must(write(server, response, 1) == 1);
}

static void bodies(void)
{
	char long_request[4096];
	size_t n;

	pair();
	exchange("HEAD /a HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n");
	exchange(GET, "HTTP/1.1 204 No Content\r\n\r\n");
	exchange(GET, "HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n");
	exchange(GET, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
	/* chunks cut inside size, data and trailer */
	exchange(GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1");
	answer("0\r\n0123456789");
	answer("abcdef\r\n3;x=y\r\nabc\r");
	answer("\n0\r\nX-Trailer: 1\r\n\r");
	answer("\n");
	/* a body that looks like a request, then one pipelined behind it */
	exchange("POST /p HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
		 "10\r\nGET / HTTP/1.1\r\n\r\n0\r\n\r\nPUT /q HTTP/1.1\r\nContent-Length: "
		 "3\r\n\r\nabc",
		 "HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nnoHTTP/1.1 599 Q\r\nContent-Length: 0"
		 "\r\n\r\n");
	ask("POST /p HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
	take();
	answer("HTTP/1.1 100 Continue\r\n\r\n");
	exchange("body", "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n");
	n = (size_t)(stpcpy(long_request, "GET /a HTTP/1.1\r\nCookie: ") - long_request);
	memset(long_request + n, 'x', 3000);
	strcpy(long_request + n + 3000, "\r\nContent-Length: 0\r\n\r\n");
	exchange(long_request, OK);
	by_bytes(GET, OK);
	exchange("PURGE /a HTTP/1.1\r\n\r\n", OK);
	exchange("DELETE /a HTTP/1.1\r\n\r\n", OK);
	exchange("PATCH /a HTTP/1.1\r\nContent-Length: 1\r\n\r\nx", OK);
	exchange("OPTIONS * HTTP/1.1\r\n\r\n", OK);
	exchange("GET /healthz HTTP/1.1\r\n\r\n", OK);
	exchange("GET /healthz?x=1 HTTP/1.1\r\n\r\n", OK);
	exchange("GET /healthzz HTTP/1.1\r\n\r\n", OK);
	exchange("GET / HTTP/1.1\r\nUser-Agent: kube-probe/1.29\r\n\r\n", OK);
	part();
}

static void vectors(void)
{
	char ok[] = OK;
	char head[] = "HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n", buf[40000], peek[4];
	struct iovec in[2] = {{buf, 3}, {buf + 3, sizeof(buf) - 3}};
	struct iovec out[3] = {{head, 9}, {head + 9, sizeof(head) - 10}, {buf, 30000}};
	struct msghdr m = {.msg_iov = in, .msg_iovlen = 2};
	off_t at = 0;
	int file = open("/proc/self/exe", O_RDONLY);

	memset(buf, '\n', sizeof(buf));
	pair();
	ask(GET);
	must(recv(server, peek, sizeof(peek), MSG_PEEK) == 4);
	must(readv(server, in, 2) > 0);
	must(writev(server, out, 3) == 30000 + (ssize_t)sizeof(head) - 1);
	must(sendfile(server, file, &at, 40000) == 40000);
	for (size_t n = 0; n < 70000 + sizeof(head) - 1;)
		n += (size_t)read(client, buf, sizeof(buf));
	ask(GET);
	must(recvmsg(server, &m, 0) > 0);
	out[0] = (struct iovec){ok, 20};
	out[1] = (struct iovec){ok + 20, strlen(OK) - 20};
	m = (struct msghdr){.msg_iov = out, .msg_iovlen = 2};
	must(sendmsg(server, &m, 0) == (ssize_t)strlen(OK));
	ask(GET);
	must(recv(server, buf, sizeof(buf), 0) > 0);
	must(send(server, OK, strlen(OK), 0) > 0);
	part();
	close(file);
}

/* An answer in the pieces that nginx makes of it; the chunk's size lies so far behind the head. */
static void in_pieces(char *head, char *size)
{
	char body[] = "hello\n", crlf[] = "\r\n", last[] = "0\r\n\r\n";
	char text[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
	struct iovec v[] = {
		{head, sizeof(text) - 1}, {size, 3}, {body, 6}, {crlf, 2}, {last, 5},
	};

	memcpy(head, text, sizeof(text) - 1);
	memcpy(size, "6\r\n", 3);
	ask(GET);
	take();
	must(writev(server, v, 5) == (ssize_t)sizeof(text) - 1 + 16);
}

static void pieces(void)
{
	char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	/* Nothing can be read behind the first page. */
	must(page != MAP_FAILED && munmap(page + 4096, 4096) == 0);
	/* What is no size of this answer looks like one. */
	for (unsigned int i = 0; i < 4096; i++)
		page[i] = "f\r\n"[(i - 1060) % 3];
	pair();
	in_pieces(page + 1000, page + 1200);
	in_pieces(page + 1000, page + 1000 + 1024 + 60);
	in_pieces(page + 1000, page + 900);
	in_pieces(page + 4096 - 120, page + 4096 - 3);
	in_pieces(page + 2000, page + 2000 + 47 + 256 - 8); /* the last word that is there */
	in_pieces(page + 2000, page + 2000 + 47 + 256 - 7);
	part();
	munmap(page, 4096);
}

static void http(void)
{
	pair();
	for (int i = 0; i < 3; i++)
		exchange(GET, OK);
	exchange(GET GET GET, OK OK OK);
	part();
	bodies();
	vectors();
	pieces();
	pair(); /* upgrade: frames that look like requests are none */
	exchange("GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
		 "HTTP/1.1 101 Switching Protocols\r\n\r\n");
	exchange(GET, OK);
	part();
	pair(); /* ends with the connection */
	exchange("GET /old HTTP/1.0\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\nuntil the end");
	part();
	pair(); /* the client leaves: seen by a read */
	ask(GET);
	take();
	close(client);
	take();
	close(server);
	pair(); /* and unseen */
	ask(GET);
	take();
	close(client);
	close(server);
	pair(); /* the gateway leaves: before and in the middle of the answer */
	ask(GET);
	take();
	part();
	pair();
	exchange(GET, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
	part();
	pair(); /* no HTTP */
	exchange("\x16\x03\x01\x02", OK);
	exchange(GET, OK);
	part();
	pair();
	exchange("HELLO world\r\nGET / HTTP/1.1\r\n\r\n", OK);
	part();
	pair();
	exchange("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", OK);
	part();
}

static void calls(void)
{
	char buf[64] = {0};
	struct iovec iov = {buf, sizeof(buf)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	struct epoll_event event;
	struct sockaddr_in nobody = {.sin_family = AF_INET, .sin_port = htons(1)};
	int zero = open("/dev/zero", O_RDONLY), null = open("/dev/null", O_WRONLY);
	int ep = epoll_create1(0), sv[2], unbound, pipes[2];
	int file = open("/proc/self/exe", O_RDONLY);

	nobody.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	must(socketpair(AF_UNIX, SOCK_DGRAM, 0, sv) == 0 && pipe(pipes) == 0);
	must(fcntl(listener, F_SETFL, O_NONBLOCK) == 0);
	gate();
	for (int i = 0; i < 101; i++)
		must(read(zero, buf, 7) == 7);
	for (int i = 0; i < 13; i++)
		must(read(-1, buf, 7) < 0);
	for (int i = 0; i < 103; i++)
		must(write(null, buf, 7) == 7);
	for (int i = 0; i < 17; i++)
		must(syscall(SYS_openat, AT_FDCWD, "/nonexistent", O_RDONLY) < 0);
	for (int i = 0; i < 107; i++)
		must(close(-1) < 0);
	for (int i = 0; i < 31; i++)
		must(syscall(SYS_epoll_wait, ep, &event, 1, 0) == 0);
	for (int i = 0; i < 29; i++)
		must(syscall(SYS_epoll_pwait, ep, &event, 1, 0, NULL, 8) == 0);
	for (int i = 0; i < 11; i++)
		must(accept(listener, NULL, NULL) < 0);
	for (int i = 0; i < 5; i++)
		must(accept4(-1, NULL, NULL, 0) < 0);
	unbound = socket(AF_INET, SOCK_STREAM, 0);
	for (int i = 0; i < 7; i++)
		must(connect(unbound, (struct sockaddr *)&nobody, sizeof(nobody)) < 0);
	for (int i = 0; i < 37; i++)
		must(writev(null, &iov, 1) == 64);
	for (int i = 0; i < 41; i++)
		must(readv(zero, &iov, 1) == 64);
	for (int i = 0; i < 43; i++) {
		must(send(sv[0], buf, 3, 0) == 3);
		must(recv(sv[1], buf, 64, 0) == 3);
	}
	for (int i = 0; i < 19; i++) {
		iov.iov_len = 5;
		must(sendmsg(sv[0], &m, 0) == 5);
		must(recvmsg(sv[1], &m, 0) == 5);
	}
	for (int i = 0; i < 23; i++) {
		off_t at = 0;

		must(sendfile(null, file, &at, 100) == 100);
	}
	for (int i = 0; i < 3; i++)
		must(splice(file, &(loff_t){0}, pipes[1], NULL, 100, 0) == 100);
	done();
}

/* A child makes 61 more; a grandchild becomes another program, whose calls are not ours. */
static void family(void)
{
	char buf[8];
	struct iovec iov = {buf, sizeof(buf)};
	int zero = open("/dev/zero", O_RDONLY), status;
	pid_t pid;

	gate();
	pid = fork();
	if (!pid) {
		for (int i = 0; i < 61; i++)
			must(readv(zero, &iov, 1) == 8);
		pid = fork();
		if (!pid) {
			execl("/proc/self/exe", "workload", "other", NULL);
			_exit(98);
		}
		waitpid(pid, &status, 0);
		_exit(0);
	}
	must(waitpid(pid, &status, 0) == pid && status == 0);
	done();
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* 17 reads that block until a timer fires, after 10 to 26 ms; between them as many short ones. Then it
 * says how long they took. */
static void blocking(void)
{
	int timer = timerfd_create(CLOCK_MONOTONIC, 0), zero = open("/dev/zero", O_RDONLY);
	uint64_t sum = 0, begun, expired;
	const struct iovec iov = {&expired, sizeof(expired)};

	must(timer >= 0 && zero >= 0);
	for (int i = 0; i < 17; i++) {
		/* A tick beyond: it fires no earlier, but the call begins later than the timer. */
		struct itimerspec when = {.it_value.tv_nsec = 10500000 + i * 1000000};

		must(timerfd_settime(timer, 0, &when, NULL) == 0);
		begun = now_ns();
		must(readv(timer, &iov, 1) == sizeof(expired));
		sum += now_ns() - begun;
		must(readv(zero, &iov, 1) == sizeof(expired));
	}
	done();
	must(write(1, &sum, sizeof(sum)) == sizeof(sum));
}

int main(int argc, char **argv)
{
	char buf[8];
	struct iovec iov = {buf, sizeof(buf)};

	must(argc == 2);
	if (!strcmp(argv[1], "other")) {
		int zero = open("/dev/zero", O_RDONLY);

		for (int i = 0; i < 1009; i++)
			must(readv(zero, &iov, 1) == 8);
		return 0;
	}
	if (!strcmp(argv[1], "reload")) {
		gate();
		execl("/proc/self/exe", "workload", "family", NULL);
		_exit(98);
	}
	listen_loopback();
	if (!strcmp(argv[1], "calls")) {
		calls();
	} else if (!strcmp(argv[1], "family")) {
		family();
	} else if (!strcmp(argv[1], "blocking")) {
		for (;;) {
			gate();
			blocking();
		}
	} else if (!strcmp(argv[1], "http")) {
		gate();
		http();
		done();
	} else if (!strcmp(argv[1], "killed")) {
		gate();
		pair();
		exchange(GET, OK);
		ask(GET GET);
		take();
		done();
	}
	gate();
	return 0;
}
