/* SPDX-License-Identifier: Apache-2.0 */
/* Verb tail: subscribes to a bus with our own SP client and prints what comes. One thread. */
#include "base/clock.h"
#include "base/listen.h"
#include "base/loop.h"
#include "base/str.h"
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
#define RETRY_MS        200

struct tail {
	const char *address, *topic;
	bool is_json, is_ipc;
	uint64_t count, shown; /* count 0: no end */
	struct loop *loop;
	struct loop_watch *retry;
	struct peer *peer;
	struct subscriber subscriber;
	struct arena arena;
	uint64_t began_ns, damaged;
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

/* A beacon is bookkeeping: shown only to who asks for it by name. */
static bool wants(const struct tail *t, const char *topic)
{
	if (str_equal(topic, "beacon") && !t->topic[0])
		return false;
	return str_starts(topic, t->topic);
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

		if (!wants(t, listed->topic))
			continue;
		subscriber_listed(&t->subscriber, listed->topic, listed->sequence, &n);
		note(t, listed->topic, &n);
	}
	subscriber_beacon_end(&t->subscriber);
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
	r = bulletin_topic(message, size, &topic);
	if (r == 0 && !wants(t, topic) && !str_equal(topic, "beacon"))
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
	if (!wants(t, b.topic))
		n.missed = 0;
	note(t, b.topic, &n);
	if (str_equal(b.topic, "beacon"))
		read_beacon(t, &b);
	if (wants(t, b.topic)) {
		tail_print_bulletin(stdout, &b, t->is_json);
		t->shown++;
	}
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
	loop_set_timer(t->retry, RETRY_MS, 0);
}

static void on_closed(void *data, struct peer *peer, int r)
{
	struct tail *t = data;

	(void)peer;
	t->peer = NULL;
	lost(t, r);
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

static int parse(struct tail *t, int argc, char **argv)
{
	static const struct option options[] = {
		{"topic", required_argument, NULL, 't'},
		{"json", no_argument, NULL, 'j'},
		{"count", required_argument, NULL, 'n'},
		{0},
	};
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		if (c == 't') {
			t->topic = optarg;
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
	struct tail t = {.address = DEFAULT_ADDRESS, .topic = ""};
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
