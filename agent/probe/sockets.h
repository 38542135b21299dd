/* SPDX-License-Identifier: Apache-2.0 */
/* The sockets of one network namespace, from /proc/PID/net: inode, local port, state. */
#pragma once

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SOCKETS_MAX 65536

enum socket_state { SOCKET_LISTENING, SOCKET_CONNECTED };

struct socket_row {
	uint64_t inode;
	uint16_t port; /* 0: unix */
	enum socket_state state;
};

struct sockets {
	struct socket_row *rows; /* sorted by inode */
	size_t count, cap;
	size_t refused; /* beyond SOCKETS_MAX */
};

/* Reads tcp, tcp6 and unix as pid sees them. -ENOMEM, -ESRCH. */
int sockets_read(pid_t pid, struct sockets *ret);
/* Listening ones, and unix ones, only: through sock_diag where pid is in our network namespace, since
 * the kernel's table of connections takes milliseconds to walk even when it is empty. */
int sockets_read_listeners(pid_t pid, struct sockets *ret);
void sockets_fini(struct sockets *s);
const struct socket_row *sockets_find(const struct sockets *s, uint64_t inode);

/* Descriptors of a process that are sockets, one after the other. Needs the right to look into another
 * user's process (CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH). */
struct sockets_walk {
	DIR *dir; /* NULL: closed */
};
int sockets_walk_open(pid_t pid, struct sockets_walk *ret);
bool sockets_walk_next(struct sockets_walk *w, int *ret_fd, uint64_t *ret_inode);
void sockets_walk_close(struct sockets_walk *w);
int sockets_each_fd(pid_t pid, void (*fn)(void *data, int fd, uint64_t inode), void *data);
