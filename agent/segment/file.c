/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finds or makes the file under a segment. Owns descriptor, lock and mapping. Runs in the keeper
 * (host.seg) and the courier (app.seg), at start only.
 *
 * The lock is a file of its own that only its owner can open: whoever may read the segment could
 * flock the segment itself, and so keep the agent from starting again.
 */
#include "segment/file.h"

#include "base/cleanup.h"
#include "base/str.h"
#include "segment/layout.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define TMPFS_MAGIC_NUMBER 0x01021994
#define FILE_MODE          0640
#define OPEN_TRIES         5

/* A file on a disk can stall its writer for hundreds of milliseconds (write-back). */
static int check_file_system(const char *path, struct err *e)
{
	char dir[PATH_MAX], *slash;
	struct statfs fs;

	if (getenv("TIDEGATE_ANY_FS"))
		return 0;
	if (!str_copy(dir, sizeof(dir), path))
		return err_set(e, -ENAMETOOLONG, "segment %.200s…: path too long", path);
	slash = strrchr(dir, '/');
	if (!slash)
		str_copy(dir, sizeof(dir), ".");
	else
		slash[slash == dir] = '\0';
	if (statfs(dir, &fs) < 0)
		return err_set(e, -errno,
			       "segment %s: directory %s: %s; create it on a tmpfs, or set "
			       "runtime_dir to one",
			       path, dir, err_text(-errno));
	if (fs.f_type != TMPFS_MAGIC_NUMBER)
		return err_set(e, -ENOTSUP,
			       "segment %s: %s is no tmpfs, so the disk could stall the agent; set "
			       "runtime_dir to a directory on tmpfs (/run, or an emptyDir with "
			       "medium: Memory)",
			       path, dir);
	return 0;
}

/* fallocate, not ftruncate: a full tmpfs is an error here instead of a SIGBUS at some later store. */
static int file_map(const struct segment_options *o, uint64_t bytes, int fd, void **ret,
		    struct err *e)
{
	void *map;
	int r;

	do
		r = -posix_fallocate(fd, 0, (off_t)bytes);
	while (r == -EINTR);
	if (r < 0)
		return err_set(e, r,
			       "segment %s: no room for %llu bytes: %s; make its tmpfs larger or "
			       "allow fewer series",
			       o->path, (unsigned long long)bytes, err_text(r));
	map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return err_set(e, -errno, "segment %s: cannot map %llu bytes: %s", o->path,
			       (unsigned long long)bytes, err_text(-errno));
	*ret = map;
	return 0;
}

static int file_permit(const struct segment_options *o, int fd, struct err *e)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_set(e, -errno, "segment %s: %s", o->path, err_text(-errno));
	if (o->group != (gid_t)-1 && st.st_gid != o->group && fchown(fd, (uid_t)-1, o->group) < 0)
		return err_set(e, -errno,
			       "segment %s: cannot give it to group %u: %s; start as a member of "
			       "that group or set group_app",
			       o->path, (unsigned int)o->group, err_text(-errno));
	if ((st.st_mode & 07777) != FILE_MODE && fchmod(fd, FILE_MODE) < 0)
		return err_set(e, -errno, "segment %s: cannot set its mode: %s", o->path,
			       err_text(-errno));
	return 0;
}

static bool is_terminated(const char *s, size_t size)
{
	return memchr(s, '\0', size);
}

/* -ESTALE and why, when what lies in the file cannot be continued in the shape of plan. */
static int contents_check(const void *map, const struct segment_header *plan, struct err *why)
{
	const struct segment_header *h = map;
	const struct segment_gateway *g;
	const struct segment_entry *d;
	struct segment_view view;
	uint64_t cells = 0;

	if (segment_layout_check(h, plan->total_bytes, why) < 0)
		return -ESTALE;
	if (memcmp(h->boot_id, plan->boot_id, sizeof(h->boot_id)) != 0)
		return err_set(why, -ESTALE, "it is of another boot");
	if (h->kind != plan->kind || h->total_bytes != plan->total_bytes ||
	    h->gateways_offset != plan->gateways_offset ||
	    h->gateways_capacity != plan->gateways_capacity ||
	    h->directory_offset != plan->directory_offset ||
	    h->directory_capacity != plan->directory_capacity ||
	    h->heap_offset != plan->heap_offset || h->heap_capacity != plan->heap_capacity ||
	    h->thresholds_offset != plan->thresholds_offset ||
	    h->cells_offset != plan->cells_offset || h->cells_capacity != plan->cells_capacity)
		return err_set(why, -ESTALE, "it has another shape (limits changed)");
	g = (const void *)((const char *)map + h->gateways_offset);
	for (uint32_t i = 0; i < h->gateways_count; i++)
		if (!is_terminated(g[i].name, sizeof(g[i].name)) ||
		    !is_terminated(g[i].instance, sizeof(g[i].instance)) ||
		    !is_terminated(g[i].runtime, sizeof(g[i].runtime)) ||
		    !is_terminated(g[i].driver, sizeof(g[i].driver)) ||
		    g[i].state > SEGMENT_GATEWAY_GONE)
			return err_set(why, -ESTALE, "it is damaged (gateway record %u)", i);
	d = (const void *)((const char *)map + h->directory_offset);
	view = (struct segment_view){
		.kind = plan->kind,
		.heap = (const char *)map + h->heap_offset,
		.heap_used = h->heap_used,
		.cells_used = h->cells_used,
	};
	/* Cells are handed out in the order of the directory, without gaps: no two share one. */
	for (uint32_t i = 0; i < h->directory_count; i++) {
		if (!segment_entry_check(&view, &d[i]) || d[i].value_cell != cells)
			return err_set(why, -ESTALE, "it is damaged (series %u)", i);
		cells += segment_kind_cells(plan->kind, d[i].kind);
	}
	return 0;
}

/* 0: continued. -ENOENT: there is none. -ESTALE: there is one to be replaced, f->reason says why. */
static int file_continue(const struct segment_options *o, const struct segment_header *plan,
			 struct segment_file *f, struct err *e)
{
	_cleanup_close_ int fd = open(o->path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct err why = {0};
	struct stat st;
	void *map;
	int r;

	if (fd < 0 && errno == ENOENT)
		return -ENOENT;
	if (fd < 0 && (errno == ELOOP || errno == EACCES)) {
		str_copy(f->reason, sizeof(f->reason),
			 errno == ELOOP ? "it is a symbolic link" : "it belongs to another user");
		return -ESTALE;
	}
	if (fd < 0)
		return err_set(e, -errno, "segment %s: %s", o->path, err_text(-errno));
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return err_set(e, -EINVAL, "segment %s: it is no regular file; remove it", o->path);
	if (st.st_uid != geteuid() || (st.st_mode & (S_IWGRP | S_IWOTH)))
		str_copy(f->reason, sizeof(f->reason), "others may write to it");
	else if ((uint64_t)st.st_size != plan->total_bytes)
		snprintf(f->reason, sizeof(f->reason), "it has %lld bytes instead of %llu",
			 (long long)st.st_size, (unsigned long long)plan->total_bytes);
	else {
		r = file_map(o, plan->total_bytes, fd, &map, e);
		if (r < 0)
			return r;
		if (contents_check(map, plan, &why) == 0) {
			r = file_permit(o, fd, e);
			if (r < 0) {
				munmap(map, plan->total_bytes);
				return r;
			}
			f->map = map;
			f->inode = st.st_ino;
			f->is_continued = true;
			return 0;
		}
		munmap(map, plan->total_bytes);
		str_copy(f->reason, sizeof(f->reason), why.text);
	}
	return -ESTALE;
}

static ino_t inode_of(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 ? st.st_ino : 0;
}

/* contents is the header, or (bytes == plan->total_bytes) the whole file. */
static int file_create(const struct segment_options *o, const struct segment_header *plan,
		       const void *contents, size_t bytes, struct segment_file *f, struct err *e)
{
	_cleanup_close_ int fd = -1;
	char temporary[PATH_MAX];
	void *map = NULL;
	int r;

	if ((size_t)snprintf(temporary, sizeof(temporary), "%s.new", o->path) >= sizeof(temporary))
		return err_set(e, -ENAMETOOLONG, "segment %.200s…: path too long", o->path);
	/* We hold the lock: only a dead writer can have left it. */
	unlink(temporary);
	fd = open(temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_set(e, -errno, "segment %s: cannot create: %s", temporary,
			       err_text(-errno));
	r = file_map(o, plan->total_bytes, fd, &map, e);
	if (map) {
		memcpy(map, contents, bytes);
		memcpy((char *)map + plan->thresholds_offset, histogram_thresholds(),
		       HIST_THRESHOLDS * sizeof(uint64_t));
		r = file_permit(o, fd, e);
	}
	if (r == 0 && rename(temporary, o->path) < 0)
		r = err_set(e, -errno, "segment %s: rename: %s", o->path, err_text(-errno));
	if (r < 0) {
		unlink(temporary);
		if (map)
			munmap(map, plan->total_bytes);
		return r;
	}
	f->map = map;
	f->inode = inode_of(fd);
	return 0;
}

/* Held for the life of the writer; the kernel lets go of it when the process dies, however. */
static int lock_take(const char *path, int *ret_fd, struct err *e)
{
	_cleanup_close_ int fd = -1;
	char name[PATH_MAX];
	struct stat st;

	if ((size_t)snprintf(name, sizeof(name), "%s.lock", path) >= sizeof(name))
		return err_set(e, -ENAMETOOLONG, "segment %.200s…: path too long", path);
	fd = open(name, O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set(
			e, -errno,
			"segment %s: cannot open its lock: %s: %s; remove it if no agent runs",
			path, name, err_text(-errno));
	if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077))
		return err_set(e, -EPERM,
			       "segment %s: its lock %s can be opened by others; remove it", path,
			       name);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (errno == EWOULDBLOCK)
			return err_set(e, -EBUSY,
				       "segment %s: another process writes it (holds %s); is an "
				       "agent running already?",
				       path, name);
		return err_set(e, -errno, "segment %s: %s: %s", path, name, err_text(-errno));
	}
	*ret_fd = TAKE_FD(fd);
	return 0;
}

int segment_file_open(const struct segment_options *o, const struct segment_header *plan,
		      struct segment_file *ret, struct err *e)
{
	struct segment_file f = {.lock = -1, .size = plan->total_bytes};
	_cleanup_close_ int lock = -1;
	int r;

	r = check_file_system(o->path, e);
	if (r < 0)
		return r;
	r = lock_take(o->path, &lock, e);
	if (r < 0)
		return r;
	r = file_continue(o, plan, &f, e);
	if (r == -ENOENT || r == -ESTALE)
		r = file_create(o, plan, plan, sizeof(*plan), &f, e);
	if (r < 0)
		return r;
	f.path = strdup(o->path);
	if (!f.path) {
		munmap(f.map, f.size);
		return -ENOMEM;
	}
	f.group = o->group;
	f.lock = TAKE_FD(lock);
	*ret = f;
	return 0;
}

/* The lock of a directory that was removed guards nothing, and the new directory has none. */
static void lock_renew(struct segment_file *f)
{
	char name[PATH_MAX];
	struct stat ours, there;
	int lock;

	snprintf(name, sizeof(name), "%s.lock", f->path);
	if (fstat(f->lock, &ours) == 0 && lstat(name, &there) == 0 && ours.st_ino == there.st_ino)
		return;
	if (lock_take(f->path, &lock, NULL) < 0)
		return;
	close(f->lock);
	f->lock = lock;
}

int segment_file_replace(struct segment_file *f, const void *image, struct err *e)
{
	const struct segment_options o = {.path = f->path, .group = f->group};
	struct segment_file new = {.lock = -1};
	int r = file_create(&o, image, image, f->size, &new, e);

	if (r < 0)
		return r;
	munmap(f->map, f->size);
	f->map = new.map;
	f->inode = new.inode;
	return 0;
}

int segment_file_keep(struct segment_file *f, struct err *e)
{
	struct stat st;
	int r;

	lock_renew(f);
	if (lstat(f->path, &st) == 0 && st.st_ino == f->inode)
		return 0;
	r = segment_file_replace(f, f->map, e);
	return r < 0 ? r : 1;
}

void segment_file_close(struct segment_file *f)
{
	if (f->map)
		munmap(f->map, f->size);
	if (f->lock >= 0)
		close(f->lock);
	free(f->path);
	*f = (struct segment_file){.lock = -1};
}
