/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests for snapshots in a row, so that they never stand before agents on the core's only thread:
 * one is answered in a turn of the loop, and then as long as it took nobody. What has a record to
 * wait for is answered by the commit that comes anyway. Beyond the row's end, or who waited so long
 * that he has asked again, gets silence, which is counted.
 */
#include "cmd/core.h"

#include "base/clock.h"
#include "bus/subject.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ASKS_MAX    1024u
#define ASK_BYTES   (SUBJECT_MAX + 64) /* a longer one is refused, whatever it says */
#define PATIENCE_NS (5 * NS_PER_S)     /* of who asks, and of the door */

struct ask {
	struct gatelink_handle handle;
	uint64_t asked_ns;
	size_t size; /* as it was asked */
	uint8_t request[ASK_BYTES];
};

struct core_asks {
	struct loop_watch *timer;
	uint64_t free_ns; /* until then the thread is the agents' */
	uint64_t dropped;
	unsigned int first, count;
	struct ask asks[ASKS_MAX]; /* a ring */
};

static void timer_set(struct core_asks *q)
{
	uint64_t now = clock_mono_ns();

	if (q->count)
		loop_set_timer(q->timer, q->free_ns > now ? (q->free_ns - now) / NS_PER_MS : 0, 0);
}

static struct ask *ask_take(struct core_asks *q, uint64_t now)
{
	while (q->count) {
		struct ask *a = &q->asks[q->first];

		q->first = (q->first + 1) % ASKS_MAX;
		q->count--;
		if (now - a->asked_ns <= PATIENCE_NS)
			return a;
		q->dropped++;
	}
	return NULL;
}

void core_asks_serve(struct core *c)
{
	struct core_asks *q = c->asks;
	uint64_t began = clock_mono_ns();
	struct ask *a;

	if (!q)
		return;
	/* Timers know milliseconds. */
	a = began + NS_PER_MS > q->free_ns ? ask_take(q, began) : NULL;
	if (!a) {
		timer_set(q);
		return;
	}
	/* Agents have what is theirs before the work begins. */
	gatelink_flush(c->gate);
	core_snapshot_reply(c, &a->handle, a->request, a->size);
	q->free_ns = clock_mono_ns();
	q->free_ns += q->free_ns - began;
	timer_set(q);
}

static void on_timer(void *data)
{
	struct core *c = data;

	if (c->is_stuck || !commitlog_pending(c->log))
		core_asks_serve(c);
	else if (!c->is_waiting)
		core_commit(c); /* which serves, as the one that is_waiting will */
}

void core_asks_add(struct core *c, const struct gatelink_handle *handle, const uint8_t *payload,
		   size_t size)
{
	struct core_asks *q = c->asks;
	struct ask *a;

	if (q->count == ASKS_MAX) {
		q->dropped++;
		return;
	}
	a = &q->asks[(q->first + q->count++) % ASKS_MAX];
	a->handle = *handle;
	a->asked_ns = clock_mono_ns();
	a->size = size;
	memcpy(a->request, payload, size < ASK_BYTES ? size : ASK_BYTES);
	if (q->count == 1)
		timer_set(q);
}

uint64_t core_asks_dropped(const struct core *c)
{
	return c->asks ? c->asks->dropped : 0;
}

int core_asks_open(struct core *c)
{
	c->asks = calloc(1, sizeof(*c->asks));
	if (!c->asks)
		return -ENOMEM;
	return loop_add_timer(c->loop, UINT32_MAX, 0, on_timer, c, &c->asks->timer);
}

void core_asks_close(struct core *c)
{
	if (!c->asks)
		return;
	loop_remove(c->asks->timer);
	free(c->asks);
	c->asks = NULL;
}
