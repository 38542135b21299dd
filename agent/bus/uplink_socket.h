/* SPDX-License-Identifier: Apache-2.0 */
/* A raw nanomsg REQ socket in a loop: own request ids, so that many are in flight. Internal to
 * uplink*.c. */
#pragma once

#include "base/err.h"
#include "base/loop.h"

#include <stddef.h>
#include <stdint.h>

struct uplink_socket {
	int socket; /* -1: closed */
	struct loop_watch *read_watch, *write_watch;
};

/* on_writable is called only after uplink_socket_want_write(). The library reconnects by itself,
 * after least_ms, then twice that, up to most_ms. */
int uplink_socket_open(struct uplink_socket *s, struct loop *loop, const char *address,
		       int least_ms, int most_ms, loop_fd_fn on_readable, loop_fd_fn on_writable,
		       void *data, struct err *e);
void uplink_socket_close(struct uplink_socket *s);
void uplink_socket_want_write(struct uplink_socket *s, bool is_wanted);

/* 0, -EAGAIN when nobody is connected or its buffer is full, or another negative errno. */
int uplink_socket_send(struct uplink_socket *s, uint32_t id, uint8_t *data, size_t size);

/* Bytes, or -EAGAIN and others. *ret_message goes to uplink_socket_free; *ret_id 0: no valid one. */
int uplink_socket_receive(struct uplink_socket *s, void **ret_message, uint32_t *ret_id);
void uplink_socket_free(void *message);
