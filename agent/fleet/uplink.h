/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From an agent's request to its reply: decodes, applies, writes down. The reply may be sent only
 * after the commit of what was appended here.
 */
#pragma once

#include "base/arena.h"
#include "fleet/commitlog.h"
#include "fleet/ingest.h"

/* Record types of the commit log besides those of snapshots. */
enum uplink_record { UPLINK_RECORD_HELLO = 1, UPLINK_RECORD_FRAME = 2 };

#define UPLINK_FRAMES_MAX 4096

struct uplink_stats {
	uint64_t requests, malformed, refused;
	uint64_t frames_damaged;    /* neither whole nor decodable */
	uint64_t frames_unreadable; /* packed with a dictionary that is not here */
	uint64_t foreign;           /* of an agent for which who asked may not speak */
	uint64_t hellos;            /* of another version, without incarnation, or our own */
};

/* A frame that was applied; it is published after the commit. takes_frame: fn owns it. */
typedef void (*uplink_applied_fn)(void *data, uint32_t session, struct frame *takes_frame);
/* The same before that, with the bytes that it came in; all borrowed. */
typedef void (*uplink_sealed_fn)(void *data, uint32_t session, const struct frame *frame,
				 const uint8_t *sealed, size_t size);
typedef void (*uplink_hello_fn)(void *data, const char *agent, uint64_t now_ms);
/* Whether who sent the request at hand may speak for this agent, which sends sums or not. Asked about the agent of the hello
 * and about that of the session, in every request: a session is a number that can be guessed. */
typedef bool (*uplink_may_speak_fn)(void *data, const char *agent, bool is_sum);

enum uplink_refusal { UPLINK_REFUSED_REQUEST, UPLINK_REFUSED_HELLO, UPLINK_REFUSED_FRAME };
#define UPLINK_REFUSALS 3
/* What was refused for what it is; agent "" where unknown, not checked. Not for want of room or memory,
 * nor for may_speak, which knows itself. Both borrowed. */
typedef void (*uplink_refused_fn)(void *data, enum uplink_refusal what, const char *agent,
				  const char *why);

struct uplink {
	struct fleet *fleet;
	struct commitlog *log;
	const char *own_name; /* as an agent of upper aggregators; NULL: it is none */
	uplink_sealed_fn on_sealed;
	uplink_applied_fn on_applied;
	uplink_hello_fn on_hello;
	uplink_refused_fn on_refused;
	uplink_may_speak_fn may_speak; /* NULL: everybody may */
	void *data;
	struct uplink_stats stats;
	struct arena arena; /* of one request */
	int no_room;        /* the last request was refused for want of disk space: why; else 0 */
};

#define UPLINK_REQUEST_MAX (1u << 20)

/* The caller sets the other fields. -ENOMEM. */
int uplink_init(struct uplink *u);
void uplink_fini(struct uplink *u);

/* *ret_reply: malloc()ed UplinkReply, the caller's; there is one for malformed requests, too.
 * -ENOMEM: no reply, nothing was applied. -EIO: applied but not written down, so that memory and
 * log disagree: the process must end and read its log again. */
int uplink_handle(struct uplink *u, const uint8_t *payload, size_t size, uint64_t now_ms,
		  uint8_t **ret_reply, size_t *ret_size);

/* One record of the commit log, snapshots included; data of commitlog_open() is the uplink. */
int uplink_replay(void *data, uint32_t type, const uint8_t *payload, size_t size);
