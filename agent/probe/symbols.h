/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every symbol table that tells of one file, in the order in which they are believed: its .symtab,
 * its separate debug file, the small compressed file in its .gnu_debugdata, its .dynsym. Owns
 * copies; runs in the finder's child.
 */
#pragma once

#include "probe/elffile.h"

#define SYMBOLS_XZ_MEMORY    (64u << 20) /* that unpacking .gnu_debugdata may take */
#define SYMBOLS_UNPACKED_MAX (32u << 20)

enum symbols_from {
	SYMBOLS_SYMTAB,
	SYMBOLS_DEBUG_FILE,
	SYMBOLS_DEBUGDATA,
	SYMBOLS_DYNSYM,
	SYMBOLS
};

struct symbols {
	struct elffile_symbols from[SYMBOLS];
};

/* debug_fd: a separate debug file, or -1; one with another build id or machine is not believed. A
 * damaged .symtab or .dynsym is an error; of the others what cannot be read is not there. */
int symbols_read(struct symbols *s, const struct elffile *f, int debug_fd, struct err *e);
void symbols_free(struct symbols *s);

/* "symtab", "debug-file", "gnu_debugdata", "dynsym" */
const char *symbols_name(enum symbols_from from);

/* NULL when no table has it. */
const Elf64_Sym *symbols_find(const struct symbols *s, const char *name,
			      enum symbols_from *ret_from);
