/* SPDX-License-Identifier: Apache-2.0 */
/* Publisher, fan-out, and the subscriber's arithmetic; hostile bus messages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "bus/bulletin.h"
#include "bus/fanout.h"
#include "bus/publisher.h"
#include "bus/sp.h"
#include "bus/subscriber.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zstd.h>

static struct arena arena;

/* ---- the loop of a test: runs until a condition holds ---- */

static struct loop *loop;
static struct loop_watch *poller;
static bool (*until)(void);
static uint64_t deadline_ns;

static void poll_condition(void *data)
{
	(void)data;
	if (until() || clock_mono_ns() > deadline_ns)
		loop_stop(loop);
}

static void run_until(bool (*condition)(void))
{
	until = condition;
	deadline_ns = clock_mono_ns() + 10 * NS_PER_S;
	assert_int_equal(loop_set_timer(poller, 0, 1), 0);
	loop_run(loop);
	assert_true(condition());
}

static struct fanout *fanout;
static struct fanout_stats stats;
static uint64_t wanted;

static bool has_subscribers(void)
{
	fanout_stats(fanout, &stats);
	return stats.subscribers == wanted;
}

static bool has_hostile(void)
{
	fanout_stats(fanout, &stats);
	return stats.hostile == wanted;
}

static bool has_refused(void)
{
	fanout_stats(fanout, &stats);
	return stats.refused == wanted;
}

static int fds_ready[8];
static unsigned int fds_count;

/* Handshakes came back on all, so the other side has seen ours. */
static bool are_ready(void)
{
	for (unsigned int i = 0; i < fds_count; i++) {
		uint8_t b[SP_HANDSHAKE];

		if (recv(fds_ready[i], b, sizeof(b), MSG_PEEK | MSG_DONTWAIT) < SP_HANDSHAKE)
			return false;
	}
	return true;
}

static int setup(void **state)
{
	(void)state;
	assert_int_equal(arena_init(&arena, BULLETIN_ARENA_BYTES), 0);
	assert_int_equal(loop_open(&loop), 0);
	return loop_add_timer(loop, 1000000, 0, poll_condition, NULL, &poller);
}

static int teardown(void **state)
{
	(void)state;
	loop_close(loop);
	arena_fini(&arena);
	return 0;
}

static int dial_tcp(unsigned int port)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	struct timeval tv = {.tv_sec = 10};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	return fd;
}

static int dial_ipc(const char *path)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct timeval tv = {.tv_sec = 10};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	strncpy(un.sun_path, path, sizeof(un.sun_path) - 1);
	assert_int_equal(connect(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
	return fd;
}

static void say_hello(int fd)
{
	uint8_t b[SP_HANDSHAKE];

	sp_handshake_put(b, SP_SUB);
	assert_int_equal(send(fd, b, sizeof(b), MSG_NOSIGNAL), sizeof(b));
}

/* ---- publisher and subscriber ---- */

static void fill(Tidegate__BusBody *body, Tidegate__BusSeries *series, Tidegate__BusSeries **list,
		 unsigned int n, char **labels)
{
	tidegate__bus_body__init(body);
	body->time_ms = 1700000000123;
	for (unsigned int i = 0; i < n; i++) {
		tidegate__bus_series__init(&series[i]);
		series[i].metric = (char *)(uintptr_t) "tidegate_requests_total";
		series[i].labels = labels;
		series[i].n_labels = 4;
		series[i].counter = i;
		list[i] = &series[i];
	}
	body->series = list;
	body->n_series = n;
}

static void publish_and_decode(void **state)
{
	char gateway[] = "gateway", nginx[] = "nginx", code[] = "code", ok[] = "200";
	char *labels[] = {gateway, nginx, code, ok};
	static Tidegate__BusSeries series[500], *list[500];
	Tidegate__BusBody body;
	struct publisher *p;
	struct bulletin b;
	const uint8_t *m;
	size_t size, small = 0;

	(void)state;
	assert_int_equal(publisher_new(77, &p), 0);
	for (uint64_t i = 1; i <= 3; i++) {
		unsigned int n = i == 1 ? 1 : 500;

		fill(&body, series, list, n, labels);
		assert_int_equal(publisher_message(p, "series/a", &body, &m, &size), 0);
		assert_int_equal(bulletin_decode(m, size, &arena, &b), 0);
		assert_string_equal(b.topic, "series/a");
		assert_int_equal(b.epoch, 77);
		assert_int_equal(b.sequence, i);
		assert_int_equal(b.body->time_ms, 1700000000123);
		assert_int_equal(b.body->n_series, n);
		assert_int_equal(b.body->series[n - 1]->counter, n - 1);
		assert_string_equal(b.body->series[0]->labels[3], "200");
		if (i == 1)
			small = size;
	}
	assert_true(size < small * 100); /* 500 like series were compressed */
	assert_int_equal(publisher_sequence(p, "series/a"), 3);
	assert_int_equal(publisher_sequence(p, "series/b"), 0);
	assert_int_equal(publisher_message(p, "", &body, &m, &size), -EINVAL);
	publisher_free(p);
}

static void beacons(void **state)
{
	Tidegate__BusBody body;
	struct publisher *p;
	struct bulletin b;
	const uint8_t *m;
	size_t size, listed = 0;
	char topic[32];

	(void)state;
	tidegate__bus_body__init(&body);
	assert_int_equal(publisher_new(5, &p), 0);
	assert_int_equal(publisher_beacon(p, 1000, &m, &size), 0);
	assert_int_equal(bulletin_decode(m, size, &arena, &b), 0);
	assert_string_equal(b.topic, "beacon");
	assert_int_equal(b.body->n_topics, 0);
	publisher_message(p, "a", &body, &m, &size);
	publisher_message(p, "b", &body, &m, &size);
	publisher_message(p, "a", &body, &m, &size);
	assert_int_equal(publisher_beacon(p, 2000, &m, &size), 0);
	assert_int_equal(bulletin_decode(m, size, &arena, &b), 0);
	assert_int_equal(b.sequence, 2);
	assert_int_equal(b.body->n_topics, 2);
	assert_string_equal(b.body->topics[0]->topic, "a");
	assert_int_equal(b.body->topics[0]->sequence, 2);
	assert_int_equal(b.body->topics[1]->sequence, 1);
	assert_int_equal(publisher_beacon(p, 3000, &m, &size), 0);
	assert_int_equal(bulletin_decode(m, size, &arena, &b), 0);
	assert_int_equal(b.body->n_topics, 0);
	/* More than one beacon holds: all are listed once, over several. */
	for (unsigned int i = 0; i < 20000; i++) {
		snprintf(topic, sizeof(topic), "series/agent-%u", i);
		assert_int_equal(publisher_message(p, topic, &body, &m, &size), 0);
	}
	for (unsigned int i = 0; i < 3; i++) {
		assert_int_equal(publisher_beacon(p, 4000, &m, &size), 0);
		assert_int_equal(bulletin_decode(m, size, &arena, &b), 0);
		listed += b.body->n_topics;
	}
	assert_int_equal(listed, 20000);
	publisher_free(p);
}

static void expect(const struct subscriber_note *n, uint64_t missed, bool at_least, bool restarted)
{
	assert_int_equal(n->missed, missed);
	assert_int_equal(n->is_at_least, at_least);
	assert_int_equal(n->has_restarted, restarted);
}

/* Messages that nobody was there to get are numbered all the same, and the next beacon lists them. */
static void skipped(void **state)
{
	Tidegate__BusBody body;
	struct publisher *p;
	struct bulletin b;
	const uint8_t *m;
	size_t size;

	(void)state;
	tidegate__bus_body__init(&body);
	assert_int_equal(publisher_new(5, &p), 0);
	publisher_message(p, "a", &body, &m, &size);
	for (unsigned int i = 0; i < 7; i++)
		assert_int_equal(publisher_skip(p, "a"), 0);
	assert_int_equal(publisher_skip(p, "b"), 0);
	assert_int_equal(publisher_skip(p, ""), -EINVAL);
	assert_int_equal(publisher_sequence(p, "a"), 8);
	assert_int_equal(publisher_beacon(p, 1000, &m, &size), 0);
	assert_int_equal(bulletin_decode(m, size, &arena, &b), 0);
	assert_int_equal(b.body->n_topics, 2);
	assert_int_equal(b.body->topics[0]->sequence, 8);
	assert_int_equal(b.body->topics[1]->sequence, 1);
	assert_int_equal(publisher_message(p, "a", &body, &m, &size), 0);
	assert_int_equal(bulletin_decode(m, size, &arena, &b), 0);
	assert_int_equal(b.sequence, 9);
	publisher_free(p);
}

static void gaps(void **state)
{
	struct subscriber s;
	struct subscriber_note n;

	(void)state;
	subscriber_init(&s, 1);
	subscriber_message(&s, "a", 1, 10, &n); /* came late: no gap */
	expect(&n, 0, false, false);
	subscriber_message(&s, "a", 1, 11, &n);
	expect(&n, 0, false, false);
	subscriber_message(&s, "a", 1, 15, &n);
	expect(&n, 3, false, false);
	subscriber_message(&s, "a", 1, 12, &n); /* twice: nothing */
	expect(&n, 0, false, false);
	subscriber_message(&s, "beacon", 1, 4, &n);
	subscriber_listed(&s, "a", 15, &n);
	expect(&n, 0, false, false);
	subscriber_listed(&s, "b", 7, &n); /* the first beacon only says where b stands */
	expect(&n, 0, false, false);
	subscriber_beacon_end(&s);
	subscriber_message(&s, "beacon", 1, 5, &n);
	subscriber_listed(&s, "a", 17, &n); /* the last messages, too */
	expect(&n, 2, false, false);
	subscriber_listed(&s, "c", 9, &n);
	expect(&n, 1, true, false);
	subscriber_beacon_end(&s);
	subscriber_message(&s, "a", 1, 18, &n);
	expect(&n, 0, false, false);
	subscriber_message(&s, "b", 1, 8, &n);
	expect(&n, 0, false, false);
	/* Another epoch: everything of it is ours. */
	subscriber_message(&s, "a", 2, 3, &n);
	expect(&n, 2, false, true);
	subscriber_message(&s, "b", 2, 1, &n);
	expect(&n, 0, false, false);
	subscriber_listed(&s, "d", 4, &n);
	expect(&n, 4, false, false);
	subscriber_fini(&s);
}

static void topics_bounded(void **state)
{
	struct topics t;
	struct topic *one;
	char name[32];

	(void)state;
	topics_init(&t, 1000, 42);
	for (unsigned int i = 0; i < 1100; i++) {
		snprintf(name, sizeof(name), "topic-%u", i);
		assert_int_equal(topics_add(&t, name, &one), i < 1000 ? 0 : -ENOSPC);
		if (i < 1000)
			one->sequence = i;
	}
	assert_int_equal(t.refused, 100);
	for (unsigned int i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "topic-%u", i);
		assert_int_equal(topics_find(&t, name)->sequence, i);
	}
	assert_null(topics_find(&t, "topic-1000"));
	topics_fini(&t);
}

/* Beyond the limit nothing is sent, and it is counted, for ever; then all begins anew. */
static void topics_begin_anew(void **state)
{
	Tidegate__BusBody body;
	struct publisher *p;
	struct bulletin b;
	const uint8_t *m;
	char name[32];
	size_t size;
	unsigned int n = 0;

	(void)state;
	tidegate__bus_body__init(&body);
	assert_int_equal(publisher_new(5, &p), 0);
	do
		snprintf(name, sizeof(name), "topic-%u", n++);
	while (publisher_skip(p, name) == 0);
	assert_true(n > 100000);
	assert_int_equal(publisher_message(p, name, &body, &m, &size), -ENOSPC);
	assert_int_equal(publisher_message(p, "topic-0", &body, &m, &size), 0);
	assert_int_equal(publisher_refused(p), 2);
	publisher_renew(p, 6);
	assert_int_equal(publisher_refused(p), 2);
	assert_int_equal(publisher_sequence(p, "topic-0"), 0);
	assert_int_equal(publisher_message(p, name, &body, &m, &size), 0);
	assert_int_equal(bulletin_decode(m, size, &arena, &b), 0);
	assert_int_equal(b.epoch, 6);
	assert_int_equal(b.sequence, 1);
	assert_int_equal(publisher_beacon(p, 1000, &m, &size), 0);
	assert_int_equal(bulletin_decode(m, size, &arena, &b), 0);
	assert_int_equal(b.body->n_topics, 1);
	assert_string_equal(b.body->topics[0]->topic, name);
	publisher_free(p);
}

/* ---- hostile messages ---- */

static size_t wrap(uint8_t *out, size_t cap, const uint8_t *body, size_t size, bool is_zstd)
{
	Tidegate__BusMessage m = TIDEGATE__BUS_MESSAGE__INIT;

	m.sequence = 1;
	m.epoch = 1;
	m.zstd = is_zstd;
	m.body.data = (uint8_t *)(uintptr_t)body;
	m.body.len = size;
	assert_true(tidegate__bus_message__get_packed_size(&m) + 2 <= cap);
	memcpy(out, "t", 2);
	return tidegate__bus_message__pack(&m, out + 2) + 2;
}

static void hostile_messages(void **state)
{
	static uint8_t out[2 << 20], body[1 << 20], packed[1 << 20], zeros[8 << 20];
	struct bulletin b;
	size_t n;

	(void)state;
	assert_int_equal(bulletin_decode(out, 0, &arena, &b), -EBADMSG);
	assert_int_equal(bulletin_decode((const uint8_t *)"", 1, &arena, &b), -EBADMSG);
	assert_int_equal(bulletin_decode((const uint8_t *)"abc", 3, &arena, &b), -EBADMSG);
	memset(out, 'a', 1000);
	assert_int_equal(bulletin_decode(out, 1000, &arena, &b), -EBADMSG);
	assert_int_equal(bulletin_decode((const uint8_t *)"t\0\xff\xff", 4, &arena, &b), -EBADMSG);
	/* A megabyte of empty series would take 61 MB. */
	for (size_t i = 0; i + 1 < sizeof(body); i += 2) {
		body[i] = 0x12;
		body[i + 1] = 0;
	}
	n = wrap(out, sizeof(out), body, sizeof(body) - 100, false);
	assert_int_equal(bulletin_decode(out, n, &arena, &b), -E2BIG);
	/* A bomb. */
	n = ZSTD_compress(packed, sizeof(packed), zeros, sizeof(zeros), 1);
	assert_false(ZSTD_isError(n));
	n = wrap(out, sizeof(out), packed, n, true);
	assert_int_equal(bulletin_decode(out, n, &arena, &b), -E2BIG);
	/* One that lies about its size: the content size lies after magic and descriptor. */
	n = ZSTD_compress(packed, sizeof(packed), zeros, 100000, 1);
	packed[5] ^= 1;
	n = wrap(out, sizeof(out), packed, n, true);
	assert_int_equal(bulletin_decode(out, n, &arena, &b), -EBADMSG);
	n = wrap(out, sizeof(out), (const uint8_t *)"no zstd", 7, true);
	assert_int_equal(bulletin_decode(out, n, &arena, &b), -EBADMSG);
	/* And it still works. */
	n = wrap(out, sizeof(out), NULL, 0, false);
	assert_int_equal(bulletin_decode(out, n, &arena, &b), 0);
}

static void histogram_cells(void **state)
{
	uint32_t cells[] = {3, 1, 318};
	uint64_t counts[] = {5, 6, 7}, all[HIST_CELLS];
	Tidegate__BusSeries s;

	(void)state;
	tidegate__bus_series__init(&s);
	s.cells = cells;
	s.counts = counts;
	s.n_cells = s.n_counts = 3;
	assert_int_equal(bulletin_cells(&s, all), 0);
	assert_int_equal(all[3], 5);
	assert_int_equal(all[4], 6);
	assert_int_equal(all[322], 7);
	cells[2] = 319;
	assert_int_equal(bulletin_cells(&s, all), -EBADMSG);
	cells[2] = UINT32_MAX;
	assert_int_equal(bulletin_cells(&s, all), -EBADMSG);
	cells[2] = 0;
	assert_int_equal(bulletin_cells(&s, all), -EBADMSG);
	s.n_counts = 2;
	assert_int_equal(bulletin_cells(&s, all), -EBADMSG);
}

/* ---- fan-out ---- */

static void fan_out(void **state)
{
	char dir[] = "/tmp/tidegate-fanout-XXXXXX", address[96], path[64];
	struct err e = {0};
	struct stat st;
	uint8_t b[64];
	int fds[3];

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/bus", dir);
	snprintf(address, sizeof(address), "ipc://%s", path);
	assert_int_equal(fanout_open(loop, address, NULL, &fanout, &e), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0660);
	for (unsigned int i = 0; i < 3; i++) {
		fds[i] = fds_ready[i] = dial_ipc(path);
		say_hello(fds[i]);
	}
	fds_count = 3;
	wanted = 3;
	run_until(has_subscribers);
	run_until(are_ready);
	assert_int_equal(fanout_publish(fanout, "t\0abc", 5), 0);
	fanout_flush(fanout);
	for (unsigned int i = 0; i < 3; i++) {
		assert_int_equal(recv(fds[i], b, 8 + 9 + 5, MSG_WAITALL), 22);
		assert_int_equal(b[8], 1);
		assert_memory_equal(b + 17, "t\0abc", 5);
	}
	/* A wrong type byte, a right one, anything: who speaks is cut off, the others stay. */
	assert_int_equal(send(fds[0], "\2", 1, 0), 1);
	assert_int_equal(send(fds[1], "\1", 1, 0), 1);
	wanted = 2;
	run_until(has_hostile);
	wanted = 1;
	run_until(has_subscribers);
	assert_int_equal(fanout_publish(fanout, "t\0x", 3), 0);
	fanout_flush(fanout);
	assert_int_equal(recv(fds[2], b, 12, MSG_WAITALL), 12);
	assert_int_equal(recv(fds[0], b, 1, 0), 0);
	for (unsigned int i = 0; i < 3; i++)
		close(fds[i]);
	fanout = fanout_close(fanout);
	assert_int_equal(access(path, F_OK), -1);
	rmdir(dir);
}

static void fan_out_limits(void **state)
{
	const struct fanout_limits limits = {
		.subscribers = 2, .queue_bytes = 20000, .total_bytes = 15000};
	static uint8_t message[1000], got[1008];
	struct err e = {0};
	unsigned int n = 0;
	int fds[3];

	(void)state;
	assert_int_equal(fanout_open(loop, "tcp://127.0.0.1:0", &limits, &fanout, &e), 0);
	for (unsigned int i = 0; i < 3; i++) {
		fds[i] = fds_ready[i] = dial_tcp(fanout_port(fanout));
		say_hello(fds[i]);
	}
	wanted = 1;
	run_until(has_refused);
	fds_count = 2;
	run_until(are_ready);
	/* Nobody reads: the kernel takes a little, then the queues their limit. */
	for (unsigned int i = 0; i < 30000; i++)
		assert_int_equal(fanout_publish(fanout, message, sizeof(message)), 0);
	fanout_stats(fanout, &stats);
	assert_int_equal(stats.published, 30000);
	assert_true(stats.dropped > 0);
	/* One begun message of each may exceed it. */
	assert_true(stats.queued_bytes <= 15000 + 2 * sizeof(message));
	assert_int_equal(fanout_publish(fanout, message, SP_MESSAGE_MAX + 1), -EMSGSIZE);
	recv(fds[0], got, SP_HANDSHAKE, MSG_WAITALL);
	while (recv(fds[0], got, sizeof(got), n < 50 ? MSG_WAITALL : MSG_DONTWAIT) == sizeof(got)) {
		assert_int_equal(sp_get32(got + 4), sizeof(message));
		n++;
	}
	assert_true(n >= 50);
	for (unsigned int i = 0; i < 3; i++)
		close(fds[i]);
	fanout = fanout_close(fanout);
}

static void refuses_public(void **state)
{
	struct err e = {0};

	(void)state;
	assert_int_equal(fanout_open(loop, "tcp://0.0.0.0:0", NULL, &fanout, &e), -EPERM);
	assert_non_null(strstr(e.text, "loopback"));
	err_clear(&e);
	assert_int_equal(fanout_open(loop, "tcp://[::]:0", NULL, &fanout, &e), -EPERM);
	err_clear(&e);
	assert_int_equal(fanout_open(loop, "tcp://192.0.2.1:0", NULL, &fanout, &e), -EPERM);
	err_clear(&e);
	assert_int_equal(fanout_open(loop, "ipc:///tmp/tidegate-open", NULL, &fanout, &e), -EPERM);
	err_clear(&e);
	assert_int_equal(fanout_open(loop, "udp://127.0.0.1:0", NULL, &fanout, &e), -EINVAL);
	err_clear(&e);
	assert_int_equal(fanout_open(loop, "tcp://127.0.0.1", NULL, &fanout, &e), -EINVAL);
}

static void names_holder(void **state)
{
	struct fanout *second = NULL;
	struct err e = {0};
	char address[64], holder[64];

	(void)state;
	assert_int_equal(fanout_open(loop, "tcp://127.0.0.1:0", NULL, &fanout, &e), 0);
	snprintf(address, sizeof(address), "tcp://127.0.0.1:%u", fanout_port(fanout));
	assert_int_equal(fanout_open(loop, address, NULL, &second, &e), -EADDRINUSE);
	snprintf(holder, sizeof(holder), "pid %d (", (int)getpid());
	assert_non_null(strstr(e.text, holder));
	fanout = fanout_close(fanout);
}

static int nngcat_fd;

static bool has_printed(void)
{
	struct pollfd p = {.fd = nngcat_fd, .events = POLLIN};

	fanout_publish(fanout, "u/1other", 8);
	fanout_publish(fanout, "t/1hello", 8);
	return poll(&p, 1, 0) > 0;
}

/* An independent subscriber: nngcat of nng. */
static void nngcat_subscribes(void **state)
{
	char command[160], line[64] = {0};
	struct err e = {0};
	FILE *f;

	(void)state;
	if (access("/usr/bin/nngcat", X_OK) < 0)
		skip();
	assert_int_equal(fanout_open(loop, "tcp://127.0.0.1:0", NULL, &fanout, &e), 0);
	snprintf(command, sizeof(command),
		 "timeout 20 nngcat --sub --dial tcp://127.0.0.1:%u --subscribe t/ --ascii "
		 "--count 1",
		 fanout_port(fanout));
	f = popen(command, "r");
	assert_non_null(f);
	wanted = 1;
	run_until(has_subscribers);
	/* It may subscribe only after it connected: publish until it has printed something. */
	nngcat_fd = fileno(f);
	run_until(has_printed);
	assert_non_null(fgets(line, sizeof(line), f));
	line[strcspn(line, "\n")] = 0;
	assert_string_equal(line, "t/1hello");
	assert_int_equal(WEXITSTATUS(pclose(f)), 0);
	fanout = fanout_close(fanout);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(publish_and_decode),
		cmocka_unit_test(beacons),
		cmocka_unit_test(skipped),
		cmocka_unit_test(gaps),
		cmocka_unit_test(topics_bounded),
		cmocka_unit_test(topics_begin_anew),
		cmocka_unit_test(hostile_messages),
		cmocka_unit_test(histogram_cells),
		cmocka_unit_test(fan_out),
		cmocka_unit_test(fan_out_limits),
		cmocka_unit_test(refuses_public),
		cmocka_unit_test(names_holder),
		cmocka_unit_test(nngcat_subscribes),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, setup, teardown);
}
