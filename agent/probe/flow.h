/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control flow of one x86-64 or aarch64 function: where to put an entry probe and probes on its ways out, so
 * that a call passes exactly one of each and, where possible, on instructions that the kernel
 * emulates (no single step). Pure; runs in the finder's child.
 *
 * Return probes are never used: they replace the return address, and an unwinder that meets it
 * (LuaJIT raises errors through _Unwind_RaiseException, Go copies stacks) ends the gateway.
 */
#pragma once

#include "probe/finder.h"

#include <stdint.h>

#define FLOW_CODE_MAX  16384u /* bytes of one function */
#define FLOW_INSNS_MAX 4096u

enum flow_kind {
	FLOW_OTHER,
	FLOW_CALL,   /* direct call */
	FLOW_JUMP,   /* direct, unconditional */
	FLOW_BRANCH, /* direct, conditional */
	FLOW_LEAP,   /* jump through a register or memory */
	FLOW_RET,
	FLOW_STOP, /* hlt, ud2: never continues */
};

struct flow_insn {
	uint64_t address, target; /* target: of call, jump, branch */
	int32_t delta;            /* bytes pushed since entry before it runs; -1: unknown */
	uint8_t size, kind;
	bool is_leader, is_emulated, is_in_region;
	bool is_refused; /* the kernel takes no probe on it */
	bool sets_one;   /* the register of the return value, to 1 */
	/* x86-64: any part of rdi, rsi, rdx, rcx; of rax, rbx; of rax */
	bool writes_arguments, writes_go_arguments, writes_result;
	bool stores_gc;       /* stores the 32-bit immediate -3 to memory: vmstate = ~LJ_VMST_GC */
	bool compares_zero;   /* compares 64-bit memory with 0: GCdebt of Lua 5.2 and later */
	bool compares_memory; /* compares 64-bit memory with a register: GCthreshold of 5.1 */
	int32_t stack;        /* what it adds to delta; FLOW_STACK_LOST: not known afterwards */
};

#define FLOW_STACK_LOST INT32_MIN

/* How a switch finds its case: base + (entry << shift), entry from a table in memory. */
struct flow_leap {
	uint64_t table, base;
	uint8_t width, shift; /* bytes of an entry: 1, 2 or 4 */
	bool is_signed;
};

struct flow {
	uint64_t start, end;
	unsigned int count;
	uint32_t region;              /* instruction from which exits matter; 0: the entry */
	bool has_leap, is_stack_lost; /* the graph, or the depth of the stack, is not all known */
	struct flow_leap
		leap; /* of the only switch; width 0: none, more than one, or not understood */
	struct flow_insn insns[FLOW_INSNS_MAX];
};

/* Decodes the bytes linearly (decode.c); stops at what is no instruction. machine is EM_X86_64 or
 * EM_AARCH64. -ENOEXEC when nothing decodes. */
int flow_decode(struct flow *flow, uint16_t machine, uint64_t start, const uint8_t *code,
		size_t size);

/* Entry and exits as virtual addresses; offset and point offsets in *ret are addresses until the
 * caller translates them. with_exits false: only the entry (Go). -ENOENT: no way out found,
 * -ENOTSUP: it is left by an instruction that takes no probe. */
int flow_points(struct flow *flow, bool with_exits, struct finder_function *ret);

/* One more place of the same function, after flow_points(); an address. -ENOENT: no instruction that
 * can be reached begins there. */
int flow_point_at(const struct flow *flow, uint64_t address, struct finder_point *ret);

/* From now on only exits that can be reached from that case of the switch matter. -EINVAL when no
 * instruction begins there. Before flow_points. */
int flow_only_case(struct flow *flow, uint64_t address);

bool flow_stores_gc(const struct flow *flow);
bool flow_has_calls(const struct flow *flow);

/* Where the instruction at an address jumps to, if that is another function; else 0. */
uint64_t flow_leaves_to(const struct flow *flow, uint64_t address);
