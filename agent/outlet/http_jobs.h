/* SPDX-License-Identifier: Apache-2.0 */
/* Answers in the making: connections that wait for one, and a timer that makes them. http.c's. */
#pragma once

#include "outlet/http.h"

struct http_jobs;
struct MHD_Connection;

/* pump(data): something is to be sent. */
int http_jobs_new(struct loop *loop, void (*pump)(void *data), void *data, struct http_jobs **ret);
/* Ends all jobs and lets their connections go on; before the server is stopped. */
void http_jobs_stop(struct http_jobs *jobs);
/* After it was stopped. NULL is fine. */
struct http_jobs *http_jobs_free(struct http_jobs *jobs);

/* Takes the answer and suspends the connection. NULL: as many as may be are under way. */
void *http_jobs_add(struct http_jobs *jobs, struct MHD_Connection *connection,
		    struct http_response *r);
/* The answer of what http_jobs_add gave, now the caller's; NULL when it is none of ours. */
struct http_response *http_jobs_answer(struct http_jobs *jobs, void *context);
/* The connection is through with it, or gone. */
void http_jobs_remove(struct http_jobs *jobs, void *context);
void http_jobs_set_max(struct http_jobs *jobs, unsigned int max);
unsigned int http_jobs_max(const struct http_jobs *jobs);
