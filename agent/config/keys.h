/* SPDX-License-Identifier: Apache-2.0 */
/* Are the keys of a file options of this side, there once, and of the right shape? */
#pragma once

#include "config/file.h"
#include "config/outline.h"

struct keys_check {
	const char *file;
	const struct config *config;
	const struct problems *problems;
	const struct outline *outline;
};

/* The first of the items [0, n), or NULL. */
const struct outline_item *keys_find(const struct outline *outline, size_t n, const char *section,
				     const char *name);

/* Judges every key and cuts what must not reach libcyaml out of the text: what was refused (in a
 * lenient load) and keys without a value. *ret_left is how many values are left. */
int keys_judge(const struct keys_check *k, char *text, size_t *ret_left);
