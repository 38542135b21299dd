/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors: functions return a negative errno; where a user will read the reason, they also fill a
 * struct err with one line that says what, which object, why, and what to do.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum exit_code {
	EXIT_DONE = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_DEADLINE = 3,
};

struct err {
	char text[512];
};

/* Fills *e (may be NULL) and returns r, so that it can be returned at once. The first cause wins:
 * a second call prefixes its text to the first, separated by ": ". */
int err_set(struct err *e, int r, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Analysers do not look into another file: tell them that an error stays one. */
#if defined(__clang_analyzer__) || defined(__cppcheck__)
#define err_set(e, r, ...)                           \
	({                                           \
		int _r = (r);                        \
		(void)(err_set)(e, _r, __VA_ARGS__); \
		if (_r >= 0)                         \
			__builtin_unreachable();     \
		_r;                                  \
	})
#endif

void err_clear(struct err *e);

/* Text of a negative errno, thread-safe, never NULL. */
const char *err_text(int r);

/* For programming errors only, on in release builds: never for input, memory, disk or a peer. */
#define CHECK(cond)                                                  \
	do {                                                         \
		if (!(cond))                                         \
			err_check_failed(#cond, __FILE__, __LINE__); \
	} while (0)

__attribute__((noreturn)) void err_check_failed(const char *cond, const char *file, int line);
