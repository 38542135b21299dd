/* SPDX-License-Identifier: Apache-2.0 */
/* Metrics declared, series found or appended. The cold path: a script binds once. */
#include "state.h"

#include <errno.h>
#include <stdlib.h>

#define LABELS_BYTES (TIDEGATE_LABELS_MAX * (TIDEGATE_NAME_MAX + TIDEGATE_VALUE_MAX + 2))
#define HELP_MAX     512

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_name(const char *s)
{
	size_t n = 0;

	for (; s[n]; n++)
		if (n == TIDEGATE_NAME_MAX ||
		    (!is_letter(s[n]) && (n == 0 || s[n] < '0' || s[n] > '9')))
			return false;
	return n;
}

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n > m && strcmp(s + n - m, end) == 0;
}

/* ---- strings ---- */

/* bytes with the final NUL; 0 is never a string's place, so that it says: no room. */
static uint32_t heap_add(struct tidegate *t, const char *s, uint32_t bytes)
{
	struct segment_header *h = t->h;
	uint64_t at = h->heap_used ? h->heap_used : 8;

	if (bytes > h->heap_capacity - at)
		return 0;
	memcpy(t->heap + at, s, bytes);
	__atomic_store_n(&h->heap_used, at + bytes, __ATOMIC_RELEASE);
	return (uint32_t)at;
}

static struct tidegate_metric *metric_free(struct tidegate_metric *m)
{
	for (size_t i = 0; i < m->label_count; i++)
		free(m->labels[i]);
	free(m);
	return NULL;
}

/* ---- declaring ---- */

static int name_check(const char *name, enum metric_kind kind)
{
	if (!is_name(name))
		return reason_set(-EINVAL,
				  "metric \"%.140s\": not a name ([a-zA-Z_][a-zA-Z0-9_]*, at "
				  "most %d bytes)",
				  name, TIDEGATE_NAME_MAX);
	if (kind == METRIC_COUNTER && !ends_with(name, "_total"))
		return reason_set(-EINVAL, "counter %s: its name must end in _total", name);
	if (kind == METRIC_HISTOGRAM && !ends_with(name, "_seconds"))
		return reason_set(-EINVAL,
				  "histogram %s: its name must end in _seconds, which it counts",
				  name);
	return 0;
}

static int labels_check(const char *name, const char *const *labels, size_t n)
{
	if (n > TIDEGATE_LABELS_MAX)
		return reason_set(-E2BIG, "metric %s: %zu labels, at most %d are possible", name, n,
				  TIDEGATE_LABELS_MAX);
	for (size_t i = 0; i < n; i++) {
		if (!is_name(labels[i]) || strncmp(labels[i], "__", 2) == 0)
			return reason_set(-EINVAL, "metric %s: \"%.140s\" is no name of a label",
					  name, labels[i]);
		for (size_t j = 0; j < i; j++)
			if (strcmp(labels[i], labels[j]) == 0)
				return reason_set(-EINVAL, "metric %s: label %s is there twice",
						  name, labels[i]);
	}
	return 0;
}

static struct tidegate_metric *metric_of(struct tidegate *t, const char *name)
{
	for (struct tidegate_metric *m = t->metrics; m; m = m->next)
		if (strcmp(t->heap + m->name_offset, name) == 0)
			return m;
	return NULL;
}

static int metric_same(const struct tidegate_metric *m, const char *name, enum metric_kind kind,
		       const char *const *labels, size_t n)
{
	bool is_same = m->kind == kind && m->label_count == n;

	for (size_t i = 0; is_same && i < n; i++)
		is_same = strcmp(m->labels[i], labels[i]) == 0;
	return is_same ? 0
		       : reason_set(-EEXIST,
				    "metric %s: declared before with another kind or other "
				    "labels",
				    name);
}

static int metric_new(struct tidegate *t, const char *name, const char *help, enum metric_kind kind,
		      const char *const *labels, size_t n, struct tidegate_metric **ret)
{
	const char *unit = kind == METRIC_HISTOGRAM ? "seconds" : "";
	struct tidegate_metric *m = calloc(1, sizeof(*m));
	char text[HELP_MAX + 1];

	if (!m)
		return reason_set(-ENOMEM, "metric %s: out of memory", name);
	strncpy(text, help ? help : "", HELP_MAX);
	text[HELP_MAX] = '\0';
	m->t = t;
	m->kind = kind;
	m->name_bytes = (uint32_t)strlen(name);
	m->unit_bytes = (uint32_t)strlen(unit);
	m->help_bytes = (uint32_t)strlen(text);
	m->name_offset = heap_add(t, name, m->name_bytes + 1);
	m->unit_offset = heap_add(t, unit, m->unit_bytes + 1);
	m->help_offset = heap_add(t, text, m->help_bytes + 1);
	for (; m->label_count < n; m->label_count++) {
		m->labels[m->label_count] = strdup(labels[m->label_count]);
		if (!m->labels[m->label_count])
			break;
	}
	if (!m->help_offset || m->label_count < n) {
		metric_free(m);
		return reason_set(-ENOSPC, "metric %s: no room for its name; allow more series",
				  name);
	}
	*ret = m;
	return 0;
}

static int declare(struct tidegate *t, const char *name, const char *help, enum metric_kind kind,
		   enum metric_merge merge, const char *const *labels, size_t n,
		   struct tidegate_metric **ret)
{
	struct tidegate_metric *m;
	int r = name_check(name, kind);

	if (r == 0)
		r = labels_check(name, labels, n);
	if (r < 0)
		return r;
	m = metric_of(t, name);
	if (m) {
		r = metric_same(m, name, kind, labels, n);
		if (r == 0)
			*ret = m;
		return r;
	}
	r = metric_new(t, name, help, kind, labels, n, &m);
	if (r < 0)
		return r;
	m->merge = merge;
	m->next = t->metrics;
	t->metrics = m;
	*ret = m;
	return 0;
}

int tidegate_counter(struct tidegate *t, const char *name, const char *help,
		     const char *const *labels, size_t label_count, struct tidegate_metric **ret)
{
	return declare(t, name, help, METRIC_COUNTER, METRIC_SUM, labels, label_count, ret);
}

int tidegate_gauge(struct tidegate *t, const char *name, const char *help,
		   enum tidegate_merge merge, const char *const *labels, size_t label_count,
		   struct tidegate_metric **ret)
{
	if (merge > TIDEGATE_LAST)
		return reason_set(-EINVAL, "gauge %.140s: no such way of merging", name);
	return declare(t, name, help, METRIC_GAUGE, (enum metric_merge)merge, labels, label_count,
		       ret);
}

int tidegate_histogram(struct tidegate *t, const char *name, const char *help,
		       const char *const *labels, size_t label_count, struct tidegate_metric **ret)
{
	return declare(t, name, help, METRIC_HISTOGRAM, METRIC_SUM, labels, label_count, ret);
}

HIDDEN void metrics_free(struct tidegate *t)
{
	while (t->metrics) {
		struct tidegate_metric *m = t->metrics;

		t->metrics = m->next;
		metric_free(m);
	}
}

/* ---- series ---- */

/* Length of the UTF-8 sequence at s, 0: none. Overlong forms and surrogates pass: the agent checks. */
static size_t sequence(const char *s)
{
	unsigned char c = (unsigned char)s[0];
	size_t n = c < 0x80                ? 1
		   : c >= 0xc2 && c < 0xe0 ? 2
		   : c >= 0xe0 && c < 0xf0 ? 3
		   : c >= 0xf0 && c < 0xf5 ? 4
					   : 0;

	for (size_t i = 1; i < n; i++)
		if (((unsigned char)s[i] & 0xc0) != 0x80)
			return 0;
	return n;
}

/* Bytes that are no text become '?'; what is too long is cut between characters. */
static size_t value_copy(char *to, const char *from)
{
	size_t at = 0, n;

	for (; *from; from += n ? n : 1) {
		n = sequence(from);
		if (at + (n ? n : 1) > TIDEGATE_VALUE_MAX)
			break;
		if (n > 1)
			memcpy(to + at, from, n);
		else
			to[at] = n ? *from : '?';
		at += n ? n : 1;
	}
	to[at] = '\0';
	return at + 1;
}

static uint32_t labels_encode(const struct tidegate_metric *m, const char *const *values,
			      char buf[LABELS_BYTES])
{
	uint32_t at = 0;

	for (size_t i = 0; i < m->label_count; i++) {
		size_t n = strlen(m->labels[i]) + 1;

		memcpy(buf + at, m->labels[i], n);
		at += (uint32_t)n;
		at += (uint32_t)value_copy(buf + at, values ? values[i] : SEGMENT_OVERFLOW);
	}
	return at;
}

static uint32_t *place_of(struct tidegate *t, const struct tidegate_metric *m, const char *labels,
			  uint32_t bytes)
{
	uint32_t at = m->name_offset * 2654435761u;

	for (uint32_t i = 0; i < bytes; i++)
		at = (at ^ (unsigned char)labels[i]) * 16777619u;
	at ^= at >> 15;
	for (at &= t->index_mask; t->index[at]; at = (at + 1) & t->index_mask) {
		const struct segment_entry *d = &t->directory[t->index[at] - 1];

		if (d->name_offset == m->name_offset && d->labels_bytes == bytes &&
		    memcmp(t->heap + d->labels_offset, labels, bytes) == 0)
			break;
	}
	return &t->index[at];
}

/* Some room is for overflow series alone. */
static bool has_room(const struct tidegate *t, const struct tidegate_metric *m, bool is_overflow)
{
	const struct segment_header *h = t->h;
	uint32_t spare = is_overflow ? 0 : h->directory_capacity / 16;
	uint32_t spare_histograms = is_overflow ? 0 : t->histograms_max / 8;

	if (h->directory_count + spare >= h->directory_capacity)
		return false;
	return m->kind != METRIC_HISTOGRAM || t->histograms + spare_histograms < t->histograms_max;
}

static int entry_append(struct tidegate *t, const struct tidegate_metric *m, const char *labels,
			uint32_t bytes)
{
	struct segment_header *h = t->h;
	bool is_histogram = m->kind == METRIC_HISTOGRAM;
	uint64_t cell = is_histogram ? (h->cells_used + 7) / 8 * 8 : h->cells_used;
	struct segment_entry d = {
		.state = SEGMENT_ENTRY_PRESENT,
		.kind = (uint8_t)m->kind,
		.merge = (uint8_t)m->merge,
		.scope = METRIC_INSTANCE,
		.name_offset = m->name_offset,
		.name_bytes = m->name_bytes,
		.unit_offset = m->unit_offset,
		.unit_bytes = m->unit_bytes,
		.help_offset = m->help_offset,
		.help_bytes = m->help_bytes,
		.labels_bytes = bytes,
		.value_cell = cell,
		.cell_count = is_histogram ? HIST_CELLS : 1,
	};

	if (cell + d.cell_count > h->cells_capacity)
		return -ENOSPC;
	d.labels_offset = bytes ? heap_add(t, labels, bytes) : 0;
	if (bytes && !d.labels_offset)
		return -ENOSPC;
	t->directory[h->directory_count] = d;
	__atomic_store_n(&h->cells_used, cell + d.cell_count, __ATOMIC_RELEASE);
	__atomic_store_n(&h->directory_count, h->directory_count + 1, __ATOMIC_RELEASE);
	t->histograms += is_histogram;
	return 0;
}

static int series_of(struct tidegate *t, const struct tidegate_metric *m, const char *const *values,
		     uint64_t **ret)
{
	char labels[LABELS_BYTES];
	uint32_t bytes = labels_encode(m, values, labels);
	uint32_t *place = place_of(t, m, labels, bytes);

	if (!*place) {
		if (!has_room(t, m, !values) || entry_append(t, m, labels, bytes) < 0)
			return -ENOSPC;
		*place = t->h->directory_count;
	}
	*ret = t->cells + t->directory[*place - 1].value_cell;
	return 0;
}

int tidegate_with(struct tidegate_metric *m, const char *const *values, uint64_t **ret)
{
	static const char *const none[1];
	struct tidegate *t = m->t;

	if (!t->pid) /* a child's first call */
		region_attach(t);
	/* NULL means the overflow series below. */
	if (series_of(t, m, m->label_count ? values : none, ret) == 0)
		return 0;
	__atomic_store_n(&t->h->refused, t->h->refused + 1, __ATOMIC_RELAXED);
	if (!m->label_count || series_of(t, m, NULL, ret) < 0)
		*ret = t->nowhere;
	return reason_set(-ENOSPC, "metric %s: no room for another series (%u are allowed)",
			  t->heap + m->name_offset, t->h->directory_capacity);
}
