/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What BPF programs and agent/probe share. Any change alters the layout hash (of the object's
 * bytes), so that an agent never reads maps of another layout.
 *
 * A slot belongs to one thread of a gateway, and only that thread writes to it (BPF runs in its
 * context; before the thread runs for the first time, its parent does), so cells need no atomics.
 * A thread's slot is found in bucket tid & (TID_BUCKETS - 1): one 64-bit word with four lanes of
 * slot number + 1, changed by compare-and-swap from both sides.
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

#include "upstream_types.h"

/* De Bruijn's sequence: any six neighbouring bits occur once. */
#define LOG2_FACTOR 0x0218a392cd3d5dbfULL

#define TID_BUCKETS 16384u
#define TID_WAYS    4
#define GATEWAYS    64u
#define SLOTS_MOST  4096u /* also the size of the free ring */

/* A call that takes as long blocks: its time is summed exactly, not only by histogram cell. */
#define LONG_CALL_NS 10000000ULL

#define HEARTBEAT_LIMIT_NS 30000000000ULL

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

#define HTTP_CODES   500 /* 100 … 599 */
#define HTTP_CLASSES 5   /* 1xx … 5xx */

/* Of the pairs of method and code, and of call and error, few ever occur. A pair gets a row of the
 * cells when it first occurs (rows.bpf.h), the same in all slots and banks, and keeps it. */
#define REQUEST_PAIRS (HTTP_METHODS * HTTP_CODES)
#define ERROR_PAIRS   (SYSCALL_COUNT * ERRNOS)
#define REQUEST_ROWS  240u
#define ERROR_ROWS    128u
#define ROW_NONE      255u /* there was none left */

enum gc_phase { GC_STEP, GC_TURN, GC_FULL, GC_STW, GC_PHASES };

enum slot_state { SLOT_FREE, SLOT_LIVE, SLOT_EXITED };
enum slot_role { ROLE_MASTER, ROLE_WORKER, ROLE_HELPER };

/* The in-flight integral (DESIGN.md): at start S -= t, n += 1; at end S += t, n -= 1;
 * integral to T = S + n * T, mod 2^64. Read under seq: odd while it changes. A request may start
 * on one thread and end on another: only the sums over all threads mean something. */
struct integral {
	u64 seq;
	u64 s;
	u64 n;
	u64 max; /* largest n since the agent reset it (a lost reset is harmless) */
};

/* Counters and histograms of one thread; a fold adds them into the gateway's retired bank. All
 * 64-bit, so that adding two structs is adding two arrays of words. */
struct cells {
	/* What every request touches comes first: few pages, few cache lines. */
	u64 syscalls[SYSCALL_COUNT]; /* exact, at return */
	u64 loop_busy_ns;
	u64 requests_started, requests_completed, requests_health;
	u64 requests_lost, requests_aborted;
	u64 accepts, closes; /* of downstream connections */
	u64 gc_cycles;
	u64 syscall_long_ns[SYSCALL_COUNT]; /* exact sum of those timed that took LONG_CALL_NS */
	/* of steps; those left at a single-stepped instruction; exact sums of gc_ns but GC_TURN */
	u64 gc_steps, gc_stepped, gc_sum_ns[GC_PHASES];
	u64 stall_ns[TYPES_HIST_CELLS];
	u64 request_ns[HTTP_CLASSES][TYPES_HIST_CELLS];
	u64 first_byte_ns[HTTP_CLASSES][TYPES_HIST_CELLS];
	u64 requests[REQUEST_ROWS];
	u64 syscall_ns[SYSCALL_COUNT][TYPES_HIST_CELLS]; /* timed ones, by their weights */
	u64 syscall_errors[ERROR_ROWS];
	u64 gc_ns[GC_PHASES][TYPES_HIST_CELLS];
};

#define CELLS_WORDS (sizeof(struct cells) / sizeof(u64))

/* Bytes of a read or write that are being looked at. A line that is not yet whole is carried over
 * in front of the next bytes, hence the room. */
#define WINDOW_BYTES 1024
#define CARRY_BYTES  64

struct scan {
	u64 user;    /* next byte in the process's memory */
	u64 segment; /* bytes there */
	u64 iov;     /* next struct iovec */
	u32 iov_left;
	u32 side; /* 0: request (read), 1: response (written) */
	u64 left; /* bytes of the call that were not yet fetched */
	u64 key;  /* of the connection */
	u64 now_ns;
	u64 number;   /* being read */
	u64 iovs[16]; /* the next eight of the vector, read at once */
	u32 iov_at, iov_have;
	u32 pos, len; /* in the window */
	u32 line;     /* where the current line begins */
	/* found in a whole head (head.bpf.h); 0: not there */
	u32 second_line, length_at, agent_at, is_chunked, trace_at, is_h2c;
	u32 ahead;      /* bytes from the window's beginning that are there, of this call or not */
	u64 ahead_user; /* where they are in the process's memory */
	u8 window[WINDOW_BYTES + CARRY_BYTES + 16];
};

/* A death in the middle of counting the requests of a connection that ended unseen is repaired by doing
 * again what is written here: assignments, not additions (agent/probe/retire.c). */
struct intent {
	u64 key; /* connection that is to be deleted; 0: none */
	u64 lost, aborted, closes, s, n;
	u64 unseen; /* of a ledger: control.lost[LOST_UNSEEN_CLOSE] */
};

/* What a request's head said (slow.bpf.h); text as it was sent, not ended. */
#define PATH_BYTES  128
#define TRACE_BYTES 64
#define NOTES       2048u /* heads of pending requests that are kept */

struct head {
	u64 key;      /* of the connection; 0: none */
	u32 request;  /* its number there */
	u32 is_busy;  /* being written; in the table only */
	u32 path_len; /* bytes of path that were there, the rest of the line included */
	u32 reserved;
	u64 path[PATH_BYTES / 8];   /* from after the method, or with it if it is not a known one */
	u64 trace[TRACE_BYTES / 8]; /* after "traceparent:"; begins with 0: none */
};

#define RECORD_BYTES     32768 /* of the ring buffer, all of it in the keeper's memory */
#define RECORDS_A_SECOND 100u

enum record_kind { RECORD_SLOW };

/* What programs tell the keeper one by one. */
struct record {
	u32 kind, gateway;
	u32 flags; /* of the connection */
	u16 code;  /* 0: no answer */
	u8 method; /* enum http_method | PENDING_HEALTH */
	u8 path_len;
	u64 end_ns, duration_ns, first_ns; /* first_ns: until the response began */
	u64 reserved;
	u64 path[PATH_BYTES / 8];
	u64 trace[TRACE_BYTES / 8];
};

struct slot {
	u32 tid, tgid;  /* as the agent's pid namespace sees them */
	u32 gateway;    /* index */
	u32 generation; /* raised each time the slot is freed */
	u32 state, role;
	u32 is_forgotten; /* ended by the agent, not by itself: nothing was lost */
	u32 index;        /* of this slot; set when it is taken */
	u64 start_ns;     /* CLOCK_MONOTONIC when it was taken */
	/* the system call under way */
	u64 enter_ns;     /* 0: this one is not timed */
	u64 enter_weight; /* calls that it stands for */
	u32 enter_id;     /* enum syscall_id + 1 of the timed one */
	u32 args_id;      /* whose arguments these are; tracepoints only */
	u64 args[4];
	/* event loop: since when the thread is outside epoll_wait; 0 while inside or unknown */
	u64 loop_since_ns;
	u64 gc_since_ns;   /* GC probe under way */
	u64 gc_turn_ns;    /* GC time in this turn of the loop */
	u64 gc_lua;        /* lua_State that the thread last collected with */
	u64 gc_globals[2]; /* global_State of the last one and of another before; 0: none */
	u64 gc_sp;         /* stack pointer at the entry of that collection, and flags (gc.bpf.h) */
	u64 connect_since_ns; /* connect() under way */
	/* who owes a verdict to whom (upstream.bpf.h) */
	u64 given_up_ns, verdict_ns, relayed_ns;
	u32 given_up, reserved_upstream;
	/* call of a TLS library under way (0: none), its buffer, and where it puts the count */
	u64 tls_object, tls_buffer, tls_count;
	u64 goroutine; /* of the last system call, if Go made it; 0 where registers are not seen */
	u64 last_request_ns; /* start of the last request that was no health check */
	u64 last_accept_ns;
	struct integral in_flight;
	struct intent intent;
	struct scan scan;
	struct head head; /* of the last request whose head this thread has read */
	struct cells cells;
} __attribute__((aligned(4096)));

/* One of the two banks of a gateway: what its ended threads counted. */
struct bank {
	u32 slot, generation; /* the fold that made this bank */
	u64 is_used;          /* slot and generation mean something */
	u64 in_flight_s, in_flight_n;
	struct cells cells;
} __attribute__((aligned(4096)));

#include "connection_types.h"
/* ---- what the agent tells the programs, and bookkeeping of both ---- */

/* Offsets of kernel fields, from BTF; all 0 where there is none. */
struct offsets {
	u32 task_pid, task_tgid, task_leader, task_thread_pid, task_files;
	u32 pid_level, pid_numbers, upid_size, upid_number, upid_ns, ns_inum;
	u32 files_fdt, fdt_fd, file_private, socket_sk;
	u32 sock_family, sock_state, sock_shutdown, sock_type, sock_error;
	u32 is_known;
};

#define PATTERNS      16
#define PATTERN_WORDS 8

/* Compared eight bytes at a time under a mask. */
struct pattern {
	u64 word[PATTERN_WORDS], mask[PATTERN_WORDS];
	u32 len;
	u32 is_exact; /* nothing may follow; else what begins so matches (HTTP/2 only) */
};

enum lost_reason {
	LOST_THREADS,        /* no free slot */
	LOST_CONNECTIONS,    /* connection table full */
	LOST_PARSE,          /* a response that could not be followed */
	LOST_PIPELINE,       /* more pipelined requests than PIPELINE */
	LOST_MEMORY,         /* the process's memory could not be read */
	LOST_BUCKET,         /* thread table bucket full */
	LOST_NOTES,          /* no room for the path of a pending request */
	LOST_RECORDS,        /* records beyond 100 a second, or the ring buffer full */
	LOST_STREAMS,        /* table of HTTP/2 streams full */
	LOST_UPSTREAM_HTTP2, /* a connection to an upstream that speaks HTTP/2: not followed */
	LOST_TLS,            /* a TLS connection that carried data which no probed library showed */
	LOST_ROWS,           /* requests, or errors, of more different pairs than there are rows */
	LOST_UNSEEN_CLOSE, /* a descriptor that ended without close(); counted by the agent only */
	LOST_REASONS
};

#define DRAW_CPUS 128u /* beyond, two share one */

/* Random numbers of one processor; a line of the cache. */
struct draw {
	u64 state, reserved[7];
};

struct control {
	u64 heartbeat_ns;
	u64 maps_id;
	u32 sample;   /* one call in so many is timed, and counts for as many */
	u32 is_stale; /* a program saw that the heartbeat is too old: all do nothing */
	u32 threads;  /* slots there are */
	u32 path_count, agent_count;
	/* what is attached, for whoever adopts these maps: index of the rung + 1, 0: not */
	u32 tier, fork_tier, links, knows_kernel; /* offsets.is_known */
	u64 timing_ns;       /* what timing a call costs its thread, as measured at the start */
	u32 uprobe_how;      /* enum uprobe_how of agent/probe */
	u64 path_seconds[4]; /* bit set of the second character of the health paths */
	struct pattern paths[PATTERNS], agents[PATTERNS];
	u64 lost[LOST_REASONS];
	u64 slow_ns;                   /* a request that takes as long leaves a record */
	u64 notice_ns;                 /* of the last one */
	u64 records_since_ns, records; /* in the second that began then */
	/* free slots: the kernel and the agent take at head by compare-and-swap, the agent adds */
	u64 ring_head, ring_tail;
	u16 ring[SLOTS_MOST];
	/* per gateway: which bank counts, connections found by seeding */
	u32 bank_active[GATEWAYS];
	u64 seeded[GATEWAYS];
	u64 names[GATEWAYS][2]; /* of the master, as in /proc/PID/comm, padded with 0 */
	u64 claims[CLAIMS];
	/* records in use; how many of them are a gateway's; gateways that have some beyond */
	u32 upstreams, upstream_names[GATEWAYS];
	u64 upstream_others;
	/* row + 1 by pair, 0: none yet, ROW_NONE; pair + 1 by row, which is what holds */
	u8 request_row[REQUEST_PAIRS], error_row[ERROR_PAIRS];
	u64 request_pairs[REQUEST_ROWS], error_pairs[ERROR_ROWS];
	u64 tid_buckets[TID_BUCKETS];
};
