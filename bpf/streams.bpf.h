/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The life of an HTTP/2 connection and of its streams, each of which is a request. Entered by the
 * client's preface, or by a 101 that says h2c. Reader and writer of a connection may be two threads
 * at once: a stream is ended by whoever deletes it from the table. Runs in the watched thread.
 */
#pragma once

#include "flight.bpf.h"
#include "http2_types.h"
#include "window.bpf.h"

#define PREFACE_REST 8    /* after its first line */
#define HTTP2_SWEEP  4096 /* streams looked for when a connection ends */

struct http2_control http2_control;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1); /* set before load */
	__type(key, u32);
	__type(value, struct http2);
} http2_connections SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, HTTP2_STREAMS);
	__type(key, u64);
	__type(value, struct http2_stream);
} http2_streams SEC(".maps");

const volatile struct http2 http2_blank = {
	.allowed = 0x7fffffff,
};

static __always_inline u64 stream_key(const struct connection *c, u32 id)
{
	return (u64)c->http2 << 32 | id;
}

/* Requests are ended by two threads. */
static __always_inline void stream_ended(struct slot *s, struct connection *c, u64 now)
{
	__sync_fetch_and_add(&c->ended, 1);
	integral_add(&s->in_flight, now, (u64)-1);
}

GLOBAL int http2_stream_start(struct slot *s, struct connection *c, struct http2 *h)
{
	struct http2_side *d;
	struct http2_stream stream = {};
	u64 key;
	u32 id;

	if (!s || !c || !h)
		return 0;
	d = &h->sides[SIDE_REQUEST];
	id = d->block_stream;
	/* Trailers, what only a server may open, and what the gateway said that it will not serve. */
	if (id <= h->last_id || !(id & 1) || id > h->allowed)
		return 0;
	h->last_id = id;
	key = stream_key(c, id);
	stream.start_ns = d->frame_ns;
	stream.method = d->method | (d->is_health ? PENDING_HEALTH : 0);
	if (bpf_map_update_elem(&http2_streams, &key, &stream, BPF_ANY)) {
		lost(LOST_STREAMS);
		return 0;
	}
	if (!d->is_health)
		s->last_request_ns = stream.start_ns;
	c->started++;
	s->cells.requests_started++;
	integral_add(&s->in_flight, -stream.start_ns, 1);
	return 0;
}

/* The record of a slow one; code 0: without an answer. Its path is in a table that is not followed. */
GLOBAL int http2_slow(struct slot *s, struct connection *c, struct http2_stream *stream)
{
	struct record *r;
	u64 now;

	if (!s || !c || !stream)
		return 0;
	now = s->scan.now_ns;
	if (!record_allowed(now)) {
		lost(LOST_RECORDS);
		return 0;
	}
	r = bpf_ringbuf_reserve(&records, sizeof(*r), 0);
	if (!r) {
		lost(LOST_RECORDS);
		return 0;
	}
	r->kind = RECORD_SLOW;
	r->gateway = s->gateway;
	r->flags = c->flags;
	r->code = stream->code;
	r->method = stream->method;
	r->end_ns = now;
	r->duration_ns = now - stream->start_ns;
	r->first_ns = stream->code ? stream->first_ns - stream->start_ns : 0;
	r->path_len = 0;
	r->reserved = 0;
	r->trace[0] = 0;
	bpf_ringbuf_submit(r, BPF_RB_NO_WAKEUP);
	return 0;
}

/* The gateway wrote the end of a stream. */
GLOBAL int http2_stream_complete(struct slot *s, struct connection *c, u32 id)
{
	struct http2_stream *found, stream;
	u64 key, now;

	if (!s || !c)
		return 0;
	key = stream_key(c, id);
	found = bpf_map_lookup_elem(&http2_streams, &key);
	if (!found)
		return 0;
	stream = *found;
	if (bpf_map_delete_elem(&http2_streams, &key))
		return 0;
	now = s->scan.now_ns;
	stream_ended(s, c, now);
	if (now - stream.start_ns >= control.slow_ns)
		http2_slow(s, c, &stream);
	if (!request_count(s, stream.method, stream.code, stream.start_ns, stream.first_ns, now))
		lost(LOST_PARSE);
	return 0;
}

/* One side gave the stream up: the client, or the gateway before its answer was whole. */
GLOBAL int http2_stream_reset(struct slot *s, struct connection *c, u32 id, u32 side)
{
	u64 key;

	if (!s || !c)
		return 0;
	key = stream_key(c, id);
	if (bpf_map_delete_elem(&http2_streams, &key))
		return 0;
	stream_ended(s, c, s->scan.now_ns);
	if (side == SIDE_REQUEST)
		s->cells.requests_aborted++;
	else
		s->cells.requests_lost++;
	return 0;
}

static __always_inline void http2_side_begin(struct connection *c, const u32 side)
{
	struct stream *st = &c->streams[side];

	st->state = STREAM_HTTP2;
	st->skip = 0;
	st->carry_len = 0;
	st->is_skipping = 0;
}

/* False: there is no room. */
static __always_inline bool http2_open(struct connection *c)
{
	u32 number = __sync_fetch_and_add(&http2_control.number, 1) + 1;

	if (bpf_map_update_elem(&http2_connections, &number, (const void *)&http2_blank, BPF_ANY)) {
		lost(LOST_CONNECTIONS);
		return 0;
	}
	c->http2 = number;
	c->flags |= CONNECTION_HTTP2;
	http2_side_begin(c, SIDE_RESPONSE);
	return 1;
}

/* The first line of the preface was read; of the rest nothing is looked at. False: not followed. */
GLOBAL int http2_begin(struct slot *s, struct connection *c)
{
	if (!s || !c)
		return 0;
	if (c->flags & CONNECTION_UPSTREAM) {
		lost(LOST_UPSTREAM_HTTP2);
		return 0;
	}
	if (!c->http2 && !http2_open(c))
		return 0;
	http2_side_begin(c, SIDE_REQUEST);
	c->streams[SIDE_REQUEST].skip = PREFACE_REST;
	return 1;
}

/* 101 to h2c: the request goes on as stream 1, and the client's preface is still to come. False: not
 * followed. */
GLOBAL int http2_upgrade(struct slot *s, struct connection *c)
{
	struct http2_stream stream = {};
	struct http2 *h;
	u32 i, number;
	u64 key;

	if (!s || !c || requests_pending(c) != 1 || !http2_open(c))
		return 0;
	number = c->http2;
	h = bpf_map_lookup_elem(&http2_connections, &number);
	if (!h)
		return 0;
	h->last_id = 1;
	i = c->ended & (PIPELINE - 1);
	stream.start_ns = c->start_ns[i];
	stream.method = c->method[i];
	key = stream_key(c, 1);
	if (bpf_map_update_elem(&http2_streams, &key, &stream, BPF_ANY)) {
		lost(LOST_STREAMS);
		return 0;
	}
	return 1;
}

struct http2_sweep {
	u64 key;
	u32 left; /* to be found */
};

static long http2_sweep_step(u32 i, void *ctx)
{
	struct http2_sweep *w = ctx;
	u64 key = w->key;

	if (!bpf_map_delete_elem(&http2_streams, &key))
		w->left--;
	w->key -= 2;
	return !w->left || (u32)key <= 1;
}

/* Its streams are looked for from the newest one; what remains is the agent's. */
GLOBAL int http2_end(struct connection *c)
{
	struct http2_sweep w = {};
	struct http2 *h;
	u32 number;

	if (!c)
		return 0;
	number = c->http2;
	h = bpf_map_lookup_elem(&http2_connections, &number);
	if (!h)
		return 0;
	w.left = requests_pending(c);
	w.key = stream_key(c, h->last_id);
	if (w.left && h->last_id)
		bpf_loop(HTTP2_SWEEP, http2_sweep_step, &w, 0);
	/* Not followed any more: nobody knows what there is. */
	if (w.left || c->streams[SIDE_RESPONSE].state == STREAM_OFF)
		http2_control.has_left = 1;
	bpf_map_delete_elem(&http2_connections, &number);
	return 0;
}
