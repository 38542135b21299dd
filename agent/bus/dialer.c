/* SPDX-License-Identifier: Apache-2.0 */
/* Connects, again and again. Owns the connection, the question to the resolver and the ticket. */
#include "bus/dialer.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/endpoint.h"
#include "base/resolver.h"
#include "base/str.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define DIALER_MAGIC   0x4449414cu
#define FIRST_WAIT_NS  (500 * NS_PER_MS)
#define QUEUE_MESSAGES 64

struct dialer {
	uint32_t magic;
	struct loop *loop;
	struct dialer_spec spec;
	void *data;
	struct endpoint endpoint;
	struct loop_watch *timer; /* the next try */
	struct resolver *question;
	struct resolver_address addresses[RESOLVER_ADDRESSES_MAX];
	size_t known; /* of the last answer, good also while nobody resolves: TLS knows its peer */
	size_t count, next; /* of this round; next: the one to be tried */
	struct peer *peer;
	struct tls_ticket ticket;
	uint64_t ticket_loads; /* of the credentials that it belongs to */
	uint64_t wait_ns, random;
	uint64_t number, pushed; /* messages and bytes, on this connection */
	struct dialer_stats stats;
};

static uint64_t random_next(struct dialer *d)
{
	d->random ^= d->random << 13;
	d->random ^= d->random >> 7;
	d->random ^= d->random << 17;
	return d->random;
}

/* Thousands lose an aggregator in one moment: the first wait already spreads them. */
static void wait_then_dial(struct dialer *d)
{
	uint64_t least = d->wait_ns / 8;

	loop_set_timer(d->timer, (least + random_next(d) % (d->wait_ns - least)) / NS_PER_MS + 1,
		       0);
	d->wait_ns = d->wait_ns * 2 > d->spec.backoff_ns ? d->spec.backoff_ns : d->wait_ns * 2;
	d->count = d->next = 0;
}

static void lost(struct dialer *d, const char *why)
{
	wait_then_dial(d);
	d->spec.on_lost(d->data, why);
}

/* ---- a connection ---- */

static const char *why_closed(const struct peer *peer, int r)
{
	/* Of a reset TLS says only that it could not read. */
	if (*peer_why(peer) && r != -ECONNRESET)
		return peer_why(peer);
	switch (r) {
	case -EPROTONOSUPPORT:
		return "it speaks another protocol of SP";
	case -EPROTO:
	case -EMSGSIZE:
		return "it does not speak SP";
	case -EACCES:
		return "its certificate is not accepted";
	case -ETIMEDOUT:
		return "no answer in time";
	default:
		return err_text(r);
	}
}

static void on_ready(void *data, struct peer *peer)
{
	struct dialer *d = data;

	CHECK(d->magic == DIALER_MAGIC);
	d->stats.connects++;
	d->stats.resumed += peer_is_resumed(peer);
	if (d->spec.on_ready)
		d->spec.on_ready(d->data);
}

static int on_message(void *data, struct peer *peer, const uint8_t *message, size_t size)
{
	struct dialer *d = data;

	(void)peer;
	return d->spec.on_message ? d->spec.on_message(d->data, message, size) : -EPROTO;
}

static void on_drained(void *data, struct peer *peer)
{
	struct dialer *d = data;

	(void)peer;
	if (d->spec.on_room)
		d->spec.on_room(d->data);
}

static void on_closed(void *data, struct peer *peer, int r)
{
	struct dialer *d = data;

	CHECK(d->magic == DIALER_MAGIC);
	d->peer = NULL;
	if (peer_is_ready(peer)) {
		lost(d, why_closed(peer, r));
		return;
	}
	d->stats.failures++;
	/* It may be the ticket that one of us does not like. */
	if (r == -EACCES || r == -EPROTO)
		tls_ticket_fini(&d->ticket);
	if (d->next < d->count)
		loop_set_timer(d->timer, 1, 0);
	else
		lost(d, why_closed(peer, r));
}

/* A ticket stands for the certificate that it was given to. */
static struct tls_ticket *ticket_now(struct dialer *d, const struct credentials *tls)
{
	uint64_t loads = credentials_loads(tls, NULL);

	if (d->ticket_loads != loads)
		tls_ticket_fini(&d->ticket);
	d->ticket_loads = loads;
	return &d->ticket;
}

static int connect_to(struct dialer *d, const struct resolver_address *a, struct credentials *tls)
{
	const struct peer_spec spec = {
		.self = d->spec.self,
		.expect = d->spec.expect,
		.is_ipc = d->endpoint.is_ipc,
		.message_max = d->spec.message_max,
		.queue_bytes = d->spec.queue_bytes,
		.queue_messages = QUEUE_MESSAGES,
		.tls = tls,
		.tls_host = d->endpoint.host,
		.tls_ticket = tls ? ticket_now(d, tls) : NULL,
		.on_ready = on_ready,
		.on_message = on_message,
		.on_drained = on_drained,
		.on_closed = on_closed,
	};
	int fd, r;

	r = endpoint_connect((const struct sockaddr *)&a->addr, a->len, &fd);
	if (r < 0 && r != -EINPROGRESS)
		return r;
	r = peer_open(d->loop, fd, &spec, r == -EINPROGRESS, d, &d->peer);
	if (r < 0)
		close(fd);
	d->number = d->pushed = 0;
	return r;
}

/* The next address that is not refused at once. */
static void try_next(struct dialer *d)
{
	struct credentials *tls = d->endpoint.is_tls && d->spec.tls ? *d->spec.tls : NULL;
	int r = -EADDRNOTAVAIL;

	if (d->endpoint.is_tls && !tls) {
		lost(d, "the TLS files cannot be read");
		return;
	}
	while (d->next < d->count) {
		r = connect_to(d, &d->addresses[d->next++], tls);
		if (r == 0)
			return;
		d->stats.failures++;
	}
	lost(d, err_text(r));
}

static void on_resolved(void *data, const struct resolver_address *addresses, size_t n,
			const char *why)
{
	struct dialer *d = data;

	CHECK(d->magic == DIALER_MAGIC);
	d->question = NULL;
	d->stats.failures += !n;
	if (n) {
		memcpy(d->addresses, addresses, n * sizeof(*addresses));
		d->known = n;
	}
	d->count = d->known;
	if (d->count)
		try_next(d);
	else
		lost(d, why);
}

static void on_timer(void *data)
{
	struct dialer *d = data;
	int r;

	CHECK(d->magic == DIALER_MAGIC);
	if (d->next < d->count) {
		try_next(d);
		return;
	}
	if (!d->endpoint.is_name) {
		const struct listen_address *a = &d->endpoint.address;

		d->addresses[0] = (struct resolver_address){a->addr, a->len};
		d->count = 1;
		d->next = 0;
		try_next(d);
		return;
	}
	r = resolver_ask(d->loop, d->endpoint.host, d->endpoint.port, on_resolved, d, &d->question);
	if (r < 0)
		lost(d, err_text(r));
}

/* ---- life ---- */

static void drop(struct dialer *d)
{
	d->peer = peer_close(d->peer);
	d->question = resolver_forget(d->question);
}

struct dialer *dialer_close(struct dialer *d)
{
	if (!d)
		return NULL;
	CHECK(d->magic == DIALER_MAGIC);
	drop(d);
	loop_remove(d->timer);
	tls_ticket_fini(&d->ticket);
	d->magic = 0;
	free(d);
	return NULL;
}

DEFINE_CLEANUP(struct dialer *, dialer_close)

int dialer_open(struct loop *loop, const struct dialer_spec *spec, void *data, struct dialer **ret,
		struct err *e)
{
	_cleanup_(dialer_close_p) struct dialer *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return err_set(e, -ENOMEM, "%.200s: out of memory", spec->address);
	d->magic = DIALER_MAGIC;
	d->loop = loop;
	d->spec = *spec;
	d->data = data;
	r = endpoint_parse(spec->address, &d->endpoint, e);
	if (r == 0)
		r = endpoint_check_privacy(&d->endpoint, spec->address, e);
	if (r < 0)
		return r;
	d->spec.address = NULL; /* the caller's, and the endpoint says it all */
	if (getrandom(&d->random, sizeof(d->random), 0) != sizeof(d->random) || !d->random)
		d->random = clock_mono_ns() | 1;
	if (d->spec.backoff_ns < 8 * NS_PER_MS)
		d->spec.backoff_ns = 8 * NS_PER_MS;
	dialer_prove(d);
	r = loop_add_timer(loop, 0, 0, on_timer, d, &d->timer);
	if (r < 0)
		return err_set(e, r, "%.200s: %s", spec->address, err_text(r));
	*ret = TAKE_PTR(d);
	return 0;
}

bool dialer_is_ready(const struct dialer *d)
{
	return d->peer && peer_is_ready(d->peer);
}

bool dialer_has_room(const struct dialer *d)
{
	const struct outbox *o;

	if (!dialer_is_ready(d))
		return false;
	o = peer_outbox(d->peer);
	return o->bytes <= o->limit / 2 && o->count <= o->most / 2;
}

int dialer_send(struct dialer *d, const void *a, size_t a_size, const void *b, size_t b_size,
		uint64_t *ret_number)
{
	struct parcel *p;
	int r;

	if (!dialer_is_ready(d))
		return -ENOTCONN;
	p = parcel_new(a, a_size, b, b_size, NULL);
	if (!p)
		return -ENOMEM;
	r = outbox_push(peer_outbox(d->peer), p);
	parcel_unref(p);
	if (r < 0)
		return r;
	d->pushed += a_size + b_size;
	*ret_number = ++d->number;
	peer_kick(d->peer);
	return 0;
}

uint64_t dialer_sent(const struct dialer *d)
{
	return d->peer ? peer_outbox(d->peer)->done : 0;
}

uint64_t dialer_progress(const struct dialer *d)
{
	const struct outbox *o;

	if (!d->peer)
		return 0;
	o = peer_outbox(d->peer);
	return d->pushed - o->bytes + o->sent;
}

void dialer_prove(struct dialer *d)
{
	d->wait_ns = d->spec.backoff_ns < FIRST_WAIT_NS ? d->spec.backoff_ns : FIRST_WAIT_NS;
}

void dialer_again(struct dialer *d)
{
	CHECK(d->magic == DIALER_MAGIC);
	drop(d);
	wait_then_dial(d);
}

void dialer_stats(const struct dialer *d, struct dialer_stats *ret)
{
	*ret = d->stats;
}
