/* SPDX-License-Identifier: Apache-2.0 */
/* Outline of a YAML file from libyaml's events. Owns the parser for the length of one scan. */
#include "config/outline.h"

#include "base/cleanup.h"
#include "base/str.h"

#include <errno.h>
#include <string.h>
#include <yaml.h>

struct scan {
	yaml_parser_t parser;
	yaml_event_t event;
	bool has_event;
	struct outline *outline;
	struct err *e;
	const char *text;
	size_t size;
	size_t at_character, at_byte; /* where offset_of() was last */
};

/* Marks count characters, we cut bytes. Marks come in order, so that this walks the text once. */
static size_t offset_of(struct scan *s, size_t character)
{
	if (character < s->at_character)
		s->at_character = s->at_byte = 0;
	while (s->at_character < character && s->at_byte < s->size) {
		s->at_byte++;
		while (s->at_byte < s->size && ((unsigned char)s->text[s->at_byte] & 0xc0) == 0x80)
			s->at_byte++;
		s->at_character++;
	}
	return s->at_byte;
}

static int next(struct scan *s)
{
	if (s->has_event)
		yaml_event_delete(&s->event);
	s->has_event = false;
	if (!yaml_parser_parse(&s->parser, &s->event)) {
		if (s->parser.error == YAML_MEMORY_ERROR)
			return -ENOMEM;
		if (s->parser.error == YAML_READER_ERROR)
			return err_set(s->e, -EINVAL, "%zu: not UTF-8 text: %s",
				       s->parser.mark.line + 1, s->parser.problem);
		return err_set(s->e, -EINVAL, "%zu: not YAML: %s%s%s",
			       s->parser.problem_mark.line + 1, s->parser.problem,
			       s->parser.context ? " " : "",
			       s->parser.context ? s->parser.context : "");
	}
	s->has_event = true;
	if (s->event.type == YAML_ALIAS_EVENT ||
	    (s->event.type == YAML_SCALAR_EVENT && s->event.data.scalar.anchor) ||
	    (s->event.type == YAML_SEQUENCE_START_EVENT && s->event.data.sequence_start.anchor) ||
	    (s->event.type == YAML_MAPPING_START_EVENT && s->event.data.mapping_start.anchor))
		return err_set(s->e, -EINVAL,
			       "%zu: anchors and aliases (& and *) are not accepted, "
			       "write the value out",
			       s->event.start_mark.line + 1);
	return 0;
}

static unsigned int line_of(const struct scan *s)
{
	return (unsigned int)s->event.start_mark.line + 1;
}

static bool is_null(const yaml_event_t *event)
{
	const char *v = (const char *)event->data.scalar.value;

	return event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
	       (!*v || str_equal(v, "~") || str_equal(v, "null") || str_equal(v, "Null") ||
		str_equal(v, "NULL"));
}

static int add_item(struct scan *s, const struct outline_item *item)
{
	struct outline *o = s->outline;

	if (o->count == OUTLINE_ITEMS_MAX)
		return err_set(s->e, -EINVAL, "%u: more than %d keys", item->line,
			       OUTLINE_ITEMS_MAX);
	if (o->count == o->cap) {
		size_t cap = o->cap ? o->cap * 2 : 32;
		struct outline_item *items = realloc(o->items, cap * sizeof(*items));

		if (!items)
			return -ENOMEM;
		o->items = items;
		o->cap = cap;
	}
	o->items[o->count++] = *item;
	return 0;
}

/* Reads to the end of the collection that the current event opened. *ret_ragged is the line of the
 * first entry that is itself a collection, 0 when there is none. */
static int skip_collection(struct scan *s, unsigned int *ret_entries, unsigned int *ret_ragged)
{
	unsigned int depth = 1, entries = 0, ragged = 0;
	int r;

	while (depth) {
		r = next(s);
		if (r < 0)
			return r;
		switch (s->event.type) {
		case YAML_MAPPING_START_EVENT:
		case YAML_SEQUENCE_START_EVENT:
			if (!ragged)
				ragged = line_of(s);
			if (++depth > OUTLINE_DEPTH_MAX)
				return err_set(s->e, -EINVAL, "%u: nested more than %d deep",
					       line_of(s), OUTLINE_DEPTH_MAX);
			break;
		case YAML_MAPPING_END_EVENT:
		case YAML_SEQUENCE_END_EVENT:
			depth--;
			break;
		default:
			if (depth == 1)
				entries++;
			break;
		}
	}
	*ret_entries = entries;
	*ret_ragged = ragged;
	return 0;
}

static void copy_name(char *dst, const char *src)
{
	str_copy(dst, OUTLINE_NAME_BYTES, src);
	for (; *dst; dst++)
		if ((unsigned char)*dst < 0x20 || *dst == 0x7f)
			*dst = '?';
}

/* The current event opened a mapping: section NULL is the top level. */
static int scan_mapping(struct scan *s, const char *section)
{
	bool is_flow = s->event.data.mapping_start.style == YAML_FLOW_MAPPING_STYLE;
	int r;

	for (;;) {
		struct outline_item item = {.is_flow = is_flow};
		unsigned int entries = 0, ragged = 0;
		size_t index;

		r = next(s);
		if (r < 0)
			return r;
		if (s->event.type == YAML_MAPPING_END_EVENT)
			return 0;
		item.line = line_of(s);
		if (s->event.type != YAML_SCALAR_EVENT)
			return err_set(s->e, -EINVAL, "%u: a key must be a word", item.line);
		copy_name(item.section, section ? section : "");
		copy_name(item.name, (const char *)s->event.data.scalar.value);
		item.begin = offset_of(s, s->event.start_mark.index);
		r = next(s);
		if (r < 0)
			return r;
		item.value_line = line_of(s);
		if (s->event.type == YAML_MAPPING_START_EVENT)
			item.kind = OUTLINE_MAPPING;
		else if (s->event.type == YAML_SEQUENCE_START_EVENT)
			item.kind = OUTLINE_SEQUENCE;
		else
			item.kind = is_null(&s->event) ? OUTLINE_NULL : OUTLINE_SCALAR;
		index = s->outline->count;
		r = add_item(s, &item);
		if (r < 0)
			return r;
		if (item.kind == OUTLINE_MAPPING && !section)
			r = scan_mapping(s, item.name);
		else if (item.kind == OUTLINE_MAPPING || item.kind == OUTLINE_SEQUENCE)
			r = skip_collection(s, &entries, &ragged);
		if (r < 0)
			return r;
		s->outline->items[index].end = offset_of(s, s->event.end_mark.index);
		s->outline->items[index].entries = entries;
		if (item.kind == OUTLINE_SEQUENCE && ragged) {
			s->outline->items[index].is_ragged = true;
			s->outline->items[index].value_line = ragged;
		}
	}
}

static int scan_stream(struct scan *s)
{
	int r;

	for (bool seen = false;; seen = true) {
		do {
			r = next(s);
			if (r < 0)
				return r;
			if (s->event.type == YAML_STREAM_END_EVENT)
				return 0;
		} while (s->event.type == YAML_STREAM_START_EVENT);
		if (seen)
			return err_set(s->e, -EINVAL,
				       "%u: a second document begins here, "
				       "one file is one document",
				       line_of(s));
		r = next(s);
		if (r < 0)
			return r;
		if (s->event.type == YAML_MAPPING_START_EVENT)
			r = scan_mapping(s, NULL);
		else if (s->event.type != YAML_SCALAR_EVENT || !is_null(&s->event))
			r = err_set(s->e, -EINVAL, "%u: expected `section:` with keys below it",
				    line_of(s));
		if (r < 0)
			return r;
		r = next(s); /* end of the document */
		if (r < 0)
			return r;
	}
}

int outline_scan(const char *text, size_t size, struct outline *ret, struct err *e)
{
	struct outline outline = {0};
	struct scan s = {.outline = &outline, .e = e, .text = text, .size = size};
	int r;

	if (!yaml_parser_initialize(&s.parser))
		return -ENOMEM;
	/* Stated, not guessed: byte offsets below count UTF-8. */
	yaml_parser_set_encoding(&s.parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&s.parser, (const unsigned char *)text, size);
	r = scan_stream(&s);
	if (s.has_event)
		yaml_event_delete(&s.event);
	yaml_parser_delete(&s.parser);
	if (r < 0) {
		outline_fini(&outline);
		return r;
	}
	*ret = outline;
	return 0;
}

void outline_fini(struct outline *o)
{
	free(o->items);
	*o = (struct outline){0};
}

void outline_cut(const struct outline_item *item, char *text)
{
	/* In braces something must stay between the commas: a key that nobody knows. */
	bool keep = item->is_flow;

	for (size_t i = item->begin; i < item->end; i++) {
		if (text[i] == '\n' || text[i] == '\r')
			continue;
		text[i] = keep ? 'x' : ' ';
		keep = false;
	}
}
