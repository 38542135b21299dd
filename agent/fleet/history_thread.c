/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that owns the database's writing side: frames into minutes in memory, minutes that are
 * due into the database, once a second. */
#include "fleet/history_thread.h"

#include "base/clock.h"
#include "base/str.h"
#include "fleet/history_feed.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TURN_MS   200
#define OPEN_NS   (65 * NS_PER_S) /* a minute is written so long after its first frame */
#define SPREAD_NS (20 * NS_PER_S) /* or up to so much later: all agents' minutes end at once */
#define WRITE_NS  NS_PER_S        /* between two transactions */
#define RETRY_NS  (5 * NS_PER_S)
#define AGE_NS    (100 * NS_PER_MS) /* of a transaction */

/* -------- the thread: minutes in memory -------- */

static int grow(void **array, uint32_t *capacity, uint32_t index, size_t size)
{
	uint32_t want = *capacity ? *capacity : 256;
	char *grown;

	if (index < *capacity)
		return 0;
	while (want <= index)
		want *= 2;
	grown = reallocarray(*array, want, size);
	if (!grown)
		return -ENOMEM;
	memset(grown + *capacity * size, 0, (want - *capacity) * size);
	*array = grown;
	*capacity = want;
	return 0;
}

static struct stream *stream_of(struct history *h, uint32_t number)
{
	void *array = h->streams;
	int r = grow(&array, &h->stream_capacity, number, sizeof(*h->streams));

	h->streams = array;
	return r < 0 ? NULL : &h->streams[number];
}

static int stream_name(struct history *h, uint32_t number, uint32_t id)
{
	struct stream *s;
	void *array;
	int r;

	pthread_mutex_lock(&h->open_lock);
	s = stream_of(h, number);
	array = h->numbers;
	r = grow(&array, &h->number_capacity, id, sizeof(*h->numbers));
	h->numbers = array;
	if (s && r >= 0) {
		s->id = id;
		s->is_refused = false;
		h->numbers[id] = number;
	}
	pthread_mutex_unlock(&h->open_lock);
	return s ? r : -ENOMEM;
}

static int stream_refuse(struct history *h, uint32_t number)
{
	struct stream *s;

	pthread_mutex_lock(&h->open_lock);
	s = stream_of(h, number);
	if (s)
		s->is_refused = true;
	pthread_mutex_unlock(&h->open_lock);
	return s ? 0 : -ENOMEM;
}

static uint64_t spread_ns(uint32_t number)
{
	return (uint64_t)(number * 0x9e3779b1u) * SPREAD_NS >> 32;
}

static struct open_minute *minute_of(struct history *h, struct stream *s, uint32_t number,
				     uint64_t start_ms)
{
	struct open_minute *m;

	for (m = s->minutes; m; m = m->next)
		if (sheaf_start_ms(m->sheaf) == start_ms)
			return m;
	m = calloc(1, sizeof(*m));
	if (!m || sheaf_new(start_ms, &m->sheaf) < 0) {
		free(m);
		return NULL;
	}
	m->due_ns = clock_mono_ns() + OPEN_NS + spread_ns(number);
	m->next = s->minutes;
	s->minutes = m;
	h->open_bytes += sheaf_bytes(m->sheaf);
	return m;
}

static void take_frame(struct history *h, const struct history_item *item)
{
	uint64_t start_ms = item->time_ms - item->time_ms % MINUTE_MS;
	struct open_minute *m;
	struct stream *s;
	int r = -ENOMEM;

	if (!history_is_in_time(item->time_ms, clock_real_ns() / NS_PER_MS, h->newest_ms,
				&h->options)) {
		h->refused++;
		return;
	}
	pthread_mutex_lock(&h->open_lock);
	s = stream_of(h, item->stream);
	m = s ? minute_of(h, s, item->stream, start_ms) : NULL;
	if (m) {
		h->open_bytes -= sheaf_bytes(m->sheaf);
		r = sheaf_add(m->sheaf, item->sequence, item->time_ms, item->is_key, item->data,
			      item->size);
		h->open_bytes += sheaf_bytes(m->sheaf);
	}
	pthread_mutex_unlock(&h->open_lock);
	h->refused += r == -ENOSPC;
	h->lost += r == -ENOMEM;
}

/* -------- the thread: writing -------- */

static void failed(struct history *h, const struct err *e)
{
	if (h->is_writing)
		history_store_rollback(h->store);
	h->is_writing = false;
	h->next_ns = clock_mono_ns() + RETRY_NS;
	h->failures++;
	for (uint32_t i = 0; i < h->stream_capacity; i++)
		for (struct open_minute *m = h->streams[i].minutes; m; m = m->next)
			m->is_written = false;
	pthread_mutex_lock(&h->queue.lock);
	h->counts.is_failing = true;
	str_copy(h->counts.why, sizeof(h->counts.why), e->text);
	pthread_mutex_unlock(&h->queue.lock);
}

static int begin(struct history *h, struct err *e)
{
	int r = h->is_writing ? 0 : history_store_begin(h->store, e);

	h->is_writing = h->is_writing || r >= 0;
	return r;
}

static int define(struct history *h, const struct history_item *item, struct err *e)
{
	struct history_definition d;
	struct history_feed feed;
	uint32_t id;
	int r;

	/* Nothing that trying again would mend. */
	if (history_feed_read(item->data, item->size, &feed) < 0)
		return 0;
	r = history_store_stream(h->store, feed.agent, feed.incarnation, item->time_ms, &id, e);
	if (r == -EOVERFLOW)
		return stream_refuse(h, item->stream);
	if (r >= 0)
		r = stream_name(h, item->stream, id);
	for (uint64_t i = 0; i < feed.count && r >= 0; i++) {
		if (history_feed_next(&feed, &d) < 0)
			break;
		r = history_store_define(h->store, id, &d, e);
	}
	return r;
}

static int write_definitions(struct history *h, struct err *e)
{
	int r = 0;

	for (struct history_item *i = h->definitions; i && r >= 0; i = i->next)
		r = define(h, i, e);
	return r;
}

static void drop_written(struct history *h)
{
	pthread_mutex_lock(&h->open_lock);
	for (uint32_t i = 0; i < h->stream_capacity; i++) {
		struct open_minute **at = &h->streams[i].minutes, *m;

		while ((m = *at)) {
			if (!m->is_written) {
				at = &m->next;
				continue;
			}
			*at = m->next;
			if (sheaf_start_ms(m->sheaf) > h->newest_ms)
				h->newest_ms = sheaf_start_ms(m->sheaf);
			if (h->streams[i].is_refused)
				h->refused += sheaf_frames(m->sheaf);
			h->open_bytes -= sheaf_bytes(m->sheaf);
			sheaf_free(m->sheaf);
			free(m);
		}
	}
	pthread_mutex_unlock(&h->open_lock);
}

/* Minutes that are due by then; the lists are this thread's to change. */
static int write_minutes(struct history *h, uint64_t due_ns, struct err *e)
{
	int r = 0;

	for (uint32_t i = 0; i < h->stream_capacity && r >= 0; i++) {
		struct stream *s = &h->streams[i];

		for (struct open_minute *m = s->minutes; m && r >= 0; m = m->next) {
			if (m->due_ns > due_ns || (!s->id && !s->is_refused) ||
			    !sheaf_frames(m->sheaf))
				continue;
			r = s->is_refused ? 0 : begin(h, e);
			if (r >= 0 && !s->is_refused)
				r = history_store_put(h->store, s->id, m->sheaf, e);
			m->is_written = r >= 0;
		}
	}
	return r;
}

static int commit(struct history *h, struct err *e)
{
	int r = h->is_writing ? history_store_commit(h->store, e) : 0;

	if (r < 0)
		return r;
	h->is_writing = false;
	history_items_free(h->definitions);
	h->definitions = NULL;
	h->definitions_end = &h->definitions;
	h->definition_bytes = 0;
	drop_written(h);
	return 0;
}

static void publish_counts(struct history *h, bool is_failing)
{
	pthread_mutex_lock(&h->queue.lock);
	h->counts.store = *history_store_stats(h->store);
	h->counts.frames_refused = h->refused + h->counts.store.frames_refused;
	h->counts.frames_lost = h->lost;
	h->counts.failures = h->failures;
	h->counts.open_bytes = h->open_bytes;
	h->counts.newest_ms = h->newest_ms;
	h->counts.is_failing = is_failing;
	pthread_mutex_unlock(&h->queue.lock);
}

/* One transaction: definitions, what is due, and a little ageing. */
static int write_due(struct history *h, uint64_t due_ns)
{
	struct err e = {{0}};
	int r = h->definitions || h->is_ageing ? begin(h, &e) : 0;

	if (r >= 0)
		r = write_definitions(h, &e);
	if (r >= 0)
		r = write_minutes(h, due_ns, &e);
	if (r >= 0 && h->is_writing)
		r = history_store_age_within(h->store, clock_real_ns() / NS_PER_MS, AGE_NS, &e);
	h->is_ageing = r > 0;
	if (r >= 0)
		r = commit(h, &e);
	if (r < 0)
		failed(h, &e);
	publish_counts(h, r < 0);
	return r;
}

/* The disk takes nothing: the oldest minutes go, so that memory is bounded. */
static void drop_oldest(struct history *h)
{
	while (h->open_bytes > HISTORY_OPEN_BYTES) {
		struct open_minute **oldest = NULL, *m;

		for (uint32_t i = 0; i < h->stream_capacity; i++)
			for (struct open_minute **at = &h->streams[i].minutes; *at;
			     at = &(*at)->next)
				if (!oldest || (*at)->due_ns < (*oldest)->due_ns)
					oldest = at;
		if (!oldest)
			break;
		m = *oldest;
		pthread_mutex_lock(&h->open_lock);
		*oldest = m->next;
		h->open_bytes -= sheaf_bytes(m->sheaf);
		pthread_mutex_unlock(&h->open_lock);
		h->lost += sheaf_frames(m->sheaf);
		sheaf_free(m->sheaf);
		free(m);
	}
}

/* Everything that was taken is in the database: nothing more is, until the core has cut its log. */
static void fold_reached(struct history *h)
{
	uint64_t one = 1;

	h->is_fold_due = false;
	pthread_mutex_lock(&h->queue.lock);
	if (h->fold == FOLD_BEGUN) { /* else it was given up */
		h->fold = FOLD_REACHED;
		pthread_cond_broadcast(&h->folded);
		if (write(h->fd, &one, sizeof(one)) < 0) {
			/* An eventfd takes a 1 unless its counter is full: then it is readable. */
		}
	}
	while (h->fold == FOLD_REACHED && !h->queue.is_stopping)
		pthread_cond_wait(&h->folded, &h->queue.lock);
	pthread_mutex_unlock(&h->queue.lock);
}

/* The log may be cut only when all of it is written. While that fails, frames are taken on (they
 * are in the log, too), and it is tried again with them. */
static void fold_try(struct history *h)
{
	h->is_fold_due = true;
	if (write_due(h, UINT64_MAX) >= 0)
		fold_reached(h);
}

static void take_items(struct history *h, struct history_item *items)
{
	while (items) {
		struct history_item *item = items;

		items = item->next;
		item->next = NULL;
		if (item->kind == HISTORY_DEFINE) {
			*h->definitions_end = item;
			h->definitions_end = &item->next;
			h->definition_bytes += sizeof(*item) + item->size;
			continue;
		}
		if (item->kind == HISTORY_FOLD)
			fold_try(h);
		else
			take_frame(h, item);
		free(item);
	}
}

void *history_run(void *data)
{
	struct history *h = data;
	bool is_last = false;

	while (!is_last) {
		uint64_t now;

		if (h->definition_bytes <= HISTORY_DEFINE_BYTES ||
		    !history_queue_idle(&h->queue, TURN_MS))
			take_items(h, history_queue_take(&h->queue, TURN_MS, &is_last));
		now = clock_mono_ns();
		if (now >= h->next_ns) {
			bool is_full = h->open_bytes > HISTORY_OPEN_BYTES / 4 * 3;

			h->next_ns = now + WRITE_NS;
			if (h->is_fold_due)
				fold_try(h);
			else
				write_due(h, is_full ? UINT64_MAX : now);
		}
		drop_oldest(h);
	}
	write_due(h, UINT64_MAX);
	return NULL;
}
