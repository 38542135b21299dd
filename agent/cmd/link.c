/* SPDX-License-Identifier: Apache-2.0 */
/* Packets on the links between processes (cmd/daemon.h). No state. */
#include "cmd/daemon.h"

#include <errno.h>
#include <sys/socket.h>

int daemon_link_send(int fd, const char *json, size_t size)
{
	if (fd < 0)
		return -EAGAIN;
	if (size > DAEMON_LINK_BYTES)
		return -EMSGSIZE;
	if (send(fd, json, size, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	return (int)size;
}

int daemon_link_recv(int fd, char *buf, size_t size)
{
	ssize_t n;

	if (fd < 0)
		return -EAGAIN;
	n = recv(fd, buf, size - 1, MSG_DONTWAIT | MSG_TRUNC);
	if (n < 0)
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	if ((size_t)n >= size)
		return -EMSGSIZE;
	buf[n] = '\0';
	return (int)n;
}
