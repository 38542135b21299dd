/* SPDX-License-Identifier: Apache-2.0 */
/* Uplink over lines that misbehave: an aggregator that is silent, one that does not read, one that
 * answers nonsense, a slow line, TLS connections that are cut. Every frame arrives. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/str.h"
#include "bus/peer.h"
#include "bus/uplink.h"
#include "certificates.h"
#include "port.h"
#include "tidegate.pb-c.h"

#include <errno.h>
#include <ftw.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define FRAMES_MAX 1000
#define SERIES     300
#define LOOPBACK   "\177\0\0\1"

static struct loop *loop;
static struct authority ours;
static unsigned int port;
static int held;

static struct test {
	char dir[64], address[64];
	struct spool *spool;
	struct frame_encoder *encoder;
	struct uplink *uplink;
	uint64_t timeout_ns, frames, deadline_ns, random;
	struct loop_watch *watch;
	unsigned int lost, returned;
	char why[160];
	/* the aggregator */
	struct acceptor *acceptor;
	struct credentials *server_tls, *client_tls;
	struct peer *peers[64];
	unsigned int accepted, requests, cut_every;
	bool is_silent, is_deaf, is_mad; /* the first connection alone */
	uint64_t read_rate;
	bool applied[FRAMES_MAX];
	uint64_t arrived, doubled;
} t;

static uint64_t random_next(void)
{
	t.random ^= t.random << 13;
	t.random ^= t.random >> 7;
	t.random ^= t.random << 17;
	return t.random;
}

/* ---- aggregator ---- */

static size_t answer(const uint8_t *message, size_t size, uint8_t *out)
{
	static uint64_t sequences[2048];
	Tidegate__Uplink *m = tidegate__uplink__unpack(NULL, size - 4, message + 4);
	Tidegate__UplinkReply reply;

	assert_non_null(m);
	tidegate__uplink_reply__init(&reply);
	reply.session = 7;
	reply.acknowledged = sequences;
	for (size_t i = 0; i < m->n_frames; i++) {
		struct frame *f;

		assert_int_equal(frame_decode(m->frames[i].data, m->frames[i].len, &f, NULL), 0);
		assert_true(f->sequence < FRAMES_MAX);
		t.arrived += !t.applied[f->sequence];
		t.doubled += t.applied[f->sequence];
		t.applied[f->sequence] = true;
		sequences[reply.n_acknowledged++] = f->sequence;
		frame_free(f);
	}
	tidegate__uplink__free_unpacked(m, NULL);
	memcpy(out, message, 4);
	return 4 + tidegate__uplink_reply__pack(&reply, out + 4);
}

static int on_request(void *data, struct peer *peer, const uint8_t *message, size_t size)
{
	static uint8_t out[65536];
	bool is_first = data == NULL;
	struct parcel *p;

	t.requests++;
	if (is_first && (t.is_silent || t.is_deaf))
		return 0;
	if (is_first && t.is_mad) {
		memcpy(out, message, 4);
		memset(out + 4, 0xff, 20);
		p = parcel_new(out, 24, NULL, 0, NULL);
	} else {
		p = parcel_new(out, answer(message, size, out), NULL, 0, NULL);
	}
	if (t.cut_every && t.requests % t.cut_every == 0) {
		parcel_unref(p);
		return -ECONNABORTED; /* applied, but the answer is lost */
	}
	assert_int_equal(outbox_push(peer_outbox(peer), p), 0);
	parcel_unref(p);
	peer_kick(peer);
	return 0;
}

static void on_ready(void *data, struct peer *peer)
{
	if (!data && t.is_deaf)
		peer_pause(peer, true);
}

static void on_peer_closed(void *data, struct peer *peer, int r)
{
	(void)data;
	(void)r;
	for (size_t i = 0; i < ARRAY_LEN(t.peers); i++)
		if (t.peers[i] == peer)
			t.peers[i] = NULL;
}

static void on_accept(void *data, int fd)
{
	const int size = t.read_rate ? 16384 : 4096;
	const struct peer_spec spec = {
		.self = SP_REP,
		.expect = SP_REQ,
		.message_max = SP_MESSAGE_MAX,
		.queue_bytes = 1 << 20,
		.queue_messages = 64,
		.read_rate = t.read_rate,
		.tls = t.server_tls,
		.on_ready = on_ready,
		.on_message = on_request,
		.on_closed = on_peer_closed,
	};

	(void)data;
	assert_true(t.accepted < ARRAY_LEN(t.peers));
	if (t.read_rate || (t.is_deaf && !t.accepted))
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	assert_int_equal(
		peer_open(loop, fd, &spec, false, t.accepted ? &t : NULL, &t.peers[t.accepted]), 0);
	t.accepted++;
}

static void aggregator_open(void)
{
	struct err e = {0};

	if (acceptor_open(loop, t.address, t.server_tls != NULL, on_accept, NULL, &t.acceptor, &e) <
	    0)
		fail_msg("%s", e.text);
}

/* ---- sender ---- */

static void frame_make(void)
{
	static char labels[SERIES][64];
	const uint8_t *data;
	uint32_t samples;
	size_t size;

	frame_encoder_begin(t.encoder, spool_next_sequence(t.spool), 1000, 1000, FRAME_KEY);
	for (unsigned int i = 0; i < SERIES; i++) {
		struct segment_series s = {.name = "app_total",
					   .unit = "",
					   .help = "",
					   .kind = METRIC_COUNTER,
					   .is_present = true,
					   .counter = random_next(),
					   .label_count = 1,
					   .labels = {{"which", labels[i]}}};

		if (!labels[i][0])
			for (unsigned int k = 0; k < sizeof(labels[i]) - 1; k++)
				labels[i][k] = (char)('0' + random_next() % 75);
		assert_int_equal(frame_encoder_series(t.encoder, &s), 0);
	}
	assert_int_equal(frame_encoder_finish(t.encoder, &data, &size, &samples), 0);
	assert_int_equal(spool_append(t.spool, 1000, data, size, NULL), 0);
	t.frames++;
}

static void on_lost(void *data, const char *address, const char *why)
{
	(void)data;
	(void)address;
	t.lost++;
	str_copy(t.why, sizeof(t.why), why);
}

static void on_returned(void *data, const char *address, uint64_t pending)
{
	(void)data;
	(void)address;
	(void)pending;
	t.returned++;
}

static void uplink_make(void)
{
	const struct uplink_options options = {
		.address = t.address,
		.agent = "host-1",
		.backoff_ns = 50 * NS_PER_MS,
		.timeout_ns = t.timeout_ns,
		.tls = &t.client_tls,
		.events = {.on_lost = on_lost, .on_returned = on_returned},
	};
	struct err e = {0};

	if (uplink_open(loop, t.spool, &options, &t.uplink, &e) < 0)
		fail_msg("%s", e.text);
}

static void on_poll(void *data)
{
	uint64_t pending;

	(void)data;
	uplink_pending(t.uplink, &pending);
	if ((!pending && t.arrived == t.frames) || clock_mono_ns() > t.deadline_ns)
		loop_stop(loop);
}

/* Until every frame was acknowledged. */
static struct uplink_stats run(unsigned int frames)
{
	struct uplink_stats stats;

	for (unsigned int i = 0; i < frames; i++)
		frame_make();
	aggregator_open();
	uplink_make();
	t.deadline_ns = clock_mono_ns() + 60 * NS_PER_S;
	assert_int_equal(loop_add_timer(loop, 1, 5, on_poll, NULL, &t.watch), 0);
	loop_run(loop);
	assert_int_equal(t.arrived, t.frames);
	uplink_stats(t.uplink, &stats);
	assert_int_equal(stats.frames_acknowledged, t.frames);
	assert_int_equal(t.lost, t.returned);
	return stats;
}

static void credentials_make(const char *name, const struct certificate_spec *spec,
			     struct credentials **ret)
{
	char where[96], ca[128], certificate[128], key[128];
	const struct credentials_files files = {ca, certificate, key};
	struct err e = {0};

	snprintf(where, sizeof(where), "%s/%s", t.dir, name);
	snprintf(ca, sizeof(ca), "%s/ca.pem", where);
	snprintf(certificate, sizeof(certificate), "%s/cert.pem", where);
	snprintf(key, sizeof(key), "%s/key.pem", where);
	mkdir(where, 0700);
	certificate_make(&ours, &ours, spec, where);
	if (credentials_open(&files, ret, &e) < 0)
		fail_msg("%s", e.text);
}

/* ---- tests ---- */

static void good_line(void **state)
{
	struct uplink_stats s;

	(void)state;
	s = run(50);
	assert_int_equal(t.accepted, 1);
	assert_int_equal(t.doubled, 0);
	assert_int_equal(s.connects, 1);
	assert_int_equal(s.timeouts, 0);
	assert_int_equal(t.lost, 0);
}

static void silent(void **state)
{
	struct uplink_stats s;

	(void)state;
	t.is_silent = true;
	s = run(50);
	assert_int_equal(t.accepted, 2);
	assert_int_equal(s.timeouts, 1);
	assert_string_equal(t.why, "no reply in time");
}

/* As much waits as a backlog begins with; it says hello, and then reads nothing. */
static void deaf(void **state)
{
	struct uplink_stats s;

	(void)state;
	t.is_deaf = true;
	s = run(100);
	assert_int_equal(t.accepted, 2);
	assert_int_equal(s.timeouts, 1);
	assert_string_equal(t.why, "nothing can be sent");
}

/* One message takes three times as long as a reply may: as long as bytes move, it is no trouble. */
static void slow(void **state)
{
	struct uplink_stats s;

	(void)state;
	t.timeout_ns = 1000 * NS_PER_MS;
	t.read_rate = 250000;
	s = run(70);
	assert_true(s.payload_bytes > 700000);
	assert_int_equal(s.timeouts, 0);
	assert_int_equal(t.accepted, 1);
	assert_int_equal(t.doubled, 0);
}

/* So slow that what the kernel took ahead takes longer than a reply may: patience grows. */
static void very_slow(void **state)
{
	struct uplink_stats s;

	(void)state;
	t.timeout_ns = 50 * NS_PER_MS;
	t.read_rate = 250000;
	s = run(25);
	assert_true(s.timeouts > 0);
	assert_true(s.timeouts < 8);
}

static void nonsense(void **state)
{
	struct uplink_stats s;

	(void)state;
	t.is_mad = true;
	s = run(20);
	assert_int_equal(t.accepted, 2);
	assert_int_equal(s.timeouts, 0);
	assert_int_equal(t.lost, 1);
}

static void over_tls(void **state)
{
	const struct certificate_spec server = {.ip = LOOPBACK}, client = {.dns = "host-1"};
	struct uplink_stats s;

	(void)state;
	snprintf(t.address, sizeof(t.address), "tls+tcp://127.0.0.1:%u", port);
	credentials_make("server", &server, &t.server_tls);
	credentials_make("client", &client, &t.client_tls);
	t.cut_every = 2;
	s = run(400);
	assert_true(s.connects >= 3);
	assert_int_equal(s.resumed, s.connects - 1);
	assert_int_equal(s.timeouts, 0); /* a cut is seen at once */
	assert_true(t.doubled > 0);
	print_message("# %u requests, %lu connections, %lu frames came twice\n", t.requests,
		      (unsigned long)s.connects, (unsigned long)t.doubled);
}

static int setup(void **state)
{
	static const uint8_t boot[16] = "boot";
	struct spool_options options = {.bytes = 64 << 20, .age_ns = UINT64_MAX, .boot_id = boot};

	(void)state;
	memset(&t, 0, sizeof(t));
	t.random = 88172645463325252ULL;
	t.timeout_ns = 300 * NS_PER_MS;
	strcpy(t.dir, "/tmp/uplink-line-XXXXXX");
	if (!mkdtemp(t.dir))
		return -1;
	snprintf(t.address, sizeof(t.address), "tcp://127.0.0.1:%u", port);
	options.dir = t.dir;
	if (loop_open(&loop) < 0 || spool_open(&options, &t.spool, NULL) != 0)
		return -1;
	return frame_encoder_new(&t.encoder);
}

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

static int teardown(void **state)
{
	(void)state;
	uplink_close(t.uplink);
	acceptor_close(t.acceptor);
	for (size_t i = 0; i < ARRAY_LEN(t.peers); i++)
		peer_close(t.peers[i]);
	spool_close(t.spool);
	frame_encoder_free(t.encoder);
	credentials_close(t.server_tls);
	credentials_close(t.client_tls);
	loop_close(loop);
	return nftw(t.dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static int group_setup(void **state)
{
	(void)state;
	ours = authority_new("CN=ours");
	held = port_hold(&port);
	return held < 0 ? -1 : 0;
}

static int group_teardown(void **state)
{
	(void)state;
	authority_free(&ours);
	return close(held);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(good_line, setup, teardown),
		cmocka_unit_test_setup_teardown(silent, setup, teardown),
		cmocka_unit_test_setup_teardown(deaf, setup, teardown),
		cmocka_unit_test_setup_teardown(slow, setup, teardown),
		cmocka_unit_test_setup_teardown(very_slow, setup, teardown),
		cmocka_unit_test_setup_teardown(nonsense, setup, teardown),
		cmocka_unit_test_setup_teardown(over_tls, setup, teardown),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
