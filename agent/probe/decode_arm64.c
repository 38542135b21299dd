/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One aarch64 instruction. capstone names it; fields are read from the word, which has one length
 * and one place for each (Arm ARM DDI 0487, C4.1). Owns nothing. Process: the finder's child.
 */
#include "probe/decode.h"

#include <string.h>

#define STACK_POINTER 31u

static uint32_t bits(uint32_t word, unsigned int from, unsigned int count)
{
	return word >> from & ((1u << count) - 1);
}

static int32_t signed_bits(uint32_t word, unsigned int from, unsigned int count)
{
	return (int32_t)(word << (32 - from - count)) >> (32 - count);
}

static bool is_like(uint32_t word, uint32_t mask, uint32_t value)
{
	return (word & mask) == value;
}

/* retaa, retab: newer than capstone 4. */
static bool is_signed_return(uint32_t word)
{
	return is_like(word, 0xfffffbff, 0xd65f0bff);
}

static uint8_t insn_kind(const cs_insn *in, uint32_t word)
{
	switch (in->id) {
	case ARM64_INS_BL:
		return FLOW_CALL;
	case ARM64_INS_B:
		return bits(word, 26, 6) == 0x05 ? FLOW_JUMP : FLOW_BRANCH;
	case ARM64_INS_CBZ:
	case ARM64_INS_CBNZ:
	case ARM64_INS_TBZ:
	case ARM64_INS_TBNZ:
		return FLOW_BRANCH;
	case ARM64_INS_BR:
		return FLOW_LEAP;
	case ARM64_INS_RET:
		return FLOW_RET;
	case ARM64_INS_BRK:
	case ARM64_INS_HLT:
		return FLOW_STOP;
	default:
		break;
	}
	if (is_signed_return(word))
		return FLOW_RET;
	return word < 0x10000 ? FLOW_STOP : FLOW_OTHER; /* udf */
}

/* Bytes from the instruction to the target of a direct branch. */
static int64_t branch_distance(uint32_t word)
{
	if (is_like(word, 0x7c000000, 0x14000000)) /* b, bl */
		return (int64_t)signed_bits(word, 0, 26) * 4;
	if (is_like(word, 0x7e000000, 0x36000000)) /* tbz, tbnz */
		return (int64_t)signed_bits(word, 5, 14) * 4;
	return (int64_t)signed_bits(word, 5, 19) * 4;
}

/* What arch/arm64/kernel/probes/decode-insn.c simulates: all direct branches, br, blr, ret, adr,
 * adrp. Everything else is single-stepped out of line; stp and sub, as functions begin, too. */
static bool is_emulated(const cs_insn *in, uint8_t kind, uint32_t word)
{
	return (kind != FLOW_OTHER && kind != FLOW_STOP && !is_signed_return(word)) ||
	       in->id == ARM64_INS_BLR || is_like(word, 0x1f000000, 0x10000000);
}

/* Of load and store with writeback to the stack pointer: how far it moves; 0 otherwise. */
static int32_t writeback(uint32_t word)
{
	unsigned int scale;

	if (bits(word, 5, 5) != STACK_POINTER)
		return 0;
	/* Pairs: bit 24 clear and bit 23 set is pre- or post-index. */
	if (is_like(word, 0x3a800000, 0x28800000)) {
		scale = bits(word, 26, 1) ? 2 + bits(word, 30, 2) : bits(word, 31, 1) ? 3 : 2;
		return -signed_bits(word, 15, 7) * (1 << scale);
	}
	/* Single registers: bit 10 set, bit 21 clear. */
	if (is_like(word, 0x3b200400, 0x38000400))
		return -signed_bits(word, 12, 9);
	return 0;
}

static int32_t stack_effect(uint32_t word)
{
	/* add, sub with an immediate; bit 29 set writes flags, and register 31 is then no stack */
	if (is_like(word, 0x3f80001f, 0x1100001f)) {
		int32_t value = (int32_t)(bits(word, 10, 12) << (bits(word, 22, 1) ? 12 : 0));

		if (bits(word, 5, 5) != STACK_POINTER)
			return FLOW_STACK_LOST;
		return bits(word, 30, 1) ? value : -value;
	}
	/* add, sub of an extended register; and, orr, eor with an immediate */
	if (is_like(word, 0x3fe0001f, 0x0b20001f) ||
	    (is_like(word, 0x1f80001f, 0x1200001f) && bits(word, 29, 2) != 3))
		return FLOW_STACK_LOST;
	return writeback(word);
}

static bool is_load64(uint32_t word)
{
	return is_like(word, 0xffc00000, 0xf9400000) || is_like(word, 0xffe00c00, 0xf8400000);
}

/* add, adr, adrp: addresses; all else that writes a general register forgets what it held. */
static void track_registers(const struct flow_insn *at, uint32_t word, struct decode_memory *m)
{
	unsigned int to = bits(word, 0, 5), from = bits(word, 5, 5);
	uint64_t address = 0;
	uint32_t loaded = 0;
	bool is_signed_load = is_like(word, 0x38800000, 0x38800000);
	bool is_store =
		is_like(word, 0x0a000000, 0x08000000) && !bits(word, 22, 1) && !is_signed_load;

	if (at->kind == FLOW_CALL) {
		memset(m->address, 0, 19 * sizeof(m->address[0]));
		m->loaded &= ~0x7ffffu;
		m->vmstate_gc &= ~0x7ffffu;
		return;
	}
	if (at->kind != FLOW_OTHER || is_store)
		return;
	if (is_like(word, 0x1f000000, 0x10000000)) {
		int64_t distance =
			(int64_t)signed_bits(word, 5, 19) * 4 + (int64_t)bits(word, 29, 2);

		address = bits(word, 31, 1) ? (at->address & ~0xfffull) + (uint64_t)distance * 4096
					    : at->address + (uint64_t)distance;
	} else if (is_like(word, 0xffc00000, 0x91000000) && m->address[from]) {
		address = m->address[from] + bits(word, 10, 12);
	} else if (is_load64(word)) {
		loaded = 1u << to;
	} else if (is_like(word, 0xffc00000, 0xa9400000)) { /* ldp of two 64-bit registers */
		loaded = 1u << to | 1u << bits(word, 10, 5);
	}
	m->address[to] = address;
	m->loaded = (m->loaded & ~(1u << to)) | loaded;
	m->vmstate_gc &= ~(1u << to);
	if (is_like(word, 0xffffffe0, 0x12800040)) /* mov w, -3 */
		m->vmstate_gc |= 1u << to;
}

/* A switch: an entry of 1, 2 or 4 bytes is loaded from a table, extended, shifted and added to a
 * base; gcc and clang write the steps in this order. Before track_registers. */
static void track_leap(uint32_t word, struct decode_memory *m)
{
	static const struct {
		uint32_t value;
		uint8_t width;
		bool is_signed;
	} loads[] = {{0x38600800, 1, false}, /* ldrb */
		     {0x78600800, 2, false}, /* ldrh */
		     {0xb8600800, 4, false},
		     {0xb8a00800, 4, true}}; /* ldrsw */
	unsigned int a = bits(word, 5, 5), b = bits(word, 16, 5), i;

	for (i = 0; i < sizeof(loads) / sizeof(loads[0]); i++) {
		if (is_like(word, 0xffe00c00, loads[i].value) && m->address[a])
			m->leap = (struct flow_leap){.table = m->address[a],
						     .width = loads[i].width,
						     .is_signed = loads[i].is_signed};
	}
	if (is_like(word, 0xffe00000, 0x8b200000) && m->address[a]) { /* add, extended register */
		m->leap.base = m->address[a];
		m->leap.is_signed = bits(word, 13, 3) >= 4;
		m->leap.shift = (uint8_t)bits(word, 10, 3);
	} else if (is_like(word, 0xffe00000, 0x8b000000) && (m->address[a] || m->address[b])) {
		m->leap.base = m->address[a] ? m->address[a] : m->address[b];
		m->leap.shift = (uint8_t)bits(word, 10, 6);
	}
}

void decode_arm64(const cs_insn *in, struct decode_memory *memory, struct flow_insn *ret)
{
	uint32_t word;

	if (in->size != sizeof(word)) {
		ret->kind = FLOW_STOP;
		return;
	}
	memcpy(&word, in->bytes, sizeof(word));
	ret->kind = insn_kind(in, word);
	ret->is_emulated = is_emulated(in, ret->kind, word);
	ret->is_refused = is_signed_return(word);
	ret->stack = stack_effect(word);
	if (ret->kind == FLOW_CALL || ret->kind == FLOW_JUMP || ret->kind == FLOW_BRANCH)
		ret->target = in->address + (uint64_t)branch_distance(word);
	ret->sets_one = word == 0x52800020; /* mov w0, 1 */
	ret->stores_gc =
		(is_like(word, 0xffc00000, 0xb9000000) || is_like(word, 0xffe00c00, 0xb8000000)) &&
		memory->vmstate_gc >> bits(word, 0, 5) & 1;
	/* cmp x, 0 (or 1: clang turns "> 0" into ">= 1"), cmp x, x of what was loaded before */
	ret->compares_zero =
		is_like(word, 0xfffff81f, 0xf100001f) && memory->loaded >> bits(word, 5, 5) & 1;
	ret->compares_memory = is_like(word, 0xffe0fc1f, 0xeb00001f) &&
			       memory->loaded >> bits(word, 5, 5) & 1 &&
			       memory->loaded >> bits(word, 16, 5) & 1;
	track_leap(word, memory);
	track_registers(ret, word, memory);
}
