/* SPDX-License-Identifier: Apache-2.0 */
/* Candidates for the finder among a process's mappings. Process: the keeper. */
#include "probe/gcfile.h"

#include "base/cleanup.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#define MAPS_LINES_MAX 65536u

struct mapping {
	uint64_t start, end, inode;
	unsigned int major, minor;
	const char *path;
};

int gcfile_rank(const char *path, const char *exe)
{
	const char *base = strrchr(path, '/');

	base = base ? base + 1 : path;
	if (str_starts(base, "libluajit") || str_equal(base, "libjvm.so"))
		return 0;
	if (str_starts(base, "liblua5") || str_starts(base, "liblua-5") ||
	    str_starts(base, "liblua.so"))
		return 1;
	if (str_equal(path, exe))
		return 2;
	return strstr(base, "lua") && strstr(base, ".so") ? 3 : -1;
}

/* "start-end r-xp offset major:minor inode   path" */
static bool parse_mapping(char *line, struct mapping *ret)
{
	char permissions[5];
	int at = 0;

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %*x %x:%x %" SCNu64 " %n", &ret->start,
		   &ret->end, permissions, &ret->major, &ret->minor, &ret->inode, &at) != 6)
		return false;
	if (at == 0 || permissions[2] != 'x' || ret->inode == 0 || line[at] != '/')
		return false;
	line[strcspn(line, "\n")] = 0;
	ret->path = line + at;
	return true;
}

/* By name, so it must be shown to be the same file. On overlayfs older kernels name the device of a
 * layer in maps (the inode agrees). */
static int open_same(const char *path, const struct mapping *m)
{
	_cleanup_close_ int fd = -1;
	struct statfs fs;
	struct stat st;

	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_ino != m->inode)
		return -ESTALE;
	if (st.st_dev != makedev(m->major, m->minor) &&
	    (fstatfs(fd, &fs) < 0 || fs.f_type != OVERLAYFS_SUPER_MAGIC))
		return -ESTALE;
	return TAKE_FD(fd);
}

/* Inside the process's root, which is another one in a container. A process that called chroot() after
 * it was loaded (HAProxy) has its files outside: where we are. */
static int open_by_name(uint32_t pid, const struct mapping *m)
{
	char path[4400];
	int fd;

	snprintf(path, sizeof(path), "/proc/%u/root%s", pid, m->path);
	fd = open_same(path, m);
	return fd >= 0 ? fd : open_same(m->path, m);
}

static int open_mapping(uint32_t pid, const struct mapping *m)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/proc/%u/map_files/%" PRIx64 "-%" PRIx64, pid, m->start,
		 m->end);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	/* map_files wants CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN. */
	return fd >= 0 ? fd : open_by_name(pid, m);
}

static bool is_listed(const struct gcfile *files, size_t count, const struct stat *st)
{
	size_t i;

	for (i = 0; i < count; i++) {
		if (files[i].device == st->st_dev && files[i].inode == st->st_ino)
			return true;
	}
	return false;
}

static int add_file(uint32_t pid, const struct mapping *m, unsigned int rank, struct gcfile *files,
		    size_t *count)
{
	_cleanup_close_ int fd = -1;
	struct gcfile *file;
	struct stat st;
	size_t i;

	fd = open_mapping(pid, m);
	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (is_listed(files, *count, &st))
		return 0;
	for (i = *count; i > 0 && files[i - 1].rank > rank; i--)
		files[i] = files[i - 1];
	file = &files[i];
	memset(file, 0, sizeof(*file));
	file->rank = rank;
	file->device = st.st_dev;
	file->inode = st.st_ino;
	str_copy(file->path, sizeof(file->path), m->path);
	file->fd = TAKE_FD(fd);
	(*count)++;
	return 0;
}

int gcfile_list(uint32_t pid, struct gcfile *ret, size_t *ret_count, struct err *e)
{
	return gcfile_list_by(pid, gcfile_rank, ret, ret_count, e);
}

int gcfile_list_by(uint32_t pid, int (*rank_of)(const char *path, const char *exe),
		   struct gcfile *ret, size_t *ret_count, struct err *e)
{
	char path[64], exe[4096], line[4400];
	_cleanup_file_ FILE *maps = NULL;
	unsigned int lines = 0;
	int failed = 0, rank, r;
	struct mapping m;
	size_t count = 0;
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%u/exe", pid);
	n = readlink(path, exe, sizeof(exe) - 1);
	if (n < 0)
		return err_set(e, -errno, "%s: %s", path, err_text(-errno));
	exe[n] = 0;
	snprintf(path, sizeof(path), "/proc/%u/maps", pid);
	maps = fopen(path, "re");
	if (!maps)
		return err_set(e, -errno, "%s: %s", path, err_text(-errno));
	while (count < GCFILE_MAX && lines++ < MAPS_LINES_MAX && fgets(line, sizeof(line), maps)) {
		if (!parse_mapping(line, &m))
			continue;
		rank = rank_of(m.path, exe);
		if (rank < 0)
			continue;
		r = add_file(pid, &m, (unsigned int)rank, ret, &count);
		if (r < 0)
			failed = r;
	}
	if (count == 0 && failed < 0)
		return err_set(e, failed, "cannot open what process %u has mapped: %s", pid,
			       err_text(failed));
	*ret_count = count;
	return 0;
}

void gcfile_close(struct gcfile *files, size_t count)
{
	size_t i;

	for (i = 0; i < count; i++)
		close(files[i].fd);
}
