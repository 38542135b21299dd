/* SPDX-License-Identifier: Apache-2.0 */
/* What gather_series.h says. Scripts choose names and labels, so everything is checked here. */
#include "segment/gather_series.h"

#include "base/cleanup.h"
#include "base/str.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Names that only the agent gives, but for what the gateway module tells of Lua. */
#define OWN_PREFIX "tidegate_"
#define LUA_PREFIX "tidegate_lua"

struct gather_name {
	char *name; /* NULL: empty place */
	enum metric_kind kind;
};

struct gather_names {
	struct gather_name places[2 * GATHER_NAMES];
	unsigned int count;
};

struct gather_names *gather_names_free(struct gather_names *n)
{
	for (size_t i = 0; n && i < ARRAY_LEN(n->places); i++)
		free(n->places[i].name);
	free(n);
	return NULL;
}

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_name(const char *s)
{
	size_t n = 0;

	for (; s[n]; n++)
		if (n == GATHER_NAME_MAX ||
		    (!is_letter(s[n]) && (n == 0 || s[n] < '0' || s[n] > '9')))
			return false;
	return n;
}

/* Labels that say where a series comes from are the agent's to give. */
static bool is_own_label(const char *key)
{
	static const char *const own[] = {"gateway",   "instance", "worker", "cluster",
					  "namespace", "pod",      "node",   "le"};

	for (size_t i = 0; i < ARRAY_LEN(own); i++)
		if (str_equal(key, own[i]))
			return true;
	return str_starts(key, "__");
}

/* Descriptor that the series gets; false: the name is not one that a script may use. */
static bool describe(const struct segment_series *s, char help[GATHER_HELP_BYTES],
		     struct metric_desc *ret)
{
	const struct metric_desc *known;

	if (!is_name(s->name))
		return false;
	str_clean(help, GATHER_HELP_BYTES, s->help);
	*ret = (struct metric_desc){
		.name = s->name,
		.unit = is_name(s->unit) ? s->unit : "",
		.help = help,
		.kind = s->kind,
		.merge = s->merge,
		.scope = METRIC_INSTANCE,
	};
	if (s->kind == METRIC_HISTOGRAM)
		ret->unit = "seconds";
	if (!str_starts(s->name, OWN_PREFIX))
		return true;
	known = metric_find(s->name);
	if (!known || !str_starts(s->name, LUA_PREFIX) || known->kind != s->kind)
		return false;
	*ret = *known;
	return true;
}

static struct gather_name *name_place(struct gather_names *n, const char *name)
{
	size_t at = 2166136261u;

	for (const char *p = name; *p; p++)
		at = (at ^ (unsigned char)*p) * 16777619u & 0xffffffffu;
	at %= ARRAY_LEN(n->places);
	while (n->places[at].name && !str_equal(n->places[at].name, name))
		at = (at + 1) % ARRAY_LEN(n->places);
	return &n->places[at];
}

/* A name has the kind that it was declared with first. */
static enum gather_refusal name_check(struct gather_names *n, const char *name,
				      enum metric_kind kind)
{
	struct gather_name *place = name_place(n, name);

	if (place->name)
		return place->kind == kind ? GATHER_REFUSALS : GATHER_KIND;
	if (n->count == GATHER_NAMES)
		return GATHER_SERIES;
	place->name = strdup(name);
	if (!place->name)
		return GATHER_SERIES;
	place->kind = kind;
	n->count++;
	return GATHER_REFUSALS;
}

int gather_names_new(const struct segment_writer *w, struct gather_names **ret)
{
	struct gather_names *n = calloc(1, sizeof(*n));
	enum metric_kind kind;
	const char *name;

	if (!n)
		return -ENOMEM;
	/* What writers that are gone declared. */
	for (uint32_t i = 0; (name = segment_writer_name(w, i, &kind)); i++)
		name_check(n, name, kind);
	*ret = n;
	return 0;
}

struct label_set {
	const char *pairs[SEGMENT_LABELS_MAX][2];
	char values[SEGMENT_LABELS_MAX][GATHER_VALUE_MAX];
	size_t count;
};

static bool labels_build(const struct gather_owner *owner, const struct segment_series *s,
			 struct label_set *l)
{
	l->count = 0;
	l->pairs[l->count][0] = "gateway";
	l->pairs[l->count++][1] = owner->gateway;
	if (owner->instance[0]) {
		l->pairs[l->count][0] = "instance";
		l->pairs[l->count++][1] = owner->instance;
	}
	for (unsigned int i = 0; i < s->label_count; i++) {
		const char *key = s->labels[i].key;

		if (l->count == SEGMENT_LABELS_MAX || !is_name(key) || is_own_label(key))
			return false;
		for (unsigned int j = 0; j < i; j++)
			if (str_equal(key, s->labels[j].key))
				return false;
		str_clean(l->values[l->count], GATHER_VALUE_MAX, s->labels[i].value);
		l->pairs[l->count][0] = key;
		l->pairs[l->count][1] = l->values[l->count];
		l->count++;
	}
	return true;
}

/* Some of the room is for overflow series, and for what the agent tells of itself. */
static bool has_room(struct segment_writer *w)
{
	const struct segment_header *h = segment_writer_header(w);

	return h->directory_count + h->directory_capacity / 16 + 16 < h->directory_capacity &&
	       h->heap_used + h->heap_capacity / 16 < h->heap_capacity;
}

static int find_overflow(struct segment_writer *w, const struct gather_owner *owner,
			 const struct metric_desc *m, struct label_set *l)
{
	size_t own = owner->instance[0] ? 2 : 1;

	if (l->count == own)
		return -ENOSPC;
	for (size_t i = own; i < l->count; i++)
		l->pairs[i][1] = SEGMENT_OVERFLOW;
	return segment_writer_gathered(w, m, (const char *const(*)[2])l->pairs, l->count);
}

int gather_series_find(struct gather_names *n, struct segment_writer *w,
		       const struct gather_owner *owner, const struct segment_series *s,
		       enum gather_refusal *ret_refusal)
{
	char help[GATHER_HELP_BYTES];
	struct metric_desc m;
	struct label_set l;
	int index = -ENOSPC;

	*ret_refusal = GATHER_NAME;
	if (!describe(s, help, &m) || !labels_build(owner, s, &l))
		return -EINVAL;
	*ret_refusal = name_check(n, m.name, m.kind);
	if (*ret_refusal == GATHER_KIND)
		return -EINVAL;
	if (*ret_refusal == GATHER_REFUSALS) {
		index = segment_writer_find(w, &m, (const char *const(*)[2])l.pairs, l.count);
		if (index < 0 && has_room(w))
			index = segment_writer_gathered(w, &m, (const char *const(*)[2])l.pairs,
							l.count);
	}
	if (index >= 0)
		return index;
	*ret_refusal = GATHER_SERIES;
	return find_overflow(w, owner, &m, &l);
}
