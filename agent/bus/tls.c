/* SPDX-License-Identifier: Apache-2.0 */
/* One TLS session. Owns the GnuTLS session and a reference of its keyring. */
#include "bus/tls.h"

#include "base/cleanup.h"
#include "base/str.h"

#include <arpa/inet.h>
#include <errno.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <string.h>

#define TLS_MAGIC  0x544c5353u
#define RECORD_MAX 16384
/* Nothing before 1.2. Whoever wants 1.2 must know the safe renegotiation (never done) and the
 * extended master secret. */
#define PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:%SAFE_RENEGOTIATION"
/* A ticket stands for a certificate; it may not outlive its being looked at for long. */
#define TICKET_S 3600
#define SAN_MAX  64 /* names of one certificate that are looked at */

struct tls {
	uint32_t magic;
	gnutls_session_t session;
	struct keyring *keyring;
	struct keyring *trusted; /* the last that the peer was looked at with; NULL: keyring */
	int64_t expires_s;       /* the peer's certificate, of a server */
	bool is_server, is_done, has_unsent;
	gnutls_typed_vdata_st checks[2];
	char host[256];
	uint8_t ip[16];
	char why[160];
};

void tls_ticket_fini(struct tls_ticket *t)
{
	free(t->data);
	*t = (struct tls_ticket){0};
}

static int tls_fail(struct tls *t, int error)
{
	str_copy(t->why, sizeof(t->why), gnutls_strerror(error));
	switch (error) {
	case GNUTLS_E_CERTIFICATE_ERROR:
	case GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR:
	case GNUTLS_E_NO_CERTIFICATE_FOUND:
	case GNUTLS_E_CERTIFICATE_REQUIRED:
		return -EACCES;
	case GNUTLS_E_MEMORY_ERROR:
		return -ENOMEM;
	case GNUTLS_E_PUSH_ERROR:
	case GNUTLS_E_PULL_ERROR:
	case GNUTLS_E_PREMATURE_TERMINATION:
		return -ECONNRESET;
	case GNUTLS_E_FATAL_ALERT_RECEIVED:
		snprintf(t->why, sizeof(t->why), "the other side refuses: %s",
			 gnutls_alert_get_name(gnutls_alert_get(t->session)));
		return -EPROTO;
	default:
		return -EPROTO;
	}
}

/* Parsed once: it costs a tenth of a handshake. For the life of the process. */
static int set_priorities(gnutls_session_t session)
{
	static gnutls_priority_t parsed;

	if (!parsed && gnutls_priority_init(&parsed, PRIORITIES, NULL) < 0)
		return -EINVAL;
	return gnutls_priority_set(session, parsed);
}

static int tls_new(struct credentials *c, int fd, unsigned int flags, struct tls **ret)
{
	struct tls *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return -ENOMEM;
	t->magic = TLS_MAGIC;
	t->is_server = flags & GNUTLS_SERVER;
	r = gnutls_init(&t->session, flags | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL);
	if (r < 0) {
		free(t);
		return -ENOMEM;
	}
	t->keyring = credentials_keyring(c);
	if (set_priorities(t->session) < 0 ||
	    gnutls_credentials_set(t->session, GNUTLS_CRD_CERTIFICATE, t->keyring->x509) < 0) {
		tls_close(t);
		return -EINVAL;
	}
	gnutls_transport_set_int(t->session, fd);
	/* The caller's timer limits the whole handshake; this one would limit each step. */
	gnutls_handshake_set_timeout(t->session, 0);
	*ret = t;
	return 0;
}

int tls_open_server(struct credentials *c, int fd, struct tls **ret)
{
	struct tls *t;
	int r = tls_new(c, fd, GNUTLS_SERVER, &t);

	if (r < 0)
		return r;
	gnutls_certificate_server_set_request(t->session, GNUTLS_CERT_REQUIRE);
	gnutls_db_set_cache_expiration(t->session, TICKET_S);
	r = gnutls_session_ticket_enable_server(t->session, &t->keyring->ticket_key);
	if (r < 0) {
		tls_close(t);
		return -ENOMEM;
	}
	*ret = t;
	return 0;
}

static void expect_host(struct tls *t, const char *host)
{
	size_t ip_size = 0;

	str_copy(t->host, sizeof(t->host), host);
	if (inet_pton(AF_INET, host, t->ip) == 1)
		ip_size = 4;
	else if (inet_pton(AF_INET6, host, t->ip) == 1)
		ip_size = 16;
	if (ip_size) {
		t->checks[1] = (gnutls_typed_vdata_st){
			.type = GNUTLS_DT_IP_ADDRESS, .data = t->ip, .size = (unsigned int)ip_size};
		return;
	}
	t->checks[1] = (gnutls_typed_vdata_st){.type = GNUTLS_DT_DNS_HOSTNAME,
					       .data = (unsigned char *)t->host};
	gnutls_server_name_set(t->session, GNUTLS_NAME_DNS, t->host, strlen(t->host));
}

int tls_open_client(struct credentials *c, int fd, const char *host,
		    const struct tls_ticket *ticket, struct tls **ret)
{
	struct tls *t;
	int r = tls_new(c, fd, GNUTLS_CLIENT, &t);

	if (r < 0)
		return r;
	expect_host(t, host);
	/* One that is worth nothing any more costs a whole handshake, no more. */
	if (ticket && ticket->size)
		gnutls_session_set_data(t->session, ticket->data, ticket->size);
	*ret = t;
	return 0;
}

struct tls *tls_close(struct tls *t)
{
	if (!t)
		return NULL;
	CHECK(t->magic == TLS_MAGIC);
	t->magic = 0;
	if (t->is_done && !t->has_unsent)
		gnutls_bye(t->session, GNUTLS_SHUT_WR);
	gnutls_deinit(t->session);
	keyring_unref(t->keyring);
	keyring_unref(t->trusted);
	free(t);
	return NULL;
}

/* ---- handshake ---- */

static void say_status(struct tls *t, int error, unsigned int status)
{
	gnutls_datum_t text = {0};

	if (error < 0)
		str_copy(t->why, sizeof(t->why), gnutls_strerror(error));
	else if (gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0) ==
		 0)
		str_clean(t->why, sizeof(t->why), (const char *)text.data);
	gnutls_free(text.data);
}

/* Also after a resumption, where GnuTLS looks at nothing: the certificate may have expired since,
 * or its authority be gone. */
static int verify(struct tls *t)
{
	const char *purpose = t->is_server ? GNUTLS_KP_TLS_WWW_CLIENT : GNUTLS_KP_TLS_WWW_SERVER;
	unsigned int status = 0;
	int r;

	t->checks[0] = (gnutls_typed_vdata_st){.type = GNUTLS_DT_KEY_PURPOSE_OID,
					       .data = (unsigned char *)(uintptr_t)purpose};
	r = gnutls_certificate_verify_peers(t->session, t->checks, t->is_server ? 1 : 2, &status);
	if (r == 0 && !status)
		return 0;
	say_status(t, r, status);
	gnutls_alert_send(t->session, GNUTLS_AL_FATAL, GNUTLS_A_BAD_CERTIFICATE);
	return -EACCES;
}

int tls_handshake(struct tls *t)
{
	int r;

	CHECK(t->magic == TLS_MAGIC);
	if (t->is_done)
		return 0;
	do
		r = gnutls_handshake(t->session);
	while (r == GNUTLS_E_INTERRUPTED || r == GNUTLS_E_WARNING_ALERT_RECEIVED);
	if (r == GNUTLS_E_AGAIN)
		return -EAGAIN;
	if (r < 0) {
		if (gnutls_error_is_fatal(r))
			gnutls_alert_send_appropriate(t->session, r);
		return tls_fail(t, r);
	}
	r = verify(t);
	if (r == 0)
		t->is_done = true;
	return r;
}

bool tls_wants_write(const struct tls *t)
{
	return t->is_done ? t->has_unsent : gnutls_record_get_direction(t->session) == 1;
}

const char *tls_why(const struct tls *t)
{
	return t->why;
}

bool tls_is_resumed(const struct tls *t)
{
	return gnutls_session_is_resumed(t->session);
}

static void chain_free(gnutls_x509_crt_t *chain, unsigned int n)
{
	while (n)
		gnutls_x509_crt_deinit(chain[--n]);
}

/* What the peer showed: 1 to KEYRING_CHAIN_MAX certificates, its own first. */
static int chain_import(const struct tls *t, gnutls_x509_crt_t *chain, unsigned int *ret_n)
{
	unsigned int shown = 0, n = 0;
	const gnutls_datum_t *raw = gnutls_certificate_get_peers(t->session, &shown);

	if (!raw || !shown || shown > KEYRING_CHAIN_MAX)
		return -EACCES;
	for (; n < shown; n++) {
		if (gnutls_x509_crt_init(&chain[n]) < 0) {
			chain_free(chain, n);
			return -ENOMEM;
		}
		if (gnutls_x509_crt_import(chain[n], &raw[n], GNUTLS_X509_FMT_DER) < 0) {
			chain_free(chain, n + 1);
			return -EACCES;
		}
	}
	*ret_n = n;
	return 0;
}

static void add_names(gnutls_x509_crt_t certificate, struct passport *p)
{
	for (unsigned int i = 0; i < SAN_MAX; i++) {
		char name[512];
		size_t size = sizeof(name);
		int type = gnutls_x509_crt_get_subject_alt_name(certificate, i, name, &size, NULL);

		if (type == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
			return;
		if (type == GNUTLS_SAN_DNSNAME)
			passport_add_dns(p, name, size);
		else if (type == GNUTLS_SAN_URI)
			passport_add_uri(p, name, size);
	}
}

int tls_passport(struct tls *t, const char *peer, struct passport *ret)
{
	gnutls_x509_crt_t chain[KEYRING_CHAIN_MAX];
	unsigned int n;
	int r;

	CHECK(t->is_done);
	passport_init(ret, PASSPORT_NAMED, peer);
	r = chain_import(t, chain, &n);
	if (r < 0)
		return r;
	t->expires_s = (int64_t)gnutls_x509_crt_get_expiration_time(chain[0]);
	add_names(chain[0], ret);
	chain_free(chain, n);
	return ret->size ? 0 : -EACCES;
}

static int verify_with(struct tls *t, const struct keyring *k)
{
	gnutls_x509_crt_t chain[KEYRING_CHAIN_MAX];
	gnutls_x509_trust_list_t list;
	unsigned int n, status = 0;
	int r = chain_import(t, chain, &n);

	if (r < 0)
		return r;
	gnutls_certificate_get_trust_list(k->x509, &list);
	r = gnutls_x509_trust_list_verify_crt2(list, chain, n, t->checks, 1, 0, &status, NULL);
	chain_free(chain, n);
	if (r == 0 && !status)
		return 0;
	say_status(t, r, status);
	return -EACCES;
}

int tls_recheck(struct tls *t, struct credentials *c, int64_t now_s)
{
	struct keyring *k;
	int r = 0;

	CHECK(t->magic == TLS_MAGIC && t->is_server && t->is_done);
	if (now_s > t->expires_s) {
		str_copy(t->why, sizeof(t->why), "Its certificate has expired meanwhile.");
		return -EACCES;
	}
	k = credentials_keyring(c);
	if (k != (t->trusted ? t->trusted : t->keyring))
		r = verify_with(t, k);
	if (r < 0) {
		keyring_unref(k);
		return r;
	}
	keyring_unref(t->trusted);
	t->trusted = k;
	return 0;
}

/* ---- data ---- */

ssize_t tls_read(struct tls *t, void *buf, size_t size)
{
	ssize_t n;

	CHECK(t->magic == TLS_MAGIC);
	do
		n = gnutls_record_recv(t->session, buf, size);
	while (n == GNUTLS_E_INTERRUPTED);
	if (n == GNUTLS_E_AGAIN)
		return -EAGAIN;
	/* GNUTLS_E_REHANDSHAKE is no error to GnuTLS; to us it is: it changes who speaks. */
	return n < 0 ? tls_fail(t, (int)n) : n;
}

/* GnuTLS has encrypted it already and wants to be called with nothing new until it is gone. */
static int send_rest(struct tls *t)
{
	ssize_t n;

	if (!t->has_unsent)
		return 0;
	do
		n = gnutls_record_send(t->session, NULL, 0);
	while (n == GNUTLS_E_INTERRUPTED);
	if (n == GNUTLS_E_AGAIN)
		return -EAGAIN;
	if (n < 0)
		return tls_fail(t, (int)n);
	t->has_unsent = false;
	return 0;
}

ssize_t tls_write(struct tls *t, const struct iovec *iov, size_t n)
{
	static uint8_t record[RECORD_MAX]; /* one thread, and it is encrypted before this returns */
	size_t size = 0;
	ssize_t r = send_rest(t);

	if (r < 0)
		return r;
	for (size_t i = 0; i < n && size < sizeof(record); i++) {
		size_t part = iov[i].iov_len;

		if (part > sizeof(record) - size)
			part = sizeof(record) - size;
		memcpy(record + size, iov[i].iov_base, part);
		size += part;
	}
	if (!size)
		return 0;
	r = gnutls_record_send(t->session, record, size);
	if (r == GNUTLS_E_AGAIN || r == GNUTLS_E_INTERRUPTED) {
		t->has_unsent = true;
		return (ssize_t)size;
	}
	return r < 0 ? tls_fail(t, (int)r) : r;
}

void tls_keep_ticket(const struct tls *t, struct tls_ticket *ticket)
{
	gnutls_datum_t data = {0};
	uint8_t *copy;

	/* Without one in hand GnuTLS would wait for it. */
	if (gnutls_protocol_get_version(t->session) == GNUTLS_TLS1_3 &&
	    !(gnutls_session_get_flags(t->session) & GNUTLS_SFLAGS_SESSION_TICKET))
		return;
	if (gnutls_session_get_data2(t->session, &data) < 0)
		return;
	copy = malloc(data.size);
	if (copy) {
		memcpy(copy, data.data, data.size);
		free(ticket->data);
		*ticket = (struct tls_ticket){copy, data.size};
	}
	gnutls_free(data.data);
}
