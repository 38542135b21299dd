/* SPDX-License-Identifier: Apache-2.0 */
/*
 * BPF programs of the keeper: loading by the ladder, threads and connections that they watch, and
 * the sums of what they counted. libbpf is used in this folder only. Single-threaded.
 */
#pragma once

#include "base/err.h"
#include "metrics.h"
#include "types.h"

#include <stdbool.h>

enum probe_state { PROBE_UNAVAILABLE, PROBE_DEGRADED, PROBE_OK };

/* What `doctor` prints and tidegate_probe_state carries. Strings are owned by the probe set. */
struct probe_report {
	const char *name; /* "syscalls" "loop" "requests" "fork" "gc" … */
	enum probe_state state;
	char how[32];  /* "tp_btf", "raw_tp", "uprobe_multi", … */
	char why[256]; /* what was tried and what the kernel said, with what to do; a limit */
};

struct probe_options {
	const char *tier; /* "auto" or the only one to try */
	unsigned int threads, connections;
	unsigned int sample;    /* time one system call in so many; 0: under cost_budget */
	uint64_t cost_budget;   /* millionths of a gateway's CPU time that timing calls may cost */
	unsigned int upstreams; /* told apart, of all gateways */
	unsigned int gateways;  /* indices below this one are used; 0: GATEWAYS */
	bool want_gc, want_tls;
	uint64_t gc_budget;  /* millionths of the CPU time that timing steps may cost; 0: any */
	const char *pin_dir; /* <bpffs>/tidegate/<id>; NULL: do not pin */
	uint64_t slow_request_ns; /* longer ones leave a record; 0: none does */
	bool is_slow_query_wanted;
	const struct config_list *health_paths, *health_user_agents;
};

struct probe_set;

/* Names of rows and cells of struct cells: "epoll_wait", "EAGAIN" ("other" for cell 0). */
const char *probe_syscall_name(unsigned int id);
const char *probe_errno_name(unsigned int cell);

/* Loads and attaches what can be. Fails only when nothing at all can work; else the reports say
 * what does. Adopts pinned links and maps of the same layout whose id is adopt_maps_id (so counting
 * goes on), else starts new maps with a new random id; another layout's pins are removed. */
int probe_open(const struct probe_options *options, uint64_t adopt_maps_id, struct probe_set **ret,
	       struct err *e);
/* Closes descriptors; pinned programs go on counting until the heartbeat is 30 s old. */
struct probe_set *probe_close(struct probe_set *set);
/* Removes everything pinned under pin_dir. */
int probe_unpin(const char *pin_dir, struct err *e);

bool probe_is_adopted(const struct probe_set *set);
uint64_t probe_maps_id(const struct probe_set *set);
const struct probe_report *probe_reports(const struct probe_set *set, size_t *ret_count);

/* Sign of life; programs do nothing once it is 30 s old. Every tick. */
void probe_heartbeat(struct probe_set *set, uint64_t now_mono_ns);

/* True when a thread of the process has a slot: its connections were seen from the first on. */
bool probe_has_process(struct probe_set *set, uint32_t tgid);

/* Takes a slot for a thread, or finds the one it has. -ENOSPC: no place; not counted,
 * for the caller tries again. New processes forked by a watched one get theirs in the kernel. */
int probe_watch_thread(struct probe_set *set, unsigned int gateway, uint32_t tgid, uint32_t tid,
		       enum slot_role role);
/* Counts n threads without a place as lost ("threads"). */
void probe_refuse_threads(struct probe_set *set, unsigned int n);
/* Ends the watching of every thread of a process (as if it had exited). */
void probe_forget_process(struct probe_set *set, uint32_t tgid);

/* Remembers the name that a gateway's master has in the kernel: who was forked by it and executes a
 * program of that name stays watched. */
int probe_set_master(struct probe_set *set, unsigned int gateway, uint32_t pid);
/* TCP ports and unix sockets on which a gateway listens: connections accepted there, or found by
 * seeding with that local port, are downstream. */
int probe_set_listen_port(struct probe_set *set, uint16_t port, bool is_on);
/* A connection that was there before we were, a client's or to an upstream by TCP: counting begins at
 * its next request line. */
int probe_seed_connection(struct probe_set *set, uint32_t tgid, int fd);

/* Folds exited threads into their gateway's retired bank, exactly once even if we die in the
 * middle, and frees their slots. Every tick, before probe_totals. */
void probe_fold(struct probe_set *set, uint64_t now_mono_ns);

/* Sums of a gateway since these maps began, retired threads included. cells is large: static or
 * heap. The turn of the loop still under way is in loop_busy_ns as far as it has come; stall_ns
 * holds ended turns only, system calls count when they return. */
struct probe_now {
	uint64_t in_flight, in_flight_max;
	uint64_t
		in_flight_integral_ns; /* request-nanoseconds; difference / time = mean in flight */
	uint64_t connections_open;
	uint64_t last_request_ns, last_accept_ns;
	unsigned int threads; /* live workers */
};
void probe_totals(struct probe_set *set, unsigned int gateway, uint64_t now_mono_ns,
		  struct cells *ret_cells, struct probe_now *ret_now);

/* What a row of cells.requests, of cells.syscall_errors, counts. False: nothing yet. The same for as
 * long as these maps are used. */
bool probe_request_row(const struct probe_set *set, unsigned int row, enum http_method *ret_method,
		       unsigned int *ret_code);
bool probe_error_row(const struct probe_set *set, unsigned int row, enum syscall_id *ret_id,
		     enum errno_cell *ret_error);
/* The other way: what was counted of a pair. */
uint64_t probe_requests(const struct probe_set *set, const struct cells *cells,
			enum http_method method, unsigned int code);
uint64_t probe_errors(const struct probe_set *set, const struct cells *cells, enum syscall_id id,
		      enum errno_cell error);

/* Per-thread view for worker labels: fn is called for each live slot of the gateway. */
void probe_each_thread(struct probe_set *set, unsigned int gateway,
		       void (*fn)(void *data, const struct slot *slot), void *data);

/* Events that could not be accounted for; one row a reason, name NULL ends. */
struct probe_lost {
	const char *reason;
	uint64_t count;
};
const struct probe_lost *probe_lost(struct probe_set *set);

/* Times as many system calls as the budget allows. Every tick. */
void probe_sample_tick(struct probe_set *set, uint64_t now_mono_ns);
/* One call in so many is timed now. */
uint32_t probe_sample(const struct probe_set *set);
/* What timing a call costs its thread, as measured; 0: unknown, the number stays then. */
uint64_t probe_timing_ns(const struct probe_set *set);

/* Run time and count of each BPF program from the kernel's statistics (zero while those are off). */
struct probe_cost {
	const char *program;
	uint64_t run_ns, runs;
};
size_t probe_costs(struct probe_set *set, struct probe_cost *ret, size_t max);

/* ---- upstreams (upstreams.c) ---- */

/* "ip:port", "[ip]:port", "unix:/path", "unix:@name", "other"; what is not printable as %XX. */
#define PROBE_UPSTREAM_BYTES 352
void probe_upstream_name(const struct upstream_address *a, char buf[PROBE_UPSTREAM_BYTES]);
const char *probe_upstream_error_name(unsigned int reason);

/* Calls fn for each upstream of all gateways, with what was counted since these maps began. index
 * stays the same for these maps and is below the option `upstreams` + gateways; u until fn returns. */
void probe_each_upstream(struct probe_set *set,
			 void (*fn)(void *data, unsigned int index, const struct upstream *u),
			 void *data);

/* ---- GC probes (gc.c, finder*.c) ---- */

struct probe_gc_report {
	enum probe_state state;
	char runtime[16]; /* "luajit", "lua5.3", "go", "openjdk", … or "": none */
	char how[32]; /* "symtab", "debug-file", "gnu_debugdata", "call-vote", "gopclntab", "sdt" */
	char attach[32];   /* "uprobe_multi", "perf" */
	double confidence; /* 0 … 1; finder.h says how it is computed */
	char reason[160];  /* what speaks for it */
	char object[256];  /* the ELF file as seen from the process */
	char why[256];
};

/* Finds the garbage collector in what the process has mapped (in a confined child, with a time
 * limit) and attaches to it once per file, for all processes of the gateway. Idempotent. */
int probe_gc_attach(struct probe_set *set, unsigned int gateway, uint32_t pid,
		    struct probe_gc_report *ret);
/* Times steps as long as the budget allows. Every tick, after probe_fold, and once more after as many
 * nanoseconds as it returns (0: the next tick will do): bursts are shorter than a tick. */
uint64_t probe_gc_tick(struct probe_set *set, uint64_t now_mono_ns);
struct probe_gc_now {
	bool is_known;         /* the gateway has a collector that is probed */
	double observed_ratio; /* share of the last minute in which its steps were timed */
	uint64_t missed_ns;    /* estimate of what the others took; never falls */
	bool has_heap;         /* at least one Lua state was seen at work */
	uint64_t heap_bytes;   /* of all those, as of the last second */
};
void probe_gc_now(const struct probe_set *set, unsigned int gateway, struct probe_gc_now *ret);
/* What the probes of one step cost a worker, as calibrated. */
uint64_t probe_gc_cost_ns(const struct probe_set *set);
/* Nanoseconds that the probe adds to a measured step; subtracted by the BPF program itself. */
uint64_t probe_gc_bias_ns(const struct probe_set *set);

/* ---- TLS probes (tls.c, finder*.c) ---- */

struct probe_tls_report {
	enum probe_state state;
	char library[16]; /* "openssl", "go", or "" when there is none */
	char how[32];     /* "dynsym", "symtab", "gopclntab" */
	char object[256]; /* the ELF file as seen from the process */
	char why[256];
};

/* Finds TLS libraries in what the process has mapped, and attaches once per file, for all processes.
 * Idempotent. -ENOENT: there is none. */
int probe_tls_attach(struct probe_set *set, uint32_t pid, struct probe_tls_report *ret);
