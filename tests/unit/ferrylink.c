/* SPDX-License-Identifier: Apache-2.0 */
/* The socket between core and ferry: what goes over it, who dies, and rubbish. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/str.h"
#include "bus/ferrylink.h"
#include "bus/sp.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define LIFE 0x1122334455667788ULL

static struct loop *loop;
static struct loop_watch *poller;
static bool (*until)(void);
static uint64_t deadline_ns;
static char dir[64], path[128];
static struct ferrylink_server *core;
static struct ferrylink *ferry;

static struct ferrylink_ask asked;
static struct ferrylink_answer answered;
static uint8_t *answer_data, expected[FRAME_SEALED_MAX];
static unsigned int asks, answers, welcomes, losses;
static uint64_t welcome_life;
static size_t answer_size;

static void poll_condition(void *data)
{
	(void)data;
	if (until() || clock_mono_ns() > deadline_ns)
		loop_stop(loop);
}

#define run_until(condition) run_until_at(condition, #condition, __LINE__)

static void run_until_at(bool (*condition)(void), const char *what, int line)
{
	until = condition;
	deadline_ns = clock_mono_ns() + 10 * NS_PER_S;
	assert_int_equal(loop_set_timer(poller, 0, 1), 0);
	loop_run(loop);
	if (!condition())
		fail_msg("line %d: never: %s", line, what);
}

static void on_ask(void *data, const struct ferrylink_ask *ask)
{
	const struct ferrylink_answer a = {
		.cookie = ask->cookie,
		.time_ms = 1700000000123ULL,
		.next_id = 4711,
		.samples = 17,
		.data = expected,
		.size = answer_size,
	};

	(void)data;
	asked = *ask;
	asks++;
	assert_int_equal(ferrylink_answer(core, &a), 0);
}

static void on_welcome(void *data, uint64_t life)
{
	(void)data;
	welcome_life = life;
	welcomes++;
}

static void on_answer(void *data, const struct ferrylink_answer *a)
{
	(void)data;
	answered = *a;
	free(answer_data);
	answer_data = malloc(a->size + 1);
	memcpy(answer_data, a->data, a->size);
	answers++;
}

static void on_lost(void *data)
{
	(void)data;
	losses++;
}

static bool is_welcome(void)
{
	return welcomes > 0;
}

static bool is_welcome_again(void)
{
	return welcomes > 1;
}

static bool is_answered(void)
{
	return answers > 0;
}

static bool is_lost(void)
{
	return losses > 0;
}

static void core_open(uint64_t life)
{
	struct err e = {0};

	assert_int_equal(ferrylink_server_open(loop, path, life, on_ask, NULL, &core, &e), 0);
}

static int setup(void **state)
{
	static const struct ferrylink_events events = {on_welcome, on_answer, on_lost, NULL};
	struct err e = {0};

	(void)state;
	asks = answers = welcomes = losses = 0;
	answer_size = 3;
	for (size_t i = 0; i < sizeof(expected); i++)
		expected[i] = (uint8_t)(i * 131 >> 3);
	strcpy(dir, "/tmp/tidegate-ferrylink-XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/ferry.sock", dir);
	assert_int_equal(loop_open(&loop), 0);
	assert_int_equal(loop_add_timer(loop, 1000000, 0, poll_condition, NULL, &poller), 0);
	assert_int_equal(ferrylink_open(loop, path, &events, &ferry, &e), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	ferry = ferrylink_close(ferry);
	core = ferrylink_server_close(core);
	free(answer_data);
	answer_data = NULL;
	loop_close(loop);
	return rmdir(dir);
}

static const struct ferrylink_ask question = {
	.cookie = 3,
	.kept = 2,
	.sequence = 1ULL << 40,
	.first_id = 257,
	.interval_ms = 1000,
	.type = FRAME_TOTALS,
	.counts = {1, 2, 3, 4, 5, 6, {7, 8, 9, 10, 11, 12, 13}},
};

static void question_and_answer(void **state)
{
	(void)state;
	assert_int_equal(ferrylink_ask(ferry, &question), -ENOTCONN);
	core_open(LIFE); /* after the ferry, which tries again */
	assert_false(ferrylink_is_connected(core));
	run_until(is_welcome);
	assert_true(ferrylink_is_connected(core));
	assert_true(welcome_life == LIFE);
	assert_int_equal(ferrylink_ask(ferry, &question), 0);
	run_until(is_answered);
	assert_memory_equal(&asked, &question, sizeof(question));
	assert_int_equal(answered.cookie, 3);
	assert_true(answered.time_ms == 1700000000123ULL);
	assert_int_equal(answered.next_id, 4711);
	assert_int_equal(answered.samples, 17);
	assert_int_equal(answered.size, 3);
	assert_memory_equal(answer_data, expected, 3);
}

static void largest_and_none(void **state)
{
	(void)state;
	core_open(LIFE);
	run_until(is_welcome);
	answer_size = FRAME_SEALED_MAX;
	assert_int_equal(ferrylink_ask(ferry, &question), 0);
	run_until(is_answered);
	assert_int_equal(answered.size, FRAME_SEALED_MAX);
	assert_memory_equal(answer_data, expected, FRAME_SEALED_MAX);
	answers = 0;
	answer_size = 0;
	assert_int_equal(ferrylink_ask(ferry, &question), 0);
	run_until(is_answered);
	assert_int_equal(answered.size, 0);
	assert_int_equal(
		ferrylink_answer(core, &(struct ferrylink_answer){.data = expected,
								  .size = FRAME_SEALED_MAX + 1}),
		-EMSGSIZE);
}

static void the_core_dies(void **state)
{
	(void)state;
	core_open(LIFE);
	run_until(is_welcome);
	core = ferrylink_server_close(core);
	run_until(is_lost);
	assert_int_equal(ferrylink_ask(ferry, &question), -ENOTCONN);
	core_open(LIFE + 1);
	run_until(is_welcome_again);
	assert_true(welcome_life == LIFE + 1);
}

static int dial(void)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	uint8_t hello[SP_HANDSHAKE];
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	assert_true(str_copy(un.sun_path, sizeof(un.sun_path), path));
	assert_int_equal(connect(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	sp_handshake_put(hello, SP_PAIR);
	assert_int_equal(send(fd, hello, sizeof(hello), 0), sizeof(hello));
	return fd;
}

static bool core_has_one(void)
{
	return ferrylink_is_connected(core);
}

static bool core_has_none(void)
{
	return !ferrylink_is_connected(core);
}

static bool is_asked(void)
{
	return asks > 0;
}

/* A question of zeros but for its type and its sequence is a good one. */
enum {
	ASK_BYTES = 1 + 8 * (6 + 6 + SPOOL_DROPS),
	AT_SEQUENCE = 17,
	AT_FIRST_ID = 25,
	AT_INTERVAL = 33,
	AT_TYPE = 41
};

static int send_question(size_t at, uint8_t byte, size_t size)
{
	uint8_t message[ASK_BYTES + 1] = {2}, head[SP_HEADER_MAX];
	int fd = dial();

	message[AT_SEQUENCE] = 1;
	message[at] = byte;
	run_until(core_has_one);
	assert_int_equal(send(fd, head, sp_header_put(head, true, size), 0), 9);
	assert_int_equal(send(fd, message, size, 0), size);
	return fd;
}

static void rubbish_ends_the_connection(void **state)
{
	static const struct {
		size_t at;
		uint8_t byte;
		size_t size;
	} wrong[] = {
		{0, 3, ASK_BYTES},               /* an answer */
		{0, 9, ASK_BYTES},               /* no such message */
		{0, 2, ASK_BYTES - 1},           /* short */
		{0, 2, ASK_BYTES + 1},           /* long */
		{AT_SEQUENCE, 0, ASK_BYTES},     /* none */
		{AT_FIRST_ID + 4, 1, ASK_BYTES}, /* beyond the most */
		{AT_INTERVAL + 4, 1, ASK_BYTES}, /* beyond 32 bits */
		{AT_TYPE, 3, ASK_BYTES},         /* no type of frame */
	};
	int fd;

	(void)state;
	ferry = ferrylink_close(ferry);
	core_open(LIFE);
	fd = send_question(0, 2, ASK_BYTES);
	run_until(is_asked);
	close(fd);
	run_until(core_has_none);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		fd = send_question(wrong[i].at, wrong[i].byte, wrong[i].size);
		run_until(core_has_none);
		assert_int_equal(asks, 1);
		close(fd);
	}
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(question_and_answer),
		TEST(largest_and_none),
		TEST(the_core_dies),
		TEST(rubbish_ends_the_connection),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
