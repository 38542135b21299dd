/* SPDX-License-Identifier: Apache-2.0 */
/* Requests as an agent sends them, through codec, fleet and commit log, and back after a restart. */
#include "base/crc32c.h"
#include "fleet/load.h"
#include "fleet/merge.h"
#include "fleet/snapshot.h"
#include "fleet/uplink.h"
#include "tidegate.pb-c.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];
static struct fleet *fleet;
static struct uplink uplink_state;
static struct frame_encoder *encoder;
static uint64_t cells[HIST_CELLS];

static void core_open(void)
{
	const struct fleet_limits limits = {.agents = 10, .agent_series = 1000, .series = 10000};
	struct err e = {{0}};

	assert_int_equal(fleet_new(&limits, &fleet), 0);
	uplink_state = (struct uplink){.fleet = fleet};
	assert_int_equal(uplink_init(&uplink_state), 0);
	assert_int_equal(commitlog_open(dir, uplink_replay, &uplink_state, &uplink_state.log, &e),
			 0);
}

static void core_close(void)
{
	commitlog_close(uplink_state.log);
	uplink_fini(&uplink_state);
	fleet = fleet_free(fleet);
}

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/tidegate-uplink-XXXXXX");
	memset(cells, 0, sizeof(cells));
	if (!mkdtemp(dir) || frame_encoder_new(&encoder) < 0)
		return -1;
	core_open();
	return 0;
}

static int teardown(void **state)
{
	char path[128];

	(void)state;
	core_close();
	frame_encoder_free(encoder);
	snprintf(path, sizeof(path), "%s/commit.0.log", dir);
	unlink(path);
	return rmdir(dir);
}

/* What the hello says of itself, and whether its series name a cluster of their own. */
static bool is_sum;
static uint32_t version = FRAME_VERSION;

static size_t frame_make(uint64_t sequence, bool is_key, uint8_t *ret)
{
	struct segment_series s[4] = {
		{.name = "tidegate_accepts_total",
		 .kind = METRIC_COUNTER,
		 .counter = sequence * 10},
		{.name = "tidegate_workers", .kind = METRIC_GAUGE, .gauge = 2},
		{.name = "tidegate_loop_stall_seconds", .kind = METRIC_HISTOGRAM, .cells = cells},
		{.name = "tidegate_loop_busy_seconds_total",
		 .kind = METRIC_COUNTER,
		 .counter = sequence * 1000000000},
	};
	const uint8_t *data;
	uint32_t samples;
	size_t size;

	cells[100]++;
	frame_encoder_begin(encoder, sequence, 1000000 + sequence * 1000, 1000,
			    is_key ? FRAME_KEY : FRAME_CHANGES);
	for (unsigned int i = 0; i < 4; i++) {
		s[i].unit = s[i].help = "";
		s[i].is_present = true;
		s[i].label_count = 2;
		s[i].labels[0] = (struct segment_label){"gateway", "nginx"};
		s[i].labels[1] = is_sum ? (struct segment_label){"cluster", "below"}
					: (struct segment_label){"instance", "a/1"};
		assert_int_equal(frame_encoder_series(encoder, &s[i]), 0);
	}
	assert_int_equal(frame_encoder_finish(encoder, &data, &size, &samples), 0);
	memcpy(ret, data, size);
	return size;
}

static Tidegate__UplinkReply *ask(uint32_t session, bool has_hello, uint8_t *frame, size_t size)
{
	static uint8_t incarnation[FRAME_INCARNATION_BYTES] = {1, 2, 3};
	static char agent[] = "a", key[] = "cluster", value[] = "c1";
	char *labels[2] = {key, value};
	Tidegate__UplinkReply *reply;
	ProtobufCBinaryData frames[1] = {{size, frame}};
	Tidegate__Uplink request;
	Tidegate__Hello hello;
	uint8_t buf[1 << 16], *data;
	size_t n;

	tidegate__uplink__init(&request);
	tidegate__hello__init(&hello);
	hello.version = version;
	hello.agent = agent;
	hello.incarnation = (ProtobufCBinaryData){sizeof(incarnation), incarnation};
	hello.n_labels = 2;
	hello.sums = is_sum;
	hello.labels = labels;
	request.session = session;
	request.hello = has_hello ? &hello : NULL;
	request.n_frames = frame ? 1 : 0;
	request.frames = frames;
	n = tidegate__uplink__pack(&request, buf);
	assert_int_equal(uplink_handle(&uplink_state, buf, n, 5000, &data, &n), 0);
	assert_int_equal(commitlog_commit(uplink_state.log, NULL), 0);
	reply = tidegate__uplink_reply__unpack(NULL, n, data);
	assert_non_null(reply);
	free(data);
	return reply;
}

static uint64_t counter_now(const char *metric)
{
	struct merge_options o = {.metric = metric, .now_ms = 5000, .stale_ms = 1000};
	struct merge_view *v;
	struct merge_series s;
	uint64_t value = 0;

	assert_int_equal(merge_view_new(fleet, &o, &v), 0);
	if (merge_view_count(v) == 1 && merge_view_get(v, 0, &s)) {
		value = s.kind == METRIC_HISTOGRAM ? histogram_count(s.cells) : s.counter;
		assert_int_equal(s.label_count, 2);
		assert_string_equal(s.labels[0].key, "cluster");
		assert_string_equal(s.labels[0].value, "c1");
		assert_string_equal(s.labels[1].value, "nginx");
	}
	merge_view_free(v);
	return value;
}

static void test_a_life(void **state)
{
	uint8_t frames[41][4096];
	size_t sizes[41];
	Tidegate__UplinkReply *reply;
	struct load_reading load;
	uint32_t session;

	(void)state;
	for (unsigned int i = 0; i < 41; i++)
		sizes[i] = frame_make(i + 1, i == 0, frames[i]);
	/* A session that nobody knows. */
	reply = ask(77, false, frames[0], sizes[0]);
	assert_int_equal(reply->status, TIDEGATE__UPLINK_REPLY__STATUS__NEED_HELLO);
	assert_int_equal(reply->n_acknowledged, 0);
	tidegate__uplink_reply__free_unpacked(reply, NULL);
	/* Without the key frame nothing is understood. */
	reply = ask(0, true, frames[1], sizes[1]);
	assert_int_equal(reply->status, TIDEGATE__UPLINK_REPLY__STATUS__NEED_KEY);
	assert_int_equal(reply->n_missing, 1);
	assert_int_equal(reply->missing[0], 2);
	session = reply->session;
	assert_int_not_equal(session, 0);
	tidegate__uplink_reply__free_unpacked(reply, NULL);
	for (unsigned int i = 0; i < 41; i++) {
		for (unsigned int twice = 0; twice < 2; twice++) {
			reply = ask(session, false, frames[i], sizes[i]);
			assert_int_equal(reply->status, TIDEGATE__UPLINK_REPLY__STATUS__OK);
			assert_int_equal(reply->n_acknowledged, 1);
			assert_int_equal(reply->acknowledged[0], i + 1);
			tidegate__uplink_reply__free_unpacked(reply, NULL);
		}
		if (i % 10 == 5) {
			core_close();
			core_open();
		}
		assert_int_equal(counter_now("tidegate_accepts_total"), (i + 1) * 10);
		assert_int_equal(counter_now("tidegate_loop_stall_seconds"), i + 1);
	}
	/* One busy second a second in two workers. */
	load_read(fleet, 5000, 1000, &load);
	assert_int_equal(load.reporting, 1);
	assert_true(fabs(load.mean - 0.5) < 1e-9);
	load_read(fleet, 50000, 1000, &load);
	assert_int_equal(load.reporting, 0);
	assert_int_equal(load.expected, 1);
	assert_true(isnan(load.mean));
}

static void cluster_check(const char *cluster)
{
	struct merge_options o = {.metric = "tidegate_accepts_total", .stale_ms = 1ULL << 60};
	struct merge_view *v;
	struct merge_series s;

	assert_int_equal(merge_view_new(fleet, &o, &v), 0);
	assert_int_equal(merge_view_count(v), 1);
	assert_true(merge_view_get(v, 0, &s));
	assert_string_equal(s.labels[0].key, "cluster");
	assert_string_equal(s.labels[0].value, cluster);
	merge_view_free(v);
}

/* The log says again what the hello said: else series of sums would change their names. */
static void test_sums(void **state)
{
	uint8_t frame[4096];
	Tidegate__UplinkReply *reply;
	struct fleet_stats stats;
	struct load_reading load;
	size_t size;

	(void)state;
	is_sum = true;
	size = frame_make(1, true, frame);
	reply = ask(0, true, frame, size);
	is_sum = false;
	assert_int_equal(reply->n_acknowledged, 1);
	tidegate__uplink_reply__free_unpacked(reply, NULL);
	cluster_check("below");
	core_close();
	core_open();
	cluster_check("below");
	/* It stands for many agents, or none: nothing for a scale signal. */
	load_read(fleet, 5000, 1000, &load);
	assert_int_equal(load.expected, 0);
	fleet_depart(fleet, 1ULL << 50, 1);
	fleet_stats(fleet, &stats);
	assert_int_equal(stats.incarnations, 1);
}

static void check_refused(const char *why)
{
	Tidegate__UplinkReply *reply = ask(0, true, NULL, 0);

	assert_int_equal(reply->status, TIDEGATE__UPLINK_REPLY__STATUS__REFUSED);
	if (!strstr(reply->why, why))
		fail_msg("\"%s\" does not say \"%s\"", reply->why, why);
	tidegate__uplink_reply__free_unpacked(reply, NULL);
}

/* A name is an agent's or an aggregator's, and never that of this aggregator itself. */
static void test_names(void **state)
{
	(void)state;
	is_sum = true;
	uplink_state.own_name = "a";
	check_refused("cannot feed itself");
	is_sum = false;
	tidegate__uplink_reply__free_unpacked(ask(0, true, NULL, 0), NULL);
	is_sum = true;
	uplink_state.own_name = "b";
	check_refused("name of an agent");
	core_close();
	core_open();
	check_refused("name of an agent");
	is_sum = false;
}

static int append(void *log, uint32_t type, const void *payload, size_t size)
{
	return commitlog_append(log, type, &(struct iovec){(void *)(uintptr_t)payload, size}, 1);
}

static void test_life(void **state)
{
	(void)state;
	assert_true(fleet_life(fleet) == 0);
	assert_int_equal(snapshot_save_life(fleet, append, uplink_state.log), 0);
	assert_int_equal(commitlog_pending(uplink_state.log), 0);
	fleet_set_life(fleet, 0xfedcba9876543210ULL);
	assert_int_equal(snapshot_save_life(fleet, append, uplink_state.log), 0);
	assert_int_equal(commitlog_commit(uplink_state.log, NULL), 0);
	core_close();
	core_open();
	assert_true(fleet_life(fleet) == 0xfedcba9876543210ULL);
}

static void test_damaged_frame(void **state)
{
	uint8_t frame[4096];
	size_t size = frame_make(1, true, frame);
	Tidegate__UplinkReply *reply;

	(void)state;
	frame[size - 1] ^= 1;
	reply = ask(0, true, frame, size);
	assert_int_equal(reply->n_acknowledged, 0);
	assert_int_equal(uplink_state.stats.frames_damaged, 1);
	tidegate__uplink_reply__free_unpacked(reply, NULL);
}

static void test_rubbish(void **state)
{
	uint8_t buf[2000], *reply;
	size_t size;

	(void)state;
	srand(3);
	for (unsigned int round = 0; round < 20000; round++) {
		size_t n = (size_t)rand() % sizeof(buf);

		for (size_t i = 0; i < n; i++)
			buf[i] = (uint8_t)(rand() % (round % 2 ? 256 : 32));
		assert_int_equal(uplink_handle(&uplink_state, buf, n, 1, &reply, &size), 0);
		free(reply);
		assert_true(uplink_replay(&uplink_state, (uint32_t)rand() % 32, buf, n) <= 0);
	}
	assert_true(uplink_state.stats.malformed > 1000);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

/* Whom the sender of the next request may speak for. */
static const char *spoken_for;
static bool spoken_as_sum;

static bool may_speak(void *data, const char *agent, bool sums)
{
	(void)data;
	return strcmp(agent, spoken_for) == 0 && (!sums || spoken_as_sum);
}

static void test_foreign_agents(void **state)
{
	uint8_t frame[4096];
	Tidegate__UplinkReply *reply;
	uint32_t session;
	size_t size;

	(void)state;
	uplink_state.may_speak = may_speak;
	spoken_for = "b";
	size = frame_make(1, true, frame);
	reply = ask(0, true, frame, size);
	assert_int_equal(reply->status, TIDEGATE__UPLINK_REPLY__STATUS__REFUSED);
	assert_int_equal(reply->n_acknowledged, 0);
	assert_string_equal(reply->why, "hello: the certificate does not authorise this agent id");
	tidegate__uplink_reply__free_unpacked(reply, NULL);
	assert_int_equal(uplink_state.stats.foreign, 1);

	spoken_for = "a";
	reply = ask(0, true, frame, size);
	assert_int_equal(reply->status, TIDEGATE__UPLINK_REPLY__STATUS__OK);
	assert_int_equal(reply->n_acknowledged, 1);
	session = reply->session;
	tidegate__uplink_reply__free_unpacked(reply, NULL);

	/* A stolen session number: nothing of it is taken. */
	spoken_for = "b";
	size = frame_make(2, false, frame);
	reply = ask(session, false, frame, size);
	assert_int_equal(reply->status, TIDEGATE__UPLINK_REPLY__STATUS__NEED_HELLO);
	assert_int_equal(reply->n_acknowledged, 0);
	tidegate__uplink_reply__free_unpacked(reply, NULL);
	assert_int_equal(uplink_state.stats.foreign, 2);
	assert_int_equal(counter_now("tidegate_accepts_total"), 10);

	spoken_for = "a";
	reply = ask(session, false, frame, size);
	assert_int_equal(reply->n_acknowledged, 1);
	tidegate__uplink_reply__free_unpacked(reply, NULL);
	assert_int_equal(uplink_state.stats.foreign, 2);
	assert_int_equal(counter_now("tidegate_accepts_total"), 20);
}

/* Who may speak for it as an agent may not as an aggregator, with a hello or a session. */
static void test_foreign_sums(void **state)
{
	uint8_t frame[4096];
	Tidegate__UplinkReply *reply;
	size_t size = frame_make(1, true, frame);
	uint32_t session;

	(void)state;
	uplink_state.may_speak = may_speak;
	spoken_for = "a";
	is_sum = true;
	spoken_as_sum = false;
	reply = ask(0, true, frame, size);
	assert_int_equal(reply->status, TIDEGATE__UPLINK_REPLY__STATUS__REFUSED);
	assert_string_equal(reply->why,
			    "hello: the certificate does not authorise this id as an aggregator's");
	tidegate__uplink_reply__free_unpacked(reply, NULL);
	spoken_as_sum = true;
	reply = ask(0, true, frame, size);
	assert_int_equal(reply->n_acknowledged, 1);
	session = reply->session;
	tidegate__uplink_reply__free_unpacked(reply, NULL);
	spoken_as_sum = false;
	size = frame_make(2, false, frame);
	reply = ask(session, false, frame, size);
	assert_int_equal(reply->status, TIDEGATE__UPLINK_REPLY__STATUS__NEED_HELLO);
	tidegate__uplink_reply__free_unpacked(reply, NULL);
	assert_int_equal(uplink_state.stats.foreign, 2);
	is_sum = false;
}

/* Who speaks a later version is not taken at its word, and is told so. */
static void test_later_version(void **state)
{
	uint8_t frame[4096];
	Tidegate__UplinkReply *reply;
	size_t size = frame_make(1, true, frame);

	(void)state;
	version = FRAME_VERSION + 1;
	reply = ask(0, true, frame, size);
	version = FRAME_VERSION;
	assert_int_equal(reply->status, TIDEGATE__UPLINK_REPLY__STATUS__REFUSED);
	assert_int_equal(reply->n_acknowledged + reply->n_refused, 0);
	assert_string_equal(reply->why,
			    "hello: version 3, this aggregator knows 2: upgrade it first");
	tidegate__uplink_reply__free_unpacked(reply, NULL);
	reply = ask(0, true, frame, size);
	assert_int_equal(reply->n_acknowledged, 1);
	tidegate__uplink_reply__free_unpacked(reply, NULL);
}

/* Of a later version: which dictionary is missing goes back, once the frame is there without it all
 * is well. */
static void test_unknown_dictionary(void **state)
{
	uint8_t frame[4096], later[4096];
	Tidegate__UplinkReply *reply;
	size_t size = frame_make(1, true, frame);
	uint32_t crc;

	(void)state;
	assert_int_equal(frame_dictionary_of(frame, size), 1);
	memcpy(later, frame, size);
	later[FRAME_SEAL_BYTES + 5] = 77; /* in zstd's header, behind magic and descriptor */
	assert_int_equal(frame_dictionary_of(later, size), 77);
	crc = crc32c(0, later + FRAME_SEAL_BYTES, size - FRAME_SEAL_BYTES);
	for (unsigned int i = 0; i < 4; i++)
		later[1 + i] = (uint8_t)(crc >> (8 * i));
	reply = ask(0, true, later, size);
	assert_int_equal(reply->status, TIDEGATE__UPLINK_REPLY__STATUS__OK);
	assert_int_equal(reply->n_acknowledged + reply->n_refused + reply->n_missing, 0);
	assert_int_equal(reply->dictionary, 77);
	assert_string_equal(reply->why, "frame: needs dictionary 77, here are: 1");
	assert_int_equal(uplink_state.stats.frames_unreadable, 1);
	assert_int_equal(uplink_state.stats.frames_damaged, 0);
	tidegate__uplink_reply__free_unpacked(reply, NULL);
	reply = ask(0, true, frame, size);
	assert_int_equal(reply->n_acknowledged, 1);
	assert_int_equal(reply->dictionary, 0);
	tidegate__uplink_reply__free_unpacked(reply, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {TEST(test_a_life),         TEST(test_sums),
					   TEST(test_names),          TEST(test_life),
					   TEST(test_later_version),  TEST(test_unknown_dictionary),
					   TEST(test_damaged_frame),  TEST(test_rubbish),
					   TEST(test_foreign_agents), TEST(test_foreign_sums)};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
