/* SPDX-License-Identifier: Apache-2.0 */
/* Control groups of a process, v1 and v2. No state. Runs in the keeper. */
#include "probe/cgroup.h"

#include "base/cleanup.h"
#include "base/str.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MOUNTS_BYTES    65536
#define V1_MEMORY_LIMIT ((uint64_t)1 << 62) /* v1 says "unlimited" as the largest page count */

/* ---- where ---- */

/* Is word one of the comma separated ones of list[0..len)? */
static bool has_word(const char *list, size_t len, const char *word)
{
	size_t n = strlen(word);

	for (const char *p = list; p < list + len;) {
		const char *comma = memchr(p, ',', (size_t)(list + len - p));
		size_t size = (size_t)((comma ? comma : list + len) - p);

		if (size == n && memcmp(p, word, n) == 0)
			return true;
		p += size + 1;
	}
	return false;
}

/* Path of the process within a hierarchy: v2 when controller is "". False: not in the text. */
static bool find_path(const char *cgroups, const char *controller, char *ret, size_t size)
{
	for (const char *line = cgroups; line && *line;) {
		const char *end = strchrnul(line, '\n');
		const char *list = memchr(line, ':', (size_t)(end - line));
		const char *path = list ? memchr(list + 1, ':', (size_t)(end - list - 1)) : NULL;

		if (path) {
			size_t len = (size_t)(path - list - 1), bytes = (size_t)(end - path - 1);
			bool is_it = controller[0] ? has_word(list + 1, len, controller) : !len;

			if (is_it && bytes && bytes < size) {
				memcpy(ret, path + 1, bytes);
				ret[bytes] = '\0';
				return true;
			}
		}
		line = *end ? end + 1 : NULL;
	}
	return false;
}

struct mount {
	char root[CGROUP_PATH_BYTES], point[CGROUP_PATH_BYTES];
};

/* The mount of a controller's hierarchy. */
static bool find_mount(const char *mountinfo, const char *controller, struct mount *ret)
{
	char line[2048];

	while (*mountinfo) {
		const char *end = strchrnul(mountinfo, '\n');
		size_t len = (size_t)(end - mountinfo);
		char type[32], options[256];
		const char *rest;
		struct mount m;

		if (len < sizeof(line)) {
			memcpy(line, mountinfo, len);
			line[len] = '\0';
			rest = strstr(line, " - ");
			if (rest && sscanf(line, "%*s %*s %*s %511s %511s", m.root, m.point) == 2 &&
			    sscanf(rest, " - %31s %*s %255s", type, options) == 2 &&
			    (controller[0] ? str_equal(type, "cgroup") &&
						     has_word(options, strlen(options), controller)
					   : str_equal(type, "cgroup2"))) {
				*ret = m;
				return true;
			}
		}
		mountinfo = *end ? end + 1 : end;
	}
	return false;
}

static void locate(const char *mountinfo, const char *cgroups, const char *prefix,
		   const char *controller, struct cgroup_dir *ret)
{
	char path[CGROUP_PATH_BYTES];
	const char *below = path;
	struct cgroup_dir d = {.is_v2 = !controller[0]};
	struct mount m;
	int n;

	*ret = (struct cgroup_dir){.is_v2 = d.is_v2};
	if (!find_path(cgroups, controller, path, sizeof(path)) ||
	    !find_mount(mountinfo, controller, &m))
		return;
	/* A bind mount of a group: paths begin with its root. */
	if (!str_equal(m.root, "/")) {
		size_t len = strlen(m.root);

		if (!str_starts(path, m.root) || (path[len] && path[len] != '/'))
			return;
		below = path + len;
	}
	/* "/..": above the root of our cgroup namespace. */
	if (str_starts(below, "/..") || strstr(below, "/../"))
		return;
	if (str_equal(below, "/"))
		below = "";
	d.top = strlen(prefix) + strlen(m.point);
	n = snprintf(d.path, sizeof(d.path), "%s%s%s", prefix, m.point, below);
	if (n > 0 && (size_t)n < sizeof(d.path))
		*ret = d;
}

void cgroup_locate(const char *mountinfo, const char *cgroups, const char *prefix,
		   struct cgroup *ret)
{
	locate(mountinfo, cgroups, prefix, "", &ret->unified);
	locate(mountinfo, cgroups, prefix, "cpu", &ret->cpu);
	locate(mountinfo, cgroups, prefix, "memory", &ret->memory);
	if (!ret->cpu.path[0])
		ret->cpu = ret->unified;
	if (!ret->memory.path[0])
		ret->memory = ret->unified;
}

static int read_value(const struct cgroup_dir *d, size_t len, const char *file, char *buf,
		      size_t size)
{
	char path[CGROUP_PATH_BYTES + 64];

	if (!d->path[0])
		return -ENODATA;
	snprintf(path, sizeof(path), "%.*s/%s", (int)len, d->path, file);
	return str_read_file(path, buf, size);
}

static bool is_there(const struct cgroup_dir *d)
{
	return d->path[0] && access(d->path, X_OK) == 0;
}

int cgroup_of(pid_t pid, struct cgroup *ret)
{
	_cleanup_free_ char *mounts = malloc(MOUNTS_BYTES);
	char path[64], prefix[32], cgroups[4096];
	struct cgroup g;
	int r;

	if (!mounts)
		return -ENOMEM;
	snprintf(path, sizeof(path), "/proc/%d/cgroup", (int)pid);
	r = str_read_file(path, cgroups, sizeof(cgroups));
	if (r >= 0)
		r = str_read_file("/proc/self/mountinfo", mounts, MOUNTS_BYTES);
	if (r < 0)
		return r;
	cgroup_locate(mounts, cgroups, "", &g);
	if (is_there(&g.memory) || is_there(&g.cpu)) {
		*ret = g;
		return 0;
	}
	/* Its own cgroup namespace begins at its group, whatever the path is called from here. */
	snprintf(path, sizeof(path), "/proc/%d/mountinfo", (int)pid);
	snprintf(prefix, sizeof(prefix), "/proc/%d/root", (int)pid);
	r = str_read_file(path, mounts, MOUNTS_BYTES);
	if (r < 0)
		return r;
	cgroup_locate(mounts, "2:memory:/\n1:cpu:/\n0::/\n", prefix, &g);
	if (!is_there(&g.memory) && !is_there(&g.cpu))
		return -ENOENT;
	*ret = g;
	return 0;
}

/* ---- what they say ---- */

int cgroup_parse_cpu_max(const char *text, double *ret_cores)
{
	uint64_t quota, period;

	if (str_starts(text, "max"))
		return -ENODATA;
	if (sscanf(text, "%" SCNu64 " %" SCNu64, &quota, &period) != 2 || !period)
		return -EINVAL;
	*ret_cores = (double)quota / (double)period;
	return 0;
}

int cgroup_parse_memory(const char *text, uint64_t *ret_bytes)
{
	uint64_t bytes;

	if (str_equal(text, "max"))
		return -ENODATA;
	if (str_to_u64(text, &bytes) < 0)
		return -EINVAL;
	if (bytes >= V1_MEMORY_LIMIT)
		return -ENODATA;
	*ret_bytes = bytes;
	return 0;
}

int cgroup_parse_field(const char *text, const char *key, uint64_t *ret)
{
	size_t n = strlen(key);
	uint64_t value;

	for (const char *line = text; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, key, n) != 0 || line[n] != ' ')
			continue;
		if (sscanf(line + n, " %" SCNu64, &value) != 1)
			return -EINVAL;
		*ret = value;
		return 0;
	}
	return -ENODATA;
}

/* Length of the path of the group above; 0: there is none in this mount. */
static size_t above(const struct cgroup_dir *d, size_t len)
{
	if (len <= d->top)
		return 0;
	while (len > d->top && d->path[len - 1] != '/')
		len--;
	return len > d->top ? len - 1 : d->top;
}

static int cpu_limit_at(const struct cgroup_dir *d, size_t len, double *ret)
{
	char text[128], period[64];
	int r;

	if (d->is_v2) {
		r = read_value(d, len, "cpu.max", text, sizeof(text));
	} else {
		r = read_value(d, len, "cpu.cfs_quota_us", text, 64);
		if (r >= 0)
			r = read_value(d, len, "cpu.cfs_period_us", period, sizeof(period));
		if (r >= 0 && text[0] == '-')
			return -ENODATA;
		if (r >= 0) {
			size_t n = strlen(text);

			snprintf(text + n, sizeof(text) - n, " %s", period);
		}
	}
	return r < 0 ? r : cgroup_parse_cpu_max(text, ret);
}

int cgroup_cpu_limit(const struct cgroup *g, double *ret_cores)
{
	size_t len = strlen(g->cpu.path);
	bool is_known = false;
	double cores, least = 0;

	for (unsigned int i = 0; len && i < CGROUP_DEPTH; i++, len = above(&g->cpu, len)) {
		if (cpu_limit_at(&g->cpu, len, &cores) < 0)
			continue;
		least = is_known && least < cores ? least : cores;
		is_known = true;
	}
	if (!is_known)
		return -ENODATA;
	*ret_cores = least;
	return 0;
}

int cgroup_memory_limit(const struct cgroup *g, uint64_t *ret_bytes)
{
	const char *file = g->memory.is_v2 ? "memory.max" : "memory.limit_in_bytes";
	size_t len = strlen(g->memory.path);
	uint64_t bytes, least = UINT64_MAX;
	char text[64];

	for (unsigned int i = 0; len && i < CGROUP_DEPTH; i++, len = above(&g->memory, len))
		if (read_value(&g->memory, len, file, text, sizeof(text)) >= 0 &&
		    cgroup_parse_memory(text, &bytes) >= 0 && bytes < least)
			least = bytes;
	if (least == UINT64_MAX)
		return -ENODATA;
	*ret_bytes = least;
	return 0;
}

int cgroup_throttled_ns(const struct cgroup *g, uint64_t *ret_ns)
{
	const char *key = g->cpu.is_v2 ? "throttled_usec" : "throttled_time";
	size_t len = strlen(g->cpu.path);
	uint64_t value, sum = 0;
	bool is_known = false;
	char text[2048];

	for (unsigned int i = 0; len && i < CGROUP_DEPTH; i++, len = above(&g->cpu, len)) {
		if (read_value(&g->cpu, len, "cpu.stat", text, sizeof(text)) < 0 ||
		    cgroup_parse_field(text, key, &value) < 0)
			continue;
		sum += g->cpu.is_v2 ? value * 1000 : value;
		is_known = true;
	}
	if (!is_known)
		return -ENODATA;
	*ret_ns = sum;
	return 0;
}

int cgroup_memory(const struct cgroup *g, uint64_t *ret_bytes)
{
	const struct cgroup_dir *d = &g->memory;
	size_t len = strlen(d->path);
	uint64_t bytes, inactive;
	char text[8192];
	int r;

	r = read_value(d, len, d->is_v2 ? "memory.current" : "memory.usage_in_bytes", text,
		       sizeof(text));
	if (r >= 0)
		r = cgroup_parse_memory(text, &bytes);
	if (r < 0)
		return r;
	r = read_value(d, len, "memory.stat", text, sizeof(text));
	if (r >= 0)
		r = cgroup_parse_field(text, d->is_v2 ? "inactive_file" : "total_inactive_file",
				       &inactive);
	if (r < 0)
		return r;
	*ret_bytes = bytes > inactive ? bytes - inactive : 0;
	return 0;
}

bool cgroup_is_own(const struct cgroup *g, const pid_t *pids, size_t count)
{
	const struct cgroup_dir *d = &g->memory;
	char path[CGROUP_PATH_BYTES + 16];
	_cleanup_file_ FILE *f = NULL;
	unsigned int members = 0;
	int pid;

	/* The top of our own view is everything that we see; the top of another's is its group. */
	if (!d->path[0] || (strlen(d->path) <= d->top && !str_starts(d->path, "/proc/")))
		return false;
	snprintf(path, sizeof(path), "%s/cgroup.procs", d->path);
	f = fopen(path, "re");
	while (f && fscanf(f, "%d", &pid) == 1) {
		bool is_known = false;

		for (size_t i = 0; i < count && !is_known; i++)
			is_known = pids[i] == pid;
		if (!is_known)
			return false;
		members++;
	}
	return members > 0;
}
