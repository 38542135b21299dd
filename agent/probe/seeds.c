/* SPDX-License-Identifier: Apache-2.0 */
/* Connections that were there before we were. Keeper. */
#include "probe/seeds.h"

#include "base/clock.h"
#include "base/err.h"
#include "probe/sockets.h"
#include "probe/system.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CLOCK_EVERY 32 /* descriptors between two looks at the clock */

struct seeds_ports {
	unsigned int count;
	uint16_t ports[GATEWAY_PORTS];
	bool has_unix_listener;
};

struct seeds {
	struct seed {
		pid_t pid;
		unsigned int gateway;
	} * rows;
	size_t head, count, cap;
	struct seeds_ports gateways[GATEWAYS];
	struct sockets_walk walk; /* of rows[head] */
	struct sockets sockets;   /* of one namespace, read after the last row was added */
	uint64_t netns;
	bool is_read;
	uint64_t listening[65536 / 64]; /* ports that somebody listens on; bit set */
};

int seeds_new(struct seeds **ret)
{
	*ret = calloc(1, sizeof(**ret));
	return *ret ? 0 : -ENOMEM;
}

static void forget_sockets(struct seeds *s)
{
	sockets_fini(&s->sockets);
	s->is_read = false;
}

struct seeds *seeds_free(struct seeds *s)
{
	if (!s)
		return NULL;
	sockets_walk_close(&s->walk);
	forget_sockets(s);
	free(s->rows);
	free(s);
	return NULL;
}

int seeds_add(struct seeds *s, pid_t pid, unsigned int gateway, const struct gateway_found *found)
{
	struct seeds_ports *p;

	if (gateway >= GATEWAYS)
		return -EINVAL;
	if (s->count == SEEDS_MOST)
		return -ENOSPC;
	if (s->count == s->cap) {
		size_t cap = s->cap ? s->cap * 2 : 64;
		struct seed *rows = realloc(s->rows, cap * sizeof(*rows));

		if (!rows)
			return -ENOMEM;
		s->rows = rows;
		s->cap = cap;
	}
	p = &s->gateways[gateway];
	p->count = found->port_count;
	memcpy(p->ports, found->ports, sizeof(p->ports));
	p->has_unix_listener = found->has_unix_listener;
	s->rows[s->count++] = (struct seed){.pid = pid, .gateway = gateway};
	/* What this process accepted since it was read is not in it. */
	forget_sockets(s);
	return 0;
}

/* ---- one process ---- */

static void note_listeners(struct seeds *s)
{
	memset(s->listening, 0, sizeof(s->listening));
	for (size_t i = 0; i < s->sockets.count; i++)
		if (s->sockets.rows[i].state == SOCKET_LISTENING)
			s->listening[s->sockets.rows[i].port / 64] |=
				1ULL << (s->sockets.rows[i].port % 64);
}

static int read_sockets(struct seeds *s, pid_t pid)
{
	uint64_t netns;
	int r = system_net_namespace(pid, &netns);

	if (r < 0 || (s->is_read && s->netns == netns))
		return r;
	forget_sockets(s);
	r = sockets_read(pid, &s->sockets);
	s->netns = netns;
	s->is_read = r >= 0;
	if (r >= 0)
		note_listeners(s);
	return r;
}

static bool is_wanted(const struct seeds *s, const struct seeds_ports *p,
		      const struct socket_row *row)
{
	if (!row || row->state != SOCKET_CONNECTED)
		return false;
	if (!row->port)
		return p->has_unix_listener;
	for (unsigned int i = 0; i < p->count; i++)
		if (p->ports[i] == row->port)
			return true;
	/* Accepted by nobody here: the gateway's own end of a connection to an upstream. */
	return !(s->listening[row->port / 64] >> (row->port % 64) & 1);
}

static bool has_wanted(const struct seeds *s, const struct seeds_ports *p)
{
	for (size_t i = 0; i < s->sockets.count; i++)
		if (is_wanted(s, p, &s->sockets.rows[i]))
			return true;
	return false;
}

/* Rows may have been added in the middle of a process: then the table is read again. */
static int begin(struct seeds *s, const struct seed *seed)
{
	int r = s->is_read && s->walk.dir ? 0 : read_sockets(s, seed->pid);

	if (r < 0 || s->walk.dir)
		return r;
	if (!has_wanted(s, &s->gateways[seed->gateway]))
		return -ENOENT;
	return sockets_walk_open(seed->pid, &s->walk);
}

static void next_process(struct seeds *s)
{
	sockets_walk_close(&s->walk);
	if (++s->head < s->count)
		return;
	s->head = s->count = 0;
	forget_sockets(s);
}

bool seeds_step(struct seeds *s, uint64_t budget_ns, void (*fn)(void *data, pid_t pid, int fd),
		void *data)
{
	uint64_t end_ns = clock_mono_ns() + budget_ns, inode;
	int fd;

	for (unsigned int i = 1; s->count; i++) {
		const struct seed *seed = &s->rows[s->head];

		if (i % CLOCK_EVERY == 0 && clock_mono_ns() >= end_ns)
			return true;
		/* Whatever cannot be looked at is gone, or was never ours. */
		if (begin(s, seed) < 0 || !sockets_walk_next(&s->walk, &fd, &inode))
			next_process(s);
		else if (is_wanted(s, &s->gateways[seed->gateway],
				   sockets_find(&s->sockets, inode)))
			fn(data, seed->pid, fd);
	}
	return false;
}
