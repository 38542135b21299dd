/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pins: links, programs and maps of one layout lie together under <pin_dir>/<layout hash>/, so that
 * counting goes on while the keeper is away, and the next keeper adopts all of it or nothing.
 */
#include "probe/set.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "probe/skel.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#ifndef BPF_FS_MAGIC
#define BPF_FS_MAGIC 0xcafe4a11
#endif

#define PINS_MOST 1024 /* entries looked at in one directory */

static const struct {
	const char *name;
	size_t offset; /* of its descriptor in the set */
} pinned_maps[] = {
	{"map_slots", offsetof(struct probe_set, slots_fd)},
	{"map_retired", offsetof(struct probe_set, retired_fd)},
	{"map_connections", offsetof(struct probe_set, connections_fd)},
	{"map_http2_connections", offsetof(struct probe_set, http2_connections_fd)},
	{"map_http2_streams", offsetof(struct probe_set, http2_streams_fd)},
	{"map_control", offsetof(struct probe_set, bss_fd)},
	{"map_upstreams", offsetof(struct probe_set, upstreams_fd)},
	{"map_upstream_indices", offsetof(struct probe_set, upstream_indices_fd)},
	{"map_gc_settings", offsetof(struct probe_set, gc_settings_fd)},
	{"map_records", offsetof(struct probe_set, records_fd)},
	{"map_notices", offsetof(struct probe_set, notices_fd)},
	{"map_gc_calibrations", offsetof(struct probe_set, gc_calibrations_fd)},
	{"map_tls_ties", offsetof(struct probe_set, tls_ties_fd)},
	{"map_tls_calls", offsetof(struct probe_set, tls_calls_fd)},
};

static int *map_fd(struct probe_set *set, size_t i)
{
	return (int *)((char *)set + pinned_maps[i].offset);
}

int pins_dup_maps(struct probe_set *set)
{
	int fds[ARRAY_LEN(pinned_maps)], r;

	for (size_t i = 0; i < ARRAY_LEN(pinned_maps); i++) {
		fds[i] = fcntl(*map_fd(set, i), F_DUPFD_CLOEXEC, 3);
		if (fds[i] < 0) {
			r = -errno;
			while (i--)
				close(fds[i]);
			return r;
		}
	}
	for (size_t i = 0; i < ARRAY_LEN(pinned_maps); i++)
		*map_fd(set, i) = fds[i];
	return 0;
}

void pins_close_maps(struct probe_set *set)
{
	for (size_t i = 0; i < ARRAY_LEN(pinned_maps); i++) {
		cleanup_close(map_fd(set, i));
		*map_fd(set, i) = -1;
	}
}

static int make_dirs(const char *path)
{
	char part[PROBE_PATH_BYTES];

	if (!str_copy(part, sizeof(part), path))
		return -ENAMETOOLONG;
	for (char *p = part + 1;; p++) {
		char c = *p;

		if (c && c != '/')
			continue;
		*p = '\0';
		if (mkdir(part, 0700) < 0 && errno != EEXIST)
			return -errno;
		*p = c;
		if (!c)
			return 0;
	}
}

int pins_prepare(const char *pin_dir, struct err *e)
{
	struct statfs fs;
	char parent[PROBE_PATH_BYTES];
	char *slash;

	/* The nearest directory that is there decides, before anything is made. */
	if (!str_copy(parent, sizeof(parent), pin_dir))
		return err_set(e, -ENAMETOOLONG, "%s: too long", pin_dir);
	while (statfs(parent, &fs) < 0) {
		slash = strrchr(parent, '/');
		if (!slash || slash == parent)
			return err_set(e, -EOPNOTSUPP, "%s: %s", pin_dir, err_text(errno));
		*slash = '\0';
	}
	if ((unsigned long)fs.f_type != BPF_FS_MAGIC)
		return err_set(
			e, -EOPNOTSUPP,
			"%s is no bpffs (mount -t bpf bpf /sys/fs/bpf): counting stops while "
			"the keeper is away",
			parent);
	return make_dirs(pin_dir);
}

int pins_remove(const char *dir)
{
	_cleanup_dir_ DIR *d = opendir(dir);
	char path[PROBE_PATH_BYTES + 256];
	struct dirent *entry;
	unsigned int n = 0;

	if (!d)
		return errno == ENOENT ? 0 : -errno;
	while ((entry = readdir(d)) && n++ < PINS_MOST) {
		if (str_equal(entry->d_name, ".") || str_equal(entry->d_name, ".."))
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
		if (unlink(path) < 0 && errno != ENOENT)
			return -errno;
	}
	return rmdir(dir) < 0 ? -errno : 0;
}

void pins_remove_others(const char *pin_dir, const char *own)
{
	_cleanup_dir_ DIR *d = opendir(pin_dir);
	char path[PROBE_PATH_BYTES + 256];
	struct dirent *entry;
	unsigned int n = 0;
	int r;

	while (d && (entry = readdir(d)) && n++ < PINS_MOST) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s", pin_dir, entry->d_name);
		if (own && str_equal(path, own))
			continue;
		r = pins_remove(path);
		log_info("probe", "removed pins of another layout", "path=%s result=%s", path,
			 r ? err_text(r) : "ok");
	}
}

int probe_unpin(const char *pin_dir, struct err *e)
{
	int r;

	if (!pin_dir || !pin_dir[0])
		return 0;
	pins_remove_others(pin_dir, NULL);
	r = rmdir(pin_dir) < 0 && errno != ENOENT ? -errno : 0;
	return r ? err_set(e, r, "%s: %s", pin_dir, err_text(r)) : 0;
}

static int pin_write(struct probe_set *set, const char *kind, const char *name, int fd,
		     struct err *e)
{
	char path[PROBE_PATH_BYTES + 64];

	snprintf(path, sizeof(path), "%s/%s%s", set->pin_path, kind, name);
	if (bpf_obj_pin(fd, path) < 0)
		return err_set(e, -errno, "%s: %s", path, err_text(errno));
	return 0;
}

int pins_write(struct probe_set *set, struct err *e)
{
	int r = make_dirs(set->pin_path);

	if (r < 0)
		return err_set(e, r, "%s: %s", set->pin_path, err_text(r));
	for (size_t i = 0; i < ARRAY_LEN(pinned_maps) && !r; i++)
		r = pin_write(set, "", pinned_maps[i].name, *map_fd(set, i), e);
	for (size_t i = 0; i < set->program_count && !r; i++)
		r = pin_write(set, "prog_", set->programs[i].name, set->programs[i].fd, e);
	for (size_t i = 0; i < set->link_count && !r; i++)
		r = pin_write(set, "link_", set->links[i].name, set->links[i].fd, e);
	if (r)
		pins_remove(set->pin_path);
	else
		set->is_pinned = true;
	return r;
}

static int adopt_maps(struct probe_set *set)
{
	char path[PROBE_PATH_BYTES + 64];

	for (size_t i = 0; i < ARRAY_LEN(pinned_maps); i++) {
		snprintf(path, sizeof(path), "%s/%s", set->pin_path, pinned_maps[i].name);
		*map_fd(set, i) = bpf_obj_get(path);
		if (*map_fd(set, i) < 0)
			return -errno;
	}
	return cells_map_control(set);
}

static int adopt_objects(struct probe_set *set)
{
	_cleanup_dir_ DIR *d = opendir(set->pin_path);
	char path[PROBE_PATH_BYTES + 256];
	struct dirent *entry;

	if (!d)
		return -errno;
	while ((entry = readdir(d))) {
		const char *name = strchr(entry->d_name, '_');
		bool is_link = str_starts(entry->d_name, "link_");
		int fd;

		if (!is_link && !str_starts(entry->d_name, "prog_"))
			continue;
		if (set->link_count == PROBE_LINKS || set->program_count == PROBE_PROGRAMS)
			return -ENOSPC;
		snprintf(path, sizeof(path), "%s/%s", set->pin_path, entry->d_name);
		fd = bpf_obj_get(path);
		if (fd < 0)
			return -errno;
		if (is_link) {
			set->links[set->link_count].fd = fd;
			str_copy(set->links[set->link_count++].name, PROBE_NAME_BYTES, name + 1);
		} else {
			set->programs[set->program_count].fd = fd;
			str_copy(set->programs[set->program_count++].name, PROBE_NAME_BYTES,
				 name + 1);
		}
	}
	return 0;
}

static void adopt_undo(struct probe_set *set)
{
	for (size_t i = 0; i < set->link_count; i++)
		close(set->links[i].fd);
	for (size_t i = 0; i < set->program_count; i++)
		close(set->programs[i].fd);
	set->link_count = set->program_count = 0;
	cells_unmap(set);
	memset(set->slots, 0, sizeof(set->slots));
	set->bss = NULL;
	set->control = NULL;
	pins_close_maps(set);
}

int pins_adopt(struct probe_set *set, uint64_t maps_id)
{
	const struct control *c;
	unsigned int own = 0;
	int r = adopt_maps(set);

	if (!r)
		r = adopt_objects(set);
	if (r)
		goto refuse;
	c = set->control;
	for (size_t i = 0; i < set->link_count; i++)
		own += !str_starts(set->links[i].name, "gc_");
	/* Programs that have stopped doing anything have missed what happened since. */
	r = -ESTALE;
	if (!maps_id || c->maps_id != maps_id || c->threads != set->threads || !c->tier ||
	    own != c->links || c->is_stale ||
	    clock_mono_ns() - c->heartbeat_ns > HEARTBEAT_LIMIT_NS)
		goto refuse;
	set->tier = c->tier - 1;
	set->has_fork = c->fork_tier != 0;
	set->has_gc = probe_program_fd(set, "gc_step_enter") >= 0;
	set->has_tls = probe_program_fd(set, "tls_enter") >= 0;
	set->is_adopted = set->is_pinned = set->owns_fds = true;
	return 0;
refuse:
	adopt_undo(set);
	return r;
}
