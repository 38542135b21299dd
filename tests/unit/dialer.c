/* SPDX-License-Identifier: Apache-2.0 */
/* The connecting side against a listener in the same loop: it comes back, it knows whom it talks
 * to, it goes on with a ticket, and names are resolved without blocking. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/endpoint.h"
#include "base/resolver.h"
#include "base/str.h"
#include "bus/dialer.h"
#include "certificates.h"
#include "port.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/stat.h>
#include <unistd.h>

#define CLIENTS_MAX 64

static struct loop *loop;
static struct loop_watch *poller;
static bool (*until)(void);
static uint64_t deadline_ns;
static struct authority ours, theirs;
static char dir[64], address[96];
static unsigned int port;
static int held;

/* the server */
static struct acceptor *acceptor;
static struct credentials *server_tls;
static struct peer *clients[CLIENTS_MAX];
static unsigned int accepted, cut;

/* the client */
static struct dialer *dialer;
static struct credentials *client_tls;
static unsigned int readies, losses, messages;
static char why[160], last[64];

static void poll_condition(void *data)
{
	(void)data;
	if (until() || clock_mono_ns() > deadline_ns)
		loop_stop(loop);
}

static void run_until(bool (*condition)(void))
{
	until = condition;
	deadline_ns = clock_mono_ns() + 20 * NS_PER_S;
	assert_int_equal(loop_set_timer(poller, 0, 1), 0);
	loop_run(loop);
	loop_set_timer(poller, UINT32_MAX, 0);
	assert_true(condition());
}

/* ---- server: says everything again ---- */

static int on_request(void *data, struct peer *peer, const uint8_t *message, size_t size)
{
	struct parcel *p = parcel_new(message, size, NULL, 0, NULL);

	(void)data;
	assert_int_equal(outbox_push(peer_outbox(peer), p), 0);
	parcel_unref(p);
	peer_kick(peer);
	return 0;
}

static void on_client_closed(void *data, struct peer *peer, int r)
{
	(void)data;
	(void)r;
	cut++;
	for (unsigned int i = 0; i < CLIENTS_MAX; i++)
		if (clients[i] == peer)
			clients[i] = NULL;
}

static void on_accept(void *data, int fd)
{
	const struct peer_spec spec = {
		.self = SP_REP,
		.expect = SP_REQ,
		.message_max = 1024,
		.queue_bytes = 4096,
		.queue_messages = 16,
		.tls = server_tls,
		.on_message = on_request,
		.on_closed = on_client_closed,
	};

	(void)data;
	assert_true(accepted < CLIENTS_MAX);
	assert_int_equal(peer_open(loop, fd, &spec, false, NULL, &clients[accepted]), 0);
	accepted++;
}

static void server_open(void)
{
	struct err e = {0};

	if (acceptor_open(loop, address, server_tls != NULL, on_accept, NULL, &acceptor, &e) < 0)
		fail_msg("%s", e.text);
}

static void cut_all(void)
{
	for (unsigned int i = 0; i < CLIENTS_MAX; i++)
		clients[i] = peer_close(clients[i]);
}

static void server_close(void)
{
	acceptor = acceptor_close(acceptor);
	cut_all();
}

/* ---- client ---- */

static void on_ready(void *data)
{
	uint64_t number = 0;

	(void)data;
	readies++;
	assert_int_equal(dialer_send(dialer, "what", 4, "ever", 4, &number), 0);
	assert_int_equal(number, 1);
}

static int on_message(void *data, const uint8_t *message, size_t size)
{
	(void)data;
	messages++;
	assert_true(size < sizeof(last));
	memcpy(last, message, size);
	last[size] = '\0';
	dialer_prove(dialer);
	return 0;
}

static void on_lost(void *data, const char *text)
{
	(void)data;
	losses++;
	str_copy(why, sizeof(why), text);
}

static int dial(const char *where, struct err *e)
{
	const struct dialer_spec spec = {
		.address = where,
		.self = SP_REQ,
		.expect = SP_REP,
		.message_max = 1024,
		.queue_bytes = 4096,
		.backoff_ns = 100 * NS_PER_MS,
		.tls = &client_tls,
		.on_ready = on_ready,
		.on_message = on_message,
		.on_lost = on_lost,
	};

	return dialer_open(loop, &spec, NULL, &dialer, e);
}

static void dial_or_fail(const char *where)
{
	struct err e = {0};

	if (dial(where, &e) < 0)
		fail_msg("%s", e.text);
}

static struct dialer_stats stats_now(void)
{
	struct dialer_stats s;

	dialer_stats(dialer, &s);
	return s;
}

static bool has_answer(void)
{
	return messages > 0;
}
static bool is_lost(void)
{
	return losses > 0;
}
static bool is_lost_twice(void)
{
	return losses > 1;
}

/* ---- certificates ---- */

static void load(const char *where, struct credentials **ret)
{
	char ca[160], certificate[160], key[160];
	const struct credentials_files files = {ca, certificate, key};
	struct err e = {0};

	snprintf(ca, sizeof(ca), "%s/ca.pem", where);
	snprintf(certificate, sizeof(certificate), "%s/cert.pem", where);
	snprintf(key, sizeof(key), "%s/key.pem", where);
	if (credentials_open(&files, ret, &e) < 0)
		fail_msg("%s", e.text);
}

static void make(const char *name, const struct authority *signer, const struct authority *trusted,
		 struct certificate_spec spec, struct credentials **ret)
{
	char where[128];

	snprintf(where, sizeof(where), "%s/%s", dir, name);
	mkdir(where, 0700);
	certificate_make(signer, trusted, &spec, where);
	if (ret)
		load(where, ret);
}

static void use_tls(const struct authority *signer, struct certificate_spec server)
{
	snprintf(address, sizeof(address), "tls+tcp://127.0.0.1:%u", port);
	make("server", signer, &ours, server, &server_tls);
	make("client", &ours, &ours, (struct certificate_spec){.dns = "team-a"}, &client_tls);
}

#define LOOPBACK "\177\0\0\1"

/* ---- tests ---- */

static void addresses(void **state)
{
	static const struct {
		const char *address, *host;
		bool is_name, is_private;
	} good[] = {
		{"tcp://127.0.0.1:9466", "127.0.0.1", false, true},
		{"127.0.0.1:1", "127.0.0.1", false, true},
		{"tcp://localhost:9466", "localhost", false, true},
		{"tcp://[::1]:9466", "::1", false, true},
		{"ipc:///run/x", "", false, true},
		{"tls+tcp://[2001:db8::1]:65535", "2001:db8::1", false, true},
		{"tls+tcp://door.example:9466", "door.example", true, true},
		{"tls+tcp://_door._tcp.example:9466", "_door._tcp.example", true, true},
		{"tcp://192.0.2.1:9466", "192.0.2.1", false, false},
		{"tcp://0.0.0.0:9466", "0.0.0.0", false, false},
		{"tcp://door.example:9466", "door.example", true, false},
	};
	static const char *const bad[] = {
		"nonsense",       "tcp://",        "tcp://:9466",       "tcp://door.example",
		"tcp://d:0",      "tcp://d:65536", "tcp://d:x",         "tcp://192.0.2.999:1",
		"tcp://a b:1",    "tcp://-a:1",    "tls+ipc:///run/x",  "http://d:1",
		"tls+http://d:1", "ipc://run/x",   "tcp://d\xc3\xa9:1", "tcp://1.2.3:1",
	};
	char long_one[400];

	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		struct endpoint ep;
		struct err e = {0};

		if (endpoint_parse(good[i].address, &ep, &e) < 0)
			fail_msg("%s", e.text);
		assert_string_equal(ep.host, good[i].host);
		assert_int_equal(ep.is_name, good[i].is_name);
		assert_int_equal(endpoint_check_privacy(&ep, good[i].address, &e),
				 good[i].is_private ? 0 : -EPERM);
		if (!good[i].is_private)
			assert_non_null(strstr(e.text, good[i].address));
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct endpoint ep;
		struct err e = {0};

		if (endpoint_parse(bad[i], &ep, &e) != -EINVAL)
			fail_msg("%s was taken", bad[i]);
		assert_true(*e.text);
	}
	memset(long_one, 'a', sizeof(long_one));
	memcpy(long_one, "tcp://", 6);
	memcpy(long_one + 300, ":1", 3);
	assert_int_equal(endpoint_parse(long_one, &(struct endpoint){0}, NULL), -EINVAL);
}

static void comes_back(void **state)
{
	(void)state;
	dial_or_fail(address);
	run_until(is_lost_twice); /* nobody there */
	assert_int_equal(messages, 0);
	server_open();
	run_until(has_answer);
	assert_string_equal(last, "whatever");
	assert_int_equal(readies, 1);
	losses = 0;
	cut_all();
	run_until(is_lost);
	messages = 0;
	run_until(has_answer);
	assert_int_equal(readies, 2);
	assert_int_equal(stats_now().connects, 2);
	assert_int_equal(stats_now().resumed, 0);
	dialer_again(dialer);
	assert_false(dialer_is_ready(dialer));
	losses = messages = 0;
	run_until(has_answer);
	assert_int_equal(losses, 0); /* that was our own wish */
}

static void what_is_no_address(void **state)
{
	(void)state;
	dial_or_fail(address);
	server_open();
	run_until(has_answer);
	dialer = dialer_close(dialer);
	assert_int_equal(dial("nonsense", NULL), -EINVAL);
	assert_int_equal(dial("tcp://192.0.2.1:9466", NULL), -EPERM);
	assert_null(dialer);
}

static void over_tls(void **state)
{
	struct dialer_stats s;

	(void)state;
	use_tls(&ours, (struct certificate_spec){.ip = LOOPBACK});
	server_open();
	dial_or_fail(address);
	run_until(has_answer);
	assert_string_equal(last, "whatever");
	/* The next ones go on with a ticket. */
	for (unsigned int i = 0; i < 2; i++) {
		messages = 0;
		cut_all();
		run_until(has_answer);
	}
	s = stats_now();
	assert_int_equal(s.connects, 3);
	assert_int_equal(s.resumed, 2);
	/* A ticket is worth nothing with another certificate. */
	messages = 0;
	make("client", &ours, &ours, (struct certificate_spec){.dns = "team-b"}, NULL);
	assert_int_equal(credentials_refresh(client_tls, NULL), 1);
	dialer_again(dialer);
	run_until(has_answer);
	assert_int_equal(stats_now().connects, 4);
	assert_int_equal(stats_now().resumed, 2);
	/* Nor at a server with another key for tickets: a whole handshake. */
	messages = 0;
	make("server", &ours, &ours, (struct certificate_spec){.ip = LOOPBACK}, NULL);
	assert_int_equal(credentials_refresh(server_tls, NULL), 1);
	cut_all();
	run_until(has_answer);
	assert_int_equal(stats_now().connects, 5);
	assert_int_equal(stats_now().resumed, 2);
}

static void expect_refusal(const struct authority *signer, struct certificate_spec server,
			   const char *words)
{
	use_tls(signer, server);
	server_open();
	dial_or_fail(address);
	run_until(is_lost);
	assert_int_equal(readies, 0);
	assert_int_equal(stats_now().connects, 0);
	if (!strstr(why, words))
		fail_msg("why: %s", why);
}

static void another_name(void **state)
{
	(void)state;
	expect_refusal(&ours, (struct certificate_spec){.ip = "\177\0\0\2"}, "name");
}

static void another_authority(void **state)
{
	(void)state;
	expect_refusal(&theirs, (struct certificate_spec){.ip = LOOPBACK}, "issuer");
}

static void expired(void **state)
{
	(void)state;
	expect_refusal(&ours, (struct certificate_spec){.ip = LOOPBACK, .is_expired = 1},
		       "expired");
}

static void we_are_not_wanted(void **state)
{
	(void)state;
	use_tls(&ours, (struct certificate_spec){.ip = LOOPBACK});
	credentials_close(client_tls);
	make("client", &theirs, &ours, (struct certificate_spec){.dns = "team-a"}, &client_tls);
	server_open();
	dial_or_fail(address);
	run_until(is_lost);
	assert_int_equal(readies, 0);
	if (!strstr(why, "refuses"))
		fail_msg("why: %s", why);
}

static void plain_server(void **state)
{
	(void)state;
	use_tls(&ours, (struct certificate_spec){.ip = LOOPBACK});
	server_tls = credentials_close(server_tls);
	snprintf(address, sizeof(address), "tcp://127.0.0.1:%u", port);
	server_open();
	snprintf(address, sizeof(address), "tls+tcp://127.0.0.1:%u", port);
	dial_or_fail(address);
	run_until(is_lost);
	assert_int_equal(readies, 0);
}

/* Files that come later are waited for. */
static void files_come_later(void **state)
{
	struct credentials *later;

	(void)state;
	use_tls(&ours, (struct certificate_spec){.ip = LOOPBACK});
	later = client_tls;
	client_tls = NULL;
	server_open();
	dial_or_fail(address);
	run_until(is_lost_twice);
	assert_non_null(strstr(why, "files"));
	assert_int_equal(accepted, 0);
	client_tls = later;
	run_until(has_answer);
}

/* Not how anybody writes it, but a name to us and an address to every resolver. */
#define RESOLVED "0x7f000001"

static void resolves(void **state)
{
	char named[96];

	(void)state;
	use_tls(&ours, (struct certificate_spec){.dns = RESOLVED});
	server_open();
	snprintf(named, sizeof(named), "tls+tcp://" RESOLVED ":%u", port);
	dial_or_fail(named);
	run_until(has_answer);
	messages = 0;
	cut_all();
	run_until(has_answer);
	assert_int_equal(stats_now().connects, 2);
	assert_int_equal(stats_now().resumed, 1);
}

static unsigned int answered;
static struct resolver_address found;
static char refused[160];

static void on_resolved(void *data, const struct resolver_address *all, size_t n, const char *text)
{
	(void)data;
	answered++;
	if (n)
		found = all[0];
	else
		str_copy(refused, sizeof(refused), text);
}

static bool is_answered(void)
{
	return answered > 0;
}

static void questions(void **state)
{
	struct resolver *r, *forgotten;
	const struct sockaddr_in *in = (const struct sockaddr_in *)&found.addr;

	(void)state;
	assert_int_equal(resolver_ask(loop, RESOLVED, 4711, on_resolved, NULL, &forgotten), 0);
	assert_null(resolver_forget(forgotten));
	assert_int_equal(resolver_ask(loop, RESOLVED, 4711, on_resolved, NULL, &r), 0);
	run_until(is_answered);
	assert_int_equal(answered, 1);
	assert_int_equal(in->sin_family, AF_INET);
	assert_int_equal(ntohs(in->sin_port), 4711);
	assert_int_equal(ntohl(in->sin_addr.s_addr), INADDR_LOOPBACK);
	answered = 0;
	/* A label of 64 bytes is no name: no question leaves the host. */
	assert_int_equal(
		resolver_ask(
			loop,
			"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.example",
			1, on_resolved, NULL, &r),
		0);
	run_until(is_answered);
	assert_non_null(strstr(refused, "cannot resolve"));
}

static int setup(void **state)
{
	(void)state;
	accepted = cut = readies = losses = messages = 0;
	why[0] = last[0] = '\0';
	snprintf(address, sizeof(address), "tcp://127.0.0.1:%u", port);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	dialer = dialer_close(dialer);
	server_close();
	server_tls = credentials_close(server_tls);
	client_tls = credentials_close(client_tls);
	return 0;
}

static int remove_all(void)
{
	static const char *const names[] = {"server/ca.pem", "server/cert.pem", "server/key.pem",
					    "client/ca.pem", "client/cert.pem", "client/key.pem",
					    "server",        "client",          ""};
	char path[128];

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		remove(path);
	}
	return 0;
}

static int group_setup(void **state)
{
	(void)state;
	ours = authority_new("CN=ours");
	theirs = authority_new("CN=theirs");
	strcpy(dir, "/tmp/dialer-test-XXXXXX");
	if (!mkdtemp(dir) || loop_open(&loop) < 0)
		return -1;
	held = port_hold(&port);
	return loop_add_timer(loop, UINT32_MAX, 0, poll_condition, NULL, &poller);
}

static int group_teardown(void **state)
{
	(void)state;
	loop_close(loop);
	close(held);
	authority_free(&ours);
	authority_free(&theirs);
	return remove_all();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(addresses),
		cmocka_unit_test_setup_teardown(comes_back, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_no_address, setup, teardown),
		cmocka_unit_test_setup_teardown(over_tls, setup, teardown),
		cmocka_unit_test_setup_teardown(another_name, setup, teardown),
		cmocka_unit_test_setup_teardown(another_authority, setup, teardown),
		cmocka_unit_test_setup_teardown(expired, setup, teardown),
		cmocka_unit_test_setup_teardown(we_are_not_wanted, setup, teardown),
		cmocka_unit_test_setup_teardown(plain_server, setup, teardown),
		cmocka_unit_test_setup_teardown(files_come_later, setup, teardown),
		cmocka_unit_test_setup_teardown(resolves, setup, teardown),
		cmocka_unit_test_setup_teardown(questions, setup, teardown),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
