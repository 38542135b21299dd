/* SPDX-License-Identifier: Apache-2.0 */
#include "fleet/history_queue.h"

#include "base/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int history_queue_init(struct history_queue *q, size_t bytes_max)
{
	pthread_condattr_t attr;
	int r;

	*q = (struct history_queue){.bytes_max = bytes_max};
	q->end = &q->first;
	r = pthread_condattr_init(&attr);
	if (r == 0)
		r = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	if (r == 0)
		r = pthread_mutex_init(&q->lock, NULL);
	if (r == 0)
		r = pthread_cond_init(&q->work, &attr);
	if (r == 0)
		r = pthread_cond_init(&q->room, &attr);
	pthread_condattr_destroy(&attr);
	return -r;
}

void history_items_free(struct history_item *first)
{
	while (first) {
		struct history_item *item = first;

		first = item->next;
		free(item);
	}
}

void history_queue_fini(struct history_queue *q)
{
	history_items_free(q->first);
	pthread_mutex_destroy(&q->lock);
	pthread_cond_destroy(&q->work);
	pthread_cond_destroy(&q->room);
}

int history_queue_put(struct history_queue *q, const struct history_item *head, const void *data)
{
	size_t size = sizeof(*head) + head->size;
	struct history_item *item = malloc(size);
	bool is_full;

	if (!item)
		return -ENOMEM;
	*item = *head;
	item->next = NULL;
	if (head->size)
		memcpy(item->data, data, head->size);
	pthread_mutex_lock(&q->lock);
	is_full = q->bytes + size > q->bytes_max && head->kind != HISTORY_FOLD;
	if (!is_full) {
		*q->end = item;
		q->end = &item->next;
		q->bytes += size;
		/* Frames are looked for each tick of the thread's clock: waking it for each would
		 * cost the core more than the copy. */
		if (head->kind == HISTORY_FOLD || q->bytes > q->bytes_max / 4)
			pthread_cond_signal(&q->work);
	}
	pthread_mutex_unlock(&q->lock);
	if (is_full)
		free(item);
	return is_full ? -ENOBUFS : 0;
}

static struct timespec after(uint64_t wait_ms)
{
	uint64_t until = clock_mono_ns() + wait_ms * NS_PER_MS;

	return (struct timespec){(time_t)(until / NS_PER_S), (long)(until % NS_PER_S)};
}

bool history_queue_idle(struct history_queue *q, uint64_t wait_ms)
{
	struct timespec ts = after(wait_ms);
	bool goes_on;

	pthread_mutex_lock(&q->lock);
	q->is_idle = true;
	pthread_cond_broadcast(&q->room);
	if (!q->is_stopping)
		pthread_cond_timedwait(&q->work, &q->lock, &ts);
	goes_on = !q->is_stopping;
	pthread_mutex_unlock(&q->lock);
	return goes_on;
}

bool history_queue_has_room(struct history_queue *q, size_t size)
{
	bool has_room;

	pthread_mutex_lock(&q->lock);
	has_room = q->bytes + size <= q->bytes_max;
	pthread_mutex_unlock(&q->lock);
	return has_room;
}

struct history_item *history_queue_take(struct history_queue *q, uint64_t wait_ms, bool *ret_last)
{
	struct timespec ts = after(wait_ms);
	struct history_item *first, *item;
	size_t taken = 0;

	pthread_mutex_lock(&q->lock);
	q->is_idle = false;
	while (!q->is_stopping && (!q->first || q->bytes <= q->bytes_max / 4)) {
		if (q->first && q->first->kind == HISTORY_FOLD)
			break;
		if (pthread_cond_timedwait(&q->work, &q->lock, &ts) == ETIMEDOUT)
			break;
		if (q->first) /* somebody had reason to wake us */
			break;
	}
	first = q->first;
	for (item = first; item; item = item->next) {
		taken += sizeof(*item) + item->size;
		if (item->kind == HISTORY_FOLD || !item->next)
			break;
	}
	if (item) {
		q->first = item->next;
		item->next = NULL;
		if (!q->first)
			q->end = &q->first;
	}
	q->bytes -= taken;
	*ret_last = q->is_stopping && !first;
	pthread_cond_broadcast(&q->room);
	pthread_mutex_unlock(&q->lock);
	return first;
}

void history_queue_stop(struct history_queue *q)
{
	pthread_mutex_lock(&q->lock);
	q->is_stopping = true;
	pthread_cond_signal(&q->work);
	pthread_mutex_unlock(&q->lock);
}

void history_queue_wait_room(struct history_queue *q)
{
	pthread_mutex_lock(&q->lock);
	while (q->bytes > q->bytes_max / 2 && !q->is_stopping && !q->is_idle)
		pthread_cond_wait(&q->room, &q->lock);
	pthread_mutex_unlock(&q->lock);
}
