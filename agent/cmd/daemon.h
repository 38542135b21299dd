/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the supervisor gives to each process that it forks, and the links between processes.
 *
 * A link is a SOCK_SEQPACKET pair that the supervisor keeps open on both sides, so that it (and
 * what is queued in it) survives the death of either process. Each packet is one JSON object of at
 * most DAEMON_LINK_BYTES; senders never block (a full link drops, logs and counts); state messages
 * are idempotent and repeated by their sender every second while they matter.
 *
 *   steward -> keeper     {"type":"draining","instance":"host/1","on":true}
 *                         {"type":"interval","ms":50}           (0: back to agent.tick)
 *                         {"type":"profile","instance":"host/1","id":n,"until_mono_ns":n}
 *   steward -> courier    {"type":"event","kind":"drain.end","gateway":"nginx","time_ms":1,
 *                          "json":{…}}
 *   keeper  -> courier    {"type":"event","kind":"slow_request","gateway":"nginx","time_ms":1,
 *                          "json":{…}}
 *                         {"type":"tick"}: host.seg holds a new one
 *   supervisor -> steward {"type":"terminate","reason":"shutdown|pod|stop|restart","drain":true}
 *   steward -> supervisor {"type":"terminated","code":0}
 *   steward <-> script    drain/script.h
 *
 * Every process watches its supervisor pipe: end of file means that the supervisor is gone or
 * wants it to end; it finishes what it must (courier: flushes the spool) and returns.
 */
#pragma once

#include "base/loop.h"
#include "config/config.h"

#include <sys/types.h>

#define DAEMON_LINK_BYTES 65536

enum daemon_link {
	LINK_SUPERVISOR_STEWARD, /* the steward's end in steward_run, the supervisor keeps the other */
	LINK_STEWARD_KEEPER,
	LINK_STEWARD_COURIER,
	LINK_KEEPER_COURIER,
	LINK_STEWARD_SCRIPT,
	LINK_COUNT
};

struct door_page;

struct daemon_context {
	const struct config *config;
	const char *name;                   /* of this process */
	int supervisor_fd;                  /* readable (end of file) when it is time to end */
	int links[LINK_COUNT];              /* this process's end, or -1 */
	unsigned int restarts;              /* how often this process was started before */
	const struct daemon_counts *counts; /* shared, written by the supervisor */
	struct door_page *door; /* shared, written by the door; of the aggregator, else NULL */
	const uint8_t *ticket_secret; /* the door's alone: CREDENTIALS_SECRET bytes, else NULL */
	bool is_sidecar;
	gid_t group_app, group_admin;
};

/* In shared anonymous memory. */
struct daemon_counts {
	struct {
		char name[16];
		uint64_t restarts;
	} process[8];
};

/* Entries: each runs in its own process and returns its exit code. */
int keeper_run(struct daemon_context *ctx);
int courier_run(struct daemon_context *ctx);
int steward_run(struct daemon_context *ctx);
int script_run(struct daemon_context *ctx);
int door_run(struct daemon_context *ctx);
int gate_run(struct daemon_context *ctx);
int core_run(struct daemon_context *ctx);
int ferry_run(struct daemon_context *ctx);

/* One packet. Returns bytes, -EAGAIN when there is none (or no room), -EMSGSIZE. */
int daemon_link_send(int fd, const char *json, size_t size);
int daemon_link_recv(int fd, char *buf, size_t size);
