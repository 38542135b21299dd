/* SPDX-License-Identifier: Apache-2.0 */
#include "listener.h"

#include "base/clock.h"
#include "base/listen.h"
#include "base/str.h"
#include "bus/bulletin.h"
#include "bus/peer.h"
#include "bus/subscriber.h"
#include "tidegate.pb-c.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct latency latency;
static struct subscriber subscriber;
static uint64_t messages, missed;
static uint64_t (*produced)(unsigned int number, uint64_t time_ms);
static struct arena arena;

static void on_series(const struct bulletin *b, uint64_t now)
{
	const Tidegate__BusSeries *s = b->body->series[0];
	unsigned int number;
	uint64_t since;

	for (size_t i = 0; i + 1 < s->n_labels; i += 2) {
		if (!str_equal(s->labels[i], "instance") ||
		    sscanf(s->labels[i + 1], "bench-%u/", &number) != 1)
			continue;
		since = produced(number, b->body->time_ms);
		if (since)
			latency_add(&latency, now - since);
		return;
	}
}

static int on_message(void *data, struct peer *peer, const uint8_t *message, size_t size)
{
	uint64_t now = clock_mono_ns();
	struct subscriber_note note = {0};
	struct bulletin b;

	(void)data;
	(void)peer;
	if (bulletin_decode(message, size, &arena, &b) < 0)
		return -EPROTO;
	messages++;
	subscriber_message(&subscriber, b.topic, b.epoch, b.sequence, &note);
	missed += note.missed;
	if (b.body->n_series)
		on_series(&b, now);
	for (size_t i = 0; i < b.body->n_topics; i++) {
		subscriber_listed(&subscriber, b.body->topics[i]->topic,
				  b.body->topics[i]->sequence, &note);
		missed += note.missed;
	}
	if (str_equal(b.topic, "beacon"))
		subscriber_beacon_end(&subscriber);
	return 0;
}

static void on_closed(void *data, struct peer *peer, int r)
{
	(void)data;
	(void)peer;
	fprintf(stderr, "listener: connection lost: %s\n", err_text(r));
	exit(1);
}

int listener_open(struct loop *loop, const char *address,
		  uint64_t (*produced_at)(unsigned int number, uint64_t time_ms))
{
	const struct peer_spec spec = {
		.self = SP_SUB,
		.expect = SP_PUB,
		.message_max = SP_MESSAGE_MAX,
		.on_message = on_message,
		.on_closed = on_closed,
	};
	struct peer *peer;
	int fd, r = arena_init(&arena, BULLETIN_ARENA_BYTES);

	produced = produced_at;
	subscriber_init(&subscriber, 1);
	if (r == 0)
		r = listen_connect(address, &fd, NULL);
	return r == 0 || r == -EINPROGRESS
		       ? peer_open(loop, fd, &spec, r == -EINPROGRESS, NULL, &peer)
		       : r;
}

void listener_stats(struct listener_stats *ret)
{
	*ret = (struct listener_stats){messages, missed, &latency};
}
