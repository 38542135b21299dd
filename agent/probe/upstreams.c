/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Upstreams of gateways, as the programs recorded them. Read by lookups once a tick, never mapped:
 * a mapped array would be resident as a whole. In the keeper.
 */
#include "probe/set.h"

#include "base/str.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static const char *const error_names[UPSTREAM_ERRORS] = {
	[UPSTREAM_REFUSED] = "refused",
	[UPSTREAM_TIMEOUT] = "timeout",
	[UPSTREAM_RESET] = "reset",
	[UPSTREAM_CLOSED] = "closed",
	[UPSTREAM_UNREACHABLE] = "unreachable",
	[UPSTREAM_OTHER] = "other",
};

const char *probe_upstream_error_name(unsigned int reason)
{
	return reason < UPSTREAM_ERRORS ? error_names[reason] : "other";
}

/* A path may hold any byte; two paths never get one name. */
static void name_unix(const struct upstream_address *a, char *buf, size_t size)
{
	size_t at = str_copy(buf, size, "unix:") ? strlen("unix:") : 0, end = UPSTREAM_BYTES;

	while (end > 1 && !a->bytes[end - 1])
		end--;
	for (size_t i = 0; i < end && at + 4 < size; i++) {
		unsigned char c = a->bytes[i];

		if (!i && !c)
			buf[at++] = '@';
		else if (c > ' ' && c < 0x7f && c != '%' && c != '"' && c != '\\' &&
			 (i || c != '@'))
			buf[at++] = (char)c;
		else
			at += (size_t)snprintf(buf + at, size - at, "%%%02X", c);
	}
	buf[at] = '\0';
}

void probe_upstream_name(const struct upstream_address *a, char buf[PROBE_UPSTREAM_BYTES])
{
	char ip[INET6_ADDRSTRLEN] = "";

	switch (a->family) {
	case AF_INET:
		inet_ntop(AF_INET, a->bytes, ip, sizeof(ip));
		snprintf(buf, PROBE_UPSTREAM_BYTES, "%s:%u", ip, ntohs(a->port));
		break;
	case AF_INET6:
		inet_ntop(AF_INET6, a->bytes, ip, sizeof(ip));
		snprintf(buf, PROBE_UPSTREAM_BYTES, "[%s]:%u", ip, ntohs(a->port));
		break;
	case AF_UNIX:
		name_unix(a, buf, PROBE_UPSTREAM_BYTES);
		break;
	default:
		str_copy(buf, PROBE_UPSTREAM_BYTES, "other");
	}
}

static int upstream_other(struct probe_set *set, unsigned int gateway)
{
	__atomic_fetch_or(&set->control->upstream_others, 1ULL << gateway, __ATOMIC_RELAXED);
	return (int)(set->upstreams + gateway);
}

/* As upstream_find in bpf/upstream.bpf.h, at the same time as it; the record is there before its
 * address leads to it, because here it can only be written as a whole. */
static int upstream_find(struct probe_set *set, const struct upstream_address *a)
{
	uint32_t *names = &set->control->upstream_names[a->gateway], index, next;
	struct upstream u = {.address = *a, .is_used = 1};

	if (bpf_map_lookup_elem(set->upstream_indices_fd, a, &index) == 0)
		return (int)index;
	if (__atomic_fetch_add(names, 1, __ATOMIC_SEQ_CST) >= UPSTREAM_NAMES)
		goto full;
	index = __atomic_fetch_add(&set->control->upstreams, 1, __ATOMIC_SEQ_CST);
	if (index >= set->upstreams) {
		__atomic_fetch_sub(&set->control->upstreams, 1, __ATOMIC_SEQ_CST);
		goto full;
	}
	if (bpf_map_update_elem(set->upstreams_fd, &index, &u, BPF_ANY) == 0 &&
	    bpf_map_update_elem(set->upstream_indices_fd, a, &index, BPF_NOEXIST) == 0)
		return (int)index;
	/* The gateway has just made one itself. */
	memset(&u, 0, sizeof(u));
	bpf_map_update_elem(set->upstreams_fd, &index, &u, BPF_ANY);
	next = index + 1;
	__atomic_compare_exchange_n(&set->control->upstreams, &next, index, false, __ATOMIC_SEQ_CST,
				    __ATOMIC_SEQ_CST);
	__atomic_fetch_sub(names, 1, __ATOMIC_SEQ_CST);
	if (bpf_map_lookup_elem(set->upstream_indices_fd, a, &index) == 0)
		return (int)index;
	return upstream_other(set, a->gateway);
full:
	__atomic_fetch_sub(names, 1, __ATOMIC_SEQ_CST);
	return upstream_other(set, a->gateway);
}

int upstreams_of_socket(struct probe_set *set, unsigned int gateway, int fd)
{
	union {
		struct sockaddr any;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} peer;
	struct upstream_address a = {.gateway = gateway};
	socklen_t size = sizeof(peer);
	int type = 0;

	memset(&peer, 0, sizeof(peer));
	if (gateway >= set->gateways || getpeername(fd, &peer.any, &size) < 0)
		return -ENOENT;
	size = sizeof(type);
	if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 || type != SOCK_STREAM)
		return -ENOENT;
	if (peer.any.sa_family == AF_INET) {
		a.family = AF_INET;
		a.port = peer.in.sin_port;
		memcpy(a.bytes, &peer.in.sin_addr, 4);
	} else if (peer.any.sa_family == AF_INET6) {
		bool is_mapped = IN6_IS_ADDR_V4MAPPED(&peer.in6.sin6_addr);

		a.family = is_mapped ? AF_INET : AF_INET6;
		a.port = peer.in6.sin6_port;
		if (is_mapped)
			memcpy(a.bytes, &peer.in6.sin6_addr.s6_addr[12], 4);
		else
			memcpy(a.bytes, &peer.in6.sin6_addr, 16);
	} else {
		return -ENOENT;
	}
	return upstream_find(set, &a);
}

void probe_each_upstream(struct probe_set *set,
			 void (*fn)(void *data, unsigned int index, const struct upstream *u),
			 void *data)
{
	uint32_t used = __atomic_load_n(&set->control->upstreams, __ATOMIC_RELAXED);
	uint64_t others = __atomic_load_n(&set->control->upstream_others, __ATOMIC_RELAXED);
	struct upstream u;

	for (uint32_t i = 0; i < used && i < set->upstreams; i++)
		if (bpf_map_lookup_elem(set->upstreams_fd, &i, &u) == 0 && u.is_used)
			fn(data, i, &u);
	for (uint32_t g = 0; g < set->gateways; g++) {
		uint32_t i = set->upstreams + g;

		if (!(others >> g & 1) || bpf_map_lookup_elem(set->upstreams_fd, &i, &u))
			continue;
		memset(&u.address, 0, sizeof(u.address));
		u.address.gateway = g;
		fn(data, i, &u);
	}
}
