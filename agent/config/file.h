/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration file: read whole, outlined, loaded by libcyaml, set row by row. */
#pragma once

#include "config/option.h"

#define FILE_BYTES_MAX (1 << 20)

/* Where problems go: the first ends a strict load, a lenient one passes all on and continues. */
struct problems {
	bool is_lenient;
	void (*warn)(void *data, const char *text);
	void *data;
	struct err *e;
};

/* Strict: fills e and returns -EINVAL. Lenient: warns and returns 0. */
int problem_report(const struct problems *p, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* Sets the fields of c that the file names, and their sources. Errors as config_load(). */
int file_apply(struct config *c, const char *file, const struct problems *p);
