/* SPDX-License-Identifier: Apache-2.0 */
/* Spool and uplinks of one process, and their lines in the log. */
#include "cmd/dispatch.h"

#include "base/clock.h"
#include "base/endpoint.h"

#include <errno.h>
#include <inttypes.h>

#define FLUSH_INTERVAL_NS   (5 * NS_PER_S) /* of cursors: losing them only means sending again */
#define REFUSAL_INTERVAL_NS (60 * NS_PER_S)

const char *const dispatch_line_states[DISPATCH_LINES] = {"new", "resumed", "failed"};

int dispatch_check(const struct config *config, struct err *e)
{
	bool has_tls;
	int r = tls_files_check(config, &has_tls, e);

	for (size_t i = 0; r == 0 && i < config->uplink_aggregators.count; i++) {
		const char *address = config->uplink_aggregators.items[i];
		struct endpoint ep;

		r = endpoint_parse(address, &ep, e);
		if (r == 0)
			r = endpoint_check_privacy(&ep, address, e);
		if (r == 0 && ep.is_tls && !has_tls)
			r = err_set(e, -EINVAL,
				    "%.200s: needs a certificate; set tls.ca_file, tls.cert_file "
				    "and tls.key_file",
				    address);
	}
	return r == -EPERM ? -EINVAL : r;
}

/* -------- what uplinks tell -------- */

static void on_lost(void *data, const char *address, const char *why)
{
	const struct dispatch *d = data;

	log_warning(d->process, "aggregator is away, frames are spooled", "address=%s why=\"%s\"",
		    address, why);
}

static void on_still_lost(void *data, const char *address, const char *why)
{
	const struct dispatch *d = data;

	log_warning(d->process, "aggregator is still away", "address=%s why=\"%s\"", address, why);
}

static void on_returned(void *data, const char *address, uint64_t pending_frames)
{
	const struct dispatch *d = data;

	log_info(d->process, "aggregator is back", "address=%s frames_waiting=%" PRIu64, address,
		 pending_frames);
}

static void on_refused(void *data, const char *address, const char *why)
{
	struct dispatch *d = data;
	uint64_t suppressed;

	if (log_allowed(&d->refusals, clock_mono_ns(), &suppressed))
		log_error(d->process, "aggregator refuses this agent",
			  "address=%s why=\"%s\" suppressed=%" PRIu64, address, why, suppressed);
}

static void on_need_key(void *data, const char *address)
{
	const struct dispatch *d = data;

	log_debug(d->process, "aggregator needs a key frame", "address=%s", address);
	d->on_need_key(d->data);
}

static void on_tls_change(void *data)
{
	struct dispatch *d = data;

	for (unsigned int i = 0; i < d->uplink_count; i++)
		uplink_renew(d->uplinks[i]);
}

/* -------- life -------- */

int dispatch_open(struct dispatch *d, const struct dispatch_options *options)
{
	const struct config *config = options->config;
	const struct spool_options spool = {
		.dir = config->spool_dir,
		.bytes = config->spool_bytes,
		.age_ns = config->spool_age,
		.twin_dir = options->twin_dir,
		.life = options->life,
	};
	struct spool_stats stats;
	struct err e = {0};
	int r;

	*d = (struct dispatch){
		.process = options->process,
		.on_need_key = options->on_need_key,
		.data = options->data,
		.refusals.interval_ns = REFUSAL_INTERVAL_NS,
	};
	d->events = (struct uplink_events){on_lost,    on_still_lost, on_returned,
					   on_refused, on_need_key,   d};
	r = spool_open(&spool, &d->spool, &e);
	if (r < 0)
		return r;
	if (r > 0) {
		d->is_disk_failing = true;
		log_error(d->process, "no spool on disk: frames are kept in memory alone",
			  "error=\"%s\"", e.text);
	}
	spool_stats(d->spool, &stats);
	if (stats.bad_files || stats.damaged_places)
		log_warning(d->process, "the spool was damaged",
			    "bad_files=%" PRIu64 " damaged=%" PRIu64, stats.bad_files,
			    stats.damaged_places);
	return 0;
}

void dispatch_connect(struct dispatch *d, struct loop *loop, const struct config *config,
		      const struct uplink_options *hello)
{
	tls_files_open(&d->tls, loop, config, d->process, on_tls_change, d);
	for (size_t i = 0; i < config->uplink_aggregators.count; i++) {
		const struct uplink_options options = {
			.address = config->uplink_aggregators.items[i],
			.agent = hello->agent,
			.labels = hello->labels,
			.label_count = hello->label_count,
			.is_sum = hello->is_sum,
			.backoff_ns = config->uplink_backoff,
			.tls = &d->tls.credentials,
			.events = d->events,
		};
		struct err e = {0};

		if (d->uplink_count == DISPATCH_UPLINKS_MAX ||
		    uplink_open(loop, d->spool, &options, &d->uplinks[d->uplink_count], &e) < 0)
			log_error(d->process, "aggregator is left out", "address=%s error=\"%s\"",
				  options.address, e.text);
		else
			d->uplink_count++;
	}
}

void dispatch_close(struct dispatch *d)
{
	if (d->spool)
		spool_flush(d->spool);
	for (unsigned int i = 0; i < d->uplink_count; i++)
		uplink_close(d->uplinks[i]);
	d->uplink_count = 0;
	tls_files_close(&d->tls);
	d->spool = spool_close(d->spool);
}

/* -------- frames -------- */

int dispatch_append(struct dispatch *d, uint32_t next_id, uint64_t time_ms, const uint8_t *data,
		    size_t size)
{
	struct err e = {0};
	int r;

	spool_reserve_ids(d->spool, next_id);
	r = spool_append(d->spool, time_ms, data, size, &e);
	if (r && !d->is_disk_failing)
		log_error(d->process, "the spool's disk fails", "error=\"%s\"", e.text);
	else if (!r && d->is_disk_failing)
		log_info(d->process, "the spool's disk works again", "%s", "");
	d->is_disk_failing = r != 0;
	return r;
}

bool dispatch_kick(struct dispatch *d, uint64_t now_ns)
{
	for (unsigned int i = 0; i < d->uplink_count; i++)
		uplink_kick(d->uplinks[i]);
	if (now_ns - d->flush_ns < FLUSH_INTERVAL_NS)
		return false;
	d->flush_ns = now_ns;
	spool_flush(d->spool);
	return true;
}

bool dispatch_is_done(const struct dispatch *d)
{
	for (unsigned int i = 0; i < d->uplink_count; i++) {
		uint64_t frames;

		uplink_pending(d->uplinks[i], &frames);
		if (frames)
			return false;
	}
	return true;
}

void dispatch_counts(const struct dispatch *d, struct dispatch_counts *ret)
{
	struct spool_stats st;

	spool_stats(d->spool, &st);
	*ret = (struct dispatch_counts){
		.drops = {st.dropped_bytes, st.dropped_age, st.dropped_memory, st.dropped_damaged,
			  st.dropped_lost, st.dropped_refused, st.dropped_unknown},
	};
	ret->tls_loads = tls_files_loads(&d->tls, &ret->tls_failures);
	ret->has_tls = d->tls.credentials != NULL;
	if (ret->has_tls)
		ret->tls_lived_ratio = tls_files_lived_ratio(&d->tls);
	for (unsigned int i = 0; i < d->uplink_count; i++) {
		uint64_t bytes = uplink_pending(d->uplinks[i], NULL);
		struct uplink_stats u;

		uplink_stats(d->uplinks[i], &u);
		ret->sent += u.frames_sent;
		ret->acknowledged += u.frames_acknowledged;
		ret->lines[0] += u.connects - u.resumed;
		ret->lines[1] += u.resumed;
		ret->lines[2] += u.failures;
		ret->timeouts += u.timeouts;
		if (bytes > ret->pending_bytes)
			ret->pending_bytes = bytes;
	}
}
