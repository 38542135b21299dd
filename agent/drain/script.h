/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lua host for hooks. A service: one Lua 5.4 state, a sandbox, budgets, and hooks as coroutines
 * that stop at each wish (sleep, signal, …) until the embedder answers it. No I/O but reading the
 * files; no thread, no signal. A C function inside Lua cannot be interrupted (a pathological
 * pattern): whoever runs a host must be ready to kill its process.
 *
 * The steward and the script process talk in JSON packets over LINK_STEWARD_SCRIPT:
 *   steward  {"type":"who"}                        "are you there?"; a script process answers hello
 *            {"type":"welcome","pid":P}            it obeys nothing that came before its own welcome
 *            {"type":"run","run":N,"point":…,"gateway":…,"instance":…,"driver":…,"reason":…,
 *             "deadline_ns":N,"until_ns":N}        CLOCK_MONOTONIC
 *            {"type":"cancel","run":N}
 *            {"type":"answer","run":N,"call":N,"ok":true,"error":"","numbers":{"in_flight":1}}
 *            {"type":"ping"}
 *   script   {"type":"hello"}, {"type":"pong"}     the kernel says whose (SCM_CREDENTIALS)
 *            {"type":"call","run":N,"call":N,"op":"wait_quiet","number":2.0,"text":""}
 *            {"type":"hook","run":N,"name":…,"ok":true,"ms":3,"error":""}
 *            {"type":"done","run":N,"ran":1,"failed":0,"acted":false}
 */
#pragma once

#include "base/err.h"

#include <stdint.h>

#define SCRIPT_HOOKS_MAX   256
#define SCRIPT_RUNS_MAX    65
#define SCRIPT_FILE_MAX    (256u << 10)
#define SCRIPT_SUBJECT_MAX (16u << 10) /* bytes that a pattern is matched against */
#define SCRIPT_OUTPUT_MAX  (64u << 10) /* bytes that the hooks of one run may log */
#define SCRIPT_ARGS_MAX    32
#define SCRIPT_ARGS_BYTES  4096
#define SCRIPT_PAIRS_MAX   16

struct script_host;

enum script_op {
	SCRIPT_WAIT_QUIET,     /* number: seconds */
	SCRIPT_WAIT_IN_FLIGHT, /* number: at most so many */
	SCRIPT_SIGNAL,         /* text: "QUIT" */
	SCRIPT_NUMBERS,
	SCRIPT_SLEEP, /* number: seconds */
	SCRIPT_EXEC,  /* argv, number: timeout in seconds */
	SCRIPT_OPS
};

/* "wait_quiet", …; the op of a name, or SCRIPT_OPS. */
const char *script_op_name(enum script_op op);
enum script_op script_op_find(const char *name);

/* What a hook wishes; borrowed until it is answered. */
struct script_call {
	uint64_t run, call;
	enum script_op op;
	double number;
	const char *text;
	char *const *argv; /* ends with NULL */
};

struct script_answer {
	bool is_ok;
	double number;    /* exec: exit status */
	const char *text; /* the reason when not ok; exec: output */
	unsigned int pair_count;
	struct {
		char key[32];
		double value;
	} pairs[SCRIPT_PAIRS_MAX];
};

struct script_event {
	uint64_t run; /* chosen by the embedder, unique */
	const char *point, *gateway, *instance, *driver, *reason;
	uint64_t deadline_ns; /* CLOCK_MONOTONIC, for ctx.deadline_s() */
};

struct script_options {
	const char *lua_dir;   /* library, drivers, shipped hooks; NULL: none */
	const char *hooks_dir; /* a file here replaces the shipped one of its name; NULL: none */
	uint64_t memory_bytes; /* of the whole state */
	uint64_t cpu_ns;       /* of one hook, and of loading one file */
	/* May answer at once, from inside. */
	void (*call)(void *data, const struct script_call *call);
	void (*hook_done)(void *data, uint64_t run, const char *name, bool is_ok, uint32_t ms,
			  const char *error);
	void (*run_done)(void *data, uint64_t run, unsigned int ran, unsigned int failed,
			 bool has_acted);
	void (*log)(void *data, const char *hook, const char *text);
	/* A file that is skipped, hooks in a circle: "file:line: why". */
	void (*problem)(void *data, const char *text);
	void *data;
};

struct script_hook_info {
	const char *name, *point, *file;
};

/* Copies the options; strings and data are borrowed for the life of the host. */
int script_open(const struct script_options *options, struct script_host **ret, struct err *e);
struct script_host *script_close(struct script_host *h);

/* Loads library and hooks. Returns how many problems were told; files without one are loaded. */
unsigned int script_load(struct script_host *h);

/* Checks one directory of hooks alone, with the library. */
unsigned int script_load_dir(struct script_host *h, const char *dir);

/* i-th hook of a point for a driver (NULL: any) in the order in which they run. */
bool script_hook_at(const struct script_host *h, const char *point, const char *driver,
		    unsigned int i, struct script_hook_info *ret);

/* Starts the hooks of a point, one after another; run_done comes in any case, maybe at once.
 * -EINVAL unknown point, -EBUSY too many runs. */
int script_start(struct script_host *h, const struct script_event *event);

/* Answers that nobody waits for are ignored. */
void script_answer(struct script_host *h, uint64_t run, uint64_t call,
		   const struct script_answer *answer);

/* Ends the present hook of a run as failed and runs no more; run_done comes. */
void script_cancel(struct script_host *h, uint64_t run, const char *why);

/* True for a hook point; names in points (NULL ends the list). */
bool script_is_point(const char *point);
extern const char *const script_points[];

/* Where library and shipped hooks are: configured, or beside the running binary's build, or
 * installed. -ENAMETOOLONG. */
int script_find_lua_dir(const char *configured, char *buf, size_t size);
