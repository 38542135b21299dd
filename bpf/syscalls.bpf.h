/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Entry and return of the watched system calls, once for each rung of the ladder: fentry and fexit
 * of each call, tp_btf, raw_tp, tracepoint. Runs in the watched thread.
 */
#pragma once

#include "loop.bpf.h"
#include "request.bpf.h"

const volatile u8 syscall_classes[32] = {
#define X(name, number, class) [SYSCALL_##name + 1] = CLASS_##class,
	SYSCALL_ROWS(X)
#undef X
};

/* args are in the slot. */
static __always_inline void call_enter(struct slot *s, u32 id, u32 class)
{
	u64 now = 0;
	u32 dice;

	s->enter_id = id + 1;
	/* Not every Nth: loops make the same calls in the same order. */
	dice = s->sample_tick * 1664525u + 1013904223u;
	s->sample_tick = dice;
	if (((u64)dice * control.sample) >> 32 == 0 || class == CLASS_LOOP) {
		now = bpf_ktime_get_ns();
		if (!keeper_lives(now)) {
			s->enter_id = 0;
			return;
		}
	}
	if (class == CLASS_LOOP) {
		loop_enter(s, now);
		if (((u64)dice * control.sample) >> 32)
			now = 0;
	} else if (class == CLASS_CLOSE) {
		connection_drop(s, (u32)s->args[0]);
	}
	s->enter_ns = now;
}

static __always_inline void call_count(struct slot *s, u32 id, s64 ret)
{
	u32 e;

	if (id >= SYSCALL_COUNT)
		return;
	s->cells.syscalls[id]++;
	if (ret >= 0)
		return;
	e = (u32)-ret;
	/* -ERESTART…: the kernel's own, what the process sees is EINTR or the call again. */
	e = e >= 512 && e <= 516 ? ERRNO_CELL_EINTR : e < 256 ? errno_cells[e & 255] : ERRNO_OTHER;
	if (e < ERRNOS)
		s->cells.syscall_errors[id][e]++;
}

static __always_inline void call_exit(struct slot *s, u32 id, u32 class, s64 ret)
{
	u64 now = 0;

	s->enter_id = 0;
	call_count(s, id, ret);
	if (s->enter_ns || class == CLASS_LOOP || class == CLASS_ACCEPT)
		now = bpf_ktime_get_ns();
	if (s->enter_ns && id < SYSCALL_COUNT)
		histogram_add(s->cells.syscall_ns[id], now - s->enter_ns);
	switch (class) {
	case CLASS_LOOP:
		loop_exit(s, now);
		break;
	case CLASS_READ:
	case CLASS_READV:
	case CLASS_RECVMSG:
		request_read(s, id, class, ret);
		break;
	case CLASS_WRITE:
	case CLASS_WRITEV:
	case CLASS_SENDMSG:
	case CLASS_SENDFILE:
		response_write(s, class, (u32)s->args[0], ret);
		break;
	case CLASS_SPLICE:
		response_write(s, class, (u32)s->args[2], ret);
		break;
	case CLASS_ACCEPT:
		if (ret >= 0)
			connection_accepted(s, (u32)ret, now);
		break;
	case CLASS_CONNECT:
		/* A new socket under a descriptor that was closed unseen. */
		connection_drop(s, (u32)s->args[0]);
		break;
	}
}

static __always_inline u32 id_of(u64 nr)
{
	return nr < SYSCALL_NUMBERS ? syscall_ids[nr & (SYSCALL_NUMBERS - 1)] : 0;
}

/* ---- typed tracepoints ---- */

SEC("tp_btf/sys_enter")
int BPF_PROG(enter_tp_btf, struct pt_regs *regs, long nr)
{
	u32 id = id_of(nr);
	struct slot *s;

	if (!id)
		return 0;
	s = slot_current();
	if (!s)
		return 0;
	s->args[0] = regs->di;
	s->args[1] = regs->si;
	s->args[2] = regs->dx;
	s->args[3] = regs->r10;
	call_enter(s, id - 1, syscall_classes[id & 31]);
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(exit_tp_btf, struct pt_regs *regs, long ret)
{
	struct slot *s;
	u32 id;

	if (!id_of(regs->orig_ax))
		return 0;
	s = slot_current();
	if (!s)
		return 0;
	id = s->enter_id;
	if (id)
		call_exit(s, id - 1, syscall_classes[id & 31], ret);
	return 0;
}

/* ---- raw tracepoints ---- */

SEC("raw_tp/sys_enter")
int BPF_PROG(enter_raw_tp, struct pt_regs *regs, long nr)
{
	u32 id = id_of(nr);
	u64 r[8] = {}; /* r10 r9 r8 ax cx dx si di */
	struct slot *s;

	if (!id)
		return 0;
	s = slot_current();
	if (!s)
		return 0;
	if (bpf_probe_read_kernel(r, sizeof(r), &regs->r10)) {
		lost(LOST_MEMORY);
		return 0;
	}
	s->args[0] = r[7];
	s->args[1] = r[6];
	s->args[2] = r[5];
	s->args[3] = r[0];
	call_enter(s, id - 1, syscall_classes[id & 31]);
	return 0;
}

SEC("raw_tp/sys_exit")
int BPF_PROG(exit_raw_tp, struct pt_regs *regs, long ret)
{
	struct slot *s = slot_current();
	u32 id;

	if (!s)
		return 0;
	id = s->enter_id;
	if (id)
		call_exit(s, id - 1, syscall_classes[id & 31], ret);
	return 0;
}

/* ---- tracepoints ---- */

SEC("tracepoint/raw_syscalls/sys_enter")
int enter_tracepoint(struct trace_event_raw_sys_enter *ctx)
{
	u32 id = id_of(ctx->id);
	struct slot *s;

	if (!id)
		return 0;
	s = slot_current();
	if (!s)
		return 0;
	s->args[0] = ctx->args[0];
	s->args[1] = ctx->args[1];
	s->args[2] = ctx->args[2];
	s->args[3] = ctx->args[3];
	call_enter(s, id - 1, syscall_classes[id & 31]);
	return 0;
}

SEC("tracepoint/raw_syscalls/sys_exit")
int exit_tracepoint(struct trace_event_raw_sys_exit *ctx)
{
	struct slot *s;
	u32 id;

	if (!id_of(ctx->id))
		return 0;
	s = slot_current();
	if (!s)
		return 0;
	id = s->enter_id;
	if (id)
		call_exit(s, id - 1, syscall_classes[id & 31], ctx->ret);
	return 0;
}

/* ---- single calls: paid by their callers only ---- */

#define X(name, number, class)                                            \
	SEC("fentry/__x64_sys_" #name)                                    \
	int BPF_PROG(fentry_##name, const struct pt_regs *regs)           \
	{                                                                 \
		struct slot *s = slot_current();                          \
                                                                          \
		if (!s)                                                   \
			return 0;                                         \
		s->args[0] = regs->di;                                    \
		s->args[1] = regs->si;                                    \
		s->args[2] = regs->dx;                                    \
		s->args[3] = regs->r10;                                   \
		call_enter(s, SYSCALL_##name, CLASS_##class);             \
		return 0;                                                 \
	}                                                                 \
	SEC("fexit/__x64_sys_" #name)                                     \
	int BPF_PROG(fexit_##name, const struct pt_regs *regs, long ret)  \
	{                                                                 \
		struct slot *s = slot_current();                          \
                                                                          \
		if (s && s->enter_id == SYSCALL_##name + 1)               \
			call_exit(s, SYSCALL_##name, CLASS_##class, ret); \
		return 0;                                                 \
	}
SYSCALL_ROWS(X)
#undef X
