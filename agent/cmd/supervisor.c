/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Supervisor: a poll loop over signals, one pipe a child and the steward's link. Owns every link's
 * two ends, so that packets survive the death of either process.
 */
#include "cmd/supervisor.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/listen.h"
#include "base/log.h"
#include "bus/credentials.h"
#include "cmd/door_page.h"
#include "cmd/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define PROCESSES_MAX    8
#define BACKOFF_FIRST_NS (100 * NS_PER_MS)
#define BACKOFF_MOST_NS  (5 * NS_PER_S)
#define HEALTHY_NS       (10 * NS_PER_S)
#define STOP_NS          (5 * NS_PER_S)
#define LOOK_NS          (2 * NS_PER_S) /* how often it looks whether runtime_dir is still there */

struct child {
	const struct supervisor_process *process;
	pid_t pid;
	int pipe; /* write end; closing it tells the child to end */
	uint64_t started_ns, restart_at_ns, backoff_ns;
	unsigned int restarts;
	bool is_told; /* its pipe was closed by us */
};

enum supervisor_state { STATE_RUNNING, STATE_TERMINATING, STATE_STOPPING };

struct supervisor {
	const struct supervisor_plan *plan;
	struct config *config;
	struct child children[PROCESSES_MAX];
	int links[LINK_COUNT][2];
	struct daemon_counts *counts;
	struct door_page *door;
	uint8_t ticket_secret[CREDENTIALS_SECRET];
	int signal_fd, lock_fd;
	uint64_t look_at_ns;
	bool is_dir_lost;
	sigset_t signals, signals_before;
	enum supervisor_state state;
	uint64_t deadline_ns; /* of TERMINATING and STOPPING */
	char packet[512];     /* what the steward was told, repeated until it answers */
	uint64_t repeat_ns;
	int exit_code;
};

/* ---- links ---- */

static int links_open(struct supervisor *s)
{
	for (size_t i = 0; i < LINK_COUNT; i++)
		s->links[i][0] = s->links[i][1] = -1;
	for (size_t i = 0; i < s->plan->link_count; i++)
		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0,
			       s->links[s->plan->links[i].link]) < 0)
			return -errno;
	return 0;
}

static int link_end(const struct supervisor *s, enum daemon_link link, const char *process)
{
	for (size_t i = 0; i < s->plan->link_count; i++) {
		const struct supervisor_link *row = &s->plan->links[i];

		for (int end = 0; end < 2; end++)
			if (row->link == link && str_equal(row->ends[end], process))
				return s->links[link][end];
	}
	return -1;
}

/* ---- children ---- */

static void child_become(struct supervisor *s, struct child *c, int pipe_fd)
{
	const struct process_spec *spec = &c->process->spec;
	struct daemon_context ctx = {
		.config = s->config,
		.name = spec->name,
		.supervisor_fd = pipe_fd,
		.restarts = c->restarts,
		.counts = s->counts,
		.door = s->door,
		.is_sidecar = s->plan->is_sidecar,
		.group_app = supervisor_gid_app(s->config),
		.group_admin = supervisor_gid_admin(s->config),
	};
	gid_t groups[] = {ctx.group_app};
	/* The lock too: it is held until the last of us has ended, however the supervisor did. */
	int keep[LINK_COUNT + 2] = {pipe_fd};
	uint64_t missing = 0;
	struct err e = {0};
	char names[512], title[16];
	int r;

	for (size_t i = 0; i < LINK_COUNT; i++) {
		ctx.links[i] = link_end(s, i, spec->name);
		keep[i + 1] = ctx.links[i];
	}
	keep[LINK_COUNT + 1] = s->lock_fd;
	if (str_equal(spec->name, "door"))
		ctx.ticket_secret = s->ticket_secret;
	else
		explicit_bzero(s->ticket_secret, sizeof(s->ticket_secret));
	snprintf(title, sizeof(title), "tg-%s", spec->name);
	prctl(PR_SET_NAME, title, 0, 0, 0);
	log_set_process(spec->name);
	process_close_fds(keep, ARRAY_LEN(keep));
	signal(SIGPIPE, SIG_IGN);
	if (spec->nice)
		setpriority(PRIO_PROCESS, 0, spec->nice);
	/* A terminal's ^C and a group's SIGTERM go to all; only the supervisor decides. */
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	sigprocmask(SIG_SETMASK, &s->signals_before, NULL);
	r = process_confine(supervisor_uid(s->config, spec), supervisor_gid_run(s->config), groups,
			    ARRAY_LEN(groups), spec->caps, &missing, &e);
	if (r >= 0)
		r = process_filter_apply(spec->filter, &e);
	if (r < 0) {
		log_error(spec->name, "cannot give up privileges", "why=\"%s\"", e.text);
		_exit(EXIT_FAILED);
	}
	/* A hook may run away where no end of file is seen. */
	if (spec->filter == PROCESS_FILTER_SCRIPT)
		prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (missing && !c->restarts)
		log_warning(spec->name, "lacks capabilities, what can work still does",
			    "missing=\"%s\" grant=\"run as root, or AmbientCapabilities= in the "
			    "unit, or securityContext.capabilities.add\"",
			    process_cap_names(missing, names, sizeof(names)));
	exit(c->process->entry(&ctx));
}

static void child_start(struct supervisor *s, struct child *c)
{
	int fds[2];

	c->restart_at_ns = 0;
	if (pipe2(fds, O_CLOEXEC) < 0) {
		c->restart_at_ns = clock_mono_ns() + BACKOFF_MOST_NS;
		return;
	}
	c->pid = fork();
	if (c->pid == 0)
		child_become(s, c, fds[0]);
	close(fds[0]);
	if (c->pid < 0) {
		log_error("supervisor", "cannot fork", "process=%s why=\"%s\"",
			  c->process->spec.name, err_text(errno));
		close(fds[1]);
		c->pid = 0;
		c->restart_at_ns = clock_mono_ns() + BACKOFF_MOST_NS;
		return;
	}
	c->pipe = fds[1];
	c->is_told = false;
	c->started_ns = clock_mono_ns();
	log_info("supervisor", "started", "process=%s pid=%d restarts=%u", c->process->spec.name,
		 (int)c->pid, c->restarts);
}

static void child_tell(struct child *c)
{
	if (c->pipe >= 0)
		close(c->pipe);
	c->pipe = -1;
	c->is_told = true;
}

static struct child *child_by_pid(struct supervisor *s, pid_t pid)
{
	for (size_t i = 0; i < s->plan->process_count; i++)
		if (s->children[i].pid == pid)
			return &s->children[i];
	return NULL;
}

static void stop_all(struct supervisor *s, int exit_code)
{
	if (s->state == STATE_STOPPING)
		return;
	s->state = STATE_STOPPING;
	s->exit_code = exit_code;
	s->deadline_ns = clock_mono_ns() + STOP_NS;
	for (size_t i = 0; i < s->plan->process_count; i++)
		child_tell(&s->children[i]);
}

static void child_ended(struct supervisor *s, struct child *c, int status)
{
	uint64_t now = clock_mono_ns();
	bool was_told = c->is_told;
	int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	size_t index = (size_t)(c - s->children);

	child_tell(c);
	c->pid = 0;
	if (s->state == STATE_STOPPING)
		return;
	/* A process that cannot begin (address in use, bad value) has said why. Trying again and
	 * again would hide it, except in a pod, where nothing of ours may end the container. */
	if (code > 0 && !was_told && c->restarts == 0 && !s->plan->is_sidecar &&
	    now - c->started_ns < 2 * NS_PER_S && s->state == STATE_RUNNING) {
		log_error("supervisor", "a process cannot begin, ending", "process=%s code=%d",
			  c->process->spec.name, code);
		stop_all(s, code);
		return;
	}
	c->restarts++;
	s->counts->process[index].restarts++;
	if (was_told || now - c->started_ns > HEALTHY_NS)
		c->backoff_ns = 0;
	c->restart_at_ns = now + c->backoff_ns;
	if (!was_told)
		log_warning("supervisor", "a process died, restarting it",
			    "process=%s pid_status=%s%d in_ms=%llu", c->process->spec.name,
			    WIFSIGNALED(status) ? "signal-" : "exit-",
			    WIFSIGNALED(status) ? WTERMSIG(status) : code,
			    (unsigned long long)(c->backoff_ns / NS_PER_MS));
	c->backoff_ns = c->backoff_ns ? c->backoff_ns * 2 : BACKOFF_FIRST_NS;
	if (c->backoff_ns > BACKOFF_MOST_NS)
		c->backoff_ns = BACKOFF_MOST_NS;
}

static void reap(struct supervisor *s)
{
	int status;
	pid_t pid;

	/* As PID 1 of a container we also reap what others left behind. */
	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		struct child *c = child_by_pid(s, pid);

		if (c)
			child_ended(s, c, status);
	}
}

/* ---- signals ---- */

static void on_terminate(struct supervisor *s)
{
	uint64_t wait_ns;

	if (s->state != STATE_RUNNING) {
		log_warning("supervisor", "told again to end, ending now", "");
		stop_all(s, EXIT_FAILED);
		return;
	}
	wait_ns = s->plan->terminate
			  ? s->plan->terminate(s->plan, s->config, s->packet, sizeof(s->packet))
			  : 0;
	if (!wait_ns) {
		stop_all(s, EXIT_DONE);
		return;
	}
	s->state = STATE_TERMINATING;
	s->deadline_ns = clock_mono_ns() + wait_ns;
	s->repeat_ns = 0;
	log_info("supervisor", "told to end, hooks run first", "");
}

static void on_reload(struct supervisor *s)
{
	_cleanup_(config_free_p) struct config *config = NULL;
	struct err e = {0};

	if (s->state != STATE_RUNNING)
		return;
	if (config_load(s->plan->side, s->plan->config_file, &config, &e) < 0) {
		log_error("supervisor", "reload refused, the old configuration stays", "why=\"%s\"",
			  e.text);
		return;
	}
	if (!str_equal(config->_runtime_dir, s->config->_runtime_dir)) {
		log_error("supervisor", "reload refused, the old configuration stays",
			  "why=\"runtime_dir was %s and is %s now; this needs a restart\"",
			  s->config->_runtime_dir, config->_runtime_dir);
		return;
	}
	if (s->plan->prepare(s->plan, config, &e) < 0) {
		log_error("supervisor", "reload refused, the old configuration stays", "why=\"%s\"",
			  e.text);
		return;
	}
	config_free(s->config);
	s->config = TAKE_PTR(config);
	log_info("supervisor", "reloaded, every process restarts", "");
	for (size_t i = 0; i < s->plan->process_count; i++)
		child_tell(&s->children[i]);
}

static void on_signals(struct supervisor *s)
{
	struct signalfd_siginfo info;

	while (read(s->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
		switch (info.ssi_signo) {
		case SIGTERM:
		case SIGINT:
			on_terminate(s);
			break;
		case SIGHUP:
			on_reload(s);
			break;
		case SIGCHLD:
			reap(s);
			break;
		}
	}
}

static void on_steward(struct supervisor *s)
{
	char packet[512];
	const char *code;

	while (daemon_link_recv(s->links[LINK_SUPERVISOR_STEWARD][0], packet, sizeof(packet)) > 0) {
		if (s->state != STATE_TERMINATING || !strstr(packet, "\"terminated\""))
			continue;
		code = strstr(packet, "\"code\":");
		stop_all(s, code ? atoi(code + strlen("\"code\":")) & 3 : EXIT_FAILED);
	}
}

/* ---- life ---- */

static void say_lenient(void *data, const char *text)
{
	(void)data;
	log_warning("config", "ignored", "why=\"%s\"", text);
}

static int supervisor_config(struct supervisor *s)
{
	const struct supervisor_plan *plan = s->plan;
	struct err e = {0};
	int r;

	r = plan->is_sidecar ? config_load_lenient(plan->side, plan->config_file, say_lenient, NULL,
						   &s->config)
			     : config_load(plan->side, plan->config_file, &s->config, &e);
	if (r < 0) {
		fprintf(stderr, "tidegate %s: %s\n", plan->verb, e.text);
		return r;
	}
	log_setup(str_equal(s->config->log_level, "debug")     ? LOG_DEBUG
		  : str_equal(s->config->log_level, "info")    ? LOG_INFO
		  : str_equal(s->config->log_level, "warning") ? LOG_WARNING
							       : LOG_ERROR,
		  str_equal(s->config->log_format, "json") ? LOG_FORMAT_JSON : LOG_FORMAT_TEXT);
	log_set_process("supervisor");
	return 0;
}

static int check_addresses(const struct supervisor *s, struct err *e)
{
	const char *addresses[8];
	size_t n = s->plan->addresses(s->config, addresses, ARRAY_LEN(addresses));
	int r = 0, fd;

	for (size_t i = 0; i < n && r >= 0; i++) {
		bool is_http = addresses[i] == s->config->api_address ||
			       addresses[i] == s->config->http_address;

		if (!addresses[i][0] || str_starts(addresses[i], "ipc://"))
			continue;
		if (!is_http && str_starts(addresses[i], "tls+") && !*s->config->tls_cert_file)
			return err_set(e, -EINVAL,
				       "%s: needs a certificate; set tls.ca_file, tls.cert_file "
				       "and tls.key_file",
				       addresses[i]);
		r = is_http ? listen_open(addresses[i], 1, &fd, e)
			    : listen_open_secured(addresses[i], 1, &fd, e);
		if (r >= 0)
			close(fd);
	}
	return r;
}

static int supervisor_open(struct supervisor *s, struct err *e)
{
	int r;

	/* layers: anonymous, shared with the children; a segment is the keeper's, which may die */
	s->counts = mmap(NULL, sizeof(*s->counts), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (s->counts == MAP_FAILED)
		return err_set(e, -errno, "no shared memory: %s", err_text(errno));
	if (s->plan->side == CONFIG_AGGREGATOR) {
		s->door = door_page_new();
		if (!s->door)
			return err_set(e, -ENOMEM, "no shared memory: out of memory");
		/* So that agents resume their TLS sessions with a door that was restarted. */
		if (getrandom(s->ticket_secret, sizeof(s->ticket_secret), 0) !=
		    sizeof(s->ticket_secret))
			return err_set(e, -EIO, "no random numbers");
	}
	CHECK(s->plan->process_count <= PROCESSES_MAX);
	for (size_t i = 0; i < s->plan->process_count; i++) {
		s->children[i] = (struct child){.process = &s->plan->processes[i], .pipe = -1};
		str_copy(s->counts->process[i].name, sizeof(s->counts->process[i].name),
			 s->plan->processes[i].spec.name);
	}
	r = links_open(s);
	if (r < 0)
		return err_set(e, r, "cannot make links between processes: %s", err_text(r));
	sigemptyset(&s->signals);
	sigaddset(&s->signals, SIGTERM);
	sigaddset(&s->signals, SIGINT);
	sigaddset(&s->signals, SIGHUP);
	sigaddset(&s->signals, SIGCHLD);
	sigprocmask(SIG_BLOCK, &s->signals, &s->signals_before);
	sigdelset(&s->signals_before, SIGTERM);
	sigdelset(&s->signals_before, SIGCHLD);
	s->signal_fd = signalfd(-1, &s->signals, SFD_CLOEXEC | SFD_NONBLOCK);
	if (s->signal_fd < 0)
		return err_set(e, -errno, "cannot watch signals: %s", err_text(errno));
	return 0;
}

/* Somebody removed the runtime directory: it is made anew, and each process brings back what it
 * holds there. */
static void look_after_dir(struct supervisor *s, uint64_t now)
{
	struct err e = {0};
	char path[512];
	struct stat ours, there;
	int old = s->lock_fd, r;

	s->look_at_ns = now + LOOK_NS;
	snprintf(path, sizeof(path), "%s/supervisor.pid", s->config->_runtime_dir);
	if (fstat(old, &ours) == 0 && lstat(path, &there) == 0 && ours.st_ino == there.st_ino)
		return;
	r = s->plan->prepare(s->plan, s->config, &e);
	if (r >= 0)
		r = lock_open(s->config->_runtime_dir, &s->lock_fd, &e);
	if (r < 0) {
		if (!s->is_dir_lost)
			log_error("supervisor", "the runtime directory was removed", "why=\"%s\"",
				  e.text);
		s->is_dir_lost = true;
		return;
	}
	close(old);
	s->is_dir_lost = false;
	log_warning("supervisor", "the runtime directory was removed, every process restarts",
		    "path=%s", s->config->_runtime_dir);
	for (size_t i = 0; i < s->plan->process_count; i++)
		child_tell(&s->children[i]);
}

static bool any_child(const struct supervisor *s)
{
	for (size_t i = 0; i < s->plan->process_count; i++)
		if (s->children[i].pid)
			return true;
	return false;
}

/* Starts what is due; returns how many ms until the next thing is due, -1 for never. */
static int supervisor_due(struct supervisor *s)
{
	uint64_t now = clock_mono_ns(), next = UINT64_MAX;

	if (s->state == STATE_RUNNING && s->lock_fd >= 0) {
		if (now >= s->look_at_ns)
			look_after_dir(s, now);
		next = s->look_at_ns;
	}
	for (size_t i = 0; i < s->plan->process_count && s->state != STATE_STOPPING; i++) {
		struct child *c = &s->children[i];

		if (c->pid || (c->process->is_needed && !c->process->is_needed(s->config)))
			continue;
		if (c->restart_at_ns <= now)
			child_start(s, c);
		else if (c->restart_at_ns < next)
			next = c->restart_at_ns;
	}
	if (s->state == STATE_TERMINATING && now >= s->repeat_ns) {
		daemon_link_send(s->links[LINK_SUPERVISOR_STEWARD][0], s->packet,
				 strlen(s->packet));
		s->repeat_ns = now + NS_PER_S;
	}
	if (s->state == STATE_TERMINATING && now >= s->deadline_ns) {
		log_error("supervisor", "the steward did not answer in time, ending", "");
		stop_all(s, EXIT_DEADLINE);
	}
	if (s->state == STATE_STOPPING && now >= s->deadline_ns) {
		for (size_t i = 0; i < s->plan->process_count; i++) {
			if (!s->children[i].pid)
				continue;
			log_error("supervisor", "a process does not end, killing it", "process=%s",
				  s->children[i].process->spec.name);
			kill(s->children[i].pid, SIGKILL);
		}
		s->deadline_ns = now + NS_PER_S;
	}
	if (s->state != STATE_RUNNING && s->deadline_ns < next)
		next = s->deadline_ns;
	if (s->state == STATE_TERMINATING && s->repeat_ns < next)
		next = s->repeat_ns;
	if (next == UINT64_MAX)
		return -1;
	return (int)((next - now) / NS_PER_MS) + 1;
}

static int supervisor_loop(struct supervisor *s)
{
	while (s->state != STATE_STOPPING || any_child(s)) {
		int timeout = supervisor_due(s);
		struct pollfd fds[] = {
			{.fd = s->signal_fd, .events = POLLIN},
			{.fd = s->links[LINK_SUPERVISOR_STEWARD][0], .events = POLLIN},
		};

		if (s->state == STATE_STOPPING && !any_child(s))
			break;
		if (poll(fds, ARRAY_LEN(fds), timeout) < 0 && errno != EINTR)
			return EXIT_FAILED;
		if (fds[0].revents)
			on_signals(s);
		if (fds[1].revents)
			on_steward(s);
	}
	return s->exit_code;
}

int supervisor_run(const struct supervisor_plan *plan)
{
	struct supervisor s = {.plan = plan, .signal_fd = -1, .lock_fd = -1};
	struct err e = {0};
	int r;

	if (supervisor_config(&s) < 0)
		return EXIT_USAGE;
	r = plan->prepare(plan, s.config, &e);
	if (r >= 0)
		r = lock_open(s.config->_runtime_dir, &s.lock_fd, &e);
	if (r >= 0)
		r = check_addresses(&s, &e);
	if (r < 0 && plan->is_sidecar) {
		log_error("supervisor", "running degraded", "why=\"%s\"", e.text);
		err_clear(&e);
		r = 0;
	}
	if (r >= 0)
		r = supervisor_open(&s, &e);
	if (r < 0) {
		fprintf(stderr, "tidegate %s: %s\n", plan->verb, e.text);
		config_free(s.config);
		return r == -EINVAL ? EXIT_USAGE : EXIT_FAILED;
	}
	supervisor_say_users(plan, s.config);
	r = supervisor_loop(&s);
	log_info("supervisor", "ended", "code=%d", r);
	config_free(s.config);
	return r;
}
