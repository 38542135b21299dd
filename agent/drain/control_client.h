/* SPDX-License-Identifier: Apache-2.0 */
/* Client side of the control socket: blocking, one request a connection. For the verbs. */
#pragma once

#include "base/err.h"

#include <jansson.h>

struct control_client;

/* -ENOENT, -ECONNREFUSED: no agent runs; e says which socket, why, and what to do. */
int control_client_open(const char *runtime_dir, struct control_client **ret, struct err *e);
struct control_client *control_client_close(struct control_client *c);

/* Takes the reference to request. */
int control_client_send(struct control_client *c, json_t *request, struct err *e);

/* Next line, a new reference; waits at most timeout_s. An error that the agent answers is told in e
 * and is -EREMOTEIO; -EPIPE when the agent went away, -ETIMEDOUT. */
int control_client_recv(struct control_client *c, double timeout_s, json_t **ret, struct err *e);

/* One request, one answer: open, send, recv. Takes the reference to request. */
int control_client_ask(const char *runtime_dir, json_t *request, double timeout_s, json_t **ret,
		       struct err *e);
