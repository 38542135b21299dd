/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the listeners of one process share: who came in, who was refused and why, and a limit of TLS
 * handshakes that are not done. The oldest of them gives way when it has had its time and others
 * wait, so that silent connections shut nobody out. One thread; its counts may be read by others.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TURNSTILE_HALF_MOST 512
/* Who comes has something to say. Who said it may have to wait for his own like: 512 handshakes at
 * 0.8 ms, where both ends may be busy. */
#define TURNSTILE_SILENT_NS 2000000000ull
#define TURNSTILE_SPOKEN_NS 4000000000ull

/* A handshake costs the door more than it costs a stranger. Of a host that failed so many more than it
 * may a second new ones are closed at once while a quarter of the places is taken: before that the door
 * keeps up, and behind one address (NAT, a balancer) honest agents may sit beside who fails. For their
 * sake a host is not charged for a while after one of them came in. */
#define TURNSTILE_DEBT_MOST  500
#define TURNSTILE_DEBT_A_S   50 /* at 0.6 ms: a thirtieth of a core */
#define TURNSTILE_TRUST_NS   (10 * 1000000000ull)
#define TURNSTILE_HOSTS      1024 /* that are remembered; the least indebted give way */
#define TURNSTILE_HOSTS_WAYS 4

enum turnstile_reason {
	TURNSTILE_TLS,         /* no TLS, or nothing in common */
	TURNSTILE_CERTIFICATE, /* none, not valid, of another authority, or it names nobody */
	TURNSTILE_HANDSHAKE,   /* no SP, or another protocol of it */
	TURNSTILE_TIMEOUT,     /* not done with its handshakes in time */
	TURNSTILE_EVICTED,     /* the same, and others waited for its place */
	TURNSTILE_PROTOCOL,    /* malformed, or it spoke where it only listens */
	TURNSTILE_SIZE,        /* a message larger than allowed */
	TURNSTILE_SLOW,        /* a message begun and not ended in its time */
	TURNSTILE_FULL,        /* too many connections */
	TURNSTILE_THROTTLED,   /* its host failed too many TLS handshakes lately, and others wait */
	TURNSTILE_MEMORY,      /* of the process, or the budget of half-read messages */
	TURNSTILE_GONE,        /* it had left before it was looked at; not told */
	TURNSTILE_REASONS
};

/* For labels; and for the log, where nobody knows better. */
extern const char *const turnstile_reason_names[TURNSTILE_REASONS];
extern const char *const turnstile_reason_texts[TURNSTILE_REASONS];

/* Only grow. May lie in shared memory: one process writes, word by word. */
struct turnstile_counts {
	uint64_t accepted;
	uint64_t handshakes_full, handshakes_resumed; /* TLS, done */
	uint64_t refused[TURNSTILE_REASONS];
};

/* A connection in its TLS handshake; inside its owner. */
struct turnstile_place {
	struct turnstile_place *prev, *next;
	uint64_t since_ns;
	void (*evict)(struct turnstile_place *place); /* must leave */
	bool is_in, has_spoken;
};

/* An address, of IPv6 its first 64 bits. */
struct turnstile_host {
	uint64_t key;                  /* 0: none */
	uint64_t since_ns, trusted_ns; /* until when it is not charged */
	uint32_t debt;                 /* at since_ns */
};

struct turnstile_queue {
	struct turnstile_place *oldest, *newest;
};

struct turnstile {
	struct turnstile_counts *counts; /* NULL: own */
	/* May be NULL. where: which listener; peer: its address, "" over ipc. */
	void (*on_refused)(void *data, enum turnstile_reason reason, const char *where,
			   const char *peer, const char *why);
	void *data;
	unsigned int half_most; /* 0: TURNSTILE_HALF_MOST */
	/* own */
	struct turnstile_counts own;
	struct turnstile_queue silent, spoken;
	unsigned int half; /* in both */
	struct turnstile_host hosts[TURNSTILE_HOSTS];
};

/* All of them take NULL for t, and do nothing (turnstile_has_room: true). */
void turnstile_accepted(struct turnstile *t);
void turnstile_gone(struct turnstile *t);
void turnstile_secured(struct turnstile *t, bool is_resumed);
/* why: "" is the reason's own text. */
void turnstile_refuse(struct turnstile *t, enum turnstile_reason reason, const char *where,
		      const char *peer, const char *why);

/* peer: "192.0.2.1:5000", "[2001:db8::1]:5000". A TLS handshake with it failed, or was done; whether to
 * begin one. */
void turnstile_charge(struct turnstile *t, const char *peer, uint64_t now_ns);
void turnstile_trust(struct turnstile *t, const char *peer, uint64_t now_ns);
bool turnstile_is_free(const struct turnstile *t, const char *peer, uint64_t now_ns);

void turnstile_enter(struct turnstile *t, struct turnstile_place *p, uint64_t now_ns);
/* Bytes of it came. */
void turnstile_heard(struct turnstile *t, struct turnstile_place *p, uint64_t now_ns);
void turnstile_leave(struct turnstile *t, struct turnstile_place *p);
/* For one more handshake; may evict. False: let it wait in the backlog. */
bool turnstile_has_room(struct turnstile *t, uint64_t now_ns);

/* Of counts that another process may be writing. */
void turnstile_counts_read(const struct turnstile_counts *c, struct turnstile_counts *ret);
