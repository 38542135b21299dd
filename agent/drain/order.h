/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Order of hooks at one point: every hook after those that it names in `after` and before those
 * that it names in `before`; otherwise as they were given (files by name, then as registered).
 * Pure. Names that nobody bears are no condition.
 */
#pragma once

#include "base/err.h"

#define ORDER_NAMES_MAX 16
#define ORDER_HOOKS_MAX 256

struct order_hook {
	const char *name;
	const char *before[ORDER_NAMES_MAX], *after[ORDER_NAMES_MAX]; /* up to the first NULL */
};

/* ret_order[0..n): indices. -ELOOP: a cycle, its hooks named in e; -E2BIG. */
int order_hooks(const struct order_hook *hooks, size_t n, unsigned int *ret_order, struct err *e);
