/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HTTP over libmicrohttpd without threads: its epoll descriptor is one watch of the loop. Owns the
 * listening socket and all connections. Runs in the courier and in the aggregator's core.
 *
 * libmicrohttpd only ends connections that are silent; one that drips a byte now and then would
 * hold its place for ever, so each has a deadline here. Where many wait for nothing, whoever has
 * done so for longest makes room, so that a health check is answered.
 */
#include "outlet/http.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/listen.h"
#include "base/log.h"
#include "outlet/http_form.h"
#include "outlet/http_jobs.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define SERVER_MAGIC 0x48545053u
#define BACKLOG      128
#define SWEEP_MS     1000
#define CROWDED      (HTTP_CONNECTIONS_MAX * 3 / 4)

struct http_connection {
	int fd; /* -1: free place */
	uint64_t since_ns;
	bool is_answered; /* the answer is on its way */
	bool is_evicted;
	struct http_form form; /* of the request at hand */
};

struct http_server {
	uint32_t magic;
	struct MHD_Daemon *daemon;
	struct loop_watch *watch, *timer;
	struct http_jobs *jobs;
	const struct http_route *routes;
	size_t route_count;
	void *data;
	uint64_t deadline_ns;
	unsigned int port;
	const char *error_prefix; /* NULL: errors are text everywhere */
	http_error_fn error_fn;
	struct http_connection connections[HTTP_CONNECTIONS_MAX];
};

struct http_request {
	struct MHD_Connection *connection;
	const struct http_form *form; /* NULL: a GET */
	char part[256];
};

DEFINE_CLEANUP(struct http_server *, http_server_close)

struct search {
	const char *key, *value;
	size_t left;
};

static enum MHD_Result on_argument(void *data, enum MHD_ValueKind kind, const char *key,
				   const char *value)
{
	struct search *s = data;

	(void)kind;
	if (!str_equal(key, s->key) || s->left--)
		return MHD_YES;
	s->value = value ? value : "";
	return MHD_NO;
}

const char *http_request_arg_at(const struct http_request *q, const char *key, size_t at)
{
	struct search s = {.key = key, .left = at};

	for (size_t i = 0; q->form && i <= at; i++) {
		const char *value = http_form_find(q->form, key, i);

		if (!value)
			break;
		if (i == at)
			return value;
		s.left--;
	}
	MHD_get_connection_values(q->connection, MHD_GET_ARGUMENT_KIND, on_argument, &s);
	return s.value;
}

const char *http_request_arg(const struct http_request *q, const char *key)
{
	return http_request_arg_at(q, key, 0);
}

const char *http_request_part(const struct http_request *q)
{
	return q->part;
}

const char *http_request_header(const struct http_request *q, const char *name)
{
	return MHD_lookup_connection_value(q->connection, MHD_HEADER_KIND, name);
}

/* ---- routes ---- */

/* part: HTTP_HEADER_BYTES bound it; what is longer than its room is none of ours. */
static bool path_matches(const char *pattern, const char *path, char *part, size_t size)
{
	const char *star = strchr(pattern, '*');
	size_t before = star ? (size_t)(star - pattern) : 0, n;

	if (!star)
		return str_equal(path, pattern);
	if (strncmp(path, pattern, before) != 0)
		return false;
	n = strcspn(path + before, "/");
	if (!n || n >= size || !str_equal(path + before + n, star + 1))
		return false;
	memcpy(part, path + before, n);
	part[n] = '\0';
	return true;
}

static const struct http_route *route_find(const struct http_server *s, const char *path,
					   char *part, size_t size)
{
	for (size_t i = 0; i < s->route_count; i++)
		if (path_matches(s->routes[i].path, path, part, size))
			return &s->routes[i];
	return NULL;
}

/* ---- answers ---- */

static void say_error(const struct http_server *s, const char *path, unsigned int status,
		      const char *text, struct http_response *r)
{
	strbuf_reset(&r->body);
	r->status = status;
	if (s->error_prefix && strncmp(path, s->error_prefix, strlen(s->error_prefix)) == 0) {
		s->error_fn(r, text);
		return;
	}
	r->content_type = "text/plain; charset=utf-8";
	strbuf_printf(&r->body, "%s\n", text);
}

static const char *methods_of(const struct http_server *s, const char *path)
{
	char part[256];
	const struct http_route *found = route_find(s, path, part, sizeof(part));

	return found && found->takes_form ? "GET, HEAD, POST" : "GET, HEAD";
}

/* Takes the body. */
static enum MHD_Result answer(const struct http_server *s, struct MHD_Connection *connection,
			      const char *path, struct http_response *r)
{
	struct MHD_Response *response;
	enum MHD_Result result;

	if (r->body.failed)
		say_error(s, path, 500, "the answer is larger than this server's limit", r);
	if (r->body.data)
		response = MHD_create_response_from_buffer_with_free_callback(r->body.len,
									      r->body.data, free);
	else
		response = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
	if (!response) {
		strbuf_fini(&r->body);
		return MHD_NO;
	}
	r->body = (struct strbuf){0};
	MHD_add_response_header(response, "Content-Type", r->content_type);
	MHD_add_response_header(response, "Cache-Control", "no-store");
	MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
	if (r->status == 405)
		MHD_add_response_header(response, "Allow", methods_of(s, path));
	result = MHD_queue_response(connection, r->status, response);
	MHD_destroy_response(response);
	return result;
}

static void route(const struct http_server *s, struct http_request *q, const char *path,
		  struct http_response *r)
{
	const struct http_route *found = route_find(s, path, q->part, sizeof(q->part));
	struct strbuf text;

	if (found) {
		found->handler(s->data, q, r);
		return;
	}
	strbuf_init(&text, HTTP_HEADER_BYTES);
	strbuf_puts(&text, "no such path; there are:");
	for (size_t i = 0; i < s->route_count; i++)
		strbuf_printf(&text, "\n%s", s->routes[i].path);
	say_error(s, path, 404, text.data ? text.data : "no such path", r);
	strbuf_fini(&text);
}

static struct http_connection *connection_of(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	return info ? info->socket_context : NULL;
}

/* A kept connection may have been idle for long: what was asked now has its own time. The header
 * had arrived by then, so one that drips still has the time of the connection. */
static void mark_begun(struct MHD_Connection *connection)
{
	struct http_connection *c = connection_of(connection);

	if (c)
		c->since_ns = clock_mono_ns();
}

static void mark_answered(struct MHD_Connection *connection)
{
	struct http_connection *c = connection_of(connection);

	if (c)
		c->is_answered = true;
}

/* What says nothing of its type is a form too, mostly an empty one. */
static bool is_form(struct MHD_Connection *connection)
{
	const char *type = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Content-Type");

	return !type || strncasecmp(type, HTTP_FORM_TYPE, strlen(HTTP_FORM_TYPE)) == 0;
}

/* Where a form may be sent to, and is one. */
static struct http_form *form_begin(const struct http_server *s, struct MHD_Connection *connection,
				    const char *path, const char *method)
{
	struct http_connection *c = connection_of(connection);
	const struct http_route *found;
	char part[256];

	if (!str_equal(method, "POST") || !c || !is_form(connection))
		return NULL;
	found = route_find(s, path, part, sizeof(part));
	return found && found->takes_form ? &c->form : NULL;
}

/* The response is the job's from here, or says why there is none. */
static bool defer(struct http_server *s, struct MHD_Connection *connection, const char *path,
		  struct http_response *r, void **request_context)
{
	char text[96];
	void *job = http_jobs_add(s->jobs, connection, r);

	if (job) {
		*request_context = job;
		return true;
	}
	r->drop(r->job);
	snprintf(text, sizeof(text), "busy: %u large answers are being made; try again",
		 http_jobs_max(s->jobs));
	say_error(s, path, 503, text, r);
	return false;
}

static enum MHD_Result on_request(void *data, struct MHD_Connection *connection, const char *path,
				  const char *method, const char *version, const char *upload,
				  size_t *upload_size, void **request_context)
{
	struct http_server *s = data;
	struct http_request q = {.connection = connection};
	struct http_response r = {.status = 200, .content_type = "text/plain; charset=utf-8"};
	struct http_response *made = http_jobs_answer(s->jobs, *request_context);
	bool is_reading = str_equal(method, "GET") || str_equal(method, "HEAD");
	struct http_form *form = is_reading ? NULL : form_begin(s, connection, path, method);
	char text[96];

	(void)version;
	CHECK(s->magic == SERVER_MAGIC);
	if (made)
		return answer(s, connection, path, made);
	if (!*request_context)
		mark_begun(connection);
	/* The first call comes before the body. An answer now would close the connection: right for
	 * a method that nobody serves, not for a GET or a form. */
	if ((is_reading || form) && !*request_context) {
		*request_context = s;
		return MHD_YES;
	}
	if ((is_reading || form) && *upload_size) {
		if (form) /* a GET with a body: nobody reads it */
			http_form_add(form, upload, *upload_size);
		*upload_size = 0;
		return MHD_YES;
	}
	strbuf_init(&r.body, HTTP_BODY_BYTES);
	if (form && !http_form_end(form)) {
		snprintf(text, sizeof(text), "a form of more than %u bytes", HTTP_FORM_BYTES);
		say_error(s, path, 413, text, &r);
	} else if (is_reading || form) {
		q.form = form;
		route(s, &q, path, &r);
	} else if (str_equal(method, "POST") && !is_form(connection) &&
		   strstr(methods_of(s, path), method)) {
		say_error(s, path, 415, "a POST takes a form: " HTTP_FORM_TYPE, &r);
	} else {
		snprintf(text, sizeof(text), "only %s: everything here is for reading",
			 methods_of(s, path));
		say_error(s, path, 405, text, &r);
	}
	mark_answered(connection);
	if (r.step && defer(s, connection, path, &r, request_context))
		return MHD_YES;
	return answer(s, connection, path, &r);
}

/* ---- connections and their deadlines ---- */

static void make_room(struct http_server *s)
{
	struct http_connection *oldest = NULL;
	unsigned int used = 0;

	for (size_t i = 0; i < HTTP_CONNECTIONS_MAX; i++) {
		struct http_connection *c = &s->connections[i];

		if (c->fd < 0 || c->is_evicted)
			continue;
		used++;
		if (!c->is_answered && (!oldest || c->since_ns < oldest->since_ns))
			oldest = c;
	}
	if (used < CROWDED || !oldest)
		return;
	oldest->is_evicted = true;
	shutdown(oldest->fd, SHUT_RDWR);
}

static void on_connection(void *data, struct MHD_Connection *connection, void **socket_context,
			  enum MHD_ConnectionNotificationCode code)
{
	struct http_server *s = data;
	struct http_connection *c = *socket_context;
	const union MHD_ConnectionInfo *info;

	if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
		if (c) {
			c->fd = -1;
			http_form_fini(&c->form);
		}
		return;
	}
	make_room(s);
	info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	for (size_t i = 0; info && i < HTTP_CONNECTIONS_MAX; i++) {
		c = &s->connections[i];
		if (c->fd >= 0)
			continue;
		*c = (struct http_connection){.fd = info->connect_fd, .since_ns = clock_mono_ns()};
		*socket_context = c;
		return;
	}
}

static void on_completed(void *data, struct MHD_Connection *connection, void **request_context,
			 enum MHD_RequestTerminationCode code)
{
	struct http_connection *c = connection_of(connection);
	struct http_server *s = data;

	(void)code;
	http_jobs_remove(s->jobs, *request_context);
	*request_context = NULL;
	if (c) {
		c->since_ns = clock_mono_ns();
		c->is_answered = false;
		http_form_fini(&c->form);
	}
}

/* Returns the milliseconds until the next deadline, 0 when there is no connection. */
static uint64_t sweep(struct http_server *s)
{
	uint64_t now = clock_mono_ns(), next = 0;

	for (size_t i = 0; i < HTTP_CONNECTIONS_MAX; i++) {
		struct http_connection *c = &s->connections[i];
		uint64_t end = c->since_ns + s->deadline_ns, left;

		if (c->fd < 0)
			continue;
		/* libmicrohttpd owns the descriptor: it sees the end of the stream and closes. */
		if (now >= end)
			shutdown(c->fd, SHUT_RDWR);
		left = now >= end ? SWEEP_MS : (end - now) / NS_PER_MS + 1;
		next = !next || left < next ? left : next;
	}
	return next;
}

static void pump(struct http_server *s)
{
	MHD_UNSIGNED_LONG_LONG timeout;
	uint64_t next;

	MHD_run(s->daemon);
	next = sweep(s);
	if (MHD_get_timeout(s->daemon, &timeout) == MHD_YES && (!next || timeout < next))
		loop_set_timer(s->timer, timeout, 0);
	else if (next)
		loop_set_timer(s->timer, next, 0);
}

static void on_readable(void *data, int fd, unsigned int events)
{
	(void)fd;
	(void)events;
	pump(data);
}

static void on_timer(void *data)
{
	pump(data);
}

static void on_log(void *data, const char *format, va_list ap)
	__attribute__((format(printf, 2, 0)));
static void on_log(void *data, const char *format, va_list ap)
{
	char text[256];

	(void)data;
	vsnprintf(text, sizeof(text), format, ap);
	text[strcspn(text, "\n")] = '\0';
	log_debug("http", "libmicrohttpd", "text=\"%s\"", text);
}

/* ---- life ---- */

int http_server_open(struct loop *loop, const char *address, const struct http_route *routes,
		     size_t n, void *data, struct http_server **ret, struct err *e)
{
	_cleanup_(http_server_close_p) struct http_server *s = calloc(1, sizeof(*s));
	const union MHD_DaemonInfo *info;
	int fd, r;

	if (!s)
		return -ENOMEM;
	s->magic = SERVER_MAGIC;
	s->routes = routes;
	s->route_count = n;
	s->data = data;
	s->deadline_ns = HTTP_DEADLINE_MS * NS_PER_MS;
	for (size_t i = 0; i < HTTP_CONNECTIONS_MAX; i++)
		s->connections[i].fd = -1;
	r = listen_open(address, BACKLOG, &fd, e);
	if (r < 0)
		return err_set(e, r, "http");
	s->port = listen_port(fd);
	s->daemon = MHD_start_daemon(
		MHD_USE_EPOLL | MHD_USE_ERROR_LOG | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL,
		on_request, s, MHD_OPTION_EXTERNAL_LOGGER, on_log, s, MHD_OPTION_LISTEN_SOCKET, fd,
		MHD_OPTION_CONNECTION_LIMIT, (unsigned int)HTTP_CONNECTIONS_MAX,
		MHD_OPTION_CONNECTION_TIMEOUT, (unsigned int)(HTTP_DEADLINE_MS / 1000),
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTP_HEADER_BYTES,
		MHD_OPTION_NOTIFY_CONNECTION, on_connection, s, MHD_OPTION_NOTIFY_COMPLETED,
		on_completed, s, MHD_OPTION_END);
	if (!s->daemon) {
		r = errno ? -errno : -EIO;
		close(fd); /* closed already on some paths: EBADF, and we have no threads */
		return err_set(e, r, "http %.200s: the server does not start: %s", address,
			       err_text(r));
	}
	info = MHD_get_daemon_info(s->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	if (!info)
		return err_set(e, -ENOSYS, "http %.200s: libmicrohttpd was built without epoll",
			       address);
	r = loop_add_fd(loop, info->epoll_fd, LOOP_READ, on_readable, s, &s->watch);
	if (r == 0)
		r = loop_add_timer(loop, 0, 0, on_timer, s, &s->timer);
	if (r == 0)
		r = http_jobs_new(loop, on_timer, s, &s->jobs);
	if (r < 0)
		return err_set(e, r, "http %.200s: %s", address, err_text(r));
	*ret = TAKE_PTR(s);
	return 0;
}

struct http_server *http_server_close(struct http_server *s)
{
	if (!s)
		return NULL;
	CHECK(s->magic == SERVER_MAGIC);
	loop_remove(s->watch);
	loop_remove(s->timer);
	http_jobs_stop(s->jobs);
	if (s->daemon)
		MHD_stop_daemon(s->daemon);
	http_jobs_free(s->jobs);
	s->magic = 0;
	free(s);
	return NULL;
}

unsigned int http_server_port(const struct http_server *s)
{
	return s->port;
}

void http_server_set_deadline(struct http_server *s, uint64_t ms)
{
	s->deadline_ns = ms * NS_PER_MS;
}

void http_server_set_errors(struct http_server *s, const char *prefix, http_error_fn fn)
{
	s->error_prefix = prefix;
	s->error_fn = fn;
}

void http_server_set_jobs(struct http_server *s, unsigned int max)
{
	http_jobs_set_max(s->jobs, max);
}
