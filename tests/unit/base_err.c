/* SPDX-License-Identifier: Apache-2.0 */
/* base/err: one line, the first cause last, never longer than its room. */
#include "base/err.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static void causes_are_chained(void **state)
{
	struct err e = {0};

	(void)state;
	assert_int_equal(err_set(&e, -EINVAL, "bad %s", "value"), -EINVAL);
	assert_string_equal(e.text, "bad value");
	assert_int_equal(err_set(&e, -EINVAL, "%s:%d", "agent.yaml", 3), -EINVAL);
	assert_string_equal(e.text, "agent.yaml:3: bad value");
	err_clear(&e);
	assert_string_equal(e.text, "");
	assert_int_equal(err_set(NULL, -5, "%d", 1), -5);
	err_clear(NULL);
}

static void text_is_cut_to_its_room(void **state)
{
	char longest[2 * sizeof(((struct err *)0)->text)];
	struct err e = {0};

	(void)state;
	memset(longest, 'a', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	err_set(&e, -1, "%s", longest);
	assert_int_equal(strlen(e.text), sizeof(e.text) - 1);
	err_set(&e, -1, "outer");
	assert_int_equal(strlen(e.text), sizeof(e.text) - 1);
	assert_memory_equal(e.text, "outer: aaa", 10);
	err_set(&e, -1, "%s", longest);
	assert_int_equal(strlen(e.text), sizeof(e.text) - 1);
}

static void every_errno_has_a_text(void **state)
{
	(void)state;
	assert_string_equal(err_text(-ENOENT), "No such file or directory");
	assert_string_equal(err_text(ENOENT), "No such file or directory");
	assert_string_equal(err_text(-100000), "unknown error");
}

static void check_aborts_with_its_place(void **state)
{
	char line[256] = "";
	int fds[2], status;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(fds), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		signal(SIGABRT, SIG_DFL); /* cmocka's own handler would report a test */
		dup2(fds[1], STDERR_FILENO);
		CHECK(1 + 1 == 2);
		CHECK(1 + 1 == 3);
		_exit(0);
	}
	close(fds[1]);
	assert_true(read(fds[0], line, sizeof(line) - 1) > 0);
	close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
	assert_non_null(strstr(line, "1 + 1 == 3"));
	assert_non_null(strstr(line, "base_err.c"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(causes_are_chained),
		cmocka_unit_test(text_is_cut_to_its_room),
		cmocka_unit_test(every_errno_has_a_text),
		cmocka_unit_test(check_aborts_with_its_place),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("err", tests, NULL, NULL);
}
