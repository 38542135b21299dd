/* SPDX-License-Identifier: Apache-2.0 */
/* Two hash tables, of names and of groups; nothing is ever removed, because a counter that was
 * shown once must not be forgotten. */
#include "fleet/group.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HASH_START      2166136261u
#define NAME_BYTES_MAX  255
#define VALUE_BYTES_MAX 1023

void group_table_init(struct group_table *t, uint32_t limit)
{
	*t = (struct group_table){.limit = limit};
}

void group_table_fini(struct group_table *t)
{
	for (uint32_t i = 0; i < t->count; i++) {
		if (t->metrics[t->groups[i]->metric].kind == METRIC_HISTOGRAM)
			free(t->groups[i]->base.cells);
		free(t->groups[i]);
	}
	for (uint32_t i = 0; i < t->metric_count; i++)
		free(t->metrics[i].name);
	free(t->groups);
	free(t->buckets);
	free(t->metrics);
	free(t->metric_buckets);
	*t = (struct group_table){0};
}

static uint32_t hash_string(uint32_t hash, const char *s)
{
	for (; *s; s++)
		hash = (hash ^ (unsigned char)*s) * 16777619u;
	return (hash ^ 0xff) * 16777619u;
}

static uint32_t hash_mix(uint32_t h)
{
	h ^= h >> 16;
	h *= 0x7feb352du;
	h ^= h >> 15;
	return h;
}

static bool name_is_valid(const char *s, bool is_metric)
{
	size_t n = strnlen(s, NAME_BYTES_MAX + 1);

	if (!n || n > NAME_BYTES_MAX || (*s >= '0' && *s <= '9'))
		return false;
	for (; *s; s++) {
		bool is_word = (*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') ||
			       (*s >= '0' && *s <= '9') || *s == '_';

		if (!is_word && !(is_metric && *s == ':'))
			return false;
	}
	return true;
}

static int label_compare(const void *a, const void *b)
{
	return strcmp(((const struct segment_label *)a)->key,
		      ((const struct segment_label *)b)->key);
}

static int key_check(struct group_key *key)
{
	if (!name_is_valid(key->metric, true) || key->label_count > GROUP_LABELS_MAX)
		return -EINVAL;
	for (unsigned int i = 0; i < key->label_count; i++)
		if (!name_is_valid(key->labels[i].key, false) ||
		    strnlen(key->labels[i].value, VALUE_BYTES_MAX + 1) > VALUE_BYTES_MAX)
			return -EINVAL;
	if (key->label_count > 1)
		qsort(key->labels, key->label_count, sizeof(key->labels[0]), label_compare);
	for (unsigned int i = 1; i < key->label_count; i++)
		if (strcmp(key->labels[i - 1].key, key->labels[i].key) == 0)
			return -EINVAL;
	return 0;
}

/* Grows a table of index + 1 so that it is at most half full; hash_of tells where each belongs. */
static int buckets_grow(uint32_t **buckets, uint32_t *bucket_count, uint32_t used,
			uint32_t (*hash_of)(const struct group_table *, uint32_t),
			const struct group_table *t)
{
	uint32_t n = *bucket_count ? *bucket_count : 64, *fresh;

	if (*bucket_count && (used + 1) * 2ULL <= *bucket_count)
		return 0;
	while ((used + 1) * 2ULL > n)
		n *= 2;
	fresh = calloc(n, sizeof(*fresh));
	if (!fresh)
		return -ENOMEM;
	for (uint32_t i = 0; i < used; i++) {
		uint32_t at = hash_of(t, i) & (n - 1);

		while (fresh[at])
			at = (at + 1) & (n - 1);
		fresh[at] = i + 1;
	}
	free(*buckets);
	*buckets = fresh;
	*bucket_count = n;
	return 0;
}

static uint32_t metric_hash(const struct group_table *t, uint32_t i)
{
	return hash_mix(hash_string(HASH_START, t->metrics[i].name));
}

static uint32_t group_hash(const struct group_table *t, uint32_t i)
{
	return t->groups[i]->hash;
}

static int metric_add(struct group_table *t, const struct group_key *key, uint32_t *ret)
{
	size_t name = strlen(key->metric) + 1, unit = strlen(key->unit) + 1,
	       help = strlen(key->help) + 1;
	struct group_metric *m;
	char *text;

	if (t->metric_count == t->metric_capacity) {
		uint32_t capacity = t->metric_capacity ? t->metric_capacity * 2 : 64;

		m = realloc(t->metrics, capacity * sizeof(*m));
		if (!m)
			return -ENOMEM;
		t->metrics = m;
		t->metric_capacity = capacity;
	}
	text = malloc(name + unit + help);
	if (!text)
		return -ENOMEM;
	memcpy(text, key->metric, name);
	memcpy(text + name, key->unit, unit);
	memcpy(text + name + unit, key->help, help);
	t->metrics[t->metric_count] = (struct group_metric){
		.name = text,
		.unit = text + name,
		.help = text + name + unit,
		.kind = key->kind,
		.merge = key->merge,
		.scope = key->scope,
	};
	*ret = t->metric_count++;
	return 0;
}

static int metric_intern(struct group_table *t, const struct group_key *key, uint32_t *ret)
{
	uint32_t at, i;
	int r = buckets_grow(&t->metric_buckets, &t->metric_bucket_count, t->metric_count,
			     metric_hash, t);

	if (r < 0)
		return r;
	at = hash_mix(hash_string(HASH_START, key->metric)) & (t->metric_bucket_count - 1);
	for (; (i = t->metric_buckets[at]); at = (at + 1) & (t->metric_bucket_count - 1)) {
		if (strcmp(t->metrics[i - 1].name, key->metric) != 0)
			continue;
		*ret = i - 1;
		return t->metrics[i - 1].kind == key->kind ? 0 : -EEXIST;
	}
	if (t->count >= t->limit)
		return -ENOSPC;
	r = metric_add(t, key, ret);
	if (r >= 0)
		t->metric_buckets[at] = *ret + 1;
	return r;
}

static bool group_equal(const struct group *g, uint32_t metric, uint32_t hash,
			const struct group_key *key)
{
	if (g->metric != metric || g->hash != hash || g->label_count != key->label_count)
		return false;
	for (unsigned int i = 0; i < key->label_count; i++)
		if (strcmp(g->labels[i].key, key->labels[i].key) != 0 ||
		    strcmp(g->labels[i].value, key->labels[i].value) != 0)
			return false;
	return true;
}

static struct group *group_new(uint32_t metric, uint32_t hash, const struct group_key *key)
{
	size_t size = sizeof(struct group) + key->label_count * sizeof(struct segment_label);
	struct group *g;
	char *text;

	for (unsigned int i = 0; i < key->label_count; i++)
		size += strlen(key->labels[i].key) + strlen(key->labels[i].value) + 2;
	g = calloc(1, size);
	if (!g)
		return NULL;
	g->metric = metric;
	g->hash = hash;
	g->label_count = (uint8_t)key->label_count;
	text = (char *)&g->labels[key->label_count];
	for (unsigned int i = 0; i < key->label_count; i++) {
		g->labels[i].key = text;
		text = stpcpy(text, key->labels[i].key) + 1;
		g->labels[i].value = text;
		text = stpcpy(text, key->labels[i].value) + 1;
	}
	return g;
}

const char *group_gateway(const struct group *g)
{
	for (unsigned int i = 0; i < g->label_count; i++)
		if (strcmp(g->labels[i].key, "gateway") == 0)
			return g->labels[i].value;
	return "";
}

static uint8_t gateway_intern(struct group_table *t, const struct group *g)
{
	const char *gateway = group_gateway(g);
	uint8_t i = 0;

	while (i < t->gateway_count && strcmp(t->gateways[i], gateway) != 0)
		i++;
	if (i == t->gateway_count && i < GROUP_GATEWAYS)
		t->gateways[t->gateway_count++] = gateway;
	return i;
}

int group_intern(struct group_table *t, struct group_key *key, uint32_t *ret)
{
	uint32_t metric, hash, at, i;
	int r = key_check(key);

	if (r < 0)
		return r;
	r = metric_intern(t, key, &metric);
	if (r < 0)
		return r;
	hash = hash_string(HASH_START, key->metric);
	for (i = 0; i < key->label_count; i++)
		hash = hash_string(hash_string(hash, key->labels[i].key), key->labels[i].value);
	hash = hash_mix(hash);
	r = buckets_grow(&t->buckets, &t->bucket_count, t->count, group_hash, t);
	if (r < 0)
		return r;
	at = hash & (t->bucket_count - 1);
	for (; (i = t->buckets[at]); at = (at + 1) & (t->bucket_count - 1))
		if (group_equal(t->groups[i - 1], metric, hash, key)) {
			*ret = i - 1;
			return 0;
		}
	if (t->count >= t->limit)
		return -ENOSPC;
	if (t->count == t->capacity) {
		uint32_t capacity = t->capacity ? t->capacity * 2 : 64;
		struct group **groups = realloc(t->groups, capacity * sizeof(struct group *));

		if (!groups)
			return -ENOMEM;
		t->groups = groups;
		t->capacity = capacity;
	}
	t->groups[t->count] = group_new(metric, hash, key);
	if (!t->groups[t->count])
		return -ENOMEM;
	t->groups[t->count]->gateway = gateway_intern(t, t->groups[t->count]);
	t->buckets[at] = t->count + 1;
	*ret = t->count++;
	return 0;
}

int group_add_cells(struct group *g, unsigned int first, unsigned int n, const uint64_t *counts)
{
	if (!n)
		return 0;
	if (!g->base.cells) {
		g->base.cells = calloc(HIST_CELLS, sizeof(uint64_t));
		if (!g->base.cells)
			return -ENOMEM;
	}
	for (unsigned int i = 0; i < n; i++)
		g->base.cells[first + i] += counts[i];
	return 0;
}

int group_compare(const struct group_table *t, uint32_t a, uint32_t b)
{
	const struct group *x = t->groups[a], *y = t->groups[b];
	int r = x->metric == y->metric
			? 0
			: strcmp(t->metrics[x->metric].name, t->metrics[y->metric].name);

	for (unsigned int i = 0; !r && i < x->label_count && i < y->label_count; i++) {
		r = strcmp(x->labels[i].key, y->labels[i].key);
		if (!r)
			r = strcmp(x->labels[i].value, y->labels[i].value);
	}
	return r ? r : (int)x->label_count - (int)y->label_count;
}

static int order_compare(const void *a, const void *b, void *data)
{
	return group_compare(data, *(const uint32_t *)a, *(const uint32_t *)b);
}

int group_order(const struct group_table *t, uint32_t **ret)
{
	uint32_t *order = malloc((t->count + 1) * sizeof(*order));

	if (!order)
		return -ENOMEM;
	for (uint32_t i = 0; i < t->count; i++)
		order[i] = i;
	/* glibc's parameter is not const; the table is only read. */
	qsort_r(order, t->count, sizeof(*order), order_compare, (void *)(uintptr_t)t);
	*ret = order;
	return 0;
}
