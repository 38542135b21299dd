/* SPDX-License-Identifier: Apache-2.0 */
/* Machine code to instructions; capstone decodes. Owns nothing. Process: the finder's child. */
#include "probe/decode.h"

#include "probe/disassembler.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

static void note_leap(struct flow *flow, const struct decode_memory *memory)
{
	flow->leap = memory->leap;
	if (flow->has_leap)
		flow->leap.width = 0;
	flow->has_leap = true;
}

static void decode_all(struct flow *flow, const struct disassembler *d, csh handle, bool is_arm,
		       const uint8_t *code, size_t size)
{
	struct decode_memory memory = {.loaded = 0};
	uint64_t address = flow->start;
	cs_insn *in = d->malloc(handle);

	while (in && flow->count < FLOW_INSNS_MAX && d->next(handle, &code, &size, &address, in)) {
		struct flow_insn *out = &flow->insns[flow->count++];

		*out = (struct flow_insn){
			.address = in->address, .size = (uint8_t)in->size, .delta = -1};
		if (is_arm)
			decode_arm64(in, &memory, out);
		else
			decode_x86(in, &memory, out);
		if (out->kind == FLOW_LEAP)
			note_leap(flow, &memory);
	}
	flow->end = address;
	if (in)
		d->free(in, 1);
}

int flow_decode(struct flow *flow, uint16_t machine, uint64_t start, const uint8_t *code,
		size_t size)
{
	bool is_arm = machine == EM_AARCH64;
	const struct disassembler *d = disassembler_load();
	csh handle;

	memset(flow, 0, sizeof(*flow));
	flow->start = start;
	if (!d)
		return -ELIBACC;
	if (d->open(is_arm ? CS_ARCH_ARM64 : CS_ARCH_X86, is_arm ? CS_MODE_ARM : CS_MODE_64,
		    &handle) != CS_ERR_OK)
		return -ENOMEM;
	d->option(handle, CS_OPT_DETAIL, CS_OPT_ON);
	/* Every word is an instruction there: one newer than capstone ends nothing. */
	if (is_arm)
		d->option(handle, CS_OPT_SKIPDATA, CS_OPT_ON);
	decode_all(flow, d, handle, is_arm, code, size > FLOW_CODE_MAX ? FLOW_CODE_MAX : size);
	d->close(&handle);
	return flow->count > 0 ? 0 : -ENOEXEC;
}
