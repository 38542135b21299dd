/* SPDX-License-Identifier: Apache-2.0 */
/* SP codec: every split of the bytes gives the same messages, hostile ones an error. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bus/outbox.h"
#include "bus/sp.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct heard {
	unsigned int ready, messages;
	size_t sizes[16];
	uint8_t last[4096];
};

/* Feeds all, step bytes at a time. */
static int feed(struct sp_parser *p, const uint8_t *data, size_t size, size_t step, struct heard *h)
{
	for (size_t at = 0; at < size;) {
		size_t n = size - at < step ? size - at : step, used = 0;
		int r = sp_parser_feed(p, data + at, n, &used);

		if (r < 0)
			return r;
		assert_true(used > 0 && used <= n);
		if (r == SP_MORE)
			assert_int_equal(used, n);
		at += used;
		h->ready += r == SP_READY;
		if (r == SP_MESSAGE) {
			assert_true(h->messages < 16);
			h->sizes[h->messages++] = p->size;
			if (p->size)
				memcpy(h->last, p->message, p->size);
		}
	}
	return 0;
}

static size_t put_message(uint8_t *out, bool is_ipc, const void *data, size_t size)
{
	size_t n = sp_header_put(out, is_ipc, size);

	if (size)
		memcpy(out + n, data, size);
	return n + size;
}

static void splits(void **state)
{
	uint8_t bytes[4096], body[1500];
	size_t size;

	(void)state;
	for (size_t i = 0; i < sizeof(body); i++)
		body[i] = (uint8_t)(i * 7);
	for (int is_ipc = 0; is_ipc < 2; is_ipc++) {
		sp_handshake_put(bytes, SP_REQ);
		size = SP_HANDSHAKE;
		size += put_message(bytes + size, is_ipc, "one", 3);
		size += put_message(bytes + size, is_ipc, NULL, 0);
		size += put_message(bytes + size, is_ipc, NULL, 0);
		size += put_message(bytes + size, is_ipc, body, sizeof(body));
		for (size_t step = 1; step <= size; step++) {
			struct sp_budget budget = {.limit = 1 << 20};
			struct heard h = {0};
			struct sp_parser p;

			sp_parser_init(&p, SP_REQ, is_ipc, 2000, &budget);
			assert_int_equal(feed(&p, bytes, size, step, &h), 0);
			assert_int_equal(h.ready, 1);
			assert_int_equal(h.messages, 4);
			assert_int_equal(h.sizes[0], 3);
			assert_int_equal(h.sizes[1], 0);
			assert_int_equal(h.sizes[2], 0);
			assert_int_equal(h.sizes[3], sizeof(body));
			assert_memory_equal(h.last, body, sizeof(body));
			sp_parser_fini(&p);
			assert_int_equal(budget.used, 0);
		}
	}
}

static void handshakes(void **state)
{
	uint8_t good[SP_HANDSHAKE], bad[SP_HANDSHAKE];

	(void)state;
	sp_handshake_put(good, SP_SUB);
	assert_int_equal(sp_handshake_check(good, SP_SUB), 0);
	assert_int_equal(sp_handshake_check(good, SP_REQ), -EPROTONOSUPPORT);
	/* Every single changed bit is noticed. */
	for (size_t bit = 0; bit < SP_HANDSHAKE * 8; bit++) {
		memcpy(bad, good, sizeof(bad));
		bad[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_true(sp_handshake_check(bad, SP_SUB) < 0);
	}
}

static int one(bool is_ipc, const uint8_t *data, size_t size, size_t max, struct sp_budget *budget)
{
	struct heard h = {0};
	struct sp_parser p;
	uint8_t hello[SP_HANDSHAKE];
	int r;

	sp_parser_init(&p, SP_REQ, is_ipc, max, budget);
	sp_handshake_put(hello, SP_REQ);
	assert_int_equal(feed(&p, hello, sizeof(hello), 8, &h), 0);
	r = feed(&p, data, size, size, &h);
	sp_parser_fini(&p);
	return r;
}

static void hostile(void **state)
{
	static const uint8_t huge[8] = {0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	static const uint8_t large[8] = {0, 0, 0, 0, 0, 0, 3, 0xe9};
	static const uint8_t wide[8] = {0, 0, 0, 1, 0, 0, 0, 1};
	static const uint8_t type[9] = {2};
	static const uint8_t zero[1] = {0};

	(void)state;
	assert_int_equal(one(false, huge, 8, 1000, NULL), -EMSGSIZE);
	assert_int_equal(one(false, large, 8, 1000, NULL), -EMSGSIZE);
	assert_int_equal(one(false, large, 8, 1001, NULL), 0);
	assert_int_equal(one(false, wide, 8, 1000, NULL), -EMSGSIZE);
	assert_int_equal(one(true, type, 9, 1000, NULL), -EPROTO);
	/* A wrong type byte is told at once, not when the header is whole. */
	assert_int_equal(one(true, zero, 1, 1000, NULL), -EPROTO);
}

/* A promise of a megabyte costs nothing; bytes do, and are bounded. */
static void budget(void **state)
{
	struct sp_budget b = {.limit = 8192};
	uint8_t bytes[8 + 20000] = {0};
	struct heard h = {0};
	struct sp_parser p;
	uint8_t hello[SP_HANDSHAKE];

	(void)state;
	sp_header_put(bytes, false, SP_MESSAGE_MAX);
	sp_parser_init(&p, SP_REQ, false, SP_MESSAGE_MAX, &b);
	sp_handshake_put(hello, SP_REQ);
	assert_int_equal(feed(&p, hello, 8, 8, &h), 0);
	assert_int_equal(feed(&p, bytes, 8 + 100, 108, &h), 0);
	assert_true(b.used <= 4096);
	assert_int_equal(feed(&p, bytes, 20000, 1000, &h), -ENOBUFS);
	assert_int_equal(b.refused, 1);
	assert_true(b.used <= b.limit);
	sp_parser_fini(&p);
	assert_int_equal(b.used, 0);
}

static void backtraces(void **state)
{
	uint8_t m[64] = {0};

	(void)state;
	assert_int_equal(sp_backtrace(m, sizeof(m)), -EPROTO);
	assert_int_equal(sp_backtrace(m, 0), -EPROTO);
	m[0] = 0x80;
	assert_int_equal(sp_backtrace(m, 3), -EPROTO);
	assert_int_equal(sp_backtrace(m, 4), 4);
	m[0] = 0;
	m[28] = 0x80;
	assert_int_equal(sp_backtrace(m, sizeof(m)), 32);
	assert_int_equal(sp_backtrace(m, 31), -EPROTO);
	m[28] = 0;
	m[32] = 0x80;
	assert_int_equal(sp_backtrace(m, sizeof(m)), -EPROTO);
}

static struct parcel *number(unsigned int n, size_t *account)
{
	struct parcel *p = parcel_new(&n, sizeof(n), NULL, 0, account);

	assert_non_null(p);
	return p;
}

static ssize_t socket_write(void *data, const struct iovec *iov, size_t n)
{
	/* sendmsg() does not write to them. */
	const struct msghdr msg = {.msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = n};
	ssize_t sent = sendmsg(*(const int *)data, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);

	return sent < 0 ? -errno : sent;
}

static unsigned int read_number(int fd)
{
	uint8_t b[8 + sizeof(unsigned int)];
	unsigned int n;

	assert_int_equal(recv(fd, b, sizeof(b), MSG_WAITALL), sizeof(b));
	memcpy(&n, b + 8, sizeof(n));
	return n;
}

static void outbox_order(void **state)
{
	size_t account = 0;
	struct outbox o;
	int fds[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	outbox_init(&o, 40, 100);
	for (unsigned int i = 0; i < 25; i++) {
		struct parcel *p = number(i, &account);

		assert_int_equal(outbox_push_over(&o, p), 0);
		parcel_unref(p);
	}
	assert_int_equal(o.count, 10);
	assert_int_equal(o.dropped, 15);
	assert_int_equal(o.bytes, 40);
	assert_int_equal(account, 40);
	assert_int_equal(outbox_flush(&o, socket_write, &fds[0], false), 0);
	for (unsigned int i = 15; i < 25; i++)
		assert_int_equal(read_number(fds[1]), i);
	assert_int_equal(o.done, 10);
	assert_int_equal(account, 0);
	outbox_fini(&o);
	close(fds[0]);
	close(fds[1]);
}

/* What was begun is never dropped: the peer would read garbage for ever after. */
static void outbox_whole(void **state)
{
	static uint8_t big[1 << 20];
	struct parcel *p = parcel_new(big, sizeof(big), NULL, 0, NULL);
	size_t got = 0;
	struct outbox o;
	uint8_t buf[65536];
	int fds[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	outbox_init(&o, 100, 10);
	assert_int_equal(outbox_push(&o, p), 0); /* an empty queue takes any */
	assert_int_equal(outbox_push(&o, p), -ENOBUFS);
	parcel_unref(p);
	assert_int_equal(outbox_flush(&o, socket_write, &fds[0], false), -EAGAIN);
	assert_true(o.sent > 0);
	assert_false(outbox_drop(&o));
	p = number(7, NULL);
	assert_int_equal(outbox_push_over(&o, p), -ENOBUFS);
	assert_int_equal(o.dropped, 1);
	o.limit = 2 << 20;
	assert_int_equal(outbox_push(&o, p), 0);
	assert_int_equal(outbox_push(&o, p), 0);
	parcel_unref(p);
	assert_true(outbox_drop(&o));
	while (got < sizeof(big) + 8) {
		size_t want = sizeof(big) + 8 - got;
		ssize_t n;

		assert_true(outbox_flush(&o, socket_write, &fds[0], false) <= 0);
		n = recv(fds[1], buf, want < sizeof(buf) ? want : sizeof(buf), 0);
		assert_true(n > 0);
		got += (size_t)n;
	}
	assert_int_equal(outbox_flush(&o, socket_write, &fds[0], false), 0);
	assert_int_equal(read_number(fds[1]), 7);
	assert_int_equal(recv(fds[1], buf, 1, MSG_DONTWAIT), -1);
	outbox_fini(&o);
	close(fds[0]);
	close(fds[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(splits),       cmocka_unit_test(handshakes),
		cmocka_unit_test(hostile),      cmocka_unit_test(budget),
		cmocka_unit_test(backtraces),   cmocka_unit_test(outbox_order),
		cmocka_unit_test(outbox_whole),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
