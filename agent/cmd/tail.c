/* SPDX-License-Identifier: Apache-2.0 */
/* Verb tail: subscribes to a bus with our own SP client and prints what comes. One thread. */
#include "base/clock.h"
#include "base/listen.h"
#include "base/loop.h"
#include "base/str.h"
#include "bus/filter.h"
#include "bus/peer.h"
#include "bus/publisher.h"
#include "cmd/tail_print.h"
#include "cmd/verbs.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEFAULT_ADDRESS "tcp://127.0.0.1:9467"
#define FIRST_NS        (5 * NS_PER_S) /* so long an address may be unreachable at the start */
/* Between attempts, doubled each time: a publisher that restarts has all its subscribers at once. */
#define RETRY_LEAST_MS 200
#define RETRY_MOST_MS  5000
/* A half-open connection says nothing at all; a publisher sends a beacon with each tick, at least
 * each second. Seconds are counted as they are lived through: one who was stopped for an hour finds
 * its socket full, and must read that first. */
#define SILENT_S      5
#define SILENT_MOST_S 20

struct tail {
	const char *address;
	struct filter filter;
	bool is_json, is_ipc;
	uint64_t count, shown; /* count 0: no end */
	struct loop *loop;
	struct loop_watch *retry;
	unsigned int silent_s, longest_s; /* since the last message; between any two */
	struct peer *peer;
	struct subscriber subscriber;
	struct arena arena;
	uint64_t began_ns, damaged, retry_ms;
	bool was_connected, is_away, is_done;
	int exit_code;
};

static void finish(struct tail *t, int exit_code)
{
	t->is_done = true;
	t->exit_code = exit_code;
	loop_stop(t->loop);
}

static void on_signal(void *data, int signal)
{
	(void)signal;
	finish(data, EXIT_DONE);
}

static void note(const struct tail *t, const char *topic, const struct subscriber_note *n)
{
	tail_print_note(stdout, topic, n, t->is_json);
}

static void read_beacon(struct tail *t, const struct bulletin *b)
{
	struct subscriber_note n = {0};

	for (size_t i = 0; i < b->body->n_topics; i++) {
		const Tidegate__BusTopic *listed = b->body->topics[i];

		if (!filter_topic(&t->filter, listed->topic))
			continue;
		subscriber_listed(&t->subscriber, listed->topic, listed->sequence, &n);
		note(t, listed->topic, &n);
	}
	subscriber_beacon_end(&t->subscriber);
}

/* What is wanted of a message; one of which nothing is left is none. */
static void show(struct tail *t, const struct bulletin *b)
{
	struct bulletin wanted = *b;
	Tidegate__BusBody body;

	if (!filter_topic(&t->filter, b->topic))
		return;
	if (filter_body(&t->filter, b->body, &t->arena, &body) < 0)
		body = *b->body; /* too much is better than nothing */
	if (!body.n_series && !body.n_events && !body.n_signals &&
	    (b->body->n_series || b->body->n_events || b->body->n_signals))
		return;
	wanted.body = &body;
	tail_print_bulletin(stdout, &wanted, t->is_json);
	t->shown++;
}

static int on_message(void *data, struct peer *peer, const uint8_t *message, size_t size)
{
	struct tail *t = data;
	struct subscriber_note n = {0};
	struct bulletin b = {0};
	const char *topic = "";
	int r;

	(void)peer;
	if (t->is_done)
		return 0;
	/* An agent may have a tick longer than a second. */
	if (t->silent_s > t->longest_s && t->silent_s <= SILENT_MOST_S)
		t->longest_s = t->silent_s;
	t->silent_s = 0;
	r = bulletin_topic(message, size, &topic);
	if (r == 0 && !filter_topic(&t->filter, topic) && !str_equal(topic, "beacon"))
		return 0;
	if (r == 0)
		r = bulletin_decode(message, size, &t->arena, &b);
	if (r < 0) {
		/* Said once: a publisher of something else would fill the terminal. */
		if (!t->damaged++)
			fprintf(stderr, "tidegate tail: %s: a message is %s, skipped\n", t->address,
				r == -E2BIG ? "too large" : "no bus message");
		return 0;
	}
	CHECK(b.body);
	subscriber_message(&t->subscriber, b.topic, b.epoch, b.sequence, &n);
	if (!filter_topic(&t->filter, b.topic))
		n.missed = 0;
	note(t, b.topic, &n);
	if (str_equal(b.topic, "beacon"))
		read_beacon(t, &b);
	show(t, &b);
	/* Also when nobody reads any more (EPIPE): the normal end of a pipeline. */
	if (fflush(stdout) == EOF || ferror(stdout))
		finish(t, errno == EPIPE ? EXIT_DONE : EXIT_FAILED);
	else if (t->count && t->shown >= t->count)
		finish(t, EXIT_DONE);
	return 0;
}

static void on_ready(void *data, struct peer *peer)
{
	struct tail *t = data;

	(void)peer;
	if (t->is_away)
		fprintf(stderr, "tidegate tail: %s: connected again\n", t->address);
	t->was_connected = true;
	t->is_away = false;
	t->retry_ms = RETRY_LEAST_MS;
}

/* Anything from half of it on; the first attempts end when FIRST_NS is over. */
static uint64_t retry_after(const struct tail *t)
{
	uint64_t ms = t->retry_ms / 2 + publisher_epoch() % (t->retry_ms / 2 + 1);
	uint64_t left, past = clock_mono_ns() - t->began_ns;

	if (t->was_connected || past >= FIRST_NS)
		return ms;
	left = (FIRST_NS - past) / NS_PER_MS + 1;
	return ms < left ? ms : left;
}

static void lost(struct tail *t, int r)
{
	const char *why = r == -EPROTONOSUPPORT            ? "it is no publisher"
			  : r == -EPROTO || r == -EMSGSIZE ? "it does not speak SP"
							   : err_text(r);

	if (!t->was_connected && clock_mono_ns() - t->began_ns >= FIRST_NS) {
		fprintf(stderr,
			"tidegate tail: cannot subscribe to %s: %s; is it running, is the address "
			"right?\n",
			t->address, why);
		finish(t, EXIT_FAILED);
		return;
	}
	if (t->was_connected && !t->is_away) {
		fprintf(stderr, "tidegate tail: %s: connection lost (%s), connecting again\n",
			t->address, why);
		t->is_away = true;
	}
	loop_set_timer(t->retry, retry_after(t), 0);
	t->retry_ms = t->retry_ms * 2 > RETRY_MOST_MS ? RETRY_MOST_MS : t->retry_ms * 2;
}

static void on_closed(void *data, struct peer *peer, int r)
{
	struct tail *t = data;

	(void)peer;
	t->peer = NULL;
	lost(t, r);
}

static void on_second(void *data)
{
	struct tail *t = data;

	if (!t->peer || !peer_is_ready(t->peer) || !t->subscriber.had_beacon ||
	    ++t->silent_s <= SILENT_S + 3 * t->longest_s)
		return;
	t->silent_s = 0;
	t->peer = peer_close(t->peer);
	lost(t, -ETIMEDOUT);
}

static void on_retry(void *data)
{
	struct tail *t = data;
	const struct peer_spec spec = {
		.self = SP_SUB,
		.expect = SP_PUB,
		.is_ipc = t->is_ipc,
		.message_max = SP_MESSAGE_MAX,
		.on_ready = on_ready,
		.on_message = on_message,
		.on_closed = on_closed,
	};
	int fd = -1, r;

	r = listen_connect(t->address, &fd, NULL);
	if (r == 0 || r == -EINPROGRESS) {
		r = peer_open(t->loop, fd, &spec, r == -EINPROGRESS, t, &t->peer);
		if (r < 0)
			close(fd);
	}
	if (r < 0)
		lost(t, r);
}

static int tail_run(struct tail *t)
{
	struct loop_watch *watch;
	int r;

	/* A closed pipe is an error of the write, not a death. */
	signal(SIGPIPE, SIG_IGN);
	t->began_ns = clock_mono_ns();
	subscriber_init(&t->subscriber, publisher_epoch());
	r = arena_init(&t->arena, BULLETIN_ARENA_BYTES);
	if (r == 0)
		r = loop_open(&t->loop);
	if (r == 0)
		r = loop_add_signal(t->loop, SIGINT, on_signal, t, &watch);
	if (r == 0)
		r = loop_add_signal(t->loop, SIGTERM, on_signal, t, &watch);
	if (r == 0)
		r = loop_add_timer(t->loop, 0, 0, on_retry, t, &t->retry);
	if (r == 0)
		r = loop_add_timer(t->loop, 1000, 1000, on_second, t, &watch);
	if (r == 0) {
		loop_run(t->loop);
	} else {
		fprintf(stderr, "tidegate tail: cannot begin: %s\n", err_text(r));
		t->exit_code = EXIT_FAILED;
	}
	peer_close(t->peer);
	loop_close(t->loop);
	arena_fini(&t->arena);
	subscriber_fini(&t->subscriber);
	return t->exit_code;
}

static int term_add(struct filter *f, int kind, const char *term)
{
	int r = kind == 't'   ? filter_add_topic(f, term)
		: kind == 'g' ? filter_add_gateway(f, term)
			      : filter_add_metric(f, term);

	if (r < 0)
		fprintf(stderr, "tidegate tail: --%s `%s`: %s\n",
			kind == 't'   ? "topic"
			: kind == 'g' ? "gateway"
				      : "metric",
			term, r == -EINVAL ? "must not be empty" : "that is more than 64 of them");
	return r;
}

static int parse(struct tail *t, int argc, char **argv)
{
	static const struct option options[] = {
		{"topic", required_argument, NULL, 't'},  {"gateway", required_argument, NULL, 'g'},
		{"metric", required_argument, NULL, 'm'}, {"json", no_argument, NULL, 'j'},
		{"count", required_argument, NULL, 'n'},  {0},
	};
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (c == 't' || c == 'g' || c == 'm') {
			if (term_add(&t->filter, c, optarg) < 0)
				return -EINVAL;
		} else if (c == 'j') {
			t->is_json = true;
		} else if (c == 'n') {
			if (str_to_u64(optarg, &t->count) < 0 || !t->count) {
				fprintf(stderr,
					"tidegate tail: --count `%s`: must be a whole number from "
					"1 up\n",
					optarg);
				return -EINVAL;
			}
		} else {
			verb_bad_option("tail", argv, options);
			return -EINVAL;
		}
	}
	if (optind < argc)
		t->address = argv[optind++];
	if (optind < argc) {
		fprintf(stderr, "tidegate tail: unexpected argument `%s`\n", argv[optind]);
		return -EINVAL;
	}
	return 0;
}

int tail_verb(int argc, char **argv)
{
	struct tail t = {.address = DEFAULT_ADDRESS, .retry_ms = RETRY_LEAST_MS};
	struct listen_address address;
	struct err e = {0};

	if (parse(&t, argc, argv) < 0)
		return EXIT_USAGE;
	if (listen_parse(t.address, &address, &e) < 0) {
		fprintf(stderr, "tidegate tail: %s\n", e.text);
		return EXIT_USAGE;
	}
	t.is_ipc = address.is_ipc;
	return tail_run(&t);
}
