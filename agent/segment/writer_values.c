/* SPDX-License-Identifier: Apache-2.0 */
/* Values of a segment: ticks, bases, and what dead processes left. Runs where writer.c runs. */
#include "base/cleanup.h"
#include "base/str.h"
#include "segment/fold.h"
#include "segment/writer_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void segment_writer_rebase(struct segment_writer *w, uint64_t maps_id)
{
	CHECK(w->magic == WRITER_MAGIC);
	if (w->h->maps_id == maps_id)
		return;
	/* Values do not change, so dying half-way and doing it all again is harmless. */
	for (uint32_t i = 0; i < w->h->directory_count; i++) {
		const struct segment_entry *d = &w->directory[i];
		uint64_t *value = w->cells + d->value_cell;

		if (d->kind == METRIC_GAUGE || d->flags & SEGMENT_ENTRY_GATHERED)
			continue;
		for (uint32_t j = 0; j < d->cell_count; j++)
			STORE(value[d->cell_count + j], value[j]);
	}
	__atomic_store_n(&w->h->maps_id, maps_id, __ATOMIC_RELEASE);
}

/* What gathered values are made of is still there: their bases go below zero by what was counted. */
static void image_restart(void *image)
{
	struct segment_header *h = image;
	struct segment_entry *d = (void *)((char *)image + h->directory_offset);
	uint64_t *cells = (void *)((char *)image + h->cells_offset);

	h->life = 0;
	h->fold_life = 0;
	for (uint32_t i = 0; i < h->directory_count; i++) {
		uint64_t *value = cells + d[i].value_cell, *base = value + d[i].cell_count;

		d[i].state = SEGMENT_ENTRY_ABSENT;
		for (uint32_t j = 0; d[i].kind != METRIC_GAUGE && j < d[i].cell_count; j++) {
			base[j] = d[i].flags & SEGMENT_ENTRY_GATHERED ? base[j] - value[j] : 0;
			value[j] = 0;
		}
	}
}

int segment_writer_restart(struct segment_writer *w, struct err *e)
{
	_cleanup_free_ void *image = NULL;
	struct segment_header *h;
	int r;

	CHECK(w->magic == WRITER_MAGIC && !w->is_ticking && !w->change_depth);
	image = malloc(w->file.size);
	if (!image)
		return -ENOMEM;
	h = memcpy(image, w->file.map, w->file.size);
	image_restart(image);
	r = segment_writer_life_new(&h->life, e);
	if (r == 0)
		r = segment_file_replace(&w->file, image, e);
	if (r == 0)
		segment_writer_point(w, w->file.map);
	return r;
}

void segment_writer_fold_begin(struct segment_writer *w, uint64_t life, struct fold *ret)
{
	fold_begin(ret, w->h, w->cells, life);
}

void segment_writer_fold(struct segment_writer *w, struct fold *f, uint64_t n, int series,
			 uint32_t j, uint64_t by)
{
	const struct segment_entry *d = &w->directory[series];

	CHECK((uint32_t)series < w->h->directory_count && j < d->cell_count);
	CHECK(d->kind != METRIC_GAUGE && d->flags & SEGMENT_ENTRY_GATHERED);
	fold_add(f, n, d->value_cell + d->cell_count + j, by);
}

void segment_writer_tick_begin(struct segment_writer *w)
{
	CHECK(w->magic == WRITER_MAGIC && !w->is_ticking);
	w->is_ticking = true;
	STORE(w->h->tick_seq, w->h->tick_seq + 1);
	/* The odd number is seen no later than any value behind it. */
	__atomic_thread_fence(__ATOMIC_RELEASE);
}

void segment_writer_tick_end(struct segment_writer *w, uint64_t mono_ns, uint64_t real_ns,
			     uint64_t interval_ns)
{
	CHECK(w->magic == WRITER_MAGIC && w->is_ticking);
	w->is_ticking = false;
	STORE(w->h->tick_mono_ns, mono_ns);
	STORE(w->h->tick_real_ns, real_ns);
	STORE(w->h->tick_interval_ns, interval_ns);
	STORE(w->h->heartbeat_ns, mono_ns);
	STORE(w->h->ticks, w->h->ticks + 1);
	__atomic_store_n(&w->h->tick_seq, w->h->tick_seq + 1, __ATOMIC_RELEASE);
}

static struct segment_entry *series_at(struct segment_writer *w, int series)
{
	CHECK(w->magic == WRITER_MAGIC && w->is_ticking);
	CHECK((uint32_t)series < w->h->directory_count);
	return &w->directory[series];
}

/* Cells only grow: kernel maps that vanish or wrap must not make a total fall. */
static void cells_raise(struct segment_writer *w, const struct segment_entry *d,
			const uint64_t *counted)
{
	uint64_t *value = w->cells + d->value_cell, *base = value + d->cell_count, total;

	for (uint32_t i = 0; i < d->cell_count; i++) {
		bool overflows = __builtin_add_overflow(base[i], counted[i], &total);

		/* The base of a gathered one may be below zero. */
		if (overflows && !(d->flags & SEGMENT_ENTRY_GATHERED))
			continue;
		if ((int64_t)(total - value[i]) > 0)
			STORE(value[i], total);
	}
}

void segment_writer_counter(struct segment_writer *w, int series, uint64_t counted)
{
	struct segment_entry *d;

	if (series < 0)
		return;
	d = series_at(w, series);
	CHECK(d->kind == METRIC_COUNTER);
	cells_raise(w, d, &counted);
	STORE(d->state, SEGMENT_ENTRY_PRESENT);
}

void segment_writer_increment(struct segment_writer *w, int series, uint64_t by)
{
	struct segment_entry *d;
	uint64_t *value, total;

	if (series < 0)
		return;
	d = series_at(w, series);
	CHECK(d->kind == METRIC_COUNTER);
	value = w->cells + d->value_cell;
	if (by && !__builtin_add_overflow(value[0], by, &total)) {
		STORE(value[1], total);
		STORE(value[0], total);
	}
	STORE(d->state, SEGMENT_ENTRY_PRESENT);
}

void segment_writer_gauge(struct segment_writer *w, int series, double value)
{
	struct segment_entry *d;
	uint64_t bits;

	if (series < 0)
		return;
	d = series_at(w, series);
	CHECK(d->kind == METRIC_GAUGE);
	memcpy(&bits, &value, sizeof(bits));
	STORE(w->cells[d->value_cell], bits);
	STORE(d->state, SEGMENT_ENTRY_PRESENT);
}

void segment_writer_histogram(struct segment_writer *w, int series,
			      const uint64_t counted[HIST_CELLS])
{
	struct segment_entry *d;

	if (series < 0)
		return;
	d = series_at(w, series);
	CHECK(d->kind == METRIC_HISTOGRAM);
	cells_raise(w, d, counted);
	STORE(d->state, SEGMENT_ENTRY_PRESENT);
}

void segment_writer_absent(struct segment_writer *w, int series)
{
	if (series < 0)
		return;
	STORE(series_at(w, series)->state, SEGMENT_ENTRY_ABSENT);
}

void segment_writer_absent_all(struct segment_writer *w, const struct metric_desc *metric)
{
	for (uint32_t i = 0; i < w->h->directory_count; i++)
		if (str_equal(w->heap + w->directory[i].name_offset, metric->name))
			STORE(w->directory[i].state, SEGMENT_ENTRY_ABSENT);
}

void segment_writer_gathered_begin(struct segment_writer *w)
{
	static const uint64_t none[HIST_CELLS];

	CHECK(w->magic == WRITER_MAGIC && w->is_ticking);
	for (uint32_t i = 0; i < w->h->directory_count; i++) {
		struct segment_entry *d = &w->directory[i];

		if (!(d->flags & SEGMENT_ENTRY_GATHERED))
			continue;
		if (d->kind == METRIC_GAUGE)
			STORE(d->state, SEGMENT_ENTRY_ABSENT);
		else
			cells_raise(w, d, none);
	}
}
