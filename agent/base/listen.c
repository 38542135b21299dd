/* SPDX-License-Identifier: Apache-2.0 */
/* Opens listeners and connections; finds out who holds a port. Keeps no state. */
#include "base/listen.h"

#include "base/cleanup.h"
#include "base/str.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PROCESSES_MAX 65536 /* looked at in search of a holder */

static int parse_ipc(const char *path, struct listen_address *ret, struct err *e)
{
	struct sockaddr_un *un = (struct sockaddr_un *)&ret->addr;

	if (path[0] != '/')
		return err_set(e, -EINVAL, "ipc://%s: the path must begin with /", path);
	if (!str_copy(ret->path, sizeof(ret->path), path))
		return err_set(e, -EINVAL, "ipc://%.200s: the path is longer than %zu bytes", path,
			       sizeof(ret->path) - 1);
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, ret->path, sizeof(ret->path));
	ret->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path) + 1);
	ret->is_ipc = true;
	return 0;
}

static int parse_tcp(const char *whole, const char *s, struct listen_address *ret, struct err *e)
{
	struct sockaddr_in *in = (struct sockaddr_in *)&ret->addr;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&ret->addr;
	const char *colon = strrchr(s, ':');
	char host[64];
	uint64_t port;
	size_t len;

	if (!colon)
		return err_set(e, -EINVAL,
			       "%.200s: no port; write tcp://127.0.0.1:9466 or "
			       "ipc:///path",
			       whole);
	if (str_to_u64(colon + 1, &port) < 0 || port > 65535)
		return err_set(e, -EINVAL, "%.200s: the port must be a number from 0 to 65535",
			       whole);
	len = (size_t)(colon - s);
	if (len >= 2 && s[0] == '[' && s[len - 1] == ']') {
		s++;
		len -= 2;
	}
	if (len >= sizeof(host))
		return err_set(e, -EINVAL, "%.200s: the host is no IP address", whole);
	memcpy(host, s, len);
	host[len] = '\0';
	if (str_equal(host, "localhost"))
		str_copy(host, sizeof(host), "127.0.0.1");
	if (str_equal(host, "*"))
		str_copy(host, sizeof(host), "0.0.0.0");
	if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = htons((uint16_t)port);
		ret->len = sizeof(*in);
		return 0;
	}
	if (inet_pton(AF_INET6, host, &in6->sin6_addr) == 1) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons((uint16_t)port);
		ret->len = sizeof(*in6);
		return 0;
	}
	return err_set(e, -EINVAL, "%.200s: the host is no IP address", whole);
}

int listen_parse(const char *address, struct listen_address *ret, struct err *e)
{
	struct listen_address a = {0};
	const char *scheme = strstr(address, "://");
	int r;

	if (str_starts(address, "ipc://"))
		r = parse_ipc(address + 6, &a, e);
	else if (str_starts(address, "tcp://"))
		r = parse_tcp(address, address + 6, &a, e);
	else if (str_starts(address, "tls+tcp://"))
		r = parse_tcp(address, address + 10, &a, e);
	else if (scheme)
		r = err_set(e, -EINVAL,
			    "%.200s: unknown scheme; tcp://, tls+tcp:// and ipc:// are known",
			    address);
	else
		r = parse_tcp(address, address, &a, e);
	a.is_tls = str_starts(address, "tls+");
	if (r == 0)
		*ret = a;
	return r;
}

bool listen_is_loopback(const struct listen_address *a)
{
	if (a->addr.ss_family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)&a->addr;

		return ntohl(in->sin_addr.s_addr) >> 24 == 127;
	}
	if (a->addr.ss_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&a->addr;

		return IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
	}
	return false;
}

unsigned int listen_port(int fd)
{
	struct sockaddr_storage ss = {0};
	socklen_t len = sizeof(ss);

	if (getsockname(fd, (struct sockaddr *)&ss, &len) < 0)
		return 0;
	if (ss.ss_family == AF_INET)
		return ntohs(((struct sockaddr_in *)&ss)->sin_port);
	if (ss.ss_family == AF_INET6)
		return ntohs(((struct sockaddr_in6 *)&ss)->sin6_port);
	return 0;
}

/* ---- who holds a port ---- */

/* Inode of a socket in state LISTEN on the port, from /proc/net/tcp or tcp6; 0: none. A wildcard
 * listener holds every address. */
static uint64_t holder_inode(const char *table, unsigned int port, unsigned int *ret_uid)
{
	_cleanup_file_ FILE *f = fopen(table, "re");
	char line[512];

	while (f && fgets(line, sizeof(line), f)) {
		unsigned int got_port, state, uid;
		unsigned long long inode;

		if (sscanf(line,
			   " %*d: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x %*s %*s %*s %u %*u "
			   "%llu",
			   &got_port, &state, &uid, &inode) == 4 &&
		    state == TCP_LISTEN && got_port == port && inode) {
			*ret_uid = uid;
			return inode;
		}
	}
	return 0;
}

static bool process_holds(const char *pid, const char *link)
{
	_cleanup_dir_ DIR *dir = NULL;
	struct dirent *entry;
	char path[64], target[64];

	snprintf(path, sizeof(path), "/proc/%.20s/fd", pid);
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		ssize_t n = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);

		if (n <= 0)
			continue;
		target[n] = '\0';
		if (str_equal(target, link))
			return true;
	}
	return false;
}

bool listen_holder(const struct listen_address *a, char *buf, size_t size)
{
	_cleanup_dir_ DIR *dir = NULL;
	unsigned int port, uid = 0, seen = 0;
	struct dirent *entry;
	uint64_t inode;
	char link[64], path[64], name[64];

	if (a->is_ipc)
		return false;
	port = a->addr.ss_family == AF_INET
		       ? ntohs(((const struct sockaddr_in *)&a->addr)->sin_port)
		       : ntohs(((const struct sockaddr_in6 *)&a->addr)->sin6_port);
	inode = holder_inode("/proc/net/tcp", port, &uid);
	if (!inode)
		inode = holder_inode("/proc/net/tcp6", port, &uid);
	if (!inode)
		return false;
	snprintf(link, sizeof(link), "socket:[%llu]", (unsigned long long)inode);
	dir = opendir("/proc");
	while (dir && seen < PROCESSES_MAX && (entry = readdir(dir))) {
		if (!isdigit((unsigned char)entry->d_name[0]))
			continue;
		seen++;
		if (!process_holds(entry->d_name, link))
			continue;
		snprintf(path, sizeof(path), "/proc/%.20s/comm", entry->d_name);
		if (str_read_file(path, name, sizeof(name)) < 0)
			str_copy(name, sizeof(name), "?");
		snprintf(buf, size, "pid %.20s (%s)", entry->d_name, name);
		return true;
	}
	/* Descriptors of another user's processes are not shown to who is not root. */
	snprintf(buf, size, "a process of uid %u", uid);
	return true;
}

/* ---- opening ---- */

/* The socket is 0660, and Linux honours that, so others cannot connect; but where they may write
 * they could put a socket of their own in its place. */
static int check_directory(const struct listen_address *a, struct err *e)
{
	char dir[sizeof(a->path)], *slash;
	struct stat st;

	str_copy(dir, sizeof(dir), a->path);
	slash = strrchr(dir, '/');
	if (slash == dir)
		slash++;
	*slash = '\0';
	if (stat(dir, &st) < 0)
		return err_set(e, -errno, "ipc://%s: directory %s: %s", a->path, dir,
			       err_text(-errno));
	if (st.st_mode & S_IWOTH)
		return err_set(e, -EPERM,
			       "ipc://%s: refused, directory %s (mode %04o) is open to "
			       "other users and there is no TLS; chmod o-w it",
			       a->path, dir, st.st_mode & 07777);
	return 0;
}

static bool ipc_is_stale(const struct listen_address *a)
{
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct stat st;

	if (fd < 0 || lstat(a->path, &st) < 0 || !S_ISSOCK(st.st_mode))
		return false;
	return connect(fd, (const struct sockaddr *)&a->addr, a->len) < 0 && errno == ECONNREFUSED;
}

static int bind_ipc(int fd, const struct listen_address *a, struct err *e)
{
	mode_t mask;
	int r;

	r = check_directory(a, e);
	if (r < 0)
		return r;
	if (ipc_is_stale(a))
		unlink(a->path);
	/* Owner and group may connect: the door, the gate and the core are one group. */
	mask = umask(0117);
	r = bind(fd, (const struct sockaddr *)&a->addr, a->len) < 0 ? -errno : 0;
	umask(mask);
	if (r == -EADDRINUSE)
		return err_set(e, r,
			       "ipc://%s: in use by another process; stop it or choose "
			       "another path",
			       a->path);
	if (r < 0)
		return err_set(e, r, "ipc://%s: %s", a->path, err_text(r));
	return 0;
}

static int bind_tcp(int fd, const char *address, const struct listen_address *a, struct err *e)
{
	const int on = 1;
	char holder[96];

	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
		return err_set(e, -errno, "%.200s: %s", address, err_text(-errno));
	if (bind(fd, (const struct sockaddr *)&a->addr, a->len) == 0)
		return 0;
	if (errno != EADDRINUSE)
		return err_set(e, -errno, "%.200s: %s", address, err_text(-errno));
	if (!listen_holder(a, holder, sizeof(holder)))
		str_copy(holder, sizeof(holder), "another process");
	return err_set(e, -EADDRINUSE, "%.200s: port in use by %s; stop it or choose another port",
		       address, holder);
}

static int open_any(const char *address, bool is_secured, int backlog, int *ret_fd, struct err *e)
{
	_cleanup_close_ int fd = -1;
	struct listen_address a;
	int r;

	r = listen_parse(address, &a, e);
	if (r < 0)
		return r;
	if (a.is_tls && !is_secured)
		return err_set(e, -EINVAL, "%.200s: there is no TLS here; use tcp:// or ipc://",
			       address);
	if (!a.is_ipc && !a.is_tls && !listen_is_loopback(&a))
		return err_set(e, -EPERM,
			       "%.200s: refused, the address is not loopback and has no "
			       "TLS; use 127.0.0.1%s or ipc://",
			       address, is_secured ? ", tls+tcp://" : "");
	fd = socket(a.addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_set(e, -errno, "%.200s: %s", address, err_text(-errno));
	r = a.is_ipc ? bind_ipc(fd, &a, e) : bind_tcp(fd, address, &a, e);
	if (r < 0)
		return r;
	if (listen(fd, backlog) < 0) {
		/* Linux finds some conflicts only here. */
		char holder[96];

		r = -errno;
		if (r == -EADDRINUSE && listen_holder(&a, holder, sizeof(holder)))
			return err_set(e, r,
				       "%.200s: port in use by %s; stop it or choose another "
				       "port",
				       address, holder);
		return err_set(e, r, "%.200s: %s", address, err_text(r));
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int listen_open(const char *address, int backlog, int *ret_fd, struct err *e)
{
	return open_any(address, false, backlog, ret_fd, e);
}

int listen_open_secured(const char *address, int backlog, int *ret_fd, struct err *e)
{
	return open_any(address, true, backlog, ret_fd, e);
}

int listen_connect(const char *address, int *ret_fd, struct err *e)
{
	_cleanup_close_ int fd = -1;
	struct listen_address a;
	const int on = 1;
	int r;

	r = listen_parse(address, &a, e);
	if (r < 0)
		return r;
	fd = socket(a.addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_set(e, -errno, "%.200s: %s", address, err_text(-errno));
	if (!a.is_ipc)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(fd, (const struct sockaddr *)&a.addr, a.len) < 0 && errno != EINPROGRESS)
		return err_set(e, -errno, "%.200s: %s", address, err_text(-errno));
	r = 0;
	if (!a.is_ipc) {
		struct sockaddr_storage peer;
		socklen_t len = sizeof(peer);

		if (getpeername(fd, (struct sockaddr *)&peer, &len) < 0)
			r = -EINPROGRESS;
	}
	*ret_fd = TAKE_FD(fd);
	return r;
}
