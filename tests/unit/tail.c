/* SPDX-License-Identifier: Apache-2.0 */
/* `tidegate tail` as users run it: in a process of its own, against our fan-out and hostile ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "bus/fanout.h"
#include "bus/publisher.h"
#include "bus/sp.h"
#include "cmd/verbs.h"
#include "metrics.h"
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

#define WAIT_S 15

static unsigned int port;
static char address[32];
static FILE *out, *err;
static pid_t tail_pid, publisher_pid;

static void run_tail(const char *const *more)
{
	char *argv[10] = {(char *)(uintptr_t) "tail", address};
	int o[2], e[2], argc = 2;

	for (; more && *more; more++)
		argv[argc++] = (char *)(uintptr_t)*more;
	assert_int_equal(pipe(o), 0);
	assert_int_equal(pipe(e), 0);
	fflush(NULL);
	tail_pid = fork();
	assert_true(tail_pid >= 0);
	if (tail_pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm(60);
		dup2(o[1], 1);
		dup2(e[1], 2);
		for (int fd = 3; fd < 64; fd++)
			close(fd);
		_exit(({
			int code = tail_verb(argc, argv);

			fflush(stdout);
			code;
		}));
	}
	close(o[1]);
	close(e[1]);
	out = fdopen(o[0], "r");
	err = fdopen(e[0], "r");
}

static int end_tail(void)
{
	int status;

	if (out)
		fclose(out);
	if (err)
		fclose(err);
	out = err = NULL;
	assert_int_equal(waitpid(tail_pid, &status, 0), tail_pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static const char *line_of(FILE *f)
{
	static char line[1 << 16];
	struct pollfd p = {.fd = fileno(f), .events = POLLIN};

	/* A pipe read line by line may hold more in stdio than poll sees. */
	setvbuf(f, NULL, _IONBF, 0);
	assert_int_equal(poll(&p, 1, WAIT_S * 1000), 1);
	assert_non_null(fgets(line, sizeof(line), f));
	return line;
}

static json_t *json_of(FILE *f)
{
	json_error_t e;
	json_t *o = json_loads(line_of(f), 0, &e);

	assert_non_null(o);
	return o;
}

/* ---- a publisher process: every 20 ms one message of a, every third of them dropped, and a
 * beacon ---- */

static struct fanout *fanout;
static struct publisher *publisher;
static unsigned int mode, ticks;

static void publish(const char *topic, bool is_sent)
{
	char metric[] = "tidegate_requests_total",
	     histogram[] = "tidegate_request_duration_seconds";
	char key[] = "gateway", value[] = "nginx\x1b[31m", kind[] = "drain.end",
	     js[] = "{\"lost\":0}";
	char *labels[] = {key, value};
	uint32_t cells[] = {100, 1};
	uint64_t counts[] = {3, 1};
	Tidegate__BusSeries a, h, *list[] = {&a, &h};
	Tidegate__Event event, *events[] = {&event};
	Tidegate__BusBody body;
	const uint8_t *m;
	size_t size;

	tidegate__bus_body__init(&body);
	tidegate__bus_series__init(&a);
	tidegate__bus_series__init(&h);
	tidegate__event__init(&event);
	a.metric = metric;
	a.labels = h.labels = labels;
	a.n_labels = h.n_labels = 2;
	a.counter = 42;
	h.metric = histogram;
	h.kind = METRIC_HISTOGRAM;
	h.cells = cells;
	h.counts = counts;
	h.n_cells = h.n_counts = 2;
	event.id = 7;
	event.kind = kind;
	event.json = js;
	body.time_ms = 1700000000500;
	body.series = list;
	body.n_series = 2;
	body.events = events;
	body.n_events = 1;
	if (publisher_message(publisher, topic, &body, &m, &size) == 0 && is_sent)
		fanout_publish(fanout, m, size);
}

static void on_publish(void *data)
{
	struct fanout_stats stats;
	const uint8_t *m;
	size_t size;

	(void)data;
	fanout_stats(fanout, &stats);
	if (!stats.subscribers)
		return;
	ticks++;
	if (mode == 'h') {
		static const uint8_t bad[] = "metrics/nginx/a\0\xff\xff\xff\xff";

		fanout_publish(fanout, "", 0);
		fanout_publish(fanout, "no end of topic", 15);
		fanout_publish(fanout, bad, sizeof(bad) - 1);
	}
	publish("metrics/nginx/a", mode != 'g' || ticks % 3);
	publish("events/x", true);
	if (publisher_beacon(publisher, 1700000000500, &m, &size) == 0)
		fanout_publish(fanout, m, size);
}

static void start_publisher(unsigned int how)
{
	struct loop_watch *watch;
	struct loop *loop;
	struct err e = {0};

	fflush(NULL);
	publisher_pid = fork();
	if (publisher_pid)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	mode = how;
	if (loop_open(&loop) < 0 || publisher_new(publisher_epoch(), &publisher) < 0 ||
	    fanout_open(loop, address, NULL, &fanout, &e) < 0 ||
	    loop_add_timer(loop, 20, 20, on_publish, NULL, &watch) < 0) {
		fprintf(stderr, "# publisher: %s\n", e.text);
		_exit(9);
	}
	loop_run(loop);
	_exit(0);
}

static void stop_publisher(void)
{
	kill(publisher_pid, SIGKILL);
	waitpid(publisher_pid, NULL, 0);
}

/* ---- tests ---- */

static void prints_json(void **state)
{
	static const char *const args[] = {"--json", "--topic", "metrics/", "--count", "3", NULL};
	json_t *o, *s;

	(void)state;
	start_publisher('n');
	run_tail(args);
	for (unsigned int i = 0; i < 3; i++) {
		o = json_of(out);
		assert_string_equal(json_string_value(json_object_get(o, "topic")),
				    "metrics/nginx/a");
		assert_int_equal(strlen(json_string_value(json_object_get(o, "epoch"))), 16);
		assert_true(json_is_integer(json_object_get(o, "sequence")));
		assert_true(json_real_value(json_object_get(o, "time")) == 1700000000.5);
		s = json_array_get(json_object_get(o, "series"), 0);
		assert_int_equal(json_integer_value(json_object_get(s, "value")), 42);
		assert_string_equal(
			json_string_value(json_object_get(json_object_get(s, "labels"), "gateway")),
			"nginx?[31m");
		s = json_array_get(json_object_get(o, "series"), 1);
		assert_int_equal(json_integer_value(json_object_get(s, "count")), 4);
		assert_true(json_real_value(
				    json_object_get(json_object_get(s, "quantiles"), "p50")) > 0);
		s = json_array_get(json_object_get(o, "events"), 0);
		assert_int_equal(
			json_integer_value(json_object_get(json_object_get(s, "data"), "lost")), 0);
		json_decref(o);
	}
	assert_int_equal(fgetc(out), EOF);
	assert_int_equal(end_tail(), 0);
	stop_publisher();
}

static void reports_gaps(void **state)
{
	static const char *const args[] = {"--json", "--topic", "metrics/", "--count", "10", NULL};
	json_t *o, *gap;
	json_int_t last = 0, missed = 0;
	unsigned int messages = 0;

	(void)state;
	start_publisher('g');
	run_tail(args);
	while (messages < 10) {
		o = json_of(out);
		gap = json_object_get(o, "gap");
		if (gap) {
			assert_string_equal(json_string_value(json_object_get(gap, "topic")),
					    "metrics/nginx/a");
			missed += json_integer_value(json_object_get(gap, "missed"));
		} else {
			json_int_t sequence = json_integer_value(json_object_get(o, "sequence"));

			/* Each hole was told before what comes after it, and rightly. */
			if (messages++)
				assert_int_equal(sequence, last + 1 + missed);
			last = sequence;
			missed = 0;
		}
		json_decref(o);
	}
	assert_int_equal(end_tail(), 0);
	stop_publisher();
}

static void lines_for_people(void **state)
{
	static const char *const args[] = {"--count", "1", "--topic", "metrics", NULL};

	(void)state;
	start_publisher('n');
	run_tail(args);
	assert_non_null(strstr(line_of(out), "2023-11-14T22:13:20.500Z metrics/nginx/a #"));
	assert_string_equal(line_of(out), "  tidegate_requests_total{gateway=\"nginx?[31m\"} 42\n");
	assert_non_null(strstr(line_of(out), "count=4 p50="));
	assert_string_equal(line_of(out), "  event drain.end {\"lost\":0}\n");
	assert_int_equal(end_tail(), 0);
	stop_publisher();
}

static void survives_rubbish(void **state)
{
	static const char *const args[] = {"--json", "--topic", "metrics/", "--count", "5", NULL};

	(void)state;
	start_publisher('h');
	run_tail(args);
	for (unsigned int i = 0; i < 5; i++)
		json_decref(json_of(out));
	assert_non_null(strstr(line_of(err), "no bus message"));
	assert_int_equal(end_tail(), 0);
	stop_publisher();
}

static void connects_again(void **state)
{
	static const char *const args[] = {"--json", "--topic", "events/", NULL};
	json_t *o;

	(void)state;
	start_publisher('n');
	run_tail(args);
	json_decref(json_of(out));
	stop_publisher();
	assert_non_null(strstr(line_of(err), "connection lost"));
	start_publisher('n');
	assert_non_null(strstr(line_of(err), "connected again"));
	do {
		o = json_of(out);
		if (json_object_get(o, "restart"))
			break;
		json_decref(o);
	} while (true);
	json_decref(o);
	json_decref(json_of(out));
	kill(tail_pid, SIGINT);
	assert_int_equal(end_tail(), 0);
	stop_publisher();
}

static void closed_pipe_is_an_end(void **state)
{
	(void)state;
	start_publisher('n');
	run_tail(NULL);
	line_of(out);
	fclose(out);
	out = NULL;
	assert_int_equal(end_tail(), 0);
	stop_publisher();
}

static void unreachable(void **state)
{
	uint64_t began = clock_mono_ns();
	char want[64];

	(void)state;
	run_tail(NULL);
	snprintf(want, sizeof(want), "cannot subscribe to %s", address);
	assert_non_null(strstr(line_of(err), want));
	assert_int_equal(end_tail(), 1);
	assert_true(clock_mono_ns() - began >= 4 * NS_PER_S);
	assert_true(clock_mono_ns() - began < 8 * NS_PER_S);
}

static void bad_usage(void **state)
{
	static const char *const cases[][3] = {
		{"--cuont", "3"}, {"--count", "x"}, {"--count", "0"}, {"--topic"}, {"x", "y"},
	};

	(void)state;
	for (unsigned int i = 0; i < 5; i++) {
		run_tail(cases[i]);
		assert_true(strncmp(line_of(err), "tidegate tail: ", 15) == 0);
		assert_int_equal(fgetc(err), EOF);
		assert_int_equal(end_tail(), 2);
	}
}

/* Servers that answer with anything but SP messages: tail ends by itself, in time, with a line. */
static void hostile_servers(void **state)
{
	static const uint8_t pub[] = {0, 'S', 'P', 0, 0, 0x20, 0, 0};
	static const uint8_t rep[] = {0, 'S', 'P', 0, 0, 0x31, 0, 0};
	static const uint8_t huge[] = {0,    'S',  'P',  0,    0,    0x20, 0,    0,
				       0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
	static const struct {
		const void *data;
		size_t size;
		const char *want;
	} cases[] = {
		{"HTTP/1.1 400 Bad\r\n", 18, "cannot subscribe"},
		{rep, sizeof(rep), "another protocol of SP"},
		{pub, sizeof(pub), "connection lost"},
		{huge, sizeof(huge), "does not speak SP"},
	};

	(void)state;
	for (unsigned int i = 0; i < 4; i++) {
		struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
		int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
		pid_t pid;

		in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
		assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
		assert_int_equal(listen(fd, 5), 0);
		fflush(NULL);
		pid = fork();
		if (pid == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			for (;;) {
				int peer = accept(fd, NULL, NULL);
				uint8_t hello[8];

				recv(peer, hello, sizeof(hello), MSG_WAITALL);
				send(peer, cases[i].data, cases[i].size, MSG_NOSIGNAL);
				/* It closes, or we do. */
				shutdown(peer, SHUT_WR);
				recv(peer, hello, sizeof(hello), 0);
				close(peer);
			}
		}
		run_tail(NULL);
		assert_non_null(strstr(line_of(err), cases[i].want));
		/* The first two end by themselves; after a handshake it goes on trying. */
		if (i >= 2)
			kill(tail_pid, SIGTERM);
		assert_int_equal(end_tail(), i < 2 ? 1 : 0);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		close(fd);
	}
}

/* One metric of two, and no event. */
static void shows_what_is_wanted(void **state)
{
	static const char *const args[] = {"--json",  "--metric", "tidegate_requests_*",
					   "--count", "2",        NULL};

	(void)state;
	start_publisher('n');
	run_tail(args);
	for (unsigned int i = 0; i < 2; i++) {
		json_t *o = json_of(out), *series = json_object_get(o, "series");

		assert_string_equal(json_string_value(json_object_get(o, "topic")),
				    "metrics/nginx/a");
		assert_int_equal(json_array_size(series), 1);
		assert_string_equal(
			json_string_value(json_object_get(json_array_get(series, 0), "metric")),
			"tidegate_requests_total");
		assert_int_equal(json_array_size(json_object_get(o, "events")), 0);
		json_decref(o);
	}
	assert_int_equal(end_tail(), 0);
	stop_publisher();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(prints_json),      cmocka_unit_test(reports_gaps),
		cmocka_unit_test(lines_for_people), cmocka_unit_test(survives_rubbish),
		cmocka_unit_test(connects_again),   cmocka_unit_test(closed_pipe_is_an_end),
		cmocka_unit_test(unreachable),      cmocka_unit_test(bad_usage),
		cmocka_unit_test(hostile_servers),  cmocka_unit_test(shows_what_is_wanted),
	};

	signal(SIGPIPE, SIG_IGN);
	if (port_hold(&port) < 0)
		return 1;
	snprintf(address, sizeof(address), "tcp://127.0.0.1:%u", port);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
