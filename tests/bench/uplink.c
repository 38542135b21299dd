/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a frame costs the agent from the spool to its acknowledgement: CPU time of the sending
 * process, over plain TCP and over TLS, in turn. One frame of 100 counters (40 % of them changing)
 * each millisecond, each in a request of its own; the answering side is a process apart. The median
 * of ROUNDS is shown; the timer and the spool's file are in both.
 *
 * Prints JSON lines as tests/bench expects them.
 */
#include "bus/uplink.h"
#include "base/clock.h"
#include "base/str.h"
#include "bus/peer.h"
#include "certificates.h"
#include "port.h"
#include "tidegate.pb-c.h"

#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define ROUNDS  5
#define FRAMES  2000
#define SERIES  100
#define TIME_NS (60 * NS_PER_S) /* a round takes two seconds */

enum mode { PLAIN, TLS, MODES };

static struct loop *loop;
static char dir[64], addresses[MODES][64];
static struct credentials *server_tls, *client_tls;

static void must(bool is_good, const char *what)
{
	if (is_good)
		return;
	fprintf(stderr, "uplink bench: %s\n", what);
	exit(1);
}

/* ---- the answering process ---- */

static int on_request(void *data, struct peer *peer, const uint8_t *message, size_t size)
{
	static uint64_t sequences[2048];
	static uint8_t out[65536];
	Tidegate__Uplink *m = tidegate__uplink__unpack(NULL, size - 4, message + 4);
	Tidegate__UplinkReply reply;
	struct parcel *p;

	(void)data;
	must(m, "a request is damaged");
	tidegate__uplink_reply__init(&reply);
	reply.session = 7;
	reply.acknowledged = sequences;
	for (size_t i = 0; i < m->n_frames; i++) {
		struct frame *f;

		must(frame_decode(m->frames[i].data, m->frames[i].len, &f, NULL) == 0,
		     "a frame is damaged");
		sequences[reply.n_acknowledged++] = f->sequence;
		frame_free(f);
	}
	tidegate__uplink__free_unpacked(m, NULL);
	memcpy(out, message, 4);
	p = parcel_new(out, 4 + tidegate__uplink_reply__pack(&reply, out + 4), NULL, 0, NULL);
	must(p && outbox_push(peer_outbox(peer), p) == 0, "no memory");
	parcel_unref(p);
	peer_kick(peer);
	return 0;
}

static void on_closed(void *data, struct peer *peer, int r)
{
	(void)data;
	(void)peer;
	(void)r;
}

static void on_accept(void *data, int fd)
{
	const struct peer_spec spec = {
		.self = SP_REP,
		.expect = SP_REQ,
		.message_max = SP_MESSAGE_MAX,
		.queue_bytes = 1 << 20,
		.queue_messages = 64,
		.tls = data,
		.on_message = on_request,
		.on_closed = on_closed,
	};
	struct peer *peer;

	must(peer_open(loop, fd, &spec, false, NULL, &peer) == 0, "no peer");
}

static pid_t answerer_start(void)
{
	struct acceptor *acceptor;
	struct err e = {0};
	pid_t pid = fork();

	must(pid >= 0, "no process");
	if (pid > 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	must(loop_open(&loop) == 0, "no loop");
	for (int mode = 0; mode < MODES; mode++)
		must(acceptor_open(loop, addresses[mode], true, on_accept,
				   mode == TLS ? server_tls : NULL, &acceptor, &e) == 0,
		     e.text);
	loop_run(loop);
	_exit(0);
}

/* ---- the sending one ---- */

static struct sender {
	struct spool *spool;
	struct frame_encoder *encoder;
	struct uplink *uplink;
	uint64_t values[SERIES], random, deadline_ns;
	unsigned int frames;
} sender;

static void frame_make(struct sender *s)
{
	static const char *const digits[] = {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"};
	const uint8_t *data;
	uint32_t samples;
	size_t size;

	frame_encoder_begin(s->encoder, spool_next_sequence(s->spool), 1000, 1000,
			    s->frames ? FRAME_CHANGES : FRAME_KEY);
	for (unsigned int i = 0; i < SERIES; i++) {
		struct segment_series row = {
			.index = i,
			.name = "app_total",
			.unit = "",
			.help = "",
			.kind = METRIC_COUNTER,
			.is_present = true,
			.label_count = 2,
			.labels = {{"a", digits[i / 10]}, {"b", digits[i % 10]}}};

		s->random = s->random * 6364136223846793005ULL + 1442695040888963407ULL;
		if (s->random >> 32 < 0.4 * UINT32_MAX)
			s->values[i] += 1 + (s->random >> 59);
		row.counter = s->values[i];
		frame_encoder_series(s->encoder, &row);
	}
	must(frame_encoder_finish(s->encoder, &data, &size, &samples) == 0, "no frame");
	must(spool_append(s->spool, 1000, data, size, NULL) == 0, "no spool");
	s->frames++;
}

static void on_millisecond(void *data)
{
	struct sender *s = data;
	uint64_t pending;

	must(clock_mono_ns() < s->deadline_ns, "it takes too long");
	if (s->frames < FRAMES) {
		frame_make(s);
		uplink_kick(s->uplink);
		return;
	}
	uplink_pending(s->uplink, &pending);
	if (!pending)
		loop_stop(loop);
}

static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

/* Microseconds of CPU a frame. */
static double run(enum mode mode)
{
	static const uint8_t boot[16] = "boot";
	char spool_dir[96];
	const struct spool_options spool = {
		.dir = spool_dir, .bytes = 64 << 20, .age_ns = UINT64_MAX, .boot_id = boot};
	const struct uplink_options options = {
		.address = addresses[mode],
		.agent = "bench",
		.backoff_ns = 100 * NS_PER_MS,
		.tls = &client_tls,
	};
	struct loop_watch *watch;
	struct uplink_stats stats;
	struct err e = {0};
	uint64_t began;

	snprintf(spool_dir, sizeof(spool_dir), "%s/spool", dir);
	sender = (struct sender){.random = 1, .deadline_ns = clock_mono_ns() + TIME_NS};
	must(loop_open(&loop) == 0 && spool_open(&spool, &sender.spool, NULL) == 0 &&
		     frame_encoder_new(&sender.encoder) == 0,
	     "no memory");
	must(uplink_open(loop, sender.spool, &options, &sender.uplink, &e) == 0, e.text);
	must(loop_add_timer(loop, 1, 1, on_millisecond, &sender, &watch) == 0, "no timer");
	began = cpu_ns();
	loop_run(loop);
	began = cpu_ns() - began;
	uplink_stats(sender.uplink, &stats);
	must(stats.frames_acknowledged == FRAMES && stats.connects == 1, "a frame came twice");
	uplink_close(sender.uplink);
	spool_close(sender.spool);
	frame_encoder_free(sender.encoder);
	loop_close(loop);
	nftw(spool_dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	return (double)began / 1e3 / FRAMES;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

static void credentials_make(const struct authority *ca, const struct certificate_spec *spec,
			     const char *name, struct credentials **ret)
{
	char where[96], pem[3][128];
	const struct credentials_files files = {pem[0], pem[1], pem[2]};
	struct err e = {0};

	snprintf(where, sizeof(where), "%s/%s", dir, name);
	mkdir(where, 0700);
	certificate_make(ca, ca, spec, where);
	snprintf(pem[0], sizeof(pem[0]), "%s/ca.pem", where);
	snprintf(pem[1], sizeof(pem[1]), "%s/cert.pem", where);
	snprintf(pem[2], sizeof(pem[2]), "%s/key.pem", where);
	must(credentials_open(&files, ret, &e) == 0, e.text);
}

int main(void)
{
	const struct certificate_spec door = {.ip = "\177\0\0\1"}, agent = {.dns = "bench"};
	struct authority ca = authority_new("CN=bench");
	double us[MODES][ROUNDS];
	unsigned int ports[MODES];
	pid_t answerer;

	strcpy(dir, "/tmp/uplink-bench-XXXXXX");
	must(mkdtemp(dir), "no directory");
	for (int mode = 0; mode < MODES; mode++) {
		must(port_hold(&ports[mode]) >= 0, "no port");
		snprintf(addresses[mode], sizeof(addresses[mode]), "%stcp://127.0.0.1:%u",
			 mode == TLS ? "tls+" : "", ports[mode]);
	}
	credentials_make(&ca, &door, "door", &server_tls);
	credentials_make(&ca, &agent, "agent", &client_tls);
	answerer = answerer_start();
	for (unsigned int i = 0; i < ROUNDS; i++)
		for (int mode = 0; mode < MODES; mode++)
			us[mode][i] = run(mode);
	for (int mode = 0; mode < MODES; mode++)
		qsort(us[mode], ROUNDS, sizeof(us[mode][0]), compare);
	kill(answerer, SIGKILL);
	waitpid(answerer, NULL, 0);
	nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	printf("{\"name\":\"agent's CPU a frame, spooled, sent, acknowledged\",\"value\":%.1f,"
	       "\"unit\":\"us\",\"peer\":null,\"ratio\":null,\"budget\":null,\"holds\":null}\n",
	       us[PLAIN][ROUNDS / 2]);
	printf("{\"name\":\"the same over TLS\",\"value\":%.1f,\"unit\":\"us\","
	       "\"peer\":\"plain TCP\",\"ratio\":%.3f,\"budget\":null,\"holds\":null}\n",
	       us[TLS][ROUNDS / 2], us[TLS][ROUNDS / 2] / us[PLAIN][ROUNDS / 2]);
	return 0;
}
