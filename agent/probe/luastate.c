/* SPDX-License-Identifier: Apache-2.0 */
/* Offsets out of lua_gc's code. Owns nothing; capstone decodes. Process: the finder's child. */
#include "probe/luastate.h"

#include "probe/disassembler.h"
#include "probe/flow.h"

#include <errno.h>
#include <string.h>

#define COUNT_INSNS 6u
#define TARGETS_MAX 32u

struct reader {
	const struct disassembler *calls;
	csh handle;
	cs_insn *insn;
	const uint8_t *at;
	size_t left;
	uint64_t address;
};

static void reader_close(struct reader *r)
{
	if (r->insn)
		r->calls->free(r->insn, 1);
	r->calls->close(&r->handle);
}

static int reader_open(struct reader *r, const struct elffile *f, uint64_t start, uint64_t end)
{
	static uint8_t code[FLOW_CODE_MAX];
	const struct disassembler *calls = disassembler_load();
	size_t size = sizeof(code);
	int ret;

	if (!calls)
		return -ELIBACC;
	if (end > start && end - start < size)
		size = end - start;
	ret = elffile_read_code(f, start, code, size, &size);
	if (ret < 0)
		return ret;
	*r = (struct reader){.calls = calls, .at = code, .left = size, .address = start};
	if (calls->open(CS_ARCH_X86, CS_MODE_64, &r->handle) != CS_ERR_OK)
		return -ENOMEM;
	calls->option(r->handle, CS_OPT_DETAIL, CS_OPT_ON);
	r->insn = calls->malloc(r->handle);
	if (!r->insn) {
		reader_close(r);
		return -ENOMEM;
	}
	return 0;
}

static bool reader_next(struct reader *r)
{
	return r->calls->next(r->handle, &r->at, &r->left, &r->address, r->insn);
}

/* A field of a struct: 0 … 4095 bytes behind a register that is no stack pointer. */
static bool is_field(const cs_x86_op *op)
{
	return op->type == X86_OP_MEM && op->mem.base != X86_REG_INVALID &&
	       op->mem.base != X86_REG_RSP && op->mem.base != X86_REG_RIP &&
	       op->mem.index == X86_REG_INVALID && op->mem.segment == X86_REG_INVALID &&
	       op->mem.disp >= 0 && op->mem.disp < (int64_t)FINDER_FIELDS_MAX;
}

static bool loads_field(const cs_insn *in, unsigned int id)
{
	const cs_x86 *x = &in->detail->x86;

	return in->id == id && x->op_count == 2 && x->operands[0].type == X86_OP_REG &&
	       (x->operands[1].size == 8 || x->operands[1].size == 4) && is_field(&x->operands[1]);
}

static bool shifts_to_kilobytes(const cs_insn *in)
{
	const cs_x86 *x = &in->detail->x86;

	return in->id == X86_INS_SHR && x->op_count == 2 && x->operands[1].type == X86_OP_IMM &&
	       x->operands[1].imm == 10;
}

/* cmpb $imm, field */
static bool compares_byte(const cs_insn *in)
{
	const cs_x86 *x = &in->detail->x86;

	return in->id == X86_INS_CMP && x->op_count == 2 && x->operands[0].size == 1 &&
	       is_field(&x->operands[0]) && x->operands[1].type == X86_OP_IMM;
}

/* L is the first argument until its first use; the collector's state is compared and returned. */
static void read_body(struct reader *r, struct finder_heap *ret)
{
	uint32_t state = 0, pause = 0;
	bool was_compared = false;

	while (reader_next(r)) {
		const cs_x86 *x = &r->insn->detail->x86;

		if (!ret->globals && loads_field(r->insn, X86_INS_MOV) &&
		    x->operands[1].mem.base == X86_REG_RDI &&
		    x->operands[1].mem.disp <= (int64_t)FINDER_GLOBALS_MAX &&
		    x->operands[1].mem.disp % 4 == 0) {
			ret->globals = (uint32_t)x->operands[1].mem.disp;
			ret->pointer_bytes = x->operands[1].size;
		}
		if (was_compared && r->insn->id == X86_INS_SETE && !ret->state) {
			ret->state = state;
			ret->pause = pause;
		}
		was_compared = compares_byte(r->insn);
		if (was_compared) {
			state = (uint32_t)x->operands[0].mem.disp;
			pause = (uint32_t)x->operands[1].imm & 0xff;
		}
	}
}

/* One field, or the sum of two: GCdebt may be negative, together they are what is in use. */
static int read_count(struct reader *r, struct finder_heap *ret)
{
	struct finder_heap found = *ret;
	unsigned int i;

	found.count = 0;
	for (i = 0; i < COUNT_INSNS && reader_next(r); i++) {
		const cs_x86_op *from = &r->insn->detail->x86.operands[1];
		bool is_first = found.count == 0;

		if (found.count > 0 && shifts_to_kilobytes(r->insn)) {
			*ret = found;
			return 0;
		}
		if (!loads_field(r->insn, is_first ? X86_INS_MOV : X86_INS_ADD))
			continue;
		if (found.count == FINDER_HEAP_PARTS || (!is_first && found.width != from->size))
			return -ENOENT;
		found.width = from->size;
		found.parts[found.count++] = (uint32_t)from->mem.disp;
	}
	return -ENOENT;
}

int luastate_read(const struct elffile *f, uint64_t gc, uint64_t end, uint64_t count,
		  struct finder_heap *ret)
{
	struct finder_heap found = {0};
	struct reader reader;
	int r;

	memset(ret, 0, sizeof(*ret));
	if (f->header.e_machine != EM_X86_64)
		return -ENOTSUP;
	r = reader_open(&reader, f, gc, end);
	if (r < 0)
		return r;
	read_body(&reader, &found);
	reader_close(&reader);
	*ret = found;
	if (!found.globals || !count)
		return -ENOENT;
	r = reader_open(&reader, f, count, 0);
	if (r < 0)
		return r;
	r = read_count(&reader, ret);
	reader_close(&reader);
	return r;
}

struct target {
	uint64_t address;
	unsigned int count;
};

static void add_target(struct target *targets, unsigned int *count, uint64_t address)
{
	unsigned int i;

	for (i = 0; i < *count && targets[i].address != address; i++)
		;
	if (i == TARGETS_MAX)
		return;
	if (i == *count)
		targets[(*count)++] = (struct target){.address = address};
	targets[i].count++;
}

int luastate_cycle_end(const struct elffile *f, uint64_t start, uint64_t end,
		       const struct finder_heap *heap, uint64_t *ret)
{
	struct target targets[TARGETS_MAX];
	const struct target *best = NULL;
	bool is_pause = false, is_tie = false;
	unsigned int count = 0, i;
	struct reader reader;
	int r;

	if (!heap->state)
		return -ENOENT;
	r = reader_open(&reader, f, start, end);
	if (r < 0)
		return r;
	while (reader_next(&reader)) {
		const cs_x86 *x = &reader.insn->detail->x86;

		if (is_pause && reader.insn->id == X86_INS_JE && x->op_count == 1 &&
		    x->operands[0].type == X86_OP_IMM)
			add_target(targets, &count, (uint64_t)x->operands[0].imm);
		is_pause = compares_byte(reader.insn) &&
			   (uint32_t)x->operands[0].mem.disp == heap->state &&
			   ((uint32_t)x->operands[1].imm & 0xff) == heap->pause;
	}
	reader_close(&reader);
	for (i = 0; i < count; i++) {
		is_tie = best && targets[i].count == best->count ? true : is_tie;
		if (!best || targets[i].count > best->count) {
			best = &targets[i];
			is_tie = false;
		}
	}
	if (!best || best->count < 2 || is_tie || best->address < start || best->address >= end)
		return -ENOENT;
	*ret = best->address;
	return 0;
}
