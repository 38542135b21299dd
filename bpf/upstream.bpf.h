/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Upstreams and what is counted of them: connects, answers, errors. Runs in the watched thread, in
 * any number of threads at once for one record.
 */
#pragma once

#include "socket.bpf.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1); /* set before load: the pool, then one a gateway for all others */
	__type(key, u32);
	__type(value, struct upstream);
} upstreams SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* set before load: the pool */
	__type(key, struct upstream_address);
	__type(value, u32);
} upstream_indices SEC(".maps");

const volatile u32 upstream_pool;

/* A gateway that gives an upstream up says so to its client in the same turn of its event loop; where
 * there is no loop, within this time. */
#define VERDICT_NS 10000000ULL
/* Nobody answered a SYN and its first repetition. */
#define UNANSWERED_NS 1000000000ULL

static __always_inline struct upstream *upstream_at(u32 index)
{
	return bpf_map_lookup_elem(&upstreams, &index);
}

static __always_inline u32 upstream_other(u32 gateway)
{
	u64 bit = 1ULL << (gateway & (GATEWAYS - 1));

	if (!(control.upstream_others & bit))
		__sync_fetch_and_or(&control.upstream_others, bit);
	return upstream_pool + gateway;
}

/* A number from the pool; upstream_pool: there is none left. */
static __always_inline u32 upstream_reserve(u32 *names)
{
	u32 index;

	if (*names >= UPSTREAM_NAMES || control.upstreams >= upstream_pool)
		return upstream_pool;
	if (__sync_fetch_and_add(names, 1) >= UPSTREAM_NAMES) {
		__sync_fetch_and_add(names, -1);
		return upstream_pool;
	}
	index = __sync_fetch_and_add(&control.upstreams, 1);
	if (index < upstream_pool)
		return index;
	__sync_fetch_and_add(&control.upstreams, -1);
	__sync_fetch_and_add(names, -1);
	return upstream_pool;
}

/* The record of an address, made at its first connect. */
static __always_inline u32 upstream_find(const struct upstream_address *key)
{
	u32 *found = bpf_map_lookup_elem(&upstream_indices, key), *names, index;
	struct upstream *u;

	if (found)
		return *found;
	names = &control.upstream_names[key->gateway & (GATEWAYS - 1)];
	index = upstream_reserve(names);
	if (index >= upstream_pool)
		return upstream_other(key->gateway);
	if (bpf_map_update_elem(&upstream_indices, key, &index, BPF_NOEXIST)) {
		/* Another thread was faster. The number goes back if it is still the last one. */
		__sync_fetch_and_add(names, -1);
		__sync_val_compare_and_swap(&control.upstreams, index + 1, index);
		found = bpf_map_lookup_elem(&upstream_indices, key);
		return found ? *found : upstream_other(key->gateway);
	}
	u = upstream_at(index);
	if (u) {
		u->address = *key;
		__sync_fetch_and_add(&u->is_used, 1);
	}
	return index;
}

static __always_inline void upstream_error_add(u32 index, u32 reason, u32 n)
{
	struct upstream *u = upstream_at(index);

	if (u && reason < UPSTREAM_ERRORS)
		__sync_fetch_and_add(&u->errors[reason], n);
}

static __always_inline void upstream_established(struct connection *c, u64 now)
{
	struct upstream *u = upstream_at(c->upstream);

	if (u)
		__sync_fetch_and_add(&u->connect_ns[histogram_cell(now - c->connect_ns)], 1);
	c->connect_ns = 0;
}

GLOBAL int upstream_complete(struct slot *s, struct connection *c, u64 ns, u64 now)
{
	struct upstream *u;

	if (!s || !c)
		return 0;
	u = upstream_at(c->upstream);
	if (u)
		__sync_fetch_and_add(&u->response_ns[histogram_cell(ns)], 1);
	if (c->code == 504)
		s->relayed_ns = now;
	return 0;
}

static __always_inline bool is_just_now(const struct slot *s, u64 then, u64 now)
{
	u64 since = s->loop_since_ns;

	return then && (since ? then >= since : now - then < VERDICT_NS);
}

/* The gateway turned away from an upstream that owed it something. Its client is told 504, just
 * before or just after, if it waited too long; else it was no fault of the upstream. */
static __always_inline void upstream_given_up(struct slot *s, const struct connection *c, u64 now)
{
	if (is_just_now(s, s->verdict_ns, now)) {
		s->verdict_ns = 0;
		upstream_error_add(c->upstream, UPSTREAM_TIMEOUT, 1);
	} else {
		s->given_up = c->upstream;
		s->given_up_ns = now;
	}
}

/* A client was told 504: by the gateway, or by the upstream through it. */
GLOBAL int upstream_verdict(struct slot *s, u64 now)
{
	if (!s)
		return 0;
	if (is_just_now(s, s->relayed_ns, now)) {
		s->relayed_ns = 0;
	} else if (is_just_now(s, s->given_up_ns, now)) {
		s->given_up_ns = 0;
		upstream_error_add(s->given_up, UPSTREAM_TIMEOUT, 1);
	} else {
		s->verdict_ns = now;
	}
	return 0;
}
