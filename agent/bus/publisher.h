/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The publishing side of the bus: numbers the messages of each topic and remembers what the next
 * beacon must list. Pure: what it builds goes to fanout_publish() or gatelink_publish().
 */
#pragma once

#include "tidegate.pb-c.h"

#include <stddef.h>
#include <stdint.h>

#define PUBLISHER_TOPIC_MAX   255        /* bytes of a topic, its NUL not counted */
#define PUBLISHER_MESSAGE_MAX (1u << 20) /* the whole message */
#define PUBLISHER_BODY_MAX    (4u << 20) /* a body before compression */

struct publisher;

/* epoch: random, another at each start; publisher_epoch() draws one. */
int publisher_new(uint64_t epoch, struct publisher **ret);
struct publisher *publisher_free(struct publisher *p);
uint64_t publisher_epoch(void);

/* The next message of the topic: topic, NUL, BusMessage. *ret is borrowed until the next call.
 * -EINVAL (topic empty or too long), -EMSGSIZE (split the body), -ENOSPC (too many topics),
 * -ENOMEM: then no sequence was used up. */
int publisher_message(struct publisher *p, const char *topic, const Tidegate__BusBody *body,
		      const uint8_t **ret, size_t *ret_size);

/* An answer to one subscriber: a message of a topic that is not counted, sequence 0. Same errors. */
int publisher_answer(struct publisher *p, const char *topic, const Tidegate__BusBody *body,
		     const uint8_t **ret, size_t *ret_size);

/* A message of the topic that nobody is there to get: numbered, not built, so that who comes back
 * knows what was missed. -EINVAL, -ENOSPC, -ENOMEM. */
int publisher_skip(struct publisher *p, const char *topic);

/* To be sent each second, also when nothing changed: it lists the topics published since the last
 * beacon. What does not fit into one message is in the next. */
int publisher_beacon(struct publisher *p, uint64_t time_ms, const uint8_t **ret, size_t *ret_size);

/* Last sequence of a topic, 0: none yet. For snapshots, which state the sequence they include. */
uint64_t publisher_sequence(const struct publisher *p, const char *topic);
/* Topics 0, 1, 2 … in order of their first message; NULL beyond the last. Borrowed. */
const char *publisher_topic(const struct publisher *p, size_t index, uint64_t *ret_sequence);
/* Forgets all topics, as a publisher that begins anew: subscribers see another epoch. */
void publisher_renew(struct publisher *p, uint64_t epoch);
/* Messages of topics beyond the limit, never sent; in all epochs. */
uint64_t publisher_refused(const struct publisher *p);
