/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket: its parser, and a server under hostile peers. */
#include "drain/control.h"
#include "drain/control_server.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static int parse(const char *line, struct control_request *q, struct err *e)
{
	err_clear(e);
	return control_parse(line, strlen(line), q, e);
}

static void test_good(void **state)
{
	struct control_request q;
	struct err e;

	(void)state;
	assert_int_equal(
		parse("{\"op\":\"drain\",\"gateway\":\"edge\",\"deadline_s\":2.5,\"wait\":true}",
		      &q, &e),
		0);
	assert_int_equal(q.op, CONTROL_DRAIN);
	assert_string_equal(q.gateway, "edge");
	assert_int_equal(q.deadline_ns, 2500000000ULL);
	assert_true(q.is_wait);
	assert_int_equal(parse("{\"op\":\"undrain\",\"gateway\":null}", &q, &e), 0);
	assert_int_equal(q.op, CONTROL_UNDRAIN);
	assert_string_equal(q.gateway, "");
	assert_int_equal(parse("{\"op\":\"status\"}\r", &q, &e), 0);
	assert_int_equal(parse("{\"op\":\"profile\",\"gateway\":\"edge\",\"seconds\":300}", &q, &e),
			 0);
	assert_int_equal(q.op, CONTROL_PROFILE);
	assert_int_equal(q.profile_ns, 300 * NS_PER_S);
}

static void test_bad(void **state)
{
	static const struct {
		const char *line, *part;
	} cases[] = {
		{"", "no JSON"},
		{"drain", "no JSON"},
		{"[]", "one JSON object"},
		{"{}", "\"op\" is missing"},
		{"{\"op\":7}", "\"op\" is missing"},
		{"{\"op\":\"drian\"}", "meant: drain"},
		{"{\"op\":\"drain\",\"gatway\":\"x\"}", "meant: gateway"},
		{"{\"op\":\"drain\",\"op\":\"drain\"}", "no JSON"},
		{"{\"op\":\"drain\",\"gateway\":\"\"}", "must be a name"},
		{"{\"op\":\"drain\",\"gateway\":7}", "must be a name"},
		{"{\"op\":\"drain\",\"gateway\":"
		 "\"0123456789012345678901234567890123456789012345678901"
		 "23456789012\"}",
		 NULL},
		{"{\"op\":\"drain\",\"gateway\":"
		 "\"01234567890123456789012345678901234567890123456789"
		 "01234567890123\"}",
		 "longer"},
		{"{\"op\":\"drain\",\"deadline_s\":0}", "from 1"},
		{"{\"op\":\"drain\",\"deadline_s\":-1}", "from 1"},
		{"{\"op\":\"drain\",\"deadline_s\":1e300}", "from 1"},
		{"{\"op\":\"drain\",\"deadline_s\":\"30\"}", "from 1"},
		{"{\"op\":\"drain\",\"wait\":1}", "true or false"},
		{"{\"op\":\"drain\",\"seconds\":1}", "belongs to a profile"},
		{"{\"op\":\"profile\",\"seconds\":1}", "of one gateway"},
		{"{\"op\":\"profile\",\"gateway\":\"x\"}", "from 1 to 300"},
		{"{\"op\":\"profile\",\"gateway\":\"x\",\"seconds\":0.9}", "from 1 to 300"},
		{"{\"op\":\"profile\",\"gateway\":\"x\",\"seconds\":301}", "from 1 to 300"},
		{"{\"op\":\"profile\",\"gateway\":\"x\",\"seconds\":\"9\"}", "from 1 to 300"},
		{"{\"op\":\"drain\",\"gateway\":\"a\\u0000b\"}", "no JSON"},
		{"{\"op\":\"drain\",\"gateway\":\"\xff\"}", "no JSON"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct control_request q;
		struct err e;
		int r = parse(cases[i].line, &q, &e);

		if (!cases[i].part) {
			assert_int_equal(r, 0);
			continue;
		}
		assert_int_equal(r, -EINVAL);
		if (!strstr(e.text, cases[i].part))
			fail_msg("%s: \"%s\"", cases[i].line, e.text);
	}
}

static void test_deep_nesting(void **state)
{
	static char line[CONTROL_LINE_MAX];
	struct control_request q;

	(void)state;
	memset(line, '[', sizeof(line));
	assert_int_equal(control_parse(line, sizeof(line), &q, NULL), -EINVAL);
}

/* Every single-byte change and every prefix of a good line: no crash, and an error has a text. */
static void test_mutations(void **state)
{
	static const char good[] = "{\"op\":\"drain\",\"gateway\":\"edge\",\"deadline_s\":30}";
	struct control_request q;
	struct err e;
	char line[sizeof(good)];

	(void)state;
	for (size_t i = 0; i < sizeof(good) - 1; i++) {
		for (int b = 0; b < 256; b++) {
			memcpy(line, good, sizeof(good));
			line[i] = (char)b;
			err_clear(&e);
			if (control_parse(line, sizeof(good) - 1, &q, &e) < 0)
				assert_true(e.text[0] != '\0');
		}
		err_clear(&e);
		assert_int_equal(control_parse(good, i, &q, &e), -EINVAL);
	}
}

/* -------- the server, in a child; peers are here -------- */

struct world {
	char dir[40], path[80];
	pid_t pid;
};

static void on_request(void *data, struct control_conn *conn, const struct control_request *q)
{
	(void)data;
	control_reply(conn, json_pack("{s:b,s:i}", "ok", 1, "op", (int)q->op));
	if (q->is_wait)
		control_set_waiting(conn, true);
}

static void on_closed(void *data, struct control_conn *conn)
{
	(void)data;
	(void)conn;
}

static int serve(const char *path, bool is_sidecar)
{
	struct control_server *server;
	struct loop *loop;

	log_setup(LOG_ERROR, LOG_FORMAT_TEXT);
	if (loop_open(&loop) < 0)
		return 1;
	if (control_server_open(&(struct control_options){.loop = loop,
							  .path = path,
							  .group_app = (gid_t)-1,
							  .group_admin = (gid_t)-1,
							  .is_sidecar = is_sidecar,
							  .request = on_request,
							  .closed = on_closed},
				&server, NULL) < 0)
		return 1;
	return loop_run(loop);
}

static int dial(const struct world *w)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	uint64_t until_ns = clock_mono_ns() + 5 * NS_PER_S;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	str_copy(a.sun_path, sizeof(a.sun_path), w->path);
	while (connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
		if (clock_mono_ns() > until_ns) {
			close(fd);
			return -1;
		}
		poll(NULL, 0, 5);
	}
	return fd;
}

/* Reads until a newline or the end; the bytes that came. */
static size_t get_line(int fd, char *buf, size_t size)
{
	size_t len = 0;

	while (len < size - 1) {
		struct pollfd p = {.fd = fd, .events = POLLIN};

		if (poll(&p, 1, 5000) <= 0)
			fail_msg("no answer in time");
		if (read(fd, buf + len, 1) <= 0 || buf[len++] == '\n')
			break;
	}
	buf[len] = '\0';
	return len;
}

static void start(struct world *w, bool is_sidecar)
{
	w->pid = fork();
	if (!w->pid)
		_exit(serve(w->path, is_sidecar));
}

static int setup(void **state)
{
	struct world *w = calloc(1, sizeof(*w));

	signal(SIGPIPE, SIG_IGN);
	strcpy(w->dir, "/tmp/tidegate-control-XXXXXX");
	if (!mkdtemp(w->dir))
		return -1;
	chmod(w->dir, 0755);
	snprintf(w->path, sizeof(w->path), "%s/control.sock", w->dir);
	*state = w;
	return 0;
}

static int teardown(void **state)
{
	struct world *w = *state;
	int status;

	kill(w->pid, SIGKILL);
	waitpid(w->pid, &status, 0);
	unlink(w->path);
	rmdir(w->dir);
	free(w);
	/* It must have been alive until now. */
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL ? 0 : -1;
}

static void test_answers_and_errors(void **state)
{
	struct world *w = *state;
	struct stat st;
	char line[512];
	int fd;

	start(w, false);
	fd = dial(w);
	assert_int_equal(stat(w->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0660);
	/* Two requests in one write, one in two. */
	assert_true(write(fd, "{\"op\":\"status\"}\nrubbish\n{\"op\":", 30) > 0);
	get_line(fd, line, sizeof(line));
	assert_string_equal(line, "{\"ok\":true,\"op\":2}\n");
	get_line(fd, line, sizeof(line));
	assert_non_null(strstr(line, "\"error\":\"no JSON"));
	assert_true(write(fd, "\"drain\"}\n", 9) > 0);
	get_line(fd, line, sizeof(line));
	assert_string_equal(line, "{\"ok\":true,\"op\":0}\n");
	close(fd);
}

static void test_endless_line_is_cut_off(void **state)
{
	struct world *w = *state;
	char line[512], chunk[4096];
	int fd;

	start(w, false);
	fd = dial(w);
	memset(chunk, 'x', sizeof(chunk));
	for (int i = 0; i < 64; i++)
		if (write(fd, chunk, sizeof(chunk)) < 0)
			break;
	get_line(fd, line, sizeof(line));
	assert_non_null(strstr(line, "too long"));
	close(fd);
	/* The next peer is served. */
	fd = dial(w);
	assert_true(write(fd, "{\"op\":\"status\"}\n", 16) == 16);
	get_line(fd, line, sizeof(line));
	assert_non_null(strstr(line, "\"ok\":true"));
	close(fd);
}

static void test_too_many_connections(void **state)
{
	struct world *w = *state;
	int fds[CONTROL_CONNECTIONS_MAX + 1];
	char line[64];

	start(w, false);
	for (int i = 0; i < CONTROL_CONNECTIONS_MAX; i++) {
		fds[i] = dial(w);
		assert_true(write(fds[i], "{\"op\":\"status\"}\n", 16) == 16);
		assert_true(get_line(fds[i], line, sizeof(line)) > 0);
	}
	fds[CONTROL_CONNECTIONS_MAX] = dial(w);
	assert_int_equal(get_line(fds[CONTROL_CONNECTIONS_MAX], line, sizeof(line)), 0);
	close(fds[CONTROL_CONNECTIONS_MAX]);
	for (int i = 0; i < CONTROL_CONNECTIONS_MAX; i++)
		close(fds[i]);
}

static void test_peer_that_does_not_read(void **state)
{
	struct world *w = *state;
	char line[512], many[1600];
	int fd;

	start(w, false);
	fd = dial(w);
	for (int i = 0; i < 100; i++)
		memcpy(many + i * 16, "{\"op\":\"status\"}\n", 16);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	for (int i = 0; i < 20000; i++) {
		struct pollfd p = {.fd = fd, .events = POLLOUT};

		if (write(fd, many, sizeof(many)) < 0 && errno != EAGAIN)
			break;
		if (poll(&p, 1, 200) == 0 || (p.revents & (POLLHUP | POLLERR)))
			break;
	}
	close(fd);
	fd = dial(w);
	assert_true(write(fd, "{\"op\":\"status\"}\n", 16) == 16);
	get_line(fd, line, sizeof(line));
	assert_non_null(strstr(line, "\"ok\":true"));
	close(fd);
}

/* Another user: may nothing, but in a sidecar begin a drain and ask. */
static void ask_as_nobody(struct world *w, const char *request, const char *expected)
{
	int status;
	pid_t pid;

	pid = fork();
	if (!pid) {
		char line[512];
		int fd;

		if (setgid(65534) < 0 || setuid(65534) < 0)
			_exit(2);
		fd = dial(w);
		if (fd < 0 || write(fd, request, strlen(request)) < 0)
			_exit(3);
		get_line(fd, line, sizeof(line));
		_exit(strstr(line, expected) ? 0 : 4);
	}
	waitpid(pid, &status, 0);
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_credentials(void **state)
{
	struct world *w = *state;
	int fd;

	start(w, true);
	if (geteuid() != 0) {
		print_message("# skipped: needs root to become another user\n");
		skip();
	}
	fd = dial(w);
	close(fd);
	chmod(w->path, 0666); /* what a shared group would allow */
	ask_as_nobody(w, "{\"op\":\"drain\"}\n", "\"ok\":true");
	ask_as_nobody(w, "{\"op\":\"undrain\"}\n", "uid 65534 may not");
	ask_as_nobody(w, "{\"op\":\"profile\",\"gateway\":\"x\",\"seconds\":1}\n",
		      "uid 65534 may not");
	kill(w->pid, SIGKILL);
	waitpid(w->pid, NULL, 0);
	start(w, false);
	fd = -1;
	while (fd < 0)
		fd = dial(w);
	close(fd);
	chmod(w->path, 0666);
	ask_as_nobody(w, "{\"op\":\"drain\"}\n", "uid 65534 may not");
	ask_as_nobody(w, "{\"op\":\"status\"}\n", "uid 65534 may not");
}

#define SERVER_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_deep_nesting),
		cmocka_unit_test(test_mutations),
		SERVER_TEST(test_answers_and_errors),
		SERVER_TEST(test_endless_line_is_cut_off),
		SERVER_TEST(test_too_many_connections),
		SERVER_TEST(test_peer_that_does_not_read),
		SERVER_TEST(test_credentials),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
