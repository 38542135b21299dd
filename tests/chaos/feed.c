/* SPDX-License-Identifier: Apache-2.0 */
/*
 * feed TRUTH DIR...: counts as the gateways of several agents do, one runtime directory each, until
 * SIGTERM, and says in the file TRUTH what it counted. What is said there is said before it is
 * counted: no reader further down may ever see more than the truth read after it. When the process has
 * ended by SIGTERM the two are equal.
 *
 * TRUTH: u64 numbers {agents, counters, histograms, values, ns of each value}, then per agent
 * {counters, gauge in ms, for each histogram how often each value was observed}.
 */
#include "tidegate.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#define AGENTS_MAX 16
#define COUNTERS   12
#define HISTOGRAMS 2
#define VALUES     24
#define HEAD       (4 + VALUES)
#define PAUSE_US   4000
#define BURST      8
/* About so often, in rounds, a gateway's process ends and another takes its place. */
#define REPLACE 400

struct truth {
	uint64_t counters[COUNTERS];
	uint64_t gauge;
	uint64_t observed[HISTOGRAMS][VALUES];
};

struct gateway {
	const char *dir;
	struct truth *truth;
	struct tidegate *t;
	uint64_t *counters[COUNTERS], *gauge, *histograms[HISTOGRAMS];
};

static volatile sig_atomic_t is_over;
static uint64_t values[VALUES];

static void on_term(int signal)
{
	(void)signal;
	is_over = 1;
}

static void must(int r, const char *what)
{
	if (r >= 0)
		return;
	fprintf(stderr, "feed: %s: %s\n", what, tidegate_error());
	exit(1);
}

static void gateway_open(struct gateway *g, unsigned int number)
{
	static const char *const labels[] = {"who", "n"};
	const struct tidegate_options o = {
		.size = sizeof(o), .runtime_dir = g->dir, .series = 64, .histograms = 4};
	char who[16], n[16];
	const char *const texts[] = {who, n};
	struct tidegate_metric *counter, *gauge, *histogram;

	snprintf(who, sizeof(who), "%u", number);
	must(tidegate_open(&o, &g->t), g->dir);
	must(tidegate_counter(g->t, "chaos_total", "", labels, 2, &counter), "counter");
	must(tidegate_gauge(g->t, "chaos_gauge", "", TIDEGATE_LAST, labels, 1, &gauge), "gauge");
	must(tidegate_histogram(g->t, "chaos_seconds", "", labels, 2, &histogram), "histogram");
	for (unsigned int i = 0; i < COUNTERS; i++) {
		snprintf(n, sizeof(n), "%u", i);
		must(tidegate_with(counter, texts, &g->counters[i]), "counter");
	}
	must(tidegate_with(gauge, texts, &g->gauge), "gauge");
	for (unsigned int i = 0; i < HISTOGRAMS; i++) {
		snprintf(n, sizeof(n), "%u", i);
		must(tidegate_with(histogram, texts, &g->histograms[i]), "histogram");
	}
}

static void say(uint64_t *truth, uint64_t by)
{
	__atomic_add_fetch(truth, by, __ATOMIC_SEQ_CST);
}

static void count(struct gateway *g)
{
	unsigned int c = (unsigned int)rand() % COUNTERS, h = (unsigned int)rand() % HISTOGRAMS,
		     v = (unsigned int)rand() % VALUES, by = 1 + (unsigned int)rand() % 997;

	say(&g->truth->counters[c], by);
	tidegate_add(g->counters[c], by);
	say(&g->truth->observed[h][v], 1);
	tidegate_observe_ns(g->histograms[h], values[v]);
	g->truth->gauge = by;
	tidegate_set(g->gauge, by);
}

static struct truth *truth_map(const char *path, unsigned int agents)
{
	size_t bytes = HEAD * sizeof(uint64_t) + agents * sizeof(struct truth);
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	uint64_t *head;

	if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0)
		return NULL;
	head = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (head == MAP_FAILED)
		return NULL;
	/* From 1 us to some seconds, none of them near the edge of a cell. */
	for (unsigned int i = 0; i < VALUES; i++) {
		values[i] = i ? values[i - 1] * 19 / 10 : 1237;
		head[4 + i] = values[i];
	}
	head[1] = COUNTERS;
	head[2] = HISTOGRAMS;
	head[3] = VALUES;
	__atomic_store_n(&head[0], agents, __ATOMIC_RELEASE);
	return (struct truth *)(head + HEAD);
}

int main(int argc, char **argv)
{
	static struct gateway gateways[AGENTS_MAX];
	unsigned int n = (unsigned int)argc - 2;
	struct sigaction term = {.sa_handler = on_term};
	struct truth *truth;

	if (argc < 3 || n > AGENTS_MAX) {
		fprintf(stderr, "usage: feed TRUTH DIR...\n");
		return 2;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigaction(SIGTERM, &term, NULL);
	truth = truth_map(argv[1], n);
	if (!truth) {
		fprintf(stderr, "feed: %s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	for (unsigned int i = 0; i < n; i++) {
		gateways[i] = (struct gateway){.dir = argv[i + 2], .truth = &truth[i]};
		gateway_open(&gateways[i], i);
	}
	for (unsigned int round = 0; !is_over; round++) {
		struct gateway *g = &gateways[round % n];

		for (unsigned int i = 0; i < BURST; i++)
			count(g);
		tidegate_heartbeat(g->t);
		if (rand() % REPLACE == 0) {
			tidegate_close(g->t);
			gateway_open(g, round % n);
		}
		usleep(PAUSE_US);
	}
	for (unsigned int i = 0; i < n; i++)
		tidegate_close(gateways[i].t);
	return 0;
}
