/* SPDX-License-Identifier: Apache-2.0 */
/* State of the system level metrics, shared by keeper_system.c and keeper_system_read.c. */
#pragma once

#include "cmd/keeper_system.h"
#include "probe/cgroup.h"
#include "probe/queue.h"
#include "probe/system.h"

/* Rows of what one gateway's reading gives. */
enum system_gauge {
	SYSTEM_CPU_LIMIT,
	SYSTEM_MEMORY,
	SYSTEM_MEMORY_LIMIT,
	SYSTEM_FDS,
	SYSTEM_GAUGES
};
enum system_resource { RESOURCE_CPU, RESOURCE_MEMORY, RESOURCE_IO, RESOURCES };
enum system_kind { KIND_SOME, KIND_FULL, KINDS };
enum system_scope { SCOPE_HOST, SCOPE_CGROUP, SCOPES };
enum system_counter {
	SYSTEM_CPU,
	SYSTEM_RUN_QUEUE,
	SYSTEM_THROTTLED,
	SYSTEM_RECEIVED,
	SYSTEM_SENT,
	SYSTEM_READ,
	SYSTEM_WRITTEN,
	SYSTEM_PRESSURE, /* the first of SCOPES * RESOURCES * KINDS */
	SYSTEM_COUNTERS = SYSTEM_PRESSURE + SCOPES * RESOURCES * KINDS
};

enum system_process_file { FILE_STAT, FILE_WAIT, FILE_IO, FILE_MEMORY, PROCESS_FILES };

struct system_process {
	pid_t pid;
	bool is_old;          /* there before we were */
	bool is_seen;         /* threads of it were read once */
	bool is_other;        /* its number has gone to another process */
	uint64_t start_ticks; /* 0: not read yet */
	struct system_file files[PROCESS_FILES];
};

struct system_port {
	uint16_t port;
	bool is_known;                 /* a listener was seen in the last reading */
	uint64_t length, limit, drops; /* drops: not written yet */
	int series[3];                 /* length, limit, drops; index + 1, 0 none yet, -1 refused */
};

struct keeper_system {
	char name[SEGMENT_NAME_BYTES], instance[SEGMENT_NAME_BYTES];
	bool is_live, is_told, has_threads; /* has_threads: of a process of several */
	pid_t master;
	uint64_t master_start, netns; /* 0: ours */
	uint64_t slow_ns;             /* when the costly things were read last */
	unsigned int process_count, port_count, listener_count;
	struct system_process processes[GATEWAY_PROCESSES];
	struct system_port ports[GATEWAY_PORTS];
	uint32_t listeners[GATEWAY_LISTENERS]; /* inodes, sorted */
	struct cgroup cgroup;
	bool has_cgroup, has_own_cgroup;
	struct system_sum cpu, wait, read, written;
	struct system_net net;
	struct system_file net_file, pressure_files[RESOURCES];
	struct system_meter throttled, pressure[SCOPES][RESOURCES][KINDS];

	bool has_gauge[SYSTEM_GAUGES], has_counter[SYSTEM_COUNTERS];
	double gauges[SYSTEM_GAUGES];
	uint64_t grown[SYSTEM_COUNTERS]; /* not written yet */
	int gauge_series[SYSTEM_GAUGES], counter_series[SYSTEM_COUNTERS];
};

/* What all gateways share. */
struct system_context {
	struct queues *queues; /* NULL: unavailable */
	uint64_t since_ticks;  /* processes that started before do not count from 0 */
	uint64_t now_ns;       /* CLOCK_MONOTONIC */
	struct system_budget *budget;
};

int keeper_system_compare_listeners(const void *a, const void *b);
void keeper_system_read(struct keeper_system *s, const struct system_context *c);
void keeper_system_close_process(struct system_process *p, struct system_budget *budget);
void keeper_system_close_files(struct keeper_system *s, struct system_budget *budget);
