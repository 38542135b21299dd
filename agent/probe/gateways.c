/* SPDX-License-Identifier: Apache-2.0 */
/* Finding gateways in /proc. Owns the parsed matchers. Runs in the keeper and in doctor. */
#include "probe/gateways.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/process.h"
#include "base/str.h"
#include "probe/sockets.h"
#include "probe/system.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Programs that are gateways without being configured; one row a program. */
static const struct known_gateway {
	const char *exe, *driver;
	bool is_go;
	const char *worker; /* in the titles of workers; NULL: every child is one */
} known_gateways[] = {
	{"nginx", "nginx", false, "nginx: worker process"},
	{"openresty", "nginx", false, "nginx: worker process"},
	{"kong", "nginx", false, "nginx: worker process"},
	{"haproxy", "haproxy", false, NULL},
	{"caddy", "caddy", true, NULL},
	{"traefik", "traefik", true, NULL},
	/* "<name>: master", which has worker, admin and helper beside it, and at a restart the next
	 * master below it */
	{"apinto", "apinto", true, ": worker"},
};

#define MATCHERS_MAX   64
#define PROCESSES_MAX  4096
#define LISTENER_LOOKS 16 /* workers that are looked at where the master listens nowhere */

struct matcher {
	char name[64], exe[192];
	uint16_t port; /* 0: any */
};

struct candidate {
	pid_t pid, parent;
	const struct known_gateway *known;
	bool is_matched; /* by a matcher's executable */
	int root;        /* index of the topmost candidate above it */
};

/* What was found of an instance. Reading the sockets of a namespace costs milliseconds, so it is
 * not done again while master and members stay the same. */
struct remembered {
	struct gateway_found *found; /* NULL: free */
	bool is_wanted, is_seen;
	uint64_t members; /* hash of the process ids */
	uint64_t looked_ns;
	unsigned int looks; /* with these members */
};

/* Titles and listeners of new processes settle within a few scans. */
#define LOOKS_SURE       3
#define LOOK_AGAIN_NS    (60 * NS_PER_S)
#define LOOK_UNWANTED_NS (10 * NS_PER_S) /* it may begin to listen late */

/* Processes that are no gateway's, in the order of /proc, which is that of their numbers. Each may
 * become one's by exec, so they are looked at again, but not at each scan: there may be thousands. */
struct others {
	pid_t *pids;
	size_t count, room;
};

#define OTHERS_MOST     65536u /* those beyond are looked at each time */
#define OTHERS_AGAIN_NS (10 * NS_PER_S)

struct gateways {
	struct remembered remembered[MATCHERS_MAX];
	struct matcher matchers[MATCHERS_MAX];
	size_t matcher_count;
	struct candidate *candidates;
	size_t candidate_count, candidates_refused;
	struct others others, others_before;
	uint64_t others_ns; /* when all were looked at */
	bool is_again;      /* all are to be looked at by the next scan */
	unsigned int
		unreadable; /* processes whose executable the last scan was not allowed to see */
	/* Listeners of one network namespace; of this scan. */
	struct sockets sockets;
	uint64_t sockets_netns;
	bool has_sockets;
};

/* name=exe[:port] */
static int parse_matcher(const char *text, struct matcher *ret, struct err *e)
{
	struct matcher m = {0};
	const char *eq = strchr(text, '='), *colon;
	uint64_t port;

	if (!eq || eq == text || !eq[1])
		return err_set(e, -EINVAL, "gateways.match `%s` is not name=exe or name=exe:port",
			       text);
	if ((size_t)(eq - text) >= sizeof(m.name) || !str_copy(m.exe, sizeof(m.exe), eq + 1))
		return err_set(e, -EINVAL, "gateways.match `%s` is too long", text);
	memcpy(m.name, text, (size_t)(eq - text));
	colon = strrchr(m.exe, ':');
	if (colon) {
		if (str_to_u64(colon + 1, &port) < 0 || port == 0 || port > 65535)
			return err_set(e, -EINVAL, "gateways.match `%s`: `%s` is not a port", text,
				       colon + 1);
		m.port = (uint16_t)port;
		m.exe[colon - m.exe] = '\0';
	}
	*ret = m;
	return 0;
}

int gateways_open(const struct config_list *matchers, struct gateways **ret, struct err *e)
{
	struct gateways *g = calloc(1, sizeof(*g));
	int r = 0;

	if (g)
		g->candidates = calloc(PROCESSES_MAX, sizeof(g->candidates[0]));
	if (!g || !g->candidates) {
		free(g);
		return err_set(e, -ENOMEM, "out of memory");
	}
	for (size_t i = 0; i < matchers->count && i < MATCHERS_MAX && r >= 0; i++)
		r = parse_matcher(matchers->items[i], &g->matchers[g->matcher_count++], e);
	if (r < 0) {
		gateways_close(g);
		return r;
	}
	*ret = g;
	return 0;
}

struct gateways *gateways_close(struct gateways *g)
{
	if (!g)
		return NULL;
	for (size_t i = 0; i < ARRAY_LEN(g->remembered); i++)
		free(g->remembered[i].found);
	free(g->others.pids);
	free(g->others_before.pids);
	free(g->candidates);
	free(g);
	return NULL;
}

/* ---- candidates: processes with the right executable ---- */

static int read_exe(pid_t pid, char *buf, size_t size)
{
	static const char deleted[] = " (deleted)"; /* after a package upgrade */
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
	n = readlink(path, buf, size - 1);
	if (n < 0)
		return -errno;
	buf[n] = '\0';
	if (str_ends(buf, deleted))
		buf[(size_t)n - strlen(deleted)] = '\0';
	return 0;
}

static pid_t read_parent(pid_t pid)
{
	char path[64], buf[1024];
	const char *p;
	int parent;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	if (str_read_file(path, buf, sizeof(buf)) < 0)
		return 0;
	p = strrchr(buf, ')');
	return p && sscanf(p + 1, " %*c %d", &parent) == 1 ? parent : 0;
}

static const struct known_gateway *find_known(const char *base)
{
	for (size_t i = 0; i < ARRAY_LEN(known_gateways); i++)
		if (str_equal(known_gateways[i].exe, base))
			return &known_gateways[i];
	return NULL;
}

/* False: this one is not a gateway's. */
static bool consider(struct gateways *g, pid_t pid)
{
	struct candidate c = {.pid = pid};
	const char *base;
	char exe[512];
	int r = read_exe(pid, exe, sizeof(exe));

	if (r == -EACCES || r == -EPERM) {
		g->unreadable++;
		return true;
	}
	if (r < 0)
		return false;
	base = strrchr(exe, '/');
	base = base ? base + 1 : exe;
	c.known = find_known(base);
	for (size_t i = 0; i < g->matcher_count && !c.is_matched; i++)
		c.is_matched =
			str_equal(g->matchers[i].exe, g->matchers[i].exe[0] == '/' ? exe : base);
	if (g->matcher_count ? !c.is_matched : !c.known)
		return false;
	if (g->candidate_count == PROCESSES_MAX) {
		g->candidates_refused++;
		return true;
	}
	c.parent = read_parent(pid);
	g->candidates[g->candidate_count++] = c;
	return true;
}

static void others_add(struct others *o, pid_t pid)
{
	size_t room = o->room ? o->room * 2 : 256;
	pid_t *more;

	if (o->count == OTHERS_MOST)
		return;
	if (o->count == o->room) {
		more = realloc(o->pids, room * sizeof(*more));
		if (!more)
			return;
		o->pids = more;
		o->room = room;
	}
	o->pids[o->count++] = pid;
}

static void consider_all(struct gateways *g, DIR *dir, uint64_t now)
{
	struct others before = g->others;
	const struct dirent *entry;
	size_t at = 0;
	pid_t pid;

	if (g->is_again || !g->others_ns || now - g->others_ns >= OTHERS_AGAIN_NS) {
		before.count = 0;
		g->others_ns = now;
		g->is_again = false;
	}
	g->others = g->others_before;
	g->others.count = 0;
	g->others_before = before;
	while ((entry = readdir(dir))) {
		if (entry->d_name[0] < '1' || entry->d_name[0] > '9')
			continue;
		pid = (pid_t)atoi(entry->d_name);
		while (at < before.count && before.pids[at] < pid)
			at++;
		if ((at < before.count && before.pids[at] == pid) || !consider(g, pid))
			others_add(&g->others, pid);
	}
}

static int compare_candidates(const void *a, const void *b)
{
	const struct candidate *x = a, *y = b;

	return (x->pid > y->pid) - (x->pid < y->pid);
}

static int find_candidate(const struct gateways *g, pid_t pid)
{
	const struct candidate key = {.pid = pid}, *c;

	c = bsearch(&key, g->candidates, g->candidate_count, sizeof(key), compare_candidates);
	return c ? (int)(c - g->candidates) : -1;
}

static void find_roots(struct gateways *g)
{
	qsort(g->candidates, g->candidate_count, sizeof(g->candidates[0]), compare_candidates);
	for (size_t i = 0; i < g->candidate_count; i++) {
		int root = (int)i;

		/* Bounded: /proc is not read at one moment, parents may form a ring. */
		for (unsigned int depth = 0; depth < 8; depth++) {
			int up = find_candidate(g, g->candidates[root].parent);

			if (up < 0 || up == root)
				break;
			root = up;
		}
		g->candidates[i].root = root;
	}
}

/* ---- one instance ---- */

struct listener_scan {
	const struct sockets *sockets;
	struct gateway_found *found;
};

static void on_listener(void *data, int fd, uint64_t inode)
{
	struct listener_scan *scan = data;
	struct gateway_found *f = scan->found;
	const struct socket_row *row = sockets_find(scan->sockets, inode);

	(void)fd;
	if (!row || row->state != SOCKET_LISTENING)
		return;
	if (!row->port) {
		f->has_unix_listener = true;
		return;
	}
	if (f->listener_count < GATEWAY_LISTENERS)
		f->listeners[f->listener_count++] = (uint32_t)inode;
	for (unsigned int i = 0; i < f->port_count; i++)
		if (f->ports[i] == row->port)
			return;
	if (f->port_count < GATEWAY_PORTS)
		f->ports[f->port_count++] = row->port;
}

/* Some say in their titles what a child is; everybody else's children work. */
static enum slot_role role_of(const struct gateway_found *f, const struct known_gateway *known,
			      pid_t pid, bool is_alone)
{
	char path[64], title[256];

	if (is_alone)
		return ROLE_WORKER;
	if (pid == f->master)
		return ROLE_MASTER;
	if (!known || !known->worker)
		return ROLE_WORKER;
	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
	if (str_read_file(path, title, sizeof(title)) < 0)
		return ROLE_HELPER;
	return strstr(title, known->worker) ? ROLE_WORKER : ROLE_HELPER;
}

static bool has_port(const struct gateway_found *f, uint16_t port)
{
	for (unsigned int i = 0; i < f->port_count; i++)
		if (f->ports[i] == port)
			return true;
	return false;
}

/* Executables may have several matchers, which their ports tell apart: the first that fits. */
static const struct matcher *find_matcher(const struct gateways *g, const struct gateway_found *f)
{
	const char *base = strrchr(f->exe, '/');

	base = base ? base + 1 : f->exe;
	for (size_t i = 0; i < g->matcher_count; i++) {
		const struct matcher *m = &g->matchers[i];

		if (str_equal(m->exe, m->exe[0] == '/' ? f->exe : base) &&
		    (m->port ? has_port(f, m->port) : f->port_count || f->has_unix_listener))
			return m;
	}
	return NULL;
}

static void forget_listeners(struct gateways *g)
{
	sockets_fini(&g->sockets);
	g->has_sockets = false;
}

/* Once a scan and namespace, as long as gateways of one follow each other. */
static int read_listeners(struct gateways *g, pid_t pid)
{
	uint64_t netns;
	int r = system_net_namespace(pid, &netns);

	if (r < 0 || (g->has_sockets && g->sockets_netns == netns))
		return r;
	forget_listeners(g);
	r = sockets_read_listeners(pid, &g->sockets);
	g->sockets_netns = netns;
	g->has_sockets = r >= 0;
	return r;
}

/* SO_REUSEPORT listeners are open in workers too; the master has them all. HAProxy's has none but that
 * of its command socket; its workers have them, the newest: those before it end. */
static void find_listeners(const struct gateways *g, int root, struct gateway_found *f)
{
	struct listener_scan scan = {.sockets = &g->sockets, .found = f};
	unsigned int looked = 0, own;

	sockets_each_fd(f->master, on_listener, &scan);
	own = f->port_count;
	if (own && !str_equal(f->driver, "haproxy"))
		return;
	for (size_t i = g->candidate_count;
	     i-- > 0 && f->port_count == own && looked < LISTENER_LOOKS;) {
		if (g->candidates[i].root != root || g->candidates[i].pid == f->master)
			continue;
		sockets_each_fd(g->candidates[i].pid, on_listener, &scan);
		looked++;
	}
}

static int fill_found(struct gateways *g, int root, struct gateway_found *f)
{
	const struct candidate *top = &g->candidates[root];
	const struct matcher *matcher;
	unsigned int members = 0;
	int r;

	*f = (struct gateway_found){.master = top->pid, .is_go = top->known && top->known->is_go};
	r = process_start_time(top->pid, &f->master_start);
	if (r >= 0)
		r = read_exe(top->pid, f->exe, sizeof(f->exe));
	if (r >= 0)
		r = read_listeners(g, top->pid);
	if (r < 0)
		return r;
	if (top->known)
		str_copy(f->driver, sizeof(f->driver), top->known->driver);
	for (size_t i = 0; i < g->candidate_count; i++)
		members += g->candidates[i].root == root;
	find_listeners(g, root, f);
	for (size_t i = 0; i < g->candidate_count; i++) {
		pid_t pid = g->candidates[i].pid;

		if (g->candidates[i].root != root || f->process_count == GATEWAY_PROCESSES)
			continue;
		f->processes[f->process_count++] = (struct gateway_process){
			.pid = pid, .role = role_of(f, top->known, pid, members == 1)};
	}
	matcher = find_matcher(g, f);
	str_copy(f->name, sizeof(f->name),
		 matcher ? matcher->name
			 : (strrchr(f->exe, '/') ? strrchr(f->exe, '/') + 1 : f->exe));
	return 0;
}

static bool is_wanted(const struct gateways *g, const struct gateway_found *f)
{
	return g->matcher_count ? find_matcher(g, f) != NULL
				: f->port_count || f->has_unix_listener;
}

/* FNV-1a over the members, in the order of their numbers. */
static uint64_t hash_members(const struct gateways *g, int root)
{
	uint64_t hash = 14695981039346656037ULL;

	for (size_t i = 0; i < g->candidate_count; i++) {
		if (g->candidates[i].root != root)
			continue;
		hash = (hash ^ (uint64_t)g->candidates[i].pid) * 1099511628211ULL;
	}
	return hash;
}

static struct remembered *remember(struct gateways *g, pid_t master, uint64_t start)
{
	struct remembered *vacant = NULL;

	for (size_t i = 0; i < ARRAY_LEN(g->remembered); i++) {
		struct remembered *m = &g->remembered[i];

		if (!m->found && !vacant)
			vacant = m;
		else if (m->found && m->found->master == master && m->found->master_start == start)
			return m;
	}
	if (!vacant)
		return NULL;
	*vacant = (struct remembered){.found = calloc(1, sizeof(*vacant->found))};
	return vacant->found ? vacant : NULL;
}

/* Fills *f from memory where nothing changed, else by looking. False: not a gateway of ours. */
static bool look(struct gateways *g, int root, uint64_t now, struct gateway_found *f)
{
	pid_t master = g->candidates[root].pid;
	uint64_t start, members = hash_members(g, root);
	struct remembered *m;

	if (process_start_time(master, &start) < 0)
		return false;
	m = remember(g, master, start);
	if (m && m->members == members && m->looks >= LOOKS_SURE &&
	    now - m->looked_ns < (m->is_wanted ? LOOK_AGAIN_NS : LOOK_UNWANTED_NS)) {
		m->is_seen = true;
		*f = *m->found;
		return m->is_wanted;
	}
	if (fill_found(g, root, f) < 0)
		return false;
	if (!m)
		return is_wanted(g, f);
	m->looks = m->members == members ? m->looks + 1 : 1;
	m->members = members;
	m->looked_ns = now;
	m->is_seen = true;
	m->is_wanted = is_wanted(g, f);
	*m->found = *f;
	m->found->is_remembered = true;
	return m->is_wanted;
}

static void forget_unseen(struct gateways *g)
{
	for (size_t i = 0; i < ARRAY_LEN(g->remembered); i++) {
		struct remembered *m = &g->remembered[i];

		if (m->found && !m->is_seen) {
			free(m->found);
			*m = (struct remembered){0};
		}
		m->is_seen = false;
	}
}

int gateways_scan(struct gateways *g, struct gateway_found *ret, unsigned int max,
		  uint64_t *ret_refused)
{
	_cleanup_dir_ DIR *dir = opendir("/proc");
	uint64_t now = clock_mono_ns();
	unsigned int n = 0;

	if (!dir)
		return -errno;
	g->candidate_count = g->candidates_refused = 0;
	g->unreadable = 0;
	consider_all(g, dir, now);
	find_roots(g);
	*ret_refused = g->candidates_refused;
	for (size_t i = 0; i < g->candidate_count; i++) {
		if (g->candidates[i].root != (int)i)
			continue;
		if (n == max)
			(*ret_refused)++;
		else if (look(g, (int)i, now, &ret[n]))
			n++;
	}
	forget_unseen(g);
	forget_listeners(g);
	return (int)n;
}

void gateways_look_again(struct gateways *g)
{
	g->is_again = true;
}

unsigned int gateways_unreadable(const struct gateways *g)
{
	return g->unreadable;
}

/* ---- members ---- */

void gateways_each_beyond(const struct gateways *g, pid_t master, void (*fn)(void *data, pid_t pid),
			  void *data)
{
	int root = find_candidate(g, master);
	unsigned int n = 0;

	for (size_t i = 0; root >= 0 && i < g->candidate_count; i++)
		if (g->candidates[i].root == root && n++ >= GATEWAY_PROCESSES)
			fn(data, g->candidates[i].pid);
}

int gateways_each_thread(pid_t pid, void (*fn)(void *data, pid_t tid), void *data)
{
	_cleanup_dir_ DIR *dir = NULL;
	const struct dirent *entry;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	if (!dir)
		return errno == ENOENT ? -ESRCH : -errno;
	while ((entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			fn(data, (pid_t)atoi(entry->d_name));
	return 0;
}
