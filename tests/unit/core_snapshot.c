/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots in parts: walked as a subscriber walks them, everything comes, and comes once. */
#include "cmd/core.h"

#include "base/clock.h"
#include "base/str.h"
#include "bus/bulletin.h"
#include "bus/peer.h"
#include "bus/subject.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#define SERIES 20011u /* more than two parts */
#define TOPICS 9001u
#define PARTS  64u

static struct core core;
static struct config config;
static struct arena arena;
static struct bulletin got;
static unsigned int seen[SERIES > TOPICS ? SERIES : TOPICS];

static const char *topic_of(unsigned int i)
{
	static char topic[SUBJECT_MAX + 1];
	char agent[200];

	/* Long ones, so that the bytes end a part before the number does. */
	snprintf(agent, sizeof(agent), "%0190u", i);
	assert_int_equal(subject_metrics(i % 3 ? "nginx" : "kong", agent, topic), 0);
	return topic;
}

static void topics_fill(void)
{
	Tidegate__BusBody body;
	const uint8_t *m;
	size_t size;

	tidegate__bus_body__init(&body);
	for (unsigned int i = 0; i < TOPICS; i++)
		for (unsigned int n = 0; n <= i % 2; n++)
			assert_int_equal(
				publisher_message(core.publisher, topic_of(i), &body, &m, &size),
				0);
	assert_int_equal(publisher_message(core.publisher, "events/drain.end", &body, &m, &size),
			 0);
}

static void tick(struct frame_encoder *encoder, uint32_t session, uint64_t sequence,
		 uint64_t now_ms)
{
	struct frame *frame;
	const uint8_t *data;
	uint32_t samples;
	size_t size;

	frame_encoder_begin(encoder, sequence, now_ms, 1000, FRAME_CHANGES);
	for (unsigned int i = 0; i < SERIES; i++) {
		struct segment_series s = {.name = "test_total",
					   .unit = "",
					   .help = "",
					   .kind = METRIC_COUNTER,
					   .counter = i + 1,
					   .is_present = true,
					   .label_count = 2};
		char n[16];

		snprintf(n, sizeof(n), "%u", i);
		s.labels[0] = (struct segment_label){"gateway", i % 3 ? "nginx" : "kong"};
		s.labels[1] = (struct segment_label){"n", n};
		assert_int_equal(frame_encoder_series(encoder, &s), 0);
	}
	assert_int_equal(frame_encoder_finish(encoder, &data, &size, &samples), 0);
	assert_int_equal(frame_decode(data, size, &frame, NULL), 0);
	assert_int_equal(fleet_apply(core.fleet, session, frame, size, now_ms, NULL),
			 FLEET_APPLIED);
	frame_free(frame);
}

/* SERIES counters of value i + 1, every third of kong, the others of nginx. */
static void agent_fill(const char *id)
{
	uint8_t incarnation[FRAME_INCARNATION_BYTES] = {0};
	const struct fleet_hello hello = {
		.agent = id, .incarnation = incarnation, .labels = {"", "", "", ""}};
	uint64_t now_ms = clock_real_ns() / NS_PER_MS, sequence = 0;
	struct frame_encoder *encoder;
	uint32_t session;

	memcpy(incarnation, id, strlen(id));
	assert_int_equal(fleet_say_hello(core.fleet, &hello, 0, now_ms, &session, NULL), 0);
	assert_int_equal(frame_encoder_new(&encoder), 0);
	do
		tick(encoder, session, ++sequence, now_ms);
	while (frame_encoder_is_behind(encoder));
	frame_encoder_free(encoder);
}

static int setup(void **state)
{
	const struct fleet_limits limits = {.agents = 16, .agent_series = 65536, .series = 100000};

	(void)state;
	core = (struct core){.config = &config};
	config.fleet_stale = 60 * NS_PER_S;
	return fleet_new(&limits, &core.fleet) < 0 || publisher_new(77, &core.publisher) < 0 ||
			       arena_init(&arena, BULLETIN_ARENA_BYTES) < 0
		       ? -1
		       : 0;
}

static int teardown(void **state)
{
	(void)state;
	fleet_free(core.fleet);
	publisher_free(core.publisher);
	arena_fini(&arena);
	return 0;
}

/* Asks for a part, as a subscriber does; false: it was the last. */
static bool ask(const char *topic, char next[64])
{
	char request[512];
	size_t at = strlen(topic);
	const uint8_t *message;
	size_t size;

	memcpy(request, topic, at + 1);
	if (*next)
		at += 1 + (size_t)snprintf(request + at + 1, sizeof(request) - at - 1, "%s", next);
	assert_int_equal(core_snapshot_answer(&core, (const uint8_t *)request, at, &message, &size),
			 0);
	assert_true(size < 1u << 20);
	assert_int_equal(bulletin_decode(message, size, &arena, &got), 0);
	assert_string_equal(got.topic, "snapshot");
	assert_int_equal(got.epoch, 77);
	assert_int_equal(got.sequence, 0);
	snprintf(next, 64, "%s", got.body->next);
	return *next;
}

static void walk_series(const char *topic, uint64_t factor, unsigned int least)
{
	unsigned int parts = 0;
	char next[64] = "";
	bool is_more;

	memset(seen, 0, sizeof(seen));
	do {
		is_more = ask(topic, next);
		assert_string_equal(got.body->why, "");
		assert_true(++parts < PARTS);
		assert_int_equal(got.body->n_topics, *topic ? 1 : 0);
		if (*topic) {
			assert_string_equal(got.body->topics[0]->topic, topic);
			assert_int_equal(got.body->topics[0]->sequence,
					 publisher_sequence(core.publisher, topic));
		}
		for (size_t i = 0; i < got.body->n_series; i++) {
			const Tidegate__BusSeries *s = got.body->series[i];

			assert_true(s->counter % factor == 0 && s->counter / factor <= SERIES);
			seen[s->counter / factor - 1]++;
		}
	} while (is_more);
	assert_true(parts >= least);
}

static void topics_come_in_parts(void **state)
{
	Tidegate__BusBody body;
	const uint8_t *m;
	size_t size;

	(void)state;
	agent_fill("a");
	agent_fill("b");
	tidegate__bus_body__init(&body);
	for (unsigned int i = 0; i < 5; i++)
		assert_int_equal(
			publisher_message(core.publisher, "metrics/nginx/a", &body, &m, &size), 0);
	walk_series("metrics/nginx/a", 1, 2);
	for (unsigned int i = 0; i < SERIES; i++)
		assert_int_equal(seen[i], i % 3 != 0);
	walk_series("metrics/kong/b", 1, 1); /* no message of it yet */
	for (unsigned int i = 0; i < SERIES; i++)
		assert_int_equal(seen[i], i % 3 == 0);
}

static void sums_come_in_parts(void **state)
{
	(void)state;
	agent_fill("a");
	agent_fill("b");
	walk_series("", 2, 3);
	for (unsigned int i = 0; i < SERIES; i++)
		assert_int_equal(seen[i], 1);
}

static void lists_come_in_parts(void **state)
{
	static const char *const prefixes[] = {"metrics/", "metrics/kong/", "events/"};
	char next[64] = "";

	(void)state;
	topics_fill();
	for (unsigned int p = 0; p < 3; p++) {
		unsigned int parts = 0, count = 0;
		bool is_more;

		memset(seen, 0, sizeof(seen));
		do {
			is_more = ask(prefixes[p], next);
			assert_int_equal(got.body->n_series, 0);
			assert_true(++parts < PARTS);
			for (size_t i = 0; i < got.body->n_topics; i++) {
				const Tidegate__BusTopic *t = got.body->topics[i];
				char gateway[SUBJECT_MAX + 1], agent[SUBJECT_MAX + 1];
				unsigned long n;

				count++;
				if (!subject_read_metrics(t->topic, gateway, agent)) {
					assert_string_equal(t->topic, "events/drain.end");
					continue;
				}
				n = strtoul(agent, NULL, 10);
				assert_true(n < TOPICS);
				seen[n]++;
				assert_int_equal(t->sequence, n % 2 + 1);
			}
		} while (is_more);
		for (unsigned int i = 0; i < TOPICS; i++)
			assert_int_equal(seen[i], p == 0 || (p == 1 && i % 3 == 0));
		assert_int_equal(parts > 1, p < 1);
		assert_int_equal(count, p == 0 ? TOPICS : p == 1 ? (TOPICS + 2) / 3 : 1);
	}
}

/* Places are no longer what they were: said, not guessed. */
static void a_departure_between_parts_is_said(void **state)
{
	char next[64] = "";

	(void)state;
	agent_fill("a");
	agent_fill("b");
	assert_true(ask("metrics/nginx/a", next));
	fleet_depart(core.fleet, clock_real_ns() / NS_PER_MS + 1000, 1);
	assert_false(ask("metrics/nginx/a", next));
	assert_string_equal(got.body->why, "that place is gone; begin again");
	assert_int_equal(got.body->n_series, 0);
	walk_series("", 2, 3); /* what they counted stays */
	for (unsigned int i = 0; i < SERIES; i++)
		assert_int_equal(seen[i], 1);
}

static void bad_requests_get_a_reason(void **state)
{
	static const char *const topics[] = {"x",          "metrics", "metrics/nginx",
					     "metrics//a", "/x",      "beacon"};
	static const char *const places[] = {"x",   "0.", ".", "0.-1", "1.0", "0.99999999999",
					     "0.0x"};
	char next[64], long_one[700];
	const uint8_t *message;
	size_t size;

	(void)state;
	agent_fill("a");
	for (unsigned int i = 0; i < sizeof(topics) / sizeof(*topics); i++) {
		*next = '\0';
		assert_false(ask(topics[i], next));
		assert_non_null(strstr(got.body->why, "no such topic"));
	}
	for (unsigned int i = 0; i < sizeof(places) / sizeof(*places); i++) {
		snprintf(next, sizeof(next), "%s", places[i]);
		assert_false(ask("", next));
		assert_string_equal(got.body->why, "that place is gone; begin again");
	}
	snprintf(next, sizeof(next), "0.4000000000"); /* beyond the end: nothing, no error */
	assert_false(ask("", next));
	assert_int_equal(got.body->n_series, 0);
	*next = '\0';
	assert_false(ask("metrics/nginx/nobody", next));
	assert_string_equal(got.body->why, "nothing is known of it");
	memset(long_one, 'x', sizeof(long_one));
	assert_int_equal(core_snapshot_answer(&core, (const uint8_t *)long_one, sizeof(long_one),
					      &message, &size),
			 0);
	assert_int_equal(bulletin_decode(message, size, &arena, &got), 0);
	assert_string_equal(got.body->why, "the request is too long");
}

/* -------- on the core's thread, as the gate sends it -------- */

#define ASKED 40u

static struct loop_watch *reader;
static unsigned int came, uplinks_at, snapshots;
static char core_dir[64];

static void request_send(struct peer *peer, enum gatelink_channel channel, uint8_t n)
{
	uint8_t message[GATELINK_HANDLE_MAX + 64 + PASSPORT_BYTES_MAX];
	struct passport local;
	struct parcel *p;
	size_t size;

	passport_init(&local, PASSPORT_LOCAL, "");
	size = gatelink_head(message, GATELINK_REQUEST, (uint8_t)channel, &n, 1);
	size += passport_pack(&local, message + size);
	/* No topic: the sums of the fleet. No Uplink: refused, at once. */
	if (channel == GATELINK_UPLINK)
		message[size++] = 0xff;
	p = parcel_new(message, size, NULL, 0, NULL);
	assert_non_null(p);
	assert_int_equal(outbox_push(peer_outbox(peer), p), 0);
	parcel_unref(p);
}

static void on_ready(void *data, struct peer *p)
{
	(void)data;
	for (unsigned int i = 0; i < ASKED; i++)
		request_send(p, GATELINK_SNAPSHOT, (uint8_t)i);
	request_send(p, GATELINK_UPLINK, 200);
	peer_kick(p);
}

static int on_answer(void *data, struct peer *p, const uint8_t *message, size_t size)
{
	struct gatelink_message m;

	(void)data;
	(void)p;
	assert_int_equal(gatelink_parse(message, size, &m), 0);
	assert_int_equal(m.type, GATELINK_REPLY);
	came++;
	if (m.channel == GATELINK_UPLINK)
		uplinks_at = came;
	else
		assert_int_equal(*m.handle, snapshots++); /* in turn */
	if (came == ASKED + 1)
		loop_stop(core.loop);
	return 0;
}

static void on_late(void *data)
{
	(void)data;
	loop_stop(core.loop);
}

static int connect_to(const char *path)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	assert_true(str_copy(un.sun_path, sizeof(un.sun_path), path));
	assert_int_equal(connect(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	return fd;
}

static void core_begin(char path[96])
{
	struct err e = {0};

	strcpy(core_dir, "/tmp/tidegate-snapshot-XXXXXX");
	assert_non_null(mkdtemp(core_dir));
	snprintf(path, 96, "%s/core.sock", core_dir);
	config.fleet_log_bytes = 1 << 20;
	core.replies_end = &core.replies;
	core.applied_end = &core.applied;
	core.uplink.fleet = core.fleet;
	assert_int_equal(uplink_init(&core.uplink), 0);
	assert_int_equal(commitlog_open(core_dir, core_replay, &core, &core.log, &e), 0);
	core.uplink.log = core.log;
	assert_int_equal(loop_open(&core.loop), 0);
	assert_int_equal(core_asks_open(&core), 0);
	assert_int_equal(gatelink_server_open(core.loop, path, core_request, &core, &core.gate, &e),
			 0);
}

static void core_end(void)
{
	char log[96];

	core.gate = gatelink_server_close(core.gate);
	core_asks_close(&core);
	core.loop = loop_close(core.loop);
	snprintf(log, sizeof(log), "%s/commit.0.log", core_dir);
	core.log = commitlog_close(core.log);
	uplink_fini(&core.uplink);
	assert_int_equal(unlink(log), 0);
	assert_int_equal(rmdir(core_dir), 0);
}

/* The agent came last, in the same bytes as all who want snapshots, and is answered first. */
static void agents_go_first(void **state)
{
	const struct peer_spec spec = {.self = SP_PAIR,
				       .expect = SP_PAIR,
				       .is_ipc = true,
				       .message_max = GATELINK_FRAME_MAX,
				       .queue_bytes = 1 << 20,
				       .queue_messages = 1000,
				       .on_ready = on_ready,
				       .on_message = on_answer};
	struct peer *peer;
	char path[96];

	(void)state;
	agent_fill("a");
	core_begin(path);
	came = uplinks_at = snapshots = 0;
	assert_int_equal(peer_open(core.loop, connect_to(path), &spec, false, NULL, &peer), 0);
	assert_int_equal(loop_add_timer(core.loop, 60000, 0, on_late, NULL, &reader), 0);
	loop_run(core.loop);
	assert_int_equal(came, ASKED + 1);
	assert_int_equal(uplinks_at, 1);
	assert_int_equal(core_asks_dropped(&core), 0);
	peer_close(peer);
	core_end();
}

/* Beyond the row's end there is silence, and a number. */
static void the_row_has_an_end(void **state)
{
	struct gatelink_handle handle = {.channel = GATELINK_SNAPSHOT, .size = 1};
	char path[96];

	(void)state;
	core_begin(path);
	for (unsigned int i = 0; i < 1024; i++)
		core_asks_add(&core, &handle, (const uint8_t *)"", 0);
	assert_int_equal(core_asks_dropped(&core), 0);
	for (unsigned int i = 0; i < 7; i++)
		core_asks_add(&core, &handle, (const uint8_t *)"", 0);
	assert_int_equal(core_asks_dropped(&core), 7);
	core_end();
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(topics_come_in_parts),      TEST(sums_come_in_parts),
		TEST(lists_come_in_parts),       TEST(a_departure_between_parts_is_said),
		TEST(bad_requests_get_a_reason), TEST(agents_go_first),
		TEST(the_row_has_an_end),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
