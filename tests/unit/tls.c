/* SPDX-License-Identifier: Apache-2.0 */
/* TLS between two ends of a socket pair: who gets in, whose names come out, what is cut off, and
 * files that are replaced. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/str.h"
#include "bus/tls.h"
#include "certificates.h"

#include <errno.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define ROUNDS 1000

static struct authority ours, theirs;
static char dir[64];
static int fds[2];

/* <dir>/<name>, made when it is not there. */
static const char *folder(const char *name)
{
	static char path[2][160];
	static unsigned int turn;

	turn = !turn;
	snprintf(path[turn], sizeof(path[turn]), "%s/%s", dir, name);
	mkdir(path[turn], 0700);
	return path[turn];
}

static const uint8_t *secret; /* of the next load_from() */

static int load_from(const char *where, struct credentials **ret, struct err *e)
{
	char ca[224], certificate[224], key[224];
	const struct credentials_files files = {ca, certificate, key};

	snprintf(ca, sizeof(ca), "%s/ca.pem", where);
	snprintf(certificate, sizeof(certificate), "%s/cert.pem", where);
	snprintf(key, sizeof(key), "%s/key.pem", where);
	return credentials_open_lasting(&files, secret, ret, e);
}

static struct credentials *made(const char *name, const struct authority *signer,
				const struct authority *trusted, struct certificate_spec spec)
{
	const char *where = folder(name);
	struct credentials *c = NULL;
	struct err e = {0};

	certificate_make(signer, trusted, &spec, where);
	if (load_from(where, &c, &e) < 0)
		fail_msg("%s", e.text);
	return c;
}

static struct credentials *server_made(void)
{
	return made("server", &ours, &ours, (struct certificate_spec){.dns = "door.example"});
}

static struct credentials *client_made(void)
{
	return made("client", &ours, &ours,
		    (struct certificate_spec){.dns = "team-a", .uri = "tidegate://agent/team-b/"});
}

static void pair(void)
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds),
			 0);
}

static void unpair(struct tls **server, struct tls **client)
{
	*server = tls_close(*server);
	*client = tls_close(*client);
	close(fds[0]);
	close(fds[1]);
}

struct outcome {
	int server, client;
};

/* Goes on until both ends know. One that failed hangs up, as its owner would. */
static struct outcome shake(struct tls *server, struct tls *client)
{
	struct outcome o = {-EAGAIN, -EAGAIN};

	for (unsigned int i = 0; i < ROUNDS && (o.server == -EAGAIN || o.client == -EAGAIN); i++) {
		if (o.client == -EAGAIN)
			o.client = tls_handshake(client);
		if (o.client < 0 && o.client != -EAGAIN)
			shutdown(fds[1], SHUT_WR);
		if (o.server == -EAGAIN)
			o.server = tls_handshake(server);
		if (o.server < 0 && o.server != -EAGAIN)
			shutdown(fds[0], SHUT_WR);
	}
	return o;
}

static void open_both(struct credentials *sc, struct credentials *cc, const char *host,
		      const struct tls_ticket *ticket, struct tls **server, struct tls **client)
{
	pair();
	assert_int_equal(tls_open_server(sc, fds[0], server), 0);
	assert_int_equal(tls_open_client(cc, fds[1], host, ticket, client), 0);
}

static ssize_t read_within(struct tls *t, void *buf, size_t size)
{
	ssize_t n = -EAGAIN;

	for (unsigned int i = 0; i < ROUNDS && n == -EAGAIN; i++)
		n = tls_read(t, buf, size);
	return n;
}

static void say(struct tls *t, const char *text)
{
	struct iovec iov[2] = {{(void *)(uintptr_t)text, 1},
			       {(void *)(uintptr_t)(text + 1), strlen(text) - 1}};

	assert_int_equal(tls_write(t, iov, 2), strlen(text));
	assert_false(tls_wants_write(t));
}

static void names_come_out(void **state)
{
	struct credentials *sc = server_made(), *cc = client_made();
	struct tls *server, *client;
	struct passport p;
	char buf[16];

	(void)state;
	open_both(sc, cc, "door.example", NULL, &server, &client);
	assert_int_equal(shake(server, client).server, 0);
	assert_int_equal(tls_passport(server, "192.0.2.7:1", &p), 0);
	assert_true(passport_allows(&p, "team-a"));
	assert_true(passport_allows(&p, "team-b/1"));
	assert_false(passport_allows(&p, "team-b"));
	assert_string_equal(p.peer, "192.0.2.7:1");
	say(client, "hello");
	assert_int_equal(read_within(server, buf, sizeof(buf)), 5);
	assert_memory_equal(buf, "hello", 5);
	say(server, "yes");
	assert_int_equal(read_within(client, buf, sizeof(buf)), 3);
	client = tls_close(client);
	assert_int_equal(read_within(server, buf, sizeof(buf)), 0);
	unpair(&server, &client);
	credentials_close(sc);
	credentials_close(cc);
}

/* What does not fit into the socket is neither lost nor sent twice. */
static void much(void **state)
{
	enum { TOTAL = 4 << 20 };
	struct credentials *sc = server_made(), *cc = client_made();
	uint8_t *out = malloc(TOTAL), *in = malloc(TOTAL);
	struct tls *server, *client;
	size_t sent = 0, got = 0;
	bool was_full = false;

	(void)state;
	for (size_t i = 0; i < TOTAL; i++)
		out[i] = (uint8_t)(i * 31 + (i >> 9));
	open_both(sc, cc, "door.example", NULL, &server, &client);
	assert_int_equal(shake(server, client).server, 0);
	while (got < TOTAL) {
		ssize_t n = 1;

		while (sent < TOTAL && n > 0) {
			struct iovec iov = {out + sent, TOTAL - sent};

			n = tls_write(client, &iov, 1);
			if (n > 0)
				sent += (size_t)n;
		}
		assert_true(n > 0 || n == -EAGAIN);
		was_full |= tls_wants_write(client);
		while ((n = tls_read(server, in + got, TOTAL - got)) > 0)
			got += (size_t)n;
		if (got < TOTAL)
			assert_int_equal(n, -EAGAIN);
		if (sent == TOTAL)
			assert_true(tls_write(client, NULL, 0) <= 0);
	}
	assert_true(was_full);
	assert_memory_equal(in, out, TOTAL);
	unpair(&server, &client);
	credentials_close(sc);
	credentials_close(cc);
	free(out);
	free(in);
}

static void resumes(void **state)
{
	struct credentials *sc = server_made(), *cc = client_made();
	struct tls_ticket ticket = {0};
	struct tls *server, *client;
	struct passport p;
	char buf[16];

	(void)state;
	open_both(sc, cc, "door.example", &ticket, &server, &client);
	assert_int_equal(shake(server, client).server, 0);
	assert_false(tls_is_resumed(server));
	say(server, "yes");
	assert_int_equal(read_within(client, buf, sizeof(buf)), 3);
	tls_keep_ticket(client, &ticket);
	assert_true(ticket.size > 0);
	unpair(&server, &client);

	open_both(sc, cc, "door.example", &ticket, &server, &client);
	assert_int_equal(shake(server, client).server, 0);
	assert_true(tls_is_resumed(server));
	assert_true(tls_is_resumed(client));
	assert_int_equal(tls_passport(server, "", &p), 0);
	assert_true(passport_allows(&p, "team-a"));
	unpair(&server, &client);

	/* New files: the ticket is worth nothing, the connection is. */
	certificate_make(&ours, &ours, &(struct certificate_spec){.dns = "door.example"},
			 folder("server"));
	assert_int_equal(credentials_refresh(sc, NULL), 1);
	open_both(sc, cc, "door.example", &ticket, &server, &client);
	assert_int_equal(shake(server, client).server, 0);
	assert_false(tls_is_resumed(server));
	unpair(&server, &client);
	tls_ticket_fini(&ticket);
	credentials_close(sc);
	credentials_close(cc);
}

/* A door that was restarted: the same files and the secret that its supervisor kept. */
static void resumes_with_the_next_process(void **state)
{
	static const uint8_t kept[CREDENTIALS_SECRET] = "kept", other[CREDENTIALS_SECRET] = "other";
	const uint8_t *const secrets[] = {kept, kept, other, NULL};
	struct credentials *sc = server_made(), *cc = client_made();
	struct tls_ticket ticket = {0};
	struct tls *server, *client;
	struct outcome o;
	struct err e = {0};
	char buf[8];

	(void)state;
	for (unsigned int i = 0; i < 4; i++) {
		credentials_close(sc);
		secret = secrets[i];
		assert_int_equal(load_from(folder("server"), &sc, &e), 0);
		secret = NULL;
		open_both(sc, cc, "door.example", &ticket, &server, &client);
		o = shake(server, client);
		assert_int_equal(o.server, 0);
		assert_int_equal(tls_is_resumed(server), i == 1);
		say(server, "x");
		assert_int_equal(read_within(client, buf, sizeof(buf)), 1);
		tls_keep_ticket(client, &ticket);
		unpair(&server, &client);
	}
	tls_ticket_fini(&ticket);
	credentials_close(sc);
	credentials_close(cc);
}

static void is_refused(struct certificate_spec spec, const struct authority *signer)
{
	struct credentials *sc = server_made(), *cc = made("bad", signer, &ours, spec);
	struct tls *server, *client;

	open_both(sc, cc, "door.example", NULL, &server, &client);
	assert_int_equal(shake(server, client).server, -EACCES);
	assert_true(*tls_why(server));
	unpair(&server, &client);
	credentials_close(sc);
	credentials_close(cc);
}

static void strangers(void **state)
{
	(void)state;
	is_refused((struct certificate_spec){.dns = "team-a"}, &theirs);
	is_refused((struct certificate_spec){.dns = "team-a", .is_expired = 1}, &ours);
	is_refused((struct certificate_spec){.dns = "team-a", .purpose = GNUTLS_KP_TLS_WWW_SERVER},
		   &ours);
}

/* A client of TLS 1.3 is done before it is judged: writing fails, reading still says why. */
static void refused_while_writing(void **state)
{
	struct credentials *sc = server_made();
	struct credentials *cc =
		made("stranger", &theirs, &ours, (struct certificate_spec){.dns = "team-a"});
	struct iovec iov = {(char[]){"hello"}, 5};
	struct tls *server, *client;
	char buf[16];

	(void)state;
	open_both(sc, cc, "door.example", NULL, &server, &client);
	assert_true(shake(server, client).server < 0);
	server = tls_close(server);
	shutdown(fds[0], SHUT_RDWR);
	assert_true(tls_write(client, &iov, 1) < 0);
	assert_int_equal(read_within(client, buf, sizeof(buf)), -EPROTO);
	assert_non_null(strstr(tls_why(client), "refuses"));
	unpair(&server, &client);
	credentials_close(sc);
	credentials_close(cc);
}

static void nameless(void **state)
{
	struct credentials *sc = server_made();
	struct credentials *cc =
		made("nameless", &ours, &ours, (struct certificate_spec){.dns = "*.example"});
	struct tls *server, *client;
	struct passport p;

	(void)state;
	open_both(sc, cc, "door.example", NULL, &server, &client);
	assert_int_equal(shake(server, client).server, 0);
	assert_int_equal(tls_passport(server, "", &p), -EACCES);
	unpair(&server, &client);
	credentials_close(sc);
	credentials_close(cc);
}

static void client_knows_its_server(void **state)
{
	static const struct {
		struct certificate_spec spec;
		const char *host;
		int client;
	} rows[] = {
		{{.dns = "door.example"}, "door.example", 0},
		{{.dns = "door.example"}, "other.example", -EACCES},
		{{.dns = "door.example"}, "192.0.2.1", -EACCES},
		{{.ip = "\xc0\x00\x02\x01"}, "192.0.2.1", 0},
		{{.ip = "\xc0\x00\x02\x02"}, "192.0.2.1", -EACCES},
		{{.dns = "door.example", .purpose = GNUTLS_KP_TLS_WWW_CLIENT},
		 "door.example",
		 -EACCES},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct credentials *sc = made("server", &ours, &ours, rows[i].spec);
		struct credentials *cc = client_made();
		struct tls *server, *client;
		struct outcome o;

		open_both(sc, cc, rows[i].host, NULL, &server, &client);
		o = shake(server, client);
		if (o.client != rows[i].client)
			fail_msg("row %zu: %d, %s", i, o.client, tls_why(client));
		unpair(&server, &client);
		credentials_close(sc);
		credentials_close(cc);
	}
}

static void junk(void **state)
{
	static const char *const texts[] = {
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"\0SP\0\0\x30\0\0 and what a plain agent would say",
		"\x16\x03\x01\x40\x01 longer than any record may be",
		"\x16\x03\x03\x00\x05rubbish in a record",
	};
	static const size_t sizes[] = {27, 40, 35, 25};
	struct credentials *sc = server_made();

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		struct tls *server;
		int r = -EAGAIN;

		pair();
		assert_int_equal(tls_open_server(sc, fds[0], &server), 0);
		assert_int_equal(send(fds[1], texts[i], sizes[i], 0), sizes[i]);
		shutdown(fds[1], SHUT_WR);
		for (unsigned int n = 0; n < ROUNDS && r == -EAGAIN; n++)
			r = tls_handshake(server);
		if (r != -EPROTO && r != -ECONNRESET)
			fail_msg("row %zu: %d", i, r);
		tls_close(server);
		close(fds[0]);
		close(fds[1]);
	}
	credentials_close(sc);
}

/* A client of GnuTLS itself, which may do what ours never does. */
static gnutls_session_t raw_client(struct keyring *k, const char *priorities)
{
	gnutls_session_t s;

	certificate_must(gnutls_init(&s, GNUTLS_CLIENT | GNUTLS_NONBLOCK), "raw");
	certificate_must(gnutls_priority_set_direct(s, priorities, NULL), "raw");
	certificate_must(gnutls_credentials_set(s, GNUTLS_CRD_CERTIFICATE, k->x509), "raw");
	gnutls_transport_set_int(s, fds[1]);
	return s;
}

static int raw_shake(struct tls *server, gnutls_session_t raw)
{
	int r = -EAGAIN, c = GNUTLS_E_AGAIN;

	for (unsigned int i = 0; i < ROUNDS && (r == -EAGAIN || (r == 0 && c < 0)); i++) {
		if (c < 0)
			c = gnutls_handshake(raw);
		if (r == -EAGAIN)
			r = tls_handshake(server);
	}
	return r;
}

static void old_versions(void **state)
{
	struct credentials *sc = server_made(), *cc = client_made();
	struct keyring *k = credentials_keyring(cc);
	static const char *const rows[] = {
		"NORMAL:-VERS-ALL:+VERS-TLS1.2",
		"NORMAL:-VERS-ALL:+VERS-TLS1.1",
	};

	(void)state;
	for (unsigned int i = 0; i < ARRAY_LEN(rows); i++) {
		struct tls *server;
		gnutls_session_t raw;

		pair();
		assert_int_equal(tls_open_server(sc, fds[0], &server), 0);
		raw = raw_client(k, rows[i]);
		assert_int_equal(raw_shake(server, raw), i ? -EPROTO : 0);
		gnutls_deinit(raw);
		tls_close(server);
		close(fds[0]);
		close(fds[1]);
	}
	keyring_unref(k);
	credentials_close(sc);
	credentials_close(cc);
}

static void renegotiation(void **state)
{
	struct credentials *sc = server_made(), *cc = client_made();
	struct keyring *k = credentials_keyring(cc);
	struct tls *server;
	gnutls_session_t raw;
	char buf[16];

	(void)state;
	pair();
	assert_int_equal(tls_open_server(sc, fds[0], &server), 0);
	raw = raw_client(k, "NORMAL:-VERS-ALL:+VERS-TLS1.2");
	assert_int_equal(raw_shake(server, raw), 0);
	assert_int_equal(gnutls_handshake(raw), GNUTLS_E_AGAIN); /* once more */
	assert_int_equal(read_within(server, buf, sizeof(buf)), -EPROTO);
	gnutls_deinit(raw);
	tls_close(server);
	close(fds[0]);
	close(fds[1]);
	keyring_unref(k);
	credentials_close(sc);
	credentials_close(cc);
}

/* As Kubernetes does it: files are symlinks into ..data, a symlink that is swapped. */
static void symlink_swap(void **state)
{
	static const char *const files[] = {"ca.pem", "cert.pem", "key.pem"};
	struct certificate_spec spec = {.dns = "door.example"};
	struct credentials *c = NULL;
	struct err e = {0};
	char path[256], target[64], where[160];
	uint64_t failures;

	(void)state;
	snprintf(where, sizeof(where), "%s", folder("secret"));
	certificate_make(&ours, &ours, &spec, folder("secret/..1"));
	certificate_make(&ours, &ours, &spec, folder("secret/..2"));
	snprintf(path, sizeof(path), "%s/..data", where);
	assert_int_equal(symlink("..1", path), 0);
	for (unsigned int i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "%s/%s", where, files[i]);
		snprintf(target, sizeof(target), "..data/%s", files[i]);
		assert_int_equal(symlink(target, path), 0);
	}
	assert_int_equal(load_from(where, &c, &e), 0);
	assert_int_equal(credentials_refresh(c, &e), 0);
	snprintf(path, sizeof(path), "%s/..new", where);
	assert_int_equal(symlink("..2", path), 0);
	{
		char data[256];

		snprintf(data, sizeof(data), "%s/..data", where);
		assert_int_equal(rename(path, data), 0);
	}
	assert_int_equal(credentials_refresh(c, &e), 1);
	assert_int_equal(credentials_refresh(c, &e), 0);
	assert_int_equal(credentials_loads(c, &failures), 2);
	assert_int_equal(failures, 0);
	credentials_close(c);
}

static void copy(const char *from, const char *to)
{
	char a[256], b[256], buf[8192];
	FILE *in, *out;
	size_t n;

	snprintf(a, sizeof(a), "%s/%s", dir, from);
	snprintf(b, sizeof(b), "%s/%s", dir, to);
	in = fopen(a, "re");
	out = fopen(b, "we");
	assert_non_null(in);
	assert_non_null(out);
	n = fread(buf, 1, sizeof(buf), in);
	assert_int_equal(fwrite(buf, 1, n, out), n);
	fclose(in);
	fclose(out);
}

static void bad_files_leave_the_old(void **state)
{
	struct credentials *sc = server_made(), *cc = client_made(), *other, *none = NULL;
	struct keyring *before = credentials_keyring(sc), *after;
	struct tls *server, *client;
	struct err e = {0};
	uint64_t failures;
	char path[256], event[512];
	int watch;

	(void)state;
	other = made("other", &ours, &ours, (struct certificate_spec){.dns = "x"});
	copy("other/key.pem", "server/key.pem"); /* of another certificate */
	assert_int_equal(credentials_refresh(sc, &e), -EINVAL);
	assert_non_null(strstr(e.text, "server/key.pem"));
	err_clear(&e);
	assert_int_equal(credentials_refresh(sc, &e), 0); /* told once */
	assert_string_equal(e.text, "");
	watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	snprintf(path, sizeof(path), "%s/server/ca.pem", dir);
	assert_true(inotify_add_watch(watch, path, IN_OPEN) >= 0);
	assert_int_equal(credentials_refresh(sc, &e), 0);
	assert_int_equal(read(watch, event, sizeof(event)), -1); /* and not read for ever */
	close(watch);
	assert_int_equal(load_from(folder("server"), &none, NULL), -EINVAL);
	snprintf(path, sizeof(path), "%s/server/ca.pem", dir);
	assert_int_equal(truncate(path, 0), 0); /* another change */
	assert_int_equal(credentials_refresh(sc, &e), -EINVAL);
	assert_non_null(strstr(e.text, "ca.pem"));
	err_clear(&e);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(credentials_refresh(sc, &e), -ENOENT);
	assert_int_equal(credentials_loads(sc, &failures), 1);
	assert_int_equal(failures, 3);
	after = credentials_keyring(sc);
	assert_ptr_equal(before, after);
	open_both(sc, cc, "door.example", NULL, &server, &client);
	assert_int_equal(shake(server, client).server, 0);
	unpair(&server, &client);
	certificate_make(&ours, &ours, &(struct certificate_spec){.dns = "door.example"},
			 folder("server"));
	assert_int_equal(credentials_refresh(sc, &e), 1);
	keyring_unref(before);
	keyring_unref(after);
	credentials_close(sc);
	credentials_close(cc);
	credentials_close(other);
}

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/tidegate-tls-XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	ours = authority_new("CN=ours");
	theirs = authority_new("CN=theirs");
	return 0;
}

static int teardown(void **state)
{
	char command[96];

	(void)state;
	authority_free(&ours);
	authority_free(&theirs);
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_come_out),
		cmocka_unit_test(much),
		cmocka_unit_test(resumes),
		cmocka_unit_test(resumes_with_the_next_process),
		cmocka_unit_test(strangers),
		cmocka_unit_test(refused_while_writing),
		cmocka_unit_test(nameless),
		cmocka_unit_test(client_knows_its_server),
		cmocka_unit_test(junk),
		cmocka_unit_test(old_versions),
		cmocka_unit_test(renegotiation),
		cmocka_unit_test(symlink_swap),
		cmocka_unit_test(bad_files_leave_the_old),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, setup, teardown);
}
