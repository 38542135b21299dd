/* SPDX-License-Identifier: Apache-2.0 */
/* From the records of upstreams to series of host.seg. Owned by the keeper. */
#pragma once

#include "probe/probe.h"
#include "segment/writer.h"

struct keeper_upstreams;

/* For so many records (probe_each_upstream). Borrows the writer. -ENOMEM. */
int keeper_upstreams_new(struct segment_writer *w, unsigned int most,
			 struct keeper_upstreams **ret);
struct keeper_upstreams *keeper_upstreams_free(struct keeper_upstreams *k);

/* Between segment_writer_tick_begin and _end. */
void keeper_upstreams_write(struct keeper_upstreams *k, struct probe_set *set);
