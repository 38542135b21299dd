/* SPDX-License-Identifier: Apache-2.0 */
/* What the core's thread and readers call. */
#include "fleet/history.h"

#include "base/clock.h"
#include "base/str.h"
#include "fleet/history_feed.h"
#include "fleet/history_thread.h"
#include "fleet/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define DESCRIBE_NS      (5 * NS_PER_S) /* after definitions that found no room */
#define REST_MS          (2 * 60 * 1000ull)
#define DEFINITION_BYTES 16u                 /* packed, at least */
#define DESCRIBE_MS      (30 * 60 * 1000ull) /* silent for so long: the store may have forgotten it */

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
	pthread_condattr_t attr;
	int r;

	if (!h)
		return err_set(e, -ENOMEM, "history: no memory");
	h->options = *options;
	/* As long as a minute may wait in memory, and its rest behind it. */
	if (!h->options.rest_ms)
		h->options.rest_ms = REST_MS;
	h->definitions_end = &h->definitions;
	r = history_queue_init(&h->queue, HISTORY_QUEUE_BYTES);
	pthread_mutex_init(&h->open_lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&h->folded, &attr);
	pthread_condattr_destroy(&attr);
	/* Tables that are made at their first use: before there are two threads. */
	histogram_index(1);
	histogram_thresholds();
	h->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (r >= 0 && h->fd < 0)
		r = -errno;
	if (r >= 0)
		r = history_store_open(path, &h->options, &h->store, e);
	if (r >= 0) {
		h->newest_ms = history_store_newest_ms(h->store);
		h->counts.newest_ms = h->newest_ms;
		r = -pthread_create(&h->thread, NULL, history_run, h);
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
	/* Packing all of them for each frame would cost the core more than the history is worth. */
	if (inc->history_retry_ns && clock_mono_ns() < inc->history_retry_ns)
		return -EAGAIN;
	if (is_new && !history_queue_has_room(&h->queue, inc->id_count * DEFINITION_BYTES)) {
		r = -ENOBUFS;
	} else {
		r = history_feed_pack(f, inc, is_new ? NULL : frame, &p);
		if (r >= 0)
			r = history_queue_put(&h->queue,
					      &(struct history_item){.kind = HISTORY_DEFINE,
								     .stream = inc->history,
								     .time_ms = time_ms,
								     .size = p.size},
					      p.data);
	}
	inc->history_retry_ns = 0;
	if (r < 0) {
		inc->history_ms = 0; /* all of it the next time */
		inc->history_retry_ns = p.size + sizeof(struct history_item) > h->queue.bytes_max
						? UINT64_MAX
						: clock_mono_ns() + DESCRIBE_NS;
	}
	pack_fini(&p);
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
				    .is_key = frame->is_key,
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

bool history_fold_begin(struct history *h)
{
	pthread_mutex_lock(&h->queue.lock);
	h->fold = FOLD_BEGUN;
	pthread_mutex_unlock(&h->queue.lock);
	if (history_queue_put(&h->queue, &(struct history_item){.kind = HISTORY_FOLD}, NULL) >= 0)
		return true;
	pthread_mutex_lock(&h->queue.lock);
	h->fold = FOLD_NONE;
	pthread_mutex_unlock(&h->queue.lock);
	return false;
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

bool history_fold_wait(struct history *h, uint64_t within_ms)
{
	uint64_t until = clock_mono_ns() + within_ms * NS_PER_MS;
	struct timespec ts = {(time_t)(until / NS_PER_S), (long)(until % NS_PER_S)};
	bool is_reached;

	pthread_mutex_lock(&h->queue.lock);
	while (h->fold == FOLD_BEGUN &&
	       pthread_cond_timedwait(&h->folded, &h->queue.lock, &ts) != ETIMEDOUT)
		;
	is_reached = h->fold == FOLD_REACHED;
	pthread_mutex_unlock(&h->queue.lock);
	return is_reached;
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
		pack_u64(&p, i->is_key);
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
	item.is_key = unpack_u64_max(&u, 1);
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
