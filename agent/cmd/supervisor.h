/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Supervisor of a daemon: starts, restarts and reaps its processes, alone handles signals. Reads
 * nothing but its own configuration and initialises no library, so that children share its pages.
 */
#pragma once

#include "base/process.h"
#include "cmd/daemon.h"

/* One row a process. */
struct supervisor_process {
	struct process_spec spec;
	int (*entry)(struct daemon_context *ctx);
	bool (*is_needed)(const struct config *config); /* NULL: always */
};

/* One row a link: the processes at its two ends; "supervisor" for our own. */
struct supervisor_link {
	enum daemon_link link;
	const char *ends[2];
};

struct supervisor_plan {
	const char *verb; /* "agent": name in messages */
	enum config_side side;
	const char *config_file; /* NULL: the default one */
	bool is_sidecar;
	const struct supervisor_process *processes;
	size_t process_count;
	const struct supervisor_link *links;
	size_t link_count;
	/* Makes directories, mounts: whatever needs privileges that no child has. Negative: the
	 * daemon cannot run (unless it is a sidecar), e says why. */
	int (*prepare)(const struct supervisor_plan *plan, const struct config *config,
		       struct err *e);
	/* The TCP addresses at which processes will listen ("" and ipc:// ones are skipped), so that
	 * one in use is told at once, with its holder, which only root can see. */
	size_t (*addresses)(const struct config *config, const char **ret, size_t max);
	/* What a SIGTERM means. Writes the packet for the steward into buf and returns how long to
	 * wait for its answer in ns; 0: end at once. NULL: end at once. */
	uint64_t (*terminate)(const struct supervisor_plan *plan, const struct config *config,
			      char *buf, size_t size);
};

/* Runs until told to end. Returns the daemon's exit code. */
int supervisor_run(const struct supervisor_plan *plan);

/* The uid of a process row, the group of the daemon's processes, and the configured groups. */
uid_t supervisor_uid(const struct config *config, const struct process_spec *spec);
gid_t supervisor_gid_run(const struct config *config);
gid_t supervisor_gid_app(const struct config *config);
gid_t supervisor_gid_admin(const struct config *config);

/* Logs which users of the plan do not exist here, with the numbers that stand for them. */
void supervisor_say_users(const struct supervisor_plan *plan, const struct config *config);

/* mkdir -p, then owner and mode of the last part; owners are left alone when we are not uid 0. */
int supervisor_make_dir(const char *path, mode_t mode, uid_t uid, gid_t gid, struct err *e);
