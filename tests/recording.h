/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recorded frames (tests/data/frames) played back tick by tick, as the series that an agent had read:
 * for tests, benches and training. One open at a time a process is enough: sizes are fixed.
 */
#pragma once

#include "bus/frame.h"
#include "bus/spool_file.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RECORDING_SERIES 1024u

struct recording {
	int fd;
	off_t at, end;
	uint8_t sealed[FRAME_SEALED_MAX];
	size_t sealed_size;
	struct frame *frame; /* of the tick */
	/* As of the tick, by id; those that have not been defined have no name. */
	struct segment_series series[RECORDING_SERIES];
	bool is_changed[RECORDING_SERIES]; /* since the tick before */
	unsigned int count;                /* above the highest id */
};

static inline int recording_open(struct recording *rec, const char *path)
{
	struct spool_file_header header;

	*rec = (struct recording){.at = sizeof(header), .fd = open(path, O_RDONLY | O_CLOEXEC)};
	if (rec->fd < 0 || spool_file_read_header(rec->fd, &header) < 0) {
		fprintf(stderr, "%s: no recording\n", path);
		return -1;
	}
	rec->end = lseek(rec->fd, 0, SEEK_END);
	return 0;
}

static inline void recording_define(struct recording *rec, const struct frame_definition *d)
{
	struct segment_series *s = &rec->series[d->id];
	const struct metric_desc *known = metric_find(d->metric);

	if (s->name)
		return;
	*s = (struct segment_series){
		.index = d->id,
		.name = strdup(d->metric),
		.unit = strdup(known ? known->unit : d->unit),
		.help = strdup(known ? known->help : d->help),
		.kind = d->kind,
		.merge = d->merge,
		.scope = d->scope,
		.label_count = d->label_count,
		.cells = d->kind == METRIC_HISTOGRAM ? calloc(HIST_CELLS, sizeof(uint64_t)) : NULL,
	};
	for (unsigned int i = 0; i < d->label_count; i++)
		s->labels[i] = (struct segment_label){strdup(d->labels[i].key),
						      strdup(d->labels[i].value)};
	if (d->id >= rec->count)
		rec->count = d->id + 1;
}

static inline void recording_apply(struct recording *rec, const struct frame *f)
{
	for (size_t i = 0; i < f->counter_count; i++) {
		struct segment_series *s = &rec->series[f->counters[i].id];
		uint64_t v = f->counters[i].value + (f->is_key ? 0 : s->counter);

		rec->is_changed[f->counters[i].id] = v != s->counter || !s->is_present;
		s->counter = v;
		s->is_present = true;
	}
	for (size_t i = 0; i < f->gauge_count; i++) {
		struct segment_series *s = &rec->series[f->gauges[i].id];

		rec->is_changed[f->gauges[i].id] = f->gauges[i].value != s->gauge || !s->is_present;
		s->gauge = f->gauges[i].value;
		s->is_present = true;
	}
	for (size_t i = 0; i < f->histogram_count; i++) {
		const struct frame_histogram *h = &f->histograms[i];
		uint64_t *cells = (uint64_t *)(uintptr_t)rec->series[h->id].cells;

		for (uint32_t c = 0; c < h->count; c++) {
			uint64_t v = h->counts[c] + (f->is_key ? 0 : cells[h->cells[c]]);

			rec->is_changed[h->id] |= v != cells[h->cells[c]];
			cells[h->cells[c]] = v;
		}
		rec->is_changed[h->id] |= !rec->series[h->id].is_present;
		rec->series[h->id].is_present = true;
	}
	for (size_t i = 0; i < f->absent_count; i++)
		rec->series[f->absent[i]].is_present = false;
}

/* 1 when there was another tick, 0 at the end. */
static inline int recording_next(struct recording *rec)
{
	struct spool_record_header header;
	uint64_t skipped;
	off_t at = spool_file_next(rec->fd, rec->at, rec->end, &header, rec->sealed, &skipped);
	struct err e = {0};

	rec->frame = frame_free(rec->frame);
	memset(rec->is_changed, 0, sizeof(rec->is_changed));
	if (at <= 0)
		return 0;
	rec->at = at + (off_t)sizeof(header) + header.length;
	rec->sealed_size = header.length;
	if (frame_decode(rec->sealed, rec->sealed_size, &rec->frame, &e) < 0) {
		fprintf(stderr, "recording: %s\n", e.text);
		exit(1);
	}
	for (size_t i = 0; i < rec->frame->definition_count; i++) {
		if (rec->frame->definitions[i].id >= RECORDING_SERIES) {
			fprintf(stderr, "recording: more than %u series\n", RECORDING_SERIES);
			exit(1);
		}
		recording_define(rec, &rec->frame->definitions[i]);
	}
	recording_apply(rec, rec->frame);
	return 1;
}

static inline void recording_close(struct recording *rec)
{
	frame_free(rec->frame);
	close(rec->fd);
	for (unsigned int i = 0; i < rec->count; i++) {
		struct segment_series *s = &rec->series[i];

		free((void *)(uintptr_t)s->name);
		free((void *)(uintptr_t)s->unit);
		free((void *)(uintptr_t)s->help);
		free((void *)(uintptr_t)s->cells);
		for (unsigned int k = 0; k < s->label_count; k++) {
			free((void *)(uintptr_t)s->labels[k].key);
			free((void *)(uintptr_t)s->labels[k].value);
		}
	}
}
