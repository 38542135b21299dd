/* SPDX-License-Identifier: Apache-2.0 */
/* State machine of one drain. Owns nothing; steward, and unit tests with literal structs. */
#include "drain/lease.h"

#include "base/clock.h"
#include "base/str.h"
#include "drain/driver.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* How long numbers are awaited that include the last moment of a gateway that has gone. */
#define SETTLE_NS    (1 * NS_PER_S)
#define END_HOOKS_NS (1 * NS_PER_S)
/* In flight is a number of the last tick: only a run of zeros means that all is done. */
#define IDLE_NS (500 * NS_PER_MS)
/* The wait where requests cannot be seen: as long as common balancers take to notice. */
#define FIXED_QUIET_NS (5 * NS_PER_S)

static const struct {
	const char *name, *point;
} states[LEASE_STATES] = {
	[LEASE_IDLE] = {"idle", NULL},
	[LEASE_BEGIN] = {"begin", "drain.begin"},
	[LEASE_QUIET] = {"quiet", "drain.quiet"},
	[LEASE_STOP] = {"stop", "drain.stop"},
	[LEASE_WAIT] = {"wait", "drain.wait"},
	[LEASE_FORCE] = {"force", NULL},
	[LEASE_END] = {"end", "drain.end"},
};

const char *lease_state_name(uint32_t state)
{
	return state < LEASE_STATES ? states[state].name : "?";
}

const char *lease_state_point(uint32_t state)
{
	return state < LEASE_STATES ? states[state].point : NULL;
}

static uint64_t since(uint64_t now, uint64_t then)
{
	return now > then ? now - then : 0;
}

static double seconds(uint64_t ns)
{
	return (double)ns / 1e9;
}

void lease_note(struct lease *l, uint64_t now_ns, const char *fmt, ...)
{
	struct lease_step *s;
	va_list ap;

	if (l->step_count >= LEASE_STEPS_MAX) {
		l->steps_dropped++;
		return;
	}
	s = &l->steps[l->step_count++];
	s->at_ms = (uint32_t)(since(now_ns, l->begin_ns) / NS_PER_MS);
	va_start(ap, fmt);
	vsnprintf(s->text, sizeof(s->text), fmt, ap);
	va_end(ap);
}

/* A number that cannot be seen is not called 0. */
static const char *count_text(const struct lease *l, uint64_t v, char buf[24])
{
	if (!l->now.is_requests_known)
		return "unknown";
	snprintf(buf, 24, "%" PRIu64, v);
	return buf;
}

/* One deadline, four parts: a sixth for the first hooks (inside the quiet part), a third for what
 * is in flight after the stop, a tenth (at most 2 s) for force; the rest is for becoming quiet. */
static void lease_split(struct lease *l, uint64_t deadline_ns)
{
	uint64_t force = deadline_ns / 10, wait = deadline_ns / 3;

	if (force > 2 * NS_PER_S)
		force = 2 * NS_PER_S;
	l->deadline_ns = l->begin_ns + deadline_ns;
	l->wait_until_ns = l->deadline_ns - force;
	l->quiet_until_ns = l->wait_until_ns - wait;
	l->begin_until_ns = l->begin_ns + deadline_ns / 6;
	if (l->quiet_ns > l->quiet_until_ns - l->begin_ns)
		l->quiet_ns = l->quiet_until_ns - l->begin_ns;
}

static void enter(struct lease *l, uint64_t now_ns, enum lease_state state)
{
	l->state = state;
	l->state_ns = now_ns;
	l->hooks_state = LEASE_HOOKS_WANTED;
	l->idle_since_ns = 0;
	switch (state) {
	case LEASE_BEGIN:
		l->hooks_until_ns = l->begin_until_ns;
		break;
	case LEASE_QUIET:
		l->hooks_until_ns = l->quiet_until_ns;
		break;
	case LEASE_STOP:
	case LEASE_WAIT:
		l->hooks_until_ns = l->wait_until_ns;
		break;
	default:
		l->hooks_until_ns = 0;
	}
}

void lease_begin(struct lease *l, uint64_t now_ns, const struct lease_request *q,
		 const struct lease_numbers *numbers)
{
	memset(l, 0, sizeof(*l));
	str_copy(l->gateway, sizeof(l->gateway), q->gateway);
	str_copy(l->instance, sizeof(l->instance), q->instance);
	str_copy(l->driver, sizeof(l->driver), q->driver);
	str_copy(l->reason, sizeof(l->reason), q->reason);
	l->pid = q->pid;
	l->pid_start = q->pid_start;
	l->begin_ns = now_ns;
	l->quiet_ns = q->quiet_ns;
	lease_split(l, q->deadline_ns);
	l->at_start = l->now = *numbers;
	l->is_start_fresh = numbers->tick_ns >= now_ns;
	enter(l, now_ns, LEASE_BEGIN);
	lease_note(
		l, now_ns,
		"begin (%s): deadline %.3g s = quiet until %.3g s, wait until %.3g s, then force; "
		"quiet period %.3g s",
		l->reason, seconds(q->deadline_ns), seconds(l->quiet_until_ns - now_ns),
		seconds(l->wait_until_ns - now_ns), seconds(l->quiet_ns));
}

void lease_observe(struct lease *l, uint64_t now_ns, const struct lease_numbers *n)
{
	if (l->state == LEASE_IDLE || l->is_over)
		return;
	l->now = *n;
	/* The numbers of the begin are up to a tick old; the first fresh ones know better. What was
	 * lost in between stays lost. */
	if (!l->is_start_fresh && n->tick_ns >= l->begin_ns) {
		uint64_t lost = l->at_start.lost;

		l->is_start_fresh = true;
		l->at_start = *n;
		l->at_start.lost = lost;
	}
	if (n->is_gone && !l->is_gone) {
		l->is_gone = true;
		l->gone_ns = now_ns;
		lease_note(l, now_ns, "gone: the gateway's process %" PRIu32 " has ended", l->pid);
	}
	if (n->in_flight)
		l->idle_since_ns = 0;
	else if (!l->idle_since_ns)
		l->idle_since_ns = now_ns;
}

bool lease_is_quiet(const struct lease *l, uint64_t now_ns, uint64_t quiet_ns)
{
	uint64_t last = l->now.last_request_ns;

	if (l->is_gone)
		return true;
	if (!l->now.is_requests_known) {
		uint64_t fixed = quiet_ns > FIXED_QUIET_NS ? quiet_ns : FIXED_QUIET_NS;

		return since(now_ns, l->begin_ns) >= fixed;
	}
	if (last < l->begin_ns)
		last = l->begin_ns;
	/* tick_ns and not now_ns: silence of the keeper is no silence of the clients. */
	return since(l->now.tick_ns, last) >= quiet_ns;
}

bool lease_is_idle(const struct lease *l, uint64_t now_ns, uint64_t most)
{
	if (l->is_gone)
		return true;
	if (!l->now.is_requests_known)
		return l->now.proc_connections >= 0 && (uint64_t)l->now.proc_connections <= most &&
		       since(now_ns, l->state_ns) >= IDLE_NS;
	if (since(now_ns, l->state_ns) < IDLE_NS || l->now.tick_ns < l->state_ns)
		return false;
	if (most)
		return l->now.in_flight <= most;
	return l->idle_since_ns && since(now_ns, l->idle_since_ns) >= IDLE_NS;
}

bool lease_is_held(const struct lease *l)
{
	return l->state != LEASE_IDLE && !l->is_over && !l->is_undrained && !l->is_expired;
}

int lease_undrain(struct lease *l, uint64_t now_ns)
{
	if (!lease_is_held(l) || l->is_told || l->state >= LEASE_STOP)
		return -EALREADY;
	l->is_undrained = true;
	lease_note(l, now_ns, "undrain: taken back in state %s", lease_state_name(l->state));
	return 0;
}

void lease_hook_ran(struct lease *l, const char *point, const char *name, bool is_ok, uint32_t ms,
		    const char *error)
{
	struct lease_hook *h;

	if (l->hook_count >= LEASE_HOOKS_MAX) {
		l->hooks_dropped++;
		return;
	}
	h = &l->hooks[l->hook_count++];
	str_copy(h->point, sizeof(h->point), point);
	str_copy(h->name, sizeof(h->name), name);
	str_copy(h->error, sizeof(h->error), error);
	h->is_ok = is_ok;
	h->ms = ms;
}

void lease_hooks_done(struct lease *l, uint64_t now_ns, const char *point, unsigned int ran,
		      unsigned int failed, bool has_acted)
{
	const char *mine = lease_state_point(l->state);

	if (!mine || !str_equal(mine, point) || l->hooks_state != LEASE_HOOKS_RUNNING)
		return;
	if (failed)
		l->hooks_state = LEASE_HOOKS_FAILED;
	else
		l->hooks_state = ran ? LEASE_HOOKS_ACTED : LEASE_HOOKS_NONE;
	/* Hooks that did nothing to the gateway have not stopped it. */
	if (l->state == LEASE_STOP && !l->is_told) {
		if (l->hooks_state == LEASE_HOOKS_ACTED && has_acted) {
			l->is_told = true;
			lease_note(l, now_ns, "stop: the hooks told the gateway");
		} else if (l->hooks_state == LEASE_HOOKS_ACTED) {
			l->hooks_state = LEASE_HOOKS_NONE;
		}
	}
	if (failed)
		lease_note(l, now_ns, "%s: %u of %u hooks failed, the built-in way goes on",
			   lease_state_name(l->state), failed, ran);
}

void lease_signalled(struct lease *l, uint64_t now_ns, int signal, int r)
{
	const struct driver *d = driver_find(l->driver);
	char count[24];

	if (r < 0) {
		lease_note(l, now_ns, "%s: signal %s to process %" PRIu32 " failed: %s",
			   lease_state_name(l->state), driver_signal_name(signal), l->pid,
			   err_text(r));
		/* A hook that failed is made good by the built-in way; nothing is behind that. */
		if (l->state == LEASE_STOP && l->hooks_state != LEASE_HOOKS_RUNNING) {
			l->is_failed = true;
			enter(l, now_ns, LEASE_END);
		}
		return;
	}
	if (signal == d->stop || signal == d->force)
		l->is_told = true;
	lease_note(l, now_ns, "%s: signal %s sent to process %" PRIu32 ", in flight: %s",
		   lease_state_name(l->state), driver_signal_name(signal), l->pid,
		   count_text(l, l->now.in_flight, count));
}

void lease_restored(struct lease *l, uint64_t now_ns)
{
	if (l->hooks_state == LEASE_HOOKS_RUNNING)
		l->hooks_state = LEASE_HOOKS_WANTED;
	/* A second TERM is a hard stop to some gateways: what was sent is not sent again. */
	if (l->state == LEASE_STOP && l->is_told)
		enter(l, now_ns, LEASE_WAIT);
	lease_note(l, now_ns, "restart: the steward goes on in state %s",
		   lease_state_name(l->state));
}

/* Moves to the next state, cancelling hooks that still run. */
static void move(struct lease *l, uint64_t now_ns, enum lease_state state, struct lease_actions *a)
{
	if (l->hooks_state == LEASE_HOOKS_RUNNING)
		a->cancel_hooks = true;
	enter(l, now_ns, state);
	a->is_changed = true;
}

/* True while the last numbers do not yet include the gateway's end. */
static bool is_settling(const struct lease *l, uint64_t now_ns)
{
	return l->is_gone && l->now.is_requests_known && l->now.tick_ns <= l->gone_ns &&
	       since(now_ns, l->gone_ns) < SETTLE_NS;
}

static void step_quiet(struct lease *l, uint64_t now_ns, struct lease_actions *a)
{
	bool is_builtin =
		l->hooks_state == LEASE_HOOKS_NONE || l->hooks_state == LEASE_HOOKS_FAILED;
	char count[24];

	if (!l->now.is_requests_known && !l->is_fixed_said) {
		l->is_fixed_said = true;
		lease_note(l, now_ns,
			   "quiet: requests cannot be seen here, waits a fixed %.3g s instead",
			   seconds(l->quiet_ns > FIXED_QUIET_NS ? l->quiet_ns : FIXED_QUIET_NS));
	}
	if (now_ns >= l->quiet_until_ns)
		lease_note(l, now_ns, "quiet: not reached, new requests: %s; stops anyway",
			   count_text(l, lease_arrived(l), count));
	else if (l->hooks_state == LEASE_HOOKS_ACTED ||
		 (is_builtin && lease_is_quiet(l, now_ns, l->quiet_ns)))
		lease_note(l, now_ns, "quiet: after %.3g s, new requests: %s",
			   seconds(since(now_ns, l->state_ns)),
			   count_text(l, lease_arrived(l), count));
	else
		return;
	move(l, now_ns, LEASE_STOP, a);
}

static void step_stop(struct lease *l, uint64_t now_ns, struct lease_actions *a)
{
	bool is_running =
		l->hooks_state == LEASE_HOOKS_RUNNING || l->hooks_state == LEASE_HOOKS_WANTED;

	if (l->is_told && !is_running)
		move(l, now_ns, LEASE_WAIT, a);
	else if (now_ns >= l->wait_until_ns)
		move(l, now_ns, l->is_told ? LEASE_WAIT : LEASE_FORCE, a);
	else if (!is_running)
		a->signal = driver_find(l->driver)->stop;
}

static void step_wait(struct lease *l, uint64_t now_ns, struct lease_actions *a)
{
	bool is_builtin =
		l->hooks_state == LEASE_HOOKS_NONE || l->hooks_state == LEASE_HOOKS_FAILED;

	if (l->hooks_state == LEASE_HOOKS_ACTED || (is_builtin && lease_is_idle(l, now_ns, 0)) ||
	    (now_ns >= l->wait_until_ns && l->now.is_requests_known && !l->now.in_flight)) {
		lease_note(l, now_ns, "wait: done after %.3g s, the process is still there",
			   seconds(since(now_ns, l->state_ns)));
		move(l, now_ns, LEASE_END, a);
	} else if (now_ns >= l->wait_until_ns) {
		move(l, now_ns, LEASE_FORCE, a);
	}
}

static void step_force(struct lease *l, uint64_t now_ns, struct lease_actions *a)
{
	char count[24];

	if (!l->is_force_sent) {
		l->is_force_sent = l->is_forced = true;
		lease_note(l, now_ns, "force: still in flight: %s",
			   count_text(l, l->now.in_flight, count));
		a->signal = driver_find(l->driver)->force;
		a->is_changed = true;
	}
	if (now_ns >= l->deadline_ns)
		move(l, now_ns, LEASE_END, a);
}

static void step_end(struct lease *l, uint64_t now_ns, struct lease_actions *a)
{
	char start[24], arrived[24], lost[24];

	if (l->hooks_state == LEASE_HOOKS_WANTED ||
	    (l->hooks_state == LEASE_HOOKS_RUNNING && now_ns < l->hooks_until_ns))
		return;
	a->cancel_hooks |= l->hooks_state == LEASE_HOOKS_RUNNING;
	if (l->is_gone && l->now.is_requests_known && l->now.tick_ns <= l->gone_ns)
		lease_note(l, now_ns, "end: the last numbers are from before the gateway's end");
	lease_note(l, now_ns, "end: in flight at the start: %s, arrived: %s, lost: %s%s",
		   count_text(l, l->at_start.in_flight, start),
		   count_text(l, lease_arrived(l), arrived), count_text(l, lease_lost(l), lost),
		   l->is_undrained ? ", taken back"
		   : l->is_expired ? ", expired"
				   : "");
	l->is_over = true;
	l->over_ns = now_ns;
	a->is_over = a->is_changed = true;
}

static void step(struct lease *l, uint64_t now_ns, struct lease_actions *a)
{
	if (l->state >= LEASE_BEGIN && l->state <= LEASE_QUIET && !l->is_told) {
		if (now_ns >= l->deadline_ns && !l->is_undrained) {
			l->is_expired = true;
			lease_note(l, now_ns, "expired: the deadline passed unattended");
		}
		if (l->is_undrained || l->is_expired) {
			move(l, now_ns, LEASE_END, a);
			return;
		}
	}
	if (l->is_gone && l->state != LEASE_END) {
		move(l, now_ns, LEASE_END, a);
		return;
	}
	switch (l->state) {
	case LEASE_BEGIN:
		if (l->hooks_state > LEASE_HOOKS_RUNNING || now_ns >= l->begin_until_ns)
			move(l, now_ns, LEASE_QUIET, a);
		break;
	case LEASE_QUIET:
		step_quiet(l, now_ns, a);
		break;
	case LEASE_STOP:
		step_stop(l, now_ns, a);
		break;
	case LEASE_WAIT:
		step_wait(l, now_ns, a);
		break;
	case LEASE_FORCE:
		step_force(l, now_ns, a);
		break;
	case LEASE_END:
		step_end(l, now_ns, a);
		break;
	}
}

void lease_next(struct lease *l, uint64_t now_ns, struct lease_actions *a)
{
	memset(a, 0, sizeof(*a));
	if (l->state == LEASE_IDLE || l->is_over)
		return;
	for (unsigned int i = 0; i < LEASE_STATES; i++) {
		uint32_t before = l->state;

		step(l, now_ns, a);
		if (l->state == before || l->is_over)
			break;
	}
	if (l->is_over || l->hooks_state != LEASE_HOOKS_WANTED)
		return;
	if (l->state == LEASE_END) {
		if (is_settling(l, now_ns))
			return;
		l->hooks_until_ns = now_ns + END_HOOKS_NS;
	}
	a->run_point = lease_state_point(l->state);
	a->run_until_ns = l->hooks_until_ns;
	if (a->run_point) {
		l->hooks_state = LEASE_HOOKS_RUNNING;
		a->is_changed = true;
	}
}

uint64_t lease_arrived(const struct lease *l)
{
	return since(since(l->now.started, l->at_start.started),
		     since(l->now.health, l->at_start.health));
}

uint64_t lease_lost(const struct lease *l)
{
	uint64_t lost = since(l->now.lost, l->at_start.lost);

	/* What was still in flight when the process had ended was answered by nobody. */
	if (l->is_gone && l->now.is_requests_known && l->now.tick_ns > l->gone_ns)
		lost += l->now.in_flight;
	return lost;
}

enum exit_code lease_exit_code(const struct lease *l)
{
	if (l->is_forced)
		return EXIT_DEADLINE;
	return lease_lost(l) || l->is_failed ? EXIT_FAILED : EXIT_DONE;
}
