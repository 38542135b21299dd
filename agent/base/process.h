/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One process of a daemon: forked (never executed) from the supervisor, restarted when it dies,
 * stripped of what it does not need. It ends when its supervisor pipe does, not by a death signal,
 * so that it can still write down what it holds.
 */
#pragma once

#include "base/err.h"

#include <stdint.h>
#include <sys/types.h>

/* seccomp filters, deny by default, from narrow to wide; the lists are in process.c. A refused
 * call fails with EPERM (ENOSYS where a library then tries an older call). */
enum process_filter {
	PROCESS_FILTER_NONE,
	PROCESS_FILTER_COMPUTE, /* memory, read and write on open descriptors, exit */
	PROCESS_FILTER_NETWORK, /* files, sockets, time; no exec, no ptrace, no bpf, no mounts */
	PROCESS_FILTER_SCRIPT,  /* as NETWORK, and fork and exec */
};

struct process_spec {
	const char *name;        /* "courier" */
	const char *user_suffix; /* NULL: stays uid 0; else <user>-<suffix> */
	int fallback_id;         /* uid where that user does not exist: PROCESS_ID_BASE + this */
	uint64_t caps;           /* bit mask of CAP_x that it keeps (permitted and effective) */
	enum process_filter filter;
	int nice; /* above 0: whoever serves requests goes first */
};

#define PROCESS_ID_BASE 61700 /* fallback ids: inside systemd's range for dynamic users */

/* 1 in a build with a sanitizer, whose run time may trace the process, read /proc and map much. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define PROCESS_IS_SANITIZED 1
#elif defined(__clang__)
#define PROCESS_IS_SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define PROCESS_IS_SANITIZED 0
#endif

#define PROCESS_CAP(cap) (1ULL << (cap))

/* Resolves a user or group; falls back to the number. *ret_known says which. */
uid_t process_user_id(const char *name, uid_t fallback, bool *ret_known);
gid_t process_group_id(const char *name, gid_t fallback, bool *ret_known);

/* Irreversibly becomes uid/gid with the supplementary groups given, keeps exactly caps (as far as
 * they are there: *ret_missing is what was wanted and is not), no new privileges, not dumpable.
 * When not uid 0 to begin with, only caps and no_new_privs are done. */
int process_confine(uid_t uid, gid_t gid, const gid_t *groups, size_t group_count, uint64_t caps,
		    uint64_t *ret_missing, struct err *e);

/* Closes every descriptor above 2 but those of keep[0..n) (negative ones are skipped). */
int process_close_fds(const int *keep, size_t n);

/* Installs the filter, for this process and what it forks. */
int process_filter_apply(enum process_filter filter, struct err *e);

/* Names of the capabilities in a mask, "CAP_BPF CAP_PERFMON"; "none". Returns buf. */
const char *process_cap_names(uint64_t caps, char *buf, size_t size);

/* Effective capabilities of this process. */
uint64_t process_caps(void);
/* CPU time of another process, ended threads included; 0: it is gone. No file is read. */
uint64_t process_cpu_ns(uint32_t pid);

/* Start time of a process in clock ticks since boot (/proc/PID/stat field 22): with the pid it
 * names one process for ever. -ESRCH when there is none, or it waits to be reaped. */
int process_start_time(pid_t pid, uint64_t *ret);
