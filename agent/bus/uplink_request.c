/* SPDX-License-Identifier: Apache-2.0 */
/* Building of Uplink messages straight from the spool. Part of the uplink. */
#include "bus/uplink_request.h"

#include "base/cleanup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HELLO_MAX   8192u
#define TAG_SESSION 0x08 /* proto/tidegate.proto, Uplink */
#define TAG_HELLO   0x12
#define TAG_FRAMES  0x1a

void uplink_request_free(struct uplink_request *q)
{
	free(q->message);
	free(q->frames);
	*q = (struct uplink_request){0};
}

static int reserve(struct uplink_request *q, size_t more)
{
	size_t need = q->size + more, cap = q->cap ? q->cap : 1024;
	uint8_t *message;

	if (need <= q->cap)
		return 0;
	while (cap < need)
		cap *= 2;
	message = realloc(q->message, cap);
	if (!message)
		return -ENOMEM;
	q->message = message;
	q->cap = cap;
	return 0;
}

static void put_varint(struct uplink_request *q, uint64_t v)
{
	for (; v >= 0x80; v >>= 7)
		q->message[q->size++] = (uint8_t)(v | 0x80);
	q->message[q->size++] = (uint8_t)v;
}

static int put_bytes(struct uplink_request *q, uint8_t tag, const uint8_t *data, size_t size)
{
	int r = reserve(q, size + 11);

	if (r < 0)
		return r;
	q->message[q->size++] = tag;
	put_varint(q, size);
	memcpy(q->message + q->size, data, size);
	q->size += size;
	return 0;
}

static int begin(struct uplink_request *q, uint32_t session,
		 int (*hello_of)(void *data, const uint8_t *incarnation, uint8_t *buf, size_t size),
		 void *data)
{
	uint8_t hello[HELLO_MAX];
	int r = reserve(q, 16);

	if (r < 0)
		return r;
	if (session) {
		q->message[q->size++] = TAG_SESSION;
		put_varint(q, session);
		return 0;
	}
	r = hello_of(data, q->incarnation, hello, sizeof(hello));
	if (r < 0)
		return r;
	q->has_hello = true;
	return put_bytes(q, TAG_HELLO, hello, (size_t)r);
}

/* The frame as it goes out. *ret_owned is to be freed. */
static int frame_of(const struct uplink_request *q, const struct spool_record *record,
		    const uint8_t **ret_data, size_t *ret_size, uint8_t **ret_owned,
		    uint32_t *ret_closed)
{
	int r;

	*ret_closed = 0;
	*ret_owned = NULL;
	*ret_data = record->data;
	*ret_size = record->size;
	if (!q->is_simple)
		return 0;
	r = frame_without_dictionary(record->data, record->size, ret_owned, ret_size);
	if (r == -ENOMEM)
		return r;
	/* What cannot be opened here goes as it is: the receiver says what it is. */
	if (r < 0)
		*ret_closed = frame_dictionary_of(record->data, record->size);
	if (r < 0 || !*ret_owned)
		*ret_size = record->size;
	else
		*ret_data = *ret_owned;
	return 0;
}

int uplink_request_fill(struct uplink_request *q, struct spool_cursor *c, enum spool_end end,
			uint32_t (*session_of)(void *data, const uint8_t *incarnation),
			int (*hello_of)(void *data, const uint8_t *incarnation, uint8_t *buf,
					size_t size),
			void *data)
{
	struct spool_record record;
	int r = 0;

	q->size = 0;
	q->frame_count = 0;
	q->has_hello = false;
	if (!q->frames)
		q->frames = calloc(UPLINK_MESSAGE_FRAMES, sizeof(*q->frames));
	if (!q->frames)
		return -ENOMEM;
	while (q->frame_count < UPLINK_MESSAGE_FRAMES && spool_cursor_peek(c, end, &record)) {
		_cleanup_free_ uint8_t *owned = NULL;
		const uint8_t *frame;
		uint32_t closed;
		size_t size;

		r = frame_of(q, &record, &frame, &size, &owned, &closed);
		if (r < 0)
			return r;
		if (!q->frame_count) {
			memcpy(q->incarnation, record.incarnation, sizeof(q->incarnation));
			r = begin(q, session_of(data, record.incarnation), hello_of, data);
			if (r < 0)
				return r;
		} else if (q->size + size + 8 > UPLINK_MESSAGE_BYTES ||
			   memcmp(q->incarnation, record.incarnation, sizeof(q->incarnation)) !=
				   0) {
			break;
		}
		r = put_bytes(q, TAG_FRAMES, frame, size);
		if (r < 0)
			return r;
		q->frames[q->frame_count++] = (struct uplink_frame){
			.sequence = record.sequence,
			.size = (uint32_t)record.size,
			.closed = closed,
		};
		spool_cursor_take(c, end);
	}
	return q->frame_count > 0;
}

struct uplink_frame *uplink_request_find(struct uplink_request *q, uint64_t sequence)
{
	for (unsigned int i = 0; i < q->frame_count; i++)
		if (q->frames[i].sequence == sequence)
			return &q->frames[i];
	return NULL;
}

bool uplink_request_is_open(const struct uplink_request *q)
{
	for (unsigned int i = 0; i < q->frame_count; i++)
		if (!q->frames[i].is_settled)
			return true;
	return false;
}

bool uplink_request_settled_from(const struct uplink_request *q, uint64_t sequence)
{
	for (unsigned int i = 0; i < q->frame_count; i++)
		if (q->frames[i].sequence >= sequence && q->frames[i].is_settled)
			return true;
	return false;
}
