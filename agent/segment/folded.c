/* SPDX-License-Identifier: Apache-2.0 */
/* Profiles in app/, and who may have written them. No state. Courier, and `tidegate profile`. */
#include "segment/folded.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#define SUFFIX_BYTES 64

static int open_regular(int dir, const char *name, struct stat *ret_st)
{
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK), r;

	if (fd < 0)
		return -errno;
	r = fstat(fd, ret_st) < 0 ? -errno : S_ISREG(ret_st->st_mode) ? 0 : -EINVAL;
	if (r < 0) {
		close(fd);
		return r;
	}
	return fd;
}

/* ---- processes ---- */

static bool process_read(int dir, const char *file, struct folded_process *p)
{
	_cleanup_close_ int fd = -1;
	struct segment_header h;
	struct stat st;

	fd = open_regular(dir, file, &st);
	if (fd < 0 || pread(fd, &h, sizeof(h), 0) != sizeof(h) || h.magic != SEGMENT_MAGIC ||
	    h.version != SEGMENT_VERSION || h.endian != SEGMENT_ENDIAN || h.kind != SEGMENT_PROCESS)
		return false;
	/* Shared: the agent asks in the same way, and we must not look like a writer for longer. */
	p->is_alive = flock(fd, LOCK_SH | LOCK_NB) < 0;
	p->pid = h.writer_pid;
	p->parent = h.writer_parent;
	p->uid = st.st_uid;
	h.gateway[sizeof(h.gateway) - 1] = '\0';
	str_copy(p->gateway, sizeof(p->gateway), h.gateway);
	snprintf(p->name, sizeof(p->name), "%.*s", (int)(strlen(file) - strlen(".seg")), file);
	return true;
}

int folded_processes(const char *path, struct folded_process *ret, unsigned int most)
{
	_cleanup_dir_ DIR *dir = opendir(path);
	const struct dirent *d;
	unsigned int n = 0;

	if (!dir)
		return -errno;
	while (n < most && (d = readdir(dir))) {
		struct folded_process p;

		if (d->d_name[0] == '.' || !str_ends(d->d_name, ".seg") ||
		    strlen(d->d_name) >= sizeof(p.name))
			continue;
		if (process_read(dirfd(dir), d->d_name, &p))
			ret[n++] = p;
	}
	return (int)n;
}

bool folded_is_alive(const char *path, const char *process)
{
	_cleanup_dir_ DIR *dir = opendir(path);
	struct folded_process p;
	char file[sizeof(p.name) + 8];

	snprintf(file, sizeof(file), "%s.seg", process);
	return dir && process_read(dirfd(dir), file, &p) && p.is_alive;
}

/* ---- profiles ---- */

static void suffix_of(uint64_t id, char ret[SUFFIX_BYTES])
{
	snprintf(ret, SUFFIX_BYTES, ".%016llx.folded", (unsigned long long)id);
}

bool folded_is_there(const char *dir, const char *process, uint64_t id)
{
	char path[4096], suffix[SUFFIX_BYTES];
	struct stat st;

	suffix_of(id, suffix);
	snprintf(path, sizeof(path), "%s/%s%s", dir, process, suffix);
	return lstat(path, &st) == 0 && S_ISREG(st.st_mode);
}

/* At most size bytes, also of a file that grows meanwhile. */
static int read_whole(int dir, const char *name, char *buf, size_t size, struct stat *st,
		      size_t *ret_size)
{
	_cleanup_close_ int fd = open_regular(dir, name, st);
	size_t used = 0;

	if (fd < 0)
		return fd;
	if (st->st_size < 0 || (uint64_t)st->st_size > size)
		return -EMSGSIZE;
	while (used < size) {
		ssize_t n = pread(fd, buf + used, size - used, (off_t)used);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		used += (size_t)n;
	}
	*ret_size = used;
	return 0;
}

int folded_take(const char *path, uint64_t id, folded_visit *visit, void *data)
{
	_cleanup_dir_ DIR *dir = opendir(path);
	_cleanup_free_ char *text = NULL;
	char suffix[SUFFIX_BYTES], process[48];
	const struct dirent *d;

	if (!dir)
		return -errno;
	text = malloc(FOLDED_BYTES);
	if (!text)
		return -ENOMEM;
	suffix_of(id, suffix);
	while ((d = readdir(dir))) {
		size_t n = strlen(d->d_name), used = 0;
		struct stat st = {0};
		int r;

		if (d->d_name[0] == '.' || !str_ends(d->d_name, suffix) ||
		    n - strlen(suffix) >= sizeof(process))
			continue;
		snprintf(process, sizeof(process), "%.*s", (int)(n - strlen(suffix)), d->d_name);
		r = read_whole(dirfd(dir), d->d_name, text, FOLDED_BYTES, &st, &used);
		visit(data, process, st.st_uid, r, r < 0 ? NULL : text, used);
		/* Without the right to, the agent does it in an hour. */
		(void)unlinkat(dirfd(dir), d->d_name, 0);
	}
	return 0;
}

unsigned int folded_sweep(const char *path, uint64_t now_real_ns)
{
	_cleanup_dir_ DIR *dir = opendir(path);
	unsigned int files = 0, removed = 0;
	uint64_t bytes = 0;
	const struct dirent *d;

	while (dir && (d = readdir(dir))) {
		uint64_t written_ns;
		struct stat st;

		if (!str_ends(d->d_name, ".folded") ||
		    fstatat(dirfd(dir), d->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		    S_ISDIR(st.st_mode))
			continue;
		/* of its inode: the writer may set the other one into the future */
		written_ns = (uint64_t)st.st_ctim.tv_sec * NS_PER_S;
		files++;
		bytes += (uint64_t)st.st_size;
		if (written_ns + FOLDED_KEPT_NS > now_real_ns && files <= FOLDED_FILES &&
		    bytes <= FOLDED_ALL)
			continue;
		files--;
		bytes -= (uint64_t)st.st_size;
		removed += unlinkat(dirfd(dir), d->d_name, 0) == 0;
	}
	return removed;
}
