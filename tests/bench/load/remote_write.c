/* SPDX-License-Identifier: Apache-2.0 */
#include "remote_write.h"

#include <errno.h>
#include <snappy-c.h>
#include <stdlib.h>
#include <string.h>

#define NATIVE_SCHEMA 3
/* A cell's number beside its index in the native schema: the load is the same whichever buckets
 * are named. */
#define CELL_OFFSET (-240)

static uint8_t *room(struct buffer *b, size_t n)
{
	if (b->size + n > b->cap) {
		b->cap = (b->size + n) * 2;
		b->data = realloc(b->data, b->cap);
		if (!b->data)
			abort();
	}
	return b->data + b->size;
}

static void put_varint(struct buffer *b, uint64_t v)
{
	uint8_t *p = room(b, 10);

	for (; v >= 0x80; v >>= 7)
		*p++ = (uint8_t)(v | 0x80);
	*p++ = (uint8_t)v;
	b->size = (size_t)(p - b->data);
}

static void put_bytes(struct buffer *b, uint8_t tag, const void *data, size_t size)
{
	put_varint(b, tag);
	put_varint(b, size);
	memcpy(room(b, size), data, size);
	b->size += size;
}

static void put_double(struct buffer *b, uint8_t tag, double v)
{
	put_varint(b, tag);
	memcpy(room(b, sizeof(v)), &v, sizeof(v));
	b->size += sizeof(v);
}

static uint64_t zigzag(int64_t v)
{
	return (uint64_t)v << 1 ^ (uint64_t)(v >> 63);
}

static void put_label(struct buffer *b, const char *name, const char *value)
{
	struct buffer label = {0};

	put_bytes(&label, 0x0a, name, strlen(name));
	put_bytes(&label, 0x12, value, strlen(value));
	put_bytes(b, 0x0a, label.data, label.size);
	free(label.data);
}

static int by_key(const void *a, const void *b)
{
	return strcmp(((const struct segment_label *)a)->key,
		      ((const struct segment_label *)b)->key);
}

int remote_write_init(struct remote_write *w, const char *instance)
{
	static struct standard s;

	memset(w, 0, sizeof(*w));
	standard_init(&s, 0, instance);
	for (unsigned int i = 0; i < STANDARD_SERIES; i++) {
		struct segment_series series;

		standard_series(&s, i, &series);
		/* Receivers want labels in order; "__name__" comes before all small letters. */
		qsort(series.labels, series.label_count, sizeof(series.labels[0]), by_key);
		put_label(&w->labels[i], "__name__", series.name);
		for (unsigned int l = 0; l < series.label_count; l++)
			put_label(&w->labels[i], series.labels[l].key, series.labels[l].value);
	}
	return 0;
}

void remote_write_begin(struct remote_write *w)
{
	for (unsigned int i = 0; i < STANDARD_SERIES; i++)
		w->samples[i].size = 0;
}

static void put_native(struct buffer *b, const uint64_t *cells, int64_t time_ms)
{
	static struct buffer h, span, deltas;
	unsigned int first = 0, last = HIST_CELLS - 1;
	uint64_t before = 0;

	while (first < HIST_CELLS - 1 && !cells[first])
		first++;
	while (last > first && !cells[last])
		last--;
	h.size = span.size = deltas.size = 0;
	put_varint(&h, 0x08); /* count */
	put_varint(&h, histogram_count(cells));
	put_double(&h, 0x19, histogram_sum(cells));
	put_varint(&h, 0x20);
	put_varint(&h, zigzag(NATIVE_SCHEMA));
	put_double(&h, 0x29, 1e-9); /* zero threshold */
	put_varint(&h, 0x30);       /* zero count */
	put_varint(&h, 0);
	put_varint(&span, 0x08);
	put_varint(&span, zigzag((int64_t)first + CELL_OFFSET));
	put_varint(&span, 0x10);
	put_varint(&span, last - first + 1);
	put_bytes(&h, 0x5a, span.data, span.size);
	for (unsigned int c = first; c <= last; c++) {
		put_varint(&deltas, zigzag((int64_t)(cells[c] - before)));
		before = cells[c];
	}
	put_bytes(&h, 0x62, deltas.data, deltas.size);
	put_varint(&h, 0x78);
	put_varint(&h, (uint64_t)time_ms);
	put_bytes(b, 0x22, h.data, h.size);
}

static void put_sample(struct buffer *b, double value, int64_t time_ms)
{
	static struct buffer sample;

	sample.size = 0;
	put_double(&sample, 0x09, value);
	put_varint(&sample, 0x10);
	put_varint(&sample, (uint64_t)time_ms);
	put_bytes(b, 0x12, sample.data, sample.size);
}

void remote_write_tick(struct remote_write *w, const struct standard *s, int64_t time_ms)
{
	for (unsigned int i = 0; i < STANDARD_SERIES; i++) {
		struct segment_series series;

		standard_series(s, i, &series);
		if (series.kind == METRIC_HISTOGRAM)
			put_native(&w->samples[i], series.cells, time_ms);
		else
			put_sample(&w->samples[i],
				   series.kind == METRIC_COUNTER ? (double)series.counter
								 : series.gauge,
				   time_ms);
	}
}

uint8_t *remote_write_finish(struct remote_write *w, size_t free_bytes, size_t *ret_size)
{
	struct buffer *q = &w->request;
	uint8_t *out;
	size_t n;

	q->size = 0;
	for (unsigned int i = 0; i < STANDARD_SERIES; i++) {
		const struct buffer *l = &w->labels[i], *s = &w->samples[i];

		put_varint(q, 0x0a);
		put_varint(q, l->size + s->size);
		memcpy(room(q, l->size), l->data, l->size);
		q->size += l->size;
		memcpy(room(q, s->size), s->data, s->size);
		q->size += s->size;
	}
	n = snappy_max_compressed_length(q->size);
	out = malloc(free_bytes + n);
	if (!out || snappy_compress((const char *)q->data, q->size, (char *)out + free_bytes, &n)) {
		free(out);
		return NULL;
	}
	*ret_size = n;
	return out;
}
