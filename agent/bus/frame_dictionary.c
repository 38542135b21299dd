/* SPDX-License-Identifier: Apache-2.0 */
/* Dictionaries, kept for the life of the process. */
#include "bus/frame_dictionary.h"

#include "base/err.h"

#include <pthread.h>
#include <stdio.h>

#define DICTIONARIES_MAX 16u
#define ZSTD_LEVEL       3

static ZSTD_DDict *unpack[DICTIONARIES_MAX]; /* by the order of the files */
static ZSTD_CDict *pack;
static char names[128];

static void unpack_make(void)
{
	size_t at = 0;

	for (unsigned int i = 0; frame_dictionary_files[i].id; i++) {
		const struct frame_dictionary_file *f = &frame_dictionary_files[i];

		CHECK(i < DICTIONARIES_MAX);
		unpack[i] = ZSTD_createDDict(f->data, f->size);
		at += (size_t)snprintf(names + at, sizeof(names) - at, at ? ", %u" : "%u", f->id);
		CHECK(at < sizeof(names));
	}
}

static void pack_make(void)
{
	for (unsigned int i = 0; frame_dictionary_files[i].id; i++)
		if (frame_dictionary_files[i].id == FRAME_DICTIONARY)
			pack = ZSTD_createCDict(frame_dictionary_files[i].data,
						frame_dictionary_files[i].size, ZSTD_LEVEL);
}

const ZSTD_CDict *frame_dictionary_pack(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, pack_make);
	return pack;
}

const ZSTD_DDict *frame_dictionary_unpack(unsigned int id)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, unpack_make);
	for (unsigned int i = 0; id && frame_dictionary_files[i].id; i++)
		if (frame_dictionary_files[i].id == id)
			return unpack[i];
	return NULL;
}

const char *frame_dictionary_names(void)
{
	frame_dictionary_unpack(0);
	return names;
}
