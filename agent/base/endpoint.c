/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses of clients. Keeps no state. */
#include "base/endpoint.h"

#include "base/cleanup.h"
#include "base/str.h"

#include <ctype.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

/* What the kernel keeps beyond what is on its way: more would hide from us whether a line moves. */
#define UNSENT_BYTES (64 << 10)

/* Letters, digits, hyphens, dots, and the underscores of service names. */
static bool is_host_name(const char *s)
{
	if (!isalnum((unsigned char)*s) && *s != '_')
		return false;
	for (; *s; s++)
		if (!isalnum((unsigned char)*s) && *s != '-' && *s != '.' && *s != '_')
			return false;
	return true;
}

/* 10.0.0.999 is a slip, not the name of a host: no name ends in a number. */
static bool ends_in_number(const char *host)
{
	const char *last = strrchr(host, '.');

	last = last ? last + 1 : host;
	return *last && strspn(last, "0123456789") == strlen(last);
}

static int split(const char *address, const char *s, struct endpoint *ret, struct err *e)
{
	const char *colon = strrchr(s, ':');
	uint64_t port;
	size_t len;

	if (!colon)
		return err_set(e, -EINVAL, "%.200s: no port; write tcp://host:9466", address);
	if (str_to_u64(colon + 1, &port) < 0 || !port || port > 65535)
		return err_set(e, -EINVAL, "%.200s: the port must be a number from 1 to 65535",
			       address);
	len = (size_t)(colon - s);
	if (len >= 2 && s[0] == '[' && s[len - 1] == ']') {
		s++;
		len -= 2;
	}
	if (!len || len > ENDPOINT_HOST_MAX)
		return err_set(e, -EINVAL, "%.200s: the host must have 1 to %d bytes", address,
			       ENDPOINT_HOST_MAX);
	memcpy(ret->host, s, len);
	ret->host[len] = '\0';
	ret->port = (uint16_t)port;
	return 0;
}

int endpoint_parse(const char *address, struct endpoint *ret, struct err *e)
{
	struct endpoint ep = {.is_tls = str_starts(address, "tls+")};
	const char *plain = ep.is_tls ? address + 4 : address, *scheme = strstr(plain, "://");
	int r;

	if (scheme && !str_starts(plain, "tcp://") && (ep.is_tls || !str_starts(plain, "ipc://")))
		return err_set(e, -EINVAL,
			       "%.200s: unknown scheme; tcp://, tls+tcp:// and ipc:// are known",
			       address);
	if (str_starts(plain, "ipc://")) {
		r = listen_parse(plain, &ep.address, e);
		ep.is_ipc = true;
	} else {
		r = split(address, scheme ? scheme + 3 : plain, &ep, e);
		ep.is_name = r == 0 && listen_parse(plain, &ep.address, NULL) < 0;
	}
	if (r < 0)
		return r;
	if (ep.is_name && (!is_host_name(ep.host) || ends_in_number(ep.host)))
		return err_set(e, -EINVAL, "%.200s: the host is no IP address and no name",
			       address);
	*ret = ep;
	return 0;
}

int endpoint_check_privacy(const struct endpoint *ep, const char *address, struct err *e)
{
	if (ep->is_tls || ep->is_ipc || (!ep->is_name && listen_is_loopback(&ep->address)))
		return 0;
	return err_set(e, -EPERM,
		       "%.200s: refused, it is not on this host's loopback and has no TLS; use "
		       "tls+tcp:// and set tls.ca_file, tls.cert_file and tls.key_file",
		       address);
}

int endpoint_connect(const struct sockaddr *addr, socklen_t len, int *ret_fd)
{
	const int on = 1, unsent = UNSENT_BYTES;
	_cleanup_close_ int fd = -1;
	int r = 0;

	fd = socket(addr->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (addr->sa_family != AF_UNIX) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent));
	}
	if (connect(fd, addr, len) < 0)
		r = -errno;
	if (r < 0 && r != -EINPROGRESS)
		return r;
	*ret_fd = TAKE_FD(fd);
	return r;
}
