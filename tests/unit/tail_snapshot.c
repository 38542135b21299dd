/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `tidegate tail --since snapshot` against a publisher and a server of snapshots that does what
 * servers do on bad days: all of the state comes in the end, once, and again where it was missed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/loop.h"
#include "bus/fanout.h"
#include "bus/publisher.h"
#include "bus/sp.h"
#include "cmd/verbs.h"
#include "port.h"

#include <jansson.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define WAIT_S 30
#define EPOCH  77
#define TOPIC  "metrics/nginx/a"
#define OTHER  "metrics/kong/a" /* of which nothing is known */

static unsigned int bus_port, snapshot_port;
static FILE *out, *err;
static pid_t tail_pid, bus_pid, server_pid;

/* How the server answers its first request. */
enum mood { WELL, REFUSES, OTHER_EPOCH, GARBAGE, SILENT, OTHER_ID, HANGS_UP, ENDLESS };

/* ---- the publisher: every 20 ms a message of TOPIC, of which some are lost, and a beacon ---- */

static struct fanout *fanout;
static struct publisher *publisher;
static bool has_gaps;

static void on_publish(void *data)
{
	static unsigned int ticks;
	struct fanout_stats stats;
	Tidegate__BusBody body;
	const uint8_t *m;
	size_t size;

	(void)data;
	fanout_stats(fanout, &stats);
	if (!stats.subscribers)
		return;
	tidegate__bus_body__init(&body);
	if (publisher_message(publisher, TOPIC, &body, &m, &size) == 0 &&
	    (!has_gaps || ++ticks % 10))
		fanout_publish(fanout, m, size);
	if (publisher_beacon(publisher, 1000, &m, &size) == 0)
		fanout_publish(fanout, m, size);
}

static void bus_run(void)
{
	char address[32];
	struct loop_watch *watch;
	struct loop *loop;
	struct err e = {0};

	snprintf(address, sizeof(address), "tcp://127.0.0.1:%u", bus_port);
	if (loop_open(&loop) < 0 || publisher_new(EPOCH, &publisher) < 0 ||
	    fanout_open(loop, address, NULL, &fanout, &e) < 0 ||
	    loop_add_timer(loop, 20, 20, on_publish, NULL, &watch) < 0)
		_exit(9);
	loop_run(loop);
	_exit(0);
}

/* ---- the server of snapshots, one client at a time ---- */

static void answer(int fd, uint64_t epoch, const uint8_t id[4], const Tidegate__BusBody *body)
{
	uint8_t header[SP_HEADER_MAX];
	struct publisher *p;
	const uint8_t *m;
	size_t size, n;

	if (publisher_new(epoch, &p) < 0 || publisher_answer(p, "snapshot", body, &m, &size) < 0)
		_exit(9);
	n = sp_header_put(header, false, size + 4);
	send(fd, header, n, MSG_NOSIGNAL);
	send(fd, id, 4, MSG_NOSIGNAL);
	send(fd, m, size, MSG_NOSIGNAL);
	publisher_free(p);
}

/* The list in two parts, TOPIC in two parts of different moments, OTHER with nothing. */
static void answer_well(int fd, const uint8_t id[4], char *request)
{
	char a[] = TOPIC, b[] = OTHER, second[] = "0.1", why[] = "nothing is known of it",
	     metric[] = "tidegate_requests_total";
	const char *next = request + strlen(request) + 1;
	Tidegate__BusSeries series, *list[] = {&series};
	Tidegate__BusTopic topic, *topics[] = {&topic};
	Tidegate__BusBody body;
	bool is_second = *next, is_list = strcmp(request, "metrics/") == 0;

	tidegate__bus_body__init(&body);
	tidegate__bus_topic__init(&topic);
	tidegate__bus_series__init(&series);
	body.topics = topics;
	body.n_topics = 1;
	topic.topic = strcmp(request, OTHER) == 0 || (is_list && is_second) ? b : a;
	topic.sequence = is_second ? 20 : 10;
	if (is_second && strcmp(next, second) != 0)
		_exit(8);
	if (strcmp(request, OTHER) == 0) {
		body.why = why;
	} else {
		body.next = is_second ? body.next : second;
		body.series = list;
		body.n_series = is_list ? 0 : 1;
		series.metric = metric;
		series.counter = is_second ? 200 : 100;
	}
	answer(fd, EPOCH, id, &body);
}

static void answer_badly(int fd, enum mood mood, uint8_t id[4])
{
	static const uint8_t rubbish[] = {0, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3};
	static const uint8_t huge[] = {0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	char why[] = "the log cannot be written now", a[] = TOPIC;
	Tidegate__BusTopic topic, *topics[] = {&topic};
	Tidegate__BusBody body;

	tidegate__bus_body__init(&body);
	tidegate__bus_topic__init(&topic);
	topic.topic = a;
	if (mood == REFUSES) {
		body.why = why;
		answer(fd, EPOCH, id, &body);
	} else if (mood == OTHER_EPOCH) {
		body.topics = topics;
		body.n_topics = 1;
		answer(fd, EPOCH + 1, id, &body);
	} else if (mood == GARBAGE) {
		send(fd, rubbish, sizeof(rubbish), MSG_NOSIGNAL);
	} else if (mood == OTHER_ID) {
		body.topics = topics;
		body.n_topics = 1;
		id[3] ^= 1;
		answer(fd, EPOCH, id, &body);
	} else if (mood == ENDLESS) {
		send(fd, huge, sizeof(huge), MSG_NOSIGNAL);
	}
}

/* False: the client has gone. */
static bool request_read(int fd, uint8_t id[4], char request[400])
{
	uint8_t header[8];
	size_t size;

	if (recv(fd, header, 8, MSG_WAITALL) != 8)
		return false;
	size = (size_t)sp_get32(header + 4) - 4;
	if (size > 300)
		_exit(7);
	memset(request, 0, 400);
	return recv(fd, id, 4, MSG_WAITALL) == 4 &&
	       recv(fd, request, size, MSG_WAITALL) == (ssize_t)size;
}

static void server_run(enum mood mood)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)snapshot_port)};
	int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;

	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(listener, (struct sockaddr *)&in, sizeof(in)) < 0 || listen(listener, 5) < 0)
		_exit(9);
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		uint8_t hello[SP_HANDSHAKE], id[4];
		char request[400];

		recv(fd, hello, sizeof(hello), MSG_WAITALL);
		sp_handshake_put(hello, SP_REP);
		send(fd, hello, sizeof(hello), MSG_NOSIGNAL);
		while (request_read(fd, id, request)) {
			enum mood now = mood;

			mood = WELL;
			if (now == WELL)
				answer_well(fd, id, request);
			else if (now == HANGS_UP)
				break;
			else
				answer_badly(fd, now, id);
		}
		close(fd);
	}
}

/* ---- the world ---- */

static void begin(enum mood mood, bool gaps)
{
	static char address[32], snapshots[32];
	const char *const args[] = {"tail",        address,   "--json",  "--since", "snapshot",
				    "--snapshots", snapshots, "--topic", "metrics/"};
	char *argv[10] = {0};
	int o[2], e[2];

	snprintf(address, sizeof(address), "tcp://127.0.0.1:%u", bus_port);
	snprintf(snapshots, sizeof(snapshots), "tcp://127.0.0.1:%u", snapshot_port);
	for (unsigned int i = 0; i < 9; i++)
		argv[i] = (char *)(uintptr_t)args[i];
	fflush(NULL);
	has_gaps = gaps;
	bus_pid = fork();
	if (bus_pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		bus_run();
	}
	server_pid = fork();
	if (server_pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		server_run(mood);
	}
	assert_int_equal(pipe(o), 0);
	assert_int_equal(pipe(e), 0);
	tail_pid = fork();
	if (tail_pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm(60);
		dup2(o[1], 1);
		dup2(e[1], 2);
		for (int fd = 3; fd < 64; fd++)
			close(fd);
		_exit(tail_verb(9, argv));
	}
	close(o[1]);
	close(e[1]);
	out = fdopen(o[0], "r");
	err = fdopen(e[0], "r");
	setvbuf(out, NULL, _IONBF, 0);
	setvbuf(err, NULL, _IONBF, 0);
}

static void end(void)
{
	int status;

	kill(tail_pid, SIGINT);
	assert_int_equal(waitpid(tail_pid, &status, 0), tail_pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	fclose(out);
	fclose(err);
	kill(bus_pid, SIGKILL);
	waitpid(bus_pid, NULL, 0);
	/* The server lives: it was asked nothing that it does not know. */
	assert_int_equal(waitpid(server_pid, &status, WNOHANG), 0);
	kill(server_pid, SIGKILL);
	waitpid(server_pid, NULL, 0);
}

static const char *line_of(FILE *f)
{
	static char line[1 << 16];
	struct pollfd p = {.fd = fileno(f), .events = POLLIN};

	assert_int_equal(poll(&p, 1, WAIT_S * 1000), 1);
	assert_non_null(fgets(line, sizeof(line), f));
	return line;
}

/* Reads up to "complete"; counts the parts, whose sequences and values must be the server's. */
static unsigned int parts_until_complete(json_int_t *ret_topics, bool *ret_gap)
{
	unsigned int parts = 0;

	for (;;) {
		json_t *o = json_loads(line_of(out), 0, NULL), *complete;
		json_int_t sequence;

		assert_non_null(o);
		complete = json_object_get(o, "complete");
		if (ret_gap && json_object_get(o, "gap"))
			*ret_gap = true;
		if (json_object_get(o, "snapshot")) {
			json_t *series = json_array_get(json_object_get(o, "series"), 0);

			sequence = json_integer_value(json_object_get(o, "sequence"));
			assert_string_equal(json_string_value(json_object_get(o, "topic")), TOPIC);
			assert_int_equal(sequence, ++parts % 2 ? 10 : 20);
			assert_int_equal(json_integer_value(json_object_get(series, "value")),
					 10 * sequence);
		}
		if (complete)
			*ret_topics = json_integer_value(json_object_get(complete, "topics"));
		json_decref(o);
		if (complete)
			return parts;
	}
}

/* ---- tests ---- */

static void all_comes(void **state)
{
	json_int_t topics = 0;

	(void)state;
	begin(WELL, false);
	assert_int_equal(parts_until_complete(&topics, NULL), 2);
	assert_int_equal(topics, 2);
	end();
}

static void bad_days_end(void **state)
{
	static const struct {
		enum mood mood;
		const char *why;
	} days[] = {
		{REFUSES, "no snapshot (the log cannot be written now), asking again"},
		{OTHER_EPOCH, NULL},
		{GARBAGE, "no snapshot (it does not speak SP), asking again"},
		{SILENT, "no snapshot (no answer in time), asking again"},
		{OTHER_ID, "no snapshot (no answer in time), asking again"},
		{HANGS_UP, "no snapshot ("},
		{ENDLESS, "no snapshot (it does not speak SP), asking again"},
	};

	(void)state;
	for (unsigned int i = 0; i < sizeof(days) / sizeof(*days); i++) {
		json_int_t topics = 0;

		begin(days[i].mood, false);
		assert_int_equal(parts_until_complete(&topics, NULL), 2);
		assert_int_equal(topics, 2);
		if (days[i].why)
			assert_non_null(strstr(line_of(err), days[i].why));
		end();
	}
}

/* The first state, then that of the topic alone, for each gap. */
static void gaps_are_repaired(void **state)
{
	json_int_t topics = 0;
	bool has_gap = false;

	(void)state;
	begin(WELL, true);
	/* Four parts when something was missed while it was asked. */
	assert_int_equal(parts_until_complete(&topics, NULL) % 2, 0);
	for (unsigned int i = 0; i < 3; i++) {
		has_gap = false;
		assert_int_equal(parts_until_complete(&topics, &has_gap) % 2, 0);
		assert_true(has_gap);
		assert_int_equal(topics, 1);
	}
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_comes),
		cmocka_unit_test(bad_days_end),
		cmocka_unit_test(gaps_are_repaired),
	};

	signal(SIGPIPE, SIG_IGN);
	if (port_hold(&bus_port) < 0 || port_hold(&snapshot_port) < 0)
		return 1;
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
