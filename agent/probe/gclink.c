/* SPDX-License-Identifier: Apache-2.0 */
/* Links of the GC programs. Owns nothing: they are the probe set's. Process: the keeper. */
#include "probe/gclink.h"

#include <inttypes.h>
#include <stdio.h>

/* By file, program and places, so that another keeper knows what is attached. */
static uint64_t hash_of(const struct gcfile *file, const struct gclink *link)
{
	uint64_t hash = 0xcbf29ce484222325;
	const char *c;
	size_t i;

	hash = (hash ^ (uint64_t)file->device) * 0x100000001b3;
	hash = (hash ^ (uint64_t)file->inode) * 0x100000001b3;
	for (c = link->program; *c; c++)
		hash = (hash ^ (uint64_t)*c) * 0x100000001b3;
	for (i = 0; i < link->count; i++) {
		hash = (hash ^ link->places[i].offset) * 0x100000001b3;
		hash = (hash ^ link->places[i].cookie) * 0x100000001b3;
		hash = (hash ^ link->places[i].semaphore) * 0x100000001b3;
	}
	return hash;
}

static const char *name_of(uint64_t hash, unsigned int i, char buf[static PROBE_NAME_BYTES])
{
	snprintf(buf, PROBE_NAME_BYTES, "gc_%016" PRIx64 "_%u", hash, i);
	return buf;
}

bool gclink_is_attached(const struct probe_set *set, const struct gcfile *file,
			const struct gclink *link)
{
	char name[PROBE_NAME_BYTES];

	return probe_has_link(set, name_of(hash_of(file, link), 0, name));
}

/* The first link stands for all: it comes last and goes first, so that what a keeper left unfinished
 * counts as not attached. */
int gclink_attach(struct probe_set *set, enum uprobe_how how, const struct gcfile *file,
		  const struct gclink *link)
{
	int program = probe_program_fd(set, link->program), r;
	uint64_t hash = hash_of(file, link);
	struct uprobe_links links = {0};
	char name[PROBE_NAME_BYTES];
	unsigned int i;

	if (gclink_is_attached(set, file, link))
		return 0;
	gclink_detach(set, file, link);
	if (program < 0)
		return program;
	r = uprobe_attach(how, program, file->fd, link->places, link->count, &links);
	for (i = links.count; r == 0 && i > 0; i--) {
		r = probe_add_link(set, name_of(hash, i - 1, name), links.fds[i - 1]);
		links.count--;
	}
	uprobe_detach(&links);
	return r;
}

void gclink_detach(struct probe_set *set, const struct gcfile *file, const struct gclink *link)
{
	uint64_t hash = hash_of(file, link);
	char name[PROBE_NAME_BYTES];
	unsigned int i;

	for (i = 0; i < UPROBE_PLACES_MAX; i++)
		probe_remove_link(set, name_of(hash, i, name));
}
