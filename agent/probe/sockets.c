/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets of a namespace from /proc. No state. Runs in the keeper and in doctor. */
#include "probe/sockets.h"

#include "base/cleanup.h"
#include "base/str.h"
#include "probe/queue.h"
#include "probe/system.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TCP_STATE_ESTABLISHED 0x01
#define TCP_STATE_CLOSE_WAIT  0x08
#define TCP_STATE_LISTEN      0x0a
#define UNIX_FLAG_LISTENING   0x10000
#define UNIX_STATE_CONNECTED  3

static int add(struct sockets *s, uint64_t inode, uint16_t port, enum socket_state state)
{
	struct socket_row *rows;

	if (s->count == SOCKETS_MAX) {
		s->refused++;
		return 0;
	}
	if (s->count == s->cap) {
		rows = realloc(s->rows, (s->cap ? s->cap * 2 : 256) * sizeof(*rows));
		if (!rows)
			return -ENOMEM;
		s->rows = rows;
		s->cap = s->cap ? s->cap * 2 : 256;
	}
	s->rows[s->count++] = (struct socket_row){.inode = inode, .port = port, .state = state};
	return 0;
}

static int tcp_line(struct sockets *s, const char *line)
{
	unsigned int port, state;
	uint64_t inode;

	if (sscanf(line, " %*d: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x %*s %*s %*s %*d %*d %" SCNu64,
		   &port, &state, &inode) != 3)
		return 0;
	if (state == TCP_STATE_LISTEN)
		return add(s, inode, (uint16_t)port, SOCKET_LISTENING);
	if (state == TCP_STATE_ESTABLISHED || state == TCP_STATE_CLOSE_WAIT)
		return add(s, inode, (uint16_t)port, SOCKET_CONNECTED);
	return 0;
}

/* Only accepted or listening sockets carry a path. */
static int unix_line(struct sockets *s, const char *line)
{
	unsigned int flags, type, state;
	char path[8] = "";
	uint64_t inode;

	if (sscanf(line, "%*[0-9a-f]: %*x %*x %x %x %x %" SCNu64 " %7s", &flags, &type, &state,
		   &inode, path) < 5 ||
	    !path[0])
		return 0;
	if (flags & UNIX_FLAG_LISTENING)
		return add(s, inode, 0, SOCKET_LISTENING);
	if (state == UNIX_STATE_CONNECTED)
		return add(s, inode, 0, SOCKET_CONNECTED);
	return 0;
}

static int read_table(struct sockets *s, pid_t pid, const char *name,
		      int (*fn)(struct sockets *s, const char *line))
{
	char path[64], line[512];
	_cleanup_file_ FILE *f = NULL;
	int r = 0;

	snprintf(path, sizeof(path), "/proc/%d/net/%s", (int)pid, name);
	f = fopen(path, "re");
	if (!f)
		return errno == ENOENT ? 0 : -errno;
	while (r >= 0 && fgets(line, sizeof(line), f))
		r = fn(s, line);
	return r;
}

static int compare_rows(const void *a, const void *b)
{
	const struct socket_row *x = a, *y = b;

	return (x->inode > y->inode) - (x->inode < y->inode);
}

static int give(struct sockets *s, int r, struct sockets *ret)
{
	if (r < 0) {
		sockets_fini(s);
		return r;
	}
	if (s->count)
		qsort(s->rows, s->count, sizeof(s->rows[0]), compare_rows);
	*ret = *s;
	return 0;
}

int sockets_read(pid_t pid, struct sockets *ret)
{
	struct sockets s = {0};
	int r;

	r = read_table(&s, pid, "tcp", tcp_line);
	if (r >= 0)
		r = read_table(&s, pid, "tcp6", tcp_line);
	if (r >= 0)
		r = read_table(&s, pid, "unix", unix_line);
	return give(&s, r, ret);
}

/* -ENOTSUP: sock_diag does not tell of that process's listeners, or not of all. */
static int ask_listeners(struct sockets *s, pid_t pid)
{
	struct queues *q;
	struct queue *rows;
	uint64_t namespace;
	size_t n;
	int r;

	if (system_net_namespace(pid, &namespace) < 0 || namespace || queues_open(&q, NULL) < 0)
		return -ENOTSUP;
	r = queues_read(q) < 0 || queues_refused(q) ? -ENOTSUP : 0;
	rows = queues_rows(q, &n);
	for (size_t i = 0; i < n && r >= 0; i++)
		r = add(s, rows[i].state.inode, rows[i].state.port, SOCKET_LISTENING);
	queues_close(q);
	return r;
}

int sockets_read_listeners(pid_t pid, struct sockets *ret)
{
	struct sockets s = {0};
	int r = ask_listeners(&s, pid);

	if (r == -ENOTSUP)
		return sockets_read(pid, ret);
	if (r >= 0)
		r = read_table(&s, pid, "unix", unix_line);
	return give(&s, r, ret);
}

void sockets_fini(struct sockets *s)
{
	free(s->rows);
	*s = (struct sockets){0};
}

const struct socket_row *sockets_find(const struct sockets *s, uint64_t inode)
{
	struct socket_row key = {.inode = inode};

	return s->count ? bsearch(&key, s->rows, s->count, sizeof(key), compare_rows) : NULL;
}

int sockets_walk_open(pid_t pid, struct sockets_walk *ret)
{
	char path[64];
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	dir = opendir(path);
	if (!dir)
		return errno == ENOENT ? -ESRCH : -errno;
	ret->dir = dir;
	return 0;
}

bool sockets_walk_next(struct sockets_walk *w, int *ret_fd, uint64_t *ret_inode)
{
	static const char prefix[] = "socket:[";
	const struct dirent *entry;
	char target[64];

	while ((entry = readdir(w->dir))) {
		ssize_t n;

		if (entry->d_name[0] == '.')
			continue;
		n = readlinkat(dirfd(w->dir), entry->d_name, target, sizeof(target) - 1);
		if (n <= (ssize_t)strlen(prefix))
			continue;
		target[n] = '\0';
		if (!str_starts(target, prefix))
			continue;
		*ret_fd = atoi(entry->d_name);
		*ret_inode = strtoull(target + strlen(prefix), NULL, 10);
		return true;
	}
	return false;
}

void sockets_walk_close(struct sockets_walk *w)
{
	if (w->dir)
		closedir(w->dir);
	w->dir = NULL;
}

int sockets_each_fd(pid_t pid, void (*fn)(void *data, int fd, uint64_t inode), void *data)
{
	struct sockets_walk walk = {NULL};
	uint64_t inode;
	int fd, r;

	r = sockets_walk_open(pid, &walk);
	if (r < 0)
		return r;
	while (sockets_walk_next(&walk, &fd, &inode))
		fn(data, fd, inode);
	sockets_walk_close(&walk);
	return 0;
}
