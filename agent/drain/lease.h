/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The lease: the right to keep one gateway instance out of service until one deadline. Pure: no
 * I/O and no clock; the steward feeds it numbers, hook results and the time (CLOCK_MONOTONIC), and
 * carries out what it asks for.
 *
 *   idle -> begin -> quiet -> stop -> wait -> end     (-> force -> end when time runs out)
 *
 * Reversible up to stop: undrain, or a deadline that passed while nobody ran, gives the gateway
 * back. A struct lease holds no pointer, so that it can be kept in a file.
 */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define LEASE_NAME_BYTES 64
#define LEASE_STEPS_MAX  24
#define LEASE_HOOKS_MAX  24

enum lease_state {
	LEASE_IDLE,
	LEASE_BEGIN,
	LEASE_QUIET,
	LEASE_STOP,
	LEASE_WAIT,
	LEASE_FORCE,
	LEASE_END,
	LEASE_STATES
};

/* What the hooks of the present state did. */
enum lease_hooks {
	LEASE_HOOKS_WANTED, /* not asked for yet */
	LEASE_HOOKS_RUNNING,
	LEASE_HOOKS_ACTED,  /* all went well: nothing left to do */
	LEASE_HOOKS_NONE,   /* there are none: the built-in way */
	LEASE_HOOKS_FAILED, /* at least one failed: the built-in way */
};

struct lease_numbers {
	bool is_gone; /* the master's process has ended */
	bool is_requests_known;
	uint64_t tick_ns; /* the numbers are as of then */
	uint64_t started, health, completed, aborted, lost;
	uint64_t in_flight, connections_open;
	uint64_t last_request_ns;
	int64_t proc_connections; /* by /proc; -1: not readable */
};

struct lease_step {
	uint32_t at_ms; /* since the begin */
	char text[148];
};

struct lease_hook {
	char name[48];
	char point[16];
	char error[128]; /* "" when all went well */
	uint32_t ms;
	uint32_t is_ok;
};

struct lease {
	char gateway[LEASE_NAME_BYTES], instance[LEASE_NAME_BYTES];
	char driver[16], reason[16];
	uint32_t pid;
	uint64_t pid_start;
	uint32_t state, hooks_state;
	bool is_told; /* a stop signal was sent, or hooks told it: no way back */
	bool is_forced, is_undrained, is_expired, is_failed, is_gone, is_over;
	bool is_force_sent, is_fixed_said, is_start_fresh;
	uint64_t begin_ns, deadline_ns, quiet_ns;
	uint64_t begin_until_ns, quiet_until_ns, wait_until_ns; /* derived: lease_split() */
	uint64_t state_ns;                                      /* when the state began */
	uint64_t gone_ns, idle_since_ns, over_ns;
	uint64_t hooks_until_ns;
	struct lease_numbers at_start, now;
	uint32_t step_count, steps_dropped, hook_count, hooks_dropped;
	struct lease_step steps[LEASE_STEPS_MAX];
	struct lease_hook hooks[LEASE_HOOKS_MAX];
};

/* What the steward has to do after lease_next(). */
struct lease_actions {
	const char *run_point; /* NULL: none; start the hooks of this point … */
	uint64_t run_until_ns; /* … which have until then */
	bool cancel_hooks;     /* the running ones are out of time, or not wanted any more */
	int signal;            /* 0: none; send it, then tell lease_signalled() */
	bool is_changed;       /* keep the lease in its file before anything else is done */
	bool is_over;          /* report it and forget it */
};

struct lease_request {
	const char *gateway, *instance, *driver, *reason;
	uint32_t pid;
	uint64_t pid_start;
	uint64_t deadline_ns, quiet_ns; /* durations */
};

void lease_begin(struct lease *l, uint64_t now_ns, const struct lease_request *request,
		 const struct lease_numbers *numbers);
void lease_observe(struct lease *l, uint64_t now_ns, const struct lease_numbers *numbers);
void lease_next(struct lease *l, uint64_t now_ns, struct lease_actions *ret);

/* -EALREADY once the gateway was told to stop (or nothing is held). */
int lease_undrain(struct lease *l, uint64_t now_ns);

/* Result of one hook; then of the whole point. Results of a point that is not the present one are
 * ignored. has_acted: a hook did something to the gateway that the steward cannot see (exec). */
void lease_hook_ran(struct lease *l, const char *point, const char *name, bool is_ok, uint32_t ms,
		    const char *error);
void lease_hooks_done(struct lease *l, uint64_t now_ns, const char *point, unsigned int ran,
		      unsigned int failed, bool has_acted);

/* A signal was sent, by a hook or as an action; r is 0 or the negative errno of the try. */
void lease_signalled(struct lease *l, uint64_t now_ns, int signal, int r);

/* After a restart of the steward: what ran then runs no more; the drain goes on where it stood. */
void lease_restored(struct lease *l, uint64_t now_ns);

/* No request (health checks apart) for quiet_ns, by numbers that are as fresh. */
bool lease_is_quiet(const struct lease *l, uint64_t now_ns, uint64_t quiet_ns);
/* Gone, or at most so many requests in flight for half a second. */
bool lease_is_idle(const struct lease *l, uint64_t now_ns, uint64_t most);

/* True while traffic is to be kept away. */
bool lease_is_held(const struct lease *l);

void lease_note(struct lease *l, uint64_t now_ns, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

const char *lease_state_name(uint32_t state);
/* "drain.quiet", or NULL when the state has no hook point. */
const char *lease_state_point(uint32_t state);

uint64_t lease_arrived(const struct lease *l);
uint64_t lease_lost(const struct lease *l);
/* 0 nothing lost, 1 lost without force, 3 forced by the deadline. */
enum exit_code lease_exit_code(const struct lease *l);
