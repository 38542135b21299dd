/* SPDX-License-Identifier: Apache-2.0 */
/* One x86-64 instruction. Owns nothing. Process: the finder's child. */
#include "probe/decode.h"

/* What arch/x86/kernel/uprobes.c emulates: nop, push of a register (since 5.0, e7ed9d9bd037),
 * jmp, call and jcc with an immediate. Prefixed forms are single-stepped. */
static bool is_emulated(const uint8_t *b, unsigned int size)
{
	if (size == 1)
		return b[0] == 0x90 || (b[0] >= 0x50 && b[0] <= 0x57);
	if (size == 2)
		return (b[0] == 0x41 && b[1] >= 0x50 && b[1] <= 0x57) || b[0] == 0xeb ||
		       (b[0] >= 0x70 && b[0] <= 0x7f);
	if (size == 5)
		return b[0] == 0xe8 || b[0] == 0xe9;
	return size == 6 && b[0] == 0x0f && b[1] >= 0x80 && b[1] <= 0x8f;
}

static bool is_immediate(const cs_x86 *x, unsigned int i, int64_t value)
{
	return x->op_count > i && x->operands[i].type == X86_OP_IMM && x->operands[i].imm == value;
}

static int32_t stack_effect(const cs_insn *in)
{
	const cs_x86 *x = &in->detail->x86;
	unsigned int i;

	switch (in->id) {
	case X86_INS_PUSH:
		return 8;
	case X86_INS_POP:
		return -8;
	case X86_INS_LEAVE:
		return FLOW_STACK_LOST;
	case X86_INS_SUB:
	case X86_INS_ADD:
		if (x->op_count == 2 && x->operands[0].type == X86_OP_REG &&
		    x->operands[0].reg == X86_REG_RSP) {
			int64_t v = x->operands[1].imm;

			if (x->operands[1].type != X86_OP_IMM || v > 1 << 20 || v < -(1 << 20))
				return FLOW_STACK_LOST;
			return (int32_t)(in->id == X86_INS_SUB ? v : -v);
		}
		return 0;
	default:
		break;
	}
	for (i = 0; i < x->op_count; i++) {
		if (x->operands[i].type == X86_OP_REG && x->operands[i].reg == X86_REG_RSP &&
		    (x->operands[i].access & CS_AC_WRITE))
			return FLOW_STACK_LOST;
	}
	return 0;
}

static uint8_t insn_kind(const cs_insn *in)
{
	const cs_x86 *x = &in->detail->x86;
	bool is_direct = x->op_count == 1 && x->operands[0].type == X86_OP_IMM;
	unsigned int i;

	if (in->id == X86_INS_RET)
		return FLOW_RET;
	if (in->id == X86_INS_CALL)
		return is_direct ? FLOW_CALL : FLOW_OTHER;
	if (in->id == X86_INS_JMP || in->id == X86_INS_LJMP)
		return is_direct ? FLOW_JUMP : FLOW_LEAP;
	if (in->id == X86_INS_HLT || in->id == X86_INS_UD2)
		return FLOW_STOP;
	for (i = 0; i < in->detail->groups_count; i++) {
		if (in->detail->groups[i] == CS_GRP_JUMP)
			return is_direct ? FLOW_BRANCH : FLOW_LEAP;
	}
	return FLOW_OTHER;
}

static void describe_compare(const cs_x86 *x, struct flow_insn *ret)
{
	const cs_x86_op *a = &x->operands[0], *b = &x->operands[1];

	ret->compares_zero = a->type == X86_OP_MEM && a->size == 8 && is_immediate(x, 1, 0);
	ret->compares_memory = a->size == 8 && ((a->type == X86_OP_MEM && b->type == X86_OP_REG) ||
						(a->type == X86_OP_REG && b->type == X86_OP_MEM));
}

/* Registers in which arguments and results are passed. */
static void describe_write(unsigned int reg, struct flow_insn *ret)
{
	switch (reg) {
	case X86_REG_RAX:
	case X86_REG_EAX:
	case X86_REG_AX:
	case X86_REG_AL:
	case X86_REG_AH:
		ret->writes_result = true;
		ret->writes_go_arguments = true;
		break;
	case X86_REG_RBX:
	case X86_REG_EBX:
	case X86_REG_BX:
	case X86_REG_BL:
	case X86_REG_BH:
		ret->writes_go_arguments = true;
		break;
	case X86_REG_RDI:
	case X86_REG_EDI:
	case X86_REG_DI:
	case X86_REG_DIL:
	case X86_REG_RSI:
	case X86_REG_ESI:
	case X86_REG_SI:
	case X86_REG_SIL:
	case X86_REG_RDX:
	case X86_REG_EDX:
	case X86_REG_DX:
	case X86_REG_DL:
	case X86_REG_DH:
	case X86_REG_RCX:
	case X86_REG_ECX:
	case X86_REG_CX:
	case X86_REG_CL:
	case X86_REG_CH:
		ret->writes_arguments = true;
		break;
	}
}

static void describe_writes(const cs_detail *d, struct flow_insn *ret)
{
	unsigned int i;

	for (i = 0; i < d->regs_write_count; i++)
		describe_write(d->regs_write[i], ret);
	for (i = 0; i < d->x86.op_count; i++) {
		const cs_x86_op *op = &d->x86.operands[i];

		if (op->type == X86_OP_REG && op->access & CS_AC_WRITE)
			describe_write(op->reg, ret);
	}
}

void decode_x86(const cs_insn *in, struct decode_memory *memory, struct flow_insn *ret)
{
	const cs_x86 *x = &in->detail->x86;

	ret->kind = insn_kind(in);
	ret->is_emulated = is_emulated(in->bytes, in->size);
	ret->stack = stack_effect(in);
	describe_writes(in->detail, ret);
	if (ret->kind == FLOW_CALL || ret->kind == FLOW_JUMP || ret->kind == FLOW_BRANCH)
		ret->target = (uint64_t)x->operands[0].imm;
	if (in->id == X86_INS_LEA && x->op_count == 2 && x->operands[1].mem.base == X86_REG_RIP) {
		uint64_t at = in->address + in->size + (uint64_t)x->operands[1].mem.disp;

		memory->leap =
			(struct flow_leap){.table = at, .base = at, .width = 4, .is_signed = true};
	}
	if (in->id == X86_INS_MOV && x->op_count == 2) {
		ret->sets_one = x->operands[0].type == X86_OP_REG &&
				x->operands[0].reg == X86_REG_EAX && is_immediate(x, 1, 1);
		ret->stores_gc = x->operands[0].type == X86_OP_MEM && x->operands[0].size == 4 &&
				 x->operands[1].type == X86_OP_IMM &&
				 (int32_t)x->operands[1].imm == -3;
	}
	if (in->id == X86_INS_CMP && x->op_count == 2)
		describe_compare(x, ret);
}
