/* SPDX-License-Identifier: Apache-2.0 */
/* Answers in the making. One step of one of them each millisecond, in turn: whatever else the loop
 * has to do waits for one step at most. Owns the jobs; the connections are libmicrohttpd's. */
#include "outlet/http_jobs.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdlib.h>

#define PAUSE_MS 1

struct http_job {
	struct MHD_Connection *connection; /* NULL: free */
	struct http_response response;
	bool is_done;
};

struct http_jobs {
	struct loop_watch *timer;
	void (*pump)(void *data);
	void *data;
	unsigned int next, max;
	struct http_job jobs[HTTP_JOBS_ROOM];
};

static void finish(struct http_job *j)
{
	j->is_done = true;
	j->response.drop(j->response.job);
	MHD_resume_connection(j->connection);
}

static void on_timer(void *data)
{
	struct http_jobs *jobs = data;
	bool is_any_done = false, is_any_left = false;

	for (unsigned int i = 0; i < HTTP_JOBS_ROOM; i++) {
		struct http_job *j = &jobs->jobs[(jobs->next + i) % HTTP_JOBS_ROOM];

		if (!j->connection || j->is_done)
			continue;
		if (j->response.step(j->response.job, &j->response) == 0) {
			finish(j);
			is_any_done = true;
		}
		break;
	}
	jobs->next++;
	for (unsigned int i = 0; i < HTTP_JOBS_ROOM; i++)
		is_any_left |= jobs->jobs[i].connection && !jobs->jobs[i].is_done;
	if (is_any_left)
		loop_set_timer(jobs->timer, PAUSE_MS, 0);
	if (is_any_done)
		jobs->pump(jobs->data);
}

int http_jobs_new(struct loop *loop, void (*pump)(void *data), void *data, struct http_jobs **ret)
{
	struct http_jobs *jobs = calloc(1, sizeof(*jobs));
	int r;

	if (!jobs)
		return -ENOMEM;
	jobs->max = HTTP_JOBS_MAX;
	jobs->pump = pump;
	jobs->data = data;
	r = loop_add_timer(loop, PAUSE_MS, 0, on_timer, jobs, &jobs->timer);
	if (r < 0) {
		free(jobs);
		return r;
	}
	*ret = jobs;
	return 0;
}

void http_jobs_stop(struct http_jobs *jobs)
{
	for (unsigned int i = 0; jobs && i < HTTP_JOBS_ROOM; i++)
		if (jobs->jobs[i].connection && !jobs->jobs[i].is_done)
			finish(&jobs->jobs[i]);
}

struct http_jobs *http_jobs_free(struct http_jobs *jobs)
{
	if (!jobs)
		return NULL;
	loop_remove(jobs->timer);
	for (unsigned int i = 0; i < HTTP_JOBS_ROOM; i++)
		strbuf_fini(&jobs->jobs[i].response.body);
	free(jobs);
	return NULL;
}

void *http_jobs_add(struct http_jobs *jobs, struct MHD_Connection *connection,
		    struct http_response *r)
{
	for (unsigned int i = 0; i < jobs->max; i++) {
		struct http_job *j = &jobs->jobs[i];

		if (j->connection)
			continue;
		*j = (struct http_job){.connection = connection, .response = *r};
		MHD_suspend_connection(connection);
		loop_set_timer(jobs->timer, PAUSE_MS, 0);
		return j;
	}
	return NULL;
}

static struct http_job *job_of(struct http_jobs *jobs, void *context)
{
	for (unsigned int i = 0; jobs && i < HTTP_JOBS_ROOM; i++)
		if (context == &jobs->jobs[i])
			return &jobs->jobs[i];
	return NULL;
}

struct http_response *http_jobs_answer(struct http_jobs *jobs, void *context)
{
	struct http_job *j = job_of(jobs, context);

	return j && j->is_done ? &j->response : NULL;
}

void http_jobs_remove(struct http_jobs *jobs, void *context)
{
	struct http_job *j = job_of(jobs, context);

	if (!j)
		return;
	if (!j->is_done)
		j->response.drop(j->response.job);
	strbuf_fini(&j->response.body);
	*j = (struct http_job){0};
}

void http_jobs_set_max(struct http_jobs *jobs, unsigned int max)
{
	jobs->max = max < HTTP_JOBS_ROOM ? max : HTTP_JOBS_ROOM;
}

unsigned int http_jobs_max(const struct http_jobs *jobs)
{
	return jobs->max;
}
