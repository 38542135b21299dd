/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes one segment: series, gateways, ticks. Owns the mapping and the indexes that find a series
 * or a string again. Single-threaded; runs in the keeper (host.seg) and the courier (app.seg).
 *
 * Every store that a reader may see at any time is a relaxed atomic one of 64 (or 32) bits; order
 * comes from the two sequence numbers alone.
 */
#include "segment/writer.h"

#include "base/cleanup.h"
#include "base/str.h"
#include "segment/layout.h"
#include "segment/reader.h"
#include "segment/writer_state.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define LABELS_BYTES_MAX 4096

DEFINE_CLEANUP(struct segment_writer *, segment_writer_close)

/* ---- who we are ---- */

static int read_boot_id(uint8_t ret[16], struct err *e)
{
	static const char path[] = "/proc/sys/kernel/random/boot_id";
	unsigned int n = 0;
	char text[64];
	int r = str_read_file(path, text, sizeof(text));

	if (r < 0)
		return err_set(e, r, "%s: %s; is /proc mounted?", path, err_text(r));
	for (const char *p = text; *p && n < 32; p++) {
		unsigned int digit;

		if (!isxdigit((unsigned char)*p))
			continue;
		digit = isdigit((unsigned char)*p) ? (unsigned int)(*p - '0')
						   : (unsigned int)(tolower(*p) - 'a' + 10);
		ret[n / 2] = (uint8_t)(n % 2 ? ret[n / 2] | digit : digit << 4);
		n++;
	}
	return n == 32 ? 0 : err_set(e, -EBADMSG, "%s: unreadable: %.40s", path, text);
}

/* Field 22 of /proc/self/stat, counted behind the last parenthesis of the name; 0 if unreadable. */
static uint64_t read_own_start(void)
{
	char text[1024], *p;
	unsigned long long start = 0;

	if (str_read_file("/proc/self/stat", text, sizeof(text)) < 0)
		return 0;
	p = strrchr(text, ')');
	for (unsigned int field = 2; p && field < 22; field++)
		p = strchr(p + 1, ' ');
	if (p)
		sscanf(p, "%llu", &start);
	return start;
}

int segment_writer_life_new(uint64_t *ret, struct err *e)
{
	*ret = 0;
	while (!*ret)
		if (getrandom(ret, sizeof(*ret), 0) < 0 && errno != EINTR)
			return err_set(e, -errno, "no random number: %s", err_text(-errno));
	return 0;
}

/* ---- structure ---- */

void segment_writer_change_begin(struct segment_writer *w)
{
	CHECK(w->magic == WRITER_MAGIC);
	if (w->change_depth++)
		return;
	STORE(w->h->epoch, w->h->epoch + 1);
	__atomic_thread_fence(__ATOMIC_RELEASE);
}

void segment_writer_change_end(struct segment_writer *w)
{
	CHECK(w->magic == WRITER_MAGIC && w->change_depth);
	if (--w->change_depth)
		return;
	__atomic_store_n(&w->h->epoch, w->h->epoch + 1, __ATOMIC_RELEASE);
}

static uint32_t hash_bytes(uint32_t seed, const void *data, size_t n)
{
	const unsigned char *p = data;
	uint32_t x = seed ^ 2166136261u;

	for (size_t i = 0; i < n; i++)
		x = (x ^ p[i]) * 16777619u;
	return x ^ x >> 15;
}

static struct interned *string_place(struct segment_writer *w, const char *s, uint32_t bytes)
{
	uint32_t at = hash_bytes(0, s, bytes) & w->strings_mask;

	while (w->strings[at].bytes && (w->strings[at].bytes != bytes ||
					memcmp(w->heap + w->strings[at].offset, s, bytes) != 0))
		at = (at + 1) & w->strings_mask;
	return &w->strings[at];
}

/* bytes includes every NUL. -ENOSPC. */
static int string_intern(struct segment_writer *w, const char *s, uint32_t bytes,
			 uint32_t *ret_offset)
{
	struct interned *place;

	if (!bytes) {
		*ret_offset = 0;
		return 0;
	}
	place = string_place(w, s, bytes);
	if (!place->bytes) {
		if (bytes > w->h->heap_capacity - w->h->heap_used)
			return -ENOSPC;
		place->offset = (uint32_t)w->h->heap_used;
		place->bytes = bytes;
		memcpy(w->heap + place->offset, s, bytes);
		STORE(w->h->heap_used, w->h->heap_used + bytes);
	}
	*ret_offset = place->offset;
	return 0;
}

static uint32_t *series_place(struct segment_writer *w, enum metric_kind kind, const char *name,
			      uint32_t name_bytes, const char *labels, uint32_t labels_bytes)
{
	uint32_t at =
		hash_bytes(hash_bytes((uint32_t)kind, name, name_bytes), labels, labels_bytes) &
		w->series_mask;

	for (; w->series_index[at]; at = (at + 1) & w->series_mask) {
		const struct segment_entry *d = &w->directory[w->series_index[at] - 1];

		if (d->kind == kind && d->name_bytes == name_bytes &&
		    d->labels_bytes == labels_bytes &&
		    memcmp(w->heap + d->name_offset, name, name_bytes) == 0 &&
		    memcmp(w->heap + d->labels_offset, labels, labels_bytes) == 0)
			break;
	}
	return &w->series_index[at];
}

static void string_remember(struct segment_writer *w, uint32_t offset, uint32_t bytes)
{
	struct interned *place;

	if (!bytes)
		return;
	place = string_place(w, w->heap + offset, bytes);
	*place = (struct interned){offset, bytes};
}

/* Fills the indexes from a continued file and trims what an interrupted append left behind. */
static void writer_index(struct segment_writer *w)
{
	uint64_t cells = 0;

	for (uint32_t i = 0; i < w->h->directory_count; i++) {
		const struct segment_entry *d = &w->directory[i];

		string_remember(w, d->name_offset, d->name_bytes + 1);
		string_remember(w, d->unit_offset, d->unit_bytes + 1);
		string_remember(w, d->help_offset, d->help_bytes + 1);
		string_remember(w, d->labels_offset, d->labels_bytes);
		*series_place(w, d->kind, w->heap + d->name_offset, d->name_bytes,
			      w->heap + d->labels_offset, d->labels_bytes) = i + 1;
		w->histograms += d->kind == METRIC_HISTOGRAM;
		cells += segment_kind_cells(w->h->kind, d->kind);
	}
	memset(w->cells + cells, 0, (w->h->cells_used - cells) * sizeof(*w->cells));
	w->h->cells_used = cells;
}

static uint32_t table_size(uint32_t least)
{
	uint32_t n = 64;

	while (n < least)
		n *= 2;
	return n;
}

void segment_writer_point(struct segment_writer *w, const struct segment_header *layout)
{
	char *map = w->file.map;

	w->h = w->file.map;
	w->gateways = (void *)(map + layout->gateways_offset);
	w->directory = (void *)(map + layout->directory_offset);
	w->heap = map + layout->heap_offset;
	w->cells = (void *)(map + layout->cells_offset);
}

int segment_writer_keep(struct segment_writer *w, struct err *e)
{
	int r;

	CHECK(w->magic == WRITER_MAGIC && !w->is_ticking && !w->change_depth);
	r = segment_file_keep(&w->file, e);
	if (r > 0)
		segment_writer_point(w, w->file.map);
	return r;
}

int segment_writer_open(const struct segment_options *options, struct segment_writer **ret,
			bool *ret_continued, struct err *e)
{
	_cleanup_(segment_writer_close_p) struct segment_writer *w = calloc(1, sizeof(*w));
	struct segment_header plan = {0};
	uint32_t series_places, strings_places;
	int r;

	if (!w)
		return -ENOMEM;
	w->magic = WRITER_MAGIC;
	w->file.lock = -1;
	r = segment_layout_plan(&plan, options->kind, options->series, options->histograms,
				options->heap_bytes, e);
	if (r < 0)
		return r;
	r = read_boot_id(plan.boot_id, e);
	if (r < 0)
		return r;
	r = segment_writer_life_new(&plan.life, e);
	if (r < 0)
		return r;
	/* At most four strings a series, so that the tables are never more than half full. */
	series_places = table_size(options->series * 2);
	strings_places = table_size(options->series * 8);
	w->series_index = calloc(series_places, sizeof(*w->series_index));
	w->strings = calloc(strings_places, sizeof(*w->strings));
	if (!w->series_index || !w->strings)
		return -ENOMEM;
	w->series_mask = series_places - 1;
	w->strings_mask = strings_places - 1;
	r = segment_file_open(options, &plan, &w->file, e);
	if (r < 0)
		return r;
	segment_writer_point(w, &plan);
	w->histograms_max = options->histograms;
	/* The writer before us may have died in the middle of a change or a tick: every single store
	 * was whole, so even numbers again are all that readers need. */
	w->h->tick_seq += w->h->tick_seq & 1;
	w->h->epoch += w->h->epoch & 1;
	segment_writer_change_begin(w);
	writer_index(w);
	w->h->writer_pid = (uint32_t)getpid();
	w->h->writer_start = read_own_start();
	segment_writer_change_end(w);
	*ret_continued = w->file.is_continued;
	*ret = TAKE_PTR(w);
	return 0;
}

struct segment_writer *segment_writer_close(struct segment_writer *w)
{
	if (!w)
		return NULL;
	CHECK(w->magic == WRITER_MAGIC);
	w->magic = 0;
	segment_file_close(&w->file);
	free(w->series_index);
	free(w->strings);
	free(w);
	return NULL;
}

const char *segment_writer_reason(const struct segment_writer *w)
{
	return w->file.reason;
}

struct segment_header *segment_writer_header(struct segment_writer *w)
{
	CHECK(w->magic == WRITER_MAGIC);
	return w->h;
}

/* ---- series ---- */

/* key NUL value NUL …; returns the bytes, or -E2BIG. */
static int labels_encode(const char *const (*labels)[2], size_t n, char *buf, size_t size)
{
	size_t at = 0;

	if (n > SEGMENT_LABELS_MAX)
		return -E2BIG;
	for (size_t i = 0; i < 2 * n; i++) {
		const char *s = labels[i / 2][i % 2];
		size_t bytes = strlen(s) + 1;

		if (bytes > size - at || (i % 2 == 0 && bytes == 1))
			return -E2BIG;
		memcpy(buf + at, s, bytes);
		at += bytes;
	}
	return (int)at;
}

/* Another build may merge a metric otherwise than the one that made the series. Its help stays as
 * it is: new text would take heap that is needed for new series. */
static void series_describe(struct segment_writer *w, struct segment_entry *d,
			    const struct metric_desc *m)
{
	if (d->merge == m->merge && d->scope == m->scope)
		return;
	segment_writer_change_begin(w);
	d->merge = (uint8_t)m->merge;
	d->scope = (uint8_t)m->scope;
	segment_writer_change_end(w);
}

static int series_append(struct segment_writer *w, const struct metric_desc *m, uint8_t flags,
			 const char *labels, uint32_t labels_bytes)
{
	uint32_t index = w->h->directory_count, run = segment_kind_cells(w->h->kind, m->kind);
	struct segment_entry d = {
		.state = SEGMENT_ENTRY_ABSENT,
		.kind = (uint8_t)m->kind,
		.merge = (uint8_t)m->merge,
		.scope = (uint8_t)m->scope,
		.flags = flags,
		.name_bytes = (uint32_t)strlen(m->name),
		.unit_bytes = (uint32_t)strlen(m->unit),
		.help_bytes = (uint32_t)strlen(m->help),
		.labels_bytes = labels_bytes,
		.value_cell = w->h->cells_used,
		.cell_count = m->kind == METRIC_HISTOGRAM ? HIST_CELLS : 1,
	};

	if (index == w->h->directory_capacity || run > w->h->cells_capacity - w->h->cells_used ||
	    (m->kind == METRIC_HISTOGRAM && w->histograms == w->histograms_max) || !d.name_bytes)
		return -ENOSPC;
	if (string_intern(w, m->name, d.name_bytes + 1, &d.name_offset) < 0 ||
	    string_intern(w, m->unit, d.unit_bytes + 1, &d.unit_offset) < 0 ||
	    string_intern(w, m->help, d.help_bytes + 1, &d.help_offset) < 0 ||
	    string_intern(w, labels, labels_bytes, &d.labels_offset) < 0)
		return -ENOSPC;
	w->histograms += m->kind == METRIC_HISTOGRAM;
	STORE(w->h->cells_used, w->h->cells_used + run);
	w->directory[index] = d;
	/* Last, so that a file left here by a dying writer never counts half an entry. */
	__atomic_store_n(&w->h->directory_count, index + 1, __ATOMIC_RELEASE);
	return (int)index;
}

static int series_find(struct segment_writer *w, const struct metric_desc *metric, uint8_t flags,
		       const char *const (*labels)[2], size_t n)
{
	char encoded[LABELS_BYTES_MAX];
	uint32_t *place;
	int bytes, r;

	CHECK(w->magic == WRITER_MAGIC);
	bytes = labels_encode(labels, n, encoded, sizeof(encoded));
	if (bytes < 0) {
		STORE(w->h->refused, w->h->refused + 1);
		return -ENOSPC;
	}
	place = series_place(w, metric->kind, metric->name, (uint32_t)strlen(metric->name), encoded,
			     (uint32_t)bytes);
	if (*place) {
		series_describe(w, &w->directory[*place - 1], metric);
		return (int)*place - 1;
	}
	segment_writer_change_begin(w);
	r = series_append(w, metric, flags, encoded, (uint32_t)bytes);
	if (r < 0)
		STORE(w->h->refused, w->h->refused + 1);
	else
		*place = (uint32_t)r + 1;
	segment_writer_change_end(w);
	return r;
}

int segment_writer_series(struct segment_writer *w, const struct metric_desc *metric,
			  const char *const (*labels)[2], size_t n)
{
	return series_find(w, metric, 0, labels, n);
}

int segment_writer_gathered(struct segment_writer *w, const struct metric_desc *metric,
			    const char *const (*labels)[2], size_t n)
{
	return series_find(w, metric, SEGMENT_ENTRY_GATHERED, labels, n);
}

int segment_writer_find(struct segment_writer *w, const struct metric_desc *metric,
			const char *const (*labels)[2], size_t n)
{
	char encoded[LABELS_BYTES_MAX];
	int bytes = labels_encode(labels, n, encoded, sizeof(encoded));
	uint32_t place;

	if (bytes < 0)
		return -ENOENT;
	place = *series_place(w, metric->kind, metric->name, (uint32_t)strlen(metric->name),
			      encoded, (uint32_t)bytes);
	return place ? (int)place - 1 : -ENOENT;
}

const char *segment_writer_name(const struct segment_writer *w, uint32_t index,
				enum metric_kind *ret_kind)
{
	if (index >= w->h->directory_count)
		return NULL;
	*ret_kind = w->directory[index].kind;
	return w->heap + w->directory[index].name_offset;
}

/* ---- gateways ---- */

static void name_fit(char dst[SEGMENT_NAME_BYTES], const char *src)
{
	uint64_t x = 14695981039346656037ULL;

	if (str_copy(dst, SEGMENT_NAME_BYTES, src))
		return;
	for (const char *p = src; *p; p++)
		x = (x ^ (unsigned char)*p) * 1099511628211ULL;
	snprintf(dst + SEGMENT_NAME_BYTES - 18, 18, "~%016llx", (unsigned long long)x);
}

int segment_writer_gateway(struct segment_writer *w, const char *name, const char *instance)
{
	char fit_name[SEGMENT_NAME_BYTES], fit_instance[SEGMENT_NAME_BYTES];
	uint32_t n = w->h->gateways_count;

	CHECK(w->magic == WRITER_MAGIC);
	name_fit(fit_name, name);
	name_fit(fit_instance, instance);
	for (uint32_t i = 0; i < n; i++)
		if (str_equal(w->gateways[i].name, fit_name) &&
		    str_equal(w->gateways[i].instance, fit_instance))
			return (int)i;
	if (n == w->h->gateways_capacity) {
		STORE(w->h->refused, w->h->refused + 1);
		return -ENOSPC;
	}
	segment_writer_change_begin(w);
	w->gateways[n] = (struct segment_gateway){.state = SEGMENT_GATEWAY_FREE};
	str_copy(w->gateways[n].name, sizeof(w->gateways[n].name), fit_name);
	str_copy(w->gateways[n].instance, sizeof(w->gateways[n].instance), fit_instance);
	__atomic_store_n(&w->h->gateways_count, n + 1, __ATOMIC_RELEASE);
	segment_writer_change_end(w);
	return (int)n;
}

struct segment_gateway *segment_writer_gateway_at(struct segment_writer *w, unsigned int index)
{
	CHECK(w->magic == WRITER_MAGIC && index < w->h->gateways_count);
	return &w->gateways[index];
}
