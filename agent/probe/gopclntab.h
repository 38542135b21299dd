/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Go's function table, which survives stripping. Formats of Go 1.16 (magic 0xfffffffa), 1.18
 * (0xfffffff0) and 1.20 (0xfffffff1), as in Go's src/debug/gosym/pclntab.go. Pure; runs in the
 * finder's child.
 */
#pragma once

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

#define GOPCLNTAB_FUNCTIONS_MAX (1u << 20)

struct gopclntab_function {
	const char *name;    /* asked for */
	uint64_t start, end; /* found; start 0: not there */
};

/* Fills start and end of the functions asked for. *ret_version is "go1.16", "go1.18" or "go1.20":
 * the first release with that format. -EBADMSG, -ENOTSUP. */
int gopclntab_find(const uint8_t *table, size_t size, struct gopclntab_function *functions,
		   size_t count, const char **ret_version, struct err *e);
