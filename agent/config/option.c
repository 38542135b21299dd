/* SPDX-License-Identifier: Apache-2.0 */
/* The option table, and fields set from text: the one place where a value is judged. No state. */
#include "config/option.h"

#include "base/cleanup.h"
#include "config/value.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

const struct option option_rows[CONFIG_OPTION_COUNT] = {
#define OPTION(side_, section_, name_, type_, def_, min_, max_, words_, help_) \
	{.side = CONFIG_##side_,                                               \
	 .type = OPTION_##type_,                                               \
	 .section = #section_,                                                 \
	 .name = #name_,                                                       \
	 .fallback = def_,                                                     \
	 .words = words_,                                                      \
	 .help = help_,                                                        \
	 .min = min_,                                                          \
	 .max = max_,                                                          \
	 .offset = offsetof(struct config, section_##_##name_)},
#include "config/options.def"
#undef OPTION
};

#define WORDS_MAX 16

bool option_is_for(const struct option *o, enum config_side side)
{
	return side == CONFIG_BOTH || o->side == CONFIG_BOTH || o->side == side;
}

const char *option_path(const struct option *o, char buf[static OPTION_PATH_BYTES])
{
	snprintf(buf, OPTION_PATH_BYTES, "%s%s%s", o->section, *o->section ? "." : "", o->name);
	return buf;
}

const char *option_env(const struct option *o, char buf[static OPTION_PATH_BYTES])
{
	snprintf(buf, OPTION_PATH_BYTES, "TIDEGATE_%s%s%s", o->section, *o->section ? "_" : "",
		 o->name);
	for (char *p = buf; *p; p++)
		*p = (char)toupper((unsigned char)*p);
	return buf;
}

const struct option *option_find(const char *section, const char *name)
{
	for (size_t i = 0; i < CONFIG_OPTION_COUNT; i++)
		if (str_equal(option_rows[i].section, section) &&
		    str_equal(option_rows[i].name, name))
			return &option_rows[i];
	return NULL;
}

static void *field(const struct option *o, struct config *c)
{
	return (char *)c + o->offset;
}

int config_list_add(struct config_list *list, const char *text, size_t len)
{
	char *copy = strndup(text, len);
	char **items;

	if (!copy)
		return -ENOMEM;
	items = realloc(list->items, (list->count + 1) * sizeof(*items));
	if (!items) {
		free(copy);
		return -ENOMEM;
	}
	list->items = items;
	items[list->count++] = copy;
	return 0;
}

void config_list_fini(struct config_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->items[i]);
	free(list->items);
	*list = (struct config_list){0};
}

/* A message quotes a value cut to what a reader needs, and never with its control bytes. */
static const char *shown(const char *text, char buf[static 64])
{
	bool whole = str_copy(buf, 60, text);

	for (char *p = buf; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
	if (!whole)
		strcat(buf, "...");
	return buf;
}

static int refuse(const struct option *o, const char *text, const char *wanted, struct err *e)
{
	char path[OPTION_PATH_BYTES], value[64];

	return err_set(e, -EINVAL, "`%s`: `%s` is not %s", option_path(o, path), shown(text, value),
		       wanted);
}

static const char *number_text(const struct option *o, uint64_t v,
			       char buf[static VALUE_TEXT_BYTES])
{
	if (o->type == OPTION_DURATION)
		return value_print_duration(v, buf);
	if (o->type == OPTION_BYTES)
		return value_print_bytes(v, buf);
	if (o->type == OPTION_RATIO)
		return value_print_ratio(v, buf);
	snprintf(buf, VALUE_TEXT_BYTES, "%" PRIu64, v);
	return buf;
}

static int set_number(const struct option *o, struct config *c, const char *text, struct err *e)
{
	char path[OPTION_PATH_BYTES], value[64], limit[VALUE_TEXT_BYTES];
	const char *wanted;
	uint64_t v;
	int r;

	if (o->type == OPTION_DURATION) {
		wanted = "a duration, as 30s, 500ms, 2m, 1h or a number of seconds";
		r = value_parse_duration(text, &v);
	} else if (o->type == OPTION_BYTES) {
		wanted = "a size, as 64MiB, 10MB, 512k or a number of bytes";
		r = value_parse_bytes(text, &v);
	} else if (o->type == OPTION_RATIO) {
		wanted = "a share, as 1%, 0.5% or a number between 0 and 1";
		r = value_parse_ratio(text, &v);
	} else {
		wanted = "a whole number";
		r = str_to_u64(text, &v);
	}
	if (r == -ERANGE)
		return refuse(o, text, "within range: it is too large", e);
	if (r < 0)
		return refuse(o, text, wanted, e);
	if (o->min && v < o->min)
		return err_set(e, -EINVAL, "`%s`: `%s` is less than the least, %s",
			       option_path(o, path), shown(text, value),
			       number_text(o, o->min, limit));
	if (o->max && v > o->max)
		return err_set(e, -EINVAL, "`%s`: `%s` is more than the most, %s",
			       option_path(o, path), shown(text, value),
			       number_text(o, o->max, limit));
	*(uint64_t *)field(o, c) = v;
	return 0;
}

static int check_text(const struct option *o, const char *text, size_t most, struct err *e)
{
	char path[OPTION_PATH_BYTES];

	if (strlen(text) > most)
		return err_set(e, -EINVAL, "`%s`: %zu bytes are more than the most, %zu",
			       option_path(o, path), strlen(text), most);
	for (const char *p = text; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			return refuse(o, text, "one line of text without control characters", e);
	return 0;
}

static int set_string(const struct option *o, struct config *c, const char *text, struct err *e)
{
	char **at = field(o, c), *copy;
	int r;

	r = check_text(o, text, o->max ? o->max : OPTION_TEXT_BYTES, e);
	if (r < 0)
		return r;
	if (str_equal(o->words, "path") && *text && *text != '/')
		return refuse(o, text, "an absolute path", e);
	copy = strdup(text);
	if (!copy)
		return -ENOMEM;
	free(*at);
	*at = copy;
	return 0;
}

static int set_enum(const struct option *o, struct config *c, const char *text, struct err *e)
{
	char buf[256], path[OPTION_PATH_BYTES], value[64], *save = NULL;
	const char *words[WORDS_MAX], *near;
	char **at = field(o, c), *copy;
	size_t n = 0;

	str_copy(buf, sizeof(buf), o->words);
	for (char *w = strtok_r(buf, "|", &save); w && n < WORDS_MAX;
	     w = strtok_r(NULL, "|", &save))
		words[n++] = w;
	for (size_t i = 0; i < n; i++) {
		if (!str_equal(words[i], text))
			continue;
		copy = strdup(text);
		if (!copy)
			return -ENOMEM;
		free(*at);
		*at = copy;
		return 0;
	}
	near = str_nearest(text, words, n);
	if (near)
		return err_set(e, -EINVAL, "`%s`: `%s` is none of %s, did you mean `%s`?",
			       option_path(o, path), shown(text, value), o->words, near);
	return err_set(e, -EINVAL, "`%s`: `%s` is none of %s", option_path(o, path),
		       shown(text, value), o->words);
}

/* min of a LIST row is the most entries, max the most bytes of one. */
int option_check_count(const struct option *o, size_t count, struct err *e)
{
	uint64_t most = o->min ? o->min : OPTION_LIST_ENTRIES;
	char path[OPTION_PATH_BYTES];

	if (count <= most)
		return 0;
	return err_set(e, -EINVAL, "`%s`: %zu entries are more than the most, %" PRIu64,
		       option_path(o, path), count, most);
}

int option_set_list(const struct option *o, struct config *c, char *const *items, size_t count,
		    struct err *e)
{
	struct config_list list = {0}, *at = field(o, c);
	char path[OPTION_PATH_BYTES];
	int r;

	r = option_check_count(o, count, e);
	for (size_t i = 0; i < count && r >= 0; i++) {
		r = check_text(o, items[i], o->max ? o->max : OPTION_TEXT_BYTES, e);
		if (r >= 0 && !*items[i])
			r = err_set(e, -EINVAL, "`%s`: entry %zu is empty", option_path(o, path),
				    i + 1);
		if (r >= 0)
			r = config_list_add(&list, items[i], strlen(items[i]));
	}
	if (r < 0) {
		config_list_fini(&list);
		return r;
	}
	config_list_fini(at);
	*at = list;
	return 0;
}

static int set_list_text(const struct option *o, struct config *c, const char *text, struct err *e)
{
	struct config_list list = {0};
	int r = 0;

	while (*text && r >= 0) {
		size_t len, skip = strspn(text, " ");

		text += skip;
		len = strcspn(text, ",");
		skip = len;
		while (len && text[len - 1] == ' ')
			len--;
		r = config_list_add(&list, text, len);
		text += skip;
		if (*text == ',')
			text++;
	}
	if (r >= 0)
		r = option_set_list(o, c, list.items, list.count, e);
	config_list_fini(&list);
	return r;
}

int option_set(const struct option *o, struct config *c, const char *text, struct err *e)
{
	bool b;

	switch (o->type) {
	case OPTION_STRING:
		return set_string(o, c, text, e);
	case OPTION_LIST:
		return set_list_text(o, c, text, e);
	case OPTION_ENUM:
		return set_enum(o, c, text, e);
	case OPTION_BOOL:
		if (value_parse_bool(text, &b) < 0)
			return refuse(o, text, "true or false (yes, no, on, off)", e);
		*(bool *)field(o, c) = b;
		return 0;
	case OPTION_INT:
	case OPTION_DURATION:
	case OPTION_BYTES:
	case OPTION_RATIO:
		return set_number(o, c, text, e);
	}
	return -EINVAL;
}

void option_clear(const struct option *o, struct config *c)
{
	if (o->type == OPTION_STRING || o->type == OPTION_ENUM) {
		char **at = field(o, c);

		free(*at);
		*at = NULL;
	} else if (o->type == OPTION_LIST) {
		config_list_fini(field(o, c));
	}
}
