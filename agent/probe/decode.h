/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From one machine instruction to what the flow of a function needs of it, for x86-64 and aarch64.
 * Only decode.c calls these. Pure; runs in the finder's child.
 */
#pragma once

#include "probe/flow.h"

#include <capstone/capstone.h>

/* What is remembered from one instruction to the next, in the order in which they lie: enough for
 * short patterns, and nothing that a wrong guess could not survive. */
struct decode_memory {
	uint64_t address[32]; /* aarch64: what adr, adrp and add put into a register; 0: unknown */
	uint32_t loaded;      /* aarch64: bit mask of registers that hold 64-bit memory */
	uint32_t vmstate_gc;  /* aarch64: … that hold the 32-bit value -3 */
	struct flow_leap leap;
};

/* *ret comes zeroed but for address, size and delta. */
void decode_x86(const cs_insn *in, struct decode_memory *memory, struct flow_insn *ret);
void decode_arm64(const cs_insn *in, struct decode_memory *memory, struct flow_insn *ret);
