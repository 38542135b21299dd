/* SPDX-License-Identifier: Apache-2.0 */
/* One stream after the other: its minutes in order, each decoded once for all of its series. */
#include "fleet/history_read.h"

#include "base/cleanup.h"
#include "fleet/history_pick.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct history_reader {
	struct history_store *store;
	struct history *history;
};

/* What a reading has in its hands. */
struct reading {
	struct history_reader *reader;
	const struct history_request *q;
	struct history_parts parts;
	struct history_picks picks;
	bool is_thin;
	struct err *e;
	/* of one stream */
	struct history_line *lines;
	size_t *first; /* pick of each line */
	size_t line_count, line_capacity;
	size_t room; /* bytes that lines may still take */
	struct track_ref {
		uint32_t id;
		struct history_track *track;
	} * refs; /* by id */
	size_t ref_count, ref_capacity;
	struct minute_sample *samples;
	size_t sample_count, sample_capacity, ref_at;
};

int history_reader_open(const char *path, struct history *history, struct history_reader **ret,
			struct err *e)
{
	struct history_reader *r = calloc(1, sizeof(*r));
	int result;

	if (!r)
		return err_set(e, -ENOMEM, "history: no memory");
	r->history = history;
	result = history_store_open_reader(path, &r->store, e);
	if (result < 0) {
		free(r);
		return result;
	}
	*ret = r;
	return 0;
}

struct history_reader *history_reader_close(struct history_reader *r)
{
	if (!r)
		return NULL;
	history_store_close(r->store);
	free(r);
	return NULL;
}

static int ask_is_over(struct reading *g)
{
	if (!g->q->is_over || !g->q->is_over(g->q->data))
		return 0;
	return err_set(g->e, -ETIMEDOUT, "it takes too long; ask for less");
}

/* -------- lines of a stream -------- */

static int grow(void **array, size_t *capacity, size_t need, size_t size)
{
	size_t want = *capacity ? *capacity : 64;
	char *grown;

	if (need <= *capacity)
		return 0;
	while (want < need)
		want *= 2;
	grown = reallocarray(*array, want, size);
	if (!grown)
		return -ENOMEM;
	memset(grown + *capacity * size, 0, (want - *capacity) * size);
	*array = grown;
	*capacity = want;
	return 0;
}

static size_t bytes_max(const struct reading *g)
{
	return g->q->bytes_max ? g->q->bytes_max : HISTORY_BYTES_MAX;
}

static void lines_reset(struct reading *g)
{
	for (size_t i = 0; i < g->line_count; i++)
		history_line_fini(&g->lines[i]);
	g->line_count = g->ref_count = 0;
	g->room = bytes_max(g);
}

static int compare_refs(const void *a, const void *b)
{
	const struct track_ref *x = a, *y = b;

	return (x->id > y->id) - (x->id < y->id);
}

/* Picks [first, end) are of one stream. */
static int lines_make(struct reading *g, size_t first, size_t end)
{
	size_t firsts = g->line_capacity;
	void *lines = g->lines, *places = g->first, *refs = g->refs;
	int r = grow(&places, &firsts, end - first, sizeof(*g->first));

	g->first = places;
	if (r >= 0)
		r = grow(&lines, &g->line_capacity, end - first, sizeof(*g->lines));
	g->lines = lines;
	if (r >= 0)
		r = grow(&refs, &g->ref_capacity, end - first, sizeof(*g->refs));
	g->refs = refs;
	for (size_t i = first; i < end && r >= 0;) {
		const struct history_pick *pick = &g->picks.items[i];
		const struct history_picked_metric *metric = &g->picks.metrics[pick->metric];
		struct history_line *l = &g->lines[g->line_count];
		size_t n = 1, bytes;

		while (i + n < end && history_picks_same(&g->picks, i, i + n))
			n++;
		bytes = sizeof(*l) + n * sizeof(*l->tracks);
		if (bytes > g->room)
			return -E2BIG;
		g->room -= bytes;
		*l = (struct history_line){.kind = metric->kind,
					   .is_ns = metric->is_ns,
					   .wanted = pick->wanted,
					   .room = &g->room};
		l->tracks = calloc(n, sizeof(*l->tracks));
		if (!l->tracks)
			return -ENOMEM;
		for (l->track_count = 0; l->track_count < n; l->track_count++) {
			struct history_track *t = &l->tracks[l->track_count];

			t->id = g->picks.items[i + l->track_count].id;
			g->refs[g->ref_count++] = (struct track_ref){t->id, t};
		}
		g->first[g->line_count++] = i;
		i += n;
	}
	if (g->ref_count)
		qsort(g->refs, g->ref_count, sizeof(*g->refs), compare_refs);
	return r;
}

/* Keeps the samples of series that are asked for; both come by id. */
static int on_sample(void *data, const struct minute_sample *s)
{
	struct reading *g = data;
	void *samples = g->samples;
	struct history_track *t;
	int r;

	while (g->ref_at < g->ref_count && g->refs[g->ref_at].id < s->id)
		g->ref_at++;
	if (g->ref_at == g->ref_count)
		return 1; /* none after it is */
	if (g->refs[g->ref_at].id != s->id)
		return 0;
	if ((g->sample_count + 1) * sizeof(*g->samples) > bytes_max(g))
		return -E2BIG;
	r = grow(&samples, &g->sample_capacity, g->sample_count + 1, sizeof(*g->samples));
	g->samples = samples;
	if (r < 0)
		return r;
	t = g->refs[g->ref_at].track;
	if (t->at == t->end)
		t->at = g->sample_count;
	g->samples[g->sample_count++] = *s;
	t->end = g->sample_count;
	return 0;
}

static int read_minute(struct reading *g, struct minute *m)
{
	int r;

	g->sample_count = 0;
	g->ref_at = 0;
	for (size_t i = 0; i < g->ref_count; i++)
		g->refs[i].track->at = g->refs[i].track->end = 0;
	r = minute_each(m, on_sample, g);
	for (size_t i = 0; i < g->line_count && r >= 0; i++)
		r = history_line_minute(&g->lines[i], &g->parts, m, g->samples, g->q->from_ms,
					g->q->to_ms);
	return r < 0 ? r : 0;
}

/* -------- minutes of a stream -------- */

/* The union of what is on disk and in memory; -ENOENT: neither. */
static int ticks_of(struct reading *g, uint32_t stream, uint64_t start_ms, struct sheaf **open,
		    size_t open_count, struct sheaf **ret)
{
	int r = history_store_ticks(g->reader->store, stream, start_ms, ret, g->e);
	bool has = r >= 0;

	if (r < 0 && r != -ENOENT)
		return r;
	for (size_t i = 0; i < open_count; i++) {
		if (sheaf_start_ms(open[i]) != start_ms)
			continue;
		r = has ? sheaf_merge(*ret, open[i]) : sheaf_copy(open[i], ret);
		if (r < 0 && has)
			*ret = sheaf_free(*ret);
		if (r < 0)
			return r;
		has = true;
	}
	return has ? 0 : -ENOENT;
}

static bool is_open(uint64_t start_ms, struct sheaf **open, size_t open_count)
{
	for (size_t i = 0; i < open_count; i++)
		if (sheaf_start_ms(open[i]) == start_ms)
			return true;
	return false;
}

/* -ENOENT: there is none. */
static int minute_at(struct reading *g, uint32_t stream, uint64_t start_ms, struct sheaf **open,
		     size_t open_count, struct minute **ret)
{
	struct sheaf *ticks = NULL;
	int r = -ENOENT;

	if (!g->is_thin || is_open(start_ms, open, open_count))
		r = ticks_of(g, stream, start_ms, open, open_count, &ticks);
	if (r == -ENOENT)
		return history_store_end(g->reader->store, stream, start_ms, ret, g->e);
	if (r >= 0)
		r = sheaf_minute(ticks, g->is_thin ? 0 : g->q->from_ms, g->q->to_ms, ret);
	sheaf_free(ticks);
	if (r >= 0 && g->is_thin) {
		r = minute_thin(*ret);
		if (r < 0)
			*ret = minute_free(*ret);
	}
	return r < 0 ? r : 0;
}

static uint64_t floor_minute(uint64_t ms)
{
	return ms - ms % MINUTE_MS;
}

/* From a minute before, so that a key frame has said the totals. */
static uint64_t read_from(const struct reading *g, const struct history_pick *pick)
{
	uint64_t from = floor_minute(g->q->from_ms);

	from = from > MINUTE_MS ? from - MINUTE_MS : 0;
	return from > pick->first_ms ? from : pick->first_ms;
}

/* Whether the minute of the beginning says the totals itself. */
static bool is_led(struct reading *g, uint32_t stream, struct sheaf **open, size_t open_count)
{
	struct sheaf *ticks = NULL;
	bool is_led;

	if (g->is_thin ||
	    ticks_of(g, stream, floor_minute(g->q->from_ms), open, open_count, &ticks) < 0)
		return false;
	is_led = sheaf_has_key(ticks, g->q->from_ms);
	sheaf_free(ticks);
	return is_led;
}

static int read_minutes(struct reading *g, const struct history_pick *pick)
{
	uint64_t from = read_from(g, pick), last = pick->last_ms;
	struct sheaf **open = NULL;
	size_t open_count = 0;
	int r = 0;

	/* Memory first: what leaves it in between is in the database then. */
	if (g->reader->history)
		r = history_peek(g->reader->history, pick->stream, from, g->q->to_ms, &open,
				 &open_count);
	for (size_t i = 0; i < open_count; i++)
		last = sheaf_start_ms(open[i]) > last ? sheaf_start_ms(open[i]) : last;
	for (size_t i = 0; i < open_count; i++)
		from = sheaf_start_ms(open[i]) < from ? sheaf_start_ms(open[i]) : from;
	if (from < floor_minute(g->q->from_ms) && is_led(g, pick->stream, open, open_count))
		from = floor_minute(g->q->from_ms);
	for (uint64_t at = from; at <= last && at <= g->q->to_ms && r >= 0; at += MINUTE_MS) {
		struct minute *m = NULL;

		r = ask_is_over(g);
		if (r >= 0)
			r = minute_at(g, pick->stream, at, open, open_count, &m);
		if (r == -ENOENT) {
			r = 0;
			continue;
		}
		if (r >= 0)
			r = read_minute(g, m);
		minute_free(m);
	}
	while (open_count)
		sheaf_free(open[--open_count]);
	free(open);
	return r;
}

static int lines_give(struct reading *g)
{
	int r = 0;

	for (size_t i = 0; i < g->line_count && r == 0; i++) {
		const struct history_line *l = &g->lines[i];

		for (size_t k = 0; k < HISTORY_OUTPUTS_MAX && r == 0; k++) {
			struct history_series s;

			if (!l->outputs[k].count)
				continue;
			history_picks_describe(&g->picks, g->first[i], g->q, k, &s);
			s.points = l->outputs[k].items;
			s.point_count = l->outputs[k].count;
			r = ask_is_over(g);
			if (r >= 0)
				r = g->q->fn(g->q->data, &s);
		}
	}
	return r;
}

static int lines_read(struct reading *g, size_t first, size_t end)
{
	int r;

	lines_reset(g);
	r = lines_make(g, first, end);
	return r < 0 ? r : read_minutes(g, &g->picks.items[first]);
}

static int read_stream(struct reading *g, size_t first, size_t end)
{
	int r = lines_read(g, first, end);

	/* Its ticks are too many: the ends of its minutes, where they do as well. */
	if (r == -E2BIG && g->q->may_thin && !g->is_thin) {
		g->is_thin = true;
		r = lines_read(g, first, end);
		g->is_thin = false;
	}
	if (r == -E2BIG)
		err_set(g->e, r,
			"values of one instance need more than %zu KiB; ask for fewer series or "
			"less time",
			bytes_max(g) >> 10);
	if (r >= 0)
		r = lines_give(g);
	lines_reset(g);
	return r;
}

/* -------- a reading -------- */

static size_t stream_end(const struct history_picks *p, size_t first)
{
	size_t end = first + 1;

	while (end < p->count && p->items[end].stream == p->items[first].stream)
		end++;
	return end;
}

static uint64_t minutes_of(const struct reading *g)
{
	const struct history_picks *p = &g->picks;
	uint64_t minutes = 0;

	for (size_t i = 0; i < p->count; i = stream_end(p, i)) {
		uint64_t from = read_from(g, &p->items[i]), to = g->q->to_ms;

		if (to > p->items[i].last_ms + 2 * MINUTE_MS)
			to = p->items[i].last_ms + 2 * MINUTE_MS;
		minutes += to > from ? (to - from) / MINUTE_MS + 1 : 0;
	}
	return minutes;
}

static int begin(struct reading *g, struct history_reader *reader, const struct history_request *q,
		 struct err *e)
{
	*g = (struct reading){.reader = reader, .q = q, .e = e};
	if (q->bound_count > HISTORY_BOUNDS_MAX)
		return err_set(e, -EINVAL, "history: more than %u bounds", HISTORY_BOUNDS_MAX);
	history_parts_init(&g->parts, q->bounds_ns, q->bound_count);
	return history_picks_find(reader->store, q, &g->parts, &g->picks, e);
}

static void end(struct reading *g)
{
	lines_reset(g);
	history_picks_fini(&g->picks);
	free(g->lines);
	free(g->first);
	free(g->refs);
	free(g->samples);
}

int history_read(struct history_reader *reader, const struct history_request *q, struct err *e)
{
	struct reading g;
	int r = begin(&g, reader, q, e);

	if (r >= 0)
		g.is_thin = q->may_thin && minutes_of(&g) > HISTORY_TICKED_MAX;
	for (size_t i = 0; i < g.picks.count && r == 0;) {
		size_t next = stream_end(&g.picks, i);

		r = read_stream(&g, i, next);
		i = next;
	}
	end(&g);
	return r;
}

int history_list(struct history_reader *reader, const struct history_request *q, struct err *e)
{
	struct reading g;
	int r = begin(&g, reader, q, e);

	for (size_t i = 0; i < g.picks.count && r == 0; i++) {
		if (i && history_picks_same(&g.picks, i - 1, i))
			continue;
		r = ask_is_over(&g);
		for (size_t k = 0; k < HISTORY_OUTPUTS_MAX && r == 0; k++) {
			struct history_series s;

			if (!(g.picks.items[i].wanted >> k & 1))
				continue;
			history_picks_describe(&g.picks, i, q, k, &s);
			r = q->fn(q->data, &s);
		}
	}
	end(&g);
	return r;
}

int history_metrics(struct history_reader *reader, history_metric_fn fn, void *data, struct err *e)
{
	return history_store_metrics(reader->store, fn, data, e);
}
