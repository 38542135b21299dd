/* SPDX-License-Identifier: Apache-2.0 */
/* The process behind a lease: a pid is only itself together with its start time. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Field 22 of /proc/PID/stat; -ESRCH when there is no such process, or only its zombie. */
int target_start_time(uint32_t pid, uint64_t *ret_start);

/* False only when it is certain that the process has ended. */
bool target_is_alive(uint32_t pid, uint64_t start);

/* Sends through a pidfd, after the start time was compared: never to a stranger. -ESRCH, -EPERM. */
int target_signal(uint32_t pid, uint64_t start, int signal);

/* Established TCP connections that the process and its children hold, by /proc alone; -EACCES
 * where their descriptors may not be read. Looks at 64 children and 65,536 sockets at most. */
int target_connections(uint32_t pid, int64_t *ret_count);
