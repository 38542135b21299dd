/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Gateways in /proc. Apinto is a stand-in: this file under that name, with the process titles and the
 * inherited listener of the real one (a Go program, which no distribution has).
 */
#include "probe/gateways.h"
#include "base/str.h"
#include "config/config.h"

#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- the stand-in ---- */

static pid_t start(const char *path, const char *title)
{
	pid_t parent = getpid(), pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* The parent may have ended before that: nobody would end us, and prove would wait. */
		if (getppid() != parent)
			_exit(0);
		execl(path, title, (char *)NULL);
		_exit(127);
	}
	return pid;
}

/* Says its port and the ids of its children, and waits for its end. */
static int master_main(const char *path)
{
	static const char *const titles[] = {"apinto: worker", "apinto: admin", "apinto: helper",
					     "apinto: master", "apinto: worker"};
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	socklen_t size = sizeof(a);
	char c;

	if (bind(listener, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(listener, 5) < 0 ||
	    getsockname(listener, (struct sockaddr *)&a, &size) < 0)
		return 1;
	printf("%u", ntohs(a.sin_port));
	for (unsigned int i = 0; i < ARRAY_LEN(titles); i++) {
		setenv("STAND_IN_CHILD", "1", 1);
		printf(" %d", (int)start(path, titles[i]));
	}
	printf("\n");
	fflush(stdout);
	return read(0, &c, 1) == 0 ? 0 : 1;
}

/* ---- looking for it ---- */

static char dir[] = "/tmp/tidegate-gateways.XXXXXX", exe[64];
static pid_t master, children[5];
static unsigned int port;
static int master_in;

static void copy_self(void)
{
	char buf[65536];
	FILE *from = fopen("/proc/self/exe", "re"), *to = fopen(exe, "we");
	size_t n;

	assert_non_null(from);
	assert_non_null(to);
	while ((n = fread(buf, 1, sizeof(buf), from)) > 0)
		assert_int_equal(fwrite(buf, 1, n, to), n);
	fclose(from);
	assert_int_equal(fclose(to), 0);
	assert_int_equal(chmod(exe, 0755), 0);
}

static int setup(void **state)
{
	int to[2], from[2];
	FILE *said;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(exe, sizeof(exe), "%s/apinto", dir);
	copy_self();
	assert_int_equal(pipe(to), 0);
	assert_int_equal(pipe(from), 0);
	master = fork();
	if (master == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(to[0], 0);
		dup2(from[1], 1);
		close_range(3, ~0U, 0);
		execl(exe, "apinto: master", (char *)NULL);
		_exit(127);
	}
	close(to[0]);
	close(from[1]);
	master_in = to[1];
	said = fdopen(from[0], "r");
	assert_int_equal(fscanf(said, "%u %d %d %d %d %d", &port, &children[0], &children[1],
				&children[2], &children[3], &children[4]),
			 6);
	fclose(said);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	close(master_in);
	waitpid(master, NULL, 0);
	unlink(exe);
	rmdir(dir);
	return 0;
}

/* The stand-in among what that matcher finds; NULL. */
static struct gateway_found *look(const char *matcher, struct gateway_found *found)
{
	char text[64], *items[] = {text};
	const struct config_list list = {items, 1};
	struct gateways *g = NULL;
	uint64_t refused;
	struct err e = {.text = ""};
	int n, i;

	snprintf(text, sizeof(text), "%s", matcher);
	assert_int_equal(gateways_open(&list, &g, &e), 0);
	n = gateways_scan(g, found, 4, &refused);
	gateways_close(g);
	for (i = 0; i < n; i++) {
		if (found[i].master == master)
			return &found[i];
	}
	return NULL;
}

static enum slot_role role_of(const struct gateway_found *f, pid_t pid)
{
	for (unsigned int i = 0; i < f->process_count; i++) {
		if (f->processes[i].pid == pid)
			return f->processes[i].role;
	}
	fail_msg("process %d is not of the gateway", (int)pid);
	return ROLE_HELPER;
}

/* Between fork and exec a child has its master's file and title; the title is there after exec. The
 * fourth's is the same before and after. */
static void wait_for_titles(void)
{
	char path[64], title[64];

	for (unsigned int i = 0; i < ARRAY_LEN(children); i++) {
		snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)children[i]);
		for (unsigned int tries = 0; i != 3 && tries < 10000; tries++) {
			if (str_read_file(path, title, sizeof(title)) > 0 &&
			    !str_equal(title, "apinto: master"))
				break;
			usleep(1000);
		}
	}
}

static void apinto_is_found_with_its_roles(void **state)
{
	static struct gateway_found found[4];
	const struct gateway_found *f;
	char matcher[96];

	(void)state;
	wait_for_titles();
	snprintf(matcher, sizeof(matcher), "api=%s:%u", exe, port);
	f = look(matcher, found);
	assert_non_null(f);
	assert_string_equal(f->name, "api");
	assert_string_equal(f->driver, "apinto");
	assert_true(f->is_go);
	assert_int_equal(f->port_count, 1);
	assert_int_equal(f->ports[0], port);
	assert_int_equal(f->process_count, 6);
	assert_int_equal(role_of(f, master), ROLE_MASTER);
	assert_int_equal(role_of(f, children[0]), ROLE_WORKER);
	assert_int_equal(role_of(f, children[1]), ROLE_HELPER);
	assert_int_equal(role_of(f, children[2]), ROLE_HELPER);
	/* The next master, at a restart. */
	assert_int_equal(role_of(f, children[3]), ROLE_HELPER);
	assert_int_equal(role_of(f, children[4]), ROLE_WORKER);
}

static void another_port_is_another_gateway(void **state)
{
	static struct gateway_found found[4];
	char matcher[96];

	(void)state;
	snprintf(matcher, sizeof(matcher), "api=%s:%u", exe, port == 1 ? 2 : 1);
	assert_null(look(matcher, found));
}

/* A shell that was no gateway becomes one by exec, and keeps its number. */
static void what_becomes_a_gateway_is_found(void **state)
{
	char matcher[96], *items[] = {matcher};
	const struct config_list list = {items, 1};
	static struct gateway_found found[4];
	struct gateways *g = NULL;
	struct err e = {.text = ""};
	int to[2], from[2], n;
	unsigned int its_port;
	uint64_t refused;
	pid_t pid;
	FILE *said;

	(void)state;
	snprintf(matcher, sizeof(matcher), "api=%s", exe);
	assert_int_equal(gateways_open(&list, &g, &e), 0);
	assert_int_equal(pipe(to), 0);
	assert_int_equal(pipe(from), 0);
	pid = fork();
	if (pid == 0) {
		char c;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(to[0], 0);
		dup2(from[1], 1);
		close_range(3, ~0U, 0);
		if (read(0, &c, 1) == 1)
			execl(exe, "apinto: master", (char *)NULL);
		_exit(127);
	}
	close(to[0]);
	close(from[1]);
	assert_int_equal(gateways_scan(g, found, 4, &refused), 1);
	assert_int_equal(found[0].master, master);
	assert_int_equal(write(to[1], "x", 1), 1);
	said = fdopen(from[0], "r");
	assert_int_equal(fscanf(said, "%u", &its_port), 1); /* it listens */
	gateways_look_again(g);
	n = gateways_scan(g, found, 4, &refused);
	assert_int_equal(n, 2);
	assert_true(found[0].master == pid || found[1].master == pid);
	close(to[1]);
	waitpid(pid, NULL, 0);
	fclose(said);
	gateways_close(g);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(apinto_is_found_with_its_roles),
		cmocka_unit_test(another_port_is_another_gateway),
		cmocka_unit_test(what_becomes_a_gateway_is_found),
	};

	(void)argc;
	if (str_starts(argv[0], "apinto: ")) {
		char self[256] = "";

		if (getenv("STAND_IN_CHILD"))
			return pause();
		return readlink("/proc/self/exe", self, sizeof(self) - 1) < 0 ? 1
									      : master_main(self);
	}
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, setup, teardown);
}
