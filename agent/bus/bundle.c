/* SPDX-License-Identifier: Apache-2.0 */
/* Codec of bundles. Pure. */
#include "bus/bundle.h"

#include "bus/sp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void bundle_fini(struct bundle *b)
{
	free(b->data);
	*b = (struct bundle){0};
}

void bundle_reset(struct bundle *b)
{
	b->size = 0;
	b->count = 0;
}

int bundle_add(struct bundle *bundle, const void *a, size_t a_size, const void *b, size_t b_size)
{
	size_t need = bundle->size + BUNDLE_HEAD + a_size + b_size;
	uint8_t *data = bundle->data;

	if (a_size + b_size > UINT32_MAX)
		return -EMSGSIZE;
	if (need > bundle->cap) {
		need = need < BUNDLE_BYTES ? BUNDLE_BYTES : need;
		data = realloc(data, need);
		if (!data)
			return -ENOMEM;
		bundle->data = data;
		bundle->cap = need;
	}
	data += bundle->size;
	sp_put32(data, (uint32_t)(a_size + b_size));
	if (a_size)
		memcpy(data + BUNDLE_HEAD, a, a_size);
	if (b_size)
		memcpy(data + BUNDLE_HEAD + a_size, b, b_size);
	bundle->size += BUNDLE_HEAD + a_size + b_size;
	bundle->count++;
	return 0;
}

int bundle_next(const uint8_t *data, size_t size, size_t *at, const uint8_t **ret, size_t *ret_size)
{
	size_t n;

	if (*at == size)
		return 0;
	if (size - *at < BUNDLE_HEAD)
		return -EPROTO;
	n = sp_get32(data + *at);
	if (n > size - *at - BUNDLE_HEAD)
		return -EPROTO;
	*ret = data + *at + BUNDLE_HEAD;
	*ret_size = n;
	*at += BUNDLE_HEAD + n;
	return 1;
}
