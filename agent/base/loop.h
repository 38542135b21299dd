/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Event loop of one process (libuv underneath): descriptors, timers, signals. One thread. A watch
 * may be removed from any callback, its own included.
 */
#pragma once

#include <stdint.h>

struct loop;
struct loop_watch;

enum { LOOP_READ = 1, LOOP_WRITE = 2 };

typedef void (*loop_fd_fn)(void *data, int fd, unsigned int events);
typedef void (*loop_timer_fn)(void *data);
typedef void (*loop_signal_fn)(void *data, int signal);

/* Open only after the fork: libuv's state does not survive one. */
int loop_open(struct loop **ret);
struct loop *loop_close(struct loop *loop);

/* The descriptor stays the caller's; remove the watch before closing it. On a descriptor error
 * the callback gets the events it asked for, so that its read or write finds the error. */
int loop_add_fd(struct loop *loop, int fd, unsigned int events, loop_fd_fn fn, void *data,
		struct loop_watch **ret);
int loop_set_events(struct loop_watch *watch, unsigned int events);

/* repeat_ms 0: once. The watch stays valid (and may be re-armed) until it is removed. */
int loop_add_timer(struct loop *loop, uint64_t first_ms, uint64_t repeat_ms, loop_timer_fn fn,
		   void *data, struct loop_watch **ret);
int loop_set_timer(struct loop_watch *watch, uint64_t first_ms, uint64_t repeat_ms);

int loop_add_signal(struct loop *loop, int signal, loop_signal_fn fn, void *data,
		    struct loop_watch **ret);

/* Once in each turn, before the loop waits: sends together what the turn's callbacks queued. */
int loop_add_turn(struct loop *loop, loop_timer_fn fn, void *data, struct loop_watch **ret);

/* NULL is fine; returns NULL. */
struct loop_watch *loop_remove(struct loop_watch *watch);

/* Runs until loop_stop(). */
int loop_run(struct loop *loop);
void loop_stop(struct loop *loop);
