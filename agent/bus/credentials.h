/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Certificate authority, certificate and key of one process, from three PEM files that may be
 * replaced under it (Kubernetes swaps a symlink above them). New files that do not fit together, or
 * cannot be read, leave the old ones in use. One thread.
 */
#pragma once

#include "base/err.h"

#include <gnutls/gnutls.h>
#include <stdint.h>

#define KEYRING_CHAIN_MAX 8 /* certificates in a chain that a peer may send */

struct credentials;

struct credentials_files {
	const char *ca, *certificate, *key; /* absolute paths, copied */
};

#define CREDENTIALS_SECRET 64

/* One set of files as it was read. Connections hold the one that they began with. */
struct keyring {
	unsigned int refs;
	gnutls_certificate_credentials_t x509;
	gnutls_datum_t ticket_key;   /* with new files old tickets are worth nothing */
	int64_t begins_s, expires_s; /* our own certificate, Unix time */
};

/* -EINVAL: a file is no PEM, or the key is another certificate's; errno of open() and read(). */
int credentials_open(const struct credentials_files *files, struct credentials **ret,
		     struct err *e);
/* For a server whose tickets shall outlive the process: secret is CREDENTIALS_SECRET random bytes that
 * the next one gets too, borrowed. The same files give the same ticket key, other files another. */
int credentials_open_lasting(const struct credentials_files *files, const uint8_t *secret,
			     struct credentials **ret, struct err *e);
struct credentials *credentials_close(struct credentials *c);

/* Call it about once a second: three stat(). 1: new files are in use. 0: nothing new. Negative: the
 * new files cannot be used, e says why; each change is told once. The same ones are tried once more,
 * silently (they may have been caught half written), and as long as it is no matter of what they hold. */
int credentials_refresh(struct credentials *c, struct err *e);
uint64_t credentials_loads(const struct credentials *c, uint64_t *ret_failures);
int64_t credentials_expires_s(const struct credentials *c);
/* How much of its life our own certificate has behind it; 1: it has expired. */
double credentials_lived_ratio(const struct credentials *c, int64_t now_s);

/* A reference, the caller's. */
struct keyring *credentials_keyring(struct credentials *c);
void keyring_unref(struct keyring *k);
