/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Go's function table, which survives stripping. Formats of Go 1.16 (magic 0xfffffffa), 1.18
 * (0xfffffff0) and 1.20 (0xfffffff1), as in Go's src/debug/gosym/pclntab.go. Pure; runs in the
 * finder's child.
 */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GOPCLNTAB_FUNCTIONS_MAX (1u << 20)

struct gopclntab_function {
	const char *name;    /* asked for */
	uint64_t start, end; /* found; end 0: not there */
};

struct gopclntab_info {
	const char *version; /* "go1.16", "go1.18", "go1.20": the first release with that format */
	bool is_relative;    /* where the text begins is not said: addresses count from there */
};

/* Fills start and end of the functions asked for. text: where the text begins, if the caller knows
 * better than the header (the dynamic linker writes it); 0: not. -EBADMSG, -ENOTSUP. */
int gopclntab_find(const uint8_t *table, size_t size, uint64_t text,
		   struct gopclntab_function *functions, size_t count, struct gopclntab_info *ret,
		   struct err *e);

#define GOPCLNTAB_TEXT 24u /* offset of the field that says where the text begins (1.18 on) */

/* Offset of the first table at or after `from`, by its first eight bytes, aligned to eight; -ENOENT. */
int gopclntab_search(const uint8_t *data, size_t size, size_t from, size_t *ret);
