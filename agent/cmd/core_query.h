/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Queries of stored history over HTTP, in Prometheus's shape. Requests are read on the core's
 * thread and answered by one of their own, in turn, which has its own connection to the history.
 */
#pragma once

#include "fleet/history_read.h"
#include "outlet/http.h"
#include "outlet/query_eval.h"

#define CORE_QUERIES_MAX 24 /* that wait or are made; one more is 503 */

struct core_query;

int core_query_open(const char *path, struct history *history, struct core_query **ret,
		    struct err *e);
/* After the HTTP server. */
struct core_query *core_query_close(struct core_query *q);

/* Routes; data is the core. */
void core_query_instant(void *data, const struct http_request *q, struct http_response *r);
void core_query_range(void *data, const struct http_request *q, struct http_response *r);
void core_query_series(void *data, const struct http_request *q, struct http_response *r);
void core_query_labels(void *data, const struct http_request *q, struct http_response *r);
void core_query_values(void *data, const struct http_request *q, struct http_response *r);
void core_query_metadata(void *data, const struct http_request *q, struct http_response *r);
/* What the HTTP server itself refuses there. */
void core_query_error(struct http_response *r, const char *text);
void core_query_buildinfo(void *data, const struct http_request *q, struct http_response *r);

/* -------- between core_query.c (the thread) and core_query_api.c (requests) -------- */

#define CORE_QUERY_MATCHES_MAX 16
#define CORE_QUERY_NAMES_MAX   100000u /* series, labels or values of one list */

enum core_query_kind {
	CORE_QUERY_VALUES,   /* of an expression */
	CORE_QUERY_SERIES,   /* label sets */
	CORE_QUERY_LABELS,   /* names of labels, or the values of `label` */
	CORE_QUERY_METADATA, /* of metrics */
};

struct core_query_job {
	struct core_query_job *next;
	struct core_query *owner;
	enum core_query_kind kind;
	struct query *queries[CORE_QUERY_MATCHES_MAX]; /* the expression, or selectors */
	unsigned int query_count;
	struct query_times times;
	bool is_range;
	uint64_t from_ms, to_ms; /* of lists */
	char label[256];         /* "": their names */
	uint64_t deadline_ns;
	/* the answer */
	unsigned int status;
	struct strbuf out;
	/* under the owner's lock */
	bool is_dropped, is_done, is_running;
};

/* What the job says; on the thread. */
void core_query_answer(struct history_reader *reader, struct core_query_job *job);
/* Fills the answer with an error in Prometheus's shape. */
void core_query_fail(struct core_query_job *job, int r, const char *text);
/* Whether nobody waits any more, or it took too long. */
bool core_query_is_over(void *job);

struct core_query_job *core_query_job_free(struct core_query_job *job);
/* Takes the job. */
void core_query_submit(struct core_query *q, struct core_query_job *job, struct http_response *r);
