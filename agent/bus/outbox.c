/* SPDX-License-Identifier: Apache-2.0 */
/* Bounded queue of shared messages and the vectored send of it. */
#include "bus/outbox.h"

#include "base/err.h"
#include "bus/sp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#define FLUSH_IOV   128
#define FLUSH_BYTES (256u << 10) /* per call, so that one socket cannot hold up the others */

struct parcel *parcel_new(const void *a, size_t a_size, const void *b, size_t b_size,
			  size_t *account)
{
	struct parcel *p = malloc(sizeof(*p) + SP_HEADER_MAX + a_size + b_size);

	if (!p)
		return NULL;
	p->refs = 1;
	p->account = account;
	p->size = a_size + b_size;
	sp_header_put(p->bytes, true, p->size);
	if (a_size)
		memcpy(p->bytes + SP_HEADER_MAX, a, a_size);
	if (b_size)
		memcpy(p->bytes + SP_HEADER_MAX + a_size, b, b_size);
	if (account)
		*account += p->size;
	return p;
}

struct parcel *parcel_ref(struct parcel *p)
{
	p->refs++;
	return p;
}

void parcel_unref(struct parcel *p)
{
	if (!p)
		return;
	CHECK(p->refs);
	if (--p->refs)
		return;
	if (p->account)
		*p->account -= p->size;
	free(p);
}

void outbox_init(struct outbox *o, size_t limit, unsigned int most)
{
	*o = (struct outbox){.limit = limit, .most = most};
}

void outbox_fini(struct outbox *o)
{
	for (unsigned int i = 0; i < o->count; i++)
		parcel_unref(o->ring[(o->head + i) & (o->cap - 1)]);
	free(o->ring);
	*o = (struct outbox){.limit = o->limit, .most = o->most};
}

static int ring_grow(struct outbox *o)
{
	unsigned int cap = o->cap ? o->cap * 2 : 4;
	struct parcel **ring;

	ring = calloc(cap, sizeof(void *));
	if (!ring)
		return -ENOMEM;
	for (unsigned int i = 0; i < o->count; i++)
		ring[i] = o->ring[(o->head + i) & (o->cap - 1)];
	free(o->ring);
	o->ring = ring;
	o->cap = cap;
	o->head = 0;
	return 0;
}

int outbox_push(struct outbox *o, struct parcel *p)
{
	int r;

	/* An empty queue takes any message, so that no limit can be too small for one. */
	if (o->count && (o->count >= o->most || o->bytes + p->size > o->limit))
		return -ENOBUFS;
	if (o->count == o->cap) {
		r = ring_grow(o);
		if (r < 0)
			return r;
	}
	o->ring[(o->head + o->count) & (o->cap - 1)] = parcel_ref(p);
	o->count++;
	o->bytes += p->size;
	return 0;
}

bool outbox_drop(struct outbox *o)
{
	/* What was begun must be ended, or the peer would read half a message. */
	unsigned int at = o->sent ? 1 : 0;
	struct parcel *p;

	if (o->count <= at)
		return false;
	p = o->ring[(o->head + at) & (o->cap - 1)];
	if (at)
		o->ring[(o->head + 1) & (o->cap - 1)] = o->ring[o->head];
	o->head = (o->head + 1) & (o->cap - 1);
	o->count--;
	o->bytes -= p->size;
	o->dropped++;
	parcel_unref(p);
	return true;
}

int outbox_push_over(struct outbox *o, struct parcel *p)
{
	int r;

	while ((r = outbox_push(o, p)) == -ENOBUFS)
		if (!outbox_drop(o)) {
			o->dropped++;
			return r;
		}
	return r;
}

void outbox_rewind(struct outbox *o)
{
	o->sent = 0;
}

static void outbox_advance(struct outbox *o, size_t n, size_t skip)
{
	while (n) {
		struct parcel *p = o->ring[o->head];
		size_t rest = SP_HEADER_MAX - skip + p->size - o->sent;

		if (n < rest) {
			o->sent += n;
			return;
		}
		n -= rest;
		outbox_pop(o);
	}
}

int outbox_flush(struct outbox *o, outbox_write_fn fn, void *data, bool is_ipc)
{
	const size_t skip = is_ipc ? 0 : 1;
	size_t total = 0;

	while (o->count) {
		struct iovec iov[FLUSH_IOV];
		unsigned int used = 0;
		ssize_t n;

		for (; used < FLUSH_IOV && used < o->count; used++) {
			struct parcel *p = o->ring[(o->head + used) & (o->cap - 1)];
			size_t from = skip + (used ? 0 : o->sent);

			iov[used].iov_base = p->bytes + from;
			iov[used].iov_len = SP_HEADER_MAX + p->size - from;
		}
		n = fn(data, iov, used);
		if (n == -EINTR)
			continue;
		if (n < 0)
			return (int)n;
		outbox_advance(o, (size_t)n, skip);
		total += (size_t)n;
		if (total >= FLUSH_BYTES && o->count)
			return -EAGAIN;
	}
	return 0;
}

struct parcel *outbox_first(const struct outbox *o)
{
	return o->count ? o->ring[o->head] : NULL;
}

void outbox_pop(struct outbox *o)
{
	struct parcel *p = outbox_first(o);

	CHECK(p);
	o->sent = 0;
	o->head = (o->head + 1) & (o->cap - 1);
	o->count--;
	o->bytes -= p->size;
	o->done++;
	parcel_unref(p);
}
