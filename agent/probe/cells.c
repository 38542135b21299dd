/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mappings of the BPF maps into the keeper. Slots and banks are mapped one by one when they are
 * first used: mapping an array makes all its pages resident.
 */
#include "probe/set.h"

#include "base/cleanup.h"
#include "probe/skel.h"

#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

_Static_assert(TYPES_HIST_CELLS == HIST_CELLS, "bpf/types.h and proto/metrics.h disagree");
_Static_assert(sizeof(struct slot) % 4096 == 0, "a slot is mapped by pages");
_Static_assert(sizeof(struct bank) % 4096 == 0, "a bank is mapped by pages");
_Static_assert(sizeof(struct cells) % sizeof(uint64_t) == 0, "cells are words");

static void *map_part(int fd, size_t size, size_t offset)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);

	return p == MAP_FAILED ? NULL : p;
}

size_t cells_control_offset(void)
{
	return offsetof(struct tidegate_bpf__bss, control);
}

int cells_map_control(struct probe_set *set)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	set->bss_bytes = (sizeof(struct tidegate_bpf__bss) + page - 1) / page * page;
	set->bss = map_part(set->bss_fd, set->bss_bytes, 0);
	if (!set->bss)
		return -errno;
	set->control = (struct control *)((char *)set->bss + cells_control_offset());
	set->http2 = (struct http2_control *)((char *)set->bss +
					      offsetof(struct tidegate_bpf__bss, http2_control));
	return 0;
}

struct slot *cells_slot(struct probe_set *set, unsigned int index)
{
	if (index >= set->threads)
		return NULL;
	if (!set->slots[index])
		set->slots[index] =
			map_part(set->slots_fd, sizeof(struct slot), index * sizeof(struct slot));
	return set->slots[index];
}

struct bank *cells_bank(struct probe_set *set, unsigned int gateway, unsigned int which)
{
	struct bank **bank;

	if (gateway >= set->gateways || which > 1)
		return NULL;
	bank = &set->banks[gateway][which];
	if (!*bank)
		*bank = map_part(set->retired_fd, sizeof(struct bank),
				 (gateway * 2 + which) * sizeof(struct bank));
	return *bank;
}

void cells_unmap(struct probe_set *set)
{
	for (unsigned int i = 0; i < SLOTS_MOST; i++)
		if (set->slots[i])
			munmap(set->slots[i], sizeof(struct slot));
	for (unsigned int g = 0; g < GATEWAYS; g++)
		for (unsigned int b = 0; b < 2; b++)
			if (set->banks[g][b])
				munmap(set->banks[g][b], sizeof(struct bank));
	if (set->bss)
		munmap(set->bss, set->bss_bytes);
}

void cells_add(struct cells *sum, const struct cells *more)
{
	uint64_t *to = (uint64_t *)sum;
	const uint64_t *from = (const uint64_t *)more;

	for (size_t i = 0; i < CELLS_WORDS; i++)
		to[i] += __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}
