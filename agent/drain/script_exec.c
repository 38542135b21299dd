/* SPDX-License-Identifier: Apache-2.0 */
/* One child of the script process. Owns its pidfd and the pipe of its output. */
#include "drain/script_exec.h"

#include "base/cleanup.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>

struct script_exec {
	struct loop *loop;
	pid_t pid;
	int pidfd, pipe;
	struct loop_watch *exit_watch, *pipe_watch, *timer;
	script_exec_fn fn;
	void *data;
	bool is_late;
	char output[SCRIPT_EXEC_OUTPUT_MAX + 1];
	size_t len;
};

static unsigned int running;

static void drain_pipe(struct script_exec *x)
{
	char sink[4096];

	for (;;) {
		size_t room = SCRIPT_EXEC_OUTPUT_MAX - x->len;
		ssize_t n = room ? read(x->pipe, x->output + x->len, room)
				 : read(x->pipe, sink, sizeof(sink));

		if (n < 0 && errno == EINTR)
			continue;
		if (n > 0 && room)
			x->len += (size_t)n;
		if (n > 0)
			continue;
		if (n == 0)
			x->pipe_watch = loop_remove(x->pipe_watch);
		return;
	}
}

static void free_exec(struct script_exec *x)
{
	loop_remove(x->exit_watch);
	loop_remove(x->pipe_watch);
	loop_remove(x->timer);
	if (x->pidfd >= 0)
		close(x->pidfd);
	if (x->pipe >= 0)
		close(x->pipe);
	free(x);
}

struct script_exec *script_exec_stop(struct script_exec *x)
{
	if (!x)
		return NULL;
	kill(-x->pid, SIGKILL);
	kill(x->pid, SIGKILL);
	while (waitpid(x->pid, NULL, 0) < 0 && errno == EINTR)
		;
	running--;
	free_exec(x);
	return NULL;
}

static void on_output(void *data, int fd, unsigned int events)
{
	(void)fd;
	(void)events;
	drain_pipe(data);
}

static void on_timeout(void *data)
{
	struct script_exec *x = data;

	x->is_late = true;
	/* Its whole group: a shell script's children too. */
	kill(-x->pid, SIGKILL);
}

static void on_exit_ready(void *data, int fd, unsigned int events)
{
	struct script_exec *x = data;
	int status = 0, code;
	pid_t pid = waitpid(x->pid, &status, WNOHANG);

	(void)fd;
	(void)events;
	if (pid == 0 || (pid < 0 && errno == EINTR))
		return;
	drain_pipe(x);
	x->output[x->len] = '\0';
	code = x->is_late          ? -ETIME
	       : WIFEXITED(status) ? WEXITSTATUS(status)
				   : 128 + WTERMSIG(status);
	running--;
	x->fn(x->data, code, x->output);
	free_exec(x);
}

static int check_allowed(const struct config_list *allowed, const char *path, struct err *e)
{
	for (size_t i = 0; i < allowed->count; i++)
		if (str_equal(allowed->items[i], path) && path[0] == '/')
			return 0;
	return err_set(e, -EPERM, "%.100s may not be run: it is not in the option drain.exec",
		       path);
}

static int spawn(struct script_exec *x, char *const *argv, int out)
{
	static char path[] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
	char *const environment[] = {path, NULL};
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t all, none;
	int r;

	r = posix_spawn_file_actions_init(&actions);
	if (r)
		return -r;
	r = posix_spawnattr_init(&attributes);
	if (r) {
		posix_spawn_file_actions_destroy(&actions);
		return -r;
	}
	sigfillset(&all);
	sigemptyset(&none);
	posix_spawnattr_setsigdefault(&attributes, &all);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setpgroup(&attributes, 0);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK |
						      POSIX_SPAWN_SETPGROUP);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, out, 1);
	posix_spawn_file_actions_adddup2(&actions, out, 2);
	posix_spawn_file_actions_addclosefrom_np(&actions, 3);
	r = -posix_spawn(&x->pid, argv[0], &actions, &attributes, argv, environment);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	return r;
}

int script_exec_start(struct loop *loop, const struct config_list *allowed, char *const *argv,
		      double timeout_s, script_exec_fn fn, void *data, struct script_exec **ret,
		      struct err *e)
{
	struct script_exec *x;
	int ends[2], r = check_allowed(allowed, argv[0], e);

	if (r < 0)
		return r;
	if (running >= SCRIPT_EXEC_MOST)
		return err_set(e, -EBUSY, "%d programs run already", SCRIPT_EXEC_MOST);
	if (pipe2(ends, O_CLOEXEC) < 0)
		return err_set(e, -errno, "pipe: %s", err_text(-errno));
	x = calloc(1, sizeof(*x));
	if (!x) {
		close(ends[0]);
		close(ends[1]);
		return err_set(e, -ENOMEM, "out of memory");
	}
	*x = (struct script_exec){
		.loop = loop, .pidfd = -1, .pipe = ends[0], .fn = fn, .data = data};
	fcntl(x->pipe, F_SETFL, O_NONBLOCK);
	r = spawn(x, argv, ends[1]);
	close(ends[1]);
	if (r < 0) {
		free_exec(x);
		return err_set(e, r, "%.100s: %s", argv[0], err_text(r));
	}
	running++;
	x->pidfd = pidfd_open(x->pid, 0);
	r = x->pidfd < 0 ? -errno : 0;
	if (!r)
		r = loop_add_fd(loop, x->pidfd, LOOP_READ, on_exit_ready, x, &x->exit_watch);
	if (!r)
		r = loop_add_fd(loop, x->pipe, LOOP_READ, on_output, x, &x->pipe_watch);
	if (!r)
		r = loop_add_timer(loop, (uint64_t)(timeout_s * 1000), 0, on_timeout, x, &x->timer);
	if (r < 0) {
		script_exec_stop(x);
		return err_set(e, r, "%.100s: %s", argv[0], err_text(r));
	}
	*ret = x;
	return 0;
}
