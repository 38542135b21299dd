/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptors that say that requests pass unseen. */
#include "probe/sight.h"

#include "base/cleanup.h"
#include "base/str.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DATAGRAMS_MOST 64

/* UDP sockets bound to a port on which the gateway also listens with TCP. */
struct datagrams {
	unsigned int count;
	struct {
		uint64_t inode;
		uint16_t port;
	} rows[DATAGRAMS_MOST];
};

static bool is_port_of(const struct gateway_found *g, unsigned int port)
{
	for (unsigned int i = 0; i < g->port_count; i++)
		if (g->ports[i] == port)
			return true;
	return false;
}

static void read_datagrams(const struct gateway_found *g, const char *table, struct datagrams *d)
{
	_cleanup_file_ FILE *f = NULL;
	char path[64], line[512];

	snprintf(path, sizeof(path), "/proc/%d/net/%s", (int)g->master, table);
	f = fopen(path, "re");
	while (f && d->count < DATAGRAMS_MOST && fgets(line, sizeof(line), f)) {
		unsigned int port;
		uint64_t inode;

		/* sl local:port remote:port state queues timer retransmits uid timeout inode */
		if (sscanf(line, " %*u: %*[0-9A-Fa-f]:%x %*s %*s %*s %*s %*s %*s %*s %" SCNu64,
			   &port, &inode) != 2 ||
		    !is_port_of(g, port))
			continue;
		d->rows[d->count].inode = inode;
		d->rows[d->count++].port = (uint16_t)port;
	}
}

static const char ring_why[] = "pid %d uses io_uring (descriptor %u): its reads and writes are no "
			       "system calls, so its requests are not counted; switch io_uring off "
			       "in the gateway to have them";
static const char quic_why[] = "pid %d receives HTTP/3 on UDP port %u: what comes there is not "
			       "seen; requests over TCP are counted";

/* True: nothing worse can be found. */
static bool look_at(pid_t pid, unsigned int fd, const struct datagrams *d, struct sight *ret)
{
	char path[64], target[64];
	uint64_t inode;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/fd/%u", (int)pid, fd);
	n = readlink(path, target, sizeof(target) - 1);
	if (n <= 0)
		return false;
	target[n] = '\0';
	if (str_equal(target, "anon_inode:[io_uring]")) {
		ret->state = PROBE_UNAVAILABLE;
		snprintf(ret->why, sizeof(ret->why), ring_why, (int)pid, fd);
		return true;
	}
	if (!d->count || sscanf(target, "socket:[%" SCNu64 "]", &inode) != 1)
		return false;
	for (unsigned int i = 0; i < d->count; i++) {
		if (d->rows[i].inode != inode || ret->state != PROBE_OK)
			continue;
		ret->state = PROBE_DEGRADED;
		snprintf(ret->why, sizeof(ret->why), quic_why, (int)pid,
			 (unsigned int)d->rows[i].port);
	}
	return false;
}

void sight_look(const struct gateway_found *gateway, struct sight *ret)
{
	struct datagrams d = {0};

	*ret = (struct sight){.state = PROBE_OK};
	read_datagrams(gateway, "udp", &d);
	read_datagrams(gateway, "udp6", &d);
	for (unsigned int i = 0; i < gateway->process_count && i < SIGHT_PROCESSES; i++)
		for (unsigned int fd = 0; fd < SIGHT_DESCRIPTORS; fd++)
			if (look_at(gateway->processes[i].pid, fd, &d, ret))
				return;
}
