/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What gateway processes tell: the files in app/ (SEGMENT_PROCESS), found, checked, summed into
 * app.seg; what a dead process left is added to the bases there once, and its file removed. Runs in
 * the courier, one thread. A file is never trusted for more than its numbers: it is read with pread,
 * every offset is checked, and what was checked is kept, not read again. Files of users that own no
 * gateway cost a look at their header and take nobody's place.
 */
#pragma once

#include "base/err.h"
#include "segment/writer.h"

#include <stdbool.h>
#include <sys/types.h>

struct gather;

/* Whose file it is. */
struct gather_writer {
	uid_t uid;            /* owner of the file */
	uint32_t pid, parent; /* as the writer saw them */
	const char *gateway;  /* what the script calls its gateway, or "" */
};

struct gather_owner {
	char gateway[SEGMENT_NAME_BYTES];
	char instance[SEGMENT_NAME_BYTES]; /* "": no such label */
};

struct gather_options {
	const char *dir;    /* …/app */
	unsigned int files; /* most that are read at once; one user's: three quarters of them */
	uint64_t bytes;     /* most of one file */
	/* False: not known (yet); asked again at the next tick. */
	bool (*owner)(void *data, const struct gather_writer *w, struct gather_owner *ret);
	void *data;
};

/* Why something was left out; each refusal is counted once a file or series (of files, at most
 * GATHER_WAITING are remembered at once). */
enum gather_refusal {
	GATHER_FILES,   /* more files, series or cells of them than are read */
	GATHER_OWNER,   /* of no gateway's user, and given up after GATHER_OWNER_NS */
	GATHER_DAMAGED, /* not a segment of a process, or it does not add up */
	GATHER_SERIES,  /* no room in app.seg; counted under _overflow where that has room */
	GATHER_NAME,    /* no valid name or label, or one that only the agent uses */
	GATHER_KIND,    /* the name is a metric of another kind */
	GATHER_REFUSALS
};
#define GATHER_OWNER_NS (600ULL * 1000000000)

/* Of all files together; one user's: three quarters of them. */
#define GATHER_ENTRIES (2u << 20)
#define GATHER_CELLS   (32u << 20)
/* In one tick; the rest is looked at in the next. */
#define GATHER_LOOKS      4096  /* names in the directory */
#define GATHER_NEW_SERIES 65536 /* entries of files that are new */

const char *gather_refusal_name(enum gather_refusal refusal);

struct gather_stats {
	unsigned int files; /* of living processes, trusted */
	uint64_t folded;    /* dead ones */
	uint64_t refused[GATHER_REFUSALS];
};

/* Borrows the writer of app.seg. */
int gather_new(const struct gather_options *options, struct segment_writer *w, struct gather **ret);
struct gather *gather_free(struct gather *g);

/* Looks at the directory and at every file; folds the dead; finds series. Outside of a tick. */
void gather_collect(struct gather *g, uint64_t now_mono_ns);
/* Writes the sums of what was collected. Inside a tick. */
void gather_write(struct gather *g);

void gather_stats(const struct gather *g, struct gather_stats *ret);
