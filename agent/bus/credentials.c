/* SPDX-License-Identifier: Apache-2.0 */
/* Loads and reloads TLS files. Owns the keyring in use. */
#include "bus/credentials.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/x509.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>

#define FILE_MAX (1u << 20) /* a bundle of authorities is about 250 kB */

enum { FILE_CA, FILE_CERTIFICATE, FILE_KEY, FILES };

/* What changes when a file, or a symlink on the way to it, is replaced or written to. */
struct fingerprint {
	struct {
		dev_t dev;
		ino_t ino;
		off_t size;
		uint64_t modified_ns, changed_ns;
		int error;
	} files[FILES];
};

struct credentials {
	char *paths[FILES];
	const uint8_t *secret;
	struct keyring *keyring;
	struct fingerprint used, refused;
	unsigned int refusals; /* of those, one after the other; 0: refused holds nothing */
	int refused_r;
	uint64_t loads, failures;
};

static uint64_t time_ns(struct timespec t)
{
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static void fingerprint_take(const struct credentials *c, struct fingerprint *ret)
{
	memset(ret, 0, sizeof(*ret)); /* compared as bytes */
	for (unsigned int i = 0; i < FILES; i++) {
		struct stat st;

		if (stat(c->paths[i], &st) < 0) {
			ret->files[i].error = errno;
			continue;
		}
		ret->files[i].dev = st.st_dev;
		ret->files[i].ino = st.st_ino;
		ret->files[i].size = st.st_size;
		ret->files[i].modified_ns = time_ns(st.st_mtim);
		ret->files[i].changed_ns = time_ns(st.st_ctim);
	}
}

static bool fingerprint_equal(const struct fingerprint *a, const struct fingerprint *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

/* ---- a keyring ---- */

void keyring_unref(struct keyring *k)
{
	if (!k || --k->refs)
		return;
	if (k->x509)
		gnutls_certificate_free_credentials(k->x509);
	if (k->ticket_key.data) {
		gnutls_memset(k->ticket_key.data, 0, k->ticket_key.size);
		gnutls_free(k->ticket_key.data);
	}
	free(k);
}

static void keyring_unref_p(struct keyring **k)
{
	keyring_unref(*k);
}

static int file_read(const char *path, char *buf, size_t *ret_size, struct err *e)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	size_t size = 0;

	if (fd < 0)
		return err_set(e, -errno, "%s: %s", path, err_text(-errno));
	while (size < FILE_MAX) {
		ssize_t n = read(fd, buf + size, FILE_MAX - size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(e, -errno, "%s: %s", path, err_text(-errno));
		if (n == 0) {
			*ret_size = size;
			return 0;
		}
		size += (size_t)n;
	}
	return err_set(e, -EFBIG, "%s: larger than %u bytes", path, FILE_MAX);
}

static int read_authorities(struct keyring *k, const struct credentials *c, gnutls_hmac_hd_t hash,
			    char *buf, struct err *e)
{
	gnutls_datum_t pem = {.data = (unsigned char *)buf};
	const char *path = c->paths[FILE_CA];
	size_t size;
	int r = file_read(path, buf, &size, e);

	if (r < 0)
		return r;
	pem.size = (unsigned int)size;
	gnutls_hmac(hash, buf, size);
	r = gnutls_certificate_set_x509_trust_mem(k->x509, &pem, GNUTLS_X509_FMT_PEM);
	if (r < 0)
		return err_set(e, -EINVAL, "%s: %s", path, gnutls_strerror(r));
	if (r == 0)
		return err_set(e, -EINVAL, "%s: holds no certificate", path);
	return 0;
}

static int read_expiry(struct keyring *k, const char *path, struct err *e)
{
	gnutls_x509_crt_t *chain = NULL;
	unsigned int n = 0;
	int r = gnutls_certificate_get_x509_crt(k->x509, 0, &chain, &n);

	if (r < 0 || !n)
		return err_set(e, -EINVAL, "%s: %s", path, gnutls_strerror(r));
	k->begins_s = (int64_t)gnutls_x509_crt_get_activation_time(chain[0]);
	k->expires_s = (int64_t)gnutls_x509_crt_get_expiration_time(chain[0]);
	for (unsigned int i = 0; i < n; i++)
		gnutls_x509_crt_deinit(chain[i]);
	gnutls_free(chain);
	return 0;
}

/* The key may be of another certificate: gnutls compares them here. */
static int read_own(struct keyring *k, const struct credentials *c, gnutls_hmac_hd_t hash,
		    char *buf, struct err *e)
{
	const char *certificate = c->paths[FILE_CERTIFICATE], *key = c->paths[FILE_KEY];
	_cleanup_free_ char *key_buf = malloc(FILE_MAX);
	gnutls_datum_t pem = {.data = (unsigned char *)buf}, key_pem;
	size_t size = 0, key_size = 0;
	int r;

	if (!key_buf)
		return err_set(e, -ENOMEM, "%s: out of memory", key);
	r = file_read(certificate, buf, &size, e);
	if (r == 0)
		r = file_read(key, key_buf, &key_size, e);
	if (r < 0)
		return r;
	pem.size = (unsigned int)size;
	gnutls_hmac(hash, buf, size);
	key_pem = (gnutls_datum_t){(unsigned char *)key_buf, (unsigned int)key_size};
	r = gnutls_certificate_set_x509_key_mem(k->x509, &pem, &key_pem, GNUTLS_X509_FMT_PEM);
	gnutls_memset(key_buf, 0, key_size);
	if (r < 0)
		return err_set(e, -EINVAL, "%s and %s: %s", certificate, key, gnutls_strerror(r));
	return read_expiry(k, certificate, e);
}

/* With the process's secret from it and the files: the same after a restart, another one with other
 * files. Else random. */
static int ticket_key(struct keyring *k, const struct credentials *c, gnutls_hmac_hd_t hash)
{
	uint8_t key[CREDENTIALS_SECRET];

	if (gnutls_session_ticket_key_generate(&k->ticket_key) < 0)
		return -ENOMEM;
	gnutls_hmac_output(hash, key);
	if (c->secret && k->ticket_key.size == sizeof(key))
		memcpy(k->ticket_key.data, key, sizeof(key));
	gnutls_memset(key, 0, sizeof(key));
	return 0;
}

static int keyring_new(const struct credentials *c, struct keyring **ret, struct err *e)
{
	static const uint8_t none[CREDENTIALS_SECRET];
	gnutls_hmac_hd_t hash;
	_cleanup_(keyring_unref_p) struct keyring *k = calloc(1, sizeof(*k));
	_cleanup_free_ char *buf = malloc(FILE_MAX);
	int r;

	if (!k || !buf)
		return err_set(e, -ENOMEM, "%s: out of memory", c->paths[FILE_CERTIFICATE]);
	k->refs = 1;
	if (gnutls_certificate_allocate_credentials(&k->x509) < 0 ||
	    gnutls_hmac_init(&hash, GNUTLS_MAC_SHA512, c->secret ? c->secret : none, sizeof(none)) <
		    0)
		return err_set(e, -ENOMEM, "%s: out of memory", c->paths[FILE_CERTIFICATE]);
	/* No peer may make us compute with huge keys or endless chains. */
	gnutls_certificate_set_verify_limits(k->x509, 8200, KEYRING_CHAIN_MAX);
	r = read_authorities(k, c, hash, buf, e);
	if (r == 0)
		r = read_own(k, c, hash, buf, e);
	if (r == 0 && ticket_key(k, c, hash) < 0)
		r = err_set(e, -ENOMEM, "%s: out of memory", c->paths[FILE_CERTIFICATE]);
	gnutls_hmac_deinit(hash, NULL);
	if (r == 0)
		*ret = TAKE_PTR(k);
	return r;
}

/* ---- the files ---- */

struct credentials *credentials_close(struct credentials *c)
{
	if (!c)
		return NULL;
	keyring_unref(c->keyring);
	for (unsigned int i = 0; i < FILES; i++)
		free(c->paths[i]);
	free(c);
	return NULL;
}

DEFINE_CLEANUP(struct credentials *, credentials_close)

int credentials_open(const struct credentials_files *files, struct credentials **ret, struct err *e)
{
	return credentials_open_lasting(files, NULL, ret, e);
}

int credentials_open_lasting(const struct credentials_files *files, const uint8_t *secret,
			     struct credentials **ret, struct err *e)
{
	_cleanup_(credentials_close_p) struct credentials *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return err_set(e, -ENOMEM, "%s: out of memory", files->certificate);
	c->secret = secret;
	c->paths[FILE_CA] = strdup(files->ca);
	c->paths[FILE_CERTIFICATE] = strdup(files->certificate);
	c->paths[FILE_KEY] = strdup(files->key);
	if (!c->paths[FILE_CA] || !c->paths[FILE_CERTIFICATE] || !c->paths[FILE_KEY])
		return err_set(e, -ENOMEM, "%s: out of memory", files->certificate);
	/* Before they are read: a change meanwhile is seen by the next refresh. */
	fingerprint_take(c, &c->used);
	r = keyring_new(c, &c->keyring, e);
	if (r < 0)
		return r;
	c->loads = 1;
	*ret = TAKE_PTR(c);
	return 0;
}

/* What was read twice, a second apart, and makes no sense will make none the third time. Memory and
 * descriptors may come back. */
static bool is_hopeless(const struct credentials *c)
{
	return c->refusals >= 2 && c->refused_r == -EINVAL;
}

int credentials_refresh(struct credentials *c, struct err *e)
{
	struct fingerprint now;
	struct keyring *k;
	int r;

	fingerprint_take(c, &now);
	if (fingerprint_equal(&now, &c->used)) {
		c->refusals = 0;
		return 0;
	}
	if (c->refusals && !fingerprint_equal(&now, &c->refused))
		c->refusals = 0;
	if (is_hopeless(c))
		return 0;
	r = keyring_new(c, &k, c->refusals ? NULL : e);
	if (r < 0) {
		c->refused = now;
		c->refused_r = r;
		c->failures += !c->refusals;
		return c->refusals++ ? 0 : r;
	}
	keyring_unref(c->keyring);
	c->keyring = k;
	c->used = now;
	c->refusals = 0;
	c->loads++;
	return 1;
}

uint64_t credentials_loads(const struct credentials *c, uint64_t *ret_failures)
{
	if (ret_failures)
		*ret_failures = c->failures;
	return c->loads;
}

int64_t credentials_expires_s(const struct credentials *c)
{
	return c->keyring->expires_s;
}

double credentials_lived_ratio(const struct credentials *c, int64_t now_s)
{
	const struct keyring *k = c->keyring;

	if (k->expires_s <= k->begins_s || now_s >= k->expires_s)
		return 1;
	return now_s <= k->begins_s
		       ? 0
		       : (double)(now_s - k->begins_s) / (double)(k->expires_s - k->begins_s);
}

struct keyring *credentials_keyring(struct credentials *c)
{
	c->keyring->refs++;
	return c->keyring;
}
