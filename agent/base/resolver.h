/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Addresses of a name, without blocking the loop. The system's resolver cannot be interrupted, so
 * each question is a thread of its own, which nobody waits for: a process may end in its middle.
 */
#pragma once

#include "base/loop.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define RESOLVER_ADDRESSES_MAX 16

struct resolver_address {
	struct sockaddr_storage addr;
	socklen_t len;
};

struct resolver;

/* Once, from the loop; the question is gone when it returns. n 0: why says it. All borrowed. */
typedef void (*resolver_fn)(void *data, const struct resolver_address *addresses, size_t n,
			    const char *why);

/* -ENOMEM, or what prevents a thread. */
int resolver_ask(struct loop *loop, const char *host, uint16_t port, resolver_fn fn, void *data,
		 struct resolver **ret);
/* Without an answer. NULL is fine; returns NULL. */
struct resolver *resolver_forget(struct resolver *r);
