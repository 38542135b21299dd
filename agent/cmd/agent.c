/* SPDX-License-Identifier: Apache-2.0 */
/* Verb agent: the daemon of a host or pod; its rows of processes and what SIGTERM means to it. */
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/log.h"
#include "cmd/dispatch.h"
#include "cmd/keeper.h"
#include "cmd/supervisor.h"
#include "cmd/verbs.h"
#include "probe/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/capability.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <sys/wait.h>

#define BPFFS_MAGIC 0xcafe4a11

enum { ROW_KEEPER, ROW_COURIER, ROW_STEWARD, ROW_SCRIPT };

static const struct supervisor_process processes[] = {
	[ROW_KEEPER] = {.spec = {.name = "keeper",
				 .caps = KEEPER_CAPS,
				 .filter = PROCESS_FILTER_NONE},
			.entry = keeper_run},
	[ROW_COURIER] = {.spec = {.name = "courier",
				  .user_suffix = "courier",
				  .fallback_id = 0,
				  .filter = PROCESS_FILTER_NETWORK,
				  .nice = 10},
			 .entry = courier_run},
	[ROW_STEWARD] = {.spec = {.name = "steward",
				  .user_suffix = "steward",
				  .fallback_id = 1,
				  .caps = PROCESS_CAP(CAP_KILL),
				  .filter = PROCESS_FILTER_NETWORK},
			 .entry = steward_run},
	[ROW_SCRIPT] = {.spec = {.name = "script",
				 .user_suffix = "script",
				 .fallback_id = 2,
				 .filter = PROCESS_FILTER_SCRIPT},
			.entry = script_run},
};

static const struct supervisor_link links[] = {
	{LINK_SUPERVISOR_STEWARD, {"supervisor", "steward"}},
	{LINK_STEWARD_KEEPER, {"steward", "keeper"}},
	{LINK_STEWARD_COURIER, {"steward", "courier"}},
	{LINK_KEEPER_COURIER, {"keeper", "courier"}},
	{LINK_STEWARD_SCRIPT, {"steward", "script"}},
};

/* Pinning needs a bpffs. systemd mounts one; elsewhere we do, where we may. */
static void mount_bpffs(const char *path)
{
	struct statfs fs;

	if (!path[0] || (statfs(path, &fs) == 0 && (unsigned long)fs.f_type == BPFFS_MAGIC))
		return;
	if (mount("bpf", path, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") < 0)
		log_warning("supervisor", "no bpffs, counting pauses while the keeper restarts",
			    "path=%s why=\"%s\"", path, err_text(errno));
	else
		log_info("supervisor", "mounted bpffs", "path=%s", path);
}

static int prepare(const struct supervisor_plan *plan, const struct config *config, struct err *e)
{
	gid_t run = supervisor_gid_run(config), app = supervisor_gid_app(config);
	char path[512];
	int r;

	(void)plan;
	if (geteuid() != 0)
		log_warning("supervisor", "not root: probes and users of their own need it",
			    "grant=\"run as root; what can work still does\"");
	/* Sticky, so that no process of ours can take away another's file. */
	r = supervisor_make_dir(config->_runtime_dir, 01771, 0, run, e);
	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "%s/private", config->_runtime_dir);
	r = supervisor_make_dir(path, 01770, 0, run, e);
	if (r < 0)
		return r;
	snprintf(path, sizeof(path), "%s/app", config->_runtime_dir);
	r = supervisor_make_dir(path, 02770, 0, app, e);
	if (r < 0)
		return r;
	r = supervisor_make_dir(config->spool_dir, 0700,
				supervisor_uid(config, &processes[ROW_COURIER].spec), run, e);
	if (r < 0)
		return r;
	mount_bpffs(config->probe_bpffs);
	/* Last: a sidecar goes on without these aggregators. */
	return dispatch_check(config, e);
}

/* Whether the host is going down, by asking the service manager, for at most a second. */
static bool host_goes_down(void)
{
	static char word[64];
	int fds[2], status;
	ssize_t n = 0;
	pid_t pid;

	if (access("/run/systemd/system", F_OK) < 0 || pipe2(fds, O_CLOEXEC) < 0)
		return false;
	pid = fork();
	if (pid == 0) {
		dup2(fds[1], STDOUT_FILENO);
		execlp("systemctl", "systemctl", "is-system-running", (char *)NULL);
		_exit(127);
	}
	close(fds[1]);
	if (pid > 0) {
		struct pollfd p = {.fd = fds[0], .events = POLLIN};

		if (poll(&p, 1, 1000) > 0)
			n = read(fds[0], word, sizeof(word) - 1);
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
	}
	close(fds[0]);
	word[n > 0 ? n : 0] = '\0';
	return str_starts(word, "stopping");
}

static bool is_started_by_systemd(void)
{
	const char *pid = getenv("SYSTEMD_EXEC_PID");

	return pid && atoi(pid) == (int)getpid();
}

static uint64_t terminate(const struct supervisor_plan *plan, const struct config *config,
			  char *buf, size_t size)
{
	bool by_systemd = is_started_by_systemd(), goes_down = by_systemd && host_goes_down();
	const char *mode = config->drain_on_sigterm;
	const char *reason = plan->is_sidecar ? "pod" : goes_down ? "shutdown" : "stop";
	bool is_drain;

	if (str_equal(mode, "auto"))
		mode = by_systemd ? "shutdown" : "always";
	is_drain = str_equal(mode, "always") || (str_equal(mode, "shutdown") && goes_down);
	snprintf(buf, size, "{\"type\":\"terminate\",\"reason\":\"%s\",\"drain\":%s}", reason,
		 is_drain ? "true" : "false");
	log_info("supervisor", "SIGTERM", "reason=%s drain=%s on_sigterm=%s", reason,
		 is_drain ? "yes" : "no", config->drain_on_sigterm);
	/* The lease ends at its deadline; hooks of `terminate` come on top. */
	return config->drain_deadline + 8 * NS_PER_S;
}

static size_t addresses(const struct config *config, const char **ret, size_t max)
{
	ret[0] = config->http_address;
	return max ? 1 : 0;
}

static int detach(const char *file)
{
	_cleanup_(config_free_p) struct config *config = NULL;
	struct err e = {0};
	char dir[512];
	int r;

	r = config_load(CONFIG_AGENT, file, &config, &e);
	if (r < 0) {
		fprintf(stderr, "tidegate agent: %s\n", e.text);
		return EXIT_USAGE;
	}
	log_setup(LOG_WARNING, LOG_FORMAT_TEXT);
	keeper_pin_dir(config, dir, sizeof(dir));
	r = probe_unpin(dir, &e);
	if (r < 0) {
		fprintf(stderr, "tidegate agent --detach: %s\n", e.text);
		return EXIT_FAILED;
	}
	return EXIT_DONE;
}

int agent_verb(int argc, char **argv)
{
	static const struct option options[] = {{"sidecar", no_argument, NULL, 's'},
						{"detach", no_argument, NULL, 'd'},
						{"config", required_argument, NULL, 'c'},
						{0}};
	struct supervisor_plan plan = {
		.verb = "agent",
		.side = CONFIG_AGENT,
		.processes = processes,
		.process_count = ARRAY_LEN(processes),
		.links = links,
		.link_count = ARRAY_LEN(links),
		.prepare = prepare,
		.addresses = addresses,
		.terminate = terminate,
	};
	bool is_detach = false;
	int c;

	opterr = 0;
	while ((c = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		switch (c) {
		case 's':
			plan.is_sidecar = true;
			break;
		case 'd':
			is_detach = true;
			break;
		case 'c':
			plan.config_file = optarg;
			break;
		default:
			return verb_bad_option("agent", argv, options);
		}
	}
	if (verb_has_argument("agent", argc, argv, NULL))
		return EXIT_USAGE;
	return is_detach ? detach(plan.config_file) : supervisor_run(&plan);
}
