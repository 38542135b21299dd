/* SPDX-License-Identifier: Apache-2.0 */
/* Requests of the query API: arguments read and refused on the core's thread, the rest is a job. */
#include "cmd/core.h"
#include "cmd/core_query.h"

#include "base/clock.h"
#include "outlet/query_json.h"

#include <errno.h>
#include <stdlib.h>

#define JSON       "application/json"
#define TIMEOUT_NS (8 * NS_PER_S) /* an HTTP answer must be there in 10 */
#define BODY_BYTES (32u << 20)
/* Of an instant without a newer value: agents tell one each tick, and may be late. */
#define LOOKBACKS 3

static void refuse(struct http_response *r, int code, const char *text)
{
	struct core_query_job job = {0};

	strbuf_init(&job.out, BODY_BYTES);
	core_query_fail(&job, code, text);
	strbuf_puts(&r->body, job.out.data ? job.out.data : "");
	strbuf_fini(&job.out);
	r->status = job.status;
	r->content_type = JSON;
}

static uint64_t now_ms(void)
{
	return clock_real_ns() / NS_PER_MS;
}

/* NULL: it was refused. */
static struct core_query_job *job_new(struct core *c, enum core_query_kind kind,
				      struct http_response *r)
{
	struct core_query_job *job;

	if (!c->query) {
		refuse(r, -EAGAIN,
		       c->is_ready ? "no history is kept (fleet.history_bytes), or it "
				     "cannot be read: see the log"
				   : "the log is being replayed");
		return NULL;
	}
	job = calloc(1, sizeof(*job));
	if (!job) {
		refuse(r, -ENOMEM, "no memory");
		return NULL;
	}
	job->kind = kind;
	job->deadline_ns = clock_mono_ns() + TIMEOUT_NS;
	strbuf_init(&job->out, BODY_BYTES);
	return job;
}

static int query_add(struct core_query_job *job, const char *text, struct err *e)
{
	int r;

	if (job->query_count == CORE_QUERY_MATCHES_MAX)
		return err_set(e, -E2BIG, "more than %d of match[]", CORE_QUERY_MATCHES_MAX);
	r = query_parse(text, &job->queries[job->query_count], e);
	job->query_count += r >= 0;
	return r;
}

/* An argument that may be missing. */
static int time_arg(const struct http_request *q, const char *key, uint64_t missing, uint64_t *ret,
		    struct err *e)
{
	const char *text = http_request_arg(q, key);

	*ret = missing;
	if (text && query_time(text, ret) < 0)
		return err_set(e, -EINVAL,
			       "invalid parameter \"%s\": cannot parse \"%.40s\" to a valid "
			       "timestamp",
			       key, text);
	return 0;
}

static int step_arg(const struct http_request *q, uint64_t *ret, struct err *e)
{
	const char *text = http_request_arg(q, "step");

	if (!text || query_duration(text, ret) < 0 || !*ret)
		return err_set(e, -EINVAL,
			       "invalid parameter \"step\": \"%.40s\" is no duration above 0",
			       text ? text : "");
	return 0;
}

static int values_read(struct core *c, struct core_query_job *job, const struct http_request *q,
		       struct err *e)
{
	const char *text = http_request_arg(q, "query");
	uint64_t lookback = LOOKBACKS * c->config->fleet_stale / NS_PER_MS, start, end, step = 0;
	int r = 0;

	if (!text || !*text)
		return err_set(e, -EINVAL, "invalid parameter \"query\": it is missing");
	if (job->is_range) {
		r = time_arg(q, "start", now_ms(), &start, e);
		if (r >= 0)
			r = time_arg(q, "end", now_ms(), &end, e);
		if (r >= 0)
			r = step_arg(q, &step, e);
	} else {
		r = time_arg(q, "time", now_ms(), &start, e);
		end = start;
	}
	if (r >= 0)
		r = query_times_set(start, end, step, lookback, &job->times, e);
	if (r >= 0) {
		r = query_add(job, text, e);
		if (r < 0)
			err_set(e, r, "invalid parameter \"query\"");
	}
	return r;
}

static void values(struct core *c, bool is_range, const struct http_request *q,
		   struct http_response *r)
{
	struct core_query_job *job = job_new(c, CORE_QUERY_VALUES, r);
	struct err e = {{0}};
	int code;

	if (!job)
		return;
	job->is_range = is_range;
	code = values_read(c, job, q, &e);
	if (code >= 0) {
		core_query_submit(c->query, job, r);
		return;
	}
	refuse(r, code, e.text);
	core_query_job_free(job);
}

void core_query_instant(void *data, const struct http_request *q, struct http_response *r)
{
	values(data, false, q, r);
}

void core_query_range(void *data, const struct http_request *q, struct http_response *r)
{
	values(data, true, q, r);
}

/* -------- lists -------- */

static int list_read(struct core *c, struct core_query_job *job, const struct http_request *q,
		     struct err *e)
{
	uint64_t keep_ms = c->config->fleet_history / NS_PER_MS, now = now_ms();
	const char *text;
	int r = time_arg(q, "start", now > keep_ms ? now - keep_ms : 0, &job->from_ms, e);

	if (r >= 0)
		r = time_arg(q, "end", now, &job->to_ms, e);
	for (size_t i = 0; r >= 0 && (text = http_request_arg_at(q, "match[]", i)); i++) {
		r = query_add(job, text, e);
		if (r >= 0 && query_root(job->queries[i])->op != QUERY_SELECT)
			r = err_set(e, -EINVAL, "match[] takes a selector");
		if (r < 0)
			err_set(e, r, "invalid parameter \"match[]\"");
	}
	return r;
}

static void list(struct core *c, enum core_query_kind kind, const char *label,
		 const struct http_request *q, struct http_response *r)
{
	struct core_query_job *job = job_new(c, kind, r);
	struct err e = {{0}};
	int code;

	if (!job)
		return;
	str_copy(job->label, sizeof(job->label), label);
	code = list_read(c, job, q, &e);
	if (code >= 0) {
		core_query_submit(c->query, job, r);
		return;
	}
	refuse(r, code, e.text);
	core_query_job_free(job);
}

void core_query_series(void *data, const struct http_request *q, struct http_response *r)
{
	list(data, CORE_QUERY_SERIES, "", q, r);
}

void core_query_labels(void *data, const struct http_request *q, struct http_response *r)
{
	list(data, CORE_QUERY_LABELS, "", q, r);
}

void core_query_values(void *data, const struct http_request *q, struct http_response *r)
{
	list(data, CORE_QUERY_LABELS, http_request_part(q), q, r);
}

void core_query_metadata(void *data, const struct http_request *q, struct http_response *r)
{
	const char *metric = http_request_arg(q, "metric");

	list(data, CORE_QUERY_METADATA, metric ? metric : "", q, r);
}

void core_query_error(struct http_response *r, const char *text)
{
	const char *type = r->status == 404   ? "not_found"
			   : r->status == 503 ? "unavailable"
			   : r->status >= 500 ? "internal"
					      : "bad_data";

	r->content_type = JSON;
	query_json_error(&r->body, type, text);
}

void core_query_buildinfo(void *data, const struct http_request *q, struct http_response *r)
{
	(void)data;
	(void)q;
	r->content_type = JSON;
	strbuf_puts(&r->body, "{\"status\":\"success\",\"data\":{\"application\":\"tidegate\","
			      "\"version\":\"" TIDEGATE_VERSION "\",\"revision\":\"\","
			      "\"branch\":\"\",\"buildUser\":\"\",\"buildDate\":\"\","
			      "\"goVersion\":\"\"}}\n");
}
