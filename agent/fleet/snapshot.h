/* SPDX-License-Identifier: Apache-2.0 */
/* The whole state of the fleet as records, and back. Pure but for the writer that it is given. */
#pragma once

#include "fleet/ingest.h"

/* Record types of a snapshot lie between these; others belong to the caller. */
#define SNAPSHOT_TYPE_FIRST 16u
#define SNAPSHOT_TYPE_LAST  31u

/* Writes one record; a negative result ends the snapshot with it. */
typedef int (*snapshot_write_fn)(void *data, uint32_t type, const void *payload, size_t size);

int snapshot_save(const struct fleet *f, snapshot_write_fn fn, void *data);
/* Its life alone, for the log of a state that has just been given one. */
int snapshot_save_life(const struct fleet *f, snapshot_write_fn fn, void *data);

/* Records in the order of saving, into a fleet that is empty at the first. -EBADMSG for what makes
 * no sense (nothing of that record is kept), -ENOMEM. */
int snapshot_load(struct fleet *f, uint32_t type, const uint8_t *payload, size_t size);
