/* SPDX-License-Identifier: Apache-2.0 */
/* The spool's own structs. Internal to spool*.c. */
#pragma once

#include "bus/spool.h"
#include "bus/spool_file.h"
#include "bus/spool_set.h"

#define SPOOL_FILES_MAX   1024u
#define SPOOL_CURSOR_SETS 8u /* incarnations that a cursor knows; of older ones all is sent again */

struct spool_file {
	uint64_t number;
	int fd;
	uint8_t incarnation[FRAME_INCARNATION_BYTES];
	uint64_t bytes, first, last; /* sequences; last 0: no record */
	uint64_t last_time_ms;
};

struct spool_memory_frame {
	uint64_t sequence, time_ms;
	uint8_t *data;
	size_t size;
};

struct spool_identity { /* payload of the incarnation file */
	uint8_t boot_id[16];
	uint8_t incarnation[FRAME_INCARNATION_BYTES];
	uint64_t reserved_sequence; /* all below may have been given */
	uint32_t next_id, reserved0;
	uint64_t life; /* of host.seg; 0: not known yet */
};

struct spool {
	int dir_fd; /* -1: memory alone */
	uint64_t limit_bytes, limit_age_ns, file_bytes;
	struct spool_slots identity_slots;
	struct spool_identity identity;
	struct spool_slots twin_slots; /* the identity again, beside host.seg; exact sequences */
	const char *twin_dir;          /* borrowed from the options, NULL: none */
	int twin_dir_fd;
	bool is_continued, has_twin;
	uint64_t next_sequence;
	struct spool_file files[SPOOL_FILES_MAX]; /* oldest first */
	unsigned int file_count;
	bool has_current; /* the last of files is being written by this process */
	uint64_t next_number;
	struct spool_memory_frame memory[SPOOL_MEMORY_FRAMES];
	unsigned int memory_count;
	size_t memory_bytes;
	struct spool_cursor *cursors[SPOOL_CURSORS_MAX];
	unsigned int cursor_count;
	uint64_t opened_damaged,
		opened_lost; /* frames that some cursor missed when it was opened */
	uint8_t *scratch;    /* FRAME_SEALED_MAX */
	struct spool_stats stats;
};

struct spool_cursor_set { /* of one incarnation; part of the cursor file's payload */
	uint8_t incarnation[FRAME_INCARNATION_BYTES];
	uint64_t used; /* order of last use, 0: free */
	struct spool_set set;
};

struct spool_cursor_state {
	char address[256];
	uint64_t uses;
	/* Frames that it missed when it was opened, until somebody has written down how many. */
	uint64_t untold_damaged, untold_lost;
	struct spool_cursor_set sets[SPOOL_CURSOR_SETS];
};

struct spool_reader {
	uint64_t number; /* of the file */
	off_t offset;
	uint64_t last;  /* of the current incarnation: nothing up to here again */
	uint64_t until; /* of the current incarnation: stops before it */
	bool has_record;
	struct spool_record record;
	uint64_t next_number;
	off_t next_offset;
	uint8_t *buf;
};

struct spool_cursor {
	struct spool *spool;
	struct spool_slots slots;
	struct spool_cursor_state *state;
	bool is_dirty;
	struct spool_reader readers[2];
	uint64_t pending_bytes, pending_frames;
};

/* Walks the valid records of a file. fn returns false to stop. */
void spool_file_walk(struct spool *s, const struct spool_file *f,
		     void (*fn)(void *data, const struct spool_file *f,
				const struct spool_record_header *h),
		     void *data, uint64_t *ret_damaged);

/* -------- spool_identity.c, for spool.c -------- */

#define SPOOL_IDENTITY_MAGIC 0x3249505345444954ULL /* "TIDESPI2" */

/* What the options say, else the kernel's; random where it cannot be known. */
void spool_identity_boot(const struct spool_options *options, uint8_t ret[16]);
void spool_identity_begin(struct spool *s, const uint8_t boot_id[16]);
/* Goes on in the incarnation that either place knows, or begins one. has_own: s->identity is what
 * the directory says. */
void spool_identity_choose(struct spool *s, const struct spool_options *o,
			   const uint8_t boot_id[16], bool has_own);
void spool_identity_save(struct spool *s);
void spool_twin_save(struct spool *s);

/* -------- spool_cursor.c, for spool.c -------- */

struct spool_set *spool_cursor_set(struct spool_cursor *c,
				   const uint8_t incarnation[FRAME_INCARNATION_BYTES]);
void spool_cursor_appended(struct spool_cursor *c, size_t size);
/* A frame is given up. Returns whether this cursor still waited for it. */
bool spool_cursor_lost(struct spool_cursor *c, const uint8_t incarnation[FRAME_INCARNATION_BYTES],
		       uint64_t sequence, size_t size);
void spool_cursor_save(struct spool_cursor *c);
