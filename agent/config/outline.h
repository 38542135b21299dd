/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where things stand in a configuration file: each key with its line and shape. libcyaml, which
 * loads the values, names no dependable line; this pass over libyaml's events does, and refuses
 * what a configuration never needs (anchors, several documents, deep nesting) before it can grow.
 */
#pragma once

#include "base/err.h"

#define OUTLINE_ITEMS_MAX  1024
#define OUTLINE_DEPTH_MAX  16
#define OUTLINE_NAME_BYTES 64

enum outline_kind { OUTLINE_NULL, OUTLINE_SCALAR, OUTLINE_SEQUENCE, OUTLINE_MAPPING };

struct outline_item {
	char section[OUTLINE_NAME_BYTES]; /* "": top level; cut, and safe to print */
	char name[OUTLINE_NAME_BYTES];
	enum outline_kind kind;
	unsigned int line;       /* of the key, from 1 */
	unsigned int value_line; /* of the value; of a list's first entry that is no scalar */
	unsigned int entries;    /* of a list */
	bool is_flow;            /* the mapping around it is written in braces */
	bool is_ragged;          /* a list with entries that are no scalars */
	size_t begin, end;       /* of key and value, in bytes */
};

struct outline {
	struct outline_item *items; /* a section comes before its keys */
	size_t count, cap;
};

/* -EINVAL: e begins with the line number and ": ". -ENOMEM. */
int outline_scan(const char *text, size_t size, struct outline *ret, struct err *e);
void outline_fini(struct outline *o);

/* Overwrites key and value in text, so that what is left loads without them. */
void outline_cut(const struct outline_item *item, char *text);
