/* SPDX-License-Identifier: Apache-2.0 */
/*
 * PID 1 of the test machine: mounts what the tests need, runs each program named in /tests (one
 * command a line), prints what they print and how they ended, and switches the machine off. /tmp
 * stays as it came: programs may lie there.
 */
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ARGS_MAX 32

static void mount_one(const char *type, const char *path)
{
	mkdir(path, 0755);
	if (mount(type, path, type, 0, NULL) < 0)
		printf("# mount %s on %s: %s\n", type, path, strerror(errno));
}

static void symlink_one(const char *to, const char *path)
{
	if (symlink(to, path) < 0)
		printf("# symlink %s: %s\n", path, strerror(errno));
}

static void loopback_up(void)
{
	struct ifreq ifr = {.ifr_name = "lo"};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &ifr) < 0)
		printf("# no loopback: %s\n", strerror(errno));
	ifr.ifr_flags |= IFF_UP | IFF_RUNNING;
	if (fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &ifr) < 0)
		printf("# loopback stays down: %s\n", strerror(errno));
	if (fd >= 0)
		close(fd);
}

static int run(char *line)
{
	char *args[ARGS_MAX] = {0}, *save = NULL, *all;
	int n = 0, status = -1;
	time_t began = time(NULL);
	pid_t pid;

	line[strcspn(line, "\n")] = '\0';
	all = strdup(line);
	for (char *word = strtok_r(line, " ", &save); word && n < ARGS_MAX - 1;
	     word = strtok_r(NULL, " ", &save))
		args[n++] = word;
	if (!n || !all)
		return 0;
	printf("VM-BEGIN %s\n", all);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		dup2(STDOUT_FILENO, STDERR_FILENO);
		execv(args[0], args);
		printf("# exec %s: %s\n", args[0], strerror(errno));
		_exit(127);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	printf("\nVM-END %d %s\nVM-TOOK %ld\n",
	       WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), all,
	       (long)(time(NULL) - began));
	fflush(stdout);
	free(all);
	return status;
}

int main(void)
{
	char line[512];
	FILE *f;

	mount_one("proc", "/proc");
	mount_one("sysfs", "/sys");
	mount_one("devtmpfs", "/dev");
	symlink_one("/proc/self/fd", "/dev/fd"); /* shells pass pipes by these names */
	mount_one("tmpfs", "/run");
	mount_one("tracefs", "/sys/kernel/tracing");
	mount_one("securityfs", "/sys/kernel/security");
	mount_one("bpf", "/sys/fs/bpf");
	setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1);
	setenv("HOME", "/tmp", 1);
	loopback_up();
	f = fopen("/tests", "re");
	while (f && fgets(line, sizeof(line), f))
		run(line);
	if (f)
		fclose(f);
	printf("VM-OFF\n");
	fflush(stdout);
	sync();
	reboot(RB_POWER_OFF);
	return 1;
}
