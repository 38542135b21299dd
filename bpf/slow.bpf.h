/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Records of slow requests. What a head said lies in the slot of the thread that read it, and is
 * forgotten when the request completes, as nearly all do before that thread reads another head or
 * waits again. Only of those that then are still pending it is kept in a table. Runs in the watched
 * thread.
 */
#pragma once

#include "window.bpf.h"

#define NOTE_WAYS 8

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NOTES);
	__type(key, u32);
	__type(value, struct head);
} notes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, RECORD_BYTES);
} records SEC(".maps");

static __always_inline bool request_is_pending(const struct connection *c, u32 request)
{
	return request - c->ended < c->started - c->ended;
}

static __always_inline struct head *note_at(u64 key, u32 way)
{
	u32 i = (u32)(key * 0x9e3779b97f4a7c15ULL >> 40) + way;

	i &= NOTES - 1;
	return bpf_map_lookup_elem(&notes, &i);
}

/* Requests of processes that were killed leave notes: they go when their place is wanted. */
static __always_inline bool note_is_live(const struct head *n)
{
	u64 key = n->key;
	struct connection *c;

	if (!key)
		return 0;
	c = bpf_map_lookup_elem(&connections, &key);
	return c && request_is_pending(c, n->request);
}

static __always_inline bool note_put(const struct head *h)
{
#pragma clang loop unroll(disable)
	for (u32 way = 0; way < NOTE_WAYS; way++) {
		struct head *n = note_at(h->key, way);

		if (!n || note_is_live(n) || __sync_val_compare_and_swap(&n->is_busy, 0, 1))
			continue;
		n->request = h->request;
		n->path_len = h->path_len;
		__builtin_memcpy(n->path, h->path, sizeof(n->path));
		__builtin_memcpy(n->trace, h->trace, sizeof(n->trace));
		n->key = h->key;
		*(volatile u32 *)&n->is_busy = 0;
		return 1;
	}
	return 0;
}

/* What the slot holds is about to be overwritten, or its thread to wait. */
GLOBAL int head_keep(struct slot *s)
{
	struct connection *c;
	u64 key;

	if (!s)
		return 0;
	key = s->head.key;
	c = bpf_map_lookup_elem(&connections, &key);
	if (c && request_is_pending(c, s->head.request)) {
		if (note_put(&s->head))
			c->noted |= 1u << (s->head.request & (PIPELINE - 1));
		else
			lost(LOST_NOTES);
	}
	s->head.key = 0;
	return 0;
}

/* A request begins; its path is at `at` in the window, of which `n` bytes are known. */
static __always_inline void head_begin(struct slot *s, struct connection *c, u32 at, u32 n)
{
	struct head *h = &s->head;

	if (h->key)
		head_keep(s);
	h->request = c->started;
	h->path_len = n < PATH_BYTES ? n : PATH_BYTES;
	h->trace[0] = 0;
#pragma unroll
	for (u32 i = 0; i < PATH_BYTES / 8 / 4; i++)
		h->path[i] = window_word(&s->scan, at + 8 * i);
	if (n > PATH_BYTES / 4) {
#pragma unroll
		for (u32 i = PATH_BYTES / 8 / 4; i < PATH_BYTES / 8; i++)
			h->path[i] = window_word(&s->scan, at + 8 * i);
	}
	c->head_slot = s->index;
	h->key = s->scan.key;
}

GLOBAL int head_trace(struct slot *s, u32 at)
{
	/* Of the head in the slot, not of what the gateway then writes to an upstream. */
	if (!s || s->head.key != s->scan.key)
		return 0;
#pragma unroll
	for (u32 i = 0; i < TRACE_BYTES / 8; i++)
		s->head.trace[i] = window_word(&s->scan, at + 8 * i);
	return 0;
}

/* At most RECORDS_A_SECOND; two threads that begin a second at once allow a few more. */
static __always_inline bool record_allowed(u64 now)
{
	if (now - control.records_since_ns >= 1000000000ULL) {
		control.records_since_ns = now;
		control.records = 0;
	}
	return __sync_fetch_and_add(&control.records, 1) < RECORDS_A_SECOND;
}

static __always_inline bool head_is(const struct head *h, u64 key, u32 request)
{
	return h && h->key == key && h->request == request && !h->is_busy;
}

/* Copies what is known of a request's head: from this thread's slot, the table, or the slot of the
 * thread that read it. */
static __always_inline void head_copy(struct slot *s, struct connection *c, u32 request,
				      struct record *to)
{
	const struct head *h = &s->head, *found = NULL;
	u64 key = s->scan.key;
	struct slot *other;

	if (head_is(h, key, request))
		found = h;
	if (!found && c->noted >> (request & (PIPELINE - 1)) & 1) {
#pragma clang loop unroll(disable)
		for (u32 way = 0; way < NOTE_WAYS && !found; way++) {
			h = note_at(key, way);
			if (head_is(h, key, request))
				found = h;
		}
	}
	if (!found) {
		other = slot_at(c->head_slot);
		if (other && head_is(&other->head, key, request))
			found = &other->head;
	}
	if (!found)
		return;
	__builtin_memcpy(to->path, found->path, sizeof(to->path));
	__builtin_memcpy(to->trace, found->trace, sizeof(to->trace));
	to->path_len = found->path_len;
	/* Its thread may have begun another meanwhile. */
	if (*(volatile u64 *)&found->key != key || *(volatile u32 *)&found->request != request)
		to->path_len = to->trace[0] = 0;
}

/* Request number `request` of the connection ended after slow_ns or more; code 0: without an answer.
 * Its start and method are in the connection. */
GLOBAL int slow_note(struct slot *s, struct connection *c, u32 request, u32 code, u64 now)
{
	struct record *r;
	u32 i = request & (PIPELINE - 1);

	if (!s || !c)
		return 0;
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
	r->code = code;
	r->method = c->method[i];
	r->end_ns = now;
	r->duration_ns = now - c->start_ns[i];
	r->first_ns = code ? c->response_ns - c->start_ns[i] : 0;
	r->path_len = 0;
	r->reserved = 0;
	r->trace[0] = 0;
	head_copy(s, c, request, r);
	bpf_ringbuf_submit(r, BPF_RB_NO_WAKEUP);
	return 0;
}

GLOBAL int note_free(struct slot *s, struct connection *c, u32 request)
{
	if (!s || !c)
		return 0;
	c->noted &= ~(1u << (request & (PIPELINE - 1)));
#pragma clang loop unroll(disable)
	for (u32 way = 0; way < NOTE_WAYS; way++) {
		struct head *n = note_at(s->scan.key, way);

		if (n && n->key == s->scan.key && n->request == request)
			n->key = 0;
	}
	return 0;
}

/* The request ended: its record if it was slow, and its head is forgotten. */
static __always_inline void head_end(struct slot *s, struct connection *c, u32 request, u32 code,
				     u64 now)
{
	if (now - c->start_ns[request & (PIPELINE - 1)] >= control.slow_ns)
		slow_note(s, c, request, code, now);
	if (s->head.key == s->scan.key && s->head.request == request)
		s->head.key = 0;
	if (c->noted >> (request & (PIPELINE - 1)) & 1)
		note_free(s, c, request);
}
