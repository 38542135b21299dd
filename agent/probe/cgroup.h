/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which control groups a process is in and what they say: v1 controllers, v2, or both at once. No
 * state. Runs in the keeper.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define CGROUP_PATH_BYTES 512
#define CGROUP_DEPTH      16 /* groups above one that are asked for limits */

/* Directory of one controller's group; top is how long the part of it is that is the mount. */
struct cgroup_dir {
	char path[CGROUP_PATH_BYTES]; /* "": not found */
	size_t top;
	bool is_v2;
};

struct cgroup {
	struct cgroup_dir cpu, memory;
	struct cgroup_dir unified; /* v2, hybrid or not: pressure */
};

/* Pure: finds the directories from the texts of /proc/self/mountinfo and /proc/PID/cgroup. prefix
 * is put before each path ("" for our own view). A group outside of every mount is "". */
void cgroup_locate(const char *mountinfo, const char *cgroups, const char *prefix,
		   struct cgroup *ret);

/* Through our mounts, else through those that the process sees (a container of its own). */
int cgroup_of(pid_t pid, struct cgroup *ret);

/* Pure: -ENODATA where the text says unlimited or nothing, -EINVAL where it is not what it should
 * be. */
int cgroup_parse_cpu_max(const char *text, double *ret_cores);
int cgroup_parse_memory(const char *text, uint64_t *ret_bytes);
int cgroup_parse_field(const char *text, const char *key, uint64_t *ret);

/* The least of the group's limits and those above it. -ENODATA: unlimited. */
int cgroup_cpu_limit(const struct cgroup *g, double *ret_cores);
int cgroup_memory_limit(const struct cgroup *g, uint64_t *ret_bytes);
/* Sum over the group and those above it since they were made. -ENODATA: not accounted. */
int cgroup_throttled_ns(const struct cgroup *g, uint64_t *ret_ns);
/* Memory in use without file pages that have not been used for long (the working set). */
int cgroup_memory(const struct cgroup *g, uint64_t *ret_bytes);
/* True when every process in the memory group is one of pids, and the group is not the topmost. */
bool cgroup_is_own(const struct cgroup *g, const pid_t *pids, size_t count);
