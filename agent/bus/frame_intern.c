/* SPDX-License-Identifier: Apache-2.0 */
/* Interning of series: a hash table and a list by id. Owned by one encoder. */
#include "bus/frame_intern.h"

#include "base/cleanup.h"
#include "bus/frame_name.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define INTERN_BUCKETS 256u

void intern_init(struct intern_table *t)
{
	*t = (struct intern_table){.next_id = 1};
}

static void interned_free(struct interned *s)
{
	if (s->kind == METRIC_HISTOGRAM) {
		free(s->v.histogram.sent);
		free(s->v.histogram.offset);
	}
	free(s);
}

void intern_fini(struct intern_table *t)
{
	for (size_t i = 0; i < t->count; i++)
		interned_free(t->list[i]);
	free(t->list);
	free(t->buckets);
	*t = (struct intern_table){0};
}

static uint64_t hash_add(uint64_t h, const char *s)
{
	do {
		h = (h ^ (unsigned char)*s) * 0x100000001b3ULL; /* FNV-1a, the NUL included */
	} while (*s++);
	return h;
}

static uint64_t series_hash(const struct segment_series *series)
{
	uint64_t h = hash_add(0xcbf29ce484222325ULL ^ series->kind, series->name);

	for (unsigned int i = 0; i < series->label_count; i++)
		h = hash_add(hash_add(h, series->labels[i].key), series->labels[i].value);
	return h;
}

static bool next_equals(const char **at, const char *s)
{
	size_t n = strlen(*at) + 1;
	bool equal = strcmp(*at, s) == 0;

	*at += n;
	return equal;
}

static bool series_equals(const struct interned *s, const struct segment_series *series)
{
	const char *at = s->text;

	if (s->kind != (uint8_t)series->kind || s->label_count != series->label_count ||
	    !next_equals(&at, series->name))
		return false;
	at += strlen(at) + 1; /* unit and help are no identity */
	at += strlen(at) + 1;
	for (unsigned int i = 0; i < series->label_count; i++)
		if (!next_equals(&at, series->labels[i].key) ||
		    !next_equals(&at, series->labels[i].value))
			return false;
	return true;
}

static bool series_is_valid(const struct segment_series *series)
{
	if ((unsigned int)series->kind > METRIC_HISTOGRAM ||
	    (unsigned int)series->merge > METRIC_LAST ||
	    (unsigned int)series->scope > METRIC_AGENT ||
	    series->label_count > SEGMENT_LABELS_MAX ||
	    !frame_name_is_valid(series->name, FRAME_NAME_MAX) ||
	    !frame_text_fits(series->unit, FRAME_UNIT_MAX) ||
	    !frame_text_fits(series->help, FRAME_HELP_MAX))
		return false;
	for (unsigned int i = 0; i < series->label_count; i++)
		if (!frame_name_is_valid(series->labels[i].key, FRAME_NAME_MAX) ||
		    !frame_text_fits(series->labels[i].value, FRAME_LABEL_MAX))
			return false;
	return true;
}

static int buckets_grow(struct intern_table *t)
{
	size_t n = t->bucket_count ? t->bucket_count * 2 : INTERN_BUCKETS;
	struct interned **buckets = calloc(n, sizeof(struct interned *));

	if (!buckets)
		return -ENOMEM;
	for (size_t i = 0; i < t->count; i++) {
		struct interned *s = t->list[i];

		s->hash_next = buckets[s->hash & (n - 1)];
		buckets[s->hash & (n - 1)] = s;
	}
	free(t->buckets);
	t->buckets = buckets;
	t->bucket_count = n;
	return 0;
}

static int table_reserve(struct intern_table *t)
{
	if (t->count == t->cap) {
		size_t cap = t->cap ? t->cap * 2 : 128;
		struct interned **list = realloc(t->list, cap * sizeof(struct interned *));

		if (!list)
			return -ENOMEM;
		t->list = list;
		t->cap = cap;
	}
	return t->count >= t->bucket_count ? buckets_grow(t) : 0;
}

static char *text_add(char *at, const char *s)
{
	return stpcpy(at, s) + 1;
}

static int interned_new(const struct segment_series *series, uint64_t hash, struct interned **ret)
{
	/* The receiver knows unit and help of what is in the catalogue. */
	bool is_known = metric_find(series->name) != NULL;
	const char *unit = is_known ? "" : series->unit, *help = is_known ? "" : series->help;
	size_t bytes = strlen(series->name) + strlen(unit) + strlen(help) + 3;
	struct interned *s;
	char *at;

	for (unsigned int i = 0; i < series->label_count; i++)
		bytes += strlen(series->labels[i].key) + strlen(series->labels[i].value) + 2;
	s = calloc(1, sizeof(*s) + bytes);
	if (!s)
		return -ENOMEM;
	s->hash = hash;
	s->kind = (uint8_t)series->kind;
	s->merge = (uint8_t)series->merge;
	s->scope = (uint8_t)series->scope;
	s->label_count = (uint8_t)series->label_count;
	s->text_bytes = bytes;
	at = text_add(text_add(text_add(s->text, series->name), unit), help);
	for (unsigned int i = 0; i < series->label_count; i++)
		at = text_add(text_add(at, series->labels[i].key), series->labels[i].value);
	if (series->kind == METRIC_HISTOGRAM) {
		s->v.histogram.sent = calloc(HIST_CELLS, sizeof(uint64_t));
		if (!s->v.histogram.sent) {
			interned_free(s);
			return -ENOMEM;
		}
	}
	*ret = s;
	return 0;
}

/* Index in the list, whose ids ascend. */
static size_t index_of(const struct intern_table *t, const struct interned *s)
{
	size_t from = 0, to = t->count;

	while (to - from > 1) {
		size_t middle = from + (to - from) / 2;

		if (t->list[middle]->id <= s->id)
			from = middle;
		else
			to = middle;
	}
	return from;
}

static struct interned *intern_find(struct intern_table *t, const struct segment_series *series,
				    uint64_t hash)
{
	struct interned *s = t->bucket_count ? t->buckets[hash & (t->bucket_count - 1)] : NULL;

	while (s && !(s->hash == hash && series_equals(s, series)))
		s = s->hash_next;
	return s;
}

int intern_series(struct intern_table *t, const struct segment_series *series,
		  struct interned **ret)
{
	struct interned *s;
	uint64_t hash;
	int r;

	/* Segments are append-only and read in order: mostly it is the next one. */
	if (t->expected < t->count && series_equals(t->list[t->expected], series)) {
		*ret = t->list[t->expected++];
		return 1;
	}
	hash = series_hash(series);
	s = intern_find(t, series, hash);
	if (s) {
		t->expected = index_of(t, s) + 1;
		*ret = s;
		return 1;
	}
	if (!series->is_present)
		return -ENOENT;
	/* Asked at each tick for each that has no room: what costs least comes first. */
	if (t->count >= FRAME_SERIES_MAX || t->next_id > FRAME_ID_MAX) {
		t->refused++;
		return -ENOSPC;
	}
	if (!series_is_valid(series)) {
		t->refused++;
		return -EINVAL;
	}
	r = table_reserve(t);
	if (r < 0)
		return r;
	r = interned_new(series, hash, &s);
	if (r < 0)
		return r;
	s->id = t->next_id++;
	s->hash_next = t->buckets[hash & (t->bucket_count - 1)];
	t->buckets[hash & (t->bucket_count - 1)] = s;
	t->list[t->count++] = s;
	t->expected = t->count;
	*ret = s;
	return 0;
}

void intern_sweep(struct intern_table *t, bool (*is_gone)(const struct interned *s))
{
	size_t kept = 0;

	for (size_t i = 0; i < t->count; i++) {
		struct interned *s = t->list[i], **link;

		if (!is_gone(s)) {
			t->list[kept++] = s;
			continue;
		}
		for (link = &t->buckets[s->hash & (t->bucket_count - 1)]; *link != s;)
			link = &(*link)->hash_next;
		*link = s->hash_next;
		interned_free(s);
	}
	t->count = kept;
	t->expected = 0;
}
