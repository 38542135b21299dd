/* SPDX-License-Identifier: Apache-2.0 */
/* Where `tidegate profile` writes: folded stacks to standard output or a file, a graph to a file. */
#pragma once

#include "base/err.h"
#include "outlet/stacks.h"

struct profile_output {
	const char *path; /* NULL: not wanted */
	int fd;           /* -1: not open */
	bool is_new;      /* made by us */
};

struct profile_text {
	struct stacks *stacks;
	const char *gateway;
	unsigned int workers;
	double seconds;
};

/* Opens the file, if one is wanted, and leaves alone what it holds. */
int profile_output_open(struct profile_output *out, struct err *e);
/* Removes what was made, when it is not to stay. */
void profile_output_close(struct profile_output *out, bool has_failed);

/* Writes whatever is open; folded stacks to standard output when nothing is. */
int profile_write(const struct profile_output *svg, const struct profile_output *folded,
		  const struct profile_text *text, struct err *e);
