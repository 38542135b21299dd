/* SPDX-License-Identifier: Apache-2.0 */
/* frame_decode() on hostile bytes. Input: a sealed frame whose checksum is made right here, so that
 * the decoder behind it is reached. What it accepts must hold what frame.h promises. */
#include "bus/frame.h"

#include "base/crc32c.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define REQUIRE(cond)            \
	do {                     \
		if (!(cond))     \
			abort(); \
	} while (0)

static void check_ids(const struct frame *f)
{
	uint32_t id = 0;

	for (size_t i = 0; i < f->definition_count; i++) {
		REQUIRE(f->definitions[i].id > id && f->definitions[i].id <= FRAME_ID_MAX);
		id = f->definitions[i].id;
	}
	id = 0;
	for (size_t i = 0; i < f->counter_count; i++) {
		REQUIRE(f->counters[i].id > id && f->counters[i].id <= FRAME_ID_MAX);
		id = f->counters[i].id;
	}
	id = 0;
	for (size_t i = 0; i < f->gauge_count; i++) {
		REQUIRE(f->gauges[i].id > id && f->gauges[i].id <= FRAME_ID_MAX);
		id = f->gauges[i].id;
	}
	id = 0;
	for (size_t i = 0; i < f->absent_count; i++) {
		REQUIRE(f->absent[i] > id && f->absent[i] <= FRAME_ID_MAX);
		id = f->absent[i];
	}
}

static void check_histograms(const struct frame *f)
{
	for (size_t i = 0; i < f->histogram_count; i++) {
		const struct frame_histogram *h = &f->histograms[i];

		REQUIRE(h->id && h->id <= FRAME_ID_MAX && h->count <= HIST_CELLS);
		REQUIRE(!i || h->id > f->histograms[i - 1].id);
		for (uint32_t c = 0; c < h->count; c++) {
			REQUIRE(h->cells[c] < HIST_CELLS);
			REQUIRE(!c || h->cells[c] > h->cells[c - 1]);
			(void)*(const volatile uint64_t *)&h->counts[c];
		}
	}
}

static void check_texts(const struct frame *f)
{
	for (size_t i = 0; i < f->definition_count; i++) {
		const struct frame_definition *d = &f->definitions[i];

		REQUIRE(*d->metric && strlen(d->metric) <= FRAME_NAME_MAX);
		REQUIRE(strlen(d->unit) <= FRAME_UNIT_MAX && strlen(d->help) <= FRAME_HELP_MAX);
		REQUIRE(d->kind <= METRIC_HISTOGRAM && d->label_count <= SEGMENT_LABELS_MAX);
		for (unsigned int k = 0; k < d->label_count; k++) {
			REQUIRE(*d->labels[k].key && strlen(d->labels[k].key) <= FRAME_NAME_MAX);
			REQUIRE(strlen(d->labels[k].value) <= FRAME_LABEL_MAX);
		}
	}
	REQUIRE(f->event_count <= FRAME_EVENTS_MAX);
	for (size_t i = 0; i < f->event_count; i++)
		REQUIRE(*f->events[i].kind && strlen(f->events[i].json) <= FRAME_JSON_MAX &&
			strlen(f->events[i].gateway) <= FRAME_GATEWAY_MAX);
}

/* What can be read with the dictionary can be read without it, and says as much. */
static void check_without_dictionary(const struct frame *f, const uint8_t *data, size_t size)
{
	struct frame *again = NULL;
	uint8_t *simple;
	size_t simple_size;

	REQUIRE(frame_without_dictionary(data, size, &simple, &simple_size) == 0);
	REQUIRE(!simple == !frame_dictionary_of(data, size));
	if (!simple)
		return;
	REQUIRE(!frame_dictionary_of(simple, simple_size));
	if (simple_size <= FRAME_SEALED_MAX) {
		REQUIRE(frame_decode(simple, simple_size, &again, NULL) == 0);
		REQUIRE(again->sequence == f->sequence && again->event_count == f->event_count &&
			again->definition_count == f->definition_count &&
			again->histogram_count == f->histogram_count);
		frame_free(again);
	}
	free(simple);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct frame *f = NULL;
	uint8_t *copy;

	if (size > FRAME_SEALED_MAX + 1)
		return 0;
	copy = malloc(size ? size : 1);
	REQUIRE(copy);
	memcpy(copy, data, size);
	if (size >= FRAME_SEAL_BYTES) {
		uint32_t crc = crc32c(0, copy + FRAME_SEAL_BYTES, size - FRAME_SEAL_BYTES);

		for (unsigned int i = 0; i < 4; i++)
			copy[1 + i] = (uint8_t)(crc >> (8 * i));
	}
	if (frame_decode(copy, size, &f, NULL) == 0) {
		REQUIRE(f->sequence && f->series <= FRAME_SERIES_MAX);
		check_ids(f);
		check_histograms(f);
		check_texts(f);
		check_without_dictionary(f, copy, size);
		frame_free(f);
	}
	free(copy);
	return 0;
}
