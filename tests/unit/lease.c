/* SPDX-License-Identifier: Apache-2.0 */
/* The lease's state machine with literal numbers and a clock of our own. */
#include "drain/lease.h"

#include "base/clock.h"
#include "base/str.h"
#include "drain/driver.h"
#include "drain/lease_file.h"
#include "drain/lease_report.h"
#include "drain/target.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define S  NS_PER_S
#define MS NS_PER_MS
#define T0 (1000 * S)

/* A gateway, its lease and the time. Hooks: -1 there are none, else how many fail of one. */
struct world {
	struct lease l;
	struct lease_numbers n;
	uint64_t now;
	int signal, signals, runs, cancels;
	int hooks_fail[LEASE_STATES];
	bool is_over, is_silent_hooks, is_deaf;
	char points[256];
};

static void begin(struct world *w, uint64_t deadline_ns, uint64_t quiet_ns)
{
	memset(w, 0, sizeof(*w));
	w->now = T0;
	w->n = (struct lease_numbers){.is_requests_known = true,
				      .tick_ns = T0,
				      .started = 1000,
				      .health = 100,
				      .completed = 990,
				      .in_flight = 10,
				      .proc_connections = -1};
	for (int i = 0; i < LEASE_STATES; i++)
		w->hooks_fail[i] = -1;
	lease_begin(&w->l, w->now,
		    &(struct lease_request){.gateway = "edge",
					    .instance = "host/1",
					    .driver = "nginx",
					    .reason = "stop",
					    .pid = 4242,
					    .pid_start = 7,
					    .deadline_ns = deadline_ns,
					    .quiet_ns = quiet_ns},
		    &w->n);
}

/* One tick of 50 ms, as the steward does it. */
static void tick(struct world *w)
{
	struct lease_actions a;

	w->now += 50 * MS;
	w->n.tick_ns = w->now;
	lease_observe(&w->l, w->now, &w->n);
	lease_next(&w->l, w->now, &a);
	w->cancels += a.cancel_hooks;
	if (a.signal) {
		w->signal = a.signal;
		w->signals++;
		lease_signalled(&w->l, w->now, a.signal, w->is_deaf ? -EPERM : 0);
	}
	if (a.run_point) {
		int fail = w->hooks_fail[w->l.state];

		w->runs++;
		strncat(w->points, a.run_point, sizeof(w->points) - strlen(w->points) - 2);
		strcat(w->points, " ");
		if (!w->is_silent_hooks)
			lease_hooks_done(&w->l, w->now, a.run_point, fail >= 0, fail > 0, false);
	}
	w->is_over |= a.is_over;
}

static void run_until(struct world *w, uint64_t seconds_ns)
{
	while (w->now < T0 + seconds_ns && !w->is_over)
		tick(w);
}

static void run_to(struct world *w, enum lease_state state)
{
	for (int i = 0; i < 5000 && w->l.state != state; i++)
		tick(w);
	assert_int_equal(w->l.state, state);
}

static bool has_step(const struct lease *l, const char *part)
{
	for (uint32_t i = 0; i < l->step_count; i++)
		if (strstr(l->steps[i].text, part))
			return true;
	return false;
}

static void request(struct world *w, bool is_health)
{
	w->n.started++;
	w->n.completed++;
	w->n.health += is_health;
	if (!is_health)
		w->n.last_request_ns = w->now;
}

static void test_whole_drain(void **state)
{
	struct world w;

	(void)state;
	begin(&w, 30 * S, 2 * S);
	run_until(&w, 1 * S);
	assert_int_equal(w.l.state, LEASE_QUIET);
	request(&w, false);
	run_until(&w, 2900 * MS);
	assert_int_equal(w.l.state, LEASE_QUIET);
	assert_int_equal(w.signals, 0);
	run_until(&w, 3200 * MS);
	assert_int_equal(w.l.state, LEASE_WAIT);
	assert_int_equal(w.signal, SIGQUIT);
	assert_true(w.l.is_told);
	w.n.in_flight = 0;
	w.n.completed += 10;
	w.n.is_gone = true;
	run_until(&w, 10 * S);
	assert_true(w.is_over);
	assert_int_equal(w.signals, 1);
	assert_int_equal(lease_arrived(&w.l), 1);
	assert_int_equal(lease_lost(&w.l), 0);
	assert_int_equal(lease_exit_code(&w.l), EXIT_DONE);
	assert_string_equal(w.points, "drain.begin drain.quiet drain.stop drain.wait drain.end ");
}

static void test_health_checks_do_not_disturb(void **state)
{
	struct world w;

	(void)state;
	begin(&w, 30 * S, 2 * S);
	while (w.l.state < LEASE_STOP && w.now < T0 + 20 * S) {
		tick(&w);
		request(&w, true);
	}
	assert_true(w.now < T0 + 2300 * MS);
	assert_int_equal(lease_arrived(&w.l), 0);
}

static void test_late_request_restarts_quiet(void **state)
{
	struct world w;

	(void)state;
	begin(&w, 30 * S, 2 * S);
	run_until(&w, 1950 * MS);
	request(&w, false);
	run_until(&w, 3900 * MS);
	assert_int_equal(w.l.state, LEASE_QUIET);
	run_until(&w, 4100 * MS);
	assert_int_equal(w.l.state, LEASE_WAIT);
}

static void test_never_quiet_stops_in_time(void **state)
{
	struct world w;

	(void)state;
	begin(&w, 30 * S, 2 * S);
	assert_int_equal(w.l.quiet_until_ns, T0 + 18 * S);
	assert_int_equal(w.l.wait_until_ns, T0 + 28 * S);
	while (w.l.state < LEASE_STOP) {
		tick(&w);
		request(&w, false);
	}
	assert_true(w.now >= T0 + 18 * S && w.now <= T0 + 18 * S + 100 * MS);
	assert_true(has_step(&w.l, "not reached"));
	assert_int_equal(lease_exit_code(&w.l), EXIT_DONE);
}

static void test_silent_keeper_is_not_quiet(void **state)
{
	struct world w;
	uint64_t stale = T0 + 500 * MS;

	(void)state;
	begin(&w, 30 * S, 2 * S);
	for (int i = 0; i < 100; i++) {
		struct lease_actions a;

		w.now += 50 * MS;
		w.n.tick_ns = stale;
		lease_observe(&w.l, w.now, &w.n);
		lease_next(&w.l, w.now, &a);
		if (a.run_point)
			lease_hooks_done(&w.l, w.now, a.run_point, 0, 0, false);
	}
	assert_int_equal(w.l.state, LEASE_QUIET);
}

static void test_deadline_forces(void **state)
{
	struct world w;

	(void)state;
	begin(&w, 30 * S, 1 * S);
	run_to(&w, LEASE_WAIT);
	run_until(&w, 27900 * MS);
	assert_int_equal(w.l.state, LEASE_WAIT);
	run_until(&w, 28100 * MS);
	assert_int_equal(w.l.state, LEASE_FORCE);
	assert_int_equal(w.signal, SIGTERM);
	w.n.is_gone = true;
	w.n.lost = 10;
	w.n.in_flight = 0;
	run_until(&w, 30 * S);
	assert_true(w.is_over);
	assert_int_equal(w.signals, 2);
	assert_int_equal(lease_lost(&w.l), 10);
	assert_int_equal(lease_exit_code(&w.l), EXIT_DEADLINE);
}

static void test_never_beyond_the_deadline(void **state)
{
	struct world w;

	(void)state;
	/* A gateway that ignores every signal and hooks that never answer. */
	begin(&w, 10 * S, 1 * S);
	w.is_silent_hooks = true;
	run_until(&w, 60 * S);
	assert_true(w.is_over);
	assert_true(w.now <= T0 + 11200 * MS);
	assert_int_equal(lease_exit_code(&w.l), EXIT_DEADLINE);
	assert_true(w.cancels >= 3);
}

static void test_undrain(void **state)
{
	struct world w;

	(void)state;
	begin(&w, 30 * S, 2 * S);
	run_until(&w, 1 * S);
	assert_true(lease_is_held(&w.l));
	assert_int_equal(lease_undrain(&w.l, w.now), 0);
	assert_false(lease_is_held(&w.l));
	assert_int_equal(lease_undrain(&w.l, w.now), -EALREADY);
	run_until(&w, 3 * S);
	assert_true(w.is_over);
	assert_int_equal(w.signals, 0);
	assert_true(strstr(w.points, "drain.end") != NULL);
	assert_int_equal(lease_exit_code(&w.l), EXIT_DONE);

	begin(&w, 30 * S, 1 * S);
	run_to(&w, LEASE_WAIT);
	assert_int_equal(lease_undrain(&w.l, w.now), -EALREADY);
	assert_true(lease_is_held(&w.l));
}

static void test_expiry_gives_traffic_back(void **state)
{
	struct world w;

	(void)state;
	begin(&w, 30 * S, 2 * S);
	run_until(&w, 1 * S);
	w.now += 60 * S; /* nobody ran for a minute */
	lease_restored(&w.l, w.now);
	run_until(&w, 70 * S);
	assert_true(w.is_over);
	assert_true(w.l.is_expired);
	assert_int_equal(w.signals, 0);
}

/* The steward dies and comes back in each state: the drain ends the same way, with one QUIT. */
static void test_restart_in_each_state(void **state)
{
	(void)state;
	for (enum lease_state at = LEASE_BEGIN; at <= LEASE_END; at++) {
		struct world w;

		if (at == LEASE_FORCE)
			continue;
		begin(&w, 30 * S, 1 * S);
		if (at == LEASE_BEGIN || at == LEASE_STOP) {
			/* These pass within a tick: hooks that are still running hold them. */
			if (at == LEASE_STOP)
				run_to(&w, LEASE_QUIET);
			w.is_silent_hooks = at == LEASE_BEGIN;
			while (w.l.state != at) {
				w.is_silent_hooks = true;
				tick(&w);
			}
		} else {
			if (at == LEASE_END) {
				run_to(&w, LEASE_WAIT);
				w.n.is_gone = true;
				w.n.in_flight = 0;
				w.is_silent_hooks = true;
			}
			run_to(&w, at);
		}
		lease_restored(&w.l, w.now);
		w.is_silent_hooks = false;
		if (at < LEASE_WAIT)
			run_to(&w, LEASE_WAIT);
		w.n.is_gone = true;
		w.n.in_flight = 0;
		run_until(&w, 30 * S);
		assert_true(w.is_over);
		assert_int_equal(w.signals, 1);
		assert_int_equal(lease_exit_code(&w.l), EXIT_DONE);
		assert_true(has_step(&w.l, "restart"));
	}
}

static void test_restart_after_stop_sends_no_second_signal(void **state)
{
	struct world w;

	(void)state;
	begin(&w, 30 * S, 1 * S);
	w.is_silent_hooks = true;
	run_to(&w, LEASE_STOP);
	lease_signalled(&w.l, w.now, SIGQUIT, 0); /* by the hook, which then died with us */
	lease_restored(&w.l, w.now);
	assert_int_equal(w.l.state, LEASE_WAIT);
	w.is_silent_hooks = false;
	w.n.is_gone = true;
	w.n.in_flight = 0;
	run_until(&w, 20 * S);
	assert_true(w.is_over);
	assert_int_equal(w.signals, 0);
}

static void test_hooks_that_act_leave_nothing_to_do(void **state)
{
	struct world w;

	(void)state;
	begin(&w, 30 * S, 2 * S);
	w.hooks_fail[LEASE_QUIET] = 0;
	run_until(&w, 400 * MS);
	assert_int_equal(w.l.state, LEASE_WAIT);
	assert_int_equal(w.signals, 1);
}

static void test_failed_hook_falls_back(void **state)
{
	struct world w;

	(void)state;
	begin(&w, 30 * S, 2 * S);
	w.hooks_fail[LEASE_QUIET] = w.hooks_fail[LEASE_STOP] = 1;
	run_until(&w, 1 * S);
	assert_int_equal(w.l.state, LEASE_QUIET);
	run_to(&w, LEASE_WAIT);
	assert_int_equal(w.signal, SIGQUIT);
	assert_true(has_step(&w.l, "built-in"));
}

static void test_unable_to_signal_fails(void **state)
{
	struct world w;

	(void)state;
	begin(&w, 30 * S, 1 * S);
	w.is_deaf = true;
	run_until(&w, 30 * S);
	assert_true(w.is_over);
	assert_true(w.l.is_failed);
	assert_int_equal(w.signals, 1);
	assert_int_equal(lease_exit_code(&w.l), EXIT_FAILED);
}

static void test_unknown_requests(void **state)
{
	struct world w;

	(void)state;
	begin(&w, 30 * S, 1 * S);
	w.l.at_start.is_requests_known = w.n.is_requests_known = false;
	run_until(&w, 4900 * MS);
	assert_int_equal(w.l.state, LEASE_QUIET);
	assert_true(has_step(&w.l, "fixed 5 s"));
	run_until(&w, 5200 * MS);
	assert_int_equal(w.l.state, LEASE_WAIT);
	run_until(&w, 8 * S);
	assert_int_equal(w.l.state, LEASE_WAIT); /* not readable: waits for the process */
	w.n.proc_connections = 0;
	run_until(&w, 10 * S);
	assert_true(w.is_over);
	assert_false(w.l.is_forced);
}

static void test_lost_counts_what_went_with_the_process(void **state)
{
	struct world w;

	(void)state;
	begin(&w, 30 * S, 2 * S);
	run_until(&w, 1 * S);
	w.n.is_gone = true; /* killed by somebody else, 10 in flight */
	run_until(&w, 5 * S);
	assert_true(w.is_over);
	assert_int_equal(lease_lost(&w.l), 10);
	assert_int_equal(lease_exit_code(&w.l), EXIT_FAILED);
}

static void test_steps_are_bounded(void **state)
{
	struct world w;

	(void)state;
	begin(&w, 30 * S, 2 * S);
	for (int i = 0; i < 1000; i++) {
		lease_note(&w.l, w.now, "%0200d", i);
		lease_hook_ran(&w.l, "drain.quiet", "x", false, 1, "why");
	}
	assert_int_equal(w.l.step_count, LEASE_STEPS_MAX);
	assert_int_equal(w.l.hook_count, LEASE_HOOKS_MAX);
	assert_int_equal(w.l.steps_dropped, 1000 + 1 - LEASE_STEPS_MAX);
}

static void test_report(void **state)
{
	static const char *const keys[] = {
		"gateway", "instance",      "in_flight_at_start", "arrived", "completed", "aborted",
		"lost",    "lost_requests", "waited_s",           "forced",  "steps",     "hooks"};
	struct world w;
	json_t *report;

	(void)state;
	begin(&w, 30 * S, 2 * S);
	lease_hook_ran(&w.l, "drain.begin", "a", false, 1500, "why");
	report = lease_report(&w.l, w.now);
	for (size_t i = 0; i < ARRAY_LEN(keys); i++)
		assert_non_null(json_object_get(report, keys[i]));
	assert_int_equal(json_integer_value(json_object_get(report, "in_flight_at_start")), 10);
	json_decref(report);
	w.l.at_start.is_requests_known = false;
	report = lease_report(&w.l, w.now);
	assert_true(json_is_null(json_object_get(report, "lost")));
	json_decref(report);
}

/* The tick before the begin is old: what was in flight at the start is in the first one after. */
static void test_start_is_fresh(void **state)
{
	struct world w;

	(void)state;
	begin(&w, 30 * S, 2 * S);
	w.l.is_start_fresh = false; /* as with numbers of 900 ms ago */
	w.n.started += 500;
	w.n.completed += 480;
	w.n.in_flight = 29;
	w.n.lost = 1;
	tick(&w);
	assert_int_equal(w.l.at_start.in_flight, 29);
	assert_int_equal(lease_arrived(&w.l), 0);
	assert_int_equal(lease_lost(&w.l), 1);
	w.n.in_flight = 3;
	tick(&w);
	assert_int_equal(w.l.at_start.in_flight, 29);
}

static void test_file(void **state)
{
	char dir[] = "/tmp/tidegate-lease-XXXXXX", path[64];
	struct lease *out[LEASE_FILE_MOST], *in[1];
	struct world w;
	size_t n = 9;
	int fd;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/lease.bin", dir);
	assert_int_equal(lease_file_load(path, out, &n, NULL), 0);
	assert_int_equal(n, 0);
	begin(&w, 30 * S, 2 * S);
	in[0] = &w.l;
	assert_int_equal(lease_file_save(path, in, 1, NULL), 0);
	assert_int_equal(lease_file_load(path, out, &n, NULL), 0);
	assert_int_equal(n, 1);
	assert_memory_equal(out[0], &w.l, sizeof(w.l));
	free(out[0]);

	/* Every byte matters. */
	for (off_t at = 0; at < (off_t)sizeof(struct lease); at += 97) {
		unsigned char b;

		fd = open(path, O_RDWR);
		assert_int_equal(pread(fd, &b, 1, at), 1);
		b ^= 0x40;
		assert_int_equal(pwrite(fd, &b, 1, at), 1);
		/* reserved bytes at the end of the head are nobody's */
		if (at < 64 || at > 80)
			assert_true(lease_file_load(path, out, &n, NULL) < 0 || n == 0);
		for (size_t i = 0; i < n; i++)
			free(out[i]);
		b ^= 0x40;
		assert_int_equal(pwrite(fd, &b, 1, at), 1);
		close(fd);
	}
	assert_int_equal(truncate(path, 100), 0);
	assert_int_equal(lease_file_load(path, out, &n, NULL), -EBADMSG);
	assert_int_equal(lease_file_save(path, in, 0, NULL), 0);
	assert_int_equal(lease_file_load(path, out, &n, NULL), 0);
	assert_int_equal(n, 0);
	unlink(path);
	rmdir(dir);
}

static void test_drivers(void **state)
{
	(void)state;
	assert_int_equal(driver_find("nginx")->stop, SIGQUIT);
	assert_int_equal(driver_find("haproxy")->stop, SIGUSR1);
	assert_string_equal(driver_find("what")->name, "*");
	assert_true(driver_allows(driver_find("nginx"), SIGQUIT));
	assert_false(driver_allows(driver_find("nginx"), SIGKILL));
	assert_false(driver_allows(driver_find("nginx"), 0));
	assert_int_equal(driver_signal_number("SIGQUIT"), SIGQUIT);
	assert_int_equal(driver_signal_number("STOP"), 0);
	assert_string_equal(driver_signal_name(SIGUSR1), "USR1");
}

static void test_target(void **state)
{
	uint64_t start = 0;
	int64_t count = -1;
	int status;
	pid_t pid = fork();

	(void)state;
	if (!pid) {
		for (;;)
			pause();
	}
	assert_int_equal(target_start_time((uint32_t)pid, &start), 0);
	assert_true(target_is_alive((uint32_t)pid, start));
	assert_false(target_is_alive((uint32_t)pid, start + 1));
	assert_int_equal(target_signal((uint32_t)pid, start + 1, SIGKILL), -ESRCH);
	assert_true(target_is_alive((uint32_t)pid, start));
	assert_int_equal(target_connections((uint32_t)pid, &count), 0);
	assert_int_equal(count, 0);
	assert_int_equal(target_signal(0, start, SIGKILL), -ESRCH);
	assert_int_equal(target_signal((uint32_t)pid, start, SIGKILL), 0);
	/* A zombie is gone, though nobody has waited for it. */
	while (target_is_alive((uint32_t)pid, start))
		;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(target_start_time((uint32_t)pid, &start), -ESRCH);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole_drain),
		cmocka_unit_test(test_health_checks_do_not_disturb),
		cmocka_unit_test(test_late_request_restarts_quiet),
		cmocka_unit_test(test_never_quiet_stops_in_time),
		cmocka_unit_test(test_silent_keeper_is_not_quiet),
		cmocka_unit_test(test_deadline_forces),
		cmocka_unit_test(test_never_beyond_the_deadline),
		cmocka_unit_test(test_undrain),
		cmocka_unit_test(test_expiry_gives_traffic_back),
		cmocka_unit_test(test_restart_in_each_state),
		cmocka_unit_test(test_restart_after_stop_sends_no_second_signal),
		cmocka_unit_test(test_hooks_that_act_leave_nothing_to_do),
		cmocka_unit_test(test_failed_hook_falls_back),
		cmocka_unit_test(test_unable_to_signal_fails),
		cmocka_unit_test(test_unknown_requests),
		cmocka_unit_test(test_lost_counts_what_went_with_the_process),
		cmocka_unit_test(test_steps_are_bounded),
		cmocka_unit_test(test_report),
		cmocka_unit_test(test_start_is_fresh),
		cmocka_unit_test(test_file),
		cmocka_unit_test(test_drivers),
		cmocka_unit_test(test_target),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
