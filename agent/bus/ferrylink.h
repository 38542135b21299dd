/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The socket between an aggregator's core (listens) and its ferry (connects) at
 * <runtime_dir>/private/ferry.sock: SP's PAIR over ipc (bus/peer.h), without nanomsg. The ferry
 * pulls; the core alone knows the sums, and remembers what it told last:
 *
 *   core -> ferry  WELCOME  which life of the fleet's state this is
 *   ferry -> core  ASK      for the sums as the frame with that sequence
 *   core -> ferry  ANSWER   that frame, sealed; or nothing, because the log cannot be written now
 *
 * There is nothing to agree on: either side may die at any moment. Only who says that it kept the
 * answer given last is told what changed since; everybody else gets a key frame.
 */
#pragma once

#include "base/err.h"
#include "base/loop.h"
#include "bus/spool.h"

/* What the ferry counted since it began, for the core's /metrics; pending is a gauge. */
struct ferrylink_counts {
	uint64_t pending_bytes, built, sent, acknowledged, frame_bytes, frame_samples;
	uint64_t drops[SPOOL_DROPS]; /* by reason */
};

struct ferrylink_ask {
	uint64_t cookie; /* 1, 2, 3 … in the life of a ferry; the answer has it, too */
	uint64_t kept; /* cookie of the last answer that was spooled; 0: none on this connection */
	uint64_t sequence;
	uint32_t first_id; /* ids below were given in the spool's incarnation */
	uint32_t interval_ms;
	enum frame_type type;
	struct ferrylink_counts counts;
};

struct ferrylink_answer {
	uint64_t cookie, time_ms;
	uint32_t next_id; /* no id from here on was given */
	uint32_t samples;
	const uint8_t *data; /* borrowed for the call */
	size_t size;         /* 0: ask again later */
};

/* -------- core -------- */

struct ferrylink_server;

/* May call ferrylink_answer. */
typedef void (*ferrylink_ask_fn)(void *data, const struct ferrylink_ask *ask);

/* Listens at path (0660; its directory must shut others out). */
int ferrylink_server_open(struct loop *loop, const char *path, uint64_t life, ferrylink_ask_fn fn,
			  void *data, struct ferrylink_server **ret, struct err *e);
struct ferrylink_server *ferrylink_server_close(struct ferrylink_server *s);
/* The core itself need not know: it answers who asks. Tests wait for it. */
bool ferrylink_is_connected(const struct ferrylink_server *s);
/* -ENOTCONN, -ENOBUFS, -ENOMEM: the ferry asks again. */
int ferrylink_answer(struct ferrylink_server *s, const struct ferrylink_answer *answer);

/* -------- ferry -------- */

struct ferrylink;

/* None may close the link. */
struct ferrylink_events {
	void (*on_welcome)(void *data, uint64_t life);
	void (*on_answer)(void *data, const struct ferrylink_answer *answer);
	void (*on_lost)(void *data);
	void *data;
};

/* Connects, and again whenever it is lost. That nobody listens is no error. */
int ferrylink_open(struct loop *loop, const char *path, const struct ferrylink_events *events,
		   struct ferrylink **ret, struct err *e);
struct ferrylink *ferrylink_close(struct ferrylink *l);
/* -ENOTCONN, -ENOBUFS, -ENOMEM. */
int ferrylink_ask(struct ferrylink *l, const struct ferrylink_ask *ask);
