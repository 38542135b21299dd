/* SPDX-License-Identifier: Apache-2.0 */
/* Listener of SP connections. Owns the listening socket and unlinks its ipc path. */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/listen.h"
#include "bus/peer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define ACCEPT_BACKLOG 4096
#define ACCEPT_BATCH   64 /* per event, so that a flood leaves time for those who are in */
#define STALL_MS       1000
#define ROOM_MS        10

struct acceptor {
	struct loop *loop;
	int fd;
	struct listen_address address;
	struct turnstile *turnstile;
	const char *where;
	struct loop_watch *watch, *timer;
	acceptor_fn fn;
	void *data;
	uint64_t stalls;
};

static void on_stall_over(void *data)
{
	struct acceptor *a = data;

	a->timer = loop_remove(a->timer);
	loop_set_events(a->watch, LOOP_READ);
}

/* The connection stays in the backlog, so the descriptor stays readable: without a pause this
 * would spin. */
static void rest(struct acceptor *a, unsigned int ms)
{
	if (a->timer)
		return;
	if (loop_add_timer(a->loop, ms, 0, on_stall_over, a, &a->timer) == 0)
		loop_set_events(a->watch, 0);
}

/* Where many wait in the backlog some lose their patience: a handshake with them costs a
 * millisecond, this a microsecond. */
static bool is_gone(int fd)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0 &&
	       info.tcpi_state != TCP_ESTABLISHED;
}

/* Before a handshake is begun with it. */
static bool is_welcome(struct acceptor *a, int fd)
{
	char peer[PASSPORT_PEER_MAX + 1];

	if (!a->turnstile)
		return true;
	if (is_gone(fd)) {
		turnstile_gone(a->turnstile);
		return false;
	}
	acceptor_peer_address(fd, peer, sizeof(peer));
	if (turnstile_is_free(a->turnstile, peer, clock_mono_ns()))
		return true;
	turnstile_refuse(a->turnstile, TURNSTILE_THROTTLED, a->where, peer, "");
	return false;
}

static void on_accept(void *data, int fd, unsigned int events)
{
	struct acceptor *a = data;
	const int on = 1, idle = 60, interval = 20, count = 3;

	(void)events;
	for (unsigned int i = 0; i < ACCEPT_BATCH; i++) {
		int peer;

		if (a->address.is_tls && !turnstile_has_room(a->turnstile, clock_mono_ns())) {
			rest(a, ROOM_MS);
			return;
		}
		peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (peer < 0) {
			if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
			    errno == ENOMEM) {
				a->stalls++;
				rest(a, STALL_MS);
			}
			if (errno == EINTR || errno == ECONNABORTED)
				continue;
			return;
		}
		if (a->address.is_tls && !is_welcome(a, peer)) {
			close(peer);
			continue;
		}
		if (!a->address.is_ipc) {
			setsockopt(peer, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
			setsockopt(peer, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
			setsockopt(peer, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
			setsockopt(peer, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
			setsockopt(peer, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
		}
		a->fn(a->data, peer);
	}
}

int acceptor_open(struct loop *loop, const char *address, bool has_tls, acceptor_fn fn, void *data,
		  struct acceptor **ret, struct err *e)
{
	_cleanup_free_ struct acceptor *a = calloc(1, sizeof(*a));
	int r;

	if (!a)
		return err_set(e, -ENOMEM, "%s: out of memory", address);
	r = listen_parse(address, &a->address, e);
	if (r < 0)
		return r;
	if (a->address.is_tls && !has_tls)
		return err_set(e, -EINVAL,
			       "%.200s: needs a certificate; set tls.ca_file, tls.cert_file and "
			       "tls.key_file",
			       address);
	r = listen_open_secured(address, ACCEPT_BACKLOG, &a->fd, e);
	if (r < 0)
		return r;
	a->loop = loop;
	a->fn = fn;
	a->data = data;
	r = loop_add_fd(loop, a->fd, LOOP_READ, on_accept, a, &a->watch);
	if (r < 0) {
		close(a->fd);
		return err_set(e, r, "%s: %s", address, err_text(r));
	}
	*ret = TAKE_PTR(a);
	return 0;
}

void acceptor_use_turnstile(struct acceptor *a, struct turnstile *turnstile, const char *where)
{
	a->turnstile = turnstile;
	a->where = where;
}

struct acceptor *acceptor_close(struct acceptor *a)
{
	if (!a)
		return NULL;
	loop_remove(a->watch);
	loop_remove(a->timer);
	close(a->fd);
	if (a->address.is_ipc)
		unlink(a->address.path);
	free(a);
	return NULL;
}

bool acceptor_is_ipc(const struct acceptor *a)
{
	return a->address.is_ipc;
}

bool acceptor_is_tls(const struct acceptor *a)
{
	return a->address.is_tls;
}

unsigned int acceptor_port(const struct acceptor *a)
{
	return listen_port(a->fd);
}

uint64_t acceptor_stalls(const struct acceptor *a)
{
	return a->stalls;
}

void acceptor_peer_address(int fd, char *buf, size_t size)
{
	struct sockaddr_storage ss = {0};
	socklen_t len = sizeof(ss);
	char host[INET6_ADDRSTRLEN];

	*buf = '\0';
	if (getpeername(fd, (struct sockaddr *)&ss, &len) < 0)
		return;
	if (ss.ss_family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)&ss;

		inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
		snprintf(buf, size, "%s:%u", host, ntohs(in->sin_port));
	} else if (ss.ss_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&ss;

		inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
		snprintf(buf, size, "[%s]:%u", host, ntohs(in6->sin6_port));
	}
}
