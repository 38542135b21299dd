/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a test that runs on each rung of the ladder needs: TAP, what must be mounted, and the loop over
 * the rungs. `tier` is the rung under test; one that cannot be loaded here is skipped with the reason.
 */
#pragma once

#include "base/clock.h"
#include "base/log.h"
#include "base/str.h"
#include "probe/probe.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <unistd.h>

static const char *tier = "all";
static unsigned int number, failed, loaded;

static inline void is(const char *what, uint64_t got, uint64_t want)
{
	bool is_right = got == want;

	printf("%sok %u - %s: %s\n", is_right ? "" : "not ", ++number, tier, what);
	if (is_right)
		return;
	failed++;
	printf("# got %llu, want %llu\n", (unsigned long long)got, (unsigned long long)want);
}

static inline void check(const char *what, bool is_good)
{
	is(what, is_good, true);
}

/* The ground a test stands on: without it there is nothing to count. */
#define must(is_done)                                                                      \
	do {                                                                               \
		if (!(is_done)) {                                                          \
			fprintf(stderr, "# %s:%d: %s: %s\n", __FILE__, __LINE__, #is_done, \
				strerror(errno));                                          \
			_exit(99);                                                         \
		}                                                                          \
	} while (0)

/* False, and a line that says so: this kernel does not load that rung. */
static inline bool open_rung(const struct probe_options *options, struct probe_set **ret)
{
	struct err e = {.text = ""};

	*ret = NULL;
	if (probe_open(options, 0, ret, &e)) {
		printf("ok %u - %s # SKIP %s\n", ++number, tier, e.text);
		return false;
	}
	loaded++;
	return true;
}

/* Most machines have these mounted; where not, we do it for ourselves alone. */
static inline void mount_own(const char *type, const char *path)
{
	if (mount(type, path, type, 0, NULL) < 0)
		printf("# mount %s on %s: %s\n", type, path, strerror(errno));
}

/* Before any process of the test is started. */
static inline void rungs_setup(void)
{
	struct statfs fs;

	log_setup(getenv("V") ? LOG_DEBUG : LOG_ERROR, LOG_FORMAT_TEXT);
	setvbuf(stdout, NULL, _IONBF, 0);
	signal(SIGPIPE, SIG_IGN);
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/sys", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return;
	if (access("/sys/kernel/tracing/events", F_OK) < 0)
		mount_own("tracefs", "/sys/kernel/tracing");
	if (statfs("/sys/fs/bpf", &fs) < 0 || fs.f_type != 0xcafe4a11)
		mount_own("bpf", "/sys/fs/bpf");
}

/* On each rung, or on the one that `only` names (NULL, "all": each). Gives the exit code. */
static inline int rungs_run(const char *only, void (*test)(void))
{
	static const char *const tiers[] = {"fentry", "tp_btf", "raw_tp", "tracepoint"};

	for (size_t i = 0; i < ARRAY_LEN(tiers); i++) {
		tier = tiers[i];
		if (!only || str_equal(only, "all") || str_equal(only, tier))
			test();
	}
	tier = "all";
	is("some rung loads", loaded > 0, 1);
	printf("1..%u\n", number);
	return failed ? 1 : 0;
}
