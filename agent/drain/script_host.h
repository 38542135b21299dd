/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the Lua host: shared by script*.c only. */
#pragma once

#include "drain/script.h"

#include "drain/order.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#define HOST_NAME_BYTES 48
#define HOST_LIST_MAX   8 /* entries of before, after, drivers */

struct host_hook {
	char name[HOST_NAME_BYTES];
	unsigned int point;
	char file[128];
	char before[HOST_LIST_MAX][HOST_NAME_BYTES], after[HOST_LIST_MAX][HOST_NAME_BYTES];
	char drivers[HOST_LIST_MAX][HOST_NAME_BYTES]; /* none: all */
	int run_ref;
};

struct host_run {
	bool is_used;
	uint64_t id;
	unsigned int point;
	char gateway[64], instance[64], driver[16], reason[16];
	uint64_t deadline_ns;
	unsigned int order[SCRIPT_HOOKS_MAX], count, position;
	unsigned int ran, failed;
	bool has_acted;
	lua_State *co; /* of the present hook */
	int co_ref;
	uint64_t hook_begin_ns, cpu_ns;
	size_t output;
	bool is_output_said;
	/* The wish that the hook waits for. */
	bool has_call, is_answered, is_calling;
	uint64_t call_id;
	enum script_op op;
	double number;
	char text[256], args[SCRIPT_ARGS_BYTES];
	char *argv[SCRIPT_ARGS_MAX + 1];
	struct script_answer answer;
	char *answer_text;
};

struct script_host {
	struct script_options options;
	lua_State *L;
	size_t memory;
	uint64_t memory_refused;
	struct host_hook *hooks;
	unsigned int hook_count, problems;
	const char *loading; /* file name, while a file is loaded */
	struct host_run *runs;
	struct host_run *active; /* whose Lua code runs now; NULL while loading */
	uint64_t calls;
	/* CPU clock of the thread at which the code that runs now is to be ended. */
	uint64_t cpu_limit_ns;
	bool is_killed;
	char scratch[SCRIPT_OUTPUT_MAX];
};

struct script_host *host_of(lua_State *L);

/* Calls fn(arg) protected: the only way in which the host's own frames touch raising functions.
 * On failure the text of the error is in text. */
int host_protect(struct script_host *h, lua_CFunction fn, void *arg, char *text, size_t size);

/* Arms the CPU budget for what runs next in this thread; returns the CPU clock. */
uint64_t host_arm(struct script_host *h, lua_State *L, uint64_t budget_ns);

/* Indices of a point's hooks in their order; none when they are in a circle, which e tells. */
unsigned int host_order_point(const struct script_host *h, unsigned int point, const char *driver,
			      unsigned int *ret_order, struct err *e);

/* Raising; called protected. */
int host_open_sandbox(lua_State *L);
int host_open_api(lua_State *L);

/* Reads the file whole as text; gives *ret_text. */
int host_read_file(const char *path, char **ret_text, size_t *ret_size);
