/* SPDX-License-Identifier: Apache-2.0 */
/* Probe points of functions whose arguments and result are read. Process: the finder's child. */
#include "probe/callpoint.h"

#include <errno.h>

/* A protected prologue loads the canary, then tests an argument. */
#define ENTRY_INSNS 12u

static bool is_inside(const struct flow *flow, uint64_t address)
{
	return address >= flow->start && address < flow->end;
}

static bool is_direct_jump(const struct flow_insn *in)
{
	return in->kind == FLOW_JUMP || in->kind == FLOW_BRANCH;
}

static bool is_target(const struct flow *flow, uint64_t address)
{
	unsigned int i;

	for (i = 0; i < flow->count; i++) {
		if (is_direct_jump(&flow->insns[i]) && flow->insns[i].target == address)
			return true;
	}
	return false;
}

static void point_at(const struct flow_insn *in, struct finder_point *ret)
{
	*ret = (struct finder_point){.offset = in->address,
				     .flags = in->is_emulated ? 0 : FINDER_STEPPED};
}

/* The first emulated instruction of the entry block; else the very first. Go comes back to the first
 * one after its stack grew, with the arguments as they were. */
static void find_entry(const struct flow *flow, bool is_go, struct finder_point *ret)
{
	unsigned int i;

	point_at(&flow->insns[0], ret);
	if (!is_go && (flow->has_leap || is_target(flow, flow->start)))
		return;
	for (i = 0; i < ENTRY_INSNS && i < flow->count; i++) {
		const struct flow_insn *in = &flow->insns[i];

		if (i > 0 && is_target(flow, in->address))
			return;
		if (in->is_emulated) {
			point_at(in, ret);
			return;
		}
		if (in->kind != FLOW_OTHER ||
		    (is_go ? in->writes_go_arguments : in->writes_arguments))
			return;
	}
}

/* A branch to the function's last instruction, a call that never returns: of a broken canary. */
static bool is_canary_check(const struct flow *flow, const struct flow_insn *in)
{
	const struct flow_insn *last = &flow->insns[flow->count - 1];

	return in->kind == FLOW_BRANCH && in->is_emulated && in->target == last->address &&
	       last->kind == FLOW_CALL;
}

/* The check of the canary right before a return, if nothing else leads between them. */
static const struct flow_insn *before_return(const struct flow *flow, unsigned int i)
{
	const struct flow_insn *ret = &flow->insns[i];

	if (flow->has_leap)
		return ret;
	for (; i > 0; i--) {
		const struct flow_insn *before = &flow->insns[i - 1];

		if (is_target(flow, flow->insns[i].address))
			break;
		if (is_canary_check(flow, before))
			return before;
		if (before->kind != FLOW_OTHER || before->writes_result)
			break;
	}
	return ret;
}

int callpoint_find(const struct flow *flow, bool is_go, struct finder_function *ret)
{
	struct finder_function found = {.offset = flow->start};
	unsigned int i;

	find_entry(flow, is_go, &found.entry);
	for (i = 0; i < flow->count; i++) {
		const struct flow_insn *in = &flow->insns[i];

		/* A jump out may be a tail call (Go makes none); a branch out is to a cold part. */
		if (!is_go && (in->kind == FLOW_LEAP ||
			       (in->kind == FLOW_JUMP && !is_inside(flow, in->target))))
			return -ENOTSUP;
		if (in->kind != FLOW_RET)
			continue;
		if (found.exit_count == FINDER_EXITS_MAX)
			return -E2BIG;
		point_at(is_go ? in : before_return(flow, i), &found.exits[found.exit_count++]);
	}
	if (!found.exit_count)
		return -ENOENT;
	*ret = found;
	return 0;
}
