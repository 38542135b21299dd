/* SPDX-License-Identifier: Apache-2.0 */
/* Counts orders in two threads: cc orders.c $(pkg-config --cflags --libs tidegate) -pthread */
#include <pthread.h>
#include <stdio.h>
#include <tidegate.h>

/* A handle has one writer: threads that work at once open one each. The agent adds them up. */
static void *work(void *route)
{
	static const char *const labels[] = {"route"};
	const struct tidegate_options options = {.size = sizeof(options), .gateway = "shop"};
	const char *const values[] = {route};
	struct tidegate_metric *orders, *seconds;
	uint64_t *count, *took;
	struct tidegate *t;

	if (tidegate_open(&options, &t) < 0 ||
	    tidegate_counter(t, "orders_total", "Orders taken.", labels, 1, &orders) < 0 ||
	    tidegate_histogram(t, "order_seconds", "Time an order takes.", labels, 1, &seconds) <
		    0) {
		fprintf(stderr, "orders: %s\n", tidegate_error());
		return NULL;
	}
	/* Bound once; without room they count as "_overflow", so the result may be ignored. */
	tidegate_with(orders, values, &count);
	tidegate_with(seconds, values, &took);
	for (int i = 0; i < 1013; i++) {
		tidegate_inc(count);
		tidegate_observe(took, 0.0025);
	}
	/* About once a second where there is a timer. */
	if (tidegate_heartbeat(t) < 0)
		fprintf(stderr, "orders: %s\n", tidegate_error());
	printf("%s: %s\n", values[0],
	       tidegate_draining(t) ? "say Connection: close" : "in service");
	tidegate_close(t); /* what was counted stays */
	return route;
}

int main(void)
{
	static char pay[] = "/pay", cart[] = "/cart";
	pthread_t thread;
	void *done = NULL;

	if (pthread_create(&thread, NULL, work, pay) != 0)
		return 1;
	return work(cart) && pthread_join(thread, &done) == 0 && done ? 0 : 1;
}
