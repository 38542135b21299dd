/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Says what the finder finds in the files named, for finder-corpus.t: one line a file, key=value.
 * Offsets are of the function's first byte in the file, in hexadecimal. --pid N first: through the
 * confined child, with the debug files that process N sees.
 */
#include "probe/finder.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void print_function(const char *name, const struct finder_function *f)
{
	unsigned int i;

	if (!f->offset)
		return;
	printf(" %s=%#llx entry=%#llx%s exits=", name, (unsigned long long)f->offset,
	       (unsigned long long)f->entry.offset,
	       f->entry.flags & FINDER_STEPPED ? "/stepped" : "");
	for (i = 0; i < f->exit_count; i++)
		printf("%s%#llx%s%s", i ? "," : "", (unsigned long long)f->exits[i].offset,
		       f->exits[i].flags & FINDER_STEPPED ? "/stepped" : "",
		       f->exits[i].flags & FINDER_CYCLE ? "/cycle" : "");
}

static void print_result(const char *file, const struct finder_result *r)
{
	printf("file=%s found=%u name=%s how=%s confidence=%.2f", file, r->is_found, r->name,
	       r->how, r->confidence);
	print_function("step", &r->step);
	print_function("full", &r->full);
	print_function("stop", &r->stop);
	print_function("start", &r->start);
	print_function("cycle", &r->cycle);
	printf(" reason=%s why=%s\n", r->reason, r->why);
}

int main(int argc, char **argv)
{
	static struct finder_result result;
	uint32_t pid = 0;
	int i = 1, r = 0;

	if (argc > 2 && strcmp(argv[1], "--pid") == 0) {
		pid = (uint32_t)atoi(argv[2]);
		i = 3;
	}
	for (; i < argc; i++) {
		int fd = open(argv[i], O_RDONLY | O_CLOEXEC);

		if (fd >= 0 && pid)
			r = finder_run(fd, pid, &result);
		else if (fd >= 0)
			finder_examine(fd, -1, &result);
		if (fd < 0 || r < 0) {
			perror(argv[i]);
			return 1;
		}
		close(fd);
		print_result(argv[i], &result);
	}
	return 0;
}
