/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scope-bound release of resources. Never hold one of these in a frame that calls a raising Lua
 * API: longjmp skips them.
 */
#pragma once

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define _cleanup_(f) __attribute__((cleanup(f)))

#define TAKE_PTR(p)                         \
	({                                  \
		__typeof__(p) _taken = (p); \
		(p) = NULL;                 \
		_taken;                     \
	})

#define TAKE_FD(fd)                \
	({                         \
		int _taken = (fd); \
		(fd) = -1;         \
		_taken;            \
	})

/* Declares name_p(), the cleanup form of a free function that returns NULL. */
#define DEFINE_CLEANUP(type, free_fn)           \
	static inline void free_fn##_p(type *p) \
	{                                       \
		if (*p)                         \
			free_fn(*p);            \
	}

static inline void cleanup_free(void *p)
{
	free(*(void **)p);
}

static inline void cleanup_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static inline void cleanup_file(FILE **f)
{
	if (*f)
		fclose(*f);
}

static inline void cleanup_dir(DIR **d)
{
	if (*d)
		closedir(*d);
}

#define _cleanup_free_  _cleanup_(cleanup_free)
#define _cleanup_close_ _cleanup_(cleanup_close)
#define _cleanup_file_  _cleanup_(cleanup_file)
#define _cleanup_dir_   _cleanup_(cleanup_dir)
