/* SPDX-License-Identifier: Apache-2.0 */
/* Verb tail: subscribes to a bus with our own SP client and prints what comes. One thread. */
#include "base/clock.h"
#include "base/endpoint.h"
#include "base/loop.h"
#include "base/str.h"
#include "bus/dialer.h"
#include "bus/filter.h"
#include "bus/publisher.h"
#include "cmd/tail_print.h"
#include "cmd/tail_snapshot.h"
#include "cmd/verbs.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_ADDRESS "tcp://127.0.0.1:9467"
#define FIRST_MS        5000 /* so long an address may be unreachable at the start */
#define BACKOFF_NS      (5 * NS_PER_S)
/* A half-open connection says nothing at all; a publisher sends a beacon with each tick, at least
 * each second. Seconds are counted as they are lived through: one who was stopped for an hour finds
 * its socket full, and must read that first. */
#define SILENT_S      5
#define SILENT_MOST_S 20

struct tail {
	const char *address;
	char snapshots[300]; /* where to ask for them; "": they are not wanted */
	struct credentials_files files;
	struct credentials *tls;
	struct filter filter;
	bool is_json;
	uint64_t count, shown; /* count 0: no end */
	struct loop *loop;
	unsigned int silent_s, longest_s; /* since the last message; between any two */
	struct dialer *dialer;
	struct tail_snapshot *snapshot;
	struct subscriber subscriber;
	struct arena arena;
	uint64_t damaged;
	char why[128]; /* of the last attempt */
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

static void note(struct tail *t, const char *topic, const struct subscriber_note *n)
{
	tail_print_note(stdout, topic, n, t->is_json);
	if (n->missed && t->snapshot && str_starts(topic, "metrics/"))
		tail_snapshot_want(t->snapshot, topic); /* an event that was missed is gone */
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
static void show(struct tail *t, const struct bulletin *b, bool is_snapshot)
{
	struct bulletin wanted = *b;
	Tidegate__BusBody body;

	if (!filter_topic(&t->filter, b->topic))
		return;
	if (filter_body(&t->filter, b->body, &t->arena, &body) < 0)
		body = *b->body; /* too much is better than nothing */
	if (!body.n_series && !body.n_events && !body.n_signals &&
	    (is_snapshot || b->body->n_series || b->body->n_events || b->body->n_signals))
		return;
	wanted.body = &body;
	tail_print_bulletin(stdout, &wanted, is_snapshot, t->is_json);
	t->shown += !is_snapshot;
}

/* Also when nobody reads any more (EPIPE): the normal end of a pipeline. */
static void flush(struct tail *t)
{
	if (fflush(stdout) == EOF || ferror(stdout))
		finish(t, errno == EPIPE ? EXIT_DONE : EXIT_FAILED);
	else if (t->count && t->shown >= t->count)
		finish(t, EXIT_DONE);
}

static void take(struct tail *t, const struct bulletin *b)
{
	struct subscriber_note n = {0};
	bool is_first = !t->subscriber.has_epoch;

	subscriber_message(&t->subscriber, b->topic, b->epoch, b->sequence, &n);
	if (t->snapshot && (is_first || n.has_restarted))
		tail_snapshot_begin(t->snapshot, b->epoch);
	if (!filter_topic(&t->filter, b->topic))
		n.missed = 0;
	else if (t->snapshot && str_starts(b->topic, "metrics/"))
		tail_snapshot_met(t->snapshot, b->topic);
	note(t, b->topic, &n);
	if (str_equal(b->topic, "beacon"))
		read_beacon(t, b);
	show(t, b, false);
	flush(t);
}

static int on_message(void *data, const uint8_t *message, size_t size)
{
	struct tail *t = data;
	struct bulletin b = {0};
	const char *topic = "";
	int r;

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
	dialer_prove(t->dialer);
	take(t, &b);
	return 0;
}

static void on_ready(void *data)
{
	struct tail *t = data;

	if (t->is_away)
		fprintf(stderr, "tidegate tail: %s: connected again\n", t->address);
	t->was_connected = true;
	t->is_away = false;
}

static void on_lost(void *data, const char *why)
{
	struct tail *t = data;

	str_copy(t->why, sizeof(t->why), why);
	if (!t->was_connected || t->is_away)
		return;
	fprintf(stderr, "tidegate tail: %s: connection lost (%s), connecting again\n", t->address,
		why);
	t->is_away = true;
}

static void on_first(void *data)
{
	struct tail *t = data;

	if (t->was_connected)
		return;
	fprintf(stderr,
		"tidegate tail: cannot subscribe to %s: %s; is it running, is the address right?\n",
		t->address, *t->why ? t->why : "no answer");
	finish(t, EXIT_FAILED);
}

static void on_second(void *data)
{
	struct tail *t = data;
	struct err e = {0};

	if (t->tls)
		credentials_refresh(t->tls, &e);
	if (t->snapshot)
		tail_snapshot_second(t->snapshot);
	if (!dialer_is_ready(t->dialer) || !t->subscriber.had_beacon ||
	    ++t->silent_s <= SILENT_S + 3 * t->longest_s)
		return;
	t->silent_s = 0;
	dialer_again(t->dialer);
	on_lost(t, "it is silent");
}

/* -------- snapshots -------- */

static bool is_wanted(void *data, const char *topic)
{
	const struct tail *t = data;

	return filter_topic(&t->filter, topic);
}

static void on_part(void *data, const struct bulletin *part)
{
	struct tail *t = data;

	show(t, part, true);
	flush(t);
}

static void on_complete(void *data, size_t topics)
{
	struct tail *t = data;

	tail_print_complete(stdout, topics, t->is_json);
	flush(t);
}

static void on_trouble(void *data, const char *why)
{
	const struct tail *t = data;

	fprintf(stderr, "tidegate tail: %s: no snapshot (%s), asking again\n", t->snapshots, why);
}

/* -------- beginning -------- */

static int connections_open(struct tail *t, struct err *e)
{
	const struct dialer_spec spec = {
		.address = t->address,
		.self = SP_SUB,
		.expect = SP_PUB,
		.message_max = SP_MESSAGE_MAX,
		.backoff_ns = BACKOFF_NS,
		.tls = &t->tls,
		.on_ready = on_ready,
		.on_message = on_message,
		.on_lost = on_lost,
	};
	const struct tail_snapshot_spec snapshot = {
		.address = t->snapshots,
		.tls = &t->tls,
		.arena = &t->arena,
		.is_wanted = is_wanted,
		.on_part = on_part,
		.on_complete = on_complete,
		.on_trouble = on_trouble,
	};
	int r = t->files.ca ? credentials_open(&t->files, &t->tls, e) : 0;

	if (r == 0)
		r = dialer_open(t->loop, &spec, t, &t->dialer, e);
	if (r == 0 && *t->snapshots)
		r = tail_snapshot_open(t->loop, &snapshot, t, &t->snapshot, e);
	return r;
}

static int tail_open(struct tail *t, struct err *e)
{
	struct loop_watch *watch;
	int r;

	subscriber_init(&t->subscriber, publisher_epoch());
	r = arena_init(&t->arena, BULLETIN_ARENA_BYTES);
	if (r == 0)
		r = loop_open(&t->loop);
	if (r == 0)
		r = loop_add_signal(t->loop, SIGINT, on_signal, t, &watch);
	if (r == 0)
		r = loop_add_signal(t->loop, SIGTERM, on_signal, t, &watch);
	if (r == 0)
		r = loop_add_timer(t->loop, FIRST_MS, 0, on_first, t, &watch);
	if (r == 0)
		r = loop_add_timer(t->loop, 1000, 1000, on_second, t, &watch);
	if (r < 0)
		return err_set(e, r, "cannot begin: %s", err_text(r));
	return connections_open(t, e);
}

static int tail_run(struct tail *t)
{
	struct err e = {0};
	int r;

	/* A closed pipe is an error of the write, not a death. */
	signal(SIGPIPE, SIG_IGN);
	r = tail_open(t, &e);
	if (r == 0) {
		loop_run(t->loop);
	} else {
		fprintf(stderr, "tidegate tail: %s\n", e.text);
		t->exit_code = r == -EINVAL || r == -EPERM ? EXIT_USAGE : EXIT_FAILED;
	}
	tail_snapshot_close(t->snapshot);
	dialer_close(t->dialer);
	credentials_close(t->tls);
	loop_close(t->loop);
	arena_fini(&t->arena);
	subscriber_fini(&t->subscriber);
	return t->exit_code;
}

/* -------- options -------- */

/* Beside the bus unless it is said: by default 9468 and 9467. */
static int snapshots_default(struct tail *t)
{
	struct endpoint ep;
	struct err e = {0};

	if (endpoint_parse(t->address, &ep, &e) < 0)
		return 0; /* said when it is opened */
	if (ep.is_ipc || ep.port == 65535) {
		fprintf(stderr,
			"tidegate tail: --since snapshot: only an aggregator has snapshots; where "
			"does it listen? (--snapshots)\n");
		return -EINVAL;
	}
	snprintf(t->snapshots, sizeof(t->snapshots), "%stcp://%s%s%s:%u", ep.is_tls ? "tls+" : "",
		 strchr(ep.host, ':') ? "[" : "", ep.host, strchr(ep.host, ':') ? "]" : "",
		 ep.port + 1u);
	return 0;
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

static int count_read(struct tail *t, const char *text)
{
	if (str_to_u64(text, &t->count) == 0 && t->count)
		return 0;
	fprintf(stderr, "tidegate tail: --count `%s`: must be a whole number from 1 up\n", text);
	return -EINVAL;
}

static void file_default(const char **path, const char *variable)
{
	const char *value = *path ? NULL : getenv(variable);

	if (value && *value)
		*path = value;
}

static int files_check(struct tail *t)
{
	struct endpoint ep;

	file_default(&t->files.ca, "TIDEGATE_TLS_CA_FILE");
	file_default(&t->files.certificate, "TIDEGATE_TLS_CERT_FILE");
	file_default(&t->files.key, "TIDEGATE_TLS_KEY_FILE");
	if (!!t->files.ca != !!t->files.certificate || !!t->files.ca != !!t->files.key) {
		fputs("tidegate tail: --ca, --cert and --key: TLS needs all three\n", stderr);
		return -EINVAL;
	}
	if (endpoint_parse(t->address, &ep, NULL) == 0 && ep.is_tls && !t->files.ca) {
		fprintf(stderr,
			"tidegate tail: %s: needs a certificate; say --ca, --cert and --key\n",
			t->address);
		return -EINVAL;
	}
	return 0;
}

/* What belongs together. */
static int options_check(struct tail *t, const char *since, const char *snapshots)
{
	if (files_check(t) < 0)
		return -EINVAL;
	if (since && !str_equal(since, "snapshot")) {
		fprintf(stderr, "tidegate tail: --since `%s`: must be `snapshot`\n", since);
		return -EINVAL;
	}
	if (snapshots && !since) {
		fputs("tidegate tail: --snapshots: only with --since snapshot\n", stderr);
		return -EINVAL;
	}
	if (since && snapshots)
		str_copy(t->snapshots, sizeof(t->snapshots), snapshots);
	return since && !snapshots ? snapshots_default(t) : 0;
}

static int parse(struct tail *t, int argc, char **argv)
{
	static const struct option options[] = {
		{"topic", required_argument, NULL, 't'},
		{"gateway", required_argument, NULL, 'g'},
		{"metric", required_argument, NULL, 'm'},
		{"json", no_argument, NULL, 'j'},
		{"count", required_argument, NULL, 'n'},
		{"since", required_argument, NULL, 's'},
		{"snapshots", required_argument, NULL, 'a'},
		{"ca", required_argument, NULL, 'C'},
		{"cert", required_argument, NULL, 'c'},
		{"key", required_argument, NULL, 'k'},
		{0},
	};
	const char *since = NULL, *snapshots = NULL;
	int c, r = 0;

	opterr = 0;
	while (r == 0 && (c = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		switch (c) {
		case 't':
		case 'g':
		case 'm':
			r = term_add(&t->filter, c, optarg);
			break;
		case 'j':
			t->is_json = true;
			break;
		case 'n':
			r = count_read(t, optarg);
			break;
		case 's':
			since = optarg;
			break;
		case 'a':
			snapshots = optarg;
			break;
		case 'C':
			t->files.ca = optarg;
			break;
		case 'c':
			t->files.certificate = optarg;
			break;
		case 'k':
			t->files.key = optarg;
			break;
		default:
			verb_bad_option("tail", argv, options);
			r = -EINVAL;
		}
	}
	if (r < 0)
		return r;
	if (optind < argc)
		t->address = argv[optind++];
	if (optind < argc) {
		fprintf(stderr, "tidegate tail: unexpected argument `%s`\n", argv[optind]);
		return -EINVAL;
	}
	return options_check(t, since, snapshots);
}

int tail_verb(int argc, char **argv)
{
	struct tail t = {.address = DEFAULT_ADDRESS};

	return parse(&t, argc, argv) < 0 ? EXIT_USAGE : tail_run(&t);
}
