/* SPDX-License-Identifier: Apache-2.0 */
/* A verb as its user sees it: output, exit code, one-line errors. Each call runs in a child, because
 * getopt keeps state. Include after <cmocka.h>. */
#pragma once

#include "base/cleanup.h"
#include "base/str.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define VERB_WORDS 6

static char out[256 << 10], err[4096]; /* of the last call */

static inline void slurp(const char *path, char *buf, size_t size)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = read(fd, buf, size - 1);

	assert_true(n >= 0);
	buf[n] = '\0';
	assert_int_equal(unlink(path), 0);
}

/* The words end with NULL. Gives the exit code; fills out and err, through files in `dir`. */
static inline int verb_run(int (*verb)(int, char **), const char *dir, const char *const *words)
{
	char copies[VERB_WORDS][128], *argv[VERB_WORDS + 1] = {0}, out_path[96], err_path[96];
	int status, argc = 0;
	pid_t pid;

	for (; words[argc]; argc++) {
		assert_true(argc < VERB_WORDS);
		str_copy(copies[argc], sizeof(copies[argc]), words[argc]);
		argv[argc] = copies[argc];
	}
	snprintf(out_path, sizeof(out_path), "%s/out", dir);
	snprintf(err_path, sizeof(err_path), "%s/err", dir);
	fflush(NULL);
	pid = fork();
	if (pid == 0) {
		if (!freopen(out_path, "w", stdout) || !freopen(err_path, "w", stderr) ||
		    !freopen("/dev/null", "r", stdin))
			_exit(99);
		exit(verb(argc, argv));
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	slurp(out_path, out, sizeof(out));
	slurp(err_path, err, sizeof(err));
	return WEXITSTATUS(status);
}

/* One line of that verb, with these words in it. */
static inline void expect_err_of(const char *verb, const char *want)
{
	char start[32], *newline = strchr(err, '\n');

	snprintf(start, sizeof(start), "tidegate %s: ", verb);
	if (!strstr(err, want))
		fail_msg("no \"%s\" in: %s", want, err);
	if (!str_starts(err, start) || !newline || newline[1])
		fail_msg("not one line of `%s…`: %s", start, err);
}
