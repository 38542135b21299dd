/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as an ELF file, alone and as its own debug file: the finder finds its functions or says
 * why not, within bounds. Seeds are small files of both machines with Lua's symbols, with the call
 * vote's voters, with .gnu_debugdata, and with Go's function table in both places.
 */
#include "probe/finder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require_text(const char *text, size_t size)
{
	if (!memchr(text, 0, size))
		abort();
}

static void examine(int fd, int debug_fd, size_t size)
{
	static struct finder_result result;

	finder_examine(fd, debug_fd, &result);
	require_text(result.name, sizeof(result.name));
	require_text(result.how, sizeof(result.how));
	require_text(result.why, sizeof(result.why));
	require_text(result.reason, sizeof(result.reason));
	require_text(result.build_id, sizeof(result.build_id));
	if (size && !finder_result_is_sane(&result, size))
		abort();
	if (result.is_found &&
	    (result.runtime == FINDER_NONE || result.why[0] || !result.reason[0]))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static int fd = -1;

	if (fd < 0)
		fd = memfd_create("fuzz", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, (off_t)size) < 0 || pwrite(fd, data, size, 0) != (ssize_t)size)
		abort();
	examine(fd, -1, size);
	examine(fd, fd, size);
	return 0;
}
