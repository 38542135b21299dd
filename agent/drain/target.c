/* SPDX-License-Identifier: Apache-2.0 */
/* A gateway's process: is it there, signalling it, counting its connections. Steward. */
#include "drain/target.h"

#include "base/cleanup.h"
#include "base/str.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHILDREN_MAX 64
#define SOCKETS_MAX  65536

int target_start_time(uint32_t pid, uint64_t *ret_start)
{
	char path[40], text[1024], state;
	const char *p;
	uint64_t start;
	int r;

	snprintf(path, sizeof(path), "/proc/%" PRIu32 "/stat", pid);
	r = str_read_file(path, text, sizeof(text));
	if (r < 0)
		return r == -ENOENT ? -ESRCH : r;
	/* The name may hold anything, a closing parenthesis too: the last one counts. */
	p = strrchr(text, ')');
	if (!p || sscanf(p + 1,
			 " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d "
			 "%*d %" SCNu64,
			 &state, &start) != 2)
		return -EBADMSG;
	if (state == 'Z' || state == 'X')
		return -ESRCH;
	*ret_start = start;
	return 0;
}

bool target_is_alive(uint32_t pid, uint64_t start)
{
	uint64_t now;
	int r = target_start_time(pid, &now);

	return r == -ESRCH ? false : r < 0 || now == start;
}

int target_signal(uint32_t pid, uint64_t start, int signal)
{
	_cleanup_close_ int fd = -1;
	uint64_t now;
	int r;

	if (!pid || pid > INT32_MAX)
		return -ESRCH;
	fd = pidfd_open((pid_t)pid, 0);
	if (fd < 0)
		return -errno;
	/* Compared after the open: from here on the descriptor cannot change whom it means. */
	r = target_start_time(pid, &now);
	if (r < 0)
		return r;
	if (now != start)
		return -ESRCH;
	return pidfd_send_signal(fd, signal, NULL, 0) < 0 ? -errno : 0;
}

struct inodes {
	uint64_t *items;
	size_t count;
};

static int by_number(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static int collect_sockets(uint32_t pid, struct inodes *set)
{
	char path[40], link[64];
	_cleanup_dir_ DIR *dir = NULL;
	struct dirent *entry;

	snprintf(path, sizeof(path), "/proc/%" PRIu32 "/fd", pid);
	dir = opendir(path);
	if (!dir)
		return -errno;
	while ((entry = readdir(dir)) && set->count < SOCKETS_MAX) {
		ssize_t n = readlinkat(dirfd(dir), entry->d_name, link, sizeof(link) - 1);

		if (n <= 0)
			continue;
		link[n] = '\0';
		if (sscanf(link, "socket:[%" SCNu64 "]", &set->items[set->count]) == 1)
			set->count++;
	}
	return 0;
}

static size_t list_children(uint32_t pid, uint32_t children[CHILDREN_MAX])
{
	char path[64], text[4096];
	size_t n = 0;
	char *p = text, *end;

	snprintf(path, sizeof(path), "/proc/%" PRIu32 "/task/%" PRIu32 "/children", pid, pid);
	if (str_read_file(path, text, sizeof(text)) < 0)
		return 0;
	while (n < CHILDREN_MAX) {
		unsigned long child = strtoul(p, &end, 10);

		if (end == p)
			break;
		children[n++] = (uint32_t)child;
		p = end;
	}
	return n;
}

static int64_t count_established(uint32_t pid, const char *table, const struct inodes *set)
{
	char path[40], line[512];
	_cleanup_file_ FILE *f = NULL;
	int64_t count = 0;

	snprintf(path, sizeof(path), "/proc/%" PRIu32 "/net/%s", pid, table);
	f = fopen(path, "re");
	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f)) {
		unsigned int state;
		uint64_t inode;

		if (sscanf(line, " %*d: %*s %*s %x %*s %*s %*s %*u %*d %" SCNu64, &state, &inode) !=
		    2)
			continue;
		if (state == 1 && bsearch(&inode, set->items, set->count, sizeof(inode), by_number))
			count++;
	}
	return count;
}

int target_connections(uint32_t pid, int64_t *ret_count)
{
	_cleanup_free_ uint64_t *items = malloc(SOCKETS_MAX * sizeof(*items));
	struct inodes set = {.items = items};
	uint32_t children[CHILDREN_MAX];
	size_t n;
	int r;

	if (!items)
		return -ENOMEM;
	r = collect_sockets(pid, &set);
	if (r < 0)
		return r;
	n = list_children(pid, children);
	for (size_t i = 0; i < n; i++) {
		r = collect_sockets(children[i], &set);
		if (r < 0 && r != -ENOENT)
			return r;
	}
	qsort(set.items, set.count, sizeof(*set.items), by_number);
	*ret_count = count_established(pid, "tcp", &set) + count_established(pid, "tcp6", &set);
	return 0;
}
