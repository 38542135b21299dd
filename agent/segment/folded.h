/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Profiles that gateway processes leave in app/ when one was asked for (proto/segment.h,
 * profile_id): <process>.<id as 16 hex digits>.folded, folded stacks, made under a name that begins
 * with a dot. <process> is the name of that process's segment without `.seg`. Nothing in them or in
 * their names is trusted. Whoever asked removes them; the agent removes what is left.
 */
#pragma once

#include "segment.h"

#include <stdbool.h>
#include <sys/types.h>

#define FOLDED_BYTES   (1u << 20)             /* most of one file */
#define FOLDED_KEPT_NS (3600ULL * 1000000000) /* then it was forgotten */
#define FOLDED_FILES   1024                   /* most that are kept, and how many bytes of them */
#define FOLDED_ALL     (64u << 20)

/* One that has a segment in app/. */
struct folded_process {
	char name[48];
	char gateway[SEGMENT_NAME_BYTES]; /* as it calls itself, or "" */
	uint32_t pid, parent;             /* as it sees them */
	uid_t uid;                        /* owner of its file */
	bool is_alive;
};

/* How many there are, most of them at most; a negative errno when the directory cannot be read. */
int folded_processes(const char *dir, struct folded_process *ret, unsigned int most);

/* Whether the process of that name still holds its segment. */
bool folded_is_alive(const char *dir, const char *process);

bool folded_is_there(const char *dir, const char *process, uint64_t id);

/* One profile: of which process, whose file, its text. error: -EMSGSIZE (larger than FOLDED_BYTES)
 * or why it cannot be read; text is NULL then. */
typedef void folded_visit(void *data, const char *process, uid_t uid, int error, const char *text,
			  size_t size);

/* Gives each profile of this id, and removes it. -ENOMEM, or why the directory cannot be read. */
int folded_take(const char *dir, uint64_t id, folded_visit *visit, void *data);

/* Removes what is older than FOLDED_KEPT_NS, and what is more than the limits. Gives how many. */
unsigned int folded_sweep(const char *dir, uint64_t now_real_ns);
