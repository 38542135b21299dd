/* SPDX-License-Identifier: Apache-2.0 */
#include "outlet/matrix.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A NaN that no calculation gives: values may be NaN of their own. */
#define NONE_BITS 0x7ff0000000746744ull

double matrix_none(void)
{
	uint64_t bits = NONE_BITS;
	double v;

	memcpy(&v, &bits, sizeof(v));
	return v;
}

bool matrix_is_none(double v)
{
	uint64_t bits;

	memcpy(&bits, &v, sizeof(bits));
	/* Moving it about may make a quiet NaN of it. */
	return (bits & ~(1ull << 51)) == NONE_BITS;
}

void matrix_init(struct matrix *m, size_t steps)
{
	*m = (struct matrix){.steps = steps, .values_max = MATRIX_VALUES_MAX};
}

static void series_free(struct matrix_series *s)
{
	free(s->values);
	free(s->counts);
	free(s->text);
	free(s);
}

void matrix_reset(struct matrix *m)
{
	for (size_t i = 0; i < m->count; i++)
		series_free(m->series[i]);
	if (m->index)
		memset(m->index, 0, (m->index_mask + 1) * sizeof(*m->index));
	m->count = 0;
	if (m->shared)
		*m->shared -= m->bytes;
	m->bytes = 0;
}

void matrix_fini(struct matrix *m)
{
	matrix_reset(m);
	free(m->series);
	free(m->index);
	*m = (struct matrix){0};
}

static uint64_t hash_text(uint64_t h, const char *s)
{
	for (; *s; s++)
		h = (h ^ (unsigned char)*s) * 0x100000001b3ull;
	return (h ^ 0xff) * 0x100000001b3ull;
}

static uint64_t hash_of(const struct segment_label *labels, unsigned int n)
{
	uint64_t h = 0xcbf29ce484222325ull;

	for (unsigned int i = 0; i < n; i++)
		h = hash_text(hash_text(h, labels[i].key), labels[i].value);
	return h;
}

static bool same(const struct matrix_series *s, uint64_t hash, const struct segment_label *labels,
		 unsigned int n)
{
	if (s->hash != hash || s->label_count != n)
		return false;
	for (unsigned int i = 0; i < n; i++)
		if (strcmp(s->labels[i].key, labels[i].key) != 0 ||
		    strcmp(s->labels[i].value, labels[i].value) != 0)
			return false;
	return true;
}

struct matrix_series *matrix_lookup(const struct matrix *m, const struct segment_label *labels,
				    unsigned int n)
{
	uint64_t hash = hash_of(labels, n);

	if (!m->index)
		return NULL;
	for (size_t at = hash & m->index_mask; m->index[at]; at = (at + 1) & m->index_mask)
		if (same(m->series[m->index[at] - 1], hash, labels, n))
			return m->series[m->index[at] - 1];
	return NULL;
}

static void index_add(struct matrix *m, size_t i)
{
	size_t at = m->series[i]->hash & m->index_mask;

	while (m->index[at])
		at = (at + 1) & m->index_mask;
	m->index[at] = (uint32_t)i + 1;
}

static int room(struct matrix *m)
{
	size_t capacity = m->capacity ? m->capacity * 2 : 32;
	struct matrix_series **grown;
	uint32_t *index;

	if (m->count < m->capacity)
		return 0;
	grown = reallocarray(m->series, capacity, sizeof(struct matrix_series *));
	if (!grown)
		return -ENOMEM;
	m->series = grown;
	index = calloc(capacity * 2, sizeof(*index));
	if (!index)
		return -ENOMEM;
	free(m->index);
	m->index = index;
	m->index_mask = capacity * 2 - 1;
	m->capacity = capacity;
	for (size_t i = 0; i < m->count; i++)
		index_add(m, i);
	return 0;
}

static size_t text_size(const struct segment_label *labels, unsigned int n)
{
	size_t size = 1;

	for (unsigned int i = 0; i < n; i++)
		size += strlen(labels[i].key) + strlen(labels[i].value) + 2;
	return size;
}

static int labels_copy(struct matrix_series *s, const struct segment_label *labels, unsigned int n,
		       size_t size)
{
	char *at;

	s->text = at = malloc(size);
	if (!at)
		return -ENOMEM;
	s->label_count = n;
	for (unsigned int i = 0; i < n; i++) {
		s->labels[i].key = at;
		at = stpcpy(at, labels[i].key) + 1;
		s->labels[i].value = at;
		at = stpcpy(at, labels[i].value) + 1;
	}
	return 0;
}

int matrix_find(struct matrix *m, const struct segment_label *labels, unsigned int n,
		struct matrix_series **ret, bool *ret_is_new)
{
	struct matrix_series *s = matrix_lookup(m, labels, n);
	size_t text, bytes;
	int r;

	*ret_is_new = !s;
	if (s) {
		*ret = s;
		return 0;
	}
	if (n > MATRIX_LABELS_MAX || (m->count + 1) * m->steps > m->values_max)
		return -E2BIG;
	text = text_size(labels, n);
	bytes = sizeof(*s) + text + m->steps * (sizeof(*s->values) + sizeof(*s->counts));
	if ((m->shared ? *m->shared : m->bytes) + bytes > MATRIX_BYTES_MAX)
		return -E2BIG;
	r = room(m);
	if (r < 0)
		return r;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->values = malloc(m->steps * sizeof(*s->values) + 1);
	if (!s->values || labels_copy(s, labels, n, text) < 0) {
		series_free(s);
		return -ENOMEM;
	}
	for (size_t i = 0; i < m->steps; i++)
		s->values[i] = matrix_none();
	s->hash = hash_of(labels, n);
	m->bytes += bytes;
	if (m->shared)
		*m->shared += bytes;
	m->series[m->count++] = s;
	index_add(m, m->count - 1);
	*ret = s;
	return 0;
}

int matrix_count(struct matrix *m, struct matrix_series *s)
{
	if (!s->counts)
		s->counts = calloc(m->steps + 1, sizeof(*s->counts));
	return s->counts ? 0 : -ENOMEM;
}

static int compare(const void *a, const void *b)
{
	const struct matrix_series *x = *(struct matrix_series *const *)a,
				   *y = *(struct matrix_series *const *)b;

	for (unsigned int i = 0; i < x->label_count && i < y->label_count; i++) {
		int r = strcmp(x->labels[i].key, y->labels[i].key);

		r = r ? r : strcmp(x->labels[i].value, y->labels[i].value);
		if (r)
			return r;
	}
	return (x->label_count > y->label_count) - (x->label_count < y->label_count);
}

void matrix_sort(struct matrix *m)
{
	if (!m->count || !m->index) /* what has a series has an index */
		return;
	qsort(m->series, m->count, sizeof(struct matrix_series *), compare);
	memset(m->index, 0, (m->index_mask + 1) * sizeof(*m->index));
	for (size_t i = 0; i < m->count; i++)
		index_add(m, i);
}
