/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state of the fleet: for the commit log, and for subscribers. A subscriber asks with a topic
 * (metrics/<gateway>/<agent id>: its series; empty: the merged fleet and all topics), then maybe a
 * NUL and, in decimal, the `next` of the part before. The answer is a message of the topic
 * "snapshot" whose body holds the series and, in `topics`, the sequence that they include.
 *
 * How a subscriber joins: subscribe, then ask; of two values of a series the one of the higher
 * sequence holds. Parts may be of different sequences, each says its own.
 */
#include "cmd/core.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"
#include "bus/subject.h"
#include "fleet/snapshot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SNAPSHOT_TOPIC        "snapshot"
#define SNAPSHOT_SERIES_BYTES (900u << 10) /* of one part, as 4,096 topics below 1 MiB */
#define SNAPSHOT_TOPICS       4096

static int save_record(void *data, uint32_t type, const void *payload, size_t size)
{
	return commitlog_writer_add(data, type, payload, size);
}

int core_save(void *data, struct commitlog_writer *writer)
{
	struct core *c = data;

	return snapshot_save(c->fleet, save_record, writer);
}

DEFINE_CLEANUP(struct body *, body_free)
DEFINE_CLEANUP(struct merge_view *, merge_view_free)

struct reply {
	uint8_t *data;
	size_t size;
};

static int reply_pack(struct core *c, const Tidegate__BusBody *body, struct reply *ret)
{
	_cleanup_free_ uint8_t *packed = NULL, *data = NULL;
	Tidegate__BusMessage message;
	size_t size = tidegate__bus_body__get_packed_size(body);

	tidegate__bus_message__init(&message);
	packed = malloc(size + 1);
	if (!packed)
		return -ENOMEM;
	message.epoch = publisher_epoch_of(c->publisher);
	message.body.data = packed;
	message.body.len = tidegate__bus_body__pack(body, packed);
	size = sizeof(SNAPSHOT_TOPIC) + tidegate__bus_message__get_packed_size(&message);
	if (size > GATELINK_MESSAGE_MAX)
		return -EMSGSIZE;
	data = malloc(size);
	if (!data)
		return -ENOMEM;
	memcpy(data, SNAPSHOT_TOPIC, sizeof(SNAPSHOT_TOPIC));
	tidegate__bus_message__pack(&message, data + sizeof(SNAPSHOT_TOPIC));
	ret->data = TAKE_PTR(data);
	ret->size = size;
	return 0;
}

static bool is_of_gateway(const struct merge_series *s, const char *gateway)
{
	const char *own = "";

	for (unsigned int i = 0; i < s->label_count; i++)
		if (str_equal(s->labels[i].key, "gateway"))
			own = s->labels[i].value;
	return !gateway || strncmp(own, gateway, SUBJECT_GATEWAY) == 0;
}

/* From a place on until the body is full. Returns where the next part begins, 0: nowhere. */
static uint32_t series_add(struct merge_view *view, const char *gateway, uint32_t from,
			   struct body *body)
{
	size_t bytes = 0, count = merge_view_count(view);

	for (size_t i = from; i < count && i < UINT32_MAX; i++) {
		Tidegate__BusBody *message;
		struct merge_series s;

		if (!merge_view_get(view, i, &s) || !is_of_gateway(&s, gateway))
			continue;
		if (body_add(body, &s) < 0)
			return (uint32_t)i;
		message = body_message(body);
		bytes += tidegate__bus_series__get_packed_size(
				 message->series[message->n_series - 1]) +
			 8;
		if (bytes > SNAPSHOT_SERIES_BYTES) {
			message->n_series--;
			return (uint32_t)i;
		}
	}
	return 0;
}

struct topic_list {
	Tidegate__BusTopic items[SNAPSHOT_TOPICS], *pointers[SNAPSHOT_TOPICS];
	size_t count;
};

static void topic_add(struct topic_list *list, const char *name, uint64_t sequence)
{
	Tidegate__BusTopic *t = &list->items[list->count];

	tidegate__bus_topic__init(t);
	t->topic = (char *)(uintptr_t)name; /* packing only reads it */
	t->sequence = sequence;
	list->pointers[list->count++] = t;
}

/* All of metrics/, or the one that was asked for, which may have had no message yet. */
static void topics_add_all(struct core *c, const char *topic, struct topic_list *list)
{
	const char *name;
	uint64_t sequence;

	list->count = 0;
	if (*topic) {
		topic_add(list, topic, publisher_sequence(c->publisher, topic));
		return;
	}
	for (size_t i = 0; (name = publisher_topic(c->publisher, i, &sequence)); i++)
		if (list->count < SNAPSHOT_TOPICS && str_starts(name, "metrics/"))
			topic_add(list, name, sequence);
}

static int snapshot_build(struct core *c, const char *topic, uint32_t from, struct reply *ret)
{
	_cleanup_(body_free_p) struct body *body = NULL;
	_cleanup_(merge_view_free_p) struct merge_view *view = NULL;
	_cleanup_free_ struct topic_list *list = malloc(sizeof(*list));
	uint64_t now_ms = clock_real_ns() / NS_PER_MS;
	char gateway[SUBJECT_MAX + 1], agent[SUBJECT_MAX + 1];
	struct merge_options options = {
		.by = *topic ? MERGE_BY_INSTANCE : MERGE_BY_FLEET,
		.agent = *topic ? agent : NULL,
		.now_ms = now_ms,
		.stale_ms = c->config->fleet_stale / NS_PER_MS,
	};
	Tidegate__BusBody *message;
	uint32_t next;
	int r;

	if (*topic && !subject_read_metrics(topic, gateway, agent))
		return -EINVAL;
	if (!list)
		return -ENOMEM;
	r = body_new(&body);
	if (r >= 0)
		r = merge_view_new(c->fleet, &options, &view);
	if (r < 0)
		return r;
	body_reset(body, now_ms);
	next = series_add(view, *topic ? gateway : NULL, from, body);
	topics_add_all(c, topic, list);
	message = body_message(body);
	message->n_topics = list->count;
	message->topics = list->pointers;
	message->next = next;
	return reply_pack(c, message, ret);
}

void core_snapshot_reply(struct core *c, const struct gatelink_handle *handle,
			 const uint8_t *payload, size_t size)
{
	char request[SUBJECT_MAX + 16];
	struct reply reply = {0};
	uint64_t from = 0;
	size_t at;

	/* The series must be those of the sequences: nothing may wait to be published. */
	if (size >= sizeof(request) || core_commit(c) < 0)
		return;
	memcpy(request, payload, size);
	request[size] = '\0';
	at = strlen(request) + 1;
	if (at < size && (str_to_u64(request + at, &from) < 0 || from > UINT32_MAX))
		return;
	if (snapshot_build(c, request, (uint32_t)from, &reply) >= 0)
		gatelink_reply(c->gate, handle, reply.data, reply.size);
	free(reply.data);
}
