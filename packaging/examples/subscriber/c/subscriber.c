/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A subscriber in C with nanomsg that always knows the totals: prints each value of the topics that
 * begin with TOPIC, from messages and from snapshots, and what it missed. Of two values of a series
 * the one of the higher sequence holds.
 *
 *   protoc-c --c_out=. --proto_path=../../../../proto ../../../../proto/tidegate.proto
 *   cc -o subscriber -I. subscriber.c tidegate.pb-c.c -lnanomsg -lprotobuf-c -lzstd
 *   ./subscriber tcp://127.0.0.1:9467 tcp://127.0.0.1:9468 metrics/
 *
 * Lines: `series TOPIC SEQUENCE METRIC LABEL=VALUE... TOTAL` (a histogram's total: how many values),
 * `gap TOPIC N`, `restart`, `complete`, `event TOPIC JSON`.
 */
#include "tidegate.pb-c.h"

#include <nanomsg/nn.h>
#include <nanomsg/pubsub.h>
#include <nanomsg/reqrep.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#define TOPICS_MAX 4096
#define BODY_MAX   (4u << 20)
#define ANSWER_MS  5000

/* The last sequence of each topic: all that it takes to know what was missed. */
static struct {
	char name[256];
	uint64_t sequence;
	int is_wanted; /* its snapshot */
} topics[TOPICS_MAX];

static unsigned int topic_count;
static uint64_t epoch;
static int snapshots; /* socket */
static int is_list_wanted, is_complete;
static const char *wanted; /* beginning of topics */

static int is_metrics(const char *topic)
{
	return strncmp(topic, "metrics/", 8) == 0 && strncmp(topic, wanted, strlen(wanted)) == 0;
}

/* -1: one too many. A new one wants its snapshot: what was before? */
static int topic_find(const char *name)
{
	unsigned int i = 0;

	while (i < topic_count && strcmp(topics[i].name, name) != 0)
		i++;
	if (i < topic_count)
		return (int)i;
	if (topic_count == TOPICS_MAX || strlen(name) >= sizeof(topics[0].name))
		return -1;
	strcpy(topics[i].name, name);
	topics[i].sequence = 0;
	topics[i].is_wanted = is_metrics(name);
	topic_count++;
	return (int)i;
}

/* is_listed: a beacon says that there were messages up to this one, which should have come before
 * it. */
static void follow(const char *name, uint64_t sequence, int is_listed)
{
	int i = topic_find(name);

	if (i < 0)
		return;
	if (topics[i].sequence && sequence > topics[i].sequence + !is_listed) {
		printf("gap %s %llu\n", name,
		       (unsigned long long)(sequence - topics[i].sequence - !is_listed));
		topics[i].is_wanted = is_metrics(name);
	}
	if (sequence > topics[i].sequence)
		topics[i].sequence = sequence;
}

static void show(const char *topic, uint64_t sequence, const Tidegate__BusBody *body)
{
	for (size_t i = 0; i < body->n_series; i++) {
		const Tidegate__BusSeries *s = body->series[i];
		unsigned long long total = s->counter;

		for (size_t n = 0; n < s->n_counts; n++)
			total += s->counts[n];
		printf("series %s %llu %s", topic, (unsigned long long)sequence, s->metric);
		for (size_t n = 0; n + 1 < s->n_labels; n += 2)
			printf(" %s=%s", s->labels[n], s->labels[n + 1]);
		if (s->kind == 1)
			printf(" %.15g\n", s->gauge);
		else
			printf(" %llu\n", total);
	}
	for (size_t i = 0; i < body->n_events; i++)
		printf("event %s %s\n", topic, body->events[i]->json);
}

/* ---- topic, NUL, BusMessage ---- */

static Tidegate__BusBody *body_of(const Tidegate__BusMessage *m)
{
	unsigned long long size = ZSTD_getFrameContentSize(m->body.data, m->body.len);
	Tidegate__BusBody *body = NULL;
	uint8_t *plain;

	if (!m->zstd)
		return tidegate__bus_body__unpack(NULL, m->body.len, m->body.data);
	if (size > BODY_MAX) /* or one of the two error values, which are larger still */
		return NULL;
	plain = malloc(size + 1);
	if (plain && ZSTD_decompress(plain, size, m->body.data, m->body.len) == size)
		body = tidegate__bus_body__unpack(NULL, size, plain);
	free(plain);
	return body;
}

/* Both are the caller's to free; 0: it is no bus message. */
static int decode(const char *data, size_t size, Tidegate__BusMessage **ret_message,
		  Tidegate__BusBody **ret_body)
{
	const char *end = memchr(data, '\0', size);

	if (!end)
		return 0;
	*ret_message = tidegate__bus_message__unpack(NULL, size - (size_t)(end - data) - 1,
						     (const uint8_t *)end + 1);
	if (!*ret_message)
		return 0;
	*ret_body = body_of(*ret_message);
	if (!*ret_body)
		tidegate__bus_message__free_unpacked(*ret_message, NULL);
	return *ret_body != NULL;
}

/* ---- snapshots: a topic, or a prefix for the list of topics; more parts with NUL and `next` ---- */

/* -1: no answer, or none of this life of the publisher; ask again later. */
static int part_ask(const char *topic, char next[64])
{
	size_t size = strlen(topic);
	Tidegate__BusMessage *m;
	Tidegate__BusBody *body;
	char request[400], *data;
	int n, r = -1;

	memcpy(request, topic, size + 1);
	if (*next)
		size += 1 + (size_t)snprintf(request + size + 1, 64, "%s", next);
	*next = '\0';
	if (nn_send(snapshots, request, size, 0) < 0)
		return -1;
	n = nn_recv(snapshots, &data, NN_MSG, 0);
	if (n < 0)
		return -1;
	if (decode(data, (size_t)n, &m, &body)) {
		if (m->epoch == epoch && (body->n_topics || !*body->why)) {
			r = 0;
			snprintf(next, 64, "%s", body->next);
			for (size_t i = 0; i < body->n_topics; i++) {
				int t = topic_find(body->topics[i]->topic);

				if (t >= 0 && !topics[t].sequence)
					topics[t].sequence = body->topics[i]->sequence;
			}
			if (body->n_topics == 1)
				show(body->topics[0]->topic, body->topics[0]->sequence, body);
		}
		tidegate__bus_body__free_unpacked(body, NULL);
		tidegate__bus_message__free_unpacked(m, NULL);
	}
	nn_freemsg(data);
	return r;
}

static int snapshot_ask(const char *topic)
{
	char next[64] = "";

	do {
		if (part_ask(topic, next) < 0)
			return -1;
	} while (*next);
	return 0;
}

/* Meanwhile messages wait in the socket. */
static void snapshots_ask(void)
{
	if (is_list_wanted && snapshot_ask("metrics/") == 0)
		is_list_wanted = 0;
	for (unsigned int i = 0; i < topic_count && !is_list_wanted; i++) {
		if (!topics[i].is_wanted)
			continue;
		if (snapshot_ask(topics[i].name) < 0)
			return;
		topics[i].is_wanted = 0;
	}
	if (!is_list_wanted && !is_complete) {
		is_complete = 1;
		puts("complete");
	}
}

static void on_message(const char *data, size_t size)
{
	Tidegate__BusMessage *m;
	Tidegate__BusBody *body;

	if (!decode(data, size, &m, &body))
		return;
	if (m->epoch != epoch) { /* the publisher began anew and counts from 1 */
		if (epoch)
			puts("restart");
		epoch = m->epoch;
		topic_count = 0;
		is_list_wanted = 1;
		is_complete = 0;
	}
	if (strcmp(data, "beacon") == 0) {
		for (size_t i = 0; i < body->n_topics; i++)
			if (strncmp(body->topics[i]->topic, wanted, strlen(wanted)) == 0)
				follow(body->topics[i]->topic, body->topics[i]->sequence, 1);
		snapshots_ask(); /* once a second is often enough */
	} else {
		follow(data, m->sequence, 0);
		show(data, m->sequence, body);
	}
	tidegate__bus_body__free_unpacked(body, NULL);
	tidegate__bus_message__free_unpacked(m, NULL);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	int bus = nn_socket(AF_SP, NN_SUB), answer_ms = ANSWER_MS, message_max = 1 << 20;

	snapshots = nn_socket(AF_SP, NN_REQ);
	if (argc != 4 || bus < 0 || snapshots < 0) {
		fprintf(stderr, "usage: subscriber BUS SNAPSHOTS TOPIC\n");
		return 2;
	}
	wanted = argv[3];
	/* nanomsg hands out only what was subscribed to: the beacon is needed to notice gaps. */
	nn_setsockopt(bus, NN_SUB, NN_SUB_SUBSCRIBE, wanted, strlen(wanted));
	nn_setsockopt(bus, NN_SUB, NN_SUB_SUBSCRIBE, "beacon", strlen("beacon"));
	nn_setsockopt(bus, NN_SOL_SOCKET, NN_RCVMAXSIZE, &message_max, sizeof(message_max));
	nn_setsockopt(snapshots, NN_SOL_SOCKET, NN_RCVTIMEO, &answer_ms, sizeof(answer_ms));
	nn_setsockopt(snapshots, NN_SOL_SOCKET, NN_SNDTIMEO, &answer_ms, sizeof(answer_ms));
	if (nn_connect(bus, argv[1]) < 0 || nn_connect(snapshots, argv[2]) < 0) {
		fprintf(stderr, "subscriber: %s\n", nn_strerror(nn_errno()));
		return 1;
	}
	for (;;) {
		char *data;
		int n = nn_recv(bus, &data, NN_MSG, 0);

		if (n < 0)
			return 1;
		on_message(data, (size_t)n);
		nn_freemsg(data);
	}
}
