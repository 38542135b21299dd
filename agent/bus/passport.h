/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who a request came from, as the door knows it and the core must: the names in the client's
 * certificate, and its address for the log. Pure.
 *
 * The door cannot judge alone: a request names its agent in the hello only, later a session number
 * stands for it, and numbers can be guessed. So the passport travels with every request (between
 * its backtrace and its payload) and the core asks it about the agent that the session belongs to.
 *
 *   u8 kind | u8 bytes of peer | u16 bytes of names | peer | names, each with its NUL
 *
 * A name authorises agent ids. "team-a" (a DNS name, or URI tidegate://agent/team-a): the id team-a
 * and those that begin with team-a/. URI tidegate://agent/team-a/: only the latter. URI
 * tidegate://agent/: every id. Bytes are compared as they are; a name with a wildcard, a percent
 * sign or a control character authorises nothing, because somebody would read it in another way.
 *
 * To speak as an aggregator (a hello that says `sums`) takes a name beside these: URI
 * tidegate://aggregator/ID, by the same rule. Sums count as those of many agents.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PASSPORT_PEER_MAX  63 /* "[2001:db8::1]:65535" */
#define PASSPORT_NAMES_MAX 1020
#define PASSPORT_BYTES_MAX (4 + PASSPORT_PEER_MAX + PASSPORT_NAMES_MAX)

enum passport_kind {
	PASSPORT_LOCAL = 0, /* loopback or a private directory, no TLS: may speak for every agent */
	PASSPORT_NAMED = 1, /* a checked certificate: only for whom its names authorise */
};

struct passport {
	uint8_t kind;
	char peer[PASSPORT_PEER_MAX + 1];
	char names[PASSPORT_NAMES_MAX]; /* each with its NUL */
	size_t size;                    /* of names */
};

/* peer is cut when it is too long. */
void passport_init(struct passport *p, enum passport_kind kind, const char *peer);

/* Adds a subject alternative name; those that authorise nothing are left out. -EINVAL: left out;
 * -ENOBUFS: no room, left out. A name comes with its length, because it may hold a NUL. */
int passport_add_dns(struct passport *p, const char *name, size_t size);
int passport_add_uri(struct passport *p, const char *uri, size_t size);

/* Whether a name authorises an id: the rule above, "" is every id. */
bool passport_name_covers(const char *name, const char *id);
bool passport_allows(const struct passport *p, const char *agent);
/* Whether it may speak for this id as an aggregator, too. */
bool passport_allows_sums(const struct passport *p, const char *id);
/* Whether one of the certificate's names lies under one of these; none listed: all. */
bool passport_is_under(const struct passport *p, const char *const *names, size_t n);

/* Bytes written. */
size_t passport_pack(const struct passport *p, uint8_t out[PASSPORT_BYTES_MAX]);
/* Bytes that it took of data, what follows is the payload; -EBADMSG. */
int passport_unpack(const uint8_t *data, size_t size, struct passport *ret);
