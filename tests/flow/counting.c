/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A gateway's script that knows what it counted: SERIES counters, each with increments of its own a
 * hundred times a second, and a histogram, until SIGTERM; then it says both sums. From SIGUSR1 on the
 * first half of them stands still.
 *
 *   counting SERIES
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <tidegate.h>
#include <time.h>

static volatile sig_atomic_t is_over, is_half;

static void on_signal(int signal)
{
	if (signal == SIGTERM)
		is_over = 1;
	else
		is_half = 1;
}

int main(int argc, char **argv)
{
	static const char *const labels[] = {"n"};
	const unsigned int count = argc == 2 ? (unsigned int)atoi(argv[1]) : 0;
	const struct tidegate_options options = {
		.size = sizeof(options), .series = 2 * count, .histograms = 1};
	const struct timespec pause = {.tv_nsec = 10000000};
	uint64_t **cells = calloc(count + 1, sizeof(*cells)), *took, total = 0, observed = 0;
	struct tidegate_metric *sold, *seconds;
	struct tidegate *t;

	signal(SIGTERM, on_signal);
	signal(SIGUSR1, on_signal);
	if (!count || !cells || tidegate_open(&options, &t) < 0 ||
	    tidegate_counter(t, "sold_total", "Things sold.", labels, 1, &sold) < 0 ||
	    tidegate_histogram(t, "sale_seconds", "Time of a sale.", NULL, 0, &seconds) < 0 ||
	    tidegate_with(seconds, NULL, &took) < 0) {
		fprintf(stderr, "counting: %s\n", tidegate_error());
		return 1;
	}
	for (unsigned int i = 0; i < count; i++) {
		char text[16];
		const char *const value[] = {text};

		snprintf(text, sizeof(text), "%u", i);
		if (tidegate_with(sold, value, &cells[i]) < 0) {
			fprintf(stderr, "counting: %s\n", tidegate_error());
			return 1;
		}
	}
	srand(1);
	while (!is_over) {
		for (unsigned int i = is_half ? count / 2 : 0; i < count; i++) {
			uint64_t by = (uint64_t)rand() % 1000003;

			tidegate_add(cells[i], by);
			total += by;
		}
		tidegate_observe(took, (double)(rand() % 100000) / 1e5);
		observed++;
		tidegate_heartbeat(t);
		nanosleep(&pause, NULL);
	}
	printf("%llu %llu\n", (unsigned long long)total, (unsigned long long)observed);
	tidegate_close(t);
	return 0;
}
