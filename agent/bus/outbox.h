/* SPDX-License-Identifier: Apache-2.0 */
/* Queue of whole messages on their way to one socket. A message may wait in many queues at once. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/* A message with its SP header of 9 bytes; TCP skips the first. Counted references. */
struct parcel {
	unsigned int refs;
	size_t *account; /* bytes of all parcels of one owner, or NULL */
	size_t size;     /* of the message */
	uint8_t bytes[]; /* header and message */
};

/* One reference, the caller's. NULL: no memory. account is borrowed until the last release. */
struct parcel *parcel_new(const void *a, size_t a_size, const void *b, size_t b_size,
			  size_t *account);
struct parcel *parcel_ref(struct parcel *p);
void parcel_unref(struct parcel *p);

struct outbox {
	struct parcel **ring;
	unsigned int count, cap, head;
	size_t bytes;      /* of the messages queued */
	size_t sent;       /* bytes of the first that are gone already */
	size_t limit;      /* of bytes */
	unsigned int most; /* of messages */
	uint64_t done, dropped;
};

void outbox_init(struct outbox *o, size_t limit, unsigned int most);
void outbox_fini(struct outbox *o);

/* Takes a reference of its own. -ENOBUFS (full), -ENOMEM. */
int outbox_push(struct outbox *o, struct parcel *p);
/* As push, but makes room by dropping the oldest that was not begun. */
int outbox_push_over(struct outbox *o, struct parcel *p);
/* Drops the oldest that was not begun; false when there is none. */
bool outbox_drop(struct outbox *o);
/* The connection is another: the first message starts anew. */
void outbox_rewind(struct outbox *o);
/* As sendmsg(), but a negative errno. What it took need not be repeated. */
typedef ssize_t (*outbox_write_fn)(void *data, const struct iovec *iov, size_t n);
/* Sends until empty (0) or the socket is full (-EAGAIN), or another negative errno of fn. */
int outbox_flush(struct outbox *o, outbox_write_fn fn, void *data, bool is_ipc);

/* For a carrier that is no socket: the oldest (NULL: none) and its end. */
struct parcel *outbox_first(const struct outbox *o);
void outbox_pop(struct outbox *o);
static inline const uint8_t *parcel_message(const struct parcel *p)
{
	return p->bytes + 9;
}
