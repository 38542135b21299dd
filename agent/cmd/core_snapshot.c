/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state of the fleet: for the commit log, and for subscribers. A subscriber asks with a topic
 * (series/<agent id>) or nothing (the merged fleet); the answer is a message of the topic
 * "snapshot" whose body holds the series and, in `topics`, the sequence of each topic that they
 * include.
 */
#include "cmd/core.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"
#include "fleet/snapshot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SNAPSHOT_TOPIC        "snapshot"
#define SNAPSHOT_SERIES_BYTES (900u << 10) /* what does not fit is left out: ask by topic */
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

static void series_add(struct merge_view *view, struct body *body)
{
	size_t bytes = 0;

	for (size_t i = 0; i < merge_view_count(view); i++) {
		Tidegate__BusBody *message;
		struct merge_series s;

		if (!merge_view_get(view, i, &s))
			continue;
		if (body_add(body, &s) < 0)
			return;
		message = body_message(body);
		bytes += tidegate__bus_series__get_packed_size(
				 message->series[message->n_series - 1]) +
			 8;
		if (bytes > SNAPSHOT_SERIES_BYTES) {
			message->n_series--;
			return;
		}
	}
}

struct topic_list {
	Tidegate__BusTopic items[SNAPSHOT_TOPICS], *pointers[SNAPSHOT_TOPICS];
	char names[SNAPSHOT_TOPICS][PUBLISHER_TOPIC_MAX + 1];
	size_t count;
};

static void topic_add(struct core *c, struct topic_list *list, const char *agent)
{
	Tidegate__BusTopic *t = &list->items[list->count];
	char *name = list->names[list->count];
	uint64_t sequence;

	snprintf(name, PUBLISHER_TOPIC_MAX + 1, "series/%s", agent);
	sequence = publisher_sequence(c->publisher, name);
	if (!sequence)
		return;
	tidegate__bus_topic__init(t);
	t->topic = name;
	t->sequence = sequence;
	list->pointers[list->count++] = t;
}

static int snapshot_build(struct core *c, const char *topic, struct reply *ret)
{
	_cleanup_(body_free_p) struct body *body = NULL;
	_cleanup_(merge_view_free_p) struct merge_view *view = NULL;
	_cleanup_free_ struct topic_list *list = malloc(sizeof(*list));
	uint64_t now_ms = clock_real_ns() / NS_PER_MS;
	const char *agent = str_starts(topic, "series/") ? topic + strlen("series/") : NULL;
	struct merge_options options = {
		.by = agent ? MERGE_BY_INSTANCE : MERGE_BY_FLEET,
		.agent = agent,
		.now_ms = now_ms,
		.stale_ms = c->config->fleet_stale / NS_PER_MS,
	};
	Tidegate__BusBody *message;
	int r;

	if (!list)
		return -ENOMEM;
	r = body_new(&body);
	if (r >= 0)
		r = merge_view_new(c->fleet, &options, &view);
	if (r < 0)
		return r;
	body_reset(body, now_ms);
	series_add(view, body);
	list->count = 0;
	for (size_t i = 0; i < merge_agent_count(c->fleet) && list->count < SNAPSHOT_TOPICS; i++) {
		struct merge_agent a;

		if (merge_agent_get(c->fleet, i, &a) && (!agent || str_equal(a.id, agent)))
			topic_add(c, list, a.id);
	}
	message = body_message(body);
	message->n_topics = list->count;
	message->topics = list->pointers;
	r = reply_pack(c, message, ret);
	if (r == -EMSGSIZE) {
		message->n_series = 0;
		r = reply_pack(c, message, ret);
	}
	return r;
}

void core_snapshot_reply(struct core *c, const struct gatelink_handle *handle,
			 const uint8_t *payload, size_t size)
{
	char topic[PUBLISHER_TOPIC_MAX + 1];
	struct reply reply = {0};

	/* The series must be those of the sequences: nothing may wait to be published. */
	if (size > PUBLISHER_TOPIC_MAX || core_commit(c) < 0)
		return;
	memcpy(topic, payload, size);
	topic[size] = '\0';
	if (snapshot_build(c, topic, &reply) >= 0)
		gatelink_reply(c->gate, handle, reply.data, reply.size);
	free(reply.data);
}
