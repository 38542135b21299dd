/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Maps, and what every program needs of them: the slot of the current thread, the sign of life of
 * the keeper, the index of a histogram cell. Runs in the watched thread.
 */
#pragma once

#include "types.h"

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

/* A global function: the verifier looks at it once, whoever calls it. Takes map memory or scalars
 * only, and must check pointers. */
#define GLOBAL __attribute__((noinline))

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* set before load */
	__type(key, u32);
	__type(value, struct slot);
} slots SEC(".maps");

/* Two a gateway; only the agent writes them. Here so that they are pinned with the rest. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2); /* set before load */
	__type(key, u32);
	__type(value, struct bank);
} retired SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1); /* set before load */
	__type(key, u64);
	__type(value, struct connection);
} connections SEC(".maps");

struct control control; /* .bss: addressed directly, no lookup */

/* Known at load: the verifier removes what they rule out. */
const volatile u64 pidns_dev, pidns_ino; /* 0: the init namespace */
const volatile u64 hist_thresholds[512]; /* padded with INT64_MAX */
const volatile u16 hist_starts[512];
const volatile u8 log2_cells[64]; /* exponent of 2^e at 2^e * LOG2_FACTOR >> 58 */
const volatile u8 errno_cells[256];
const volatile struct offsets offsets;
const volatile u8 syscall_ids[SYSCALL_NUMBERS]; /* enum syscall_id + 1 */

/* What accept puts into the table. */
const volatile struct connection blank = {
	.streams = {{.state = STREAM_FIRST}, {.state = STREAM_FIRST}},
};

/* Thread and process id as the agent sees them: tgid << 32 | tid; 0: not in its namespace. */
static __always_inline u64 current_ids(void)
{
	struct bpf_pidns_info ns = {};

	if (!pidns_ino)
		return bpf_get_current_pid_tgid();
	if (bpf_get_ns_current_pid_tgid(pidns_dev, pidns_ino, &ns, sizeof(ns)))
		return 0;
	return (u64)ns.tgid << 32 | ns.pid;
}

static __always_inline struct slot *slot_at(u32 index)
{
	return bpf_map_lookup_elem(&slots, &index);
}

static __always_inline struct slot *slot_lane(u16 lane, u32 tid)
{
	struct slot *s;

	if (!lane)
		return NULL;
	s = slot_at(lane - 1u);
	return s && s->tid == tid ? s : NULL;
}

static __always_inline struct slot *slot_find(u32 tid)
{
	u64 lanes = control.tid_buckets[tid & (TID_BUCKETS - 1)];
	struct slot *s;

	if (!lanes)
		return NULL;
	s = slot_lane((u16)lanes, tid);
	if (!s)
		s = slot_lane((u16)(lanes >> 16), tid);
	if (!s)
		s = slot_lane((u16)(lanes >> 32), tid);
	if (!s)
		s = slot_lane((u16)(lanes >> 48), tid);
	return s;
}

/* NULL: this thread is not watched. An unwatched thread pays for the id and one load. */
static __always_inline struct slot *slot_current(void)
{
	u64 ids;

	if (control.is_stale)
		return NULL;
	ids = current_ids();
	return ids ? slot_find((u32)ids) : NULL;
}

/* Whoever has read the clock anyway asks this; all others look at control.is_stale. */
static __always_inline bool keeper_lives(u64 now_ns)
{
	if ((s64)(now_ns - control.heartbeat_ns) < (s64)HEARTBEAT_LIMIT_NS)
		return 1;
	control.is_stale = 1;
	return 0;
}

/* The verifier must see the limit of an index right before its use; compilers move it away. */
#define BOUND(x, mask) asm volatile("%0 &= %1" : "+r"(x) : "i"(mask))

/* Index of the histogram cell of a duration: integer log2, a start, four compares (proto/metrics.h;
 * always < TYPES_HIST_CELLS). Without branches, which would multiply what the verifier looks at: a
 * borrow is the comparison. */
static __always_inline u64 histogram_cell(u64 v)
{
	u64 x, e, j;

	v &= ~0ULL >> 1;
	x = v | v >> 1;
	x |= x >> 2;
	x |= x >> 4;
	x |= x >> 8;
	x |= x >> 16;
	x |= x >> 32;
	x = (x ^ x >> 1) * LOG2_FACTOR >> 58;
	BOUND(x, 63);
	e = log2_cells[x];
	/* The three bits after the highest one. */
	x = e << 3 | (v << 3 >> (e & 63) & 7);
	BOUND(x, 511);
	j = hist_starts[x] * (-v >> 63);
	BOUND(j, 511);
	j += (hist_thresholds[j] - v) >> 63;
	BOUND(j, 511);
	j += (hist_thresholds[j] - v) >> 63;
	BOUND(j, 511);
	j += (hist_thresholds[j] - v) >> 63;
	BOUND(j, 511);
	j += (hist_thresholds[j] - v) >> 63;
	return j < TYPES_HIST_CELLS ? j : TYPES_HIST_CELLS - 1;
}

static __always_inline void histogram_add(u64 *cells, u64 v)
{
	cells[histogram_cell(v)]++;
}

static __always_inline u64 kernel_pointer(u64 at)
{
	u64 p = 0;

	bpf_probe_read_kernel(&p, sizeof(p), (void *)at);
	return p;
}

static __always_inline void lost(enum lost_reason reason)
{
	__sync_fetch_and_add(&control.lost[reason], 1);
}
