/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The connecting side of the bus: one connection to one address that is made again whenever it is
 * gone. A name is resolved anew each time and its addresses are tried in turn; waits grow and have
 * jitter; tls+tcp:// means TLS with our certificate, and the server's must name the host that the
 * address names. Without nanomsg: what a server sends is parsed whole and bounded. Never blocks.
 */
#pragma once

#include "base/err.h"
#include "base/loop.h"
#include "bus/peer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dialer;

struct dialer_spec {
	const char *address;   /* copied */
	uint16_t self, expect; /* enum sp_protocol */
	size_t message_max;    /* of what comes */
	size_t queue_bytes;    /* of what goes: room is while less than half of it waits */
	uint64_t backoff_ns;   /* longest wait between two tries */
	/* Of tls+tcp://. Borrowed, and so is where it points to: NULL there means that the files could
	 * not be read yet. */
	struct credentials *const *tls;
	/* Inside of them the dialer must not be closed nor told to dial again. */
	void (*on_ready)(void *data);
	int (*on_message)(void *data, const uint8_t *message, size_t size); /* negative: cut it */
	void (*on_room)(void *data);                                        /* again; may be NULL */
	/* A connection is gone, or could not be made; why is borrowed. Another try follows. */
	void (*on_lost)(void *data, const char *why);
};

struct dialer_stats {
	uint64_t connects, failures; /* made; tries of one address that came to nothing */
	uint64_t resumed;            /* of the connects: TLS sessions that went on with a ticket */
};

/* -EINVAL: no address; -EPERM: it is beyond this host and has no TLS (e says so); -ENOMEM. The
 * first try follows at once. */
int dialer_open(struct loop *loop, const struct dialer_spec *spec, void *data, struct dialer **ret,
		struct err *e);
struct dialer *dialer_close(struct dialer *d);

bool dialer_is_ready(const struct dialer *d);
bool dialer_has_room(const struct dialer *d); /* ready, and a message of half the queue fits */
/* One message of two parts, the second may be empty; its number, from 1, on this connection.
 * -ENOTCONN, -ENOBUFS, -ENOMEM. */
int dialer_send(struct dialer *d, const void *a, size_t a_size, const void *b, size_t b_size,
		uint64_t *ret_number);

/* The number of the last message that is wholly with the kernel. */
uint64_t dialer_sent(const struct dialer *d);
/* Changes whenever bytes went to the kernel, which takes little ahead of what it can send. */
uint64_t dialer_progress(const struct dialer *d);

/* What the other side does has proved that it works: the next wait is a short one. */
void dialer_prove(struct dialer *d);
/* Cuts the connection, silently, and makes another after a wait. */
void dialer_again(struct dialer *d);

void dialer_stats(const struct dialer *d, struct dialer_stats *ret);
