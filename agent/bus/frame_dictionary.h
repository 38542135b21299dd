/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zstd dictionaries of frames, all versions that were ever written (proto/frames.ID.dict), compiled in.
 * Made ready once, at the first use, then only read: any thread. Internal to frame_*.c.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <zstd.h>

/* The id of the newest, by which frames are packed. */
#define FRAME_DICTIONARY 1u

/* The files, by the Makefile; ends with id 0. */
struct frame_dictionary_file {
	unsigned int id;
	const uint8_t *data;
	size_t size;
};
extern const struct frame_dictionary_file frame_dictionary_files[];

/* NULL when there is no memory. */
const ZSTD_CDict *frame_dictionary_pack(void);
/* NULL when the dictionary is not here (or there is no memory for it). */
const ZSTD_DDict *frame_dictionary_unpack(unsigned int id);
/* "1, 2": for messages. */
const char *frame_dictionary_names(void);
