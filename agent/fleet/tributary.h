/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An aggregator as an agent of an upper one: the sums of its fleet, series by series without
 * instance and worker, go up as frames of one agent whose hello says `sums`. Pure.
 *
 * Why sums, and not the agents' own frames: the upper aggregator's work must not grow with the
 * agents below, that is what it is for. Why that stays exact whoever dies: a sum is a function of
 * the commit log below, never falls, and is sent as of a commit; key frames carry totals, so a
 * frame that is lost costs resolution, never a count.
 *
 * A new boot begins a new incarnation, as for agents; but all of one aggregator's say totals of the
 * same commit log, so the most of them holds (merge), not their sum.
 *
 * With its sums an aggregator says its name (tidegate_aggregator_feeds), and passes on the names from
 * below: who finds its own among them is fed with what it sent, and must send no sums, or all totals
 * of the circle would double each second. The names it goes on to send: they keep the others of the
 * circle where they are, and whoever is no longer fed with its own goes on by itself.
 *
 * What it asks for: an agent sends to one only of the aggregators below one upper one (else it
 * counts once for each).
 */
#pragma once

#include "bus/frame.h"
#include "fleet/merge.h"

/* Adds our name (NULL: none), then the view's series, to the frame that was begun; the view
 * (MERGE_BY_FLEET, of a fleet whose changes are all committed) is borrowed until the frame is
 * finished. *refused counts up by the series that were left out: more labels than a frame takes, or
 * beyond the encoder's limits.
 * 1: name is in the view, a circle: only names were added. -ENOMEM: the frame must not go out. */
int tributary_encode(struct merge_view *view, const char *name, struct frame_encoder *enc,
		     uint64_t *refused);
