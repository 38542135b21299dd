/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One daemon a runtime directory: supervisor.pid there is locked as long as the supervisor or one of
 * its children lives.
 */
#pragma once

#include "base/err.h"

/* Takes the lock and writes our pid. Waits a few seconds for the children of a supervisor that was
 * killed. -EBUSY: a live daemon holds it, e says which. *ret_fd is the caller's; children inherit
 * it. */
int lock_open(const char *runtime_dir, int *ret_fd, struct err *e);
