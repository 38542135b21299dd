/* SPDX-License-Identifier: Apache-2.0 */
/*
 * capstone, loaded when code is first looked at: in the finder's child, which ends soon. Whoever is
 * linked with it has its tables of all architectures, relocated, in memory: 1.9 MB.
 */
#pragma once

#include <capstone/capstone.h>

/* Its calls, by their names without cs_. */
struct disassembler {
	__typeof__(cs_open) *open;
	__typeof__(cs_close) *close;
	__typeof__(cs_option) *option;
	__typeof__(cs_malloc) *malloc;
	__typeof__(cs_free) *free;
	__typeof__(cs_disasm_iter) *next;
};

/* NULL: it cannot be loaded, as disassembler_why() says. The first call must come before the process is
 * confined; it is never unloaded. */
const struct disassembler *disassembler_load(void);
const char *disassembler_why(void);
