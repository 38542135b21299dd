/* SPDX-License-Identifier: Apache-2.0 */
/*
 * host.seg, as far as a gateway needs it: is this gateway being drained? The file is the agent's, in
 * a directory that only the agent may write to; it never shrinks, a new one takes its path.
 */
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOOK_NS  1000000000ull  /* how often for another file */
#define STALE_NS 10000000000ull /* an agent that says nothing for so long drains nobody */

struct host {
	const struct segment_header *h;
	size_t bytes;
	ino_t inode;
	uint64_t looked_ns;
	const struct segment_gateway *ours;
};

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void unmap(struct host *host)
{
	if (host->h)
		munmap((void *)(uintptr_t)host->h, host->bytes);
	host->h = NULL;
	host->ours = NULL;
}

static bool is_sound(const struct segment_header *h, size_t bytes)
{
	return h->magic == SEGMENT_MAGIC && h->version == SEGMENT_VERSION &&
	       h->endian == SEGMENT_ENDIAN && h->kind == SEGMENT_HOST &&
	       h->gateways_capacity <= SEGMENT_GATEWAYS && h->gateways_offset % 8 == 0 &&
	       h->gateways_offset <= bytes &&
	       h->gateways_capacity * sizeof(struct segment_gateway) <= bytes - h->gateways_offset;
}

static void look(struct tidegate *t, struct host *host)
{
	char path[sizeof(t->dir) + 16];
	struct stat st;
	void *map;
	int fd;

	/* dir is …/app */
	snprintf(path, sizeof(path), "%.*s/host.seg", (int)(strlen(t->dir) - 4), t->dir);
	/* Gone from here, after chroot() perhaps: what is mapped says itself when its writer is dead. */
	if (stat(path, &st) < 0 || (host->h && st.st_ino == host->inode))
		return;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return;
	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size >= SEGMENT_HEADER_BYTES) {
		map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
		if (map != MAP_FAILED) {
			unmap(host);
			host->h = map;
			host->bytes = (size_t)st.st_size;
			host->inode = st.st_ino;
			if (!is_sound(host->h, host->bytes))
				unmap(host);
		}
	}
	close(fd);
}

/* By master; else the only live one of our name. */
static const struct segment_gateway *find_ours(const struct tidegate *t, const struct host *host)
{
	const struct segment_gateway *g =
		(const void *)((const char *)host->h + host->h->gateways_offset);
	const struct segment_gateway *other = NULL;
	uint32_t pid = (uint32_t)getpid(), parent = (uint32_t)getppid(), others = 0;
	uint32_t n = __atomic_load_n(&host->h->gateways_count, __ATOMIC_ACQUIRE);

	for (uint32_t i = 0; i < n && i < host->h->gateways_capacity; i++) {
		if (g[i].state != SEGMENT_GATEWAY_LIVE)
			continue;
		if (g[i].master_pid == pid || g[i].master_pid == parent)
			return &g[i];
		if (t->gateway[0] && strncmp(g[i].name, t->gateway, sizeof(g[i].name)) != 0)
			continue;
		other = &g[i];
		others++;
	}
	return others == 1 && t->gateway[0] ? other : NULL;
}

HIDDEN void host_look(struct tidegate *t)
{
	if (!t->host)
		t->host = calloc(1, sizeof(*t->host));
	if (!t->host)
		return;
	t->host->looked_ns = now_ns();
	look(t, t->host);
	t->host->ours = t->host->h ? find_ours(t, t->host) : NULL;
}

HIDDEN bool host_is_draining(struct tidegate *t)
{
	uint64_t now = now_ns(), heartbeat;
	struct host *host;

	if (!t->host || now - t->host->looked_ns >= LOOK_NS)
		host_look(t);
	host = t->host;
	if (!host || !host->ours || !__atomic_load_n(&host->ours->draining, __ATOMIC_ACQUIRE))
		return false;
	heartbeat = __atomic_load_n(&host->h->heartbeat_ns, __ATOMIC_RELAXED);
	return now < heartbeat || now - heartbeat < STALE_NS;
}

HIDDEN void host_close(struct tidegate *t)
{
	if (t->host)
		unmap(t->host);
	free(t->host);
	t->host = NULL;
}
