/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attaching a program to places in a file, for every process that maps it. Needs no tracefs.
 * Process: the keeper.
 */
#pragma once

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

enum uprobe_how { UPROBE_NONE, UPROBE_MULTI, UPROBE_PERF };

struct uprobe_place {
	uint64_t offset, cookie;
	uint64_t semaphore; /* file offset of a 16-bit counter that the kernel raises in each
			     * process while the probe is there; 0: none */
};

#define UPROBE_PLACES_MAX 24u

/* Links of one program; their number depends on the way. */
struct uprobe_links {
	unsigned int count;
	int fds[UPROBE_PLACES_MAX];
};

const char *uprobe_how_name(enum uprobe_how how);

/* Tries a program that does nothing at a place of our own executable: uprobe_multi, then perf.
 * Before programs are loaded, because the way is part of loading (uprobe_attach_type). tier: "auto"
 * or the only one to try. -ENOTSUP: *e holds what both said. */
int uprobe_choose(const char *tier, uint64_t own_offset, enum uprobe_how *ret, struct err *e);

/* expected_attach_type that programs must be loaded with. */
unsigned int uprobe_attach_type(enum uprobe_how how);

/* file_fd: the ELF file, opened any way (O_PATH will do). */
int uprobe_attach(enum uprobe_how how, int program_fd, int file_fd,
		  const struct uprobe_place *places, size_t count, struct uprobe_links *ret);
void uprobe_detach(struct uprobe_links *links);
