/* SPDX-License-Identifier: Apache-2.0 */
/* Taking privileges away from the process that calls. No state. */
#include "base/process.h"

#include "base/str.h"

#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <pwd.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

uid_t process_user_id(const char *name, uid_t fallback, bool *ret_known)
{
	const struct passwd *pw = getpwnam(name);

	*ret_known = pw != NULL;
	return pw ? pw->pw_uid : fallback;
}

gid_t process_group_id(const char *name, gid_t fallback, bool *ret_known)
{
	const struct group *gr = getgrnam(name);

	*ret_known = gr != NULL;
	return gr ? gr->gr_gid : fallback;
}

static int caps_read(uint64_t *ret_effective, uint64_t *ret_permitted)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {0};

	if (syscall(SYS_capget, &head, data) < 0)
		return -errno;
	*ret_effective = data[0].effective | (uint64_t)data[1].effective << 32;
	*ret_permitted = data[0].permitted | (uint64_t)data[1].permitted << 32;
	return 0;
}

static int caps_write(uint64_t caps)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {
		{.effective = (uint32_t)caps, .permitted = (uint32_t)caps},
		{.effective = (uint32_t)(caps >> 32), .permitted = (uint32_t)(caps >> 32)},
	};

	return syscall(SYS_capset, &head, data) < 0 ? -errno : 0;
}

uint64_t process_caps(void)
{
	uint64_t effective = 0, permitted = 0;

	caps_read(&effective, &permitted);
	return effective;
}

const char *process_cap_names(uint64_t caps, char *buf, size_t size)
{
	struct strbuf out;

	strbuf_init(&out, size);
	for (int cap = 0; cap < 64; cap++) {
		char *name;

		if (!(caps & PROCESS_CAP(cap)))
			continue;
		name = cap_to_name(cap);
		if (!name)
			continue;
		for (char *c = name; *c; c++)
			if (*c >= 'a' && *c <= 'z')
				*c = (char)(*c - 'a' + 'A');
		strbuf_printf(&out, "%s%s", out.len ? " " : "", name);
		cap_free(name);
	}
	str_copy(buf, size, out.len ? out.data : "none");
	strbuf_fini(&out);
	return buf;
}

static int become(uid_t uid, gid_t gid, const gid_t *groups, size_t group_count, struct err *e)
{
	if (setgroups(group_count, groups) < 0)
		return err_set(e, -errno, "cannot set groups: %s; CAP_SETGID is needed",
			       err_text(errno));
	if (setresgid(gid, gid, gid) < 0)
		return err_set(e, -errno, "cannot become group %u: %s; CAP_SETGID is needed", gid,
			       err_text(errno));
	if (uid && setresuid(uid, uid, uid) < 0)
		return err_set(e, -errno, "cannot become user %u: %s; CAP_SETUID is needed", uid,
			       err_text(errno));
	return 0;
}

int process_confine(uid_t uid, gid_t gid, const gid_t *groups, size_t group_count, uint64_t caps,
		    uint64_t *ret_missing, struct err *e)
{
	uint64_t effective = 0, permitted = 0;
	int r;

	r = caps_read(&effective, &permitted);
	if (r < 0)
		return err_set(e, r, "cannot read capabilities: %s", err_text(r));
	*ret_missing = caps & ~permitted;
	caps &= permitted;
	/* Needs SETPCAP; without it the bounding set stays, and no_new_privs makes it moot. */
	for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
		if (!(caps & PROCESS_CAP(cap)))
			prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	if (geteuid() == 0) {
		if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
			return err_set(e, -errno, "cannot keep capabilities: %s", err_text(errno));
		r = become(uid, gid, groups, group_count, e);
		if (r < 0)
			return r;
	}
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	r = caps_write(caps);
	if (r < 0)
		return err_set(e, r, "cannot give up capabilities: %s", err_text(r));
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_set(e, -errno, "cannot set no_new_privs: %s", err_text(errno));
	/* setresuid has cleared it already, but the leak checker has to trace its own process. */
	prctl(PR_SET_DUMPABLE, PROCESS_IS_SANITIZED, 0, 0, 0);
	return 0;
}

static int compare_int(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

int process_close_fds(const int *keep, size_t n)
{
	int sorted[64];
	size_t count = 0;
	unsigned int from = 3;

	CHECK(n <= ARRAY_LEN(sorted));
	for (size_t i = 0; i < n; i++)
		if (keep[i] >= 3)
			sorted[count++] = keep[i];
	qsort(sorted, count, sizeof(sorted[0]), compare_int);
	for (size_t i = 0; i < count; i++) {
		unsigned int fd = (unsigned int)sorted[i];

		if (fd > from && syscall(SYS_close_range, from, fd - 1, 0) < 0)
			return -errno;
		if (fd >= from)
			from = fd + 1;
	}
	return syscall(SYS_close_range, from, ~0U, 0) < 0 ? -errno : 0;
}

/* ---- filters ---- */

#define CALLS(...) ((const int[]){__VA_ARGS__, -1})
#define S(name)    SCMP_SYS(name)

static const int *const compute_calls =
	CALLS(S(read), S(write), S(readv), S(writev), S(pread64), S(lseek), S(fstat), S(newfstatat),
	      S(close), S(mmap), S(munmap), S(mprotect), S(mremap), S(madvise), S(brk), S(futex),
	      S(getrandom), S(clock_gettime), S(gettimeofday), S(rt_sigaction), S(rt_sigprocmask),
	      S(rt_sigreturn), S(sigaltstack), S(getpid), S(gettid), S(tgkill), S(exit),
	      S(exit_group), S(restart_syscall), S(rseq), S(sched_yield), S(poll), S(ppoll));

static const int *const network_calls = CALLS(
	S(preadv), S(pwritev), S(pwrite64), S(open), S(openat), S(close_range), S(stat), S(lstat),
	S(statx), S(access), S(faccessat), S(faccessat2), S(readlink), S(readlinkat), S(getcwd),
	S(getdents64), S(statfs), S(fstatfs), S(fcntl), S(flock), S(fsync), S(fdatasync),
	S(ftruncate), S(fallocate), S(fadvise64), S(rename), S(renameat), S(renameat2), S(unlink),
	S(unlinkat), S(mkdir), S(mkdirat), S(rmdir), S(link), S(chmod), S(fchmod), S(fchmodat),
	S(chown), S(fchown), S(fchownat), S(umask), S(utimensat), S(sendfile), S(msync),
	S(copy_file_range), S(dup), S(dup2), S(dup3), S(pipe), S(pipe2), S(eventfd), S(eventfd2),
	S(epoll_create), S(epoll_create1), S(epoll_ctl), S(epoll_wait), S(epoll_pwait),
	S(epoll_pwait2), S(select), S(pselect6), S(timerfd_create), S(timerfd_settime),
	S(timerfd_gettime), S(signalfd4), S(inotify_init1), S(inotify_add_watch),
	S(inotify_rm_watch), S(socketpair), S(connect), S(accept), S(accept4), S(bind), S(listen),
	S(getsockname), S(getpeername), S(getsockopt), S(setsockopt), S(sendto), S(recvfrom),
	S(sendmsg), S(recvmsg), S(sendmmsg), S(recvmmsg), S(shutdown), S(ioctl), S(getuid),
	S(geteuid), S(getgid), S(getegid), S(getgroups), S(getppid), S(getpgrp), S(getpgid),
	S(getsid), S(uname), S(sysinfo), S(getrusage), S(times), S(time), S(clock_getres),
	S(clock_nanosleep), S(nanosleep), S(getrlimit), S(prlimit64), S(sched_getaffinity),
	S(sched_getparam), S(sched_getscheduler), S(getcpu), S(getpriority), S(set_robust_list),
	S(get_robust_list), S(set_tid_address), S(arch_prctl), S(prctl), S(membarrier), S(kill),
	S(wait4), S(waitid), S(pidfd_open), S(pidfd_send_signal), S(rt_sigtimedwait),
	S(rt_sigpending), S(rt_sigsuspend), S(memfd_create), S(mlock), S(munlock));

static const int *const script_calls =
	CALLS(S(execve), S(vfork), S(fork), S(setpgid), S(setsid), S(setrlimit), S(chdir),
	      S(fchdir), S(setitimer), S(alarm));

/* Only in builds with a sanitizer: to find leaks it traces its own process, to name a line it
 * reads /proc/self/maps and the binary. */
static const int *const sanitizer_calls =
	CALLS(S(ptrace), S(getdents), S(open), S(openat), S(readlink));

static int allow_all(scmp_filter_ctx ctx, const int *calls)
{
	for (; *calls != -1; calls++) {
		int r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, *calls, 0);

		/* A call that this architecture lacks needs no rule. */
		if (r < 0 && r != -EDOM && r != -EINVAL)
			return r;
	}
	return 0;
}

#define CLONE_NEW_MASK 0x7e020080U /* every CLONE_NEWx that fits in clone's flags */

static int allow_network(scmp_filter_ctx ctx)
{
	static const int families[] = {AF_UNIX, AF_INET, AF_INET6, AF_NETLINK};
	int r = allow_all(ctx, network_calls);

	for (size_t i = 0; i < ARRAY_LEN(families) && r == 0; i++)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, S(socket), 1,
				     SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)families[i], 0));
	if (r == 0)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, S(clone), 1,
				     SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_NEW_MASK, 0));
	/* Its flags are in memory that a filter cannot read: libc then falls back to clone. */
	if (r == 0)
		r = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), S(clone3), 0);
	return r;
}

int process_filter_apply(enum process_filter filter, struct err *e)
{
	scmp_filter_ctx ctx;
	int r;

	if (filter == PROCESS_FILTER_NONE)
		return 0;
	ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	if (!ctx)
		return err_set(e, -ENOMEM, "cannot make a seccomp filter: out of memory");
	r = allow_all(ctx, compute_calls);
	if (r == 0 && filter >= PROCESS_FILTER_NETWORK)
		r = allow_network(ctx);
	if (r == 0 && filter >= PROCESS_FILTER_SCRIPT)
		r = allow_all(ctx, script_calls);
	if (r == 0 && PROCESS_IS_SANITIZED)
		r = allow_all(ctx, sanitizer_calls);
	if (r == 0)
		r = seccomp_load(ctx);
	seccomp_release(ctx);
	if (r < 0)
		return err_set(e, r, "cannot install the seccomp filter: %s", err_text(r));
	return 0;
}

int process_start_time(pid_t pid, uint64_t *ret)
{
	char path[64], buf[1024];
	const char *p;
	int r, field = 2;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	r = str_read_file(path, buf, sizeof(buf));
	if (r < 0)
		return r == -ENOENT ? -ESRCH : r;
	p = strrchr(buf, ')'); /* the name before it may hold anything */
	if (!p || p[1] != ' ')
		return -EBADMSG;
	/* It has ended, and nobody has asked how. */
	if (p[2] == 'Z' || p[2] == 'X')
		return -ESRCH;
	for (p++; *p && field < 22; p++)
		if (*p == ' ')
			field++;
	if (field != 22 || sscanf(p, "%" SCNu64, ret) != 1)
		return -EBADMSG;
	return 0;
}

uint64_t process_cpu_ns(uint32_t pid)
{
	/* As clock_getcpuclockid(3) would say, without a second system call. */
	clockid_t clock = (clockid_t)((~pid << 3) | 2);
	struct timespec ts;

	if (clock_gettime(clock, &ts) < 0)
		return 0;
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}
