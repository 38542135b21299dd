/* SPDX-License-Identifier: Apache-2.0 */
/* The lock of a runtime directory. No state. */
#include "cmd/lock.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <time.h>

#define ORPHANS_NS (5 * NS_PER_S) /* that children of a killed supervisor get to end */

/* The pid in the lock file, 0 for none. */
static pid_t lock_owner(int fd)
{
	char pid[32];
	ssize_t n = pread(fd, pid, sizeof(pid) - 1, 0);

	pid[n > 0 ? n : 0] = '\0';
	return atoi(pid);
}

/* Children of a supervisor that was killed end by themselves; they are waited for. */
static int lock_take(int fd)
{
	uint64_t deadline = clock_mono_ns() + ORPHANS_NS;
	bool said = false;

	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		const struct timespec pause = {.tv_nsec = 20 * NS_PER_MS};
		pid_t owner = lock_owner(fd);

		if (errno == EINTR)
			continue;
		if (owner <= 0 || kill(owner, 0) == 0 || errno != ESRCH ||
		    clock_mono_ns() >= deadline)
			return -EBUSY;
		if (!said)
			log_info("supervisor", "waiting for processes of a killed supervisor",
				 "pid=%d", (int)owner);
		said = true;
		nanosleep(&pause, NULL);
	}
	return 0;
}

int lock_open(const char *runtime_dir, int *ret_fd, struct err *e)
{
	_cleanup_close_ int fd = -1;
	char path[512], pid[32];
	int n;

	snprintf(path, sizeof(path), "%s/supervisor.pid", runtime_dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0)
		return err_set(e, -errno, "cannot open %s: %s", path, err_text(errno));
	if (lock_take(fd) < 0)
		return err_set(e, -EBUSY, "%s is in use by pid %d; stop it or set runtime_dir",
			       runtime_dir, (int)lock_owner(fd));
	n = snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
	if (ftruncate(fd, 0) < 0 || pwrite(fd, pid, (size_t)n, 0) < 0)
		return err_set(e, -errno, "cannot write %s: %s", path, err_text(errno));
	*ret_fd = TAKE_FD(fd);
	return 0;
}
