/* SPDX-License-Identifier: Apache-2.0 */
/* Control flow of one decoded function. Owns nothing. Process: the finder's child. */
#include "probe/flow.h"

#include "base/err.h"

#include <errno.h>
#include <string.h>

bool flow_stores_gc(const struct flow *flow)
{
	unsigned int i;

	for (i = 0; i < flow->count; i++) {
		if (flow->insns[i].stores_gc)
			return true;
	}
	return false;
}

bool flow_has_calls(const struct flow *flow)
{
	unsigned int i;

	for (i = 0; i < flow->count; i++) {
		if (flow->insns[i].kind == FLOW_CALL)
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

uint64_t flow_leaves_to(const struct flow *flow, uint64_t address)
{
	int at = insn_at(flow, address);

	if (at < 0 || flow->insns[at].kind != FLOW_JUMP ||
	    (flow->insns[at].target >= flow->start && flow->insns[at].target < flow->end))
		return 0;
	return flow->insns[at].target;
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
	if (in->is_refused)
		return -ENOTSUP;
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

int flow_point_at(const struct flow *flow, uint64_t address, struct finder_point *ret)
{
	int at = insn_at(flow, address);

	if (at < 0 || flow->insns[at].delta < 0)
		return -ENOENT;
	ret->offset = address;
	ret->frame = (uint32_t)flow->insns[at].delta;
	ret->flags = flow->insns[at].is_emulated ? 0 : FINDER_STEPPED;
	return 0;
}
