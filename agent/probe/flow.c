/* SPDX-License-Identifier: Apache-2.0 */
/* Control flow of one function. Owns nothing; capstone decodes. Process: the finder's child. */
#include "probe/flow.h"

#include "base/err.h"

#include <capstone/capstone.h>
#include <errno.h>
#include <string.h>

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

static void describe(const cs_insn *in, struct flow_insn *ret)
{
	const cs_x86 *x = &in->detail->x86;

	memset(ret, 0, sizeof(*ret));
	ret->address = in->address;
	ret->size = (uint8_t)in->size;
	ret->kind = insn_kind(in);
	ret->delta = -1;
	ret->is_emulated = is_emulated(in->bytes, in->size);
	ret->stack = stack_effect(in);
	if (ret->kind == FLOW_CALL || ret->kind == FLOW_JUMP || ret->kind == FLOW_BRANCH)
		ret->target = (uint64_t)x->operands[0].imm;
	if (in->id == X86_INS_LEA && x->op_count == 2 && x->operands[1].mem.base == X86_REG_RIP) {
		ret->is_lea = true;
		ret->target = in->address + in->size + (uint64_t)x->operands[1].mem.disp;
	}
	if (in->id == X86_INS_MOV && x->op_count == 2) {
		ret->sets_one = x->operands[0].type == X86_OP_REG &&
				x->operands[0].reg == X86_REG_EAX && is_immediate(x, 1, 1);
		ret->stores_gc = x->operands[0].type == X86_OP_MEM && x->operands[0].size == 4 &&
				 x->operands[1].type == X86_OP_IMM &&
				 (int32_t)x->operands[1].imm == -3;
	}
	if (in->id == X86_INS_CMP && x->op_count == 2) {
		const cs_x86_op *a = &x->operands[0], *b = &x->operands[1];

		ret->compares_zero = a->type == X86_OP_MEM && a->size == 8 && is_immediate(x, 1, 0);
		ret->compares_memory =
			a->size == 8 && ((a->type == X86_OP_MEM && b->type == X86_OP_REG) ||
					 (a->type == X86_OP_REG && b->type == X86_OP_MEM));
	}
}

int flow_decode(struct flow *flow, uint64_t start, const uint8_t *code, size_t size)
{
	uint64_t address = start;
	cs_insn *in;
	csh handle;

	memset(flow, 0, sizeof(*flow));
	flow->start = start;
	if (cs_open(CS_ARCH_X86, CS_MODE_64, &handle) != CS_ERR_OK)
		return -ENOMEM;
	cs_option(handle, CS_OPT_DETAIL, CS_OPT_ON);
	in = cs_malloc(handle);
	if (!in) {
		cs_close(&handle);
		return -ENOMEM;
	}
	if (size > FLOW_CODE_MAX)
		size = FLOW_CODE_MAX;
	while (flow->count < FLOW_INSNS_MAX && cs_disasm_iter(handle, &code, &size, &address, in)) {
		describe(in, &flow->insns[flow->count]);
		flow->has_leap |= flow->insns[flow->count].kind == FLOW_LEAP;
		flow->count++;
	}
	flow->end = address;
	cs_free(in, 1);
	cs_close(&handle);
	return flow->count > 0 ? 0 : -ENOEXEC;
}

bool flow_stores_gc(const struct flow *flow)
{
	unsigned int i;

	for (i = 0; i < flow->count; i++) {
		if (flow->insns[i].stores_gc)
			return true;
	}
	return false;
}

/* Index of the instruction at an address; -1 when it is none of this function's. */
static int insn_at(const struct flow *flow, uint64_t address)
{
	unsigned int low = 0, high = flow->count;

	while (low < high) {
		unsigned int mid = (low + high) / 2;

		if (flow->insns[mid].address < address)
			low = mid + 1;
		else
			high = mid;
	}
	return low < flow->count && flow->insns[low].address == address ? (int)low : -1;
}

uint64_t flow_leap_table(const struct flow *flow)
{
	uint64_t table = 0, last = 0;
	unsigned int i;

	for (i = 0; i < flow->count; i++) {
		if (flow->insns[i].is_lea)
			last = flow->insns[i].target;
		if (flow->insns[i].kind != FLOW_LEAP)
			continue;
		if (table)
			return 0;
		table = last;
	}
	return table;
}

int flow_only_case(struct flow *flow, uint64_t address)
{
	int at = insn_at(flow, address);

	if (at <= 0)
		return -EINVAL;
	flow->region = (uint32_t)at;
	return 0;
}

static bool ends_block(const struct flow_insn *in)
{
	return in->kind == FLOW_JUMP || in->kind == FLOW_BRANCH || in->kind == FLOW_LEAP ||
	       in->kind == FLOW_RET || in->kind == FLOW_STOP;
}

static bool falls_through(const struct flow_insn *in)
{
	return in->kind == FLOW_OTHER || in->kind == FLOW_CALL || in->kind == FLOW_BRANCH;
}

static void mark_leaders(struct flow *flow)
{
	unsigned int i;

	flow->insns[0].is_leader = true;
	for (i = 0; i < flow->count; i++) {
		const struct flow_insn *in = &flow->insns[i];
		int at;

		if (!ends_block(in))
			continue;
		if (i + 1 < flow->count)
			flow->insns[i + 1].is_leader = true;
		at = in->kind == FLOW_JUMP || in->kind == FLOW_BRANCH ? insn_at(flow, in->target)
								      : -1;
		if (at >= 0)
			flow->insns[at].is_leader = true;
	}
}

/* The instructions that can follow; a leap goes to the one case that matters. */
static unsigned int followers(const struct flow *flow, unsigned int i, unsigned int ret[2])
{
	const struct flow_insn *in = &flow->insns[i];
	unsigned int n = 0;
	int at = -1;

	if (falls_through(in) && i + 1 < flow->count)
		ret[n++] = i + 1;
	if (in->kind == FLOW_JUMP || in->kind == FLOW_BRANCH)
		at = insn_at(flow, in->target);
	else if (in->kind == FLOW_LEAP && flow->region)
		at = (int)flow->region;
	if (at >= 0)
		ret[n++] = (unsigned int)at;
	return n;
}

/* Depth of the stack at every instruction, by following all edges from the entry. An instruction
 * is visited once, so the work is bounded by their number. */
static void track_stack(struct flow *flow)
{
	static uint16_t stack[FLOW_INSNS_MAX * 2];
	unsigned int depth = 0, next[2], n;

	stack[depth++] = 0;
	flow->insns[0].delta = 0;
	while (depth > 0) {
		unsigned int i = stack[--depth];
		const struct flow_insn *in = &flow->insns[i];
		int32_t after = in->stack == FLOW_STACK_LOST ? -1 : in->delta + in->stack;

		if (after < 0) {
			flow->is_stack_lost |= in->kind != FLOW_RET;
			continue;
		}
		for (n = followers(flow, i, next); n > 0; n--) {
			if (flow->insns[next[n - 1]].delta >= 0)
				continue;
			flow->insns[next[n - 1]].delta = after;
			stack[depth++] = (uint16_t)next[n - 1];
		}
	}
}

/* What can be reached from the region's first instruction; all, where there is no region. */
static void mark_region(struct flow *flow)
{
	static uint16_t stack[FLOW_INSNS_MAX * 2];
	unsigned int depth = 0, next[2], n, i;

	for (i = 0; i < flow->count; i++)
		flow->insns[i].is_in_region = !flow->region;
	if (!flow->region)
		return;
	stack[depth++] = (uint16_t)flow->region;
	flow->insns[flow->region].is_in_region = true;
	while (depth > 0) {
		i = stack[--depth];
		for (n = followers(flow, i, next); n > 0; n--) {
			if (flow->insns[next[n - 1]].is_in_region)
				continue;
			flow->insns[next[n - 1]].is_in_region = true;
			stack[depth++] = (uint16_t)next[n - 1];
		}
	}
}

/* The return into which the block that begins at `from` runs straight, if that returns no 1; else
 * -1. */
static int plain_return(const struct flow *flow, int from)
{
	unsigned int i;

	if (from < 0)
		return -1;
	for (i = (unsigned int)from; i < flow->count; i++) {
		const struct flow_insn *in = &flow->insns[i];

		if (in->sets_one || (in->is_leader && i != (unsigned int)from))
			return -1;
		if (in->kind == FLOW_RET)
			return (int)i;
		if (ends_block(in) || in->kind == FLOW_CALL)
			return -1;
	}
	return -1;
}

static bool block_sets_one(const struct flow *flow, unsigned int exit)
{
	unsigned int i = exit;

	for (;;) {
		if (flow->insns[i].sets_one)
			return true;
		if (flow->insns[i].is_leader || i == 0)
			return false;
		i--;
	}
}

struct ways {
	unsigned int all, jumps; /* jumps: unconditional, emulated, depth of the stack known */
};

/* Ways into the block that holds instruction `at`, from the region. */
static struct ways ways_in(const struct flow *flow, unsigned int at)
{
	struct ways ways = {0};
	unsigned int i;

	while (!flow->insns[at].is_leader)
		at--;
	for (i = 0; i < flow->count; i++) {
		const struct flow_insn *in = &flow->insns[i];
		bool is_direct = in->kind == FLOW_JUMP || in->kind == FLOW_BRANCH;

		if (!in->is_in_region)
			continue;
		/* Padding is reached from nowhere. */
		if (i + 1 == at && in->delta >= 0 && falls_through(in))
			ways.all++;
		if (!is_direct || in->target != flow->insns[at].address)
			continue;
		ways.all++;
		ways.jumps += in->kind == FLOW_JUMP && in->is_emulated && in->delta >= 0;
	}
	return ways;
}

/* All edges of the graph that matter, and the depth of the stack, are known. */
static bool is_known(const struct flow *flow)
{
	return !flow->is_stack_lost && (!flow->has_leap || flow->region);
}

/* A branch both of whose ways are plain returns that nothing else leads to is one exit in itself,
 * and the kernel emulates it, while it single-steps a ret. */
static bool is_exit_branch(const struct flow *flow, unsigned int i, int *ret_a, int *ret_b)
{
	const struct flow_insn *in = &flow->insns[i];
	int a, b;

	if (in->kind != FLOW_BRANCH || !in->is_emulated || in->delta < 0 || !is_known(flow))
		return false;
	a = plain_return(flow, insn_at(flow, in->target));
	b = plain_return(flow, i + 1 < flow->count ? (int)i + 1 : -1);
	if (a < 0 || b < 0 || a == b)
		return false;
	if (ways_in(flow, (unsigned int)a).all != 1 || ways_in(flow, (unsigned int)b).all != 1)
		return false;
	*ret_a = a;
	*ret_b = b;
	return true;
}

/* A jump out of the function after its frame was taken down is a tail call. */
static bool is_tail_call(const struct flow *flow, unsigned int i)
{
	const struct flow_insn *in = &flow->insns[i];

	if (in->kind != FLOW_JUMP || (in->target >= flow->start && in->target < flow->end))
		return false;
	if (in->delta >= 0)
		return in->delta == 0;
	/* Behind a jump table the depth is not known; a pop in the same block tells as much. */
	while (!flow->insns[i].is_leader && i > 0) {
		i--;
		if (flow->insns[i].stack < 0 && flow->insns[i].stack != FLOW_STACK_LOST)
			return true;
	}
	return false;
}

static int add_exit(struct finder_function *f, const struct flow_insn *in, bool is_cycle)
{
	struct finder_point *p;

	if (f->exit_count >= FINDER_EXITS_MAX)
		return -E2BIG;
	p = &f->exits[f->exit_count++];
	p->offset = in->address;
	p->frame = in->delta > 0 && in->kind != FLOW_RET ? (uint32_t)in->delta : 0;
	p->flags = (in->is_emulated ? 0 : FINDER_STEPPED) | (is_cycle ? FINDER_CYCLE : 0);
	return 0;
}

/* A return to which only emulated jumps lead is left by these jumps; -EAGAIN when it is not. */
static int add_jumps(const struct flow *flow, unsigned int exit, struct finder_function *ret)
{
	struct ways ways = ways_in(flow, exit);
	unsigned int at = exit, i;
	int r;

	while (!flow->insns[at].is_leader)
		at--;
	if (!is_known(flow) || at == 0 || ways.all == 0 || ways.jumps != ways.all ||
	    plain_return(flow, (int)at) < 0)
		return -EAGAIN;
	for (i = 0; i < flow->count; i++) {
		const struct flow_insn *in = &flow->insns[i];

		if (!in->is_in_region || in->kind != FLOW_JUMP ||
		    in->target != flow->insns[at].address)
			continue;
		r = add_exit(ret, in, false);
		if (r < 0)
			return r;
	}
	return 0;
}

static int find_exits(const struct flow *flow, struct finder_function *ret)
{
	static bool is_covered[FLOW_INSNS_MAX];
	unsigned int i;
	int a, b, r;

	memset(is_covered, 0, sizeof(is_covered));
	for (i = 0; i < flow->count; i++) {
		if (!flow->insns[i].is_in_region || !is_exit_branch(flow, i, &a, &b))
			continue;
		is_covered[a] = is_covered[b] = true;
		r = add_exit(ret, &flow->insns[i], false);
		if (r < 0)
			return r;
	}
	for (i = 0; i < flow->count; i++) {
		const struct flow_insn *in = &flow->insns[i];

		if (!in->is_in_region || is_covered[i] ||
		    (in->kind != FLOW_RET && !is_tail_call(flow, i)))
			continue;
		r = in->kind == FLOW_RET ? add_jumps(flow, i, ret) : -EAGAIN;
		if (r == -EAGAIN)
			r = add_exit(ret, in, in->kind == FLOW_RET && block_sets_one(flow, i));
		if (r < 0)
			return r;
	}
	return ret->exit_count > 0 ? 0 : -ENOENT;
}

/* The first emulatable instruction of the entry block, where the block is entered only by calls.
 * (Go jumps back to it once its stack grew; the functions probed run where none grows.) */
static void find_entry(const struct flow *flow, bool is_go, struct finder_point *ret)
{
	const struct flow_insn *in = &flow->insns[0];
	unsigned int i;

	for (i = 0; i < 4 && i < flow->count && (is_go || ways_in(flow, 0).all == 0); i++) {
		if (flow->insns[i].is_leader && i > 0)
			break;
		if (flow->insns[i].kind == FLOW_CALL || flow->insns[i].delta < 0)
			break;
		if (flow->insns[i].is_emulated) {
			in = &flow->insns[i];
			break;
		}
		if (ends_block(&flow->insns[i]))
			break;
	}
	ret->offset = in->address;
	ret->frame = (uint32_t)in->delta;
	ret->flags = in->is_emulated ? 0 : FINDER_STEPPED;
}

int flow_points(struct flow *flow, bool with_exits, struct finder_function *ret)
{
	struct finder_function found = {.offset = flow->start};
	int r;

	mark_leaders(flow);
	if (flow->region)
		flow->insns[flow->region].is_leader = true;
	track_stack(flow);
	mark_region(flow);
	find_entry(flow, !with_exits, &found.entry);
	if (with_exits) {
		r = find_exits(flow, &found);
		if (r < 0)
			return r;
	}
	*ret = found;
	return 0;
}
