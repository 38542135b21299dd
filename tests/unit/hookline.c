/* SPDX-License-Identifier: Apache-2.0 */
/* The steward's end of the script link, with a child that says hello and then nothing. */
#include "drain/hookline.h"
#include "base/clock.h"
#include "base/log.h"

#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define QUIET_NS (2 * NS_PER_S)
#define TICK_NS  (50 * NS_PER_MS)

struct bench {
	struct loop *loop;
	struct hookline *line;
	int link[2];
	pid_t script;
	unsigned int done, failed;
};

static void on_call(void *data, uint64_t run, uint64_t call, enum script_op op, double number,
		    const char *text)
{
	(void)data;
	(void)run;
	(void)call;
	(void)op;
	(void)number;
	(void)text;
}

static void on_hook(void *data, uint64_t run, const char *name, bool is_ok, uint32_t ms,
		    const char *error)
{
	(void)data;
	(void)run;
	(void)name;
	(void)is_ok;
	(void)ms;
	(void)error;
}

static void on_done(void *data, uint64_t run, unsigned int ran, unsigned int failed, bool has_acted)
{
	struct bench *b = data;

	(void)run;
	(void)ran;
	(void)has_acted;
	b->done++;
	b->failed += failed;
}

static void child_main(int fd)
{
	static const char hello[] = "{\"type\":\"hello\"}";
	char text[4096];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* Asked who is there, it says so; then it is silent. */
	if (recv(fd, text, sizeof(text), 0) <= 0 || send(fd, hello, sizeof(hello) - 1, 0) < 0)
		_exit(1);
	for (;;)
		pause();
}

static void stop_loop(void *data)
{
	loop_stop(data);
}

static int setup(void **state)
{
	static struct bench b;
	struct loop_watch *end;
	struct pollfd hello;

	b = (struct bench){0};
	*state = &b;
	log_setup(LOG_ERROR, LOG_FORMAT_TEXT);
	assert_int_equal(
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, b.link), 0);
	assert_int_equal(loop_open(&b.loop), 0);
	assert_int_equal(hookline_open(&(struct hookline_options){.loop = b.loop,
								  .fd = b.link[0],
								  .quiet_ns = QUIET_NS,
								  .call = on_call,
								  .hook_ran = on_hook,
								  .done = on_done,
								  .data = &b},
				       &b.line, NULL),
			 0);
	b.script = fork();
	if (!b.script)
		child_main(b.link[1]);
	hello = (struct pollfd){.fd = b.link[0], .events = POLLIN};
	assert_int_equal(poll(&hello, 1, 30000), 1);
	assert_int_equal(loop_add_timer(b.loop, 1, 0, stop_loop, b.loop, &end), 0);
	loop_run(b.loop);
	assert_true(hookline_run(b.line, &(struct hookline_event){.point = "drain.begin",
								  .gateway = "edge",
								  .instance = "host/1",
								  .driver = "nginx",
								  .reason = "stop"}) > 0);
	return 0;
}

static int teardown(void **state)
{
	struct bench *b = *state;

	if (b->script > 0) {
		kill(b->script, SIGKILL);
		waitpid(b->script, NULL, 0);
	}
	hookline_close(b->line);
	loop_close(b->loop);
	close(b->link[0]);
	close(b->link[1]);
	return 0;
}

static void silent_is_killed(void **state)
{
	struct bench *b = *state;
	uint64_t begin_ns = clock_mono_ns(), now_ns = begin_ns;
	int status;

	for (; now_ns < begin_ns + QUIET_NS; now_ns += TICK_NS)
		hookline_tick(b->line, now_ns);
	assert_int_equal(hookline_kills(b->line), 0);
	assert_int_equal(b->done, 0);
	for (; now_ns < begin_ns + QUIET_NS + 4 * TICK_NS; now_ns += TICK_NS)
		hookline_tick(b->line, now_ns);
	assert_int_equal(hookline_kills(b->line), 1);
	assert_int_equal(waitpid(b->script, &status, 0), b->script);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_int_equal(b->done, 1);
	assert_int_equal(b->failed, 1);
	b->script = 0;
}

/* The machine was stopped for an hour, or we were: nobody could speak. */
static void a_pause_is_no_silence(void **state)
{
	struct bench *b = *state;
	uint64_t now_ns = clock_mono_ns();

	hookline_tick(b->line, now_ns);
	for (unsigned int i = 0; i < 20; i++) {
		now_ns += i ? TICK_NS : 3600 * NS_PER_S;
		hookline_tick(b->line, now_ns);
	}
	assert_int_equal(hookline_kills(b->line), 0);
	assert_int_equal(b->done, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(silent_is_killed, setup, teardown),
		cmocka_unit_test_setup_teardown(a_pause_is_no_silence, setup, teardown),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
