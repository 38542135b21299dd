/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What the kernel knows about a socket of the current thread. Where kernel memory may not be read
 * (lockdown) or its layout is not known, nothing is. Runs in the watched thread.
 */
#pragma once

#include "slot.bpf.h"

#define FAMILY_UNIX      1
#define FAMILY_INET      2
#define FAMILY_INET6     10
#define TYPE_STREAM      1
#define SHUTDOWN_RECEIVE 1

/* enum tcp_state */
#define STATE_UNKNOWN     0
#define STATE_ESTABLISHED 1
#define STATE_SYN_SENT    2
#define STATE_CLOSE       7
#define STATE_CLOSE_WAIT  8
#define STATE_LAST_ACK    9
#define STATE_CLOSING     11

/* Address of its struct sock; 0: unknown. fd must be a socket. */
static __always_inline u64 socket_of(u32 fd)
{
	u64 task = bpf_get_current_task(), fdt, file;

	if (!offsets.is_known)
		return 0;
	fdt = kernel_pointer(kernel_pointer(task + offsets.task_files) + offsets.files_fdt);
	file = kernel_pointer(kernel_pointer(fdt + offsets.fdt_fd) + fd * 8ULL);
	return kernel_pointer(kernel_pointer(file + offsets.file_private) + offsets.socket_sk);
}

/* A unix socket's peer that has sent its end is told as CLOSE_WAIT. */
static __always_inline u32 socket_state(u64 sk)
{
	u16 family = 0;
	u8 state = 0;

	if (!sk ||
	    bpf_probe_read_kernel(&family, sizeof(family), (void *)(sk + offsets.sock_family)))
		return STATE_UNKNOWN;
	if (family == FAMILY_UNIX) {
		bpf_probe_read_kernel(&state, sizeof(state), (void *)(sk + offsets.sock_shutdown));
		return state & SHUTDOWN_RECEIVE ? STATE_CLOSE_WAIT : STATE_ESTABLISHED;
	}
	bpf_probe_read_kernel(&state, sizeof(state), (void *)(sk + offsets.sock_state));
	return state;
}

/* Type of a socket; 0: unknown. */
static __always_inline u32 socket_type(u64 sk)
{
	u16 type = 0;

	if (sk)
		bpf_probe_read_kernel(&type, sizeof(type), (void *)(sk + offsets.sock_type));
	return type;
}

/* The error that the next call on it would report; 0: none, or unknown. */
static __always_inline u32 socket_error(u64 sk)
{
	u32 error = 0;

	if (sk)
		bpf_probe_read_kernel(&error, sizeof(error), (void *)(sk + offsets.sock_error));
	return error;
}

static __always_inline bool state_has_end(u32 state)
{
	return state == STATE_CLOSE_WAIT || state == STATE_LAST_ACK || state == STATE_CLOSING;
}
