/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs that hooks may run: from the allow-list only, no shell, an empty environment but PATH,
 * one timeout, output up to a limit. Script process.
 */
#pragma once

#include "base/loop.h"
#include "config/config.h"

#include <stddef.h>

#define SCRIPT_EXEC_OUTPUT_MAX 16384
#define SCRIPT_EXEC_MOST       16 /* at once */

struct script_exec;

/* code: exit status, 128 + signal; -ETIME: killed at its timeout. The handle is gone then. */
typedef void (*script_exec_fn)(void *data, int code, const char *output);

/* -EPERM: not in the list, e says which option would allow it. -EBUSY. */
int script_exec_start(struct loop *loop, const struct config_list *allowed, char *const *argv,
		      double timeout_s, script_exec_fn fn, void *data, struct script_exec **ret,
		      struct err *e);
/* Kills and reaps it; fn is not called. NULL is fine. */
struct script_exec *script_exec_stop(struct script_exec *x);
