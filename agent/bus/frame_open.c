/* SPDX-License-Identifier: Apache-2.0 */
/* Opens sealed frames: see frame_open.h. Pure. */
#include "bus/frame_open.h"

#include "base/crc32c.h"
#include "bus/frame.h"
#include "bus/frame_dictionary.h"

#include <errno.h>
#include <pthread.h>

uint32_t frame_dictionary_of(const uint8_t *data, size_t size)
{
	if (size < FRAME_SEAL_BYTES || !(data[0] & FRAME_FLAG_DICTIONARY))
		return 0;
	return ZSTD_getDictID_fromFrame(data + FRAME_SEAL_BYTES, size - FRAME_SEAL_BYTES);
}

static _Thread_local ZSTD_DCtx *contexts[2];
static _Thread_local const ZSTD_DDict *last; /* that the second one saw */
static pthread_key_t contexts_key;
static pthread_once_t contexts_once = PTHREAD_ONCE_INIT;
static bool has_contexts_key;

static void contexts_free(void *of_thread)
{
	ZSTD_DCtx **ended = of_thread;

	ZSTD_freeDCtx(ended[0]);
	ZSTD_freeDCtx(ended[1]);
}

static void contexts_begin(void)
{
	has_contexts_key = pthread_key_create(&contexts_key, contexts_free) == 0;
}

/* One context a thread and kind, kept: making one costs more than a small frame. The first frame after
 * another dictionary takes another way through zstd, which finds other faults in damaged data: it is
 * unpacked twice, so that the same bytes are always judged alike. */
static size_t unpack(uint8_t *out, size_t plain, const uint8_t *data, size_t size,
		     const ZSTD_DDict *dictionary)
{
	ZSTD_DCtx **context = &contexts[dictionary != NULL];

	if (!*context) {
		*context = ZSTD_createDCtx();
		pthread_once(&contexts_once, contexts_begin);
		/* Any value: it has the function called when the thread ends. */
		if (has_contexts_key)
			pthread_setspecific(contexts_key, contexts);
	}
	if (!*context)
		return 0;
	if (!dictionary)
		return ZSTD_decompressDCtx(*context, out, plain, data, size);
	if (dictionary != last)
		ZSTD_decompress_usingDDict(*context, out, plain, data, size, dictionary);
	last = dictionary;
	return ZSTD_decompress_usingDDict(*context, out, plain, data, size, dictionary);
}

static int decompress(struct frame_budget *b, const uint8_t *data, size_t size, bool has_dictionary,
		      const uint8_t **ret_data, size_t *ret_size, struct err *e)
{
	unsigned long long plain = ZSTD_getFrameContentSize(data, size);
	unsigned int id = ZSTD_getDictID_fromFrame(data, size);
	const ZSTD_DDict *dictionary = id ? frame_dictionary_unpack(id) : NULL;
	uint8_t *out;
	size_t n;

	if (plain == ZSTD_CONTENTSIZE_ERROR || plain == ZSTD_CONTENTSIZE_UNKNOWN)
		return frame_is_damaged(e, "no zstd frame with its size");
	if (plain > FRAME_PLAIN_MAX)
		return err_set(e, -E2BIG, "frame: %llu bytes unpacked, %u are allowed", plain,
			       FRAME_PLAIN_MAX);
	if ((id != 0) != has_dictionary)
		return frame_is_damaged(e, "dictionary without flag, or flag without dictionary");
	if (id && !dictionary)
		return err_set(e, -ENOKEY, "frame: needs dictionary %u, here are: %s", id,
			       frame_dictionary_names());
	out = frame_budget_array(b, (size_t)plain, 1);
	if (!out)
		return frame_budget_error(b, e);
	n = unpack(out, (size_t)plain, data, size, dictionary);
	if (!n && plain)
		return err_set(e, -ENOMEM, "frame: out of memory");
	if (ZSTD_isError(n))
		return frame_is_damaged(e, ZSTD_getErrorName(n));
	if (n != plain)
		return frame_is_damaged(e, "zstd frame is shorter than it says");
	*ret_data = out;
	*ret_size = n;
	return 0;
}

int frame_open(struct frame_budget *b, const uint8_t *data, size_t size, const uint8_t **ret_data,
	       size_t *ret_size, struct err *e)
{
	uint8_t flags;
	uint32_t crc;

	if (size > FRAME_SEALED_MAX)
		return err_set(e, -E2BIG, "frame: %zu bytes, %u are allowed", size,
			       FRAME_SEALED_MAX);
	if (size < FRAME_SEAL_BYTES)
		return frame_is_damaged(e, "too short");
	flags = data[0];
	if (flags & ~(FRAME_FLAG_ZSTD | FRAME_FLAG_DICTIONARY))
		return frame_is_damaged(e, "unknown flags");
	crc = (uint32_t)data[1] | (uint32_t)data[2] << 8 | (uint32_t)data[3] << 16 |
	      (uint32_t)data[4] << 24;
	if (crc32c(0, data + FRAME_SEAL_BYTES, size - FRAME_SEAL_BYTES) != crc)
		return frame_is_damaged(e, "checksum");
	if (flags == FRAME_FLAG_DICTIONARY)
		return frame_is_damaged(e, "a dictionary without zstd");
	data += FRAME_SEAL_BYTES;
	size -= FRAME_SEAL_BYTES;
	if (flags & FRAME_FLAG_ZSTD)
		return decompress(b, data, size, flags & FRAME_FLAG_DICTIONARY, ret_data, ret_size,
				  e);
	*ret_data = data;
	*ret_size = size;
	return 0;
}
