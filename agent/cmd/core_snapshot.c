/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The state of the fleet: for the commit log, and for subscribers, who ask for
 *
 *   nothing                     the sums of the fleet
 *   metrics/<gateway>/<agent>   the series of that topic, and the sequence that they include
 *   a prefix that ends in `/`   topics and their last sequences, no series
 *
 * then maybe a NUL and the `next` of the part before. The answer is a message of the topic
 * "snapshot"; one without anything says why. Parts may be of different moments, each names its own.
 *
 * How a subscriber joins: subscribe, then ask; of two values of a series the one of the higher
 * sequence holds.
 */
#include "cmd/core.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"
#include "bus/subject.h"
#include "fleet/snapshot.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SNAPSHOT_TOPIC  "snapshot"
#define SNAPSHOT_SERIES 8192u /* of one part; its bytes are body_add's business */
#define SNAPSHOT_TOPICS 4096u
#define NEXT_SIZE       48

static int save_record(void *data, uint32_t type, const void *payload, size_t size)
{
	return commitlog_writer_add(data, type, payload, size);
}

int core_save(void *data, struct commitlog_writer *writer)
{
	struct core *c = data;

	int r = snapshot_save(c->fleet, save_record, writer);

	if (r >= 0 && c->history)
		r = history_save(c->history, save_record, writer);
	return r;
}

DEFINE_CLEANUP(struct body *, body_free)
DEFINE_CLEANUP(struct merge_view *, merge_view_free)

struct part {
	struct core *c;
	uint64_t departed; /* of the fleet: then places are others */
	size_t from;
	char next[NEXT_SIZE];
	const uint8_t *message;
	size_t size;
};

static int part_pack(struct part *p, Tidegate__BusBody *body, const char *why)
{
	int r;

	/* protobuf-c's strings are not const; packing only reads them. */
	body->next = (char *)(uintptr_t)p->next;
	body->why = (char *)(uintptr_t)why;
	body->time_ms = clock_real_ns() / NS_PER_MS;
	r = publisher_answer(p->c->publisher, SNAPSHOT_TOPIC, body, &p->message, &p->size);
	return r == 0 && p->size > GATELINK_PAYLOAD_MAX ? -EMSGSIZE : r;
}

static int part_refuse(struct part *p, const char *why)
{
	Tidegate__BusBody body;

	tidegate__bus_body__init(&body);
	*p->next = '\0';
	return part_pack(p, &body, why);
}

static void next_set(struct part *p, size_t at)
{
	snprintf(p->next, sizeof(p->next), "%" PRIu64 ".%zu", p->departed, at);
}

/* What next_set() wrote. False: it is not, or incarnations departed since, and a place is another. */
static bool next_read(struct part *p, char *next)
{
	char *dot = strchr(next, '.');
	uint64_t departed, from;

	if (!dot)
		return false;
	*dot = '\0';
	if (str_to_u64(next, &departed) < 0 || str_to_u64(dot + 1, &from) < 0 ||
	    departed != p->departed || from > UINT32_MAX)
		return false;
	p->from = from;
	return true;
}

static bool is_of_gateway(const struct merge_series *s, const char *gateway)
{
	const char *own = "";

	for (unsigned int i = 0; i < s->label_count; i++)
		if (str_equal(s->labels[i].key, "gateway"))
			own = s->labels[i].value;
	return !gateway || strncmp(own, gateway, SUBJECT_GATEWAY) == 0;
}

static void series_add(struct part *p, struct merge_view *view, const char *gateway,
		       struct body *body)
{
	size_t count = merge_view_count(view);

	for (size_t i = p->from; i < count; i++) {
		struct merge_series s;

		if (!merge_view_get(view, i, &s) || !is_of_gateway(&s, gateway))
			continue;
		if (body_add(body, &s) < 0) {
			next_set(p, i);
			return;
		}
	}
}

/* topic NULL: the sums of the fleet. */
static int series_pack(struct part *p, const char *topic, const char *gateway, const char *agent)
{
	_cleanup_(body_free_p) struct body *body = NULL;
	_cleanup_(merge_view_free_p) struct merge_view *view = NULL;
	const struct merge_options options = {
		.by = topic ? MERGE_BY_INSTANCE : MERGE_BY_FLEET,
		.agent = agent,
		.now_ms = clock_real_ns() / NS_PER_MS,
		.stale_ms = p->c->config->fleet_stale / NS_PER_MS,
	};
	Tidegate__BusTopic listed, *list[] = {&listed};
	Tidegate__BusBody *message;
	const char *why = "";
	int r;

	r = body_new(SNAPSHOT_SERIES, &body);
	if (r >= 0)
		r = merge_view_new(p->c->fleet, &options, &view);
	if (r < 0)
		return r;
	body_reset(body, options.now_ms);
	series_add(p, view, gateway, body);
	message = body_message(body);
	if (topic) {
		tidegate__bus_topic__init(&listed);
		listed.topic = (char *)(uintptr_t)topic;
		listed.sequence = publisher_sequence(p->c->publisher, topic);
		message->n_topics = 1;
		message->topics = list;
		if (!message->n_series && !p->from)
			why = "nothing is known of it";
	}
	return part_pack(p, message, why);
}

static int topics_pack(struct part *p, const char *prefix)
{
	_cleanup_free_ Tidegate__BusTopic *items = calloc(SNAPSHOT_TOPICS, sizeof(*items));
	_cleanup_free_ Tidegate__BusTopic **list = calloc(SNAPSHOT_TOPICS, sizeof(*list));
	Tidegate__BusBody body;
	size_t bytes = 0, n = 0;
	const char *name;
	uint64_t sequence;

	if (!items || !list)
		return -ENOMEM;
	for (size_t i = p->from; (name = publisher_topic(p->c->publisher, i, &sequence)); i++) {
		if (!sequence || !str_starts(name, prefix))
			continue;
		bytes += strlen(name) + 20;
		if (n == SNAPSHOT_TOPICS || bytes > BODY_BYTES_MAX) {
			next_set(p, i);
			break;
		}
		tidegate__bus_topic__init(&items[n]);
		items[n].topic = (char *)(uintptr_t)name;
		items[n].sequence = sequence;
		list[n] = &items[n];
		n++;
	}
	tidegate__bus_body__init(&body);
	body.topics = list;
	body.n_topics = n;
	return part_pack(p, &body, "");
}

static int request_pack(struct part *p, const char *topic)
{
	char gateway[SUBJECT_MAX + 1], agent[SUBJECT_MAX + 1];
	size_t size = strlen(topic);

	if (!size)
		return series_pack(p, NULL, NULL, NULL);
	if (topic[size - 1] == '/')
		return topics_pack(p, topic);
	if (subject_read_metrics(topic, gateway, agent))
		return series_pack(p, topic, gateway, agent);
	return part_refuse(p, "no such topic; ask for metrics/<gateway>/<agent>, for a prefix that "
			      "ends in / or for nothing");
}

int core_snapshot_answer(struct core *c, const uint8_t *payload, size_t size, const uint8_t **ret,
			 size_t *ret_size)
{
	struct part p = {.c = c};
	char request[SUBJECT_MAX + NEXT_SIZE + 2];
	struct fleet_stats stats;
	size_t at;
	int r;

	if (size >= sizeof(request)) {
		r = part_refuse(&p, "the request is too long");
	} else {
		memcpy(request, payload, size);
		request[size] = '\0';
		at = strlen(request) + 1;
		fleet_stats(c->fleet, &stats);
		p.departed = stats.departed;
		if (at < size && request[at] && !next_read(&p, request + at))
			r = part_refuse(&p, "that place is gone; begin again");
		else
			r = request_pack(&p, request);
		if (r < 0)
			r = part_refuse(&p, err_text(r));
	}
	*ret = p.message;
	*ret_size = p.size;
	return r;
}

void core_snapshot_reply(struct core *c, const struct gatelink_handle *handle,
			 const uint8_t *payload, size_t size)
{
	struct part p = {.c = c};
	int r;

	if (c->is_stuck)
		r = part_refuse(&p, "the log cannot be written now");
	else
		r = core_snapshot_answer(c, payload, size, &p.message, &p.size);
	if (r >= 0)
		gatelink_reply(c->gate, handle, p.message, p.size);
}
