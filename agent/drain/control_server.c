/* SPDX-License-Identifier: Apache-2.0 */
/* Server side of the control socket. Owns the listener and every connection; steward. */
#include "drain/control_server.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define PEER_GROUPS_MAX 256

struct control_conn {
	struct control_server *server;
	int fd;
	struct loop_watch *watch;
	struct ucred peer;
	bool may_all, is_waiting, is_ended;
	uint64_t last_ns;
	char *in;
	size_t in_len;
	struct strbuf out;
	size_t out_sent;
};

struct control_server {
	struct control_options options;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	int fd;
	struct loop_watch *watch, *timer;
	struct control_conn *conns[CONTROL_CONNECTIONS_MAX];
	uint64_t refused;
	struct log_limit limit;
};

static void refuse(struct control_server *s, const char *why)
{
	uint64_t suppressed;

	s->refused++;
	if (log_allowed(&s->limit, clock_mono_ns(), &suppressed))
		log_warning("control", "refused", "why=\"%s\" suppressed=%llu", why,
			    (unsigned long long)suppressed);
}

static bool is_member(int fd, gid_t group)
{
	gid_t groups[PEER_GROUPS_MAX];
	socklen_t size = sizeof(groups);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size) < 0)
		return false;
	for (size_t i = 0; i < size / sizeof(*groups); i++)
		if (groups[i] == group)
			return true;
	return false;
}

static int check_peer(struct control_conn *c)
{
	const struct control_options *o = &c->server->options;
	socklen_t size = sizeof(c->peer);

	if (getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &c->peer, &size) < 0)
		return -errno;
	/* Our own uid is no elevation: it is what runs the steward. */
	c->may_all = c->peer.uid == 0 || c->peer.uid == geteuid() ||
		     (o->group_admin != (gid_t)-1 &&
		      (c->peer.gid == o->group_admin || is_member(c->fd, o->group_admin)));
	return 0;
}

static bool may(const struct control_conn *c, const struct control_request *q)
{
	return c->may_all || (c->server->options.is_sidecar &&
			      (q->op == CONTROL_DRAIN || q->op == CONTROL_STATUS));
}

static void conn_free(struct control_conn *c)
{
	struct control_server *s = c->server;

	for (size_t i = 0; i < CONTROL_CONNECTIONS_MAX; i++)
		if (s->conns[i] == c)
			s->conns[i] = NULL;
	s->options.closed(s->options.data, c);
	loop_remove(c->watch);
	close(c->fd);
	strbuf_fini(&c->out);
	free(c->in);
	free(c);
}

/* Writes what it can. Negative when the connection is to be freed. */
static int conn_flush(struct control_conn *c)
{
	if (c->out.failed)
		return -ENOBUFS;
	while (c->out_sent < c->out.len) {
		ssize_t n = send(c->fd, c->out.data + c->out_sent, c->out.len - c->out_sent,
				 MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return loop_set_events(c->watch,
					       c->is_ended ? LOOP_WRITE : LOOP_READ | LOOP_WRITE);
		if (n < 0)
			return -errno;
		c->out_sent += (size_t)n;
	}
	strbuf_reset(&c->out);
	c->out_sent = 0;
	if (c->is_ended)
		return -ECONNRESET;
	return loop_set_events(c->watch, LOOP_READ);
}

void control_reply(struct control_conn *c, json_t *message)
{
	char *text = message ? json_dumps(message, JSON_COMPACT) : NULL;

	json_decref(message);
	if (!text) {
		c->is_ended = true;
		return;
	}
	strbuf_puts(&c->out, text);
	strbuf_puts(&c->out, "\n");
	free(text);
	/* Sent from the loop, never from here: the caller may be walking its connections. */
	loop_set_events(c->watch, LOOP_READ | LOOP_WRITE);
}

void control_reply_error(struct control_conn *c, const char *text)
{
	json_t *value = json_string(text);

	control_reply(c, json_pack("{s:o}", "error", value ? value : json_string("bad request")));
}

void control_set_waiting(struct control_conn *c, bool is_waiting)
{
	c->is_waiting = is_waiting;
	c->last_ns = clock_mono_ns();
}

static void handle_line(struct control_conn *c, const char *line, size_t size)
{
	struct control_server *s = c->server;
	struct control_request q;
	struct err e = {.text = ""};

	if (control_parse(line, size, &q, &e) < 0) {
		refuse(s, "bad request");
		control_reply_error(c, e.text);
		return;
	}
	if (!may(c, &q)) {
		refuse(s, "peer without the right");
		err_set(&e, -EPERM,
			"uid %u may not: only root and members of the admin group (option "
			"group_admin)",
			(unsigned int)c->peer.uid);
		control_reply_error(c, e.text);
		return;
	}
	s->options.request(s->options.data, c, &q);
}

static void handle_input(struct control_conn *c)
{
	char *start = c->in, *end;

	while ((end = memchr(start, '\n', c->in_len - (size_t)(start - c->in)))) {
		handle_line(c, start, (size_t)(end - start));
		start = end + 1;
	}
	c->in_len -= (size_t)(start - c->in);
	memmove(c->in, start, c->in_len);
	if (c->in_len == CONTROL_LINE_MAX) {
		refuse(c->server, "line too long");
		control_reply_error(c, "the line is too long");
		c->in_len = 0;
		c->is_ended = true;
	}
}

static void conn_ready(void *data, int fd, unsigned int events)
{
	struct control_conn *c = data;

	if ((events & LOOP_READ) && !c->is_ended) {
		ssize_t n = recv(fd, c->in + c->in_len, CONTROL_LINE_MAX - c->in_len, MSG_DONTWAIT);

		if (n > 0) {
			c->in_len += (size_t)n;
			c->last_ns = clock_mono_ns();
			handle_input(c);
		} else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
			conn_free(c);
			return;
		}
	}
	if (conn_flush(c) < 0)
		conn_free(c);
}

static int conn_add(struct control_server *s, int fd)
{
	struct control_conn *c;
	size_t i = 0;
	int r;

	while (i < CONTROL_CONNECTIONS_MAX && s->conns[i])
		i++;
	if (i == CONTROL_CONNECTIONS_MAX)
		return -EMFILE;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->server = s;
	c->fd = fd;
	c->last_ns = clock_mono_ns();
	strbuf_init(&c->out, CONTROL_OUT_MAX);
	c->in = malloc(CONTROL_LINE_MAX);
	r = c->in ? check_peer(c) : -ENOMEM;
	if (!r)
		r = loop_add_fd(s->options.loop, fd, LOOP_READ, conn_ready, c, &c->watch);
	if (r < 0) {
		strbuf_fini(&c->out);
		free(c->in);
		free(c);
		return r;
	}
	s->conns[i] = c;
	return 0;
}

static void listener_ready(void *data, int fd, unsigned int events)
{
	struct control_server *s = data;
	int peer, r;

	(void)events;
	peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (peer < 0)
		return;
	r = conn_add(s, peer);
	if (r < 0) {
		refuse(s, r == -EMFILE ? "too many connections" : err_text(r));
		close(peer);
	}
}

static void timer_ready(void *data)
{
	struct control_server *s = data;
	uint64_t now_ns = clock_mono_ns();

	for (size_t i = 0; i < CONTROL_CONNECTIONS_MAX; i++) {
		struct control_conn *c = s->conns[i];

		if (c && !c->is_waiting && now_ns - c->last_ns > CONTROL_IDLE_S * NS_PER_S) {
			refuse(s, "idle");
			conn_free(c);
		}
	}
}

static int bind_listener(struct control_server *s, struct err *e)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	mode_t mask;
	int r;

	if (!str_copy(s->path, sizeof(s->path), s->options.path))
		return err_set(e, -ENAMETOOLONG,
			       "%s: longer than a socket's name may be (%zu bytes)",
			       s->options.path, sizeof(s->path) - 1);
	str_copy(address.sun_path, sizeof(address.sun_path), s->path);
	s->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (s->fd < 0)
		return err_set(e, -errno, "control socket: %s", err_text(-errno));
	/* A file left by a steward that was killed; the supervisor starts only one at a time. */
	unlink(s->path);
	mask = umask(0117);
	r = bind(s->fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
	umask(mask);
	if (r < 0)
		return err_set(e, r, "%s: cannot bind: %s", s->path, err_text(r));
	if (s->options.group_app != (gid_t)-1 &&
	    chown(s->path, (uid_t)-1, s->options.group_app) < 0)
		log_warning("control", "the socket keeps its group",
			    "path=%s group=%u error=\"%s\"", s->path,
			    (unsigned int)s->options.group_app, err_text(-errno));
	if (listen(s->fd, CONTROL_CONNECTIONS_MAX) < 0)
		return err_set(e, -errno, "%s: cannot listen: %s", s->path, err_text(-errno));
	return 0;
}

int control_server_open(const struct control_options *options, struct control_server **ret,
			struct err *e)
{
	struct control_server *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return err_set(e, -ENOMEM, "control socket: out of memory");
	s->options = *options;
	s->fd = -1;
	s->limit.interval_ns = 10 * NS_PER_S;
	r = bind_listener(s, e);
	if (!r)
		r = loop_add_fd(options->loop, s->fd, LOOP_READ, listener_ready, s, &s->watch);
	if (!r)
		r = loop_add_timer(options->loop, 5000, 5000, timer_ready, s, &s->timer);
	if (r < 0) {
		control_server_close(s);
		return r;
	}
	*ret = s;
	return 0;
}

struct control_server *control_server_close(struct control_server *s)
{
	if (!s)
		return NULL;
	for (size_t i = 0; i < CONTROL_CONNECTIONS_MAX; i++) {
		if (!s->conns[i])
			continue;
		/* Last words: what fits goes out, nobody is waited for. */
		conn_flush(s->conns[i]);
		conn_free(s->conns[i]);
	}
	loop_remove(s->watch);
	loop_remove(s->timer);
	if (s->fd >= 0) {
		close(s->fd);
		unlink(s->path);
	}
	free(s);
	return NULL;
}

uint64_t control_refused(const struct control_server *s)
{
	return s->refused;
}
