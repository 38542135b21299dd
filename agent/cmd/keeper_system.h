/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What /proc, control groups and sock_diag say of each gateway, as series of host.seg: processor,
 * memory, descriptors, network, disk, pressure, accept queues. Owned by the keeper.
 */
#pragma once

#include "probe/gateways.h"
#include "segment/writer.h"

struct keeper_systems;

/* last_tick_mono_ns: of the keeper before us, 0 for none. Processes that were there already then
 * count from what they have used by now; what they used between two keepers is not counted. */
int keeper_systems_new(struct segment_writer *w, uint64_t last_tick_mono_ns,
		       struct keeper_systems **ret);
struct keeper_systems *keeper_systems_free(struct keeper_systems *k);

/* After each scan, for each gateway that is there; index is that of its record. */
void keeper_systems_found(struct keeper_systems *k, unsigned int index, const char *name,
			  const char *instance, const struct gateway_found *f);
/* Its gauges become absent with the next write; counters stay. */
void keeper_systems_gone(struct keeper_systems *k, unsigned int index);

/* Before a tick, which it must not make longer: reads, at most once a second. */
void keeper_systems_read(struct keeper_systems *k, uint64_t now_mono_ns);
/* Between segment_writer_tick_begin and _end: writes what was read since the last time. */
void keeper_systems_write(struct keeper_systems *k);
