/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * A request's life in the cells: started, completed, or ended otherwise. Runs in the watched thread
 * that reads or writes the connection.
 */
#pragma once

#include "rows.bpf.h"
#include "slow.bpf.h"
#include "upstream.bpf.h"

#define barrier() asm volatile("" ::: "memory")

static __always_inline void integral_add(struct integral *f, u64 s, u64 n)
{
	f->seq++;
	barrier();
	f->s += s;
	f->n += n;
	if ((s64)f->n > (s64)f->max)
		f->max = f->n;
	barrier();
	f->seq++;
}

static __always_inline u32 requests_pending(const struct connection *c)
{
	return c->started - c->ended;
}

static __always_inline void request_start(struct slot *s, struct connection *c, u32 method,
					  u64 start)
{
	u32 i = c->started & (PIPELINE - 1);

	if (c->early) {
		c->early--;
		i = (c->started - 1) & (PIPELINE - 1);
		c->method[i] = method;
		return;
	}
	if (requests_pending(c) < PIPELINE) {
		c->start_ns[i] = start;
		c->method[i] = method;
	} else {
		lost(LOST_PIPELINE);
	}
	c->started++;
	if (c->flags & CONNECTION_UPSTREAM)
		return;
	s->cells.requests_started++;
	integral_add(&s->in_flight, -start, 1);
}

/* An answered request into the cells. False: there is no such code. */
static __always_inline bool request_count(struct slot *s, u32 method, u32 code, u64 start,
					  u64 first, u64 now)
{
	u32 class;
	u64 cell;

	code -= 100;
	if (code >= HTTP_CODES)
		return 0;
	class = code / 100;
	/* The compiler knows that this is below 5, the verifier does not. */
	asm volatile("" : "+r"(class));
	if (class >= HTTP_CLASSES)
		return 0;
	cell = histogram_cell(now - start);
	s->cells.request_ns[class][cell]++;
	if (code == 504 - 100)
		upstream_verdict(s, now);
	/* Most answers are one write. */
	if (first != now)
		cell = histogram_cell(first - start);
	s->cells.first_byte_ns[class][cell]++;
	s->cells.requests_completed++;
	if (method & PENDING_HEALTH)
		s->cells.requests_health++;
	request_row_count(s, method & (PENDING_HEALTH - 1), code);
	return 1;
}

/* The write that completed the framing, or the close that ends a body without one. */
GLOBAL int request_complete(struct slot *s, struct connection *c, u64 now)
{
	u32 i;

	if (!s || !c)
		return 0;
	i = c->ended & (PIPELINE - 1);
	if (c->flags & CONNECTION_UPSTREAM) {
		c->ended++;
		return upstream_complete(s, c, now - c->start_ns[i], now);
	}
	head_end(s, c, c->ended, c->code, now);
	c->ended++;
	if (request_count(s, c->method[i], c->code, c->start_ns[i], c->response_ns, now))
		integral_add(&s->in_flight, now, (u64)-1);
	return 0;
}

/* Records of pending requests that end without an answer. Unrolled: clang lays the loop out so that
 * its way back is no jump, which Linux 6.1 refuses. */
GLOBAL int requests_end(struct slot *s, struct connection *c, u64 now)
{
	u32 n;

	if (!s || !c || c->flags & CONNECTION_HTTP2)
		return 0;
	n = requests_pending(c);
#pragma clang loop unroll(full)
	for (u32 i = 0; i < PIPELINE; i++)
		if (i < n)
			head_end(s, c, c->ended + i, 0, now);
	return 0;
}

/* All that are pending end here without an answer; the caller says how they are counted. */
static __always_inline u32 requests_drop(struct slot *s, struct connection *c, u64 now)
{
	u32 n = requests_pending(c);

	if (n && c->flags & CONNECTION_UPSTREAM) {
		c->ended = c->started;
	} else if (n) {
		requests_end(s, c, now);
		c->ended = c->started;
		integral_add(&s->in_flight, now * n, -(u64)n);
	}
	return n;
}

/* The next message of this side begins. */
static __always_inline void message_reset(struct stream *st)
{
	st->is_chunked = 0;
	st->is_h2c = 0;
	st->has_length = 0;
	st->length = 0;
	st->skip = 0;
	st->state = STREAM_FIRST;
}
