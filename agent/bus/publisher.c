/* SPDX-License-Identifier: Apache-2.0 */
/* Builds bus messages: sequences, beacons, compression. Pure. In the core and the courier. */
#include "bus/publisher.h"

#include "bus/topics.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <zstd.h>

#define TOPICS_MAX    131072
#define BEACON_BYTES  (512u << 10) /* of topics listed in one beacon, before compression */
#define BEACON_TOPICS 16384
#define ZSTD_LEVEL    3
#define COMPRESS_FROM 128 /* smaller bodies never gain */

struct publisher {
	uint64_t epoch;
	struct topics topics;
	uint64_t refused; /* in epochs before */
	size_t next;      /* topic at which the next beacon begins */
	ZSTD_CCtx *zstd;
	uint8_t *body, *packed, *message;
	size_t body_cap, packed_cap, message_cap;
};

uint64_t publisher_epoch(void)
{
	uint64_t epoch = 0;

	while (!epoch)
		if (getrandom(&epoch, sizeof(epoch), 0) != sizeof(epoch))
			epoch = 0;
	return epoch;
}

int publisher_new(uint64_t epoch, struct publisher **ret)
{
	struct publisher *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->zstd = ZSTD_createCCtx();
	if (!p->zstd) {
		free(p);
		return -ENOMEM;
	}
	p->epoch = epoch;
	topics_init(&p->topics, TOPICS_MAX, epoch);
	*ret = p;
	return 0;
}

struct publisher *publisher_free(struct publisher *p)
{
	if (!p)
		return NULL;
	topics_fini(&p->topics);
	ZSTD_freeCCtx(p->zstd);
	free(p->body);
	free(p->packed);
	free(p->message);
	free(p);
	return NULL;
}

static int reserve(uint8_t **buf, size_t *cap, size_t need)
{
	uint8_t *grown;

	if (need <= *cap)
		return 0;
	need = (need + 4095) & ~(size_t)4095;
	grown = realloc(*buf, need);
	if (!grown)
		return -ENOMEM;
	*buf = grown;
	*cap = need;
	return 0;
}

/* Fills m->body with the packed body, as it is or as a zstd frame, whichever is smaller. */
static int body_pack(struct publisher *p, const Tidegate__BusBody *body, Tidegate__BusMessage *m)
{
	size_t size = tidegate__bus_body__get_packed_size(body), packed;
	int r;

	if (size > PUBLISHER_BODY_MAX)
		return -EMSGSIZE;
	r = reserve(&p->body, &p->body_cap, size + 1);
	if (r < 0)
		return r;
	tidegate__bus_body__pack(body, p->body);
	m->body.data = p->body;
	m->body.len = size;
	if (size < COMPRESS_FROM)
		return 0;
	r = reserve(&p->packed, &p->packed_cap, ZSTD_compressBound(size));
	if (r < 0)
		return r;
	packed = ZSTD_compressCCtx(p->zstd, p->packed, p->packed_cap, p->body, size, ZSTD_LEVEL);
	if (ZSTD_isError(packed) || packed >= size)
		return 0;
	m->body.data = p->packed;
	m->body.len = packed;
	m->zstd = true;
	return 0;
}

/* Topic, NUL, message. t NULL: of no topic that is counted. */
static int message_pack(struct publisher *p, const char *topic, const Tidegate__BusBody *body,
			struct topic *t, const uint8_t **ret, size_t *ret_size)
{
	Tidegate__BusMessage m = TIDEGATE__BUS_MESSAGE__INIT;
	size_t topic_size = strlen(topic) + 1, size;
	int r = body_pack(p, body, &m);

	if (r < 0)
		return r;
	m.epoch = p->epoch;
	m.sequence = t ? t->sequence + 1 : 0;
	size = topic_size + tidegate__bus_message__get_packed_size(&m);
	if (size > PUBLISHER_MESSAGE_MAX)
		return -EMSGSIZE;
	r = reserve(&p->message, &p->message_cap, size);
	if (r < 0)
		return r;
	memcpy(p->message, topic, topic_size);
	tidegate__bus_message__pack(&m, p->message + topic_size);
	*ret = p->message;
	*ret_size = size;
	return 0;
}

int publisher_message(struct publisher *p, const char *topic, const Tidegate__BusBody *body,
		      const uint8_t **ret, size_t *ret_size)
{
	struct topic *t;
	int r;

	if (!*topic || strlen(topic) > PUBLISHER_TOPIC_MAX)
		return -EINVAL;
	r = topics_add(&p->topics, topic, &t);
	if (r == 0)
		r = message_pack(p, topic, body, t, ret, ret_size);
	if (r < 0)
		return r;
	t->sequence++;
	t->is_changed = true;
	return 0;
}

int publisher_skip(struct publisher *p, const char *topic)
{
	struct topic *t;
	int r;

	if (!*topic || strlen(topic) > PUBLISHER_TOPIC_MAX)
		return -EINVAL;
	r = topics_add(&p->topics, topic, &t);
	if (r < 0)
		return r;
	t->sequence++;
	t->is_changed = true;
	return 0;
}

int publisher_answer(struct publisher *p, const char *topic, const Tidegate__BusBody *body,
		     const uint8_t **ret, size_t *ret_size)
{
	if (!*topic || strlen(topic) > PUBLISHER_TOPIC_MAX)
		return -EINVAL;
	return message_pack(p, topic, body, NULL, ret, ret_size);
}

int publisher_beacon(struct publisher *p, uint64_t time_ms, const uint8_t **ret, size_t *ret_size)
{
	Tidegate__BusBody body;
	Tidegate__BusTopic *entries, **list;
	size_t *taken;
	size_t n = 0, bytes = 0, count = p->topics.count, i;
	int r;

	entries = calloc(BEACON_TOPICS, sizeof(*entries) + sizeof(void *) + sizeof(*taken));
	if (!entries)
		return -ENOMEM;
	list = (Tidegate__BusTopic **)(entries + BEACON_TOPICS);
	taken = (size_t *)(list + BEACON_TOPICS);
	/* Starts where the last one ended, so that with many topics each gets its turn. */
	for (i = 0; i < count && n < BEACON_TOPICS && bytes < BEACON_BYTES; i++) {
		size_t at = (p->next + i) % count;
		const struct topic *t = &p->topics.items[at];

		if (!t->is_changed || strcmp(t->name, "beacon") == 0)
			continue;
		tidegate__bus_topic__init(&entries[n]);
		entries[n].topic = t->name;
		entries[n].sequence = t->sequence;
		list[n] = &entries[n];
		bytes += strlen(t->name) + 16;
		taken[n++] = at;
	}
	tidegate__bus_body__init(&body);
	body.time_ms = time_ms;
	body.n_topics = n;
	body.topics = list;
	r = publisher_message(p, "beacon", &body, ret, ret_size);
	if (r == 0) {
		for (size_t k = 0; k < n; k++)
			p->topics.items[taken[k]].is_changed = false;
		p->next = count ? (p->next + i) % count : 0;
	}
	free(entries);
	return r;
}

uint64_t publisher_sequence(const struct publisher *p, const char *topic)
{
	const struct topic *t = topics_find(&p->topics, topic);

	return t ? t->sequence : 0;
}

const char *publisher_topic(const struct publisher *p, size_t index, uint64_t *ret_sequence)
{
	if (index >= p->topics.count)
		return NULL;
	*ret_sequence = p->topics.items[index].sequence;
	return p->topics.items[index].name;
}

uint64_t publisher_refused(const struct publisher *p)
{
	return p->refused + p->topics.refused;
}

void publisher_renew(struct publisher *p, uint64_t epoch)
{
	p->refused += p->topics.refused;
	topics_fini(&p->topics);
	topics_init(&p->topics, TOPICS_MAX, epoch);
	p->epoch = epoch;
	p->next = 0;
}
