/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of libtidegate share: a handle from inside. One writer, one thread at a time. */
#pragma once

#include "tidegate.h"

#include "metrics.h"
#include "segment.h"

#include <sys/types.h>

#define HIDDEN __attribute__((visibility("hidden")))

struct host; /* host.c: host.seg, for the draining flag */

/* The region is private memory until the file is made, and again in a child; the file then takes its
 * place at the same addresses, so that cells that were bound stay bound. */
struct tidegate {
	char dir[256], gateway[SEGMENT_NAME_BYTES];
	char path[320]; /* of the file, "" while there is none */
	struct segment_header *h;
	struct segment_entry *directory;
	char *heap;
	uint64_t *cells;
	size_t region_bytes;
	uint32_t histograms, histograms_max;
	uint32_t *index; /* open addressing: entry + 1 */
	uint32_t index_mask;
	int fd; /* of the file, holds its lock; -1 */
	uint32_t flags;
	pid_t pid;
	uint64_t *nowhere; /* cells of what found no room */
	struct tidegate_metric *metrics;
	struct host *host;
	struct tidegate *next; /* of this process: for fork */
};

struct tidegate_metric {
	struct tidegate *t;
	struct tidegate_metric *next;
	enum metric_kind kind;
	enum metric_merge merge;
	size_t label_count;
	char *labels[TIDEGATE_LABELS_MAX];
	uint32_t name_offset, name_bytes, unit_offset, unit_bytes, help_offset, help_bytes;
};

/* Writes the reason of tidegate_error() and returns r. */
HIDDEN int reason_set(int r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- region.c ---- */

HIDDEN int region_open(struct tidegate *t, uint32_t series, uint32_t histograms);
HIDDEN void region_close(struct tidegate *t);
/* Makes the file if there is none, of this process. */
HIDDEN int region_attach(struct tidegate *t);
/* The file is let go of; private memory takes its place. In a child counting begins at 0. */
HIDDEN void region_detach(struct tidegate *t, bool keeps_values);
/* Whether the file is still where the agent finds it. */
HIDDEN bool region_is_there(const struct tidegate *t);

/* ---- metrics.c ---- */

HIDDEN void metrics_free(struct tidegate *t);

/* ---- host.c ---- */

HIDDEN bool host_is_draining(struct tidegate *t);
/* Maps host.seg if it is there: draining is then known whatever becomes of the path. */
HIDDEN void host_look(struct tidegate *t);
HIDDEN void host_close(struct tidegate *t);
