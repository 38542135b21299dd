/* SPDX-License-Identifier: Apache-2.0 */
/* The rows of options.def at run time: names, and setting a field from text. */
#pragma once

#include "config/config.h"

#define OPTION_PATH_BYTES   64
#define OPTION_TEXT_BYTES   4096 /* most bytes of one string */
#define OPTION_LIST_ENTRIES 1024 /* most entries of a list whose row names no limit */

enum option_type {
	OPTION_STRING,
	OPTION_LIST,
	OPTION_BOOL,
	OPTION_INT,
	OPTION_DURATION,
	OPTION_BYTES,
	OPTION_RATIO,
	OPTION_ENUM,
};

struct option {
	enum config_side side;
	enum option_type type;
	const char *section, *name; /* section "": top level */
	const char *fallback;       /* the default, as text */
	const char *words, *help;
	uint64_t min, max;
	size_t offset; /* in struct config */
};

extern const struct option option_rows[CONFIG_OPTION_COUNT];

/* May a file of this side hold it? CONFIG_BOTH as side: any. */
bool option_is_for(const struct option *o, enum config_side side);

/* "drain.deadline"; "TIDEGATE_DRAIN_DEADLINE". */
const char *option_path(const struct option *o, char buf[static OPTION_PATH_BYTES]);
const char *option_env(const struct option *o, char buf[static OPTION_PATH_BYTES]);

/* NULL when there is none. */
const struct option *option_find(const char *section, const char *name);

/* Parses, checks the range and replaces the field; the old value stays on failure. -EINVAL with a
 * text that begins with the key, -ENOMEM. Text of a LIST is comma separated. */
int option_set(const struct option *o, struct config *c, const char *text, struct err *e);
int option_set_list(const struct option *o, struct config *c, char *const *items, size_t count,
		    struct err *e);

/* As option_set_list() would say of so many entries. */
int option_check_count(const struct option *o, size_t count, struct err *e);

void option_clear(const struct option *o, struct config *c);

/* Appends a copy. -ENOMEM. */
int config_list_add(struct config_list *list, const char *text, size_t len);
void config_list_fini(struct config_list *list);
