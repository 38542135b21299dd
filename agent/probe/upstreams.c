/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Upstreams of gateways, as the programs recorded them. Read by lookups once a tick, never mapped:
 * a mapped array would be resident as a whole. In the keeper.
 */
#include "probe/set.h"

#include "base/str.h"

#include <arpa/inet.h>
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
