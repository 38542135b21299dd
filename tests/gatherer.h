/* SPDX-License-Identifier: Apache-2.0 */
/* The agent's side of app/: a directory, a gather over it, app.seg and a reader of that. Include after
 * <cmocka.h>. */
#pragma once

#include "base/clock.h"
#include "segment/gather.h"
#include "segment/reader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64], app_path[96], app_dir[96];
static struct segment_writer *writer;
static struct gather *gather;
static struct segment_reader *reader;

static inline int gatherer_setup(const char *pattern)
{
	strcpy(dir, pattern);
	if (!mkdtemp(dir))
		return -1;
	snprintf(app_path, sizeof(app_path), "%s/app.seg", dir);
	snprintf(app_dir, sizeof(app_dir), "%s/app", dir);
	return mkdir(app_dir, 0700);
}

static inline void gatherer_start(uint32_t series, uint32_t heap_bytes,
				  const struct gather_options *options)
{
	const struct segment_options o = {
		.path = app_path,
		.kind = SEGMENT_APP,
		.group = (gid_t)-1,
		.series = series,
		.histograms = 8,
		.heap_bytes = heap_bytes,
	};
	bool is_continued;

	assert_int_equal(segment_writer_open(&o, &writer, &is_continued, NULL), 0);
	assert_int_equal(gather_new(options, writer, &gather), 0);
}

static inline void agent_stop(void)
{
	gather = gather_free(gather);
	writer = segment_writer_close(writer);
	reader = segment_reader_close(reader);
}

static inline void tick_at(uint64_t now)
{
	gather_collect(gather, now);
	segment_writer_tick_begin(writer);
	gather_write(gather);
	segment_writer_tick_end(writer, now, now, NS_PER_S);
}

static inline void tick(void)
{
	tick_at(clock_mono_ns());
}

/* A series that is there, as the reader sees it now, for which is_it says so (NULL: each) and whose
 * name is that; its value, a histogram's count; -1: there is none. */
static inline double value_where(const char *name,
				 bool (*is_it)(const struct segment_series *, const char *),
				 const char *what)
{
	struct segment_series s;

	if (!reader)
		assert_int_equal(segment_reader_open(app_path, &reader, NULL), 0);
	assert_int_equal(segment_reader_refresh(reader, NULL), 0);
	for (unsigned int i = 0; i < segment_reader_series_count(reader); i++) {
		if (!segment_reader_series(reader, i, &s) || !s.is_present ||
		    strcmp(s.name, name) != 0 || (is_it && !is_it(&s, what)))
			continue;
		return s.kind == METRIC_COUNTER ? (double)s.counter
		       : s.kind == METRIC_GAUGE ? s.gauge
						: (double)histogram_count(s.cells);
	}
	return -1;
}

static inline int gatherer_teardown(void)
{
	char command[128];

	agent_stop();
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}
