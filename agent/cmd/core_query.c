/* SPDX-License-Identifier: Apache-2.0 */
/* The thread that answers queries, and the jobs that wait for it. */
#include "cmd/core_query.h"

#include "base/clock.h"
#include "outlet/query_json.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

struct core_query {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t work;
	struct core_query_job *first, **end;
	bool is_stopping;
	struct history_reader *reader;
};

struct core_query_job *core_query_job_free(struct core_query_job *job)
{
	if (!job)
		return NULL;
	for (unsigned int i = 0; i < job->query_count; i++)
		query_free(job->queries[i]);
	strbuf_fini(&job->out);
	free(job);
	return NULL;
}

void core_query_fail(struct core_query_job *job, int r, const char *text)
{
	const char *type = "internal";

	job->status = 500;
	if (r == -EINVAL || r == -E2BIG || r == -ERANGE) {
		type = job->is_running ? "execution" : "bad_data";
		job->status = job->is_running ? 422 : 400;
	} else if (r == -ETIMEDOUT) {
		type = "timeout";
		job->status = 503;
	} else if (r == -EAGAIN) {
		type = "unavailable";
		job->status = 503;
	}
	strbuf_reset(&job->out);
	query_json_error(&job->out, type, text && *text ? text : err_text(r));
}

bool core_query_is_over(void *data)
{
	struct core_query_job *job = data;
	bool is_dropped;

	pthread_mutex_lock(&job->owner->lock);
	is_dropped = job->is_dropped || job->owner->is_stopping;
	pthread_mutex_unlock(&job->owner->lock);
	return is_dropped || clock_mono_ns() > job->deadline_ns;
}

static void *run(void *data)
{
	struct core_query *q = data;

	pthread_mutex_lock(&q->lock);
	while (!q->is_stopping) {
		struct core_query_job *job = q->first;

		if (!job) {
			pthread_cond_wait(&q->work, &q->lock);
			continue;
		}
		q->first = job->next;
		if (!q->first)
			q->end = &q->first;
		job->is_running = true;
		pthread_mutex_unlock(&q->lock);
		if (!core_query_is_over(job))
			core_query_answer(q->reader, job);
		else
			core_query_fail(job, -ETIMEDOUT, "others took too long; try again");
		pthread_mutex_lock(&q->lock);
		job->is_done = true;
		if (job->is_dropped)
			core_query_job_free(job);
	}
	pthread_mutex_unlock(&q->lock);
	return NULL;
}

int core_query_open(const char *path, struct history *history, struct core_query **ret,
		    struct err *e)
{
	struct core_query *q = calloc(1, sizeof(*q));
	int r;

	if (!q)
		return err_set(e, -ENOMEM, "query: no memory");
	q->end = &q->first;
	r = history_reader_open(path, history, &q->reader, e);
	if (r < 0) {
		free(q);
		return r;
	}
	pthread_mutex_init(&q->lock, NULL);
	pthread_cond_init(&q->work, NULL);
	r = -pthread_create(&q->thread, NULL, run, q);
	if (r < 0) {
		history_reader_close(q->reader);
		free(q);
		return err_set(e, r, "query: %s", err_text(r));
	}
	*ret = q;
	return 0;
}

struct core_query *core_query_close(struct core_query *q)
{
	if (!q)
		return NULL;
	pthread_mutex_lock(&q->lock);
	q->is_stopping = true;
	pthread_cond_signal(&q->work);
	pthread_mutex_unlock(&q->lock);
	pthread_join(q->thread, NULL);
	while (q->first) {
		struct core_query_job *job = q->first;

		q->first = job->next;
		core_query_job_free(job);
	}
	history_reader_close(q->reader);
	pthread_mutex_destroy(&q->lock);
	pthread_cond_destroy(&q->work);
	free(q);
	return NULL;
}

/* -------- the core's thread -------- */

/* The thread may be held up where nobody asks for the time: the answer does not wait for it. */
static int step(void *data, struct http_response *r)
{
	struct core_query_job *job = data;
	bool is_done;

	pthread_mutex_lock(&job->owner->lock);
	is_done = job->is_done;
	pthread_mutex_unlock(&job->owner->lock);
	if (!is_done && clock_mono_ns() <= job->deadline_ns)
		return 1;
	if (!is_done) {
		r->status = 503;
		query_json_error(&r->body, "timeout", "it takes too long; ask for less");
		return 0;
	}
	strbuf_fini(&r->body);
	r->body = job->out;
	job->out = (struct strbuf){0};
	r->status = job->status;
	return 0;
}

/* False: the thread has it. */
static bool unlink_job(struct core_query *q, struct core_query_job *job)
{
	for (struct core_query_job **at = &q->first; *at; at = &(*at)->next) {
		if (*at != job)
			continue;
		*at = job->next;
		if (!*at)
			q->end = at;
		return true;
	}
	return false;
}

static void drop(void *data)
{
	struct core_query_job *job = data;
	struct core_query *q = job->owner;
	bool is_mine;

	pthread_mutex_lock(&q->lock);
	job->is_dropped = true;
	is_mine = job->is_done || unlink_job(q, job);
	pthread_mutex_unlock(&q->lock);
	/* Else the thread has it in hand, sees that nobody waits, and frees it. */
	if (is_mine)
		core_query_job_free(job);
}

void core_query_submit(struct core_query *q, struct core_query_job *job, struct http_response *r)
{
	job->owner = q;
	job->status = 200;
	r->content_type = "application/json";
	r->step = step;
	r->drop = drop;
	r->job = job;
	pthread_mutex_lock(&q->lock);
	*q->end = job;
	q->end = &job->next;
	pthread_cond_signal(&q->work);
	pthread_mutex_unlock(&q->lock);
}
