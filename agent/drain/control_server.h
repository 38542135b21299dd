/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket: accepting, peers' credentials, lines in and out. The steward's only; what a
 * request means is decided by its owner.
 */
#pragma once

#include "base/loop.h"
#include "drain/control.h"

#include <jansson.h>
#include <sys/types.h>

#define CONTROL_CONNECTIONS_MAX 64
#define CONTROL_OUT_MAX         (1u << 20)
#define CONTROL_IDLE_S          30 /* for a peer that waits for nothing */

struct control_server;
struct control_conn;

struct control_options {
	struct loop *loop;
	const char *path;
	gid_t group_app, group_admin;
	bool is_sidecar; /* any peer may begin a drain and ask for the state */
	/* A request of a peer that may make it. conn is borrowed until closed() names it. */
	void (*request)(void *data, struct control_conn *conn, const struct control_request *q);
	void (*closed)(void *data, struct control_conn *conn);
	void *data;
};

int control_server_open(const struct control_options *options, struct control_server **ret,
			struct err *e);
struct control_server *control_server_close(struct control_server *s);

/* Takes the reference to message. A peer that does not read is cut off at CONTROL_OUT_MAX. */
void control_reply(struct control_conn *conn, json_t *message);
void control_reply_error(struct control_conn *conn, const char *text);

/* While set, the connection has no idle limit. */
void control_set_waiting(struct control_conn *conn, bool is_waiting);

/* Connections and lines that were refused since the start. */
uint64_t control_refused(const struct control_server *s);
