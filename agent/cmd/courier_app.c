/* SPDX-License-Identifier: Apache-2.0 */
/* What gateway scripts tell: whose a process's segment is, and the sums in app.seg. Courier. */
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "cmd/courier_state.h"
#include "segment/folded.h"
#include "segment/gather.h"

#include <stdio.h>
#include <sys/resource.h>

#define FILE_BYTES  (64ull << 20)
#define OTHER_FILES 512
#define SWEEP_NS    (60 * NS_PER_S)

static bool record_matches(const struct segment_gateway *g, const struct gather_writer *w)
{
	return g->master_pid &&
	       (g->master_pid == w->pid || (w->parent && g->master_pid == w->parent));
}

/* A segment is believed when it belongs to the user of the gateway's workers, or to root. */
static bool user_matches(const struct segment_gateway *g, const struct gather_writer *w)
{
	return w->uid == 0 || (g->worker_uid != SEGMENT_NO_UID && g->worker_uid == w->uid);
}

static const struct segment_gateway *record_of(const struct courier *c,
					       const struct gather_writer *w)
{
	const struct segment_gateway *g, *gone = NULL, *named = NULL;
	unsigned int users = 0;

	for (unsigned int i = 0; i < segment_reader_gateways(c->host); i++) {
		g = segment_reader_gateway(c->host, i);
		if (!user_matches(g, w))
			continue;
		if (record_matches(g, w)) {
			if (g->state == SEGMENT_GATEWAY_LIVE)
				return g;
			gone = g;
		}
		/* Its parent has another number here: another pid namespace. */
		if (g->state == SEGMENT_GATEWAY_LIVE &&
		    (!*w->gateway || str_equal(w->gateway, g->name))) {
			named = g;
			users++;
		}
	}
	if (gone)
		return gone;
	return users == 1 ? named : NULL;
}

static bool owner(void *data, const struct gather_writer *w, struct gather_owner *ret)
{
	const struct courier *c = data;
	const struct segment_gateway *g = c->host ? record_of(c, w) : NULL;

	if (g) {
		str_copy(ret->gateway, sizeof(ret->gateway), g->name);
		str_copy(ret->instance, sizeof(ret->instance), g->instance);
		return true;
	}
	/* In a pod every process that may write there belongs to it. */
	if (!c->ctx->is_sidecar)
		return false;
	str_copy(ret->gateway, sizeof(ret->gateway), *w->gateway ? w->gateway : "app");
	ret->instance[0] = '\0';
	return true;
}

/* A descriptor a file, beside those that the courier has anyway. */
static void raise_descriptors(rlim_t want)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= want)
		return;
	limit.rlim_cur = want < limit.rlim_max ? want : limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur < want)
		log_warning("courier", "fewer descriptors than app.files",
			    "limit=%lu want=%lu do=\"raise LimitNOFILE\"",
			    (unsigned long)limit.rlim_cur, (unsigned long)want);
}

void courier_app_open(struct courier *c)
{
	const struct config *config = c->ctx->config;
	char dir[sizeof(c->app_path) + 8];
	const struct gather_options options = {
		.dir = dir,
		.files = (unsigned int)config->app_files,
		.bytes = FILE_BYTES,
		.owner = owner,
		.data = c,
	};

	raise_descriptors((rlim_t)config->app_files + OTHER_FILES);
	snprintf(dir, sizeof(dir), "%s/app", config->_runtime_dir);
	if (c->writer && gather_new(&options, c->writer, &c->gather) < 0) {
		log_error("courier", "no memory for metrics of gateway scripts", "%s", "");
		c->gather = NULL;
	}
}

static void put(struct courier *c, int *series, enum metric_id id, const char *reason,
		uint64_t value, bool is_gauge)
{
	const char *const labels[1][2] = {{"reason", reason}};

	if (!*series && !value)
		return;
	if (!*series)
		*series = segment_writer_series(c->writer, &metric_descs[id], labels,
						reason ? 1 : 0) +
			  1;
	if (is_gauge)
		segment_writer_gauge(c->writer, *series - 1, (double)value);
	else
		segment_writer_counter(c->writer, *series - 1, value);
}

/* Profiles that nobody took: of a `tidegate profile` that was killed, or of nobody. */
static void sweep(struct courier *c, uint64_t now_ns)
{
	struct courier_app_series *s = &c->app_series;
	char dir[sizeof(c->app_path) + 8];
	unsigned int n;

	if (s->swept_ns && now_ns - s->swept_ns < SWEEP_NS)
		return;
	s->swept_ns = now_ns;
	snprintf(dir, sizeof(dir), "%s/app", c->ctx->config->_runtime_dir);
	n = folded_sweep(dir, clock_real_ns());
	s->profiles_removed += n;
	if (n)
		log_info("courier", "profiles that nobody took are removed", "files=%u", n);
}

void courier_app_collect(struct courier *c, uint64_t now_ns)
{
	if (!c->gather)
		return;
	gather_collect(c->gather, now_ns);
	sweep(c, now_ns);
}

void courier_app_write(struct courier *c)
{
	struct courier_app_series *s = &c->app_series;
	struct gather_stats stats;

	if (!c->gather)
		return;
	gather_write(c->gather);
	gather_stats(c->gather, &stats);
	put(c, &s->processes, METRIC_ID_APP_PROCESSES, NULL, stats.files, true);
	put(c, &s->folded, METRIC_ID_APP_FOLDED, NULL, stats.folded, false);
	put(c, &s->profiles, METRIC_ID_APP_PROFILES_REMOVED, NULL, s->profiles_removed, false);
	for (unsigned int i = 0; i < GATHER_REFUSALS; i++)
		put(c, &s->refused[i], METRIC_ID_APP_REFUSED, gather_refusal_name(i),
		    stats.refused[i], false);
}

void courier_app_close(struct courier *c)
{
	c->gather = gather_free(c->gather);
}
