/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP server in a child process, spoken to over real sockets (and curl where it is there). */
#include "outlet/http.h"

#include "base/cleanup.h"
#include "base/clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define DEADLINE_MS 300
#define PATIENCE_MS 5000

static pid_t child;
static unsigned int port;

static void hello(void *data, const struct http_request *q, struct http_response *r)
{
	const char *name = http_request_arg(q, "name"), *accept = http_request_header(q, "Accept");

	strbuf_printf(&r->body, "%s %s %s\n", (const char *)data, name ? name : "(none)",
		      accept ? accept : "(none)");
	r->content_type = "text/x-test";
}

static void big(void *data, const struct http_request *q, struct http_response *r)
{
	(void)data;
	(void)q;
	for (unsigned int i = 0; i < 100000; i++)
		strbuf_puts(&r->body, "0123456789");
}

static void huge(void *data, const struct http_request *q, struct http_response *r)
{
	(void)data;
	(void)q;
	r->body.limit = 100;
	big(data, q, r);
}

static void nothing(void *data, const struct http_request *q, struct http_response *r)
{
	(void)data;
	(void)q;
	r->status = 503;
}

/* Answers in the making: of a known number of steps, or until /release. */
#define STEPS 37

struct made {
	unsigned int steps;
	bool is_held;
};

static unsigned int begun, dropped;
static bool is_released;

static int make_step(void *job, struct http_response *r)
{
	struct made *m = job;

	if (m->is_held)
		return !is_released;
	strbuf_printf(&r->body, "step %u\n", ++m->steps);
	return m->steps < STEPS;
}

static void make_drop(void *job)
{
	dropped++;
	free(job);
}

static void make(void *data, const struct http_request *q, struct http_response *r)
{
	struct made *m = calloc(1, sizeof(*m));

	(void)data;
	m->is_held = http_request_arg(q, "held") != NULL;
	is_released = is_released && !m->is_held;
	r->step = make_step;
	r->drop = make_drop;
	r->job = m;
	begun++;
}

/* What stood for the "*", and all of the arguments. */
static void twice(void *data, const struct http_request *q, struct http_response *r)
{
	const char *value;

	(void)data;
	strbuf_printf(&r->body, "%s:", http_request_part(q));
	for (size_t i = 0; (value = http_request_arg_at(q, "a[]", i)); i++)
		strbuf_printf(&r->body, " <%s>", value);
	value = http_request_arg(q, "b");
	strbuf_printf(&r->body, " b=%s\n", value ? value : "(none)");
}

/* An error of the server below /say/. */
static void said(struct http_response *r, const char *text)
{
	r->content_type = "text/x-error";
	strbuf_printf(&r->body, "said %u <%s>", r->status, text);
}

static void release(void *data, const struct http_request *q, struct http_response *r)
{
	(void)data;
	(void)q;
	is_released = true;
	strbuf_puts(&r->body, "released\n");
}

static const struct http_route routes[] = {
	{"/hello", hello, false},      {"/big", big, false},   {"/huge", huge, false},
	{"/nothing", nothing, false},  {"/made", make, false}, {"/release", release, false},
	{"/say/*/twice", twice, true},
};

static char greeting[] = "hi";

static void on_signal(void *data, int signal)
{
	(void)signal;
	loop_stop(data);
}

static int serve(int report)
{
	struct http_server *s = NULL;
	struct loop_watch *watch;
	struct loop *loop;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (loop_open(&loop) < 0 || loop_add_signal(loop, SIGTERM, on_signal, loop, &watch) < 0)
		return 1;
	if (http_server_open(loop, "127.0.0.1:0", routes, ARRAY_LEN(routes), greeting, &s, NULL) <
	    0)
		return 1;
	http_server_set_deadline(s, DEADLINE_MS);
	http_server_set_errors(s, "/say/", said);
	port = http_server_port(s);
	if (write(report, &port, sizeof(port)) != sizeof(port))
		return 1;
	loop_run(loop);
	http_server_close(s);
	loop_close(loop);
	/* Also of those that nobody waited for any more, or that the end came upon. */
	return begun > 2 * HTTP_JOBS_MAX && dropped == begun ? 0 : 2;
}

static int setup(void **state)
{
	int report[2];

	(void)state;
	if (pipe(report) < 0)
		return 1;
	child = fork();
	if (child == 0) {
		close(report[0]);
		exit(serve(report[1]));
	}
	close(report[1]);
	if (read(report[0], &port, sizeof(port)) != sizeof(port))
		return 1;
	close(report[0]);
	return 0;
}

static int teardown(void **state)
{
	int status;

	(void)state;
	kill(child, SIGTERM);
	if (waitpid(child, &status, 0) != child)
		return 1;
	/* A crash or a leak (sanitizers) of the server fails the group. */
	return !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static int dial(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	const struct timeval patience = {.tv_sec = PATIENCE_MS / 1000};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_true(fd >= 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	return fd;
}

static void say(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* Until the end of the stream. */
static void hear(int fd, struct strbuf *out)
{
	char buf[65536];
	ssize_t n;

	while ((n = recv(fd, buf, sizeof(buf), 0)) > 0)
		strbuf_add(out, buf, (size_t)n);
	if (n < 0 && errno != ECONNRESET)
		fail_msg("recv: %s", strerror(errno));
}

static void ask(const char *request, struct strbuf *out)
{
	_cleanup_close_ int fd = dial();

	strbuf_reset(out);
	say(fd, request);
	hear(fd, out);
}

static void expect(const struct strbuf *got, const char *want)
{
	if (!got->data || !strstr(got->data, want))
		fail_msg("no \"%s\" in:\n%.600s", want, got->data ? got->data : "");
}

#define CLOSE "Host: x\r\nConnection: close\r\n\r\n"

static void test_get(void **state)
{
	_cleanup_(strbuf_fini) struct strbuf got;

	(void)state;
	strbuf_init(&got, 4 << 20);
	ask("GET /hello?name=a%20b&x=1 HTTP/1.1\r\nAccept: text/y\r\n" CLOSE, &got);
	expect(&got, "HTTP/1.1 200 OK\r\n");
	expect(&got, "Content-Type: text/x-test\r\n");
	expect(&got, "Cache-Control: no-store\r\n");
	expect(&got, "\r\n\r\nhi a b text/y\n");
	ask("GET /hello HTTP/1.1\r\n" CLOSE, &got);
	expect(&got, "\r\n\r\nhi (none) (none)\n");
	ask("GET /hello?name HTTP/1.1\r\n" CLOSE, &got);
	expect(&got, "\r\n\r\nhi  (none)\n");
	ask("GET /nothing HTTP/1.1\r\n" CLOSE, &got);
	expect(&got, "HTTP/1.1 503 ");
	expect(&got, "Content-Length: 0\r\n");
	ask("GET /big HTTP/1.1\r\n" CLOSE, &got);
	assert_true(got.len > 1000000);
	assert_string_equal(got.data + got.len - 10, "0123456789");
}

static void test_head(void **state)
{
	_cleanup_(strbuf_fini) struct strbuf got;

	(void)state;
	strbuf_init(&got, 4 << 20);
	ask("HEAD /big HTTP/1.1\r\n" CLOSE, &got);
	expect(&got, "HTTP/1.1 200 OK\r\n");
	expect(&got, "Content-Length: 1000000\r\n");
	assert_string_equal(got.data + got.len - 4, "\r\n\r\n");
}

static void test_refusals(void **state)
{
	static const char *const methods[] = {"POST", "PUT", "DELETE", "OPTIONS", "BREW"};
	_cleanup_(strbuf_fini) struct strbuf got;
	char request[256];

	(void)state;
	strbuf_init(&got, 1 << 20);
	for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
		snprintf(request, sizeof(request),
			 "%s /hello HTTP/1.1\r\nContent-Length: 3\r\n" CLOSE "abc", methods[i]);
		ask(request, &got);
		expect(&got, "HTTP/1.1 405 ");
		expect(&got, "Allow: GET, HEAD\r\n");
	}
	ask("GET /hello/ HTTP/1.1\r\n" CLOSE, &got);
	expect(&got, "HTTP/1.1 404 ");
	expect(&got, "\n/hello\n/big\n/huge\n/nothing\n");
	ask("GET /huge HTTP/1.1\r\n" CLOSE, &got);
	expect(&got, "HTTP/1.1 500 ");
	expect(&got, "limit");
	ask("GET /hello HTTP/1.1\r\nContent-Length: 3\r\n" CLOSE "abc", &got);
	expect(&got, "HTTP/1.1 200 ");
}

static void test_hostile_bytes(void **state)
{
	static const char *const requests[] = {
		"\r\n\r\n\r\n\r\n",
		"GET\r\n\r\n",
		"GET / HTTP/9.9\r\n\r\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"GET /hello?%00=%zz&&&=%ff HTTP/1.1\r\n" CLOSE,
		"GET /hello HTTP/1.1\r\nContent-Length: -1\r\n" CLOSE,
		"GET /hello HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
		"GET /hello HTTP/1.1\r\n: x\r\n y\r\n" CLOSE,
	};
	_cleanup_(strbuf_fini) struct strbuf got;
	_cleanup_free_ char *flood = malloc(200001);

	(void)state;
	strbuf_init(&got, 1 << 20);
	for (size_t i = 0; i < ARRAY_LEN(requests); i++)
		ask(requests[i], &got);
	/* A header larger than the limit is refused, not stored. */
	assert_non_null(flood);
	memset(flood, 'a', 200000);
	memcpy(flood, "GET /hello HTTP/1.1\r\nX: ", 24);
	flood[200000] = '\0';
	{
		_cleanup_close_ int fd = dial();

		send(fd, flood, 200000, MSG_NOSIGNAL);
		strbuf_reset(&got);
		hear(fd, &got);
	}
	ask("GET /hello HTTP/1.1\r\n" CLOSE, &got);
	expect(&got, "HTTP/1.1 200 ");
}

static void test_keep_alive(void **state)
{
	_cleanup_(strbuf_fini) struct strbuf got;
	_cleanup_close_ int fd = dial();
	const char *second;

	(void)state;
	strbuf_init(&got, 1 << 20);
	say(fd, "GET /hello?name=1 HTTP/1.1\r\nHost: x\r\n\r\n");
	say(fd, "GET /hello?name=2 HTTP/1.1\r\n" CLOSE);
	hear(fd, &got);
	expect(&got, "hi 1 ");
	second = strstr(got.data, "hi 1 ");
	assert_non_null(strstr(second, "HTTP/1.1 200 OK"));
	assert_non_null(strstr(second, "hi 2 "));
}

/* One that was idle for most of a deadline has a whole one for what it asks then. Where the machine
 * took longer than that for all of it, nothing is known: again. */
static void test_idle_then_slow(void **state)
{
	_cleanup_(strbuf_fini) struct strbuf got, other;
	uint64_t begin, end = clock_mono_ns() + 4 * PATIENCE_MS * NS_PER_MS;

	(void)state;
	strbuf_init(&got, 1 << 20);
	strbuf_init(&other, 1 << 20);
	do {
		_cleanup_close_ int fd = dial();
		struct pollfd p = {.fd = fd, .events = POLLIN};

		poll(&p, 1, DEADLINE_MS * 7 / 10);
		begin = clock_mono_ns();
		say(fd, "GET /made?held HTTP/1.1\r\n" CLOSE);
		poll(&p, 1, DEADLINE_MS * 5 / 10);
		ask("GET /release HTTP/1.1\r\n" CLOSE, &other);
		strbuf_reset(&got);
		hear(fd, &got);
	} while (clock_mono_ns() - begin > DEADLINE_MS * NS_PER_MS && clock_mono_ns() < end);
	expect(&got, "HTTP/1.1 200 ");
}

static void test_answers_in_the_making(void **state)
{
	_cleanup_(strbuf_fini) struct strbuf got;
	_cleanup_close_ int fd = dial();

	(void)state;
	strbuf_init(&got, 1 << 20);
	say(fd, "GET /made HTTP/1.1\r\nHost: x\r\n\r\nGET /hello?name=2 HTTP/1.1\r\n" CLOSE);
	hear(fd, &got);
	expect(&got, "\r\n\r\nstep 1\nstep 2\n");
	expect(&got, "step 37\nHTTP/1.1 200 OK");
	expect(&got, "hi 2 ");
	ask("HEAD /made HTTP/1.1\r\n" CLOSE, &got);
	expect(&got, "Content-Length: 287\r\n");
}

/* False: the server's deadline came before all were held. */
static bool hold_and_release(void)
{
	_cleanup_(strbuf_fini) struct strbuf got;
	int held[HTTP_JOBS_MAX];
	bool is_busy;

	strbuf_init(&got, 1 << 20);
	for (unsigned int i = 0; i < HTTP_JOBS_MAX; i++) {
		held[i] = dial();
		say(held[i], "GET /made?held HTTP/1.1\r\n" CLOSE);
	}
	ask("GET /made HTTP/1.1\r\n" CLOSE, &got);
	is_busy = got.data && strstr(got.data, "HTTP/1.1 503 ") && strstr(got.data, "busy: 4 ");
	close(held[0]); /* who leaves frees the place when its answer is made */
	ask("GET /release HTTP/1.1\r\n" CLOSE, &got);
	expect(&got, "released");
	for (unsigned int i = 1; i < HTTP_JOBS_MAX; i++) {
		strbuf_reset(&got);
		hear(held[i], &got);
		close(held[i]);
		is_busy = is_busy && got.data && strstr(got.data, "HTTP/1.1 200 OK\r\n");
	}
	return is_busy;
}

static void test_more_answers_in_the_making_are_refused(void **state)
{
	_cleanup_(strbuf_fini) struct strbuf got;
	unsigned int tries = 0;

	(void)state;
	strbuf_init(&got, 1 << 20);
	while (!hold_and_release())
		assert_true(++tries < 20);
	do {
		ask("GET /made HTTP/1.1\r\n" CLOSE, &got);
		assert_true(++tries < 1000);
	} while (got.data && strstr(got.data, "HTTP/1.1 503 "));
	expect(&got, "step 37\n");
}

/* The end of the server finds these; serve() counts. */
static void test_answers_that_are_never_made(void **state)
{
	(void)state;
	for (unsigned int i = 0; i < HTTP_JOBS_MAX; i++)
		say(dial(), "GET /made?held HTTP/1.1\r\n" CLOSE);
}

/* Clients that never finish a request: each of them has a deadline, also one that keeps sending. */
static void test_slow_clients(void **state)
{
	_cleanup_(strbuf_fini) struct strbuf got;
	uint64_t begin = clock_mono_ns(), end = begin + PATIENCE_MS * NS_PER_MS;
	int fds[HTTP_CONNECTIONS_MAX / 2];
	struct pollfd dripping;

	(void)state;
	strbuf_init(&got, 1 << 20);
	for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
		fds[i] = dial();
		say(fds[i], "GET /hel");
	}
	dripping = (struct pollfd){.fd = fds[0], .events = POLLIN};
	for (;;) {
		if (send(fds[0], "l", 1, MSG_NOSIGNAL) < 0 || poll(&dripping, 1, 5) != 0)
			break;
		assert_true(clock_mono_ns() < end);
	}
	assert_true(clock_mono_ns() - begin >= DEADLINE_MS * NS_PER_MS / 2);
	ask("GET /hello HTTP/1.1\r\n" CLOSE, &got);
	expect(&got, "HTTP/1.1 200 ");
	for (size_t i = 0; i < ARRAY_LEN(fds); i++)
		close(fds[i]);
}

/* More of them than there are places: who comes next is served before any deadline. */
static void test_crowd_of_slow_clients(void **state)
{
	_cleanup_(strbuf_fini) struct strbuf got;
	int fds[2 * HTTP_CONNECTIONS_MAX];
	uint64_t begin;

	(void)state;
	strbuf_init(&got, 1 << 20);
	for (size_t i = 0; i < ARRAY_LEN(fds); i++) {
		fds[i] = dial();
		say(fds[i], "GET /hel");
	}
	begin = clock_mono_ns();
	ask("GET /hello HTTP/1.1\r\n" CLOSE, &got);
	expect(&got, "HTTP/1.1 200 ");
	assert_true(clock_mono_ns() - begin < DEADLINE_MS * NS_PER_MS);
	for (size_t i = 0; i < ARRAY_LEN(fds); i++)
		close(fds[i]);
}

static void test_curl(void **state)
{
	char command[256], line[256];
	FILE *f;

	(void)state;
	if (system("command -v curl >/dev/null 2>&1") != 0)
		skip(); /* no curl here */
	snprintf(command, sizeof(command),
		 "curl -sS --max-time 5 -G -d name=curl 'http://127.0.0.1:%u/hello'", port);
	f = popen(command, "r");
	assert_non_null(f);
	assert_non_null(fgets(line, sizeof(line), f));
	assert_int_equal(pclose(f), 0);
	assert_string_equal(line, "hi curl */*\n");
}

static void test_open_errors(void **state)
{
	static const char *const bad[] = {"0.0.0.0:0", "[::]:0", "192.0.2.1:9465"};
	struct http_server *s = NULL;
	char address[64], want[64];
	struct err e = {0};
	struct loop *loop;

	(void)state;
	assert_int_equal(loop_open(&loop), 0);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		err_clear(&e);
		assert_int_equal(http_server_open(loop, bad[i], routes, 1, NULL, &s, &e), -EPERM);
		assert_non_null(strstr(e.text, bad[i]));
	}
	assert_int_equal(http_server_open(loop, "nonsense", routes, 1, NULL, &s, &e), -EINVAL);
	/* The port of the server that runs: its holder is named. */
	snprintf(address, sizeof(address), "127.0.0.1:%u", port);
	snprintf(want, sizeof(want), "pid %d (", (int)child);
	err_clear(&e);
	assert_int_equal(http_server_open(loop, address, routes, 1, NULL, &s, &e), -EADDRINUSE);
	assert_null(s);
	if (!strstr(e.text, want))
		fail_msg("no %s in: %s", want, e.text);
	loop_close(loop);
}

static void post(const char *path, const char *type, const char *body, struct strbuf *out)
{
	char head[256];
	_cleanup_close_ int fd = dial();

	snprintf(head, sizeof(head),
		 "POST %s HTTP/1.1\r\nContent-Type: %s\r\nContent-Length: %zu\r\n" CLOSE, path,
		 type, strlen(body));
	strbuf_reset(out);
	say(fd, head);
	say(fd, body);
	hear(fd, out);
}

#define FORM "application/x-www-form-urlencoded"

static void forms(void **state)
{
	char large[HTTP_FORM_BYTES + 2];
	struct strbuf out;

	(void)state;
	strbuf_init(&out, 1 << 20);
	ask("GET /say/it/twice?a%5B%5D=1&a[]=two%20words&b HTTP/1.1\r\n" CLOSE, &out);
	assert_non_null(strstr(out.data, "\r\n\r\nit: <1> <two words> b=\n"));
	post("/say/it/twice", FORM, "a%5b%5D=1&a[]=two+w%6frds&b=x%3Dy&c", &out);
	assert_non_null(strstr(out.data, "\r\n\r\nit: <1> <two words> b=x=y\n"));
	post("/say/it/twice", FORM "; charset=utf-8", "", &out);
	assert_non_null(strstr(out.data, "\r\n\r\nit: b=(none)\n"));
	/* Escapes that are none stay, a NUL goes. */
	post("/say/%2a/twice", FORM, "b=%zz%0%00%4&&=&", &out);
	assert_non_null(strstr(out.data, "\r\n\r\n*: b=%zz%0%4\n"));
	memset(large, 'x', sizeof(large));
	large[0] = 'b';
	large[1] = '=';
	large[sizeof(large) - 2] = '\0';
	post("/say/it/twice", FORM, large, &out);
	assert_non_null(strstr(out.data, "b=xxx"));
	large[sizeof(large) - 2] = 'x';
	large[sizeof(large) - 1] = '\0';
	post("/say/it/twice", FORM, large, &out);
	assert_non_null(strstr(out.data, "HTTP/1.1 413 "));
	expect(&out, "\r\n\r\nsaid 413 <a form of more than 32768 bytes>");
	/* Only forms, and only where they are taken. */
	post("/say/it/twice", "application/json", "{}", &out);
	expect(&out, "HTTP/1.1 415 ");
	expect(&out, "Content-Type: text/x-error\r\n");
	ask("PUT /say/it/twice HTTP/1.1\r\n" CLOSE, &out);
	expect(&out, "HTTP/1.1 405 ");
	expect(&out, "Allow: GET, HEAD, POST\r\n");
	expect(&out, "\r\n\r\nsaid 405 <only GET, HEAD, POST:");
	ask("GET /say/nothing HTTP/1.1\r\n" CLOSE, &out);
	expect(&out, "\r\n\r\nsaid 404 <no such path;");
	/* Those of the address come after those of the form; the form may be missing. */
	post("/say/it/twice?a[]=3&b=2&a[]=4", FORM, "a[]=1&b=1", &out);
	expect(&out, "\r\n\r\nit: <1> <3> <4> b=1\n");
	ask("POST /say/it/twice?a[]=3&b=2 HTTP/1.1\r\n" CLOSE, &out);
	expect(&out, "\r\n\r\nit: <3> b=2\n");
	post("/hello", FORM, "name=x", &out);
	assert_non_null(strstr(out.data, "HTTP/1.1 405 "));
	ask("GET /say//twice HTTP/1.1\r\n" CLOSE, &out);
	assert_non_null(strstr(out.data, "HTTP/1.1 404 "));
	ask("GET /say/a/b/twice HTTP/1.1\r\n" CLOSE, &out);
	assert_non_null(strstr(out.data, "HTTP/1.1 404 "));
	strbuf_fini(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(forms),
		cmocka_unit_test(test_get),
		cmocka_unit_test(test_head),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_hostile_bytes),
		cmocka_unit_test(test_keep_alive),
		cmocka_unit_test(test_idle_then_slow),
		cmocka_unit_test(test_slow_clients),
		cmocka_unit_test(test_keep_alive),
		cmocka_unit_test(test_crowd_of_slow_clients),
		cmocka_unit_test(test_answers_in_the_making),
		cmocka_unit_test(test_more_answers_in_the_making_are_refused),
		cmocka_unit_test(test_curl),
		cmocka_unit_test(test_open_errors),
		cmocka_unit_test(test_answers_that_are_never_made),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, setup, teardown);
}
