/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP server on one event loop, for reading only: GET and HEAD (and POST of a form, where a route
 * takes arguments so), loopback only (TLS is needed for anything else). A service: routes come from
 * whoever opens it.
 */
#pragma once

#include "base/err.h"
#include "base/loop.h"
#include "base/str.h"

#define HTTP_CONNECTIONS_MAX 64
#define HTTP_DEADLINE_MS \
	10000 /* for a header to arrive; then anew for the rest of it and its answer */
#define HTTP_HEADER_BYTES (32 << 10)  /* per connection, headers and arguments */
#define HTTP_BODY_BYTES   (64u << 20) /* limit of an answer */
#define HTTP_JOBS_MAX     4           /* answers in the making; one more is 503 */
#define HTTP_JOBS_ROOM    32          /* of them at most, see http_server_set_jobs */
#define HTTP_FORM_BYTES   (32u << 10) /* of a POST */

struct http_server;
struct http_request;

/* Comes as status 200, text/plain and an empty body; a body that outgrew its limit becomes 500. */
struct http_response {
	unsigned int status;
	const char *content_type; /* borrowed until the handler's caller returns: a literal */
	struct strbuf body;
	/* For an answer that would hold up the loop: where a handler sets step, it is called, with
	 * whatever else the loop does in between, until it returns 0: then the answer goes out.
	 * drop ends the job, once, also when nobody waits for it any more. */
	int (*step)(void *job, struct http_response *r);
	void (*drop)(void *job);
	void *job;
};

typedef void (*http_handler_fn)(void *data, const struct http_request *q, struct http_response *r);

struct http_route {
	const char *path; /* one part of it may be "*" */
	http_handler_fn handler;
	bool takes_form; /* POST, HTTP_FORM_TYPE or no type: arguments like those of a GET */
};

/* Argument of the form or, after those, of the address, unescaped ("" when it has no value); NULL when it is not
 * there. at: the nth of those with the key, from 0. */
const char *http_request_arg(const struct http_request *q, const char *key);
const char *http_request_arg_at(const struct http_request *q, const char *key, size_t at);
/* What stands for the "*" of the route. */
const char *http_request_part(const struct http_request *q);
const char *http_request_header(const struct http_request *q, const char *name);

/* Borrows loop, routes and data until close. address is "127.0.0.1:9465" or what listen.h knows.
 * -EPERM: not loopback. -EADDRINUSE: e names the holder. */
int http_server_open(struct loop *loop, const char *address, const struct http_route *routes,
		     size_t n, void *data, struct http_server **ret, struct err *e);
/* Not from a handler. */
struct http_server *http_server_close(struct http_server *s);

unsigned int http_server_port(const struct http_server *s);

/* Fills body and content type with an error of the server itself; the status is set. */
typedef void (*http_error_fn)(struct http_response *r, const char *text);

/* For paths that begin so; elsewhere errors are text. Borrows prefix. */
void http_server_set_errors(struct http_server *s, const char *prefix, http_error_fn fn);
/* Other than HTTP_DEADLINE_MS. */
void http_server_set_deadline(struct http_server *s, uint64_t ms);
/* Answers in the making other than HTTP_JOBS_MAX: for those that are waited for, not made here. */
void http_server_set_jobs(struct http_server *s, unsigned int max);
