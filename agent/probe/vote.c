/* SPDX-License-Identifier: Apache-2.0 */
/* Call vote over exported functions. Owns nothing. Process: the finder's child. */
#include "probe/vote.h"

#include "base/str.h"

#include <errno.h>
#include <string.h>

/* A vote without lua_gc and lua_tolstring finds the function that grows the stack instead. */
static const struct {
	const char *name;
	bool is_needed;
} voters[] = {
	{"lua_gc", true},           {"lua_tolstring", true},    {"lua_createtable", false},
	{"lua_pushlstring", false}, {"lua_newuserdata", false}, {"lua_newuserdatauv", false},
	{"lua_concat", false},      {"lua_newthread", false},
};

#define VOTE_MIN          5u /* functions that must agree */
#define VOTE_TARGETS_MAX  256u
#define VOTE_FUNCTION_MAX 4096u

enum { BY_GC = 1, BY_TOLSTRING = 2 }; /* bits of candidate.by: the first two voters */

struct candidate {
	uint64_t address;
	unsigned int votes, debt, threshold;
	uint32_t by; /* bit mask of voters */
};

struct ballot {
	struct candidate candidates[VOTE_TARGETS_MAX];
	unsigned int count;
};

/* What a function calls, the last thing it does included: a jump, or a branch, out of it. */
static bool is_call(const struct flow *flow, const struct flow_insn *in)
{
	if (in->kind != FLOW_CALL && in->kind != FLOW_JUMP && in->kind != FLOW_BRANCH)
		return false;
	return in->target < flow->start || in->target >= flow->end;
}

static void cast(struct ballot *ballot, uint64_t target, unsigned int voter, bool is_debt,
		 bool is_threshold)
{
	struct candidate *c;
	unsigned int i;

	for (i = 0; i < ballot->count && ballot->candidates[i].address != target; i++)
		;
	if (i == VOTE_TARGETS_MAX)
		return;
	c = &ballot->candidates[i];
	if (i == ballot->count) {
		ballot->count++;
		c->address = target;
	}
	if (c->by & (1u << voter))
		return;
	c->by |= 1u << voter;
	c->votes++;
	c->debt += is_debt;
	c->threshold += is_threshold;
}

/* gcc puts the call of the step behind "cmpq $0, GCdebt(g); jg": the comparison lies before the
 * call or before the branch to it, so it is looked for in the whole function. */
static void collect(struct ballot *ballot, const struct flow *flow, unsigned int voter)
{
	bool is_debt = false, is_threshold = false;
	unsigned int i;

	for (i = 0; i < flow->count; i++) {
		is_debt |= flow->insns[i].compares_zero;
		is_threshold |= flow->insns[i].compares_memory;
	}
	for (i = 0; i < flow->count; i++) {
		if (is_call(flow, &flow->insns[i]))
			cast(ballot, flow->insns[i].target, voter, is_debt, is_threshold);
	}
}

static int read_function(const struct elffile *f, uint64_t start, uint64_t size, struct flow *flow)
{
	static uint8_t code[VOTE_FUNCTION_MAX];
	uint64_t next;
	int r;

	if (size == 0 && elffile_next_function(f, start, &next) == 0)
		size = next - start;
	if (size == 0 || size > sizeof(code))
		size = sizeof(code);
	r = elffile_read_code(f, start, code, size, &size);
	if (r < 0)
		return r;
	return flow_decode(flow, f->header.e_machine, start, code, size);
}

/* The candidate with most votes among those that exactly these of the first two voters call. */
static const struct candidate *winner(const struct ballot *ballot, uint32_t by, bool *ret_is_tie)
{
	const struct candidate *best = NULL;
	unsigned int i;

	*ret_is_tie = false;
	for (i = 0; i < ballot->count; i++) {
		const struct candidate *c = &ballot->candidates[i];

		if ((c->by & (BY_GC | BY_TOLSTRING)) != by)
			continue;
		if (best && c->votes == best->votes)
			*ret_is_tie = true;
		if (!best || c->votes > best->votes) {
			best = c;
			*ret_is_tie = false;
		}
	}
	return best;
}

static bool has_calls(const struct elffile *f, uint64_t address, struct flow *scratch)
{
	unsigned int i;

	if (read_function(f, address, 0, scratch) < 0)
		return false;
	for (i = 0; i < scratch->count; i++) {
		if (scratch->insns[i].kind == FLOW_CALL)
			return true;
	}
	return false;
}

/* Of what the function at `from` calls, the one that lua_gc calls too and that calls others itself
 * (luaE_setdebt, which both call, calls nothing); 0 when it is none, or not alone. */
static uint64_t inner_step(const struct elffile *f, const struct ballot *ballot, uint64_t from,
			   struct flow *scratch)
{
	uint64_t targets[8], found = 0;
	unsigned int count = 0, i, j;

	if (read_function(f, from, 0, scratch) < 0)
		return 0;
	for (i = 0; i < scratch->count && count < ARRAY_LEN(targets); i++) {
		if (is_call(scratch, &scratch->insns[i]))
			targets[count++] = scratch->insns[i].target;
	}
	for (i = 0; i < count; i++) {
		for (j = 0; j < ballot->count; j++) {
			const struct candidate *c = &ballot->candidates[j];

			if (c->address != targets[i] || !(c->by & BY_GC) || c->address == found ||
			    !has_calls(f, c->address, scratch))
				continue;
			if (found)
				return 0;
			found = c->address;
		}
	}
	return found;
}

static int take_all(const struct elffile *f, const struct symbols *symbols, struct ballot *ballot,
		    struct flow *scratch, unsigned int *ret_voters, struct err *e)
{
	enum symbols_from from;
	unsigned int i;
	int r;

	memset(ballot, 0, sizeof(*ballot));
	*ret_voters = 0;
	for (i = 0; i < ARRAY_LEN(voters); i++) {
		const Elf64_Sym *sym = symbols_find(symbols, voters[i].name, &from);

		if (!sym && voters[i].is_needed)
			return err_set(e, -ENOENT, "%s is not exported", voters[i].name);
		if (!sym)
			continue;
		r = read_function(f, sym->st_value, sym->st_size, scratch);
		if (r < 0)
			return err_set(e, -ENOENT, "%s has no code that can be read",
				       voters[i].name);
		++*ret_voters;
		collect(ballot, scratch, i);
	}
	return 0;
}

/* One way to count; is_split as in vote.h. */
static int count(const struct elffile *f, const struct ballot *ballot, bool is_split,
		 struct flow *scratch, struct vote *vote, struct err *e)
{
	const struct candidate *best;
	bool is_tie;

	best = winner(ballot, is_split ? BY_TOLSTRING : BY_GC | BY_TOLSTRING, &is_tie);
	if (!best)
		return err_set(e, -ENOENT, "lua_gc and lua_tolstring share no call target");
	vote->votes = best->votes + is_split;
	vote->called = vote->step = best->address;
	vote->debt = best->debt;
	vote->threshold = best->threshold;
	if (is_tie || vote->votes < VOTE_MIN)
		return err_set(e, -ENOENT,
			       "call vote: the best target has %u of %u votes%s, %u are needed",
			       vote->votes, vote->voters, is_tie ? " and is not alone" : "",
			       VOTE_MIN);
	if (!is_split)
		return 0;
	vote->step = inner_step(f, ballot, best->address, scratch);
	if (!vote->step)
		return err_set(e, -ENOENT,
			       "call vote: what %u of %u functions call shares no call target "
			       "with lua_gc",
			       best->votes, vote->voters);
	return 0;
}

int vote_count(const struct elffile *f, const struct symbols *symbols, bool is_split,
	       struct flow *scratch, struct vote *ret, struct err *e)
{
	static struct ballot ballot;
	struct vote vote = {0};
	int r;

	r = take_all(f, symbols, &ballot, scratch, &vote.voters, e);
	if (r < 0)
		return r;
	r = count(f, &ballot, is_split, scratch, &vote, e);
	/* Where the outer function was inlined, all call the inner one. */
	if (r < 0 && is_split && count(f, &ballot, false, scratch, &vote, NULL) == 0) {
		err_clear(e);
		r = 0;
	}
	if (r < 0)
		return r;
	*ret = vote;
	return 0;
}
