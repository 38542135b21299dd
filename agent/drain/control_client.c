/* SPDX-License-Identifier: Apache-2.0 */
/* Client of the control socket. Owns its connection; any verb. */
#include "drain/control_client.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"
#include "drain/control_server.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

struct control_client {
	int fd;
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	char *in;
	size_t len, used; /* bytes read; bytes of them that were given out */
};

static int explain(const char *path, int r, struct err *e)
{
	if (r == -ENOENT || r == -ECONNREFUSED)
		return err_set(e, r,
			       "no agent is running: nobody listens on %s (%s); start `tidegate "
			       "agent`, or set TIDEGATE_RUNTIME_DIR to its directory",
			       path, err_text(r));
	if (r == -EACCES || r == -EPERM)
		return err_set(e, r,
			       "%s may not be used: %s; be root or a member of the group that owns "
			       "it",
			       path, err_text(r));
	return err_set(e, r, "%s: %s", path, err_text(r));
}

int control_client_open(const char *runtime_dir, struct control_client **ret, struct err *e)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct control_client *c = calloc(1, sizeof(*c));
	int n, r = 0;

	if (!c)
		return err_set(e, -ENOMEM, "out of memory");
	c->fd = -1;
	n = snprintf(c->path, sizeof(c->path), "%s/control.sock", runtime_dir);
	if (n < 0 || (size_t)n >= sizeof(c->path)) {
		control_client_close(c);
		return err_set(e, -ENAMETOOLONG, "%s/control.sock: the path is too long",
			       runtime_dir);
	}
	str_copy(address.sun_path, sizeof(address.sun_path), c->path);
	c->in = malloc(CONTROL_OUT_MAX);
	c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (!c->in)
		r = -ENOMEM;
	else if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		r = -errno;
	if (r < 0) {
		explain(c->path, r, e);
		control_client_close(c);
		return r;
	}
	*ret = c;
	return 0;
}

struct control_client *control_client_close(struct control_client *c)
{
	if (!c)
		return NULL;
	if (c->fd >= 0)
		close(c->fd);
	free(c->in);
	free(c);
	return NULL;
}

int control_client_send(struct control_client *c, json_t *request, struct err *e)
{
	_cleanup_free_ char *text = request ? json_dumps(request, JSON_COMPACT) : NULL;
	size_t len, sent = 0;

	json_decref(request);
	if (!text)
		return err_set(e, -ENOMEM, "out of memory");
	len = strlen(text);
	text[len++] = '\n';
	while (sent < len) {
		ssize_t n = send(c->fd, text + sent, len - sent, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return explain(c->path, -errno, e);
		sent += (size_t)n;
	}
	return 0;
}

static int fill(struct control_client *c, uint64_t until_ns, struct err *e)
{
	for (;;) {
		uint64_t now_ns = clock_mono_ns();
		struct pollfd p = {.fd = c->fd, .events = POLLIN};
		uint64_t left_ms = until_ns > now_ns ? (until_ns - now_ns) / NS_PER_MS + 1 : 0;
		int n = poll(&p, 1, left_ms > 60000 ? 60000 : (int)left_ms);
		ssize_t got;

		if (n == 0 && !left_ms)
			return err_set(e, -ETIMEDOUT, "the agent did not answer in time on %s",
				       c->path);
		if (n <= 0)
			continue;
		if (c->len == CONTROL_OUT_MAX)
			return err_set(e, -EMSGSIZE, "the agent's answer is too long");
		got = recv(c->fd, c->in + c->len, CONTROL_OUT_MAX - c->len, 0);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return err_set(
				e, -EPIPE,
				"the agent went away (its steward ended); a drain goes on when "
				"it is back, see `tidegate drain` again");
		c->len += (size_t)got;
		return 0;
	}
}

int control_client_recv(struct control_client *c, double timeout_s, json_t **ret, struct err *e)
{
	uint64_t until_ns = clock_mono_ns() + (uint64_t)(timeout_s * 1e9);
	const char *error;
	char *end;
	json_t *m;
	int r;

	memmove(c->in, c->in + c->used, c->len - c->used);
	c->len -= c->used;
	c->used = 0;
	while (!(end = memchr(c->in, '\n', c->len))) {
		r = fill(c, until_ns, e);
		if (r < 0)
			return r;
	}
	c->used = (size_t)(end - c->in) + 1;
	m = json_loadb(c->in, (size_t)(end - c->in), 0, NULL);
	if (!m)
		return err_set(e, -EBADMSG, "the agent's answer is no JSON");
	error = json_string_value(json_object_get(m, "error"));
	if (error) {
		r = err_set(e, -EREMOTEIO, "%s", error);
		json_decref(m);
		return r;
	}
	*ret = m;
	return 0;
}

int control_client_ask(const char *runtime_dir, json_t *request, double timeout_s, json_t **ret,
		       struct err *e)
{
	struct control_client *c;
	int r = control_client_open(runtime_dir, &c, e);

	if (r < 0) {
		json_decref(request);
		return r;
	}
	r = control_client_send(c, request, e);
	if (!r)
		r = control_client_recv(c, timeout_s, ret, e);
	control_client_close(c);
	return r;
}
