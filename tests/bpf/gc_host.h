/* SPDX-License-Identifier: Apache-2.0 */
/* Processes with a Lua in them that run a script and say what they did; the probes that watch. */
#pragma once

#include "base/clock.h"
#include "base/str.h"
#include "metrics.h"
#include "probe/probe.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static struct cells cells;

static inline unsigned long count_of(enum gc_phase phase)
{
	return (unsigned long)histogram_count(cells.gc_ns[phase]);
}

static inline double ns_of(enum gc_phase phase)
{
	return histogram_sum(cells.gc_ns[phase]) * 1e9;
}

static inline void take_totals(struct probe_set *set)
{
	struct probe_now now;

	probe_heartbeat(set, clock_mono_ns());
	probe_totals(set, 0, clock_mono_ns(), &cells, &now);
}

static inline int open_set(struct probe_set **ret, uint64_t budget, const char *pin_dir,
			   uint64_t adopt_id)
{
	const struct probe_options options = {
		.tier = "auto",
		.threads = 256,
		.connections = 1024,
		.sample = 1,
		.want_gc = true,
		.gc_budget = budget,
		.pin_dir = pin_dir,
		.slow_request_ns = NS_PER_S,
	};
	struct err e = {.text = ""};
	int r;

	histogram_thresholds();
	r = probe_open(&options, adopt_id, ret, &e);
	if (r < 0)
		fprintf(stderr, "gc: %s\n", e.text);
	else
		probe_heartbeat(*ret, clock_mono_ns());
	return r;
}

/* ---- a process with a Lua in it ---- */

#define LIBS "/usr/lib/x86_64-linux-gnu/"

struct host {
	const char *library;
	pid_t pid;
	FILE *in, *out; /* of its script: what we write, what it writes */
	struct probe_gc_report report;
	unsigned long step, full, cycles; /* counted before */
};

static struct probe_set *set;

__attribute__((noreturn)) static void host_main(const char *library, const char *script)
{
	void *lib = dlopen(library, RTLD_NOW | RTLD_GLOBAL), *state;
	void *(*new_state)(void) = NULL;
	void (*open_libs)(void *) = NULL;
	int (*load)(void *, const char *) = NULL, (*call)(void *, int, int, int) = NULL;
	int (*callk)(void *, int, int, int, intptr_t, void *) = NULL;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!lib)
		_exit(77);
	*(void **)&new_state = dlsym(lib, "luaL_newstate");
	*(void **)&open_libs = dlsym(lib, "luaL_openlibs");
	*(void **)&load = dlsym(lib, "luaL_loadstring");
	*(void **)&call = dlsym(lib, "lua_pcall");
	*(void **)&callk = dlsym(lib, "lua_pcallk");
	if (!new_state || !open_libs || !load || (!call && !callk))
		_exit(78);
	state = new_state();
	open_libs(state);
	if (load(state, script))
		_exit(79);
	_exit(callk ? callk(state, 0, 0, 0, 0, NULL) : call(state, 0, 0, 0));
}

static inline void host_start(struct host *host, const char *script)
{
	int to[2], from[2];
	char line[64];

	if (access(host->library, R_OK) < 0) {
		print_message("# SKIP %s is not installed\n", host->library);
		skip();
	}
	assert_int_equal(pipe(to), 0);
	assert_int_equal(pipe(from), 0);
	host->pid = fork();
	assert_true(host->pid >= 0);
	if (host->pid == 0) {
		dup2(to[0], 0);
		dup2(from[1], 1);
		/* Links as well: open here, they would outlive their detaching. */
		close_range(3, ~0U, 0);
		host_main(host->library, script);
	}
	close(to[0]);
	close(from[1]);
	host->in = fdopen(to[1], "w");
	host->out = fdopen(from[0], "r");
	assert_non_null(fgets(line, sizeof(line), host->out));
	assert_string_equal(line, "ready\n");
	assert_true(probe_watch_thread(set, 0, (uint32_t)host->pid, (uint32_t)host->pid,
				       ROLE_WORKER) >= 0);
	assert_int_equal(probe_gc_attach(set, 0, (uint32_t)host->pid, &host->report), 0);
	take_totals(set);
	host->step = count_of(GC_STEP);
	host->full = count_of(GC_FULL);
	host->cycles = (unsigned long)cells.gc_cycles;
}

/* Lets the script go on; the number that it writes. */
static inline unsigned long host_run(struct host *host)
{
	char line[64];

	fprintf(host->in, "go\n");
	fflush(host->in);
	if (!fgets(line, sizeof(line), host->out))
		fail_msg("the process with %s ended", host->library);
	take_totals(set);
	host->step = count_of(GC_STEP) - host->step;
	host->full = count_of(GC_FULL) - host->full;
	host->cycles = (unsigned long)cells.gc_cycles - host->cycles;
	return strtoul(line, NULL, 10);
}

static inline void host_end(struct host *host)
{
	int status;

	fclose(host->in);
	fclose(host->out);
	assert_int_equal(waitpid(host->pid, &status, 0), host->pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	probe_forget_process(set, (uint32_t)host->pid);
}

#define BEGIN                                                                \
	"if jit then jit.off() end collectgarbage('stop') local keep = {} "  \
	"for i = 1, 30000 do keep[i] = { i } end collectgarbage('collect') " \
	"collectgarbage('stop') io.write('ready\\n') io.flush() io.read('*l') "
#define END "io.write(n, '\\n') io.flush() io.read('*l')"
