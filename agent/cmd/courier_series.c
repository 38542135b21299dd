/* SPDX-License-Identifier: Apache-2.0 */
/* The courier's own series, in app.seg: from there they travel like all others. */
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "cmd/courier_state.h"

#include <string.h>
#include <sys/random.h>

static const char *const frame_states[] = {"built", "sent", "acknowledged"};

/* Names and labels of our own, and about as much as a script's series needs. */
#define OWN_SERIES  128
#define OWN_HEAP    (64u << 10)
#define HEAP_SERIES 96

static int series_labelled(struct courier *c, enum metric_id id, const char *key, const char *value)
{
	const char *const labels[1][2] = {{key, value}};

	return segment_writer_series(c->writer, &metric_descs[id], labels, key ? 1 : 0);
}

/* The supervisor counts restarts for as long as it lives; what it had counted when we began was
 * written by the courier before us, except that this one is gone. */
static void restarts_begin(struct courier *c)
{
	const struct daemon_counts *counts = c->ctx->counts;

	for (unsigned int i = 0; i < COURIER_PROCESSES_MAX; i++) {
		c->series.restarts[i] = -1;
		if (!counts || !c->ctx->restarts)
			continue;
		c->restarts_before[i] = counts->process[i].restarts;
		if (c->restarts_before[i] && strncmp(counts->process[i].name, c->ctx->name,
						     sizeof(counts->process[i].name)) == 0)
			c->restarts_before[i]--;
	}
}

/* Processes have their names once the supervisor started them. */
static void restarts_name(struct courier *c)
{
	const struct daemon_counts *counts = c->ctx->counts;

	for (unsigned int i = 0; counts && i < COURIER_PROCESSES_MAX; i++) {
		char name[sizeof(counts->process[i].name) + 1] = "";

		memcpy(name, counts->process[i].name, sizeof(counts->process[i].name));
		if (*name && c->series.restarts[i] < 0)
			c->series.restarts[i] =
				series_labelled(c, METRIC_ID_PROCESS_RESTARTS, "process", name);
	}
}

void courier_series_open(struct courier *c)
{
	const struct segment_options options = {
		.path = c->app_path,
		.kind = SEGMENT_APP,
		.group = c->ctx->group_app,
		.series = OWN_SERIES + (uint32_t)c->ctx->config->app_series,
		.histograms = (uint32_t)c->ctx->config->app_histograms,
		.heap_bytes = OWN_HEAP + c->ctx->config->app_series * HEAP_SERIES,
	};
	struct courier_series *s = &c->series;
	struct err e = {0};
	uint64_t maps_id = 0;
	bool continued;

	if (segment_writer_open(&options, &c->writer, &continued, &e) < 0) {
		log_warning("courier", "own series are not shown", "error=\"%s\"", e.text);
		c->writer = NULL;
		return;
	}
	if (continued && !spool_is_continued(c->dispatch.spool) &&
	    segment_writer_restart(c->writer, &e) < 0)
		log_error("courier", "totals of scripts are in two incarnations", "error=\"%s\"",
			  e.text);
	/* Our counters begin at 0, what the courier before us counted becomes their base. */
	if (getrandom(&maps_id, sizeof(maps_id), 0) != sizeof(maps_id))
		maps_id = clock_mono_ns();
	segment_writer_rebase(c->writer, maps_id);
	s->spool_bytes = series_labelled(c, METRIC_ID_SPOOL_BYTES, NULL, NULL);
	for (size_t i = 0; i < SPOOL_DROPS; i++)
		s->dropped[i] = series_labelled(c, METRIC_ID_SPOOL_DROPPED, "reason",
						spool_drop_reasons[i]);
	for (size_t i = 0; i < ARRAY_LEN(frame_states); i++)
		s->frames[i] = series_labelled(c, METRIC_ID_FRAMES, "state", frame_states[i]);
	s->frame_bytes = series_labelled(c, METRIC_ID_FRAME_BYTES, NULL, NULL);
	s->frame_samples = series_labelled(c, METRIC_ID_FRAME_SAMPLES, NULL, NULL);
	s->events_dropped = series_labelled(c, METRIC_ID_EVENTS_DROPPED, NULL, NULL);
	for (size_t i = 0; i < DISPATCH_LINES; i++)
		s->lines[i] = series_labelled(c, METRIC_ID_UPLINK_CONNECTIONS, "state",
					      dispatch_line_states[i]);
	s->timeouts = series_labelled(c, METRIC_ID_UPLINK_TIMEOUTS, NULL, NULL);
	for (size_t i = 0; i < ARRAY_LEN(s->tls_loads); i++)
		s->tls_loads[i] = series_labelled(c, METRIC_ID_UPLINK_CERTIFICATE_LOADS, "state",
						  i ? "failed" : "done");
	s->tls_lived = series_labelled(c, METRIC_ID_UPLINK_CERTIFICATE_LIVED, NULL, NULL);
	restarts_begin(c);
}

void courier_series_write(struct courier *c, uint64_t mono_ns, uint64_t real_ns)
{
	const struct courier_series *s = &c->series;
	const struct daemon_counts *counts = c->ctx->counts;
	struct dispatch_counts d;

	if (!c->writer)
		return;
	dispatch_counts(&c->dispatch, &d);
	restarts_name(c);
	segment_writer_tick_begin(c->writer);
	segment_writer_gauge(c->writer, s->spool_bytes, (double)d.pending_bytes);
	for (size_t i = 0; i < SPOOL_DROPS; i++)
		segment_writer_counter(c->writer, s->dropped[i], d.drops[i]);
	segment_writer_counter(c->writer, s->frames[0], c->counts.frames_built);
	segment_writer_counter(c->writer, s->frames[1], d.sent);
	segment_writer_counter(c->writer, s->frames[2], d.acknowledged);
	segment_writer_counter(c->writer, s->frame_bytes, c->counts.frame_bytes);
	segment_writer_counter(c->writer, s->frame_samples, c->counts.frame_samples);
	segment_writer_counter(c->writer, s->events_dropped, c->counts.events_dropped);
	for (size_t i = 0; i < DISPATCH_LINES; i++)
		segment_writer_counter(c->writer, s->lines[i], d.lines[i]);
	segment_writer_counter(c->writer, s->timeouts, d.timeouts);
	segment_writer_counter(c->writer, s->tls_loads[0], d.tls_loads);
	segment_writer_counter(c->writer, s->tls_loads[1], d.tls_failures);
	if (d.has_tls)
		segment_writer_gauge(c->writer, s->tls_lived, d.tls_lived_ratio);
	else
		segment_writer_absent(c->writer, s->tls_lived);
	for (unsigned int i = 0; counts && i < COURIER_PROCESSES_MAX; i++)
		segment_writer_counter(c->writer, s->restarts[i],
				       counts->process[i].restarts - c->restarts_before[i]);
	courier_app_write(c);
	segment_writer_tick_end(c->writer, mono_ns, real_ns, c->interval_ns);
	spool_told(c->dispatch.spool);
}
