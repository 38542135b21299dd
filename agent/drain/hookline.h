/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The steward's end of the link to the script process (packets: drain/script.h). Trusts nothing
 * that comes over it: who sends is told by the kernel, and a script process that does not answer
 * is killed. Runs survive neither its death nor ours: they end as failed.
 */
#pragma once

#include "base/loop.h"
#include "drain/script.h"

#include <jansson.h>

struct hookline;

struct hookline_options {
	struct loop *loop;
	int fd;            /* -1: there is no script process */
	uint64_t quiet_ns; /* a script process that is silent for so long is killed */
	void (*call)(void *data, uint64_t run, uint64_t call, enum script_op op, double number,
		     const char *text);
	void (*hook_ran)(void *data, uint64_t run, const char *name, bool is_ok, uint32_t ms,
			 const char *error);
	/* In any case once a run that was not cancelled; never from inside of hookline_run. */
	void (*done)(void *data, uint64_t run, unsigned int ran, unsigned int failed,
		     bool has_acted);
	void *data;
};

/* What a run is about; strings are copied. */
struct hookline_event {
	const char *point, *gateway, *instance, *driver, *reason;
	uint64_t deadline_ns, until_ns;
};

int hookline_open(const struct hookline_options *options, struct hookline **ret, struct err *e);
struct hookline *hookline_close(struct hookline *h);

/* 0 when there is no room, else the run's number. */
uint64_t hookline_run(struct hookline *h, const struct hookline_event *event);
void hookline_cancel(struct hookline *h, uint64_t run);

/* Takes the reference to numbers (may be NULL). */
void hookline_answer(struct hookline *h, uint64_t run, uint64_t call, bool is_ok, const char *error,
		     json_t *numbers);

/* Called at least each second, each 50 ms while runs are open. */
void hookline_tick(struct hookline *h, uint64_t now_ns);
unsigned int hookline_open_runs(const struct hookline *h);

/* How many script processes were killed for not answering. */
unsigned int hookline_kills(const struct hookline *h);
