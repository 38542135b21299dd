/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS over one non-blocking socket: both sides show a certificate of the authority, 1.3 or 1.2,
 * tickets, no renegotiation. The descriptor stays the caller's. One thread.
 */
#pragma once

#include "bus/credentials.h"
#include "bus/passport.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

struct tls;

/* What a client kept of its last connection; all zero: nothing. */
struct tls_ticket {
	uint8_t *data;
	size_t size;
};
void tls_ticket_fini(struct tls_ticket *t);

int tls_open_server(struct credentials *c, int fd, struct tls **ret);
/* host: a name or an IP address, one that the server's certificate must hold. ticket may be NULL;
 * it is borrowed for the call. */
int tls_open_client(struct credentials *c, int fd, const char *host,
		    const struct tls_ticket *ticket, struct tls **ret);
/* Says goodbye if the socket takes it at once. NULL is fine; returns NULL. */
struct tls *tls_close(struct tls *t);

/* 0: done. -EAGAIN: go on when the socket is readable (tls_wants_write(): writable). -EPROTO: no
 * TLS, or nothing in common; -EACCES: no certificate, or one that is not accepted; or an errno of
 * the socket. tls_why() says it in words. */
int tls_handshake(struct tls *t);
bool tls_wants_write(const struct tls *t);
const char *tls_why(const struct tls *t);
bool tls_is_resumed(const struct tls *t);

/* Names of the peer's certificate; after the handshake. -EACCES: none that authorises anything. */
int tls_passport(struct tls *t, const char *peer, struct passport *ret);

/* Of a server: whether the peer would still be let in now, with the files now in use. A comparison
 * where neither they nor the time changed anything. -EACCES: no more, tls_why() says why. */
int tls_recheck(struct tls *t, struct credentials *c, int64_t now_s);

/* As recv() and sendmsg() with negative errno, 0 at the end. -EPROTO: damaged, or a renegotiation.
 * What tls_write() took is kept until the socket takes it: the caller need not repeat it, but calls
 * again (with n 0 when there is no more) once the socket is writable while tls_wants_write(). */
ssize_t tls_read(struct tls *t, void *buf, size_t size);
ssize_t tls_write(struct tls *t, const struct iovec *iov, size_t n);

/* For the next connection; of a client, once something was read. Keeps the old one on failure. */
void tls_keep_ticket(const struct tls *t, struct tls_ticket *ticket);
