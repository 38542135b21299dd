/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the steward process: its state, shared by steward*.c only. steward.c is the process
 * (links, control socket, clock, termination), steward_leases.c what it does for its leases,
 * steward_profile.c profiles.
 */
#pragma once

#include "base/log.h"
#include "cmd/daemon.h"
#include "drain/control_server.h"
#include "drain/hookline.h"
#include "drain/lease_file.h"
#include "segment/reader.h"

#include <assert.h>
#include <limits.h>

#define TICK_ACTIVE_MS     50
#define TICK_IDLE_MS       1000
#define REPEAT_NS          (1 * NS_PER_S)
#define TERMINATE_HOOKS_NS (3 * NS_PER_S)
#define WAITERS_MAX        CONTROL_CONNECTIONS_MAX
#define OFF_REPEATS        3 /* how often the end of a drain is said to the keeper */

/* What the hook of a lease waits for. */
struct pending {
	uint64_t call; /* 0: nothing */
	enum script_op op;
	double number;
};

struct held {
	struct lease *l; /* NULL: free */
	uint64_t run;    /* of its hooks; 0: none */
	uint64_t connections_ns;
	int64_t connections;
	struct pending pending;
};

struct waiter {
	struct control_conn *conn; /* NULL: free */
	uint64_t slots;            /* bit mask of held[] */
	enum exit_code code;
};

/* Told off: repeated a few times, for the keeper may be restarting. */
struct released {
	char instance[LEASE_NAME_BYTES];
	unsigned int repeats;
};

/* What a gateway was asked for last. */
struct profile {
	char instance[LEASE_NAME_BYTES];
	uint64_t id, until_ns;
};

enum terminate_state { TERMINATE_NO, TERMINATE_DRAIN, TERMINATE_HOOKS, TERMINATE_DONE };

struct steward {
	struct daemon_context *ctx;
	struct loop *loop;
	struct loop_watch *timer, *supervisor_watch, *terminate_watch;
	struct segment_reader *reader;
	struct control_server *control;
	struct hookline *hooks;
	struct held held[LEASE_FILE_MOST];
	struct waiter waiters[WAITERS_MAX];
	struct released released[LEASE_FILE_MOST];
	struct profile profiles[SEGMENT_GATEWAYS];
	char lease_path[PATH_MAX], segment_path[PATH_MAX];
	uint64_t repeated_ns, tick_ms;
	enum terminate_state terminate;
	char terminate_reason[16];
	enum exit_code terminate_code;
	uint64_t terminate_run, terminate_until_ns;
	bool is_terminate_drain;
	struct log_limit save_limit;
	char packet[DAEMON_LINK_BYTES];
};

static_assert(LEASE_FILE_MOST <= 64, "waiter.slots is a 64-bit mask");

/* -------- steward.c -------- */

void steward_tell_draining(struct steward *s, const char *instance, bool is_on);
void steward_tell_profile(struct steward *s, const struct profile *p);
void steward_tell_event(struct steward *s, const char *kind, const struct lease *l);
/* State is repeated while it matters; its end a few times. */
void steward_repeat_state(struct steward *s);
/* The hooks of `terminate` are through: the supervisor may go on. */
void steward_end_terminate(struct steward *s);
/* Answers whoever waits for the lease in a slot. */
void steward_answer_waiters(struct steward *s, unsigned int slot);

/* Names what there is, so that a slip can be seen. */
void steward_reply_unknown(struct steward *s, struct control_conn *conn, const char *name);

/* -------- steward_profile.c -------- */

/* Asks the processes of a gateway for a profile, by the keeper, and answers. */
void steward_profile(struct steward *s, struct control_conn *conn, const struct control_request *q);
/* Said again while it lasts: the keeper may have been away. */
void steward_repeat_profiles(struct steward *s);

/* -------- steward_leases.c -------- */

unsigned int steward_count_held(const struct steward *s);
void steward_save(struct steward *s);
void steward_restore(struct steward *s);

/* Looks at the segment again; on failure the last copy stays. */
void steward_refresh(struct steward *s);
unsigned int steward_count_gateways(const struct steward *s);
bool steward_is_live(const struct segment_gateway *g);

/* Begins leases on all live gateways of a name ("": all), or joins those that are there; gives the
 * mask of their slots. -ENOSPC, -ENOMEM. */
int steward_begin(struct steward *s, const char *name, uint64_t deadline_ns, const char *reason,
		  uint64_t *ret_slots);
/* One step of one lease. */
void steward_advance(struct steward *s, struct held *h, uint64_t now_ns);
bool steward_is_meant(const char *name, const char *gateway, const char *instance);

/* Callbacks of the hook line. */
void steward_on_call(void *data, uint64_t run, uint64_t call, enum script_op op, double number,
		     const char *text);
void steward_on_hook_ran(void *data, uint64_t run, const char *name, bool is_ok, uint32_t ms,
			 const char *error);
void steward_on_done(void *data, uint64_t run, unsigned int ran, unsigned int failed,
		     bool has_acted);
