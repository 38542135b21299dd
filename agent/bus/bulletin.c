/* SPDX-License-Identifier: Apache-2.0 */
/* Decoder of bus messages. Pure; in tail and whatever else subscribes. */
#include "bus/bulletin.h"

#include <errno.h>
#include <string.h>
#include <zstd.h>

static void *budget_alloc(void *data, size_t size)
{
	return arena_alloc(data, size);
}

static void budget_free(void *data, void *p)
{
	(void)data;
	(void)p;
}

int bulletin_topic(const uint8_t *data, size_t size, const char **ret_topic)
{
	size_t most = size < BULLETIN_TOPIC_MAX + 1 ? size : BULLETIN_TOPIC_MAX + 1;
	const uint8_t *end = size ? memchr(data, '\0', most) : NULL;

	if (!end || end == data)
		return -EBADMSG;
	*ret_topic = (const char *)data;
	return 0;
}

static int inflate(const ProtobufCBinaryData *in, struct arena *arena, uint8_t **ret,
		   size_t *ret_size)
{
	unsigned long long promised = ZSTD_getFrameContentSize(in->data, in->len);
	uint8_t *out;
	size_t n;

	if (promised == ZSTD_CONTENTSIZE_ERROR || promised == ZSTD_CONTENTSIZE_UNKNOWN)
		return -EBADMSG;
	if (promised > BULLETIN_BODY_MAX)
		return -E2BIG;
	out = arena_alloc(arena, promised ? (size_t)promised : 1);
	if (!out)
		return -E2BIG;
	n = ZSTD_decompress(out, (size_t)promised, in->data, in->len);
	if (ZSTD_isError(n) || n != promised)
		return -EBADMSG;
	*ret = out;
	*ret_size = n;
	return 0;
}

int bulletin_decode(const uint8_t *data, size_t size, struct arena *arena, struct bulletin *ret)
{
	ProtobufCAllocator allocator = {budget_alloc, budget_free, arena};
	Tidegate__BusMessage *message;
	struct bulletin b = {0};
	size_t refused, plain_size;
	uint8_t *plain;
	int r;

	r = bulletin_topic(data, size, &b.topic);
	if (r < 0)
		return r;
	arena_reset(arena);
	refused = arena->refused;
	data += strlen(b.topic) + 1;
	size -= strlen(b.topic) + 1;
	message = tidegate__bus_message__unpack(&allocator, size, data);
	if (!message)
		return arena->refused == refused ? -EBADMSG : -E2BIG;
	plain = message->body.data;
	plain_size = message->body.len;
	if (message->zstd) {
		r = inflate(&message->body, arena, &plain, &plain_size);
		if (r < 0)
			return r;
	}
	b.epoch = message->epoch;
	b.sequence = message->sequence;
	b.body = tidegate__bus_body__unpack(&allocator, plain_size, plain);
	if (!b.body)
		return arena->refused == refused ? -EBADMSG : -E2BIG;
	*ret = b;
	return 0;
}

int bulletin_cells(const Tidegate__BusSeries *s, uint64_t ret[HIST_CELLS])
{
	uint64_t cell = 0;

	if (s->n_cells != s->n_counts || s->n_cells > HIST_CELLS)
		return -EBADMSG;
	memset(ret, 0, HIST_CELLS * sizeof(ret[0]));
	for (size_t i = 0; i < s->n_cells; i++) {
		/* Differences: all but the first must go forward. */
		if (i && !s->cells[i])
			return -EBADMSG;
		cell += s->cells[i];
		if (cell >= HIST_CELLS)
			return -EBADMSG;
		ret[cell] = s->counts[i];
	}
	return 0;
}
