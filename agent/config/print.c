/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration as text: YAML that loads again, and the man page's list. No state. */
#include "base/cleanup.h"
#include "config/option.h"
#include "config/value.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#define WIDTH 96

/* Double-quoted YAML: no text can be taken for a number, a boolean or nothing. */
static void print_quoted(struct strbuf *out, const char *s)
{
	strbuf_puts(out, "\"");
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			strbuf_puts(out, "\\");
		strbuf_add(out, s, 1);
	}
	strbuf_puts(out, "\"");
}

static void print_value(const struct option *o, const struct config *c, struct strbuf *out)
{
	const void *at = (const char *)c + o->offset;
	const struct config_list *list = at;
	char buf[VALUE_TEXT_BYTES];

	switch (o->type) {
	case OPTION_STRING:
	case OPTION_ENUM:
		print_quoted(out, *(char *const *)at);
		break;
	case OPTION_LIST:
		strbuf_puts(out, "[");
		for (size_t i = 0; i < list->count; i++) {
			strbuf_puts(out, i ? ", " : "");
			print_quoted(out, list->items[i]);
		}
		strbuf_puts(out, "]");
		break;
	case OPTION_BOOL:
		strbuf_puts(out, *(const bool *)at ? "true" : "false");
		break;
	case OPTION_INT:
		strbuf_printf(out, "%" PRIu64, *(const uint64_t *)at);
		break;
	case OPTION_DURATION:
		strbuf_puts(out, value_print_duration(*(const uint64_t *)at, buf));
		break;
	case OPTION_BYTES:
		strbuf_puts(out, value_print_bytes(*(const uint64_t *)at, buf));
		break;
	case OPTION_RATIO:
		strbuf_puts(out, value_print_ratio(*(const uint64_t *)at, buf));
		break;
	}
}

/* Comment lines, broken between words. */
static void print_help(struct strbuf *out, const char *indent, const char *help)
{
	while (*help) {
		size_t room = WIDTH - strlen(indent), len = strlen(help);

		if (len > room) {
			len = room;
			while (len && help[len] != ' ')
				len--;
			if (!len)
				len = strcspn(help, " ");
		}
		strbuf_printf(out, "%s# %.*s\n", indent, (int)len, help);
		help += len;
		help += strspn(help, " ");
	}
}

static void print_source(const struct option *o, const struct config *c, const char *indent,
			 struct strbuf *out)
{
	char env[OPTION_PATH_BYTES];

	option_env(o, env);
	switch (c->source[o - option_rows]) {
	case CONFIG_FILE:
		strbuf_printf(out, "%s# source: %s; overridden by %s\n", indent, c->file, env);
		break;
	case CONFIG_ENVIRONMENT:
		strbuf_printf(out, "%s# source: environment, %s\n", indent, env);
		break;
	default:
		strbuf_printf(out, "%s# source: default; overridden by %s\n", indent, env);
		break;
	}
}

int config_print(const struct config *c, struct strbuf *out)
{
	const char *section = "";

	strbuf_printf(out, "# Effective configuration of the %s.\n",
		      c->side == CONFIG_AGGREGATOR ? "aggregator" : "agent");
	for (size_t i = 0; i < CONFIG_OPTION_COUNT; i++) {
		const struct option *o = &option_rows[i];
		const char *indent = *o->section ? "  " : "";

		if (!option_is_for(o, c->side))
			continue;
		strbuf_puts(out, "\n");
		if (!str_equal(o->section, section))
			strbuf_printf(out, "%s:\n", o->section);
		section = o->section;
		print_help(out, indent, o->help);
		if (o->type == OPTION_ENUM)
			strbuf_printf(out, "%s# one of: %s\n", indent, o->words);
		print_source(o, c, indent, out);
		strbuf_printf(out, "%s%s: ", indent, o->name);
		print_value(o, c, out);
		strbuf_puts(out, "\n");
	}
	return out->failed ? -ENOMEM : 0;
}

/* A line of roff must not begin with a dot or a quote, and a backslash begins an escape. */
static void print_roff(struct strbuf *out, const char *s)
{
	if (*s == '.' || *s == '\'')
		strbuf_puts(out, "\\&");
	for (; *s; s++) {
		if (*s == '\\')
			strbuf_puts(out, "\\e");
		else if (*s == '-')
			strbuf_puts(out, "\\-");
		else
			strbuf_add(out, s, 1);
	}
}

int config_print_man(struct strbuf *out)
{
	static const char *const files[] = {"both files", "agent.yaml", "aggregator.yaml"};
	static const char *const types[] = {"text",     "list", "boolean", "number",
					    "duration", "size", "word"};
	char buf[OPTION_PATH_BYTES];

	for (size_t i = 0; i < CONFIG_OPTION_COUNT; i++) {
		const struct option *o = &option_rows[i];

		strbuf_puts(out, ".TP\n.B ");
		print_roff(out, option_path(o, buf));
		strbuf_puts(out, "\n");
		print_roff(out, o->help);
		strbuf_printf(out, "\n.br\n%s in %s", types[o->type], files[o->side]);
		if (o->type == OPTION_ENUM) {
			strbuf_puts(out, " (");
			print_roff(out, o->words);
			strbuf_puts(out, ")");
		}
		if (*o->fallback) {
			strbuf_puts(out, ", by default ");
			print_roff(out, o->fallback);
		} else {
			strbuf_puts(out, ", empty by default");
		}
		strbuf_puts(out, "\n");
	}
	return out->failed ? -ENOMEM : 0;
}
