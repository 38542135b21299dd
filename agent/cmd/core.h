/* SPDX-License-Identifier: Apache-2.0 */
/* State of the aggregator's core. Internal to cmd/core*.c. */
#pragma once

#include "base/log.h"
#include "base/loop.h"
#include "bus/gatelink.h"
#include "bus/publisher.h"
#include "config/config.h"
#include "fleet/history.h"
#include "fleet/merge.h"
#include "fleet/shelf.h"
#include "fleet/uplink.h"
#include "outlet/api.h"
#include "outlet/http.h"
#include "scale/threshold.h"

#define CORE_EVENTS 1000

struct core_event {
	uint64_t id, time_ms;
	const char *agent, *kind, *gateway, *json;
	char *text; /* holds the four */
};

struct core_reply {
	struct core_reply *next;
	struct gatelink_handle handle;
	uint8_t *data;
	size_t size;
};

struct core_applied {
	struct core_applied *next;
	uint32_t session;
	struct frame *frame;
};

/* A series of the core's own, for /metrics. */
struct core_row {
	enum metric_id id;
	const char *key, *value; /* one label; NULL: none */
	uint64_t count;
};

struct core_ferry;
struct core_asks;

struct core {
	const struct config *config;
	const struct door_page *door; /* may be NULL */
	struct loop *loop;
	struct loop_watch *commit_timer;
	struct fleet *fleet;
	struct commitlog *log;
	struct uplink uplink;
	const struct passport *from; /* of the request at hand */
	struct log_limit foreign_said, refused_said[UPLINK_REFUSALS];
	struct gatelink_server *gate;
	struct publisher *publisher;
	struct shelf *shelf;
	const char *publishing; /* the agent whose series are on the shelf */
	struct http_server *http;
	struct core_asks *asks;
	struct core_ferry *ferry; /* NULL: no upper aggregator */
	struct history *history;  /* NULL: none is kept */
	struct loop_watch *history_watch;
	struct core_query *query; /* NULL: no history */
	bool is_folding, is_history_failing;
	bool is_ready, is_stuck, is_full, is_waiting;
	unsigned int hellos; /* in this second */
	int exit_code;
	uint64_t departed_ms;
	uint64_t topics_refused, renewed_ms; /* of the publisher, when it began anew */
	/* Wait for the commit. */
	struct core_reply *replies, **replies_end;
	struct core_applied *applied, **applied_end;
	struct core_event events[CORE_EVENTS]; /* a ring */
	uint64_t event_count;
};

/* Commits, then sends what waited for it. */
int core_commit(struct core *c);
/* What the gate brings; data is the core. */
void core_request(void *data, const struct gatelink_handle *handle, const struct passport *from,
		  const uint8_t *payload, size_t size);

/* core_history.c */
void core_history_open(struct core *c);
void core_history_close(struct core *c);
/* What goes wrong is said; a fold that could not be done is tried again. */
void core_history_second(struct core *c);
/* A record of the commit log; data is the core. */
int core_replay(void *data, uint32_t type, const uint8_t *payload, size_t size);
void core_on_sealed(void *data, uint32_t session, const struct frame *frame, const uint8_t *sealed,
		    size_t size);
/* When the history has what the log holds; at once, or beside other work. Needs no pending
 * records. */
void core_fold(struct core *c);
void core_fold_begin(struct core *c);
#define CORE_HISTORY_ROWS 14
/* How many of them there are. */
size_t core_history_rows(const struct core *c, struct core_row rows[CORE_HISTORY_ROWS]);

/* core_http.c */
int core_http_open(struct core *c, struct err *e);

/* core_scale.c: the decision as it is now, its texts within; and its message of this second */
struct core_signal {
	struct api_signal api;
	struct scale_decision decision;
	struct err error;
};
void core_signal_read(struct core *c, struct core_signal *ret);
void core_signal_publish(struct core *c, uint64_t now_ms);

/* core_snapshot.c: for the log, and for subscribers */
int core_save(void *data, struct commitlog_writer *writer);
/* Borrowed until the publisher's next message. Needs fleet, publisher and config alone. */
int core_snapshot_answer(struct core *c, const uint8_t *payload, size_t size, const uint8_t **ret,
			 size_t *ret_size);
/* Nothing may wait to be published: the series must be those of the sequences. Says so when the log
 * is stuck. Of a request that is too long only the size is read. */
void core_snapshot_reply(struct core *c, const struct gatelink_handle *handle,
			 const uint8_t *payload, size_t size);

/* core_asks.c: requests for snapshots wait until agents leave time for them */
int core_asks_open(struct core *c);
void core_asks_close(struct core *c);
/* Copies the payload. */
void core_asks_add(struct core *c, const struct gatelink_handle *handle, const uint8_t *payload,
		   size_t size);
/* After a commit, also one that failed: answers one, when it is time. */
void core_asks_serve(struct core *c);
/* Had no room, or waited too long. */
uint64_t core_asks_dropped(const struct core *c);

/* core_ferry.c: sums for upper aggregators; nothing without uplink.aggregators */
#define CORE_FERRY_ROWS 16
int core_ferry_open(struct core *c, struct err *e);
void core_ferry_close(struct core *c);
size_t core_ferry_rows(const struct core *c, struct core_row rows[CORE_FERRY_ROWS]);
