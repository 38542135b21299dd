/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The confined child that examines a file, and the memory of its answers. Process: the keeper
 * (finder_run) and its child. Owns the cache.
 */
#include "probe/finder.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/process.h"
#include "base/str.h"
#include "probe/debugfile.h"
#include "probe/disassembler.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define FINDER_SECONDS     5
#define FINDER_CPU_SECONDS 4
#define FINDER_MEMORY      (384ull << 20) /* beyond what the keeper had mapped at the fork */
#define FINDER_CACHE       64u

struct answer {
	dev_t device;
	ino_t inode;
	off_t size;
	struct timespec changed;
	bool is_used;
	struct finder_result result;
};

static struct answer answers[FINDER_CACHE];
static unsigned int answer_next;

static bool is_same(const struct answer *a, const struct stat *st)
{
	return a->is_used && a->device == st->st_dev && a->inode == st->st_ino &&
	       a->size == st->st_size && a->changed.tv_sec == st->st_mtim.tv_sec &&
	       a->changed.tv_nsec == st->st_mtim.tv_nsec;
}

static bool function_is_sane(const struct finder_function *f, uint64_t size)
{
	unsigned int i;

	if (f->offset >= size || f->entry.offset >= size || f->semaphore >= size ||
	    f->exit_count > FINDER_EXITS_MAX)
		return false;
	for (i = 0; i < f->exit_count; i++) {
		if (f->exits[i].offset >= size)
			return false;
	}
	return true;
}

static bool heap_is_sane(const struct finder_heap *h)
{
	unsigned int i;

	if (h->count > FINDER_HEAP_PARTS || h->globals > FINDER_GLOBALS_MAX || h->globals % 4 != 0)
		return false;
	for (i = 0; i < h->count; i++) {
		if (h->parts[i] >= FINDER_FIELDS_MAX)
			return false;
	}
	return h->count == 0 || ((h->width == 4 || h->width == 8) &&
				 (h->pointer_bytes == 4 || h->pointer_bytes == 8));
}

static bool tls_is_sane(const struct finder_tls *tls, uint64_t size)
{
	unsigned int i;

	if (tls->kind >= FINDER_TLS_KINDS || tls->is_found > 1 ||
	    !memchr(tls->how, 0, sizeof(tls->how)) || !memchr(tls->why, 0, sizeof(tls->why)))
		return false;
	for (i = 0; i < FINDER_TLS_CALLS; i++) {
		if (!function_is_sane(&tls->calls[i], size))
			return false;
	}
	return true;
}

bool finder_result_is_sane(const struct finder_result *r, uint64_t size)
{
	if (r->runtime >= FINDER_RUNTIMES || r->is_found > 1 || !(r->confidence >= 0) ||
	    r->confidence > 1)
		return false;
	if (!memchr(r->name, 0, sizeof(r->name)) || !memchr(r->how, 0, sizeof(r->how)) ||
	    !memchr(r->why, 0, sizeof(r->why)) || !memchr(r->reason, 0, sizeof(r->reason)) ||
	    !memchr(r->build_id, 0, sizeof(r->build_id)))
		return false;
	return function_is_sane(&r->step, size) && function_is_sane(&r->full, size) &&
	       function_is_sane(&r->stop, size) && function_is_sane(&r->start, size) &&
	       function_is_sane(&r->cycle, size) && heap_is_sane(&r->heap) &&
	       tls_is_sane(&r->tls, size);
}

/* The keeper maps much: the limit counts from what is there. A sanitizer maps terabytes. */
static void limit_memory(void)
{
	unsigned long long pages = 0;
	struct rlimit limit;
	char text[128];

	if (PROCESS_IS_SANITIZED)
		return;
	if (str_read_file("/proc/self/statm", text, sizeof(text)) < 0)
		return;
	if (sscanf(text, "%llu", &pages) != 1)
		return;
	limit.rlim_cur = limit.rlim_max =
		pages * (unsigned long long)sysconf(_SC_PAGESIZE) + FINDER_MEMORY;
	setrlimit(RLIMIT_AS, &limit);
}

/* Not process_confine(): the keeper may not change ids (no CAP_SETUID), and need not: without a
 * capability and under the filter uid 0 opens nothing. */
static int give_up_privileges(void)
{
	cap_t none = cap_init();
	int r = 0;

	if (!none)
		return -ENOMEM;
	if (cap_set_proc(none) < 0)
		r = -errno;
	cap_free(none);
	if (r == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		r = -errno;
	return r;
}

__attribute__((noreturn)) static void child_main(int fd, int debug_fd, int out)
{
	const struct rlimit cpu = {FINDER_CPU_SECONDS, FINDER_CPU_SECONDS + 1}, zero = {0, 0};
	struct finder_result result = {0};
	int keep[] = {fd, out, debug_fd};
	struct err e = {0};
	int r, i;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* A sanitizer's report wants stderr. */
	for (i = 0; i <= 2 - PROCESS_IS_SANITIZED; i++) {
		if (i != fd && i != debug_fd && i != out)
			close(i);
	}
	r = process_close_fds(keep, ARRAY_LEN(keep) - (debug_fd < 0));
	setrlimit(RLIMIT_CPU, &cpu);
	setrlimit(RLIMIT_CORE, &zero);
	setrlimit(RLIMIT_FSIZE, &zero);
	setrlimit(RLIMIT_NPROC, &zero);
	/* Before memory is limited, and files cannot be opened any more. */
	if (r == 0 && !disassembler_load()) {
		err_set(&e, -ELIBACC, "%s", disassembler_why());
		r = -ELIBACC;
	}
	limit_memory();
	if (r == 0)
		r = give_up_privileges();
	if (r == 0)
		r = process_filter_apply(PROCESS_FILTER_COMPUTE, &e);
	if (r == 0)
		finder_examine(fd, debug_fd, &result);
	else
		str_copy(result.why, sizeof(result.why),
			 e.text[0] ? e.text : "the finder cannot give up its privileges");
	r = write(out, &result, sizeof(result)) == (ssize_t)sizeof(result) ? 0 : 1;
	_exit(r);
}

/* Reads the whole struct before the deadline; -ETIMEDOUT, or -EPIPE when the child ended first. */
static int read_result(int in, struct finder_result *ret)
{
	uint64_t deadline = clock_mono_ns() + FINDER_SECONDS * NS_PER_S, now;
	struct pollfd p = {.fd = in, .events = POLLIN};
	size_t done = 0;

	while (done < sizeof(*ret)) {
		ssize_t n;

		now = clock_mono_ns();
		if (now >= deadline)
			return -ETIMEDOUT;
		if (poll(&p, 1, (int)((deadline - now) / NS_PER_MS) + 1) <= 0)
			continue;
		n = read(in, (char *)ret + done, sizeof(*ret) - done);
		if (n == 0)
			return -EPIPE;
		if (n < 0 && errno != EINTR)
			return -errno;
		done += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

static pid_t start_child(int fd, int debug_fd, int *ret_in)
{
	_cleanup_close_ int in = -1, out = -1;
	int pipes[2];
	pid_t pid;

	if (pipe2(pipes, O_CLOEXEC) < 0)
		return -errno;
	in = pipes[0];
	out = pipes[1];
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0)
		child_main(fd, debug_fd, out);
	*ret_in = TAKE_FD(in);
	return pid;
}

static void describe_end(int status, struct finder_result *ret)
{
	memset(ret, 0, sizeof(*ret));
	if (WIFSIGNALED(status))
		snprintf(ret->why, sizeof(ret->why),
			 "the finder was ended by signal %d (%s) while it read the file",
			 WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		snprintf(ret->why, sizeof(ret->why), "the finder gave no answer (exit code %d)",
			 WEXITSTATUS(status));
}

static int run_child(int fd, int debug_fd, uint64_t size, struct finder_result *ret)
{
	_cleanup_close_ int in = -1;
	int status = 0, r;
	pid_t pid;

	pid = start_child(fd, debug_fd, &in);
	if (pid < 0)
		return pid;
	r = read_result(in, ret);
	if (r < 0 && r != -EPIPE)
		kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (r == -EPIPE) {
		describe_end(status, ret);
	} else if (r < 0) {
		memset(ret, 0, sizeof(*ret));
		snprintf(ret->why, sizeof(ret->why), "the finder took longer than %d s",
			 FINDER_SECONDS);
	} else if (!finder_result_is_sane(ret, size)) {
		memset(ret, 0, sizeof(*ret));
		snprintf(ret->why, sizeof(ret->why), "the finder's answer is out of bounds");
	}
	return 0;
}

/* By what the file holds; then, where that names nothing, with its debug file. */
static int run(int fd, uint32_t pid, uint64_t size, struct finder_result *ret)
{
	_cleanup_close_ int debug_fd = -1;
	struct finder_result again;
	int r;

	r = run_child(fd, -1, size, ret);
	if (r < 0 || !pid || !ret->build_id[0] ||
	    (ret->is_found && !str_equal(ret->how, "call-vote")))
		return r;
	debug_fd = debugfile_open(pid, ret->build_id);
	if (debug_fd < 0)
		return 0;
	r = run_child(fd, debug_fd, size, &again);
	if (r == 0 && again.is_found)
		*ret = again;
	return 0;
}

int finder_run(int fd, uint32_t pid, struct finder_result *ret)
{
	struct answer *a;
	struct stat st;
	unsigned int i;
	int r;

	if (fstat(fd, &st) < 0)
		return -errno;
	for (i = 0; i < FINDER_CACHE; i++) {
		if (is_same(&answers[i], &st)) {
			*ret = answers[i].result;
			return 0;
		}
	}
	a = &answers[answer_next++ % FINDER_CACHE];
	a->is_used = false;
	r = run(fd, pid, (uint64_t)st.st_size, &a->result);
	if (r < 0)
		return r;
	a->device = st.st_dev;
	a->inode = st.st_ino;
	a->size = st.st_size;
	a->changed = st.st_mtim;
	a->is_used = true;
	*ret = a->result;
	return 0;
}
