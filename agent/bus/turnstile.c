/* SPDX-License-Identifier: Apache-2.0 */
/* Counts at the listeners, and the list of TLS handshakes that are not done. Pure. */
#include "bus/turnstile.h"

#include "base/clock.h"
#include "base/err.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#define KEY_IPV4 (1ull << 32)

const char *const turnstile_reason_names[TURNSTILE_REASONS] = {
	[TURNSTILE_TLS] = "tls",
	[TURNSTILE_CERTIFICATE] = "certificate",
	[TURNSTILE_HANDSHAKE] = "handshake",
	[TURNSTILE_TIMEOUT] = "timeout",
	[TURNSTILE_EVICTED] = "evicted",
	[TURNSTILE_PROTOCOL] = "protocol",
	[TURNSTILE_SIZE] = "size",
	[TURNSTILE_SLOW] = "slow",
	[TURNSTILE_FULL] = "full",
	[TURNSTILE_THROTTLED] = "throttled",
	[TURNSTILE_MEMORY] = "memory",
	[TURNSTILE_GONE] = "gone",
};

const char *const turnstile_reason_texts[TURNSTILE_REASONS] = {
	[TURNSTILE_TLS] = "no TLS that is known here",
	[TURNSTILE_CERTIFICATE] = "the certificate names nobody who is let in here",
	[TURNSTILE_HANDSHAKE] = "no SP handshake, or another protocol's",
	[TURNSTILE_TIMEOUT] = "the handshake took too long",
	[TURNSTILE_EVICTED] = "the handshake took long and others waited",
	[TURNSTILE_PROTOCOL] = "malformed, or it spoke where it may only listen",
	[TURNSTILE_SIZE] = "a message is larger than allowed",
	[TURNSTILE_SLOW] = "a message was begun and not ended",
	[TURNSTILE_FULL] = "too many connections",
	[TURNSTILE_THROTTLED] = "its host failed too many TLS handshakes",
	[TURNSTILE_MEMORY] = "no memory left for it",
	[TURNSTILE_GONE] = "it had left",
};

/* One writer: it needs no addition that is atomic, readers need words that are whole. */
static void count(uint64_t *n)
{
	__atomic_store_n(n, *n + 1, __ATOMIC_RELAXED);
}

static struct turnstile_counts *counts_of(struct turnstile *t)
{
	return t->counts ? t->counts : &t->own;
}

void turnstile_accepted(struct turnstile *t)
{
	if (t)
		count(&counts_of(t)->accepted);
}

void turnstile_gone(struct turnstile *t)
{
	if (t)
		count(&counts_of(t)->refused[TURNSTILE_GONE]);
}

void turnstile_secured(struct turnstile *t, bool is_resumed)
{
	if (!t)
		return;
	count(is_resumed ? &counts_of(t)->handshakes_resumed : &counts_of(t)->handshakes_full);
}

void turnstile_refuse(struct turnstile *t, enum turnstile_reason reason, const char *where,
		      const char *peer, const char *why)
{
	if (!t)
		return;
	count(&counts_of(t)->refused[reason]);
	if (t->on_refused)
		t->on_refused(t->data, reason, where, peer,
			      *why ? why : turnstile_reason_texts[reason]);
}

static unsigned int half_most(const struct turnstile *t)
{
	return t->half_most ? t->half_most : TURNSTILE_HALF_MOST;
}

/* ---- hosts ---- */

static uint64_t host_key(const char *peer)
{
	const char *colon = strrchr(peer, ':');
	struct in6_addr six;
	struct in_addr four;
	char host[64];
	uint64_t key;

	if (!colon)
		return 0;
	snprintf(host, sizeof(host), "%.*s", (int)(colon - peer), peer);
	if (inet_pton(AF_INET, host, &four) == 1)
		return KEY_IPV4 | four.s_addr;
	host[strcspn(host, "]")] = '\0';
	if (*host != '[' || inet_pton(AF_INET6, host + 1, &six) != 1)
		return 0;
	/* On a listener of both: its first half says nothing. */
	if (IN6_IS_ADDR_V4MAPPED(&six)) {
		memcpy(&four, six.s6_addr + 12, sizeof(four));
		return KEY_IPV4 | four.s_addr;
	}
	memcpy(&key, six.s6_addr, sizeof(key));
	return key ? key : 1;
}

static uint32_t debt_now(const struct turnstile_host *h, uint64_t now_ns)
{
	uint64_t paid =
		now_ns > h->since_ns ? (now_ns - h->since_ns) / (NS_PER_S / TURNSTILE_DEBT_A_S) : 0;

	return paid < h->debt ? h->debt - (uint32_t)paid : 0;
}

/* The host's place, or the one of the least debt where it would be. */
static unsigned int host_place(const struct turnstile *t, uint64_t key, uint64_t now_ns)
{
	unsigned int first = (unsigned int)(key * 0x9e3779b97f4a7c15ull >> 54) &
			     (TURNSTILE_HOSTS - 1) & ~(TURNSTILE_HOSTS_WAYS - 1u);
	unsigned int least = first;

	for (unsigned int i = first; i < first + TURNSTILE_HOSTS_WAYS; i++) {
		if (t->hosts[i].key == key)
			return i;
		if (debt_now(&t->hosts[i], now_ns) < debt_now(&t->hosts[least], now_ns))
			least = i;
	}
	return least;
}

void turnstile_charge(struct turnstile *t, const char *peer, uint64_t now_ns)
{
	uint64_t key = t ? host_key(peer) : 0;
	struct turnstile_host *h;
	uint32_t debt;

	if (!key)
		return;
	h = &t->hosts[host_place(t, key, now_ns)];
	if (h->key == key && now_ns < h->trusted_ns)
		return;
	debt = h->key == key ? debt_now(h, now_ns) : 0;
	*h = (struct turnstile_host){key, now_ns, 0, debt + (debt < TURNSTILE_DEBT_MOST)};
}

void turnstile_trust(struct turnstile *t, const char *peer, uint64_t now_ns)
{
	uint64_t key = t ? host_key(peer) : 0;
	struct turnstile_host *h;

	if (!key)
		return;
	h = &t->hosts[host_place(t, key, now_ns)];
	/* Thousands come in: none of them makes it forget who owes. */
	if (h->key != key && debt_now(h, now_ns))
		return;
	*h = (struct turnstile_host){key, now_ns, now_ns + TURNSTILE_TRUST_NS, 0};
}

bool turnstile_is_free(const struct turnstile *t, const char *peer, uint64_t now_ns)
{
	uint64_t key = t ? host_key(peer) : 0;
	const struct turnstile_host *h;

	if (!key || t->half < half_most(t) / 4)
		return true;
	h = &t->hosts[host_place(t, key, now_ns)];
	return h->key != key || debt_now(h, now_ns) < TURNSTILE_DEBT_MOST;
}

/* ---- handshakes ---- */

static void queue_add(struct turnstile *t, struct turnstile_place *p, uint64_t now_ns)
{
	struct turnstile_queue *q = p->has_spoken ? &t->spoken : &t->silent;

	p->since_ns = now_ns;
	p->next = NULL;
	p->prev = q->newest;
	if (q->newest)
		q->newest->next = p;
	else
		q->oldest = p;
	q->newest = p;
}

static void queue_remove(struct turnstile *t, struct turnstile_place *p)
{
	struct turnstile_queue *q = p->has_spoken ? &t->spoken : &t->silent;

	if (p->prev)
		p->prev->next = p->next;
	else
		q->oldest = p->next;
	if (p->next)
		p->next->prev = p->prev;
	else
		q->newest = p->prev;
}

void turnstile_enter(struct turnstile *t, struct turnstile_place *p, uint64_t now_ns)
{
	if (!t)
		return;
	CHECK(!p->is_in);
	p->is_in = true;
	p->has_spoken = false;
	queue_add(t, p, now_ns);
	t->half++;
}

void turnstile_heard(struct turnstile *t, struct turnstile_place *p, uint64_t now_ns)
{
	if (!t || !p->is_in || p->has_spoken)
		return;
	queue_remove(t, p);
	p->has_spoken = true;
	queue_add(t, p, now_ns);
}

void turnstile_leave(struct turnstile *t, struct turnstile_place *p)
{
	if (!t || !p->is_in)
		return;
	queue_remove(t, p);
	p->is_in = false;
	t->half--;
}

static bool is_over(const struct turnstile_place *p, uint64_t now_ns, uint64_t after_ns)
{
	return p && now_ns >= p->since_ns && now_ns - p->since_ns >= after_ns;
}

bool turnstile_has_room(struct turnstile *t, uint64_t now_ns)
{
	struct turnstile_place *p = NULL;

	if (!t || t->half < half_most(t))
		return true;
	if (is_over(t->silent.oldest, now_ns, TURNSTILE_SILENT_NS))
		p = t->silent.oldest;
	else if (is_over(t->spoken.oldest, now_ns, TURNSTILE_SPOKEN_NS))
		p = t->spoken.oldest;
	if (!p)
		return false;
	p->evict(p);
	return true;
}

void turnstile_counts_read(const struct turnstile_counts *c, struct turnstile_counts *ret)
{
	const uint64_t *from = &c->accepted;
	uint64_t *to = &ret->accepted;

	_Static_assert(sizeof(*c) % sizeof(*from) == 0, "words only");
	for (size_t i = 0; i < sizeof(*c) / sizeof(*from); i++)
		to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}
