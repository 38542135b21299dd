/* SPDX-License-Identifier: Apache-2.0 */
/* Who was let in is looked at again: time goes on, and authorities go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bus/tls.h"
#include "certificates.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static struct authority ours, theirs;
static char dir[64], server_dir[80], client_dir[80];
static struct credentials *sc, *cc;
static struct tls *server, *client;
static int fds[2];

static struct credentials *load(const char *where)
{
	char ca[128], certificate[128], key[128];
	const struct credentials_files files = {ca, certificate, key};
	struct credentials *c = NULL;
	struct err e = {0};

	snprintf(ca, sizeof(ca), "%s/ca.pem", where);
	snprintf(certificate, sizeof(certificate), "%s/cert.pem", where);
	snprintf(key, sizeof(key), "%s/key.pem", where);
	if (credentials_open(&files, &c, &e) < 0)
		fail_msg("%s", e.text);
	return c;
}

static void let_in(struct passport *p)
{
	int s = -EAGAIN, c = -EAGAIN;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds),
			 0);
	assert_int_equal(tls_open_server(sc, fds[0], &server), 0);
	assert_int_equal(tls_open_client(cc, fds[1], "door.example", NULL, &client), 0);
	for (unsigned int i = 0; i < 1000 && (s == -EAGAIN || c == -EAGAIN); i++) {
		c = tls_handshake(client);
		s = tls_handshake(server);
	}
	assert_int_equal(s, 0);
	assert_int_equal(c, 0);
	assert_int_equal(tls_passport(server, "", p), 0);
}

/* The server's files anew: it trusts that authority. */
static void trust(const struct authority *trusted)
{
	certificate_make(&ours, trusted, &(struct certificate_spec){.dns = "door.example"},
			 server_dir);
	assert_int_equal(credentials_refresh(sc, NULL), 1);
}

static int setup(void **state)
{
	struct passport p;

	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/tidegate-recheck-XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(server_dir, sizeof(server_dir), "%s/server", dir);
	snprintf(client_dir, sizeof(client_dir), "%s/client", dir);
	mkdir(server_dir, 0700);
	mkdir(client_dir, 0700);
	certificate_make(&ours, &ours, &(struct certificate_spec){.dns = "door.example"},
			 server_dir);
	certificate_make(&ours, &ours, &(struct certificate_spec){.dns = "team-a"}, client_dir);
	sc = load(server_dir);
	cc = load(client_dir);
	let_in(&p);
	assert_true(passport_allows(&p, "team-a"));
	return 0;
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	tls_close(server);
	tls_close(client);
	close(fds[0]);
	close(fds[1]);
	credentials_close(sc);
	credentials_close(cc);
	snprintf(command, sizeof(command), "rm -r %s", dir);
	return system(command);
}

static void time_goes_on(void **state)
{
	int64_t now = (int64_t)time(NULL);

	(void)state;
	assert_int_equal(tls_recheck(server, sc, now), 0);
	/* certificates.h: they are good for two hours. */
	assert_int_equal(tls_recheck(server, sc, now + 7100), 0);
	assert_int_equal(tls_recheck(server, sc, now + 7300), -EACCES);
	assert_non_null(strstr(tls_why(server), "expired"));
}

static void authorities_go(void **state)
{
	int64_t now = (int64_t)time(NULL);

	(void)state;
	trust(&ours);
	assert_int_equal(tls_recheck(server, sc, now), 0);
	assert_int_equal(tls_recheck(server, sc, now), 0);
	trust(&theirs);
	assert_int_equal(tls_recheck(server, sc, now), -EACCES);
	assert_true(strlen(tls_why(server)) > 0);
	/* And it stays so, until it is trusted again. */
	assert_int_equal(tls_recheck(server, sc, now), -EACCES);
	trust(&ours);
	assert_int_equal(tls_recheck(server, sc, now), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(time_goes_on, setup, teardown),
		cmocka_unit_test_setup_teardown(authorities_go, setup, teardown),
	};
	int r;

	ours = authority_new("CN=ours");
	theirs = authority_new("CN=theirs");
	cmocka_set_message_output(CM_OUTPUT_TAP);
	r = cmocka_run_group_tests(tests, NULL, NULL);
	authority_free(&ours);
	authority_free(&theirs);
	return r;
}
