/* SPDX-License-Identifier: Apache-2.0 */
/* Encoders of other protocols: see peers.h. Field numbers are those of opentelemetry-proto 1.x
 * (metrics/v1) and of Prometheus's prompb (remote write 1.0). */
#include "wire/peers.h"

#include "base/str.h"
#include "outlet/prometheus.h"

#include <snappy-c.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#define OTLP_ZSTD_LEVEL 3 /* the collector's */
#define NATIVE_SCHEMA   3 /* eight buckets to a doubling, as the cells */
#define NATIVE_OFFSET   (-240)
#define TEXT_LIMIT      (16u << 20)

struct bytes {
	uint8_t *data;
	size_t size, cap;
};

static uint8_t *room(struct bytes *b, size_t n)
{
	if (b->size + n > b->cap) {
		b->cap = (b->size + n) * 2;
		b->data = realloc(b->data, b->cap);
		if (!b->data)
			abort();
	}
	return b->data + b->size;
}

static void put_varint(struct bytes *b, uint64_t v)
{
	uint8_t *p = room(b, 10);

	for (; v >= 0x80; v >>= 7)
		*p++ = (uint8_t)(v | 0x80);
	*p++ = (uint8_t)v;
	b->size = (size_t)(p - b->data);
}

static void put_number(struct bytes *b, unsigned int field, uint64_t v)
{
	put_varint(b, field << 3);
	put_varint(b, v);
}

static void put_signed(struct bytes *b, unsigned int field, int64_t v)
{
	put_number(b, field, (uint64_t)v << 1 ^ (uint64_t)(v >> 63));
}

static void put_fixed(struct bytes *b, unsigned int field, const void *eight)
{
	put_varint(b, field << 3 | 1);
	memcpy(room(b, 8), eight, 8);
	b->size += 8;
}

static void put_bytes(struct bytes *b, unsigned int field, const void *data, size_t size)
{
	put_varint(b, field << 3 | 2);
	put_varint(b, size);
	if (size)
		memcpy(room(b, size), data, size);
	b->size += size;
}

/* Takes what child holds and empties it. */
static void put_child(struct bytes *b, unsigned int field, struct bytes *child)
{
	put_bytes(b, field, child->data, child->size);
	free(child->data);
	*child = (struct bytes){0};
}

static bool is_sent(const struct peer_tick *t, const struct segment_series *s)
{
	return s->name && s->is_present && (s->kind == METRIC_HISTOGRAM) == t->has_histograms;
}

/* First and last cell that is not 0; the first beyond the last when there is none. */
static void cells_between(const uint64_t *cells, unsigned int *ret_first, unsigned int *ret_last)
{
	unsigned int first = 0, last = HIST_CELLS - 1;

	while (first < HIST_CELLS && !cells[first])
		first++;
	while (last > first && !cells[last])
		last--;
	*ret_first = first;
	*ret_last = last;
}

/* -------- OTLP -------- */

static bool is_of_resource(const char *key)
{
	return str_equal(key, "gateway") || str_equal(key, "instance");
}

static const char *label_of(const struct segment_series *s, const char *key)
{
	for (unsigned int i = 0; i < s->label_count; i++)
		if (str_equal(s->labels[i].key, key))
			return s->labels[i].value;
	return "";
}

static void put_attribute(struct bytes *b, unsigned int field, const char *key, const char *value)
{
	struct bytes pair = {0}, any = {0};

	put_bytes(&any, 1, value, strlen(value));
	put_bytes(&pair, 1, key, strlen(key));
	put_child(&pair, 2, &any);
	put_child(b, field, &pair);
}

static void put_point(struct bytes *b, const struct peer_tick *t, const struct segment_series *s)
{
	uint64_t start = t->start_ms * 1000000, now = t->time_ms * 1000000;
	struct bytes point = {0};

	for (unsigned int i = 0; i < s->label_count; i++)
		if (!is_of_resource(s->labels[i].key))
			put_attribute(&point, s->kind == METRIC_HISTOGRAM ? 1 : 7, s->labels[i].key,
				      s->labels[i].value);
	put_fixed(&point, 2, &start);
	put_fixed(&point, 3, &now);
	if (s->kind == METRIC_COUNTER) {
		put_fixed(&point, 6, &s->counter);
	} else if (s->kind == METRIC_GAUGE) {
		put_fixed(&point, 4, &s->gauge);
	} else {
		struct bytes buckets = {0}, counts = {0};
		uint64_t count = histogram_count(s->cells);
		double sum = histogram_sum(s->cells);
		unsigned int first, last;

		cells_between(s->cells, &first, &last);
		put_fixed(&point, 4, &count);
		put_fixed(&point, 5, &sum);
		put_signed(&point, 6, NATIVE_SCHEMA);
		put_signed(&buckets, 1, (int64_t)first + NATIVE_OFFSET);
		for (unsigned int c = first; c <= last; c++)
			put_varint(&counts, s->cells[c]);
		put_child(&buckets, 2, &counts);
		put_child(&point, 8, &buckets);
	}
	put_child(b, 1, &point);
}

/* A metric with all its points of the resource of series `first`. */
static void put_metric(struct bytes *b, const struct peer_tick *t, unsigned int first)
{
	static const unsigned int data_field[] = {7, 5, 10}; /* sum, gauge, exponential histogram */
	const struct segment_series *head = &t->series[first];
	struct bytes metric = {0}, data = {0};

	put_bytes(&metric, 1, head->name, strlen(head->name));
	put_bytes(&metric, 3, head->unit, strlen(head->unit));
	for (unsigned int i = first; i < t->count; i++) {
		const struct segment_series *s = &t->series[i];

		if (is_sent(t, s) && str_equal(s->name, head->name) &&
		    str_equal(label_of(s, "instance"), label_of(head, "instance")))
			put_point(&data, t, s);
	}
	if (head->kind != METRIC_GAUGE)
		put_number(&data, 2, 2); /* cumulative */
	if (head->kind == METRIC_COUNTER)
		put_number(&data, 3, 1); /* monotonic */
	put_child(&metric, data_field[head->kind], &data);
	put_child(b, 2, &metric);
}

/* Nobody before it has the same instance (and, for a metric, the same name). */
static bool is_first(const struct peer_tick *t, unsigned int at, bool by_name)
{
	for (unsigned int i = 0; i < at; i++)
		if (is_sent(t, &t->series[i]) &&
		    str_equal(label_of(&t->series[i], "instance"),
			      label_of(&t->series[at], "instance")) &&
		    (!by_name || str_equal(t->series[i].name, t->series[at].name)))
			return false;
	return true;
}

static void put_resource(struct bytes *b, const struct peer_tick *t, unsigned int first)
{
	struct bytes all = {0}, resource = {0}, scope_metrics = {0}, scope = {0};
	const char *instance = label_of(&t->series[first], "instance");

	if (*instance) {
		put_attribute(&resource, 1, "service.name", label_of(&t->series[first], "gateway"));
		put_attribute(&resource, 1, "service.instance.id", instance);
	}
	put_child(&all, 1, &resource);
	put_bytes(&scope, 1, "tidegate", 8);
	put_child(&scope_metrics, 1, &scope);
	for (unsigned int i = first; i < t->count; i++)
		if (is_sent(t, &t->series[i]) &&
		    str_equal(label_of(&t->series[i], "instance"), instance) &&
		    is_first(t, i, true))
			put_metric(&scope_metrics, t, i);
	put_child(&all, 2, &scope_metrics);
	put_child(b, 1, &all);
}

size_t peer_otlp_zstd(const struct peer_tick *t)
{
	struct bytes request = {0}, out = {0};
	size_t size;

	for (unsigned int i = 0; i < t->count; i++)
		if (is_sent(t, &t->series[i]) && is_first(t, i, false))
			put_resource(&request, t, i);
	room(&out, ZSTD_compressBound(request.size));
	size = ZSTD_compress(out.data, out.cap, request.data, request.size, OTLP_ZSTD_LEVEL);
	if (ZSTD_isError(size))
		abort();
	free(request.data);
	free(out.data);
	return size;
}

/* -------- remote write -------- */

static int by_key(const void *a, const void *b)
{
	return strcmp(((const struct segment_label *)a)->key,
		      ((const struct segment_label *)b)->key);
}

static void put_label(struct bytes *b, const char *name, const char *value)
{
	struct bytes label = {0};

	put_bytes(&label, 1, name, strlen(name));
	put_bytes(&label, 2, value, strlen(value));
	put_child(b, 1, &label);
}

static void put_native(struct bytes *b, const uint64_t *cells, uint64_t time_ms)
{
	struct bytes h = {0}, span = {0}, deltas = {0};
	double sum = histogram_sum(cells), zero = 1e-9;
	unsigned int first, last;
	uint64_t before = 0;

	cells_between(cells, &first, &last);
	put_number(&h, 1, histogram_count(cells));
	put_fixed(&h, 3, &sum);
	put_signed(&h, 4, NATIVE_SCHEMA);
	put_fixed(&h, 5, &zero);
	put_signed(&span, 1, (int64_t)first + NATIVE_OFFSET);
	put_number(&span, 2, first <= last ? last - first + 1 : 0);
	put_child(&h, 11, &span);
	for (unsigned int c = first; c <= last; c++) {
		int64_t delta = (int64_t)(cells[c] - before);

		put_varint(&deltas, (uint64_t)delta << 1 ^ (uint64_t)(delta >> 63));
		before = cells[c];
	}
	put_child(&h, 12, &deltas);
	put_number(&h, 15, time_ms);
	put_child(b, 4, &h);
}

static void put_timeseries(struct bytes *b, const struct peer_tick *t,
			   const struct segment_series *s)
{
	struct segment_label labels[SEGMENT_LABELS_MAX];
	struct bytes series = {0}, sample = {0};
	double v = s->gauge;

	memcpy(labels, s->labels, sizeof(labels));
	qsort(labels, s->label_count, sizeof(labels[0]), by_key);
	put_label(&series, "__name__", s->name);
	for (unsigned int i = 0; i < s->label_count; i++)
		put_label(&series, labels[i].key, labels[i].value);
	if (s->kind == METRIC_HISTOGRAM) {
		put_native(&series, s->cells, t->time_ms);
	} else {
		if (s->kind == METRIC_COUNTER)
			v = (double)s->counter / (str_equal(s->unit, "nanoseconds") ? 1e9 : 1);
		put_fixed(&sample, 1, &v);
		put_number(&sample, 2, t->time_ms);
		put_child(&series, 2, &sample);
	}
	put_child(b, 1, &series);
}

size_t peer_remote_write_snappy(const struct peer_tick *t)
{
	struct bytes request = {0}, out = {0};
	size_t size;

	for (unsigned int i = 0; i < t->count; i++)
		if (is_sent(t, &t->series[i]))
			put_timeseries(&request, t, &t->series[i]);
	size = snappy_max_compressed_length(request.size);
	room(&out, size);
	if (snappy_compress((const char *)request.data, request.size, (char *)out.data, &size) !=
	    SNAPPY_OK)
		abort();
	free(request.data);
	free(out.data);
	return size;
}

/* -------- Prometheus text -------- */

static bool get_series(const void *data, size_t index, struct prometheus_series *ret)
{
	const struct peer_tick *t = data;
	const struct segment_series *s = &t->series[index];

	if (!is_sent(t, s))
		return false;
	*ret = (struct prometheus_series){
		.name = s->name,
		.unit = s->unit,
		.help = "",
		.kind = s->kind,
		.labels = s->labels,
		.label_count = s->label_count,
		.counter = s->counter,
		.gauge = s->gauge,
		.cells = s->cells,
	};
	return true;
}

size_t peer_text_gzip(const struct peer_tick *t)
{
	struct prometheus_source source = {t->count, get_series, t};
	struct bytes out = {0};
	struct strbuf text;
	z_stream z = {0};

	strbuf_init(&text, TEXT_LIMIT);
	if (prometheus_render(&source, 1, PROMETHEUS_TEXT, &text, NULL) < 0 ||
	    deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY) !=
		    Z_OK)
		abort();
	z.next_in = (Bytef *)text.data;
	z.avail_in = (uInt)text.len;
	z.avail_out = (uInt)deflateBound(&z, text.len);
	z.next_out = room(&out, z.avail_out);
	if (deflate(&z, Z_FINISH) != Z_STREAM_END)
		abort();
	deflateEnd(&z);
	strbuf_fini(&text);
	free(out.data);
	return z.total_out;
}
