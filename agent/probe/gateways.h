/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding gateways in /proc: by executable and listening socket, or by a configured matcher. No
 * state but a cache of what was looked at before. Runs in the keeper and in doctor.
 */
#pragma once

#include "base/err.h"
#include "config/config.h"
#include "types.h"

#include <stdbool.h>
#include <sys/types.h>

#define GATEWAY_PROCESSES 1024
#define GATEWAY_PORTS     32
#define GATEWAY_LISTENERS 2048

struct gateway_process {
	pid_t pid;
	enum slot_role role;
};

/* One master with its workers. */
struct gateway_found {
	char name[64];   /* the matcher's name, else the base name of the executable */
	char driver[16]; /* "nginx", "haproxy", "caddy", …: the row that knows it, or "" */
	char exe[256];
	bool is_go;
	pid_t master;
	uint64_t master_start;
	unsigned int process_count;
	struct gateway_process processes[GATEWAY_PROCESSES];
	unsigned int port_count;
	uint16_t ports[GATEWAY_PORTS];
	unsigned int listener_count; /* TCP; those beyond GATEWAY_LISTENERS are left out */
	uint32_t listeners[GATEWAY_LISTENERS]; /* inodes */
	bool has_unix_listener;
	bool is_remembered; /* nothing changed since the last scan: not looked at again */
};

struct gateways;

/* matchers: options.def, gateways.match; borrowed. */
int gateways_open(const struct config_list *matchers, struct gateways **ret, struct err *e);
struct gateways *gateways_close(struct gateways *g);

/* Looks at every process, but at those that were no gateway's every ten seconds only. Returns how many of ret[0..max) were filled; more are counted in
 * *ret_refused. Processes that belong to nobody for want of a listening socket are left out. */
int gateways_scan(struct gateways *g, struct gateway_found *ret, unsigned int max,
		  uint64_t *ret_refused);

/* The next scan looks at all: something may have become a gateway by exec. */
void gateways_look_again(struct gateways *g);

/* How many processes the last scan was not allowed to look at: other users' without CAP_SYS_PTRACE. */
unsigned int gateways_unreadable(const struct gateways *g);

/* Calls fn for each process that the last scan found below a master and had no place for. */
void gateways_each_beyond(const struct gateways *g, pid_t master, void (*fn)(void *data, pid_t pid),
			  void *data);

/* Calls fn for each thread of a process. */
int gateways_each_thread(pid_t pid, void (*fn)(void *data, pid_t tid), void *data);
