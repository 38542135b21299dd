/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * A process that nobody watches is about to listen: perhaps a gateway, whose first requests would
 * not be counted before the next scan. The keeper is woken up to look. Runs in that process.
 */
#pragma once

#include "slot.bpf.h"

#define NOTICE_INTERVAL_NS 50000000ULL /* who listens all the time wakes nobody more often */

/* Apart from records: this one wakes its reader, for those nobody is woken. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} notices SEC(".maps");

GLOBAL int listen_notice(void)
{
	u64 now = bpf_ktime_get_ns();
	u64 *notice;

	if (control.is_stale || now - control.notice_ns < NOTICE_INTERVAL_NS)
		return 0;
	control.notice_ns = now;
	notice = bpf_ringbuf_reserve(&notices, sizeof(*notice), 0);
	if (!notice)
		return 0; /* unread ones wake the keeper as well */
	*notice = now;
	bpf_ringbuf_submit(notice, BPF_RB_FORCE_WAKEUP);
	return 0;
}
