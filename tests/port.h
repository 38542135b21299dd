/* SPDX-License-Identifier: Apache-2.0 */
/* A TCP port of loopback that belongs to one test, so that tests may run side by side. */
#ifndef TESTS_PORT_H
#define TESTS_PORT_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

/*
 * Takes a free port and holds it with a socket that never listens: nobody else is given the port,
 * but whoever sets SO_REUSEADDR may listen on it, again and again. Returns the socket, or -1.
 */
static inline int port_hold(unsigned int *ret)
{
	struct sockaddr_in in = {.sin_family = AF_INET};
	socklen_t len = sizeof(in);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
	    bind(fd, (struct sockaddr *)&in, len) < 0 ||
	    getsockname(fd, (struct sockaddr *)&in, &len) < 0) {
		close(fd);
		return -1;
	}
	*ret = ntohs(in.sin_port);
	return fd;
}

#endif
