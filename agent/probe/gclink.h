/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One GC program on one file: its places, and its links, which belong to the probe set. Process: the
 * keeper.
 */
#pragma once

#include "probe/gcfile.h"
#include "probe/set.h"
#include "probe/uprobe.h"

struct gclink {
	const char *program;
	size_t count;
	struct uprobe_place places[UPROBE_PLACES_MAX];
};

/* Idempotent; the links are known by their names, so by the next keeper as well. */
int gclink_attach(struct probe_set *set, enum uprobe_how how, const struct gcfile *file,
		  const struct gclink *link);
/* Idempotent; pinned ones too. The kernel is done a moment later. */
void gclink_detach(struct probe_set *set, const struct gcfile *file, const struct gclink *link);
bool gclink_is_attached(const struct probe_set *set, const struct gcfile *file,
			const struct gclink *link);
