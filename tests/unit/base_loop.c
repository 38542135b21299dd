/* SPDX-License-Identifier: Apache-2.0 */
/* base/loop: descriptors, timers and signals; a watch may go from any callback, its own included. */
#include "base/loop.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

struct world {
	struct loop *loop;
	struct loop_watch *watch, *other, *guard;
	int fds[2];
	unsigned int events, calls, other_calls;
	char got[16];
};

/* A test that hangs fails here, and says so. */
static void on_deadline(void *data)
{
	struct world *w = data;

	loop_stop(w->loop);
	fail_msg("the loop did not end in 5 s");
}

static int setup(void **state)
{
	static struct world w;

	w = (struct world){0};
	*state = &w;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, w.fds) < 0 ||
	    loop_open(&w.loop) < 0)
		return -1;
	return loop_add_timer(w.loop, 5000, 0, on_deadline, &w, &w.guard);
}

static int teardown(void **state)
{
	struct world *w = *state;

	loop_close(w->loop);
	close(w->fds[0]);
	close(w->fds[1]);
	return 0;
}

static void on_read(void *data, int fd, unsigned int events)
{
	struct world *w = data;
	ssize_t n = read(fd, w->got, sizeof(w->got) - 1);

	w->events |= events;
	w->calls++;
	w->got[n > 0 ? n : 0] = '\0';
	loop_stop(w->loop);
}

static void descriptor_is_read(void **state)
{
	struct world *w = *state;

	assert_int_equal(loop_add_fd(w->loop, w->fds[0], LOOP_READ, on_read, w, &w->watch), 0);
	assert_int_equal(write(w->fds[1], "tide", 4), 4);
	loop_run(w->loop);
	assert_string_equal(w->got, "tide");
	assert_int_equal(w->events, LOOP_READ);
}

static void end_of_file_is_an_event(void **state)
{
	struct world *w = *state;

	assert_int_equal(loop_add_fd(w->loop, w->fds[0], LOOP_READ, on_read, w, &w->watch), 0);
	shutdown(w->fds[1], SHUT_WR);
	loop_run(w->loop);
	assert_int_equal(w->calls, 1);
	assert_string_equal(w->got, "");
}

static void on_read_to_the_end(void *data, int fd, unsigned int events)
{
	struct world *w = data;

	(void)events;
	w->calls++;
	if (read(fd, w->got, 4) <= 0)
		loop_stop(w->loop);
}

/* The other side is gone with our bytes unread: an error of the descriptor, behind what it sent. */
static void error_hides_no_end(void **state)
{
	struct world *w = *state;

	assert_int_equal(
		loop_add_fd(w->loop, w->fds[0], LOOP_READ, on_read_to_the_end, w, &w->watch), 0);
	assert_int_equal(write(w->fds[0], "unread", 6), 6);
	assert_int_equal(write(w->fds[1], "ebb tide", 8), 8);
	close(w->fds[1]);
	w->fds[1] = -1;
	loop_run(w->loop);
	assert_true(w->calls >= 2);
	assert_memory_equal(w->got, "tide", 4);
}

static void on_write(void *data, int fd, unsigned int events)
{
	struct world *w = data;

	assert_int_equal(fd, w->fds[0]);
	assert_int_equal(events, LOOP_WRITE);
	w->calls++;
	assert_int_equal(loop_set_events(w->watch, 0), 0);
	assert_int_equal(loop_set_timer(w->other, 20, 0), 0);
}

static void on_stop(void *data)
{
	struct world *w = data;

	w->other_calls++;
	loop_stop(w->loop);
}

static void events_can_be_taken_away(void **state)
{
	struct world *w = *state;

	assert_int_equal(loop_add_timer(w->loop, 4000, 0, on_stop, w, &w->other), 0);
	assert_int_equal(loop_add_fd(w->loop, w->fds[0], LOOP_WRITE, on_write, w, &w->watch), 0);
	loop_run(w->loop);
	assert_int_equal(w->calls, 1); /* though the descriptor stayed writable for 20 ms */
	assert_int_equal(w->other_calls, 1);
}

static void on_remove_self(void *data, int fd, unsigned int events)
{
	struct world *w = data;

	(void)fd;
	(void)events;
	w->calls++;
	w->watch = loop_remove(w->watch);
	assert_null(w->watch);
	assert_int_equal(loop_add_timer(w->loop, 20, 0, on_stop, w, &w->other), 0);
}

static void watch_removes_itself(void **state)
{
	struct world *w = *state;

	assert_int_equal(loop_add_fd(w->loop, w->fds[0], LOOP_READ, on_remove_self, w, &w->watch),
			 0);
	assert_int_equal(write(w->fds[1], "x", 1), 1);
	loop_run(w->loop);
	assert_int_equal(w->calls, 1);
	/* The descriptor is free again: another watch may have it. */
	assert_int_equal(loop_add_fd(w->loop, w->fds[0], LOOP_READ, on_read, w, &w->watch), 0);
	loop_run(w->loop);
	assert_string_equal(w->got, "x");
}

static void on_timer_remove_self(void *data)
{
	struct world *w = data;

	if (++w->calls < 3)
		return;
	w->watch = loop_remove(w->watch);
	loop_stop(w->loop);
}

static void repeating_timer_removes_itself(void **state)
{
	struct world *w = *state;
	uint64_t begin = clock_mono_ns();

	assert_int_equal(loop_add_timer(w->loop, 2, 2, on_timer_remove_self, w, &w->watch), 0);
	loop_run(w->loop);
	assert_int_equal(w->calls, 3);
	assert_true(clock_mono_ns() - begin >= 5 * NS_PER_MS);
}

static void on_remove_both(void *data, int fd, unsigned int events)
{
	struct world *w = data;

	(void)fd;
	(void)events;
	w->calls++;
	w->watch = loop_remove(w->watch);
	w->other = loop_remove(w->other);
	loop_stop(w->loop);
}

static void removed_neighbour_is_not_called(void **state)
{
	struct world *w = *state;

	/* Both are ready in the same turn; whichever comes first removes the other. */
	assert_int_equal(loop_add_fd(w->loop, w->fds[0], LOOP_READ, on_remove_both, w, &w->watch),
			 0);
	assert_int_equal(loop_add_fd(w->loop, w->fds[1], LOOP_READ, on_remove_both, w, &w->other),
			 0);
	assert_int_equal(write(w->fds[0], "x", 1), 1);
	assert_int_equal(write(w->fds[1], "x", 1), 1);
	loop_run(w->loop);
	assert_int_equal(w->calls, 1);
}

static void on_signal(void *data, int signal)
{
	struct world *w = data;

	w->events = (unsigned int)signal;
	loop_stop(w->loop);
}

static void signal_arrives(void **state)
{
	struct world *w = *state;

	assert_int_equal(loop_add_signal(w->loop, SIGUSR1, on_signal, w, &w->watch), 0);
	raise(SIGUSR1);
	loop_run(w->loop);
	assert_int_equal(w->events, SIGUSR1);
	w->watch = loop_remove(w->watch);
}

static void bad_descriptor_is_an_error(void **state)
{
	struct world *w = *state;
	int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	assert_int_equal(loop_add_fd(w->loop, -1, LOOP_READ, on_read, w, &w->watch), -EBADF);
	assert_int_equal(loop_add_fd(w->loop, file, LOOP_READ, on_read, w, &w->watch), -EPERM);
	assert_null(w->watch);
	close(file);
	assert_null(loop_remove(NULL));
	assert_null(loop_close(NULL));
}

static void close_frees_what_is_left(void **state)
{
	struct world *w = *state;
	struct loop *loop;
	struct loop_watch *watch;

	/* The leak check of a SANITIZE build is the judge. */
	assert_int_equal(loop_open(&loop), 0);
	assert_int_equal(loop_add_timer(loop, 1000, 1000, on_stop, w, &watch), 0);
	assert_int_equal(loop_add_fd(loop, w->fds[0], LOOP_READ, on_read, w, &watch), 0);
	assert_int_equal(loop_add_signal(loop, SIGUSR2, on_signal, w, &watch), 0);
	loop_remove(watch);
	assert_null(loop_close(loop));
}

#define LOOP_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		LOOP_TEST(descriptor_is_read),
		LOOP_TEST(end_of_file_is_an_event),
		LOOP_TEST(error_hides_no_end),
		LOOP_TEST(events_can_be_taken_away),
		LOOP_TEST(watch_removes_itself),
		LOOP_TEST(repeating_timer_removes_itself),
		LOOP_TEST(removed_neighbour_is_not_called),
		LOOP_TEST(signal_arrives),
		LOOP_TEST(bad_descriptor_is_an_error),
		LOOP_TEST(close_frees_what_is_left),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
