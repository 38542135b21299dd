/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Accept queues of every TCP listener of this network namespace, through netlink sock_diag. Owns the
 * socket and one row a listener, so that drops are counted from a listener's birth. Keeper.
 */
#pragma once

#include "base/err.h"

#include <linux/netlink.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QUEUES_MAX 4096

/* What the kernel says of one listener. */
struct queue_state {
	uint64_t cookie; /* names the socket until the next boot */
	uint32_t inode;
	uint16_t port;
	uint32_t length, limit;
	uint32_t drops; /* wraps; only with has_drops */
	bool has_drops;
};

struct queue {
	struct queue_state state;
	uint64_t pending; /* drops that nobody has taken yet */
	bool is_seen;     /* in this reading */
};

struct queues;

int queues_open(struct queues **ret, struct err *e);
struct queues *queues_close(struct queues *q);

/* Reads all listeners. Listeners of the first reading have dropped 0 so far, later ones what they
 * have dropped since they were made. On failure the rows are those of before. */
int queues_read(struct queues *q);
/* Rows of the last reading, borrowed; pending may be taken by setting it to 0. */
struct queue *queues_rows(struct queues *q, size_t *ret_count);
/* Listeners beyond QUEUES_MAX in the last reading. */
size_t queues_refused(const struct queues *q);

/* Pure: one message of the answer. -EBADMSG: too short for what it says. */
int queue_parse(const struct nlmsghdr *h, size_t len, struct queue_state *ret);
/* Pure: one reading, given row by row, then its end. */
void queues_begin(struct queues *q);
void queues_add(struct queues *q, const struct queue_state *state);
void queues_end(struct queues *q);
