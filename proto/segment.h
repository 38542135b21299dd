/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shared-memory segment, byte by byte. CONTRACT: any change of size, order or meaning raises
 * SEGMENT_VERSION. Fixed-width little-endian fields, natural alignment; offsets are from the start
 * of the file; a reader trusts none of them.
 *
 *   header (4096) | gateway records | thresholds | directory | heap (strings) | cells (64-bit words)
 *
 * One writer. Readers map read-only (own files) or pread (foreign files) and never lock:
 *   structure  `epoch` is odd while directory, gateways or heap change
 *   values     `tick_seq` is odd while the cells of one tick are being written
 * Copy, then compare the number with the one read before; retry a few times, then give up.
 *
 * host.seg (SEGMENT_HOST) is what the kernel told, app.seg (SEGMENT_APP) what all gateway scripts
 * told, gathered by the agent. A gateway process, or each thread of one that runs scripts by itself,
 * writes a file of its own in the directory app/ beside them (SEGMENT_PROCESS):
 *   - made under a name that begins with a dot (O_CREAT|O_EXCL|O_NOFOLLOW, mode 0640, group of the
 *     directory), preallocated (fallocate: a full tmpfs is an error then, never a fault later),
 *     locked (flock LOCK_EX, held until the process ends: this is how its end is noticed), filled
 *     with header and thresholds, and then renamed to `<pid>-<life as 16 hex digits>.seg`;
 *   - gateways_capacity is 0, tick_seq and maps_id stay 0. Values are live: each cell is one aligned
 *     64-bit word with one writer, written whole; readers read each once;
 *   - counters and histograms have one run of cells, there is no base;
 *   - append only: entry, strings and cells are written first, then heap_used and cells_used, then
 *     directory_count; nothing below the counts ever changes but cells. `epoch` stays 0, every entry
 *     is PRESENT; a gauge that is NaN has no value;
 *   - a name that vanished is given to a new file with the same life and all that was counted (the old
 *     one stays locked until then): same life, same counters;
 *   - an entry beyond a capacity is not made: `refused` counts it, and values go to the series of the
 *     metric whose label values are all "_overflow" (for which the writer leaves room), or nowhere;
 *   - histograms are of seconds; merge and scope are METRIC_SUM | MAX | LAST and METRIC_INSTANCE.
 * The agent folds what a dead writer leaves into its totals once and removes the file.
 */
#pragma once

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#define SEGMENT_MAGIC        0x3147455345444954ULL /* "TIDESEG1" */
#define SEGMENT_VERSION      2
#define SEGMENT_ENDIAN       0x01020304u
#define SEGMENT_HEADER_BYTES 4096
#define SEGMENT_GATEWAYS     64
#define SEGMENT_NAME_BYTES   64

#define SEGMENT_OVERFLOW "_overflow" /* label value of what found no series of its own */

enum segment_kind { SEGMENT_HOST = 1, SEGMENT_APP = 2, SEGMENT_PROCESS = 3 };

struct segment_header {
	uint64_t magic;         /* SEGMENT_MAGIC: the text TIDESEG1 */
	uint32_t version;       /* SEGMENT_VERSION; readers refuse any other */
	uint32_t header_bytes;  /* SEGMENT_HEADER_BYTES */
	uint32_t endian;        /* SEGMENT_ENDIAN, as the writer stores it */
	uint32_t kind;          /* enum segment_kind */
	uint64_t total_bytes;   /* up to the end of the cells; the file may be longer */
	uint8_t boot_id[16];    /* of this boot: /proc/sys/kernel/random/boot_id without dashes */
	uint32_t writer_pid;    /* in the writer's own pid namespace */
	uint32_t writer_parent; /* SEGMENT_PROCESS: its parent (the gateway's master), 0: unknown */
	uint64_t writer_start;  /* clock ticks since boot, /proc/PID/stat field 22 */
	uint64_t epoch;         /* odd while the structure changes */
	uint64_t tick_seq;      /* odd while values are written */
	uint64_t heartbeat_ns;  /* CLOCK_MONOTONIC of the writer's last sign of life */
	uint64_t tick_mono_ns;  /* the values are as of this moment */
	uint64_t tick_real_ns;  /* same, CLOCK_REALTIME */
	uint64_t tick_interval_ns; /* between this tick and the one before */
	uint64_t ticks;            /* number of ticks written */
	uint64_t maps_id;          /* the BPF maps that the values above `base` come from */
	uint64_t refused;          /* series that found no room */
	uint64_t gateways_offset;  /* of struct segment_gateway[] */
	uint32_t gateways_capacity, gateways_count;   /* records that fit, records that are there */
	uint64_t directory_offset;                    /* of struct segment_entry[] */
	uint32_t directory_capacity, directory_count; /* entries, as above */
	uint64_t heap_offset, heap_capacity, heap_used; /* strings; in bytes */
	uint64_t cells_offset;                          /* of uint64_t[] */
	uint64_t cells_capacity, cells_used;            /* in 64-bit words */
	uint32_t hist_cells;                            /* HIST_CELLS of the writer */
	uint32_t reserved1;
	uint64_t life; /* random, given when the file is made: its counters began at 0 then */
	/* of histograms, in nanoseconds: hist_cells - 1 of them, ascending; a value is counted in the
	 * first cell whose threshold is not below it, beyond all of them in the last cell */
	uint64_t thresholds_offset;
	/* SEGMENT_PROCESS: what the script calls its gateway, "" when it does not say; used where the
	 * agent cannot tell from the writer's process */
	char gateway[SEGMENT_NAME_BYTES];
	/* SEGMENT_APP: where the writer stands in adding a dead process's values to the bases; its own
	 * business (agent/segment/fold.c) */
	uint64_t fold_life, fold_at, fold_cell[2], fold_value[2];
	uint64_t reserved[48];
};

static_assert(offsetof(struct segment_header, boot_id) == 32, "segment layout");
static_assert(offsetof(struct segment_header, epoch) == 64, "segment layout");
static_assert(offsetof(struct segment_header, tick_interval_ns) == 104, "segment layout");
static_assert(offsetof(struct segment_header, gateways_offset) == 136, "segment layout");
static_assert(offsetof(struct segment_header, cells_offset) == 192, "segment layout");
static_assert(offsetof(struct segment_header, life) == 224, "segment layout");
static_assert(offsetof(struct segment_header, gateway) == 240, "segment layout");
static_assert(sizeof(struct segment_header) == 736, "segment layout");

#define SEGMENT_NO_UID 0xffffffffu

enum segment_gateway_state { SEGMENT_GATEWAY_FREE, SEGMENT_GATEWAY_LIVE, SEGMENT_GATEWAY_GONE };

/* What a drain needs to know of one instance (one master with its workers), written under tick_seq;
 * name, pids and state change under epoch. Records are append-only while the segment lives. */
struct segment_gateway {
	char name[SEGMENT_NAME_BYTES];     /* label `gateway` */
	char instance[SEGMENT_NAME_BYTES]; /* label `instance`: <agent id>/<n> */
	char runtime[16];                  /* luajit, lua5.3, go, … or "" */
	char driver[16];                   /* nginx, haproxy, caddy, … : how it is told to stop */
	uint32_t state;                    /* enum segment_gateway_state */
	uint32_t master_pid;               /* as the agent sees it */
	uint64_t master_start;             /* /proc/PID/stat field 22 */
	uint32_t draining; /* 1 while a lease holds it; set by the keeper on the steward's word */
	uint32_t workers;  /* processes of it that are watched */
	uint32_t requests_known;     /* 0: requests are unavailable for this gateway */
	uint32_t worker_uid;         /* user of its workers; SEGMENT_NO_UID: unknown */
	uint64_t accepts;            /* connections */
	uint64_t requests_started;   /* health checks included */
	uint64_t requests_completed; /* health checks included */
	uint64_t requests_health;    /* started ones that matched a health check */
	uint64_t requests_aborted;
	uint64_t requests_lost;
	uint64_t in_flight;        /* at the tick, health checks included */
	uint64_t connections_open; /* at the tick */
	uint64_t
		last_request_mono_ns; /* start of the last request that is no health check; 0 none */
	uint64_t last_accept_mono_ns; /* informational */
	/* A profile of scripts is wanted until then (CLOCK_MONOTONIC; 0: none): each process that can
	 * writes app/<pid>-<life>.<profile_id as 16 hex digits>.folded. The id changes with each. */
	uint64_t profile_until_mono_ns, profile_id;
	uint64_t reserved[14];
};

static_assert(offsetof(struct segment_gateway, state) == 160, "segment layout");
static_assert(offsetof(struct segment_gateway, accepts) == 192, "segment layout");
static_assert(sizeof(struct segment_gateway) == 400, "segment layout");

/* Value = base + what the files of living processes hold, all modulo 2^64; else the base is what was
 * there when counting began again. */
#define SEGMENT_ENTRY_GATHERED 1u

enum segment_entry_state { SEGMENT_ENTRY_FREE, SEGMENT_ENTRY_PRESENT, SEGMENT_ENTRY_ABSENT };

/* One series. Entries are append-only; a series whose value is missing becomes ABSENT, never 0.
 * labels: "key\0value\0key\0value\0…" in the order of the catalogue, gateway and instance first.
 * Counters and histograms have two runs of cells: value, then base (what earlier maps counted;
 * value = base + what the maps of `maps_id` hold); in SEGMENT_PROCESS value only. Gauges have one
 * cell: the bits of a double. */
struct segment_entry {
	uint32_t state;                    /* enum segment_entry_state */
	uint8_t kind, merge, scope, flags; /* enum metric_kind, _merge, _scope of proto/metrics.h */
	/* Offsets within the heap. name, unit and help: bytes without their final NUL, which is
	 * there; labels: bytes of all pairs, each string's NUL included (0: no labels). */
	uint32_t name_offset, name_bytes;
	uint32_t unit_offset, unit_bytes;
	uint32_t help_offset, help_bytes;
	uint32_t labels_offset, labels_bytes;
	uint64_t value_cell; /* index into cells */
	uint32_t cell_count; /* 1, or hist_cells */
	uint32_t reserved1;
	uint64_t reserved[1];
};

static_assert(sizeof(struct segment_entry) == 64, "segment layout");
