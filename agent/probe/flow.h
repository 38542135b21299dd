/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control flow of one x86-64 function: where to put an entry probe and probes on its ways out, so
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
	uint64_t address, target; /* of call, jump, branch; of lea relative to the next one */
	int32_t delta;            /* bytes pushed since entry before it runs; -1: unknown */
	uint8_t size, kind;
	bool is_leader, is_emulated, is_in_region;
	bool is_lea;
	bool sets_one;        /* mov $1, %eax */
	bool stores_gc;       /* stores the 32-bit immediate -3 to memory: vmstate = ~LJ_VMST_GC */
	bool compares_zero;   /* compares 64-bit memory with 0: GCdebt of Lua 5.2 and later */
	bool compares_memory; /* compares 64-bit memory with a register: GCthreshold of 5.1 */
	int32_t stack;        /* what it adds to delta; FLOW_STACK_LOST: not known afterwards */
};

#define FLOW_STACK_LOST INT32_MIN

struct flow {
	uint64_t start, end;
	unsigned int count;
	uint32_t region;              /* instruction from which exits matter; 0: the entry */
	bool has_leap, is_stack_lost; /* the graph, or the depth of the stack, is not all known */
	struct flow_insn insns[FLOW_INSNS_MAX];
};

/* Decodes the bytes linearly; stops at what is no instruction. -ENOEXEC when nothing decodes. */
int flow_decode(struct flow *flow, uint64_t start, const uint8_t *code, size_t size);

/* Entry and exits as virtual addresses; offset and point offsets in *ret are addresses until the
 * caller translates them. with_exits false: only the entry (Go). -ENOENT: no way out found. */
int flow_points(struct flow *flow, bool with_exits, struct finder_function *ret);

/* Address of the table of 32-bit distances that a switch in the function leaps by (as gcc and clang
 * make it in position-independent code); 0 when there is none, or more than one. */
uint64_t flow_leap_table(const struct flow *flow);

/* From now on only exits that can be reached from that case of the switch matter. -EINVAL when no
 * instruction begins there. Before flow_points. */
int flow_only_case(struct flow *flow, uint64_t address);

bool flow_stores_gc(const struct flow *flow);
