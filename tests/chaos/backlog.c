/* SPDX-License-Identifier: Apache-2.0 */
/*
 * backlog fill SPOOL TWIN FRAMES SERIES: a courier whose clock runs fast. Appends to an agent's spool
 * FRAMES frames of a tick of a second, the last of them now, each with SERIES counters and a histogram
 * that have changed, in the incarnation that is there; says "FIRST LAST TOTAL": sequences, and what the
 * counters come to.
 *
 * backlog order DATA: the sequences of all frames in an aggregator's log, in the order in which they
 * were applied. Nobody else may have it open.
 */
#include "bus/frame.h"
#include "bus/spool.h"
#include "fleet/uplink.h"

#include "base/clock.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SERIES_MAX 4096

static int fail(const char *what, int r, const struct err *e)
{
	fprintf(stderr, "backlog: %s: %s\n", what, e && e->text[0] ? e->text : strerror(-r));
	return 1;
}

/* -------- fill -------- */

static uint64_t counters[SERIES_MAX], cells[HIST_CELLS];

static int frame_add(struct frame_encoder *enc, uint64_t n, unsigned int series)
{
	struct segment_series s = {
		.name = "backlog_total", .unit = "", .help = "", .is_present = true};
	char number[16];
	int r = 0;

	s.label_count = 2;
	s.labels[0] = (struct segment_label){"gateway", "backlog"};
	s.labels[1] = (struct segment_label){"n", number};
	for (unsigned int i = 0; i < series && r >= 0; i++) {
		snprintf(number, sizeof(number), "%u", i);
		s.counter = counters[i] += 1 + (n * 31 + i * 17) % 97;
		r = frame_encoder_series(enc, &s);
	}
	s.name = "backlog_seconds";
	s.kind = METRIC_HISTOGRAM;
	s.label_count = 1;
	cells[n % HIST_CELLS]++;
	s.cells = cells;
	return r < 0 ? r : frame_encoder_series(enc, &s);
}

static int fill(char **argv)
{
	const struct spool_options options = {.dir = argv[0],
					      .twin_dir = argv[1],
					      .bytes = 1ULL << 30,
					      .age_ns = 48 * 3600 * NS_PER_S};
	uint64_t frames = strtoull(argv[2], NULL, 10), total = 0, first;
	unsigned int series = (unsigned int)strtoul(argv[3], NULL, 10);
	uint64_t now_ms = clock_real_ns() / NS_PER_MS;
	struct frame_encoder *enc;
	struct spool *spool;
	struct err e = {0};
	int r = spool_open(&options, &spool, &e);

	if (r || !spool_is_continued(spool) || series > SERIES_MAX)
		return fail(argv[0], r ? r : -EINVAL, &e);
	r = frame_encoder_new(&enc);
	if (r >= 0)
		r = frame_encoder_continue(enc, spool_first_id(spool));
	first = spool_next_sequence(spool);
	for (uint64_t i = 0; i < frames && r >= 0; i++) {
		uint64_t time_ms = now_ms - (frames - 1 - i) * 1000;
		const uint8_t *data;
		uint32_t samples;
		size_t size;

		frame_encoder_begin(enc, spool_next_sequence(spool), time_ms, 1000,
				    i % 60 ? FRAME_CHANGES : FRAME_TOTALS);
		r = frame_add(enc, i, series);
		if (r >= 0)
			r = frame_encoder_finish(enc, &data, &size, &samples);
		if (r < 0)
			break;
		spool_reserve_ids(spool, frame_encoder_next_id(enc));
		r = spool_append(spool, time_ms, data, size, &e);
	}
	if (r)
		return fail("a frame", r, &e);
	for (unsigned int i = 0; i < series; i++)
		total += counters[i];
	printf("%" PRIu64 " %" PRIu64 " %" PRIu64 "\n", first, spool_next_sequence(spool) - 1,
	       total);
	spool_flush(spool);
	spool_close(spool);
	frame_encoder_free(enc);
	return 0;
}

/* -------- order -------- */

static int on_record(void *data, uint32_t type, const uint8_t *payload, size_t size)
{
	uint64_t sequence;
	bool is_key;

	(void)data;
	/* The frame stands behind its time and session (fleet/uplink.c). */
	if (type == UPLINK_RECORD_FRAME && size > 16 &&
	    frame_peek(payload + 16, size - 16, &sequence, &is_key) >= 0)
		printf("%" PRIu64 "\n", sequence);
	return 0;
}

static int order(const char *dir)
{
	struct commitlog *log;
	struct err e = {0};
	int r = commitlog_open(dir, on_record, NULL, &log, &e);

	if (r < 0)
		return fail(dir, r, &e);
	commitlog_close(log);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 6 && strcmp(argv[1], "fill") == 0)
		return fill(argv + 2);
	if (argc == 3 && strcmp(argv[1], "order") == 0)
		return order(argv[2]);
	fprintf(stderr, "usage: backlog fill SPOOL TWIN FRAMES SERIES | order DATA\n");
	return 2;
}
