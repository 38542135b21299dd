/* SPDX-License-Identifier: Apache-2.0 */
/* Handles of libtidegate: opened, closed, carried over fork(); values; the error text. */
#include "state.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define SERIES        2000u
#define SERIES_MOST   400000u
#define HISTOGRAMS    64u
#define DEFAULT_DIR   "/run/tidegate"
#define NS_PER_SECOND 1e9

static __thread char reason[512];

static pthread_mutex_t handles_lock = PTHREAD_MUTEX_INITIALIZER;
static struct tidegate *handles;

HIDDEN int reason_set(int r, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(reason, sizeof(reason), fmt, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < sizeof(reason))
		snprintf(reason + n, sizeof(reason) - (size_t)n, " (%s)", strerror(-r));
	return r;
}

const char *tidegate_error(void)
{
	return reason;
}

/* ---- fork ---- */

static void before_fork(void)
{
	pthread_mutex_lock(&handles_lock);
}

static void after_fork_parent(void)
{
	pthread_mutex_unlock(&handles_lock);
}

static void after_fork_child(void)
{
	for (struct tidegate *t = handles; t; t = t->next) {
		region_detach(t, false);
		t->pid = 0;
		if (!(t->flags & TIDEGATE_FORK_AT_ONCE))
			continue;
		t->flags &= ~TIDEGATE_FORK_AT_ONCE;
		region_attach(t);
		host_look(t);
	}
	pthread_mutex_unlock(&handles_lock);
}

static void fork_watch(void)
{
	pthread_atfork(before_fork, after_fork_parent, after_fork_child);
}

/* ---- handles ---- */

static int options_take(struct tidegate *t, const struct tidegate_options *o, uint32_t *ret_series,
			uint32_t *ret_histograms)
{
	struct tidegate_options known = {0};
	const char *dir;

	if (o && o->size < offsetof(struct tidegate_options, flags))
		return reason_set(-EINVAL, "options of %zu bytes: set size", o->size);
	if (o)
		memcpy(&known, o, o->size < sizeof(known) ? o->size : sizeof(known));
	*ret_series = known.series ? known.series : SERIES;
	*ret_histograms = known.histograms ? known.histograms : HISTOGRAMS;
	if (*ret_series > SERIES_MOST || *ret_series < 16)
		return reason_set(-EINVAL, "%u series: 16 to %u are possible", *ret_series,
				  SERIES_MOST);
	if (*ret_histograms > *ret_series)
		return reason_set(-EINVAL, "%u histograms are more than the %u series",
				  *ret_histograms, *ret_series);
	dir = known.runtime_dir ? known.runtime_dir : getenv("TIDEGATE_RUNTIME_DIR");
	if (!dir || !*dir)
		dir = DEFAULT_DIR;
	if (*dir != '/' ||
	    (size_t)snprintf(t->dir, sizeof(t->dir), "%s/app", dir) >= sizeof(t->dir))
		return reason_set(-EINVAL,
				  "runtime directory \"%.100s\": an absolute path of at most "
				  "%zu bytes is needed",
				  dir, sizeof(t->dir) - 5);
	if (known.gateway && strlen(known.gateway) >= sizeof(t->gateway))
		return reason_set(-EINVAL, "gateway \"%.80s\": at most %zu bytes", known.gateway,
				  sizeof(t->gateway) - 1);
	if (known.gateway)
		strcpy(t->gateway, known.gateway);
	if (known.flags & ~TIDEGATE_FORK_AT_ONCE)
		return reason_set(-EINVAL, "flags 0x%x: not known", known.flags);
	t->flags = known.flags;
	return 0;
}

int tidegate_open(const struct tidegate_options *options, struct tidegate **ret)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct tidegate *t = calloc(1, sizeof(*t));
	uint32_t series = 0, histograms = 0, places = 64;
	int r = -ENOMEM;

	if (!t)
		return reason_set(-ENOMEM, "out of memory");
	t->fd = -1;
	r = options_take(t, options, &series, &histograms);
	if (r == 0)
		r = region_open(t, series, histograms);
	if (r < 0) {
		free(t);
		return r;
	}
	while (places < 2 * series)
		places *= 2;
	t->index = calloc(places, sizeof(*t->index));
	t->index_mask = places - 1;
	t->nowhere = calloc(HIST_CELLS, sizeof(*t->nowhere));
	if (!t->index || !t->nowhere) {
		tidegate_close(t);
		return reason_set(-ENOMEM, "out of memory");
	}
	pthread_once(&once, fork_watch);
	pthread_mutex_lock(&handles_lock);
	t->next = handles;
	handles = t;
	pthread_mutex_unlock(&handles_lock);
	reason[0] = '\0';
	region_attach(t);
	*ret = t;
	return 0;
}

struct tidegate *tidegate_close(struct tidegate *t)
{
	if (!t)
		return NULL;
	pthread_mutex_lock(&handles_lock);
	for (struct tidegate **p = &handles; *p; p = &(*p)->next)
		if (*p == t) {
			*p = t->next;
			break;
		}
	pthread_mutex_unlock(&handles_lock);
	host_close(t);
	region_close(t);
	metrics_free(t);
	free(t->index);
	free(t->nowhere);
	free(t);
	return NULL;
}

int tidegate_heartbeat(struct tidegate *t)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	__atomic_store_n(&t->h->heartbeat_ns,
			 (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec,
			 __ATOMIC_RELAXED);
	t->flags &= ~TIDEGATE_FORK_AT_ONCE; /* who beats is no starter of workers */
	if (t->fd >= 0 && region_is_there(t))
		return 0;
	return region_attach(t);
}

bool tidegate_draining(struct tidegate *t)
{
	return host_is_draining(t);
}

/* ---- values ---- */

unsigned int tidegate_cell(uint64_t ns)
{
	return histogram_index(ns);
}

void tidegate_observe(uint64_t *histogram, double seconds)
{
	double ns = seconds * NS_PER_SECOND;

	tidegate_observe_ns(histogram, ns > 0 ? ns < 9e18 ? (uint64_t)ns : UINT64_MAX : 0);
}
