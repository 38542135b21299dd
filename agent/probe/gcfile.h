/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which of a process's files may hold a garbage collector: Lua libraries, OpenJDK's and the executable,
 * in the order in which they are worth a look. Process: the keeper.
 */
#pragma once

#include "base/err.h"

#include <stdint.h>
#include <sys/types.h>

#define GCFILE_MAX 12u

struct gcfile {
	int fd; /* read-only */
	unsigned int
		rank; /* 0: libluajit, libjvm; 1: liblua5, 2: the executable, 3: other Lua modules */
	dev_t device;
	ino_t inode;
	char path[256]; /* as the process sees it */
};

/* Opens them through /proc, so that they are the very files the process runs, in containers too. */
int gcfile_list(uint32_t pid, struct gcfile *ret, size_t *ret_count, struct err *e);
/* The same by another opinion of what matters. */
int gcfile_list_by(uint32_t pid, int (*rank_of)(const char *path, const char *exe),
		   struct gcfile *ret, size_t *ret_count, struct err *e);
void gcfile_close(struct gcfile *files, size_t count);

/* Rank of a mapped path; -1: none of ours. */
int gcfile_rank(const char *path, const char *exe);
