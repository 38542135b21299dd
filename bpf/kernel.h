/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The few kernel types that the programs read: those that never change. One relocated access (CO-RE)
 * anywhere would make libbpf ask for kernel BTF for every program, so for all else the agent looks up
 * offsets in BTF where there is one (struct offsets).
 */
#pragma once

#include <linux/types.h>

#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include <bpf/bpf_tracing.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s64 s64;
typedef __s32 s32;
typedef _Bool bool;

/* What the kernel promises user space about these does not change: no relocation. */
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip,
		cs, flags, sp, ss;
};

struct trace_event_raw_sys_enter {
	u64 common;
	long id;
	unsigned long args[6];
};

struct trace_event_raw_sys_exit {
	u64 common;
	long id;
	long ret;
};
