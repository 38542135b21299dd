/* SPDX-License-Identifier: Apache-2.0 */
/* Keys of a configuration file against the option table. No state. */
#include "config/keys.h"

#include "config/option.h"

#include <stdio.h>

static bool is_section(const char *name)
{
	for (size_t i = 0; i < CONFIG_OPTION_COUNT; i++)
		if (*name && str_equal(option_rows[i].section, name))
			return true;
	return false;
}

static bool section_is_for(const char *name, enum config_side side)
{
	for (size_t i = 0; i < CONFIG_OPTION_COUNT; i++)
		if (str_equal(option_rows[i].section, name) && option_is_for(&option_rows[i], side))
			return true;
	return false;
}

/* Nearest right word for a key: first among its neighbours, then the same name elsewhere. */
static const char *suggest(const struct outline_item *item, enum config_side side,
			   char buf[static 2 * OUTLINE_NAME_BYTES])
{
	const char *words[2 * CONFIG_OPTION_COUNT], *near;
	size_t n = 0;

	for (size_t i = 0; i < CONFIG_OPTION_COUNT; i++) {
		const struct option *o = &option_rows[i];

		if (!option_is_for(o, side))
			continue;
		if (str_equal(o->section, item->section))
			words[n++] = o->name;
		else if (!*item->section && (!i || option_rows[i - 1].section != o->section))
			words[n++] = o->section;
	}
	near = str_nearest(item->name, words, n);
	if (near) {
		snprintf(buf, 2 * OUTLINE_NAME_BYTES, "%s%s%s", item->section,
			 *item->section ? "." : "", near);
		return buf;
	}
	for (size_t i = 0; i < CONFIG_OPTION_COUNT; i++)
		if (option_is_for(&option_rows[i], side) &&
		    str_equal(option_rows[i].name, item->name))
			return option_path(&option_rows[i], buf);
	return NULL;
}

static const char *side_name(enum config_side side)
{
	return side == CONFIG_AGGREGATOR ? "aggregator" : "agent";
}

static const char *item_path(const struct outline_item *item, char *buf, size_t size)
{
	snprintf(buf, size, "%s%s%s", item->section, *item->section ? "." : "", item->name);
	return buf;
}

const struct outline_item *keys_find(const struct outline *outline, size_t n, const char *section,
				     const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (str_equal(outline->items[i].section, section) &&
		    str_equal(outline->items[i].name, name))
			return &outline->items[i];
	return NULL;
}

enum verdict { VERDICT_GOOD, VERDICT_EMPTY, VERDICT_BAD };

/* A key whose name is right: is its shape? */
static int check_shape(const struct keys_check *k, const struct outline_item *item,
		       const struct option *o, const char *path, enum verdict *ret)
{
	struct err inner = {0};

	*ret = VERDICT_BAD;
	if (item->kind == OUTLINE_MAPPING)
		return problem_report(k->problems, "%s:%u: `%s` takes %s, not keys of its own",
				      k->file, item->line, path,
				      o->type == OPTION_LIST ? "a list" : "one value");
	if (o->type == OPTION_LIST && item->kind == OUTLINE_SCALAR)
		return problem_report(k->problems,
				      "%s:%u: `%s` takes a list: write [a, b], or one `- a` a line",
				      k->file, item->line, path);
	if (o->type != OPTION_LIST && item->kind == OUTLINE_SEQUENCE)
		return problem_report(k->problems, "%s:%u: `%s` takes one value, not a list",
				      k->file, item->line, path);
	if (item->is_ragged)
		return problem_report(k->problems, "%s:%u: `%s` takes a list of plain values",
				      k->file, item->value_line, path);
	/* Before libcyaml sees it: its lists grow by one entry at a time. */
	if (item->kind == OUTLINE_SEQUENCE && option_check_count(o, item->entries, &inner) < 0)
		return problem_report(k->problems, "%s:%u: %s", k->file, item->line, inner.text);
	*ret = item->kind == OUTLINE_NULL ? VERDICT_EMPTY : VERDICT_GOOD;
	return 0;
}

static int check_item(const struct keys_check *k, size_t index, enum verdict *ret)
{
	const struct outline_item *item = &k->outline->items[index], *twin;
	const struct option *o = option_find(item->section, item->name);
	enum config_side side = k->config->side;
	char path[2 * OUTLINE_NAME_BYTES], near[2 * OUTLINE_NAME_BYTES];
	bool is_known_section = !*item->section && is_section(item->name);
	const char *word;

	item_path(item, path, sizeof(path));
	*ret = VERDICT_BAD;
	if (!o && !is_known_section) {
		word = suggest(item, side, near);
		if (word)
			return problem_report(k->problems,
					      "%s:%u: unknown key `%s`, did you mean `%s`?",
					      k->file, item->line, path, word);
		return problem_report(k->problems,
				      "%s:%u: unknown key `%s`, `tidegate config` lists all",
				      k->file, item->line, path);
	}
	if (o ? !option_is_for(o, side) : !section_is_for(item->name, side))
		return problem_report(k->problems,
				      "%s:%u: `%s` belongs into %s.yaml, this is the "
				      "%s's configuration",
				      k->file, item->line, path,
				      side_name(o                      ? o->side
						: side == CONFIG_AGENT ? CONFIG_AGGREGATOR
								       : CONFIG_AGENT),
				      side_name(side));
	twin = keys_find(k->outline, index, item->section, item->name);
	if (twin)
		return problem_report(k->problems,
				      "%s:%u: `%s` stands a second time, first in line %u", k->file,
				      item->line, path, twin->line);
	if (o)
		return check_shape(k, item, o, path, ret);
	if (item->kind != OUTLINE_MAPPING && item->kind != OUTLINE_NULL)
		return problem_report(k->problems,
				      "%s:%u: `%s` is a section: its keys stand below it, indented",
				      k->file, item->line, path);
	*ret = item->kind == OUTLINE_NULL ? VERDICT_EMPTY : VERDICT_GOOD;
	return 0;
}

int keys_judge(const struct keys_check *k, char *text, size_t *ret_left)
{
	size_t n = k->outline->count, next;
	enum verdict verdict;
	int r;

	for (size_t i = 0; i < n; i = next) {
		const struct outline_item *item = &k->outline->items[i];
		size_t good = 0, bad[OUTLINE_ITEMS_MAX], bad_count = 0;

		r = check_item(k, i, &verdict);
		if (r < 0)
			return r;
		next = i + 1;
		if (item->kind == OUTLINE_MAPPING)
			while (next < n && *k->outline->items[next].section)
				next++;
		for (size_t j = i + 1; j < next && verdict == VERDICT_GOOD; j++) {
			enum verdict inner;

			r = check_item(k, j, &inner);
			if (r < 0)
				return r;
			if (inner == VERDICT_GOOD)
				good++;
			else
				bad[bad_count++] = j;
		}
		if (item->kind != OUTLINE_MAPPING && verdict == VERDICT_GOOD)
			good = 1;
		*ret_left += good;
		if (!good)
			outline_cut(item, text);
		for (size_t j = 0; j < bad_count && good; j++)
			outline_cut(&k->outline->items[bad[j]], text);
	}
	return 0;
}
