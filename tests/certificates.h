/* SPDX-License-Identifier: Apache-2.0 */
/* Authorities and certificates made by a test, so that no key lies in the repository and nothing
 * expires one day. */
#pragma once

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct authority {
	gnutls_x509_crt_t certificate;
	gnutls_x509_privkey_t key;
};

struct certificate_spec {
	const char *dns, *uri;
	const char *ip;      /* 4 bytes */
	const char *purpose; /* NULL: client and server */
	int is_expired;
};

/* A test cannot go on without: the caller's place does not matter. */
static inline void certificate_must(int r, const char *what)
{
	if (r >= 0)
		return;
	fprintf(stderr, "# %s: %s\n", what, gnutls_strerror(r));
	abort();
}

static inline gnutls_x509_privkey_t certificate_key(void)
{
	gnutls_x509_privkey_t key;

	certificate_must(gnutls_x509_privkey_init(&key), "key");
	certificate_must(
		gnutls_x509_privkey_generate(key, GNUTLS_PK_ECDSA,
					     GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0),
		"key");
	return key;
}

static inline gnutls_x509_crt_t certificate_begin(const char *dn, gnutls_x509_privkey_t key)
{
	static unsigned char serial = 1;
	gnutls_x509_crt_t c;

	certificate_must(gnutls_x509_crt_init(&c), "certificate");
	certificate_must(gnutls_x509_crt_set_version(c, 3), "version");
	certificate_must(gnutls_x509_crt_set_serial(c, &serial, 1), "serial");
	certificate_must(gnutls_x509_crt_set_dn(c, dn, NULL), "name");
	certificate_must(gnutls_x509_crt_set_key(c, key), "key");
	gnutls_x509_crt_set_activation_time(c, time(NULL) - 7200);
	gnutls_x509_crt_set_expiration_time(c, time(NULL) + 7200);
	serial++;
	return c;
}

static inline void certificate_write(const char *path, const gnutls_datum_t *pem)
{
	FILE *f = fopen(path, "we");

	if (!f || fwrite(pem->data, 1, pem->size, f) != pem->size || fclose(f) == EOF)
		abort();
}

static inline struct authority authority_new(const char *dn)
{
	struct authority a = {.key = certificate_key()};

	a.certificate = certificate_begin(dn, a.key);
	certificate_must(gnutls_x509_crt_set_ca_status(a.certificate, 1), "authority");
	certificate_must(gnutls_x509_crt_set_key_usage(a.certificate, GNUTLS_KEY_KEY_CERT_SIGN),
			 "usage");
	certificate_must(
		gnutls_x509_crt_sign2(a.certificate, a.certificate, a.key, GNUTLS_DIG_SHA256, 0),
		"signature");
	return a;
}

static inline void authority_free(struct authority *a)
{
	gnutls_x509_crt_deinit(a->certificate);
	gnutls_x509_privkey_deinit(a->key);
}

/* Writes ca.pem, cert.pem and key.pem into a directory. trusted: the authority in ca.pem. */
static inline void certificate_make(const struct authority *signer, const struct authority *trusted,
				    const struct certificate_spec *spec, const char *dir)
{
	gnutls_x509_privkey_t key = certificate_key();
	gnutls_x509_crt_t c = certificate_begin("CN=a test", key);
	gnutls_datum_t pem;
	char path[256];

	if (spec->dns)
		certificate_must(gnutls_x509_crt_set_subject_alt_name(c, GNUTLS_SAN_DNSNAME,
								      spec->dns, strlen(spec->dns),
								      GNUTLS_FSAN_APPEND),
				 "dns");
	if (spec->uri)
		certificate_must(gnutls_x509_crt_set_subject_alt_name(c, GNUTLS_SAN_URI, spec->uri,
								      strlen(spec->uri),
								      GNUTLS_FSAN_APPEND),
				 "uri");
	if (spec->ip)
		certificate_must(gnutls_x509_crt_set_subject_alt_name(
					 c, GNUTLS_SAN_IPADDRESS, spec->ip, 4, GNUTLS_FSAN_APPEND),
				 "ip");
	if (spec->purpose)
		certificate_must(gnutls_x509_crt_set_key_purpose_oid(c, spec->purpose, 0),
				 "purpose");
	if (spec->is_expired)
		gnutls_x509_crt_set_expiration_time(c, time(NULL) - 3600);
	certificate_must(
		gnutls_x509_crt_sign2(c, signer->certificate, signer->key, GNUTLS_DIG_SHA256, 0),
		"signature");
	snprintf(path, sizeof(path), "%s/ca.pem", dir);
	certificate_must(gnutls_x509_crt_export2(trusted->certificate, GNUTLS_X509_FMT_PEM, &pem),
			 "pem");
	certificate_write(path, &pem);
	gnutls_free(pem.data);
	snprintf(path, sizeof(path), "%s/cert.pem", dir);
	certificate_must(gnutls_x509_crt_export2(c, GNUTLS_X509_FMT_PEM, &pem), "pem");
	certificate_write(path, &pem);
	gnutls_free(pem.data);
	snprintf(path, sizeof(path), "%s/key.pem", dir);
	certificate_must(gnutls_x509_privkey_export2(key, GNUTLS_X509_FMT_PEM, &pem), "pem");
	certificate_write(path, &pem);
	gnutls_free(pem.data);
	gnutls_x509_crt_deinit(c);
	gnutls_x509_privkey_deinit(key);
}
