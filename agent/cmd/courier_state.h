/* SPDX-License-Identifier: Apache-2.0 */
/* The courier's own structs: what courier*.c share. */
#pragma once

#include "bus/fanout.h"
#include "bus/frame.h"
#include "bus/publisher.h"
#include "cmd/daemon.h"
#include "cmd/dispatch.h"
#include "fleet/shelf.h"
#include "outlet/http.h"
#include "segment/gather.h"
#include "segment/reader.h"
#include "segment/writer.h"

#define COURIER_PROCESSES_MAX 8

struct courier_event {
	uint64_t time_ms;
	char *kind, *gateway, *json;
};

struct courier_counts {
	uint64_t frames_built, frame_bytes, frame_samples, events_dropped;
};

/* Indexes of the courier's own series in app.seg; negative: refused. */
struct courier_series {
	int spool_bytes, dropped[SPOOL_DROPS], frames[3], frame_bytes, frame_samples,
		events_dropped;
	int lines[DISPATCH_LINES], timeouts, tls_loads[2], tls_lived;
	int restarts[COURIER_PROCESSES_MAX];
};

/* Index + 1 of what is told of gateway scripts; 0: not yet. */
struct courier_app_series {
	int processes, folded, profiles, refused[GATHER_REFUSALS];
	uint64_t swept_ns, profiles_removed;
};

struct courier {
	struct daemon_context *ctx;
	struct loop *loop;
	char host_path[256], app_path[256];
	struct segment_reader *host, *app; /* NULL while there is no such file */
	struct segment_writer *writer;     /* app.seg; NULL: own series are absent */
	struct courier_series series;
	struct gather *gather; /* NULL: without app.seg */
	struct courier_app_series app_series;
	struct courier_counts counts;
	uint64_t restarts_before[COURIER_PROCESSES_MAX]; /* already in the base of app.seg */
	struct dispatch dispatch;
	struct frame_encoder *encoder;
	struct http_server *http;
	struct publisher *publisher;
	struct shelf *shelf;
	struct fanout *fanout;
	struct loop_watch *tick_timer, *supervisor_watch, *link_watches[2];
	struct courier_event events[FRAME_EVENTS_MAX];
	unsigned int event_count;
	uint64_t events_refused; /* since the last frame */
	uint64_t key_ns;         /* of the last key frame, CLOCK_MONOTONIC */
	uint64_t beacon_ns;
	uint64_t interval_ns; /* of the tick now */
	uint64_t keeper_ns;   /* when it last said that it ticked, CLOCK_MONOTONIC */
	uint64_t end_ns;      /* when ending: give up then; 0: not ending */
	bool needs_key;
	char packet[DAEMON_LINK_BYTES];
};

/* -------- courier_series.c -------- */

/* Makes or continues app.seg; failure is logged and survived. */
void courier_series_open(struct courier *c);
void courier_series_write(struct courier *c, uint64_t mono_ns, uint64_t real_ns);

/* -------- courier_app.c: what gateway scripts tell -------- */

void courier_app_open(struct courier *c);
void courier_app_close(struct courier *c);
/* Outside of a tick of app.seg, and inside of it. */
void courier_app_collect(struct courier *c, uint64_t now_ns);
void courier_app_write(struct courier *c);

/* -------- courier_outlets.c: what others read of us -------- */

void courier_outlets_open(struct courier *c);
void courier_outlets_close(struct courier *c);
/* Publishes the series of this tick and its events on the agent's own bus. */
void courier_publish(struct courier *c, uint64_t time_ms, uint64_t first_event_id);

/* -------- courier.c -------- */

/* The newest copy of host.seg, as good as it can be had; that of app.seg is of our own tick. */
void courier_refresh_host(struct courier *c);
/* Whether the keeper lives; else what host.seg says is old and is not repeated. */
bool courier_host_is_fresh(const struct courier *c, uint64_t now_ns);
