/* SPDX-License-Identifier: Apache-2.0 */
/* The file under a segment's writer: found or made, locked, preallocated, mapped. */
#pragma once

#include "segment/writer.h"

struct segment_file {
	int lock; /* descriptor of <path>.lock */
	void *map;
	size_t size;
	ino_t inode;
	char *path;
	gid_t group;
	bool is_continued;
	char reason[256]; /* why an existing file was replaced, or "" */
};

/* plan holds the layout and the boot id that the file must have. Errors as segment_writer_open. */
int segment_file_open(const struct segment_options *o, const struct segment_header *plan,
		      struct segment_file *ret, struct err *e);
/* Puts the file back under its path, with all that it holds, when somebody removed or replaced it;
 * the mapping then is another. 1 put back, 0 it was there. */
int segment_file_keep(struct segment_file *f, struct err *e);
/* Another file of the same size takes its path, whole or not at all. */
int segment_file_replace(struct segment_file *f, const void *image, struct err *e);
void segment_file_close(struct segment_file *f);
