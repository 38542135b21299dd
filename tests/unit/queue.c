/* SPDX-License-Identifier: Apache-2.0 */
/* Accept queues: what the kernel answers, listeners that come and go, and a real listener. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "probe/queue.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct answer {
	struct nlmsghdr h;
	struct inet_diag_msg m;
	struct rtattr other;
	uint32_t pad;
	struct rtattr a;
	uint32_t memory[SK_MEMINFO_VARS];
};

static struct answer answer(void)
{
	struct answer x;

	memset(&x, 0, sizeof(x));
	x.h.nlmsg_len = sizeof(x);
	x.m.id.idiag_sport = htons(8080);
	x.m.id.idiag_cookie[0] = 7;
	x.m.id.idiag_cookie[1] = 1;
	x.m.idiag_rqueue = 3;
	x.m.idiag_wqueue = 511;
	x.m.idiag_inode = 4711;
	x.other = (struct rtattr){sizeof(x.other) + 1, INET_DIAG_SHUTDOWN};
	x.a = (struct rtattr){sizeof(x.a) + sizeof(x.memory), INET_DIAG_SKMEMINFO};
	x.memory[SK_MEMINFO_DROPS] = 23;
	return x;
}

static void test_parse(void **state)
{
	struct answer x = answer();
	struct queue_state s = {.port = 9};

	(void)state;
	assert_int_equal(queue_parse(&x.h, sizeof(x), &s), 0);
	assert_int_equal(s.port, 8080);
	assert_true(s.cookie == (1ULL << 32 | 7));
	assert_int_equal(s.inode, 4711);
	assert_int_equal(s.length, 3);
	assert_int_equal(s.limit, 511);
	assert_true(s.has_drops);
	assert_int_equal(s.drops, 23);
	x.a.rta_len = sizeof(x.a) + 4; /* an older kernel's: without drops */
	x.h.nlmsg_len = offsetof(struct answer, memory) + 4;
	assert_int_equal(queue_parse(&x.h, sizeof(x), &s), 0);
	assert_false(s.has_drops);
}

static void test_parse_lies(void **state)
{
	struct queue_state s = {.port = 9};
	struct answer x = answer();

	(void)state;
	assert_int_equal(queue_parse(&x.h, 3, &s), -EBADMSG);
	assert_int_equal(queue_parse(&x.h, sizeof(x) - 1, &s), -EBADMSG);
	x.h.nlmsg_len = NLMSG_LENGTH(sizeof(x.m)) - 1;
	assert_int_equal(queue_parse(&x.h, sizeof(x), &s), -EBADMSG);
	x = answer();
	x.other.rta_len = 0; /* would never end */
	assert_int_equal(queue_parse(&x.h, sizeof(x), &s), -EBADMSG);
	x = answer();
	x.a.rta_len = 0xffff;
	assert_int_equal(queue_parse(&x.h, sizeof(x), &s), -EBADMSG);
	assert_int_equal(s.port, 9);
}

static uint64_t pending(struct queues *q, uint64_t cookie)
{
	size_t n;
	struct queue *rows = queues_rows(q, &n);

	for (size_t i = 0; i < n; i++)
		if (rows[i].state.cookie == cookie)
			return rows[i].pending;
	return UINT64_MAX;
}

static void feed(struct queues *q, const struct queue_state *states, size_t n)
{
	queues_begin(q);
	for (size_t i = 0; i < n; i++)
		queues_add(q, &states[i]);
	queues_end(q);
}

static void test_drops(void **state)
{
	struct queue_state s[3] = {
		{.cookie = 1, .port = 80, .drops = 1000, .has_drops = true},
		{.cookie = 2, .port = 80, .drops = UINT32_MAX - 1, .has_drops = true},
		{.cookie = 3, .port = 80, .drops = 13, .has_drops = true},
	};
	struct queues *q;

	(void)state;
	assert_int_equal(queues_open(&q, NULL), 0);
	feed(q, s, 2);
	assert_int_equal(pending(q, 1), 0); /* before we looked */
	s[0].drops += 7;
	s[1].drops += 5; /* wraps */
	feed(q, s, 3);
	assert_int_equal(pending(q, 1), 7);
	assert_int_equal(pending(q, 2), 5);
	assert_int_equal(pending(q, 3), 13); /* made after we began */
	s[0].drops += 2;
	feed(q, s, 1);
	assert_int_equal(pending(q, 1), 9); /* until somebody takes it */
	assert_true(pending(q, 2) == UINT64_MAX);
	q = queues_close(q);
	assert_null(q);
}

static void test_limit(void **state)
{
	struct queue_state s = {.port = 80};
	struct queues *q;
	size_t n;

	(void)state;
	assert_int_equal(queues_open(&q, NULL), 0);
	for (unsigned int pass = 0; pass < 2; pass++) {
		queues_begin(q);
		for (s.cookie = 1; s.cookie <= QUEUES_MAX + 5; s.cookie++)
			queues_add(q, &s);
		queues_end(q);
		queues_rows(q, &n);
		assert_int_equal(n, QUEUES_MAX);
		assert_int_equal(queues_refused(q), 5);
	}
	queues_close(q);
}

/* A listener with a backlog of 3 that accepts nothing: 3 + 1 wait, the rest is dropped. */
static void test_real(void **state)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(a);
	int listener, clients[7];
	const struct queue *row = NULL;
	struct queues *q;
	size_t n;

	(void)state;
	assert_int_equal(queues_open(&q, NULL), 0);
	assert_int_equal(queues_read(q), 0);
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(listener, 3), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&a, &len), 0);
	for (unsigned int i = 0; i < 7; i++) {
		clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		connect(clients[i], (struct sockaddr *)&a, sizeof(a));
	}
	assert_int_equal(queues_read(q), 0);
	for (size_t i = 0; i < (queues_rows(q, &n), n); i++)
		if (queues_rows(q, &n)[i].state.port == ntohs(a.sin_port))
			row = &queues_rows(q, &n)[i];
	assert_non_null(row);
	assert_int_equal(row->state.length, 4);
	assert_int_equal(row->state.limit, 3);
	assert_true(row->state.has_drops);
	assert_true(row->pending >= 3); /* SYNs are sent again */
	for (unsigned int i = 0; i < 7; i++)
		close(clients[i]);
	close(listener);
	assert_int_equal(queues_read(q), 0);
	for (size_t i = 0; i < (queues_rows(q, &n), n); i++)
		assert_int_not_equal(queues_rows(q, &n)[i].state.port, ntohs(a.sin_port));
	queues_close(q);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse), cmocka_unit_test(test_parse_lies),
		cmocka_unit_test(test_drops), cmocka_unit_test(test_limit),
		cmocka_unit_test(test_real),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
