/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Entry and return of the watched system calls, once for each rung of the ladder: fentry and fexit
 * of each call, tp_btf, raw_tp, tracepoint. Runs in the watched thread.
 */
#pragma once

#include "connect.bpf.h"
#include "loop.bpf.h"
#include "notice.bpf.h"
#include "rows.bpf.h"

const volatile u8 syscall_classes[32] = {
#define X(name, number, class, symbol) [SYSCALL_##name + 1] = CLASS_##class,
	SYSCALL_ROWS(X)
#undef X
		[SYSCALL_LISTENS] = CLASS_LISTEN,
};

/* These are always looked at when they begin; of the others only those that are timed. */
static __always_inline bool class_begins(u32 class)
{
	return class == CLASS_LOOP || class == CLASS_CLOSE || class == CLASS_CONNECT ||
	       class == CLASS_LISTEN;
}

struct draw draws[DRAW_CPUS];

/* How many calls this one stands for; 0: it is not timed. Not every Nth: loops make the same calls in
 * the same order. All threads of the machine come by here, so numbers are drawn by Knuth's congruence
 * rather than by the kernel's helper, which takes longer than all else in an entry that is not timed; a
 * draw lost to another thread harms nothing. */
static __always_inline u32 sample_weight(void)
{
	struct draw *d = &draws[bpf_get_smp_processor_id() & (DRAW_CPUS - 1)];
	u32 every = control.sample;

	d->state = d->state * 6364136223846793005ULL + 1442695040888963407ULL;
	return ((d->state >> 32) * every) >> 32 ? 0 : every;
}

static __always_inline void call_enter(struct slot *s, u32 id, u32 class, u32 weight, u32 fd)
{
	u64 now;

	s->enter_ns = 0;
	if (weight || class == CLASS_LOOP || class == CLASS_CONNECT) {
		now = bpf_ktime_get_ns();
		if (!keeper_lives(now))
			return;
		if (class == CLASS_LOOP)
			loop_enter(s, now);
		else if (class == CLASS_CONNECT)
			s->connect_since_ns = now;
		if (weight) {
			s->enter_id = id + 1;
			s->enter_weight = weight;
			s->enter_ns = now;
		}
	}
	if (class == CLASS_CLOSE)
		connection_drop(s, fd);
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
		error_row_count(s, id, e);
}

/* args are in the slot. */
static __always_inline void call_exit(struct slot *s, u32 id, u32 class, s64 ret)
{
	u64 now = 0, since = s->enter_ns;

	call_count(s, id, ret);
	if (since || class == CLASS_LOOP || class == CLASS_ACCEPT)
		now = bpf_ktime_get_ns();
	if (since) {
		s->enter_ns = 0;
		if (s->enter_id == id + 1 && id < SYSCALL_COUNT) {
			s->cells.syscall_ns[id][histogram_cell(now - since)] += s->enter_weight;
			if (now - since >= LONG_CALL_NS)
				s->cells.syscall_long_ns[id] += (now - since) * s->enter_weight;
		}
	}
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
		request_read(s, id, class, ret);
		break;
	case CLASS_ACCEPT:
		if (ret >= 0)
			connection_accepted(s, (u32)ret, now);
		break;
	case CLASS_CONNECT:
		connect_return(s, ret);
		break;
	case CLASS_SOCKOPT:
		sockopt_return(s, ret);
		break;
	}
}

static __always_inline u32 id_of(u64 nr)
{
	return nr < SYSCALL_NUMBERS ? syscall_ids[nr & (SYSCALL_NUMBERS - 1)] : 0;
}

static __always_inline void args_keep(struct slot *s, const struct pt_regs *regs)
{
	s->args[0] = regs->di;
	s->args[1] = regs->si;
	s->args[2] = regs->dx;
	s->args[3] = regs->r10;
	s->goroutine = regs->r14;
}

/* ---- typed tracepoints: registers still hold the arguments when a call returns ---- */

SEC("tp_btf/sys_enter")
int BPF_PROG(enter_tp_btf, struct pt_regs *regs, long nr)
{
	u32 id = id_of(nr), class, weight;
	struct slot *s;

	if (!id)
		return 0;
	class = syscall_classes[id & 31];
	weight = sample_weight();
	if (!weight && !class_begins(class))
		return 0;
	s = slot_current();
	if (s)
		call_enter(s, id - 1, class, weight, (u32)regs->di);
	else if (class == CLASS_LISTEN)
		listen_notice();
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(exit_tp_btf, struct pt_regs *regs, long ret)
{
	u32 id = id_of(regs->orig_ax);
	struct slot *s;

	if (!id)
		return 0;
	s = slot_current();
	if (!s)
		return 0;
	args_keep(s, regs);
	call_exit(s, id - 1, syscall_classes[id & 31], ret);
	return 0;
}

/* ---- raw tracepoints: the same, but registers must be copied ---- */

SEC("raw_tp/sys_enter")
int BPF_PROG(enter_raw_tp, struct pt_regs *regs, long nr)
{
	u32 id = id_of(nr), class, weight;
	struct slot *s;
	u64 fd = 0;

	if (!id)
		return 0;
	class = syscall_classes[id & 31];
	weight = sample_weight();
	if (!weight && !class_begins(class))
		return 0;
	s = slot_current();
	if (!s)
		return class == CLASS_LISTEN ? listen_notice() : 0;
	if (class == CLASS_CLOSE && bpf_probe_read_kernel(&fd, sizeof(fd), &regs->di)) {
		lost(LOST_MEMORY);
		return 0;
	}
	call_enter(s, id - 1, class, weight, (u32)fd);
	return 0;
}

SEC("raw_tp/sys_exit")
int BPF_PROG(exit_raw_tp, struct pt_regs *regs, long ret)
{
	struct slot *s = slot_current();
	u64 r[15] = {}; /* r14 r13 r12 bp bx r11 r10 r9 r8 ax cx dx si di orig_ax */
	u32 id;

	if (!s)
		return 0;
	if (bpf_probe_read_kernel(r, sizeof(r), &regs->r14)) {
		lost(LOST_MEMORY);
		return 0;
	}
	id = id_of(r[14]);
	if (!id)
		return 0;
	s->args[0] = r[13];
	s->args[1] = r[12];
	s->args[2] = r[11];
	s->args[3] = r[6];
	s->goroutine = r[0];
	call_exit(s, id - 1, syscall_classes[id & 31], ret);
	return 0;
}

/* ---- tracepoints: arguments are there at entry only ---- */

SEC("tracepoint/raw_syscalls/sys_enter")
int enter_tracepoint(struct trace_event_raw_sys_enter *ctx)
{
	u32 id = id_of(ctx->id);
	struct slot *s;

	if (!id)
		return 0;
	s = slot_current();
	if (!s)
		return id == SYSCALL_LISTENS ? listen_notice() : 0;
	s->args[0] = ctx->args[0];
	s->args[1] = ctx->args[1];
	s->args[2] = ctx->args[2];
	s->args[3] = ctx->args[3];
	s->args_id = id;
	call_enter(s, id - 1, syscall_classes[id & 31], sample_weight(), (u32)s->args[0]);
	return 0;
}

SEC("tracepoint/raw_syscalls/sys_exit")
int exit_tracepoint(struct trace_event_raw_sys_exit *ctx)
{
	u32 id = id_of(ctx->id), class;
	struct slot *s;

	if (!id)
		return 0;
	s = slot_current();
	if (!s)
		return 0;
	class = syscall_classes[id & 31];
	/* Began before this thread was watched: nobody saw its arguments. */
	if (s->args_id != id && class > CLASS_ACCEPT)
		class = CLASS_PLAIN;
	s->args_id = 0;
	call_exit(s, id - 1, class, ctx->ret);
	return 0;
}

/* ---- single calls: paid by their callers only ---- */

#define X(name, number, class, symbol)                                                       \
	SEC("fentry/__x64_sys_" #symbol)                                                     \
	int BPF_PROG(fentry_##name, const struct pt_regs *regs)                              \
	{                                                                                    \
		u32 weight = sample_weight();                                                \
		struct slot *s;                                                              \
                                                                                             \
		if (!weight && !class_begins(CLASS_##class))                                 \
			return 0;                                                            \
		s = slot_current();                                                          \
		if (s)                                                                       \
			call_enter(s, SYSCALL_##name, CLASS_##class, weight, (u32)regs->di); \
		return 0;                                                                    \
	}                                                                                    \
	SEC("fexit/__x64_sys_" #symbol)                                                      \
	int BPF_PROG(fexit_##name, const struct pt_regs *regs, long ret)                     \
	{                                                                                    \
		struct slot *s = slot_current();                                             \
                                                                                             \
		if (!s)                                                                      \
			return 0;                                                            \
		args_keep(s, regs);                                                          \
		call_exit(s, SYSCALL_##name, CLASS_##class, ret);                            \
		return 0;                                                                    \
	}
SYSCALL_ROWS(X)
#undef X

SEC("fentry/__x64_sys_listen")
int BPF_PROG(fentry_listen)
{
	return slot_current() ? 0 : listen_notice();
}
