/* SPDX-License-Identifier: Apache-2.0 */
/* From the core's thread to that of the history. history*.c's. */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum history_item_kind {
	HISTORY_DEFINE, /* data: agent, incarnation, definitions (history_feed.c) */
	HISTORY_FRAME,  /* data: as it was sealed */
	HISTORY_FOLD,   /* nothing after it is taken before the fold has ended */
};

struct history_item {
	struct history_item *next;
	enum history_item_kind kind;
	uint32_t stream, session; /* stream: of this life, from 1 */
	uint64_t sequence, time_ms;
	bool is_key;
	size_t size;
	uint8_t data[];
};

struct history_queue {
	pthread_mutex_t lock;
	pthread_cond_t work, room;
	struct history_item *first, **end;
	size_t bytes, bytes_max;
	bool is_stopping;
	bool is_idle; /* nobody takes for now */
};

int history_queue_init(struct history_queue *q, size_t bytes_max);
void history_queue_fini(struct history_queue *q);
/* Copies data. -ENOBUFS beyond bytes_max (a fold always finds room), -ENOMEM. */
int history_queue_put(struct history_queue *q, const struct history_item *head, const void *data);
/* Takes all up to the first fold, that included; waits for so long where there is nothing.
 * NULL: nothing came. *ret_last: the queue is stopping, and empty. */
struct history_item *history_queue_take(struct history_queue *q, uint64_t wait_ms, bool *ret_last);
/* Waits instead of taking: nobody waits for room then. False: the queue is stopping. */
bool history_queue_idle(struct history_queue *q, uint64_t wait_ms);
/* Whether so many bytes would find room now. */
bool history_queue_has_room(struct history_queue *q, size_t size);
void history_queue_stop(struct history_queue *q);
void history_queue_wait_room(struct history_queue *q);
void history_items_free(struct history_item *first);
