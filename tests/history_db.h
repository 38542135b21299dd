/* SPDX-License-Identifier: Apache-2.0 */
/* A directory of its own with the path of a history database in it, which is not made yet. */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[32], path[64];

static inline int history_db_begin(void)
{
	strcpy(dir, "/tmp/tidegate-db.XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	snprintf(path, sizeof(path), "%s/history.db", dir);
	return 0;
}

/* Removes it, and what was put aside. Fails when anything else was left behind. */
static inline int history_db_end(void)
{
	static const char *const endings[] = {"", "-wal", "-shm", ".bad", ".bad-wal", ".bad-shm"};
	char name[96];

	for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++) {
		snprintf(name, sizeof(name), "%s%s", path, endings[i]);
		unlink(name);
	}
	return rmdir(dir);
}
