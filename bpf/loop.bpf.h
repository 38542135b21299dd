/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Event loop: a turn is the time from a return of epoll_wait to the next call. Runs in the watched
 * thread.
 */
#pragma once

#include "slow.bpf.h"

static __always_inline void loop_enter(struct slot *s, u64 now)
{
	u64 since = s->loop_since_ns;

	if (since) {
		u64 turn = now - since;

		histogram_add(s->cells.stall_ns, turn);
		s->cells.loop_busy_ns += turn;
		s->loop_since_ns = 0;
	}
	if (s->head.key)
		head_keep(s);
	/* A collection that never returned was left by longjmp. */
	s->gc_since_ns = 0;
	s->tls_object = 0;
	if (s->gc_turn_ns) {
		histogram_add(s->cells.gc_ns[GC_TURN], s->gc_turn_ns);
		s->gc_turn_ns = 0;
	}
}

static __always_inline void loop_exit(struct slot *s, u64 now)
{
	s->loop_since_ns = now;
	/* A thread that runs a loop is a worker, whatever it was taken for. */
	if (s->role == ROLE_HELPER)
		s->role = ROLE_WORKER;
}
