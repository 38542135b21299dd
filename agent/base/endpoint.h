/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where a client connects: "tcp://host:port", "host:port", "tls+tcp://host:port" or "ipc:///path".
 * Unlike a listener's, host may be a name.
 */
#pragma once

#include "base/err.h"
#include "base/listen.h"

#include <stdbool.h>
#include <stdint.h>

#define ENDPOINT_HOST_MAX 253

struct endpoint {
	char host[ENDPOINT_HOST_MAX + 1]; /* as it was written, without brackets; "" for ipc */
	uint16_t port;
	bool is_ipc, is_tls;
	bool is_name;                  /* address is unknown: the host must be resolved */
	struct listen_address address; /* else */
};

/* Pure. -EINVAL. */
int endpoint_parse(const char *address, struct endpoint *ret, struct err *e);

/* -EPERM: bytes would leave this host without TLS. A name may be anywhere; "localhost" is here. */
int endpoint_check_privacy(const struct endpoint *ep, const char *address, struct err *e);

/* Starts to connect: non-blocking, close-on-exec. 0 connected, -EINPROGRESS not yet (poll for
 * writing, then SO_ERROR); in both *ret_fd is the caller's. */
int endpoint_connect(const struct sockaddr *addr, socklen_t len, int *ret_fd);
