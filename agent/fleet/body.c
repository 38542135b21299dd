/* SPDX-License-Identifier: Apache-2.0 */
/* One arena holds a body; it is reset for each. */
#include "fleet/body.h"

#include "base/arena.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ARENA_BYTES (8u << 20) /* no page of it is there before it is used */

struct body {
	struct arena arena;
	Tidegate__BusBody message;
	size_t bytes; /* packed */
	unsigned int series_max;
	Tidegate__BusSeries *series[];
};

int body_new(unsigned int series_max, struct body **ret)
{
	unsigned int most = series_max ? series_max : BODY_SERIES_MAX;
	struct body *b = calloc(1, sizeof(*b) + most * sizeof(b->series[0]));
	int r;

	if (!b)
		return -ENOMEM;
	b->series_max = most;
	r = arena_init(&b->arena, ARENA_BYTES);
	if (r < 0) {
		free(b);
		return r;
	}
	body_reset(b, 0);
	*ret = b;
	return 0;
}

struct body *body_free(struct body *b)
{
	if (!b)
		return NULL;
	arena_fini(&b->arena);
	free(b);
	return NULL;
}

void body_reset(struct body *b, uint64_t time_ms)
{
	arena_reset(&b->arena);
	tidegate__bus_body__init(&b->message);
	b->message.time_ms = time_ms;
	b->bytes = 0;
	b->message.series = b->series;
}

static char *text_copy(struct body *b, const char *s)
{
	size_t n = strlen(s) + 1;
	char *copy = arena_alloc(&b->arena, n);

	return copy ? memcpy(copy, s, n) : NULL;
}

static int cells_fill(struct body *b, Tidegate__BusSeries *out, const uint64_t *cells)
{
	unsigned int n = 0, before = 0;

	for (unsigned int i = 0; i < HIST_CELLS; i++)
		n += cells[i] != 0;
	out->cells = arena_alloc(&b->arena, n * sizeof(*out->cells));
	out->counts = arena_alloc(&b->arena, n * sizeof(*out->counts));
	if (!out->cells || !out->counts)
		return -ENOMEM;
	for (unsigned int i = 0; i < HIST_CELLS; i++) {
		if (!cells[i])
			continue;
		out->cells[out->n_cells++] = i - before;
		out->counts[out->n_counts++] = cells[i];
		before = i;
	}
	return 0;
}

int body_add(struct body *b, const struct merge_series *series)
{
	Tidegate__BusSeries *out;
	size_t bytes;
	int r = 0;

	if (b->message.n_series == b->series_max)
		return -ENOSPC;
	out = arena_alloc(&b->arena, sizeof(*out));
	if (!out)
		return -ENOMEM;
	tidegate__bus_series__init(out);
	out->metric = text_copy(b, series->name);
	out->labels = arena_alloc(&b->arena, 2 * series->label_count * sizeof(char *));
	if (!out->metric || !out->labels)
		return -ENOMEM;
	for (unsigned int i = 0; i < series->label_count; i++) {
		out->labels[2 * i] = text_copy(b, series->labels[i].key);
		out->labels[2 * i + 1] = text_copy(b, series->labels[i].value);
		if (!out->labels[2 * i] || !out->labels[2 * i + 1])
			return -ENOMEM;
	}
	out->n_labels = 2 * series->label_count;
	out->kind = series->kind;
	if (series->kind == METRIC_COUNTER)
		out->counter = series->counter;
	else if (series->kind == METRIC_GAUGE)
		out->gauge = series->gauge;
	else
		r = cells_fill(b, out, series->cells);
	if (r < 0)
		return r;
	bytes = tidegate__bus_series__get_packed_size(out) + 8;
	if (b->message.n_series && b->bytes + bytes > BODY_BYTES_MAX)
		return -ENOSPC;
	b->bytes += bytes;
	b->series[b->message.n_series++] = out;
	return 0;
}

size_t body_count(const struct body *b)
{
	return b->message.n_series;
}

Tidegate__BusBody *body_message(struct body *b)
{
	return &b->message;
}
