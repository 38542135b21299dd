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

struct candidate {
	uint64_t address;
	unsigned int votes, debt, threshold;
	uint32_t by; /* bit mask of voters */
};

struct ballot {
	struct candidate candidates[VOTE_TARGETS_MAX];
	unsigned int count;
};

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
		const struct flow_insn *in = &flow->insns[i];

		if (in->kind != FLOW_CALL && in->kind != FLOW_JUMP)
			continue;
		if (in->target >= flow->start && in->target < flow->end)
			continue;
		cast(ballot, in->target, voter, is_debt, is_threshold);
	}
}

static int read_function(const struct elffile *f, const Elf64_Sym *sym, struct flow *flow)
{
	static uint8_t code[VOTE_FUNCTION_MAX];
	uint64_t size = sym->st_size, next;
	int r;

	if (size == 0 && elffile_next_function(f, sym->st_value, &next) == 0)
		size = next - sym->st_value;
	if (size == 0 || size > sizeof(code))
		size = sizeof(code);
	r = elffile_read_code(f, sym->st_value, code, size, &size);
	if (r < 0)
		return r;
	return flow_decode(flow, sym->st_value, code, size);
}

static const struct candidate *winner(const struct ballot *ballot, bool *ret_is_tie)
{
	const struct candidate *best = NULL;
	unsigned int i;

	*ret_is_tie = false;
	for (i = 0; i < ballot->count; i++) {
		const struct candidate *c = &ballot->candidates[i];

		/* bits 0 and 1: lua_gc and lua_tolstring */
		if ((c->by & 3) != 3)
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

int vote_count(const struct elffile *f, const struct elffile_symbols *symbols, struct flow *scratch,
	       struct vote *ret, struct err *e)
{
	static struct ballot ballot;
	const struct candidate *best;
	struct vote vote = {0};
	bool is_tie;
	unsigned int i;
	int r;

	memset(&ballot, 0, sizeof(ballot));
	for (i = 0; i < ARRAY_LEN(voters); i++) {
		const Elf64_Sym *sym = elffile_find_symbol(symbols, voters[i].name);

		if (!sym && voters[i].is_needed)
			return err_set(e, -ENOENT, "%s is not exported", voters[i].name);
		if (!sym)
			continue;
		r = read_function(f, sym, scratch);
		if (r < 0)
			return err_set(e, -ENOENT, "%s has no code that can be read",
				       voters[i].name);
		vote.voters++;
		collect(&ballot, scratch, i);
	}
	best = winner(&ballot, &is_tie);
	if (!best)
		return err_set(e, -ENOENT, "lua_gc and lua_tolstring share no call target");
	if (is_tie || best->votes < VOTE_MIN)
		return err_set(e, -ENOENT,
			       "call vote: the best target has %u of %u votes%s, %u are needed",
			       best->votes, vote.voters, is_tie ? " and is not alone" : "",
			       VOTE_MIN);
	vote.step = best->address;
	vote.votes = best->votes;
	vote.is_debt_checked = best->debt * 2 > best->votes;
	vote.is_threshold_checked = best->threshold * 2 > best->votes;
	*ret = vote;
	return 0;
}
