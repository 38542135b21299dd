/* SPDX-License-Identifier: Apache-2.0 */
/* What is wanted stands in a table of topics, in the order in which it became known; a cursor goes
 * round in it. The first of it is the list of topics. */
#include "cmd/tail_snapshot.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"
#include "bus/dialer.h"
#include "bus/publisher.h"
#include "bus/subscriber.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LIST        "metrics/"
#define ANSWER_S    5 /* then the request is as good as lost */
#define BACKOFF_NS  (5 * NS_PER_S)
#define QUEUE_BYTES (64u << 10)
#define NEXT_MAX    64
#define TOPIC_ROOM  (PUBLISHER_TOPIC_MAX + 1)
#define REQUEST_BIT 0x80000000u /* SP: the end of the backtrace */

struct tail_snapshot {
	struct tail_snapshot_spec spec;
	void *data;
	struct dialer *dialer;
	struct topics topics; /* is_changed: wanted */
	size_t wanted, cursor, came;
	uint64_t epoch;
	bool is_in_trouble;
	/* The request under way. */
	bool is_waiting, is_again; /* is_again: wanted once more since it was asked for */
	uint32_t id;
	size_t at; /* in topics */
	char next[NEXT_MAX + 1];
	unsigned int waited_s;
};

static void trouble(struct tail_snapshot *s, const char *why)
{
	if (!s->is_in_trouble)
		s->spec.on_trouble(s->data, why);
	s->is_in_trouble = true;
}

static void request_send(struct tail_snapshot *s)
{
	const char *topic = s->topics.items[s->at].name;
	uint8_t head[4 + TOPIC_ROOM];
	size_t size = strlen(topic);
	uint64_t number;

	s->id = (s->id + 1) | REQUEST_BIT;
	for (unsigned int i = 0; i < 4; i++)
		head[i] = (uint8_t)(s->id >> (24 - 8 * i));
	memcpy(head + 4, topic, size + 1);
	s->waited_s = 0;
	s->is_waiting = dialer_send(s->dialer, head, 4 + size + (*s->next ? 1 : 0), s->next,
				    strlen(s->next), &number) == 0;
}

/* The next that is wanted. */
static void ask(struct tail_snapshot *s)
{
	if (s->is_waiting || !s->wanted || !dialer_is_ready(s->dialer))
		return;
	while (!s->topics.items[s->cursor % s->topics.count].is_changed)
		s->cursor++;
	s->at = s->cursor % s->topics.count;
	s->is_again = false;
	*s->next = '\0';
	request_send(s);
}

static bool want(struct tail_snapshot *s, const char *topic)
{
	size_t before = s->topics.count;
	struct topic *t;

	if (strlen(topic) >= TOPIC_ROOM || topics_add(&s->topics, topic, &t) < 0)
		return false;
	if (!t->is_changed)
		s->wanted++;
	else if (s->is_waiting && t == &s->topics.items[s->at])
		s->is_again = true;
	t->is_changed = true;
	return s->topics.count > before;
}

/* Of the one under way nothing more is needed. */
static void settle(struct tail_snapshot *s)
{
	struct topic *t = &s->topics.items[s->at];

	s->cursor++;
	if (s->is_again)
		return;
	s->wanted--;
	t->is_changed = false;
	s->came += s->at > 0;
	if (!s->wanted) {
		s->spec.on_complete(s->data, s->came);
		s->came = 0;
	}
}

static void part_take(struct tail_snapshot *s, const struct bulletin *b)
{
	struct bulletin part = *b;
	Tidegate__BusBody body = *b->body;

	if (str_equal(s->topics.items[s->at].name, LIST)) {
		for (size_t i = 0; i < b->body->n_topics; i++)
			if (s->spec.is_wanted(s->data, b->body->topics[i]->topic))
				want(s, b->body->topics[i]->topic);
		return;
	}
	/* One that departed has nothing, and that is no trouble. */
	if (b->body->n_topics != 1)
		return;
	part.topic = b->body->topics[0]->topic;
	part.sequence = b->body->topics[0]->sequence;
	body.n_topics = 0;
	part.body = &body;
	s->spec.on_part(s->data, &part);
}

static int on_message(void *data, const uint8_t *message, size_t size)
{
	struct tail_snapshot *s = data;
	struct bulletin b;
	uint32_t id = 0;

	if (size < 4)
		return -EPROTO;
	for (unsigned int i = 0; i < 4; i++)
		id = id << 8 | message[i];
	if (!s->is_waiting || id != s->id)
		return 0;
	if (bulletin_decode(message + 4, size - 4, s->spec.arena, &b) < 0 ||
	    strlen(b.body->next) > NEXT_MAX)
		return -EPROTO;
	s->is_waiting = false;
	dialer_prove(s->dialer);
	/* Asked again each second until bus and snapshots are of one life. */
	if (b.epoch != s->epoch)
		return 0;
	s->is_in_trouble = false;
	part_take(s, &b);
	str_copy(s->next, sizeof(s->next), b.body->next);
	if (*s->next) {
		request_send(s);
		return 0;
	}
	/* Refused: asked again in a second. */
	if (*b.body->why && !b.body->n_topics) {
		trouble(s, b.body->why);
		return 0;
	}
	settle(s);
	ask(s);
	return 0;
}

static void on_ready(void *data)
{
	ask(data);
}

static void on_lost(void *data, const char *why)
{
	struct tail_snapshot *s = data;

	s->is_waiting = false;
	if (s->wanted)
		trouble(s, why);
}

DEFINE_CLEANUP(struct tail_snapshot *, tail_snapshot_close)

int tail_snapshot_open(struct loop *loop, const struct tail_snapshot_spec *spec, void *data,
		       struct tail_snapshot **ret, struct err *e)
{
	_cleanup_(tail_snapshot_close_p) struct tail_snapshot *s = calloc(1, sizeof(*s));
	const struct dialer_spec dialer = {
		.address = spec->address,
		.self = SP_REQ,
		.expect = SP_REP,
		.message_max = SP_MESSAGE_MAX,
		.queue_bytes = QUEUE_BYTES,
		.backoff_ns = BACKOFF_NS,
		.tls = spec->tls,
		.on_ready = on_ready,
		.on_message = on_message,
		.on_lost = on_lost,
	};
	int r;

	if (!s)
		return err_set(e, -ENOMEM, "%s: out of memory", spec->address);
	s->spec = *spec;
	s->data = data;
	topics_init(&s->topics, SUBSCRIBER_TOPICS_MAX, publisher_epoch());
	r = dialer_open(loop, &dialer, s, &s->dialer, e);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(s);
	return 0;
}

struct tail_snapshot *tail_snapshot_close(struct tail_snapshot *s)
{
	if (!s)
		return NULL;
	dialer_close(s->dialer);
	topics_fini(&s->topics);
	free(s);
	return NULL;
}

void tail_snapshot_begin(struct tail_snapshot *s, uint64_t epoch)
{
	topics_fini(&s->topics);
	topics_init(&s->topics, SUBSCRIBER_TOPICS_MAX, publisher_epoch());
	s->wanted = s->cursor = s->came = 0;
	s->is_waiting = false; /* its answer would be of another life */
	s->epoch = epoch;
	want(s, LIST);
	ask(s);
}

void tail_snapshot_want(struct tail_snapshot *s, const char *topic)
{
	want(s, topic);
	ask(s);
}

bool tail_snapshot_met(struct tail_snapshot *s, const char *topic)
{
	if (topics_find(&s->topics, topic))
		return false;
	want(s, topic);
	ask(s);
	return true;
}

void tail_snapshot_second(struct tail_snapshot *s)
{
	if (s->is_waiting && ++s->waited_s > ANSWER_S) {
		s->is_waiting = false;
		dialer_again(s->dialer);
		trouble(s, "no answer in time");
	}
	ask(s);
}
