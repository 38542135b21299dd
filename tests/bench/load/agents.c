/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many agents in one process: a connection, an incarnation, a session and a sequence each; frames
 * of the real encoder, requests as the courier's uplink makes them (hello alone first, then four in
 * flight, five seconds for an answer, backoff with jitter), everything unacknowledged sent again
 * after a loss. One JSON object a line on stdout:
 *   {"event":"steady", …}  all agents have had an acknowledgement
 *   {"event":"lost"}       a connection ended
 *   {"event":"live", …}    all have had an acknowledgement again; seconds since the loss
 *   {"event":"end", …}     what was sent, acknowledged and measured
 * SIGUSR1 ends all connections at once. Usage: agents ADDRESS AGENTS SECONDS [options], see main().
 */
#include "base/clock.h"
#include "base/listen.h"
#include "base/loop.h"
#include "bus/credentials.h"
#include "bus/peer.h"
#include "latency.h"
#include "listener.h"
#include "tidegate.pb-c.h"
#include "variants.h"

#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define WINDOW        4u
#define RING          64u /* frames of one agent that may wait for their acknowledgement */
#define TIMEOUT_NS    (5 * NS_PER_S)
#define BACKOFF_FIRST (100 * NS_PER_MS)
#define BACKOFF_MOST  (30 * NS_PER_S)
#define STEP_MS       2
#define LOOKS         25u /* steps in which each agent's connection and deadlines are looked at */
#define CONNECTS      32u /* begun in one step */
#define SETTLE_NS     (2 * NS_PER_S)
#define DRAIN_NS      (20 * NS_PER_S)

struct request {
	uint32_t id; /* 0: free */
	uint64_t first, last;
	uint64_t deadline_ns;
};

struct agent {
	struct peer *peer;
	bool is_ready, is_proven, is_live;
	uint32_t session, next_id;
	uint64_t produced, sent, settled; /* sequences; all up to settled are acknowledged */
	uint64_t acked;                   /* bit n: settled + 1 + n */
	uint64_t retry_ns, backoff_ns;
	struct request requests[WINDOW];
	struct tls_ticket ticket;
	uint64_t produced_ns[RING];
};

static struct {
	const char *address, *bus, *tls;
	unsigned int agents, window, ticks;
	uint64_t interval_ns, duration_ns, seconds_ns;
} options = {.window = WINDOW, .ticks = 1, .interval_ns = NS_PER_S};

static struct {
	uint64_t frames, acknowledged, requests, bytes, losses, timeouts, overruns;
	uint64_t need_hello, need_key, refused;
	uint64_t acknowledged_before; /* the steady state */
	unsigned int connections, live;
} stats;

static struct loop *loop;
static struct credentials *tls; /* of all agents */
static struct agent *agents;
static struct latency acks;
static uint64_t start_ns, steady_ns, lost_ns, random_state = 88172645463325252ULL;
static unsigned int looked, due; /* next agent to tick */
static uint64_t round_number;
static bool is_ending;

static uint64_t random_next(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static unsigned int number_of(const struct agent *a)
{
	return (unsigned int)(a - agents);
}

static void say(const char *event, uint64_t since_ns)
{
	printf("{\"event\":\"%s\",\"seconds\":%.3f,\"connections\":%u}\n", event,
	       (double)(clock_mono_ns() - since_ns) / 1e9, stats.connections);
	fflush(stdout);
}

static void is_heard(struct agent *a)
{
	if (a->is_live)
		return;
	a->is_live = true;
	if (++stats.live < options.agents)
		return;
	say(steady_ns ? "live" : "steady", steady_ns ? lost_ns : start_ns);
	if (!steady_ns) {
		steady_ns = clock_mono_ns();
		stats.acknowledged_before = stats.acknowledged;
	}
	lost_ns = 0;
}

static void is_unheard(struct agent *a)
{
	if (!a->is_live)
		return;
	a->is_live = false;
	stats.live--;
	if (steady_ns && !lost_ns) {
		lost_ns = clock_mono_ns();
		say("lost", lost_ns);
	}
}

/* -------- requests -------- */

static size_t hello_put(const struct agent *a, char id[32], uint8_t incarnation[16],
			Tidegate__Hello *hello)
{
	static char software[] = "bench";
	uint32_t n = number_of(a);

	snprintf(id, 32, "bench-%05u", n);
	memcpy(incarnation, &n, sizeof(n));
	memcpy(incarnation + 4, &start_ns, sizeof(start_ns));
	tidegate__hello__init(hello);
	hello->version = FRAME_VERSION;
	hello->agent = id;
	hello->incarnation = (ProtobufCBinaryData){FRAME_INCARNATION_BYTES, incarnation};
	hello->software = software;
	return 0;
}

static int frame_get(const struct agent *a, uint64_t sequence, ProtobufCBinaryData *ret)
{
	const struct variant_frame *f;
	const uint8_t *data;
	size_t size;
	char instance[32];
	int r = 0;

	if (sequence == 1) {
		snprintf(instance, sizeof(instance), "bench-%05u/1", number_of(a));
		r = variant_first(number_of(a) % VARIANTS, instance, &data, &size);
	} else {
		f = variant_frame(number_of(a) % VARIANTS, sequence);
		r = f ? 0 : -ENOMEM;
		data = f ? f->data : NULL;
		size = f ? f->size : 0;
	}
	/* protobuf-c's bytes are not const; packing only reads them. */
	*ret = (ProtobufCBinaryData){size, (uint8_t *)(uintptr_t)data};
	return r;
}

static void request_send(struct agent *a, struct request *q, uint64_t first, uint64_t last)
{
	static uint8_t message[1 << 20];
	ProtobufCBinaryData frames[RING];
	uint8_t incarnation[16] = {0};
	Tidegate__Uplink m;
	Tidegate__Hello hello;
	struct parcel *p;
	size_t size;
	char id[32];

	tidegate__uplink__init(&m);
	hello_put(a, id, incarnation, &hello);
	m.session = a->session;
	m.hello = a->session ? NULL : &hello;
	m.frames = frames;
	for (uint64_t s = first; s <= last; s++)
		if (frame_get(a, s, &frames[m.n_frames++]) < 0)
			abort();
	a->next_id = (a->next_id + 1) | 0x80000000u;
	sp_put32(message, a->next_id);
	size = 4 + tidegate__uplink__pack(&m, message + 4);
	p = parcel_new(message, size, NULL, 0, NULL);
	if (!p || outbox_push(peer_outbox(a->peer), p) < 0)
		abort();
	parcel_unref(p);
	*q = (struct request){a->next_id, first, last, clock_mono_ns() + TIMEOUT_NS};
	a->sent = last;
	stats.requests++;
	stats.bytes += size;
	peer_kick(a->peer);
}

/* The frames of one request: frame 1 alone, else a run of those that are not acknowledged. */
static void pump(struct agent *a)
{
	unsigned int window = a->session && a->is_proven ? options.window : 1;

	while (a->is_ready && a->sent < a->produced) {
		struct request *q = a->requests;
		uint64_t first = a->sent + 1;

		while (q < a->requests + window && q->id)
			q++;
		if (q == a->requests + window)
			return;
		request_send(a, q, first, first == 1 ? first : a->produced);
	}
}

static void rewind_sent(struct agent *a)
{
	memset(a->requests, 0, sizeof(a->requests));
	a->sent = a->settled;
	a->is_proven = false;
}

static void produce(struct agent *a)
{
	/* The aggregator does not keep up: an agent has its spool for that, this one counts. */
	if (a->produced - a->settled >= RING) {
		stats.overruns++;
		return;
	}
	a->produced++;
	a->produced_ns[a->produced % RING] = clock_mono_ns();
	stats.frames++;
	if (a->produced > 1)
		variant_frame(number_of(a) % VARIANTS, a->produced);
}

/* What was made while all were connecting waited for that. */
static bool is_measured(uint64_t made_ns)
{
	return steady_ns && made_ns >= steady_ns + SETTLE_NS;
}

static void settle(struct agent *a, uint64_t sequence)
{
	uint64_t bit;

	if (sequence <= a->settled || sequence > a->produced)
		return;
	bit = 1ULL << (sequence - a->settled - 1);
	if (a->acked & bit)
		return;
	a->acked |= bit;
	stats.acknowledged++;
	if (is_measured(a->produced_ns[sequence % RING]))
		latency_add(&acks, clock_mono_ns() - a->produced_ns[sequence % RING]);
	for (; a->acked & 1; a->acked >>= 1)
		a->settled++;
}

static int on_message(void *data, struct peer *peer, const uint8_t *message, size_t size)
{
	struct agent *a = data;
	Tidegate__UplinkReply *reply;
	struct request *q = a->requests;

	(void)peer;
	if (size < 4)
		return -EPROTO;
	while (q < a->requests + WINDOW && q->id != sp_get32(message))
		q++;
	reply = tidegate__uplink_reply__unpack(NULL, size - 4, message + 4);
	if (!reply)
		return -EPROTO;
	if (q == a->requests + WINDOW) { /* of before a loss */
		tidegate__uplink_reply__free_unpacked(reply, NULL);
		return 0;
	}
	q->id = 0;
	for (size_t i = 0; i < reply->n_acknowledged; i++)
		settle(a, reply->acknowledged[i]);
	stats.refused += reply->n_refused;
	if (reply->status == TIDEGATE__UPLINK_REPLY__STATUS__OK) {
		a->session = reply->session;
		a->is_proven = true;
		is_heard(a);
	} else {
		stats.need_hello += reply->status == TIDEGATE__UPLINK_REPLY__STATUS__NEED_HELLO;
		stats.need_key += reply->status == TIDEGATE__UPLINK_REPLY__STATUS__NEED_KEY;
		stats.refused += reply->status == TIDEGATE__UPLINK_REPLY__STATUS__REFUSED;
		a->session = 0;
		rewind_sent(a);
	}
	tidegate__uplink_reply__free_unpacked(reply, NULL);
	for (unsigned int i = 0; !options.interval_ns && !is_ending && i < options.ticks; i++)
		produce(a);
	pump(a);
	return 0;
}

/* -------- connections -------- */

static void on_ready(void *data, struct peer *peer)
{
	struct agent *a = data;

	(void)peer;
	a->is_ready = true;
	a->backoff_ns = BACKOFF_FIRST;
	stats.connections++;
	rewind_sent(a);
	if (!a->produced)
		produce(a);
	pump(a);
}

static void lose(struct agent *a)
{
	uint64_t wait = a->backoff_ns / 2 + random_next() % (4 * a->backoff_ns);

	stats.connections -= a->is_ready;
	stats.losses += a->is_ready;
	a->is_ready = false;
	a->peer = NULL;
	a->retry_ns = clock_mono_ns() + (wait > BACKOFF_MOST ? BACKOFF_MOST : wait);
	a->backoff_ns = a->backoff_ns * 2 > BACKOFF_MOST ? BACKOFF_MOST : a->backoff_ns * 2;
	is_unheard(a);
}

static void on_closed(void *data, struct peer *peer, int r)
{
	(void)peer;
	(void)r;
	lose(data);
}

static void agent_connect(struct agent *a)
{
	const struct peer_spec spec = {
		.self = SP_REQ,
		.expect = SP_REP,
		.message_max = SP_MESSAGE_MAX,
		.queue_bytes = 4u << 20,
		.queue_messages = 256,
		.tls = tls,
		.tls_host = tls ? "127.0.0.1" : NULL,
		.tls_ticket = &a->ticket,
		.on_ready = on_ready,
		.on_message = on_message,
		.on_closed = on_closed,
	};
	const int on = 1;
	int fd, r = listen_connect(options.address, &fd, NULL);

	if (r == 0 || r == -EINPROGRESS) {
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		r = peer_open(loop, fd, &spec, r == -EINPROGRESS, a, &a->peer);
		if (r < 0)
			close(fd);
	}
	if (r < 0)
		lose(a);
}

/* -------- time -------- */

static void look_after(struct agent *a, uint64_t now, unsigned int *connects)
{
	if (!a->peer) {
		if (*connects && a->retry_ns <= now) {
			--*connects;
			agent_connect(a);
		}
		return;
	}
	for (unsigned int i = 0; i < WINDOW; i++) {
		struct peer *peer = a->peer;

		if (!a->requests[i].id || a->requests[i].deadline_ns > now)
			continue;
		stats.timeouts++;
		lose(a);
		peer_close(peer);
		return;
	}
}

static void end(void)
{
	uint64_t total = 0, unacknowledged = 0;
	struct listener_stats bus;
	struct rusage usage;

	listener_stats(&bus);
	getrusage(RUSAGE_SELF, &usage);
	for (unsigned int i = 0; i < options.agents; i++) {
		total += variant_total(i % VARIANTS, agents[i].produced);
		unacknowledged += agents[i].produced - agents[i].settled -
				  (uint64_t)__builtin_popcountll(agents[i].acked);
	}
	printf("{\"event\":\"end\",\"agents\":%u,\"frames\":%lu,\"acknowledged\":%lu,"
	       "\"unacknowledged\":%lu,\"overruns\":%lu,\"samples\":%lu,\"total\":%lu,"
	       "\"requests\":%lu,\"bytes\":%lu,\"losses\":%lu,\"timeouts\":%lu,\"need_hello\":%lu,"
	       "\"need_key\":%lu,\"refused\":%lu,\"ack_p50_ms\":%.1f,\"ack_p99_ms\":%.1f,"
	       "\"ack_max_ms\":%.1f,\"bus_messages\":%lu,\"bus_missed\":%lu,\"bus_p50_ms\":%.1f,"
	       "\"bus_p99_ms\":%.1f,\"bus_max_ms\":%.1f,\"simulator_cpu_s\":%.2f}\n",
	       options.agents, stats.frames, stats.acknowledged, unacknowledged, stats.overruns,
	       (stats.acknowledged - stats.acknowledged_before) * STANDARD_SERIES, total,
	       stats.requests, stats.bytes, stats.losses, stats.timeouts, stats.need_hello,
	       stats.need_key, stats.refused, latency_ms(&acks, 0.5), latency_ms(&acks, 0.99),
	       (double)acks.most_ns / 1e6, bus.messages, bus.missed, latency_ms(bus.latency, 0.5),
	       latency_ms(bus.latency, 0.99), (double)bus.latency->most_ns / 1e6,
	       (double)usage.ru_utime.tv_sec + (double)usage.ru_stime.tv_sec +
		       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6);
	loop_stop(loop);
}

static bool is_drained(void)
{
	for (unsigned int i = 0; i < options.agents; i++)
		if (agents[i].settled < agents[i].produced)
			return false;
	return true;
}

/* Ticks are spread over the interval, each agent at its own moment of it. */
static void ticks(uint64_t now)
{
	uint64_t n = options.agents;

	while (start_ns + round_number * options.interval_ns + due * options.interval_ns / n <=
	       now) {
		if (agents[due].produced)
			produce(&agents[due]);
		pump(&agents[due]);
		if (++due == n) {
			due = 0;
			round_number++;
		}
	}
}

static void on_step(void *data)
{
	uint64_t now = clock_mono_ns();
	unsigned int connects = CONNECTS;

	(void)data;
	if (steady_ns && now - steady_ns > options.seconds_ns)
		is_ending = true;
	if (!is_ending && options.interval_ns)
		ticks(now);
	for (unsigned int i = 0; i <= options.agents / LOOKS; i++) {
		look_after(&agents[looked], now, &connects);
		looked = (looked + 1) % options.agents;
	}
	if (is_ending && (is_drained() || now - steady_ns > options.seconds_ns + DRAIN_NS))
		end();
	if (!steady_ns && now - start_ns > 120 * NS_PER_S) {
		fprintf(stderr, "agents: only %u of %u were ever acknowledged\n", stats.live,
			options.agents);
		exit(1);
	}
}

static void on_drop(void *data, int number)
{
	(void)data;
	(void)number;
	for (unsigned int i = 0; i < options.agents; i++) {
		struct peer *peer = agents[i].peer;

		if (!peer)
			continue;
		lose(&agents[i]);
		peer_close(peer);
	}
}

/* Of the frame with this time, 0 when the agent has none such in flight or just before. */
static uint64_t produced_at(unsigned int number, uint64_t time_ms)
{
	const struct agent *a = &agents[number];

	if (number >= options.agents || !steady_ns)
		return 0;
	for (uint64_t s = a->produced; s > 1 && s + RING > a->produced; s--)
		if (variant_frame(number % VARIANTS, s)->time_ms == time_ms)
			return is_measured(a->produced_ns[s % RING]) ? a->produced_ns[s % RING] : 0;
	return 0;
}

static int parse(int argc, char **argv)
{
	static const struct option longs[] = {
		{"interval", required_argument, NULL, 'i'}, /* ms; 0: the next at once */
		{"ticks", required_argument, NULL, 't'},    /* of one request, with --interval 0 */
		{"window", required_argument, NULL, 'w'},
		{"tls", required_argument, NULL, 's'}, /* folder of ca.pem, cert.pem, key.pem */
		{"bus", required_argument, NULL, 'b'}, /* subscribe there */
		{0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (c == 'i')
			options.interval_ns = strtoull(optarg, NULL, 10) * NS_PER_MS;
		else if (c == 't')
			options.ticks = (unsigned int)strtoul(optarg, NULL, 10);
		else if (c == 'w')
			options.window = (unsigned int)strtoul(optarg, NULL, 10);
		else if (c == 's')
			options.tls = optarg;
		else if (c == 'b')
			options.bus = optarg;
		else
			return -EINVAL;
	}
	if (argc - optind != 3)
		return -EINVAL;
	options.address = argv[optind];
	options.agents = (unsigned int)strtoul(argv[optind + 1], NULL, 10);
	options.seconds_ns = strtoull(argv[optind + 2], NULL, 10) * NS_PER_S;
	return options.agents && options.window && options.window <= WINDOW && options.ticks &&
			       options.ticks <= RING / 2
		       ? 0
		       : -EINVAL;
}

static int tls_open(void)
{
	char ca[512], certificate[512], key[512];
	const struct credentials_files files = {ca, certificate, key};
	struct err e = {0};
	int r;

	if (!options.tls)
		return 0;
	snprintf(ca, sizeof(ca), "%s/ca.pem", options.tls);
	snprintf(certificate, sizeof(certificate), "%s/cert.pem", options.tls);
	snprintf(key, sizeof(key), "%s/key.pem", options.tls);
	r = credentials_open(&files, &tls, &e);
	if (r < 0)
		fprintf(stderr, "agents: %s\n", e.text);
	return r;
}

int main(int argc, char **argv)
{
	struct loop_watch *watch;
	struct rlimit limit;

	if (parse(argc, argv) < 0) {
		fprintf(stderr, "usage: agents [--interval MS] [--ticks N] [--window N] [--bus "
				"ADDRESS] [--tls DIR] "
				"ADDRESS AGENTS SECONDS\n");
		return 2;
	}
	getrlimit(RLIMIT_NOFILE, &limit);
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	agents = calloc(options.agents, sizeof(*agents));
	start_ns = clock_mono_ns();
	for (unsigned int i = 0; agents && i < options.agents; i++)
		agents[i].backoff_ns = BACKOFF_FIRST;
	if (!agents || tls_open() < 0 || loop_open(&loop) < 0 ||
	    loop_add_timer(loop, STEP_MS, STEP_MS, on_step, NULL, &watch) < 0 ||
	    loop_add_signal(loop, SIGUSR1, on_drop, NULL, &watch) < 0 ||
	    (options.bus && listener_open(loop, options.bus, produced_at) < 0)) {
		fprintf(stderr, "agents: cannot begin: %s\n", strerror(errno));
		return 1;
	}
	loop_run(loop);
	/* The kernel and exit() free the rest. */
	return 0;
}
