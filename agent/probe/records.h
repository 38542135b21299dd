/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What programs tell the keeper one by one, through ring buffers: slow requests, and that a process
 * which is not watched is about to listen. They are
 * pinned with the rest; what is not fetched waits in it, what finds no room is counted by the
 * programs (LOST_RECORDS).
 */
#pragma once

#include "probe/probe.h"

#define PROBE_METHOD_BYTES 24
#define PROBE_TRACE_CHARS  55 /* W3C traceparent, version 00 */

struct probe_slow {
	unsigned int gateway;
	unsigned int code; /* 0: the request ended without an answer */
	bool is_health, is_upstream, is_tls, is_http2;
	bool is_cut; /* the path went on */
	uint64_t end_mono_ns, duration_ns;
	uint64_t first_byte_ns; /* 0 without an answer */
	char method[PROBE_METHOD_BYTES];
	char path[3 * PATH_BYTES + 1];           /* printable ASCII, the rest as %XX; "" unknown */
	char traceparent[PROBE_TRACE_CHARS + 1]; /* "" none, or not of that form */
};

/* Pure. The query may hold secrets: only with is_query_wanted it stays. */
void probe_slow_read(const struct record *r, bool is_query_wanted, struct probe_slow *ret);

/* Calls fn for at most `most` slow requests, oldest first; the others wait. */
typedef void (*probe_slow_fn)(void *data, const struct probe_slow *slow);
unsigned int probe_slow_each(struct probe_set *set, unsigned int most, probe_slow_fn fn,
			     void *data);
/* Slow requests that the caller could not pass on: counted as lost. */
void probe_slow_refuse(struct probe_set *set, unsigned int n);

/* Readable when a process that is not watched has called listen(): gateways are worth a scan soon.
 * The set's. probe_notices takes them all back; true when there were any. */
int probe_notice_fd(const struct probe_set *set);
bool probe_notices(struct probe_set *set);
