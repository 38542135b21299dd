/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One file of a gateway process (SEGMENT_PROCESS), read by descriptor. Its owner may change every
 * byte of it at any time: what was checked once is kept here, not read again, and a layout that
 * changes is damage. Used by gather.c alone.
 */
#pragma once

#include "base/err.h"
#include "segment.h"
#include "segment/gather.h"
#include "segment/layout.h"

#include <sys/types.h>

#define GATHER_FILE_NAME 32 /* <pid>-<life as 16 hex digits>.seg */

/* What is kept of an entry: enough to find its values. */
struct gather_entry {
	uint32_t cell;
	int32_t series; /* index in app.seg, negative: refused */
	uint8_t kind;
	bool is_valid;
};

struct gather_file {
	char name[GATHER_FILE_NAME];
	int fd; /* asks for the lock that the writer holds while it lives */
	dev_t dev;
	ino_t inode;
	uid_t uid;
	struct segment_header h; /* as last read; its layout as first read */
	bool is_dead, is_damaged, is_oversized;
	struct gather_owner owner;
	struct gather_entry *entries; /* entries_known of them */
	uint32_t entries_known;
	uint32_t granted_entries; /* that there is room for here */
	uint64_t granted_cells;   /* that are read */
	int overflow;             /* series that counts what the writer itself refused */
};

/* Room that is used again for each file. */
struct gather_room {
	void *data;
	size_t size;
};

/* Whether a file may be called so; nothing else in app/ is looked into. */
bool gather_file_named(const char *name);

/* -ENOENT: not there (any more); -EMFILE, -ENFILE; -EBADMSG: no file of a process, or not under its
 * name; *ret then only has what fstat said, and fd. Close it. */
int gather_file_open(int dir, const char *name, uint64_t bytes_max, struct gather_file *ret,
		     struct err *e);
void gather_file_close(struct gather_file *f);

/* Whoever holds the lock lives. It is given back at once. */
bool gather_file_has_writer(const struct gather_file *f);

/* Reads the header again. -EBADMSG: something changed that may not, or the file shrank. */
int gather_file_refresh(struct gather_file *f, struct err *e);

/* Entries from entries_known on, at most *n of them, and the strings they need, into the rooms; *n
 * becomes how many there are. */
int gather_file_entries(const struct gather_file *f, struct gather_room *entries,
			struct gather_room *heap, uint32_t *n, struct segment_view *ret,
			struct err *e);

/* The granted cells, into the room. */
int gather_file_cells(const struct gather_file *f, struct gather_room *cells, struct err *e);
