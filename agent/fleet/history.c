/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two halves: what the core's thread calls, and the thread that owns the database's writing side.
 * `open_lock` guards the minutes in memory, which only that thread changes and readers copy. A
 * minute leaves memory after the commit that holds it: whoever looks here first and then into the
 * database misses nothing.
 */
#include "fleet/history.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"
#include "fleet/history_feed.h"
#include "fleet/history_queue.h"
#include "fleet/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define TURN_MS     200
#define OPEN_NS     (65 * NS_PER_S) /* a minute is written so long after its first frame */
#define SPREAD_NS   (20 * NS_PER_S) /* or up to so much later: all agents' minutes end at once */
#define WRITE_NS    NS_PER_S        /* between two transactions */
#define RETRY_NS    (5 * NS_PER_S)
#define AGE_ROWS    512u
#define DESCRIBE_MS (30 * 60 * 1000ull) /* silent for so long: the store may have forgotten it */

struct open_minute {
	struct open_minute *next;
	struct sheaf *sheaf;
	uint64_t due_ns;
	bool is_written; /* in the transaction that is open */
};

struct stream {
	uint32_t id; /* in the database; 0: not yet */
	struct open_minute *minutes;
};

enum fold { FOLD_NONE, FOLD_BEGUN, FOLD_REACHED };

struct history {
	struct history_queue queue;
	pthread_t thread;
	struct history_options options;
	int fd;
	/* the core's */
	uint32_t stream_next;
	/* under the queue's lock */
	enum fold fold;
	pthread_cond_t folded;
	struct history_counts counts;
	/* the thread's */
	struct history_store *store;
	struct history_item *definitions, **definitions_end; /* not committed yet */
	uint64_t next_ns, newest_ms, refused, lost, failures;
	bool is_writing;
	/* under open_lock */
	pthread_mutex_t open_lock;
	struct stream *streams; /* by number of this life */
	uint32_t stream_capacity;
	uint32_t *numbers; /* by id in the database; 0: none */
	uint32_t number_capacity;
	size_t open_bytes;
};

bool history_is_in_time(uint64_t time_ms, uint64_t now_ms, uint64_t newest_ms,
			const struct history_options *options)
{
	uint64_t last = now_ms, first = now_ms;

	/* A clock that is ahead refuses nothing that is newer than what there is; one that is
	 * behind goes on with what there is. */
	if (newest_ms && newest_ms + MINUTE_MS > last)
		last = newest_ms + MINUTE_MS;
	if (newest_ms && newest_ms + MINUTE_MS + options->ticks_ms < first)
		first = newest_ms + MINUTE_MS + options->ticks_ms;
	first = first > options->keep_ms ? first - options->keep_ms : 0;
	return time_ms >= first && time_ms <= last + HISTORY_AHEAD_MS;
}

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
		h->numbers[id] = number;
	}
	pthread_mutex_unlock(&h->open_lock);
	return s ? r : -ENOMEM;
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
		r = sheaf_add(m->sheaf, item->sequence, item->time_ms, item->data, item->size);
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
	int r = history_feed_read(item->data, item->size, &feed);

	if (r >= 0)
		r = history_store_stream(h->store, feed.agent, feed.incarnation, item->time_ms, &id,
					 e);
	if (r >= 0)
		r = stream_name(h, item->stream, id);
	for (uint64_t i = 0; i < feed.count && r >= 0; i++) {
		r = history_feed_next(&feed, &d);
		if (r >= 0)
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
			if (m->due_ns > due_ns || !s->id || !sheaf_frames(m->sheaf))
				continue;
			r = begin(h, e);
			if (r >= 0)
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
	drop_written(h);
	return 0;
}

static void publish_counts(struct history *h, bool is_failing)
{
	pthread_mutex_lock(&h->queue.lock);
	h->counts.store = *history_store_stats(h->store);
	h->counts.frames_refused = h->refused;
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
	int r = h->definitions ? begin(h, &e) : 0;

	if (r >= 0)
		r = write_definitions(h, &e);
	if (r >= 0)
		r = write_minutes(h, due_ns, &e);
	if (r >= 0 && h->is_writing)
		r = history_store_age(h->store, clock_real_ns() / NS_PER_MS, AGE_ROWS, &e);
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

static void fold_reach(struct history *h)
{
	uint64_t one = 1;

	write_due(h, UINT64_MAX);
	pthread_mutex_lock(&h->queue.lock);
	h->fold = FOLD_REACHED;
	pthread_cond_broadcast(&h->folded);
	if (write(h->fd, &one, sizeof(one)) < 0) {
		/* An eventfd takes a 1 unless its counter is full: then it is readable. */
	}
	while (h->fold == FOLD_REACHED && !h->queue.is_stopping)
		pthread_cond_wait(&h->folded, &h->queue.lock);
	pthread_mutex_unlock(&h->queue.lock);
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
			continue;
		}
		if (item->kind == HISTORY_FOLD)
			fold_reach(h);
		else
			take_frame(h, item);
		free(item);
	}
}

static void *run(void *data)
{
	struct history *h = data;
	bool is_last = false;

	while (!is_last) {
		uint64_t now;

		take_items(h, history_queue_take(&h->queue, TURN_MS, &is_last));
		now = clock_mono_ns();
		if (now >= h->next_ns) {
			bool is_full = h->open_bytes > HISTORY_OPEN_BYTES / 4 * 3;

			h->next_ns = now + WRITE_NS;
			write_due(h, is_full ? UINT64_MAX : now);
		}
		drop_oldest(h);
	}
	write_due(h, UINT64_MAX);
	return NULL;
}

/* -------- life -------- */

static void release(struct history *h)
{
	for (uint32_t i = 0; i < h->stream_capacity; i++) {
		while (h->streams[i].minutes) {
			struct open_minute *m = h->streams[i].minutes;

			h->streams[i].minutes = m->next;
			sheaf_free(m->sheaf);
			free(m);
		}
	}
	free(h->streams);
	free(h->numbers);
	history_items_free(h->definitions);
	history_store_close(h->store);
	history_queue_fini(&h->queue);
	pthread_cond_destroy(&h->folded);
	pthread_mutex_destroy(&h->open_lock);
	if (h->fd >= 0)
		close(h->fd);
	free(h);
}

int history_open(const char *path, const struct history_options *options, struct history **ret,
		 struct err *e)
{
	struct history *h = calloc(1, sizeof(*h));
	int r;

	if (!h)
		return err_set(e, -ENOMEM, "history: no memory");
	h->options = *options;
	h->definitions_end = &h->definitions;
	r = history_queue_init(&h->queue, HISTORY_QUEUE_BYTES);
	pthread_mutex_init(&h->open_lock, NULL);
	pthread_cond_init(&h->folded, NULL);
	histogram_thresholds();
	h->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (r >= 0 && h->fd < 0)
		r = -errno;
	if (r >= 0)
		r = history_store_open(path, options, &h->store, e);
	if (r >= 0) {
		h->newest_ms = history_store_newest_ms(h->store);
		h->counts.newest_ms = h->newest_ms;
		r = -pthread_create(&h->thread, NULL, run, h);
	}
	if (r < 0) {
		release(h);
		return err_set(e, r, "history: %s", err_text(r));
	}
	*ret = h;
	return 0;
}

struct history *history_close(struct history *h)
{
	if (!h)
		return NULL;
	history_queue_stop(&h->queue);
	pthread_mutex_lock(&h->queue.lock);
	pthread_cond_broadcast(&h->folded);
	pthread_mutex_unlock(&h->queue.lock);
	pthread_join(h->thread, NULL);
	release(h);
	return NULL;
}

/* -------- the core's thread -------- */

static void dropped(struct history *h)
{
	pthread_mutex_lock(&h->queue.lock);
	h->counts.frames_dropped++;
	pthread_mutex_unlock(&h->queue.lock);
}

/* What its ids mean goes before the frame; all of it the first time, and after a silence. */
static int describe(struct history *h, struct fleet *f, struct fleet_incarnation *inc,
		    const struct frame *frame, uint64_t time_ms)
{
	bool is_new = !inc->history || time_ms > inc->history_ms + DESCRIBE_MS;
	struct pack p = {0};
	int r;

	if (!is_new && !(frame && frame->definition_count))
		return 0;
	if (!inc->history)
		inc->history = ++h->stream_next;
	r = history_feed_pack(f, inc, is_new ? NULL : frame, &p);
	if (r >= 0)
		r = history_queue_put(&h->queue,
				      &(struct history_item){.kind = HISTORY_DEFINE,
							     .stream = inc->history,
							     .time_ms = time_ms,
							     .size = p.size},
				      p.data);
	pack_fini(&p);
	if (r < 0)
		inc->history_ms = 0; /* all of it the next time */
	return r;
}

static void take(struct history *h, struct fleet *f, struct fleet_incarnation *inc,
		 const struct frame *frame, const struct history_item *head, const uint8_t *data)
{
	struct history_item item = *head;
	int r = describe(h, f, inc, frame, item.time_ms);

	item.stream = inc->history;
	if (r >= 0) {
		r = history_queue_put(&h->queue, &item, data);
		if (item.time_ms > inc->history_ms)
			inc->history_ms = item.time_ms;
	}
	if (r < 0)
		dropped(h);
}

void history_take(struct history *h, struct fleet *f, uint32_t session, const struct frame *frame,
		  const uint8_t *sealed, size_t size)
{
	struct fleet_incarnation *inc = fleet_find_session(f, session);

	if (!inc)
		return;
	take(h, f, inc, frame,
	     &(struct history_item){.kind = HISTORY_FRAME,
				    .session = session,
				    .sequence = frame->sequence,
				    .time_ms = frame->time_ms,
				    .size = size},
	     sealed);
}

void history_wait(struct history *h)
{
	history_queue_wait_room(&h->queue);
}

int history_fd(const struct history *h)
{
	return h->fd;
}

void history_fold_begin(struct history *h)
{
	pthread_mutex_lock(&h->queue.lock);
	h->fold = FOLD_BEGUN;
	pthread_mutex_unlock(&h->queue.lock);
	if (history_queue_put(&h->queue, &(struct history_item){.kind = HISTORY_FOLD}, NULL) < 0) {
		pthread_mutex_lock(&h->queue.lock);
		h->fold = FOLD_NONE;
		pthread_mutex_unlock(&h->queue.lock);
	}
}

bool history_fold_is_reached(struct history *h)
{
	uint64_t drain;
	bool is_reached;

	if (read(h->fd, &drain, sizeof(drain)) < 0) {
		/* Nothing is there: the state says so. */
	}
	pthread_mutex_lock(&h->queue.lock);
	is_reached = h->fold == FOLD_REACHED;
	pthread_mutex_unlock(&h->queue.lock);
	return is_reached;
}

void history_fold_wait(struct history *h)
{
	pthread_mutex_lock(&h->queue.lock);
	while (h->fold == FOLD_BEGUN)
		pthread_cond_wait(&h->folded, &h->queue.lock);
	pthread_mutex_unlock(&h->queue.lock);
}

void history_fold_end(struct history *h)
{
	pthread_mutex_lock(&h->queue.lock);
	h->fold = FOLD_NONE;
	pthread_cond_broadcast(&h->folded);
	pthread_mutex_unlock(&h->queue.lock);
}

int history_save(struct history *h, history_record_fn fn, void *data)
{
	struct pack p = {0};
	int r = 0;

	pthread_mutex_lock(&h->queue.lock);
	for (const struct history_item *i = h->queue.first; i && r >= 0; i = i->next) {
		if (i->kind != HISTORY_FRAME)
			continue;
		pack_reset(&p);
		pack_u64(&p, i->session);
		pack_u64(&p, i->sequence);
		pack_u64(&p, i->time_ms);
		pack_bytes(&p, i->data, i->size);
		r = p.has_failed ? -ENOMEM : fn(data, HISTORY_RECORD, p.data, p.size);
	}
	pthread_mutex_unlock(&h->queue.lock);
	pack_fini(&p);
	return r;
}

int history_restore(struct history *h, struct fleet *f, const uint8_t *payload, size_t size)
{
	struct history_item item = {.kind = HISTORY_FRAME};
	struct fleet_incarnation *inc;
	struct unpack u;

	unpack_init(&u, payload, size);
	item.session = (uint32_t)unpack_u64_max(&u, UINT32_MAX);
	item.sequence = unpack_u64(&u);
	item.time_ms = unpack_u64(&u);
	item.size = (size_t)(u.end - u.at);
	if (u.is_bad || item.size > FRAME_SEALED_MAX + FRAME_SEAL_BYTES)
		return -EBADMSG;
	inc = fleet_find_session(f, item.session);
	if (!inc)
		return -ENOENT;
	take(h, f, inc, NULL, &item, u.at);
	return 0;
}

void history_counts(struct history *h, struct history_counts *ret)
{
	pthread_mutex_lock(&h->queue.lock);
	*ret = h->counts;
	ret->queue_bytes = h->queue.bytes;
	pthread_mutex_unlock(&h->queue.lock);
}

/* -------- readers -------- */

int history_peek(struct history *h, uint32_t stream, uint64_t from_ms, uint64_t to_ms,
		 struct sheaf ***ret, size_t *ret_count)
{
	struct open_minute *first = NULL;
	struct sheaf **list = NULL;
	size_t n = 0;
	int r = 0;

	*ret = NULL;
	*ret_count = 0;
	pthread_mutex_lock(&h->open_lock);
	if (stream < h->number_capacity && h->numbers[stream])
		first = h->streams[h->numbers[stream]].minutes;
	for (struct open_minute *m = first; m; m = m->next)
		n++;
	if (n)
		list = calloc(n, sizeof(*list));
	r = n && !list ? -ENOMEM : 0;
	n = 0;
	for (struct open_minute *m = first; m && r >= 0; m = m->next) {
		uint64_t start_ms = sheaf_start_ms(m->sheaf);

		if (start_ms > to_ms || start_ms + MINUTE_MS <= from_ms)
			continue;
		r = sheaf_copy(m->sheaf, &list[n]);
		n += r >= 0;
	}
	pthread_mutex_unlock(&h->open_lock);
	if (r < 0) {
		while (n)
			sheaf_free(list[--n]);
		free(list);
		return r;
	}
	*ret = list;
	*ret_count = n;
	return 0;
}
