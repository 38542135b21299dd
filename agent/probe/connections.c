/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connections that were open before the probes came: a copy of the descriptor tells whether a
 * gateway accepted it.
 */
#include "probe/set.h"

#include "base/cleanup.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

int probe_set_listen_port(struct probe_set *set, uint16_t port, bool is_on)
{
	uint64_t bit = 1ULL << (port % 64);

	if (!port)
		return -EINVAL;
	if (is_on)
		set->ports[port / 64] |= bit;
	else
		set->ports[port / 64] &= ~bit;
	return 0;
}

/* 0, or -ENOENT when it is not a connection that a gateway accepted. */
static int socket_is_downstream(const struct probe_set *set, int fd)
{
	union {
		struct sockaddr any;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
		struct sockaddr_un un;
	} a;
	socklen_t size = sizeof(a);
	int listening = 0;
	uint16_t port;

	memset(&a, 0, sizeof(a));
	if (getsockname(fd, &a.any, &size) < 0)
		return -errno;
	/* An accepted unix socket carries its listener's name, the client's end none. */
	if (a.any.sa_family == AF_UNIX) {
		if (size <= offsetof(struct sockaddr_un, sun_path))
			return -ENOENT;
	} else if (a.any.sa_family == AF_INET || a.any.sa_family == AF_INET6) {
		port = ntohs(a.any.sa_family == AF_INET ? a.in.sin_port : a.in6.sin6_port);
		if (!(set->ports[port / 64] >> (port % 64) & 1))
			return -ENOENT;
	} else {
		return -ENOENT;
	}
	size = sizeof(listening);
	if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) < 0)
		return -errno;
	if (listening)
		return -ENOENT;
	size = sizeof(a);
	return getpeername(fd, &a.any, &size) < 0 ? -ENOENT : 0;
}

int probe_seed_connection(struct probe_set *set, uint32_t tgid, int fd)
{
	struct connection c = {.flags = 0};
	uint64_t key = (uint64_t)tgid << 32 | (uint32_t)fd;
	_cleanup_close_ int pid_fd = -1, copy = -1;
	const struct slot *slot = slots_of_process(set, tgid);
	unsigned int gateway;
	int r;

	if (!slot)
		return -ESRCH;
	gateway = slot->gateway;
	pid_fd = (int)syscall(SYS_pidfd_open, tgid, 0);
	if (pid_fd < 0)
		return -errno;
	copy = (int)syscall(SYS_pidfd_getfd, pid_fd, fd, 0);
	if (copy < 0)
		return -errno;
	r = socket_is_downstream(set, copy);
	if (r == -ENOENT) {
		r = upstreams_of_socket(set, gateway, copy);
		c.flags = CONNECTION_UPSTREAM;
		c.upstream = r < 0 ? 0 : (uint32_t)r;
	}
	if (r < 0)
		return r;
	c.streams[0].state = STREAM_SYNC;
	c.streams[1].state = STREAM_FIRST;
	/* One that came by accept meanwhile is known better. */
	if (bpf_map_update_elem(set->connections_fd, &key, &c, BPF_NOEXIST)) {
		if (errno == EEXIST)
			return 0;
		__atomic_fetch_add(&set->control->lost[LOST_CONNECTIONS], 1, __ATOMIC_RELAXED);
		return -errno;
	}
	if (gateway < GATEWAYS && !(c.flags & CONNECTION_UPSTREAM))
		set->control->seeded[gateway]++;
	return 0;
}
