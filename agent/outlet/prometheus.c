/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Renders series as Prometheus text or OpenMetrics. Owns nothing beyond one call. Used by the
 * courier, the aggregator's core and `tidegate metrics`.
 *
 * Two passes: the first finds the family of each series, the second prints family after family; so
 * memory is a few words a series, whatever order they come in.
 */
#include "outlet/prometheus.h"

#include "base/cleanup.h"
#include "outlet/token.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SERIES_MAX (1u << 24)
#define LABELS_MAX 64
#define NO_FAMILY  UINT32_MAX
#define FNV_BASIS  14695981039346656037ULL

struct family {
	char *name; /* without _total in OpenMetrics */
	uint64_t hash;
	enum metric_kind kind;
	uint32_t series, first;
	bool is_begun; /* its head is written */
	bool is_left_out;
};

enum stage { STAGE_GROUP, STAGE_ORDER, STAGE_PRINT, STAGE_END, STAGE_DONE };

struct prometheus_job {
	struct prometheus_source *sources;
	size_t source_count;
	enum prometheus_format format;
	struct strbuf *out;
	struct family *families;
	uint32_t family_count, family_places;
	uint32_t *family_index; /* open addressing: family + 1 */
	uint32_t family_mask;
	uint64_t *seen; /* open addressing: hash of name and labels, 0 empty */
	size_t seen_mask;
	uint32_t *family_of; /* by series */
	uint32_t *order;     /* series, family after family */
	enum stage stage;
	uint32_t total, at; /* series; the next one, within the family when printing */
	uint32_t family;    /* that is printed */
	struct prometheus_result result;
};

struct prometheus_job *prometheus_end(struct prometheus_job *r)
{
	if (!r)
		return NULL;
	for (uint32_t i = 0; i < r->family_count; i++)
		free(r->families[i].name);
	free(r->families);
	free(r->family_index);
	free(r->seen);
	free(r->family_of);
	free(r->order);
	free(r->sources);
	free(r);
	return NULL;
}

/* ---- what may be printed ---- */

static bool series_is_valid(const struct prometheus_series *s)
{
	if (!token_is_name(s->name, true) || s->label_count > LABELS_MAX)
		return false;
	for (size_t i = 0; i < s->label_count; i++) {
		const char *key = s->labels[i].key;

		if (!token_is_name(key, false) || str_starts(key, "__"))
			return false;
		if (s->kind == METRIC_HISTOGRAM && str_equal(key, "le"))
			return false;
		for (size_t j = 0; j < i; j++)
			if (str_equal(key, s->labels[j].key))
				return false;
	}
	return true;
}

/* ---- first pass: families ---- */

static uint64_t hash_string(uint64_t x, const char *s, size_t n)
{
	for (size_t i = 0; i < n; i++)
		x = (x ^ (unsigned char)s[i]) * 1099511628211ULL;
	return (x ^ 0xff) * 1099511628211ULL;
}

static size_t family_name_length(const struct prometheus_job *r, const struct prometheus_series *s)
{
	size_t n = strlen(s->name);

	if (r->format == PROMETHEUS_OPENMETRICS && s->kind == METRIC_COUNTER && n > 6 &&
	    str_ends(s->name, "_total"))
		n -= 6;
	return n;
}

static int families_grow(struct prometheus_job *r)
{
	uint32_t places = r->family_places ? r->family_places * 2 : 64;
	_cleanup_free_ struct family *families = calloc(places, sizeof(*families));
	uint32_t *index = calloc((size_t)places * 2, sizeof(*index));

	if (!families || !index) {
		free(index);
		return -ENOMEM;
	}
	if (r->family_count)
		memcpy(families, r->families, r->family_count * sizeof(*families));
	free(r->families);
	r->families = TAKE_PTR(families);
	free(r->family_index);
	r->family_index = index;
	r->family_places = places;
	r->family_mask = places * 2 - 1;
	for (uint32_t i = 0; i < r->family_count; i++) {
		uint32_t at = (uint32_t)r->families[i].hash & r->family_mask;

		while (index[at])
			at = (at + 1) & r->family_mask;
		index[at] = i + 1;
	}
	return 0;
}

static const struct family *family_named(const struct prometheus_job *r, const char *name, size_t n)
{
	uint64_t hash = hash_string(FNV_BASIS, name, n);

	for (uint32_t at = (uint32_t)hash & r->family_mask; r->family_index[at];
	     at = (at + 1) & r->family_mask) {
		const struct family *f = &r->families[r->family_index[at] - 1];

		if (f->hash == hash && strlen(f->name) == n && memcmp(f->name, name, n) == 0)
			return f;
	}
	return NULL;
}

static int family_find(struct prometheus_job *r, const struct prometheus_series *s, uint32_t *ret)
{
	size_t n = family_name_length(r, s);
	const struct family *old = family_named(r, s->name, n);
	struct family *f;
	uint32_t at;

	if (old) {
		*ret = (uint32_t)(old - r->families);
		return 0;
	}
	if (r->family_count == r->family_places && families_grow(r) < 0)
		return -ENOMEM;
	f = &r->families[r->family_count];
	*f = (struct family){.name = strndup(s->name, n),
			     .hash = hash_string(FNV_BASIS, s->name, n),
			     .kind = s->kind};
	if (!f->name)
		return -ENOMEM;
	at = (uint32_t)f->hash & r->family_mask;
	while (r->family_index[at])
		at = (at + 1) & r->family_mask;
	*ret = r->family_count++;
	r->family_index[at] = *ret + 1;
	return 0;
}

/* Whether it is called as a sample of another family is: x_seconds_count beside the histogram
 * x_seconds. A parser takes it for a part of that one, and refuses all. */
static bool family_clashes(const struct prometheus_job *r, const struct family *f)
{
	static const struct {
		const char *suffix;
		enum metric_kind kind;
		bool is_openmetrics_only;
	} samples[] = {
		{"_bucket", METRIC_HISTOGRAM, false}, {"_sum", METRIC_HISTOGRAM, false},
		{"_count", METRIC_HISTOGRAM, false},  {"_created", METRIC_HISTOGRAM, true},
		{"_created", METRIC_COUNTER, true},   {"_total", METRIC_COUNTER, true},
	};
	size_t n = strlen(f->name);

	for (size_t i = 0; i < ARRAY_LEN(samples); i++) {
		size_t suffix = strlen(samples[i].suffix);
		const struct family *other;

		if (n <= suffix || !str_ends(f->name, samples[i].suffix) ||
		    (samples[i].is_openmetrics_only && r->format != PROMETHEUS_OPENMETRICS))
			continue;
		other = family_named(r, f->name, n - suffix);
		if (other && other->kind == samples[i].kind && other->series)
			return true;
	}
	return false;
}

/* Whether these labels are in the family already; two equal lines would fail a scrape. */
static bool series_is_repeated(struct prometheus_job *r, uint64_t family_hash,
			       const struct prometheus_series *s)
{
	uint64_t hash = family_hash;
	size_t at;

	for (size_t i = 0; i < s->label_count; i++) {
		hash = hash_string(hash, s->labels[i].key, strlen(s->labels[i].key));
		hash = hash_string(hash, s->labels[i].value, strlen(s->labels[i].value));
	}
	hash |= !hash;
	for (at = hash & r->seen_mask; r->seen[at]; at = (at + 1) & r->seen_mask)
		if (r->seen[at] == hash)
			return true;
	r->seen[at] = hash;
	return false;
}

static int series_file(struct prometheus_job *r, uint32_t index, const struct prometheus_series *s,
		       struct prometheus_result *result)
{
	uint32_t family;

	if (!series_is_valid(s)) {
		result->refused++;
		return 0;
	}
	if (family_find(r, s, &family) < 0)
		return -ENOMEM;
	if (r->families[family].kind != s->kind ||
	    series_is_repeated(r, r->families[family].hash, s)) {
		result->refused++;
		return 0;
	}
	r->family_of[index] = family;
	r->families[family].series++;
	result->series++;
	return 0;
}

static bool series_get(const struct prometheus_job *r, size_t index, struct prometheus_series *ret)
{
	for (size_t i = 0; i < r->source_count; i++) {
		if (index < r->sources[i].count)
			return r->sources[i].get(r->sources[i].data, index, ret);
		index -= r->sources[i].count;
	}
	return false;
}

static int group(struct prometheus_job *r, size_t lines)
{
	struct prometheus_series s;

	for (; r->at < r->total && lines; r->at++, lines--) {
		r->family_of[r->at] = NO_FAMILY;
		if (series_get(r, r->at, &s) && series_file(r, r->at, &s, &r->result) < 0)
			return -ENOMEM;
	}
	return 0;
}

static void order(struct prometheus_job *r)
{
	uint32_t at = 0;

	for (uint32_t f = 0; f < r->family_count; f++)
		r->families[f].is_left_out = family_clashes(r, &r->families[f]);
	for (uint32_t f = 0; f < r->family_count; f++) {
		r->families[f].first = at;
		at += r->families[f].series;
		r->families[f].series = 0;
	}
	for (uint32_t i = 0; i < r->total; i++) {
		struct family *f;

		if (r->family_of[i] == NO_FAMILY)
			continue;
		f = &r->families[r->family_of[i]];
		r->order[f->first + f->series++] = i;
	}
	for (uint32_t i = 0; i < r->family_count; i++) {
		struct family *f = &r->families[i];

		if (!f->is_left_out)
			continue;
		r->result.refused += f->series;
		r->result.series -= f->series;
		f->series = 0;
	}
}

/* ---- second pass: lines ---- */

static void put_family(struct prometheus_job *r, const struct family *f,
		       const struct prometheus_series *s)
{
	static const char *const types[] = {
		[METRIC_COUNTER] = "counter",
		[METRIC_GAUGE] = "gauge",
		[METRIC_HISTOGRAM] = "histogram",
	};
	const char *unit = str_equal(s->unit, "nanoseconds") ? "seconds" : s->unit;
	size_t name_len = strlen(f->name), unit_len = strlen(unit);
	struct strbuf *out = r->out;

	if (*s->help) {
		strbuf_puts(out, "# HELP ");
		strbuf_puts(out, f->name);
		strbuf_puts(out, " ");
		token_put_escaped(out, s->help, r->format == PROMETHEUS_OPENMETRICS);
		strbuf_puts(out, "\n");
	}
	strbuf_puts(out, "# TYPE ");
	strbuf_puts(out, f->name);
	strbuf_puts(out, " ");
	strbuf_puts(out, types[f->kind]);
	strbuf_puts(out, "\n");
	/* OpenMetrics allows a unit only where the name ends in it. */
	if (r->format == PROMETHEUS_OPENMETRICS && unit_len && name_len > unit_len + 1 &&
	    f->name[name_len - unit_len - 1] == '_' && str_ends(f->name, unit)) {
		strbuf_puts(out, "# UNIT ");
		strbuf_puts(out, f->name);
		strbuf_puts(out, " ");
		strbuf_puts(out, unit);
		strbuf_puts(out, "\n");
	}
}

/* Name, suffix and labels, up to the space before the value. */
static void put_head(struct prometheus_job *r, const char *name, const char *suffix,
		     const struct prometheus_series *s, const char *le)
{
	struct strbuf *out = r->out;
	const char *separator = "{";

	strbuf_puts(out, name);
	strbuf_puts(out, suffix);
	for (size_t i = 0; i < s->label_count; i++) {
		strbuf_puts(out, separator);
		strbuf_puts(out, s->labels[i].key);
		strbuf_puts(out, "=\"");
		token_put_escaped(out, s->labels[i].value, true);
		strbuf_puts(out, "\"");
		separator = ",";
	}
	if (le) {
		strbuf_puts(out, separator);
		strbuf_puts(out, "le=\"");
		strbuf_puts(out, le);
		strbuf_puts(out, "\"");
		separator = ",";
	}
	strbuf_puts(out, *separator == '{' ? " " : "} ");
}

/* The boundaries of OTel's http.server.request.duration: each is a threshold of the cells, so the
 * cumulative counts are exact. OpenMetrics wants a float as le. */
const uint64_t prometheus_bounds_ns[PROMETHEUS_BOUNDS] = {
	5000000,   10000000,  25000000,   50000000,   75000000,   100000000,  250000000,
	500000000, 750000000, 1000000000, 2500000000, 5000000000, 7500000000, 10000000000,
};
const char *const prometheus_les[PROMETHEUS_BOUNDS + 1] = {
	"0.005", "0.01", "0.025", "0.05", "0.075", "0.1", "0.25", "0.5",
	"0.75",  "1",    "2.5",   "5",    "7.5",   "10",  "+Inf",
};
static const char *const openmetrics_les[PROMETHEUS_BOUNDS] = {
	"0.005", "0.01", "0.025", "0.05", "0.075", "0.1", "0.25",
	"0.5",   "0.75", "1.0",   "2.5",  "5.0",   "7.5", "10.0",
};

static void put_histogram(struct prometheus_job *r, const struct family *f,
			  const struct prometheus_series *s)
{
	bool is_openmetrics = r->format == PROMETHEUS_OPENMETRICS;
	uint64_t below = 0;
	unsigned int cell = 0;

	for (size_t i = 0; i < PROMETHEUS_BOUNDS; i++) {
		unsigned int last = histogram_index(prometheus_bounds_ns[i]);

		for (; cell <= last; cell++)
			below += s->cells[cell];
		put_head(r, f->name, "_bucket", s,
			 is_openmetrics ? openmetrics_les[i] : prometheus_les[i]);
		token_put_u64(r->out, below);
		strbuf_puts(r->out, "\n");
	}
	for (; cell < HIST_CELLS; cell++)
		below += s->cells[cell];
	put_head(r, f->name, "_bucket", s, "+Inf");
	token_put_u64(r->out, below);
	strbuf_puts(r->out, "\n");
	put_head(r, f->name, "_sum", s, NULL);
	token_put_double(r->out, histogram_sum(s->cells));
	strbuf_puts(r->out, "\n");
	put_head(r, f->name, "_count", s, NULL);
	token_put_u64(r->out, below);
	strbuf_puts(r->out, "\n");
}

static void put_series(struct prometheus_job *r, const struct family *f,
		       const struct prometheus_series *s)
{
	bool has_suffix = r->format == PROMETHEUS_OPENMETRICS && s->kind == METRIC_COUNTER;

	if (s->kind == METRIC_HISTOGRAM) {
		put_histogram(r, f, s);
		return;
	}
	put_head(r, f->name, has_suffix ? "_total" : "", s, NULL);
	if (s->kind == METRIC_GAUGE)
		token_put_double(r->out, s->gauge);
	else if (str_equal(s->unit, "nanoseconds"))
		token_put_seconds(r->out, s->counter);
	else
		token_put_u64(r->out, s->counter);
	strbuf_puts(r->out, "\n");
}

/* ---- a rendering ---- */

int prometheus_begin(const struct prometheus_source *sources, size_t n,
		     enum prometheus_format format, struct strbuf *out, struct prometheus_job **ret)
{
	struct prometheus_job *r;
	size_t total = 0, places = 64;

	for (size_t i = 0; i < n; i++) {
		if (sources[i].count > SERIES_MAX - total)
			return -E2BIG;
		total += sources[i].count;
	}
	while (places < total * 2)
		places *= 2;
	r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->source_count = n;
	r->format = format;
	r->out = out;
	r->total = (uint32_t)total;
	r->seen_mask = places - 1;
	r->sources = calloc(n + 1, sizeof(*r->sources));
	r->seen = calloc(places, sizeof(*r->seen));
	r->family_of = calloc(total + 1, sizeof(*r->family_of));
	r->order = calloc(total + 1, sizeof(*r->order));
	if (!r->sources || !r->seen || !r->family_of || !r->order || families_grow(r) < 0) {
		prometheus_end(r);
		return -ENOMEM;
	}
	if (n)
		memcpy(r->sources, sources, n * sizeof(*sources));
	*ret = r;
	return 0;
}

void prometheus_set_output(struct prometheus_job *r, struct strbuf *out)
{
	r->out = out;
}

static void print(struct prometheus_job *r, size_t lines)
{
	struct prometheus_series s;
	size_t printed = 0;

	while (r->family < r->family_count && printed < lines && !r->out->failed) {
		struct family *f = &r->families[r->family];

		if (r->at == f->series) {
			r->family++;
			r->at = 0;
			continue;
		}
		if (!series_get(r, r->order[f->first + r->at++], &s) || s.kind != f->kind)
			continue;
		if (!f->is_begun)
			put_family(r, f, &s);
		f->is_begun = true;
		put_series(r, f, &s);
		printed += s.kind == METRIC_HISTOGRAM ? PROMETHEUS_BOUNDS + 3 : 1;
	}
}

int prometheus_step(struct prometheus_job *r, size_t lines, struct prometheus_result *ret)
{
	switch (r->stage) {
	case STAGE_GROUP:
		if (group(r, lines) < 0)
			return -ENOMEM;
		if (r->at == r->total)
			r->stage = STAGE_ORDER;
		return 1;
	case STAGE_ORDER:
		order(r);
		r->at = 0;
		r->stage = STAGE_PRINT;
		return 1;
	case STAGE_PRINT:
		print(r, lines);
		if (r->family == r->family_count)
			r->stage = STAGE_END;
		return r->out->failed ? -E2BIG : 1;
	case STAGE_END:
		if (r->format == PROMETHEUS_OPENMETRICS)
			strbuf_puts(r->out, "# EOF\n");
		r->stage = STAGE_DONE;
		break;
	case STAGE_DONE:
		break;
	}
	if (r->out->failed)
		return -E2BIG;
	if (ret)
		*ret = r->result;
	return 0;
}

int prometheus_render(const struct prometheus_source *sources, size_t n,
		      enum prometheus_format format, struct strbuf *out,
		      struct prometheus_result *ret)
{
	struct prometheus_job *job;
	int r = prometheus_begin(sources, n, format, out, &job);

	if (r < 0)
		return r;
	do
		r = prometheus_step(job, SIZE_MAX, ret);
	while (r > 0);
	prometheus_end(job);
	return r;
}

/* ---- sources and negotiation ---- */

static bool segment_get(const void *data, size_t index, struct prometheus_series *ret)
{
	struct segment_series s;

	if (!segment_reader_series(data, (unsigned int)index, &s) || !s.is_present)
		return false;
	*ret = (struct prometheus_series){
		.name = s.name,
		.unit = s.unit,
		.help = s.help,
		.kind = s.kind,
		.label_count = s.label_count,
		.counter = s.counter,
		.gauge = s.gauge,
		.cells = s.cells,
	};
	memcpy(ret->room, s.labels, s.label_count * sizeof(ret->room[0]));
	ret->labels = ret->room;
	return true;
}

void prometheus_from_segment(const struct segment_reader *r, struct prometheus_source *ret)
{
	*ret = (struct prometheus_source){
		.count = segment_reader_series_count(r),
		.get = segment_get,
		.data = r,
	};
}

const char *prometheus_content_type(enum prometheus_format format)
{
	return format == PROMETHEUS_OPENMETRICS
		       ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
		       : "text/plain; version=0.0.4; charset=utf-8";
}

enum prometheus_format prometheus_accepted(const char *accept)
{
	return accept && strstr(accept, "application/openmetrics-text") ? PROMETHEUS_OPENMETRICS
									: PROMETHEUS_TEXT;
}
