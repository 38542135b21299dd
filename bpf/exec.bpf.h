/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * A watched process becomes another program: a gateway that executes itself anew stays watched, since it
 * forks its next workers before the agent can look; what others become is none of ours and is left for
 * the agent to fold. What exec closed the agent finds out (agent/probe/reconcile.c). Runs in the thread
 * concerned, which is the only one of its process by then.
 */
#pragma once

#include "life.bpf.h"
#include "notice.bpf.h"

/* Name of the gateway's master, as the kernel cuts it. */
static __always_inline bool exec_is_same(const struct slot *s)
{
	u64 name[2] = {};
	u32 gateway = s->gateway;

	BOUND(gateway, GATEWAYS - 1);
	if (bpf_get_current_comm(name, sizeof(name)) || !name[0])
		return 0;
	return name[0] == control.names[gateway][0] && name[1] == control.names[gateway][1];
}

static __always_inline void life_exec(void)
{
	u64 ids = current_ids();
	struct slot *s = ids ? slot_find((u32)ids) : NULL;

	if (!s)
		return;
	if (s->role != ROLE_MASTER) {
		if ((u32)ids != s->tgid || !exec_is_same(s)) {
			slot_end((u32)ids);
			return;
		}
		/* nginx's next master, or a gateway of one process, whose loop will tell. */
		s->role = ROLE_HELPER;
	}
	s->loop_since_ns = 0;
	s->enter_ns = 0;
	s->args_id = 0;
	s->gc_since_ns = 0;
	s->tls_object = 0;
	s->connect_since_ns = 0;
	listen_notice();
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(exec_tp_btf)
{
	life_exec();
	return 0;
}

SEC("raw_tp/sched_process_exec")
int BPF_PROG(exec_raw_tp)
{
	life_exec();
	return 0;
}
