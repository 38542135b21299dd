/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An SP publisher without nanomsg (whose PUB any subscriber can kill): listens, and sends each
 * message to every subscriber. A slow one loses its oldest whole messages, which sequence numbers
 * show it; one that sends anything is cut off.
 */
#pragma once

#include "base/err.h"
#include "base/loop.h"
#include "bus/credentials.h"
#include "bus/turnstile.h"

#include <stddef.h>
#include <stdint.h>

struct fanout;

/* 0 means the default. */
struct fanout_limits {
	unsigned int subscribers; /* 256 */
	size_t queue_bytes;       /* per subscriber, 4 MiB */
	size_t total_bytes;       /* of all queues, counting a shared message once: 64 MiB */
	/* Of a tls+tcp:// address; borrowed. names: bus/passport.h, who may subscribe; none: all. */
	struct credentials *tls;
	const char *const *names;
	size_t name_count;
	struct turnstile *turnstile; /* borrowed, may be NULL */
};

struct fanout_stats {
	unsigned int subscribers;
	uint64_t accepted, refused; /* refused: too many */
	uint64_t hostile;           /* cut off: bad handshake, or it spoke */
	uint64_t published, sent, dropped;
	size_t queued_bytes;
};

/* tcp:// on loopback, tls+tcp:// on any address (with limits->tls), or ipc://; see base/listen.h for the
 * errors. */
int fanout_open(struct loop *loop, const char *address, const struct fanout_limits *limits,
		struct fanout **ret, struct err *e);
struct fanout *fanout_close(struct fanout *f);

/* Copies the message (topic, NUL, BusMessage) once for all subscribers. -EMSGSIZE, -ENOMEM. */
int fanout_publish(struct fanout *f, const void *message, size_t size);
/* What was published goes out before the loop waits, together; this sends it now. */
void fanout_flush(struct fanout *f);
/* Over TLS: some of the subscribers, in turn, whether they may still be there. About once a second. */
void fanout_recheck(struct fanout *f, int64_t now_s);
void fanout_stats(const struct fanout *f, struct fanout_stats *ret);
/* Connected now, also those whose handshake is not done. */
unsigned int fanout_subscribers(const struct fanout *f);
unsigned int fanout_port(const struct fanout *f);
