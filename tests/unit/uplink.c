/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Uplink against an aggregator made of a raw REP socket that loses replies, sends them twice,
 * forgets sessions and definitions, and goes away: counts are never lost and never doubled.
 */
#include "bus/uplink.h"

#include "base/clock.h"
#include "base/crc32c.h"
#include "base/str.h"
#include "tidegate.pb-c.h"

#include <errno.h>
#include <ftw.h>
#include <nanomsg/nn.h>
#include <nanomsg/reqrep.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define COUNTERS    3
#define FRAMES_MAX  20000
#define IDS         64
#define DEADLINE_NS (20 * NS_PER_S)

enum trouble {
	TROUBLE_LOST = 1,     /* replies */
	TROUBLE_DOUBLED = 2,  /* replies */
	TROUBLE_HELLO = 4,    /* sessions are forgotten */
	TROUBLE_KEY = 8,      /* definitions are forgotten */
	TROUBLE_AWAY = 16,    /* the socket is closed for a while */
	TROUBLE_REFUSED = 32, /* once */
	TROUBLE_POISON = 64,  /* one frame is refused for ever */
	TROUBLE_OLD = 128,    /* it has not got the dictionary */
	TROUBLE_CLOSED = 256, /* one frame is packed with a dictionary that nobody has */
};

struct applied {
	bool is_applied, is_key;
	bool has[COUNTERS];
	uint64_t value[COUNTERS];
};

struct test {
	char dir[64], address[96];
	struct loop *loop;
	struct spool *spool;
	struct frame_encoder *encoder;
	struct uplink *uplink;
	/* the sender */
	uint64_t truth[COUNTERS];
	unsigned int frames, frames_most;
	bool needs_key;
	unsigned int lost, returned, refused, keys;
	struct loop_watch *source_timer;
	uint64_t deadline_ns;
	/* the aggregator */
	int socket;
	struct loop_watch *socket_watch, *away_timer;
	unsigned int troubles, requests, hellos, duplicates, unreadable;
	uint32_t session;
	bool is_session_known;
	int counter_of[IDS]; /* which truth an id names; -1 unknown */
	struct applied *applied;
	uint64_t first_live, old_left_then; /* what was missing when the first live frame came */
	uint64_t live_from;
	uint64_t random;
};

static uint64_t random_next(struct test *t)
{
	t->random ^= t->random << 13;
	t->random ^= t->random >> 7;
	t->random ^= t->random << 17;
	return t->random;
}

static bool strikes(struct test *t, unsigned int trouble, unsigned int one_in)
{
	return (t->troubles & trouble) && random_next(t) % one_in == 0;
}

/* -------- aggregator -------- */

static void forget_definitions(struct test *t)
{
	for (unsigned int i = 0; i < IDS; i++)
		t->counter_of[i] = -1;
}

static bool is_known(const struct test *t, const struct frame *f)
{
	for (size_t i = 0; i < f->counter_count; i++)
		if (t->counter_of[f->counters[i].id] < 0)
			return false;
	return true;
}

static void apply(struct test *t, const struct frame *f)
{
	struct applied *a = &t->applied[f->sequence];

	if (a->is_applied) {
		t->duplicates++;
		return;
	}
	a->is_applied = true;
	a->is_key = f->is_key;
	for (size_t i = 0; i < f->counter_count; i++) {
		int c = t->counter_of[f->counters[i].id];

		a->has[c] = true;
		a->value[c] = f->counters[i].value;
	}
	if (f->sequence >= t->live_from && !t->first_live) {
		t->first_live = f->sequence;
		for (uint64_t s = 1; s < t->live_from; s++)
			t->old_left_then += !t->applied[s].is_applied;
	}
}

static uint64_t total(const struct test *t, int c)
{
	uint64_t key = 0, sum = 0;

	for (uint64_t s = 1; s < FRAMES_MAX; s++)
		if (t->applied[s].is_applied && t->applied[s].is_key && t->applied[s].has[c])
			key = s;
	sum = key ? t->applied[key].value[c] : 0;
	for (uint64_t s = key + 1; s < FRAMES_MAX; s++)
		if (t->applied[s].is_applied && t->applied[s].has[c])
			sum += t->applied[s].value[c];
	return sum;
}

#define STRANGE 77u /* no such dictionary */

static char not_there[] = "frame: needs dictionary 1, here are: 0";

static void take_frames(struct test *t, const Tidegate__Uplink *m, Tidegate__UplinkReply *reply)
{
	for (size_t i = 0; i < m->n_frames; i++) {
		struct frame *f;

		if ((t->troubles & TROUBLE_OLD) &&
		    frame_dictionary_of(m->frames[i].data, m->frames[i].len)) {
			reply->dictionary = 1;
			reply->why = not_there;
			t->unreadable++;
			continue;
		}
		if (frame_dictionary_of(m->frames[i].data, m->frames[i].len) == STRANGE) {
			reply->dictionary = STRANGE;
			reply->why = not_there;
			t->unreadable++;
			continue;
		}
		assert_int_equal(frame_decode(m->frames[i].data, m->frames[i].len, &f, NULL), 0);
		assert_true(f->sequence < FRAMES_MAX);
		for (size_t k = 0; k < f->definition_count; k++) {
			assert_true(f->definitions[k].id < IDS);
			t->counter_of[f->definitions[k].id] =
				f->definitions[k].labels[0].value[0] - '0';
		}
		if ((t->troubles & TROUBLE_POISON) && f->sequence == 7)
			reply->refused[reply->n_refused++] = f->sequence;
		else if (!is_known(t, f))
			reply->missing[reply->n_missing++] = f->sequence;
		else
			reply->acknowledged[reply->n_acknowledged++] = f->sequence;
		if (reply->n_acknowledged &&
		    reply->acknowledged[reply->n_acknowledged - 1] == f->sequence)
			apply(t, f);
		frame_free(f);
	}
	if (reply->n_missing)
		reply->status = TIDEGATE__UPLINK_REPLY__STATUS__NEED_KEY;
}

static void answer(struct test *t, const Tidegate__Uplink *m, Tidegate__UplinkReply *reply)
{
	static char why[] = "not you";

	if (m->hello) {
		assert_string_equal(m->hello->agent, "host-1");
		assert_int_equal(m->hello->n_labels, 2);
		assert_string_equal(m->hello->labels[0], "cluster");
		assert_int_equal(m->hello->incarnation.len, FRAME_INCARNATION_BYTES);
		assert_memory_equal(m->hello->incarnation.data, spool_incarnation(t->spool),
				    FRAME_INCARNATION_BYTES);
		t->hellos++;
		t->session++;
		t->is_session_known = true;
	} else if (!t->is_session_known || m->session != t->session) {
		reply->status = TIDEGATE__UPLINK_REPLY__STATUS__NEED_HELLO;
		return;
	}
	if (t->troubles & TROUBLE_REFUSED) {
		t->troubles &= ~(unsigned int)TROUBLE_REFUSED;
		reply->status = TIDEGATE__UPLINK_REPLY__STATUS__REFUSED;
		reply->why = why;
		return;
	}
	reply->session = t->session;
	if (strikes(t, TROUBLE_KEY, 15))
		forget_definitions(t);
	take_frames(t, m, reply);
}

static void aggregator_open(struct test *t);

static void on_back(void *data)
{
	aggregator_open(data);
}

static void aggregator_close(struct test *t)
{
	t->socket_watch = loop_remove(t->socket_watch);
	if (t->socket >= 0)
		nn_close(t->socket);
	t->socket = -1;
}

static void reply_send(struct test *t, struct nn_msghdr *header, const Tidegate__UplinkReply *reply)
{
	size_t size = tidegate__uplink_reply__get_packed_size(reply);
	uint8_t *data = malloc(size ? size : 1);
	struct nn_iovec iov = {.iov_base = data, .iov_len = size};

	tidegate__uplink_reply__pack(reply, data);
	header->msg_iov = &iov;
	nn_sendmsg(t->socket, header, NN_DONTWAIT);
	if (strikes(t, TROUBLE_DOUBLED, 3))
		nn_sendmsg(t->socket, header, NN_DONTWAIT);
	free(data);
}

static void on_request(void *data, int fd, unsigned int events)
{
	static uint64_t lists[3][2048];
	struct test *t = data;
	Tidegate__UplinkReply reply;
	Tidegate__Uplink *m;
	uint8_t control[256];
	void *message;
	struct nn_iovec iov = {.iov_base = &message, .iov_len = NN_MSG};
	struct nn_msghdr header = {.msg_iov = &iov,
				   .msg_iovlen = 1,
				   .msg_control = control,
				   .msg_controllen = sizeof(control)};
	int n = nn_recvmsg(t->socket, &header, NN_DONTWAIT);

	(void)fd;
	(void)events;
	if (n < 0)
		return;
	assert_true(n < 1 << 20);
	t->requests++;
	m = tidegate__uplink__unpack(NULL, (size_t)n, message);
	assert_non_null(m);
	tidegate__uplink_reply__init(&reply);
	reply.acknowledged = lists[0];
	reply.missing = lists[1];
	reply.refused = lists[2];
	if (strikes(t, TROUBLE_HELLO, 10))
		t->is_session_known = false;
	answer(t, m, &reply);
	tidegate__uplink__free_unpacked(m, NULL);
	nn_freemsg(message);
	if (!strikes(t, TROUBLE_LOST, 12))
		reply_send(t, &header, &reply);
	if (strikes(t, TROUBLE_AWAY, 25)) {
		aggregator_close(t);
		loop_set_timer(t->away_timer, 150, 0);
	}
}

static void aggregator_open(struct test *t)
{
	int fd;
	size_t size = sizeof(fd);

	t->socket = nn_socket(AF_SP_RAW, NN_REP);
	assert_true(t->socket >= 0);
	assert_true(nn_bind(t->socket, t->address) >= 0);
	assert_int_equal(nn_getsockopt(t->socket, NN_SOL_SOCKET, NN_RCVFD, &fd, &size), 0);
	assert_int_equal(loop_add_fd(t->loop, fd, LOOP_READ, on_request, t, &t->socket_watch), 0);
}

/* -------- sender -------- */

/* RFC 8878: the id stands behind magic, descriptor and the window's byte, where there is one. */
static void dictionary_change(uint8_t *data, size_t size)
{
	uint8_t *zstd = data + FRAME_SEAL_BYTES, descriptor = zstd[4];
	uint32_t crc;

	assert_int_equal(descriptor & 3, 1);
	zstd[5 + !(descriptor & 0x20)] = STRANGE;
	crc = crc32c(0, zstd, size - FRAME_SEAL_BYTES);
	for (unsigned int i = 0; i < 4; i++)
		data[1 + i] = (uint8_t)(crc >> 8 * i);
	assert_int_equal(frame_dictionary_of(data, size), STRANGE);
}

static void frame_make(struct test *t)
{
	static const char *const names[COUNTERS] = {"0", "1", "2"};
	const uint8_t *data;
	uint32_t samples;
	size_t size;

	frame_encoder_begin(t->encoder, spool_next_sequence(t->spool), 1000, 1000,
			    t->needs_key ? FRAME_KEY : FRAME_CHANGES);
	t->keys += t->needs_key;
	t->needs_key = false;
	for (unsigned int i = 0; i < COUNTERS; i++) {
		struct segment_series s = {.name = "tidegate_requests_total",
					   .unit = "",
					   .help = "",
					   .kind = METRIC_COUNTER,
					   .is_present = true,
					   .label_count = 1,
					   .labels = {{"which", names[i]}}};

		t->truth[i] += random_next(t) % 5;
		s.counter = t->truth[i];
		assert_int_equal(frame_encoder_series(t->encoder, &s), 0);
	}
	assert_int_equal(frame_encoder_finish(t->encoder, &data, &size, &samples), 0);
	t->frames++;
	if ((t->troubles & TROUBLE_CLOSED) && t->frames == 1) {
		uint8_t copy[4096];

		assert_true(size <= sizeof(copy));
		memcpy(copy, data, size);
		dictionary_change(copy, size);
		assert_int_equal(spool_append(t->spool, 1000, copy, size, NULL), 0);
		return;
	}
	assert_int_equal(spool_append(t->spool, 1000, data, size, NULL), 0);
}

static void on_source(void *data)
{
	struct test *t = data;
	uint64_t pending;

	if (t->frames < t->frames_most || t->needs_key) {
		frame_make(t);
		uplink_kick(t->uplink);
		return;
	}
	uplink_pending(t->uplink, &pending);
	if (!pending || clock_mono_ns() > t->deadline_ns)
		loop_stop(t->loop);
}

static void on_lost(void *data, const char *address, const char *why)
{
	struct test *t = data;

	assert_string_equal(address, t->address);
	assert_true(*why);
	t->lost++;
}

static void on_returned(void *data, const char *address, uint64_t pending)
{
	struct test *t = data;

	(void)pending;
	assert_string_equal(address, t->address);
	t->returned++;
}

static void on_refused(void *data, const char *address, const char *why)
{
	struct test *t = data;

	(void)address;
	assert_string_equal(why,
			    t->troubles & (TROUBLE_OLD | TROUBLE_CLOSED) ? not_there : "not you");
	t->refused++;
}

static void on_need_key(void *data, const char *address)
{
	struct test *t = data;

	(void)address;
	t->needs_key = true;
}

static void uplink_make(struct test *t)
{
	static const char *const labels[] = {"cluster", "c1"};
	const struct uplink_options options = {
		.address = t->address,
		.agent = "host-1",
		.labels = labels,
		.label_count = 1,
		.backoff_ns = 200 * NS_PER_MS,
		.timeout_ns = 150 * NS_PER_MS,
		.events = {on_lost, NULL, on_returned, on_refused, on_need_key, t},
	};
	struct err e = {0};

	if (uplink_open(t->loop, t->spool, &options, &t->uplink, &e) < 0)
		fail_msg("%s", e.text);
}

static int setup(void **state)
{
	static const uint8_t boot[16] = "boot";
	struct test *t = calloc(1, sizeof(*t));
	struct spool_options options = {.bytes = 64 << 20, .age_ns = UINT64_MAX, .boot_id = boot};

	*state = t;
	t->random = 88172645463325252ULL;
	t->socket = -1;
	t->live_from = UINT64_MAX;
	t->applied = calloc(FRAMES_MAX, sizeof(*t->applied));
	forget_definitions(t);
	strcpy(t->dir, "/tmp/uplink-test-XXXXXX");
	if (!mkdtemp(t->dir))
		return -1;
	snprintf(t->address, sizeof(t->address), "ipc://%s/s", t->dir);
	options.dir = t->dir;
	if (loop_open(&t->loop) < 0 || spool_open(&options, &t->spool, NULL) != 0 ||
	    frame_encoder_new(&t->encoder) < 0)
		return -1;
	t->deadline_ns = clock_mono_ns() + DEADLINE_NS;
	return loop_add_timer(t->loop, UINT32_MAX, 0, on_back, t, &t->away_timer);
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
	struct test *t = *state;

	uplink_close(t->uplink);
	aggregator_close(t);
	spool_close(t->spool);
	frame_encoder_free(t->encoder);
	loop_close(t->loop);
	nftw(t->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	free(t->applied);
	free(t);
	return 0;
}

static void run(struct test *t, unsigned int troubles, unsigned int frames)
{
	t->troubles = troubles;
	t->frames_most = t->frames + frames;
	if (!t->source_timer)
		assert_int_equal(loop_add_timer(t->loop, 1, 2, on_source, t, &t->source_timer), 0);
	loop_run(t->loop);
	assert_true(clock_mono_ns() < t->deadline_ns);
}

static void check_totals(const struct test *t)
{
	for (int c = 0; c < COUNTERS; c++)
		assert_int_equal(total(t, c), t->truth[c]);
}

static void check_all_applied(const struct test *t)
{
	for (uint64_t s = 1; s <= t->frames; s++)
		assert_true(t->applied[s].is_applied);
}

static void test_plain(void **state)
{
	struct test *t = *state;
	struct uplink_stats stats;

	aggregator_open(t);
	uplink_make(t);
	run(t, 0, 200);
	check_all_applied(t);
	check_totals(t);
	uplink_stats(t->uplink, &stats);
	assert_int_equal(stats.frames_acknowledged, 200);
	assert_int_equal(stats.frames_sent, 200);
	assert_int_equal(t->duplicates, 0);
	assert_int_equal(t->hellos, 1);
	assert_int_equal(t->lost, 0);
	assert_true(stats.payload_bytes > 0);
}

static void test_all_troubles(void **state)
{
	struct test *t = *state;

	aggregator_open(t);
	uplink_make(t);
	run(t, TROUBLE_LOST | TROUBLE_DOUBLED | TROUBLE_HELLO | TROUBLE_KEY | TROUBLE_AWAY, 600);
	check_all_applied(t);
	check_totals(t);
	assert_true(t->duplicates > 0);
	assert_true(t->keys > 0);
	assert_true(t->hellos > 1);
	assert_true(t->lost > 0);
	/* It may have gone away after the last reply. */
	assert_true(t->lost == t->returned || t->lost == t->returned + 1);
	print_message("# %u requests, %u duplicates, %u key frames, %u hellos, lost %u times\n",
		      t->requests, t->duplicates, t->keys, t->hellos, t->lost);
}

/* What it cannot unpack it gets without the dictionary, told once a session. */
static void test_dictionary_is_not_there(void **state)
{
	struct test *t = *state;

	aggregator_open(t);
	uplink_make(t);
	run(t, TROUBLE_OLD | TROUBLE_HELLO | TROUBLE_KEY, 300);
	check_all_applied(t);
	check_totals(t);
	assert_true(t->unreadable > 0);
	assert_true(t->refused > 0 && t->refused <= t->hellos);
}

/* What neither side can open is tried some times, then given up and counted; all else arrives. */
static void test_nobody_has_the_dictionary(void **state)
{
	struct test *t = *state;
	struct spool_stats stats;

	aggregator_open(t);
	uplink_make(t);
	t->needs_key = true;
	run(t, TROUBLE_CLOSED, 1);
	assert_int_equal(t->frames, 1);
	/* As it is; then three rounds without, and one that gives it up. */
	assert_int_equal(t->unreadable, 5);
	spool_stats(t->spool, &stats);
	assert_int_equal(stats.dropped_unknown, 1);
	assert_int_equal(t->lost, 1);
	assert_int_equal(t->returned, 1);
	t->needs_key = true;
	run(t, 0, 50);
	for (uint64_t s = 2; s <= t->frames; s++)
		assert_true(t->applied[s].is_applied);
	check_totals(t);
}

static void test_nobody_there_at_first(void **state)
{
	struct test *t = *state;

	uplink_make(t);
	loop_set_timer(t->away_timer, 600, 0);
	run(t, 0, 100);
	check_all_applied(t);
	check_totals(t);
	assert_int_equal(t->lost, 1);
	assert_int_equal(t->returned, 1);
}

static void test_refused_then_taken(void **state)
{
	struct test *t = *state;

	aggregator_open(t);
	uplink_make(t);
	run(t, TROUBLE_REFUSED, 50);
	check_all_applied(t);
	assert_int_equal(t->refused, 1);
	assert_int_equal(t->lost, 1);
	assert_int_equal(t->returned, 1);
}

static void test_poison_is_given_up(void **state)
{
	struct test *t = *state;
	struct spool_stats stats;

	aggregator_open(t);
	uplink_make(t);
	run(t, TROUBLE_POISON, 50);
	spool_stats(t->spool, &stats);
	assert_int_equal(stats.dropped_refused, 1);
	assert_false(t->applied[7].is_applied);
	assert_true(t->applied[8].is_applied);
}

static void test_backlog_does_not_starve_live(void **state)
{
	struct test *t = *state;

	for (unsigned int i = 0; i < 12000; i++)
		frame_make(t);
	t->live_from = t->frames + 1;
	aggregator_open(t);
	uplink_make(t);
	run(t, 0, 20);
	check_all_applied(t);
	check_totals(t);
	assert_true(t->old_left_then > 4000);
	assert_true(t->requests < 60); /* batches */
}

static void test_restart_loses_nothing(void **state)
{
	struct test *t = *state;

	aggregator_open(t);
	uplink_make(t);
	run(t, TROUBLE_LOST, 50);
	for (unsigned int i = 0; i < 30; i++)
		frame_make(t);
	t->uplink = uplink_close(t->uplink); /* with frames that were not sent */
	uplink_make(t);
	run(t, 0, 10);
	check_all_applied(t);
	check_totals(t);
}

/* Definitions are gone for good: the frames are given up after some rounds, later ones flow. */
static void test_unknown_for_ever(void **state)
{
	struct test *t = *state;
	struct spool_stats stats;

	for (unsigned int i = 0; i < 20; i++)
		frame_make(t);
	/* As if the first frames were dropped, and the encoder that made them died. */
	{
		struct spool_cursor *c;
		struct spool_record r;

		assert_int_equal(spool_cursor_open(t->spool, t->address, &c), 0);
		for (unsigned int i = 0; i < 5; i++) {
			assert_int_equal(spool_cursor_peek(c, SPOOL_OLD, &r), 1);
			spool_cursor_take(c, SPOOL_OLD);
			spool_cursor_settle(c, r.incarnation, r.sequence, r.size,
					    SPOOL_ACKNOWLEDGED);
		}
		spool_cursor_close(c);
	}
	t->encoder = frame_encoder_free(t->encoder);
	assert_int_equal(frame_encoder_new(&t->encoder), 0);
	assert_int_equal(frame_encoder_continue(t->encoder, 10), 0);
	aggregator_open(t);
	uplink_make(t);
	run(t, 0, 200);
	spool_stats(t->spool, &stats);
	assert_int_equal(stats.dropped_unknown, 15);
	check_totals(t);
}

static void test_bad_address(void **state)
{
	struct test *t = *state;
	struct uplink_options options = {.address = "nonsense", .agent = "a"};
	struct err e = {0};

	assert_true(uplink_open(t->loop, t->spool, &options, &t->uplink, &e) < 0);
	assert_non_null(strstr(e.text, "nonsense"));
	t->uplink = NULL;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_plain, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nobody_there_at_first, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused_then_taken, setup, teardown),
		cmocka_unit_test_setup_teardown(test_poison_is_given_up, setup, teardown),
		cmocka_unit_test_setup_teardown(test_backlog_does_not_starve_live, setup, teardown),
		cmocka_unit_test_setup_teardown(test_restart_loses_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unknown_for_ever, setup, teardown),
		cmocka_unit_test_setup_teardown(test_all_troubles, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dictionary_is_not_there, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nobody_has_the_dictionary, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_address, setup, teardown),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
