/* SPDX-License-Identifier: Apache-2.0 */
/* Event loop over libuv. Owns the uv loop and each watch until libuv has closed it. */
#include "base/loop.h"

#include "base/err.h"

#include <errno.h>
#include <stdlib.h>
#include <uv.h>

#define LOOP_MAGIC  0x4c4f4f50u
#define WATCH_MAGIC 0x57415443u

struct loop {
	uint32_t magic;
	uv_loop_t uv;
};

struct loop_watch {
	uint32_t magic;
	union {
		uv_handle_t handle;
		uv_poll_t poll;
		uv_timer_t timer;
		uv_signal_t signal;
		uv_prepare_t turn;
	} uv;
	union {
		loop_fd_fn fd;
		loop_timer_fn timer;
		loop_signal_fn signal;
	} fn;
	void *data;
	int fd;
	unsigned int events;
};

int loop_open(struct loop **ret)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	int r;

	if (!loop)
		return -ENOMEM;
	loop->magic = LOOP_MAGIC;
	r = uv_loop_init(&loop->uv);
	if (r < 0) {
		free(loop);
		return r;
	}
	*ret = loop;
	return 0;
}

static void watch_closed(uv_handle_t *handle)
{
	struct loop_watch *watch = handle->data;

	watch->magic = 0;
	free(watch);
}

static void close_walk(uv_handle_t *handle, void *arg)
{
	(void)arg;
	if (!uv_is_closing(handle))
		uv_close(handle, watch_closed);
}

struct loop *loop_close(struct loop *loop)
{
	if (!loop)
		return NULL;
	CHECK(loop->magic == LOOP_MAGIC);
	uv_walk(&loop->uv, close_walk, NULL);
	uv_run(&loop->uv, UV_RUN_DEFAULT);
	CHECK(uv_loop_close(&loop->uv) == 0);
	free(loop);
	return NULL;
}

static struct loop_watch *watch_new(void *data)
{
	struct loop_watch *watch = calloc(1, sizeof(*watch));

	if (!watch)
		return NULL;
	watch->magic = WATCH_MAGIC;
	watch->data = data;
	watch->fd = -1;
	return watch;
}

static void on_poll(uv_poll_t *poll, int status, int events);

static int poll_start(struct loop_watch *watch)
{
	int events = 0;

	if (watch->events & LOOP_READ)
		events |= UV_READABLE;
	if (watch->events & LOOP_WRITE)
		events |= UV_WRITABLE;
	if (!events)
		return uv_poll_stop(&watch->uv.poll);
	return uv_poll_start(&watch->uv.poll, events, on_poll);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct loop_watch *watch = poll->data;
	unsigned int got = 0;

	CHECK(watch->magic == WATCH_MAGIC);
	if (status < 0) {
		/* libuv has let go of a descriptor with an error. There may be bytes to read before it. */
		poll_start(watch);
		got = watch->events;
	} else {
		if (events & (UV_READABLE | UV_DISCONNECT))
			got |= LOOP_READ;
		if (events & UV_WRITABLE)
			got |= LOOP_WRITE;
	}
	if (got)
		watch->fn.fd(watch->data, watch->fd, got);
}

int loop_add_fd(struct loop *loop, int fd, unsigned int events, loop_fd_fn fn, void *data,
		struct loop_watch **ret)
{
	struct loop_watch *watch = watch_new(data);
	int r;

	if (!watch)
		return -ENOMEM;
	r = uv_poll_init(&loop->uv, &watch->uv.poll, fd);
	if (r < 0) {
		free(watch);
		return r;
	}
	watch->uv.handle.data = watch;
	watch->fn.fd = fn;
	watch->fd = fd;
	watch->events = events;
	r = poll_start(watch);
	if (r < 0) {
		loop_remove(watch);
		return r;
	}
	*ret = watch;
	return 0;
}

int loop_set_events(struct loop_watch *watch, unsigned int events)
{
	CHECK(watch->magic == WATCH_MAGIC);
	if (watch->events == events)
		return 0;
	watch->events = events;
	return poll_start(watch);
}

static void on_timer(uv_timer_t *timer)
{
	struct loop_watch *watch = timer->data;

	CHECK(watch->magic == WATCH_MAGIC);
	watch->fn.timer(watch->data);
}

int loop_set_timer(struct loop_watch *watch, uint64_t first_ms, uint64_t repeat_ms)
{
	CHECK(watch->magic == WATCH_MAGIC);
	uv_update_time(watch->uv.timer.loop);
	return uv_timer_start(&watch->uv.timer, on_timer, first_ms, repeat_ms);
}

int loop_add_timer(struct loop *loop, uint64_t first_ms, uint64_t repeat_ms, loop_timer_fn fn,
		   void *data, struct loop_watch **ret)
{
	struct loop_watch *watch = watch_new(data);
	int r;

	if (!watch)
		return -ENOMEM;
	r = uv_timer_init(&loop->uv, &watch->uv.timer);
	if (r < 0) {
		free(watch);
		return r;
	}
	watch->uv.handle.data = watch;
	watch->fn.timer = fn;
	r = loop_set_timer(watch, first_ms, repeat_ms);
	if (r < 0) {
		loop_remove(watch);
		return r;
	}
	*ret = watch;
	return 0;
}

static void on_signal(uv_signal_t *handle, int signal)
{
	struct loop_watch *watch = handle->data;

	CHECK(watch->magic == WATCH_MAGIC);
	watch->fn.signal(watch->data, signal);
}

int loop_add_signal(struct loop *loop, int signal, loop_signal_fn fn, void *data,
		    struct loop_watch **ret)
{
	struct loop_watch *watch = watch_new(data);
	int r;

	if (!watch)
		return -ENOMEM;
	r = uv_signal_init(&loop->uv, &watch->uv.signal);
	if (r < 0) {
		free(watch);
		return r;
	}
	watch->uv.handle.data = watch;
	watch->fn.signal = fn;
	r = uv_signal_start(&watch->uv.signal, on_signal, signal);
	if (r < 0) {
		loop_remove(watch);
		return r;
	}
	*ret = watch;
	return 0;
}

static void on_turn(uv_prepare_t *handle)
{
	struct loop_watch *watch = handle->data;

	CHECK(watch->magic == WATCH_MAGIC);
	watch->fn.timer(watch->data);
}

int loop_add_turn(struct loop *loop, loop_timer_fn fn, void *data, struct loop_watch **ret)
{
	struct loop_watch *watch = watch_new(data);
	int r;

	if (!watch)
		return -ENOMEM;
	r = uv_prepare_init(&loop->uv, &watch->uv.turn);
	if (r < 0) {
		free(watch);
		return r;
	}
	watch->uv.handle.data = watch;
	watch->fn.timer = fn;
	r = uv_prepare_start(&watch->uv.turn, on_turn);
	if (r < 0) {
		loop_remove(watch);
		return r;
	}
	*ret = watch;
	return 0;
}

struct loop_watch *loop_remove(struct loop_watch *watch)
{
	if (!watch)
		return NULL;
	CHECK(watch->magic == WATCH_MAGIC);
	watch->magic = 0;
	if (!uv_is_closing(&watch->uv.handle))
		uv_close(&watch->uv.handle, watch_closed);
	return NULL;
}

int loop_run(struct loop *loop)
{
	CHECK(loop->magic == LOOP_MAGIC);
	return uv_run(&loop->uv, UV_RUN_DEFAULT);
}

void loop_stop(struct loop *loop)
{
	CHECK(loop->magic == LOOP_MAGIC);
	uv_stop(&loop->uv);
}
