/* SPDX-License-Identifier: Apache-2.0 */
/* Debug files by build id, inside the root of a process. Process: the keeper. */
#include "probe/debugfile.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ROOT "usr/lib/debug/.build-id"

/* Looked at before it is opened: opening a device can do things. */
static int open_regular(int path_fd)
{
	char name[64];
	struct stat st;
	int fd;

	if (fstat(path_fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -ENOEXEC;
	snprintf(name, sizeof(name), "/proc/self/fd/%d", path_fd);
	fd = open(name, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int debugfile_open(uint32_t pid, const char *build_id)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT};
	size_t length = strlen(build_id);
	_cleanup_close_ int root = -1, path_fd = -1;
	char path[160];

	if (length < 4 || length > 64 || strspn(build_id, "0123456789abcdef") != length)
		return -EINVAL;
	snprintf(path, sizeof(path), "/proc/%u/root", pid);
	root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		return -errno;
	snprintf(path, sizeof(path), ROOT "/%.2s/%s.debug", build_id, build_id + 2);
	path_fd = (int)syscall(SYS_openat2, root, path, &how, sizeof(how)); /* since Linux 5.6 */
	return path_fd < 0 ? -errno : open_regular(path_fd);
}
