/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Threads come and go: what a watched process forks is watched before it runs; what ends is left for
 * the agent to fold. fork runs in the parent, exit in the thread concerned.
 */
#pragma once

#include "slot.bpf.h"

/* Number of a slot that nobody uses, or -1. */
static __always_inline int slot_take(void)
{
	u64 head, tail;
	u32 index;

	for (int i = 0; i < 8; i++) {
		head = *(volatile u64 *)&control.ring_head;
		tail = *(volatile u64 *)&control.ring_tail;
		if (head == tail)
			return -1;
		index = *(volatile u16 *)&control.ring[head & (SLOTS_MOST - 1)];
		if (__sync_val_compare_and_swap(&control.ring_head, head, head + 1) == head)
			return index;
	}
	return -1;
}

/* Puts `to` into the first lane of the thread's bucket that holds `from`. */
static __always_inline bool lane_swap(u32 tid, u16 from, u16 to)
{
	u64 *bucket = &control.tid_buckets[tid & (TID_BUCKETS - 1)];
	u64 old, new;
	u32 shift;

	for (u32 i = 0; i < 32; i++) {
		shift = (i & 3) * 16;
		old = *(volatile u64 *)bucket;
		if ((u16)(old >> shift) != from)
			continue;
		new = (old & ~(0xffffULL << shift)) | (u64)to << shift;
		if (__sync_val_compare_and_swap(bucket, old, new) == old)
			return 1;
	}
	return 0;
}

static __always_inline void life_fork(u32 tid, u32 tgid)
{
	struct slot *parent = slot_current(), *s;
	int index;

	/* The agent sees a child in /proc a moment before we do. */
	if (!parent || !tid || slot_find(tid))
		return;
	index = slot_take();
	if (index < 0) {
		lost(LOST_THREADS);
		return;
	}
	s = slot_at(index);
	if (!s)
		return;
	s->tid = tid;
	s->tgid = tgid;
	s->index = index;
	s->gateway = parent->gateway;
	s->role = tid == tgid ? ROLE_WORKER : ROLE_HELPER;
	s->start_ns = bpf_ktime_get_ns();
	s->state = SLOT_LIVE;
	/* Without a lane it is never found; the agent sees no start of its thread and reclaims it. */
	if (!lane_swap(tid, 0, index + 1)) {
		s->state = SLOT_EXITED;
		lost(LOST_BUCKET);
	}
}

/* All that it has: the agent may have given it one in the moment of its fork. */
static __always_inline void slot_end(u32 tid)
{
	u64 lanes = control.tid_buckets[tid & (TID_BUCKETS - 1)];
	struct slot *s;
	u16 lane;

	for (u32 i = 0; i < TID_WAYS; i++) {
		lane = (u16)(lanes >> (i * 16));
		s = lane ? slot_lane(lane, tid) : NULL;
		if (!s)
			continue;
		lane_swap(tid, lane, 0);
		s->loop_since_ns = 0;
		s->state = SLOT_EXITED;
	}
}

/* Also while the keeper is away: what has ended must not be counted for whoever gets its number. */
static __always_inline void life_end(void)
{
	u64 ids = current_ids();

	if (ids)
		slot_end((u32)ids);
}

static __always_inline u32 kernel_u32(u64 at)
{
	u32 v = 0;

	bpf_probe_read_kernel(&v, sizeof(v), (void *)at);
	return v;
}

#define NAMESPACES 32 /* how deep pid namespaces nest: MAX_PID_NS_LEVEL */

/* Number of a task in the agent's namespace, wherever that stands in the task's nest; 0: not there. */
static __always_inline u32 ns_number(u64 task)
{
	u64 pid = kernel_pointer(task + offsets.task_thread_pid);
	u32 level = kernel_u32(pid + offsets.pid_level);
	u64 at = pid + offsets.pid_numbers;

	for (u32 i = 0; i <= NAMESPACES && i <= level; i++) {
		u64 ns = kernel_pointer(at + offsets.upid_ns);

		if (kernel_u32(ns + offsets.ns_inum) == pidns_ino)
			return kernel_u32(at + offsets.upid_number);
		at += offsets.upid_size;
	}
	return 0;
}

static __always_inline void life_fork_ns(u64 child)
{
	life_fork(ns_number(child), ns_number(kernel_pointer(child + offsets.task_leader)));
}

/* No typed access here: a relocation anywhere would ask for kernel BTF on every rung. */
static __always_inline int life_fork_task(u64 child)
{
	if (control.is_stale || !offsets.is_known)
		return 0;
	if (pidns_ino)
		life_fork_ns(child);
	else
		life_fork(kernel_u32(child + offsets.task_pid),
			  kernel_u32(child + offsets.task_tgid));
	return 0;
}

SEC("tp_btf/sched_process_fork")
int fork_tp_btf(u64 *ctx)
{
	return life_fork_task(ctx[1]);
}

SEC("raw_tp/sched_process_fork")
int fork_raw_tp(struct bpf_raw_tracepoint_args *ctx)
{
	return life_fork_task(ctx->args[1]);
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(exit_life_tp_btf)
{
	life_end();
	return 0;
}

SEC("raw_tp/sched_process_exit")
int BPF_PROG(exit_life_raw_tp)
{
	life_end();
	return 0;
}
