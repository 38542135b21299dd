/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses of sockets: "tcp://host:port", "host:port", "ipc://path" and "tls+tcp://host:port".
 * Loopback only, or a socket of mode 0660 in a directory where others cannot write: without TLS
 * nothing else may be listened on.
 */
#pragma once

#include "base/err.h"

#include <sys/socket.h>
#include <sys/un.h>

struct listen_address {
	struct sockaddr_storage addr;
	socklen_t len;
	bool is_ipc, is_tls;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)]; /* "" for TCP */
};

/* Pure but for "localhost", which reads as 127.0.0.1. -EINVAL. */
int listen_parse(const char *address, struct listen_address *ret, struct err *e);
bool listen_is_loopback(const struct listen_address *a);

/* A listening, non-blocking, close-on-exec stream socket. The caller owns *ret_fd. -EPERM: the
 * address may be reached by others; -EADDRINUSE: e names the holder. A stale ipc path (nobody
 * accepts on it) is replaced; a live one is not. */
int listen_open(const char *address, int backlog, int *ret_fd, struct err *e);
/* For a caller that speaks TLS where the address says so: tls+tcp:// may be any address, and
 * listen_open() refuses it (-EINVAL). */
int listen_open_secured(const char *address, int backlog, int *ret_fd, struct err *e);

/* Port that the socket got, 0 when it is no TCP socket. */
unsigned int listen_port(int fd);

/* Starts to connect: non-blocking; 0 connected, -EINPROGRESS not yet (poll for writing, then
 * SO_ERROR); in both *ret_fd is the caller's. Any address may be connected to. */
int listen_connect(const char *address, int *ret_fd, struct err *e);

/* "pid 1234 (nginx)" of the process that listens on this TCP port, or "a process of uid 33" where
 * /proc shows no more; false when there is none. */
bool listen_holder(const struct listen_address *a, char *buf, size_t size);
