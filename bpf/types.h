/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What BPF programs and agent/probe share. Any change alters the layout hash (build id of the
 * linked object), so that an agent never reads maps of another layout.
 *
 * A slot belongs to one thread of a gateway, and only that thread writes to it (BPF runs in its
 * context), so cells need no atomics. The agent finds a thread's slot by hashing its thread id:
 * tid_slots[tid & (TID_SLOTS - 1)], linear probing over TID_PROBES places.
 */
#pragma once

#ifdef __bpf__
#include "kernel.h"
#else
#include <stdint.h>
typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int64_t s64;
#endif

#include "syscalls.h"

#define TYPES_HIST_CELLS 323 /* == HIST_CELLS, asserted in agent/probe */

#define TID_SLOTS 65536u
#define TID_PROBES 4u
#define GATEWAYS 64u

enum http_method {
	HTTP_GET,
	HTTP_HEAD,
	HTTP_POST,
	HTTP_PUT,
	HTTP_DELETE,
	HTTP_CONNECT,
	HTTP_OPTIONS,
	HTTP_TRACE,
	HTTP_PATCH,
	HTTP_OTHER,
	HTTP_METHODS
};

#define HTTP_CODES 500 /* 100 … 599 */
#define HTTP_CLASSES 5 /* 1xx … 5xx */
#define ERRNOS 134     /* 1 … 133; 0 holds whatever is beyond */

enum gc_phase { GC_STEP, GC_TURN, GC_FULL, GC_STW, GC_PHASES };

enum slot_state { SLOT_FREE, SLOT_LIVE, SLOT_EXITED };
enum slot_role { ROLE_MASTER, ROLE_WORKER, ROLE_HELPER };

/* The in-flight integral (DESIGN.md): at start S -= t, n += 1; at end S += t, n -= 1;
 * integral to T = S + n * T, mod 2^64. Read under seq: odd while it changes. */
struct integral {
	u64 seq;
	u64 s;
	u64 n;
	u64 max; /* largest n since the agent reset it (a lost reset is harmless) */
};

/* Counters and histograms of one thread; a fold adds them into the gateway's retired bank. All
 * 64-bit, so that adding two structs is adding two arrays of words. */
struct cells {
	u64 syscalls[SYSCALL_COUNT];
	u64 syscall_ns[SYSCALL_COUNT][TYPES_HIST_CELLS];
	u64 syscall_errors[SYSCALL_COUNT][ERRNOS];
	u64 stall_ns[TYPES_HIST_CELLS];
	u64 loop_busy_ns;
	u64 requests[HTTP_METHODS][HTTP_CODES];
	u64 request_ns[HTTP_CLASSES][TYPES_HIST_CELLS];
	u64 first_byte_ns[HTTP_CLASSES][TYPES_HIST_CELLS];
	u64 requests_started, requests_completed, requests_health;
	u64 requests_lost, requests_aborted;
	u64 accepts, closes;
	u64 gc_ns[GC_PHASES][TYPES_HIST_CELLS];
	u64 gc_cycles;
};

struct slot {
	u32 tid, tgid;	  /* as the agent's pid namespace sees them */
	u32 gateway;	  /* index */
	u32 generation;	  /* raised each time the slot is freed */
	u32 state, role;
	u64 start_ns;	  /* CLOCK_MONOTONIC when it was taken */
	/* the system call under way */
	u64 enter_ns;
	u32 enter_nr, sample_tick;
	u64 args[3];
	/* event loop: since when the thread is outside epoll_wait; 0 while inside or unknown */
	u64 loop_since_ns;
	u64 gc_since_ns;   /* GC probe under way */
	u64 gc_turn_ns;	   /* GC time in this turn of the loop */
	u64 gc_depth;
	u64 last_request_ns; /* start of the last request that was no health check */
	u64 last_accept_ns;
	struct integral in_flight;
	struct cells cells;
};
