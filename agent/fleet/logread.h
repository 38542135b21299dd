/* SPDX-License-Identifier: Apache-2.0 */
/* Records of the commit log and its snapshots: sealing one, reading a file of them that may be
 * damaged anywhere. */
#pragma once

#include "fleet/commitlog.h"

#include <stdbool.h>

#define LOGREAD_HEADER_BYTES 16
#define LOGREAD_MAGIC        0x474f4c54u /* "TLOG" */
#define LOGREAD_TYPE_END     0xffffffffu /* last record of a snapshot; payload: number of the others */

struct logread_result {
	uint64_t records;
	uint64_t torn_bytes, damaged_bytes;
	bool is_whole; /* nothing skipped; a snapshot: its end record agrees */
};

/* Fills in the header in front of a payload of size bytes. */
void logread_seal(uint8_t *record, uint32_t type, uint32_t size);

/* Calls fn (may be NULL: only looks) with each whole record. What is damaged in the middle is
 * copied to NAME.bad and skipped up to the next whole record; a log (not a snapshot) with nothing
 * whole after the last good record is cut there. Both only when fn is given. */
int logread_file(int dir_fd, const char *name, bool is_snapshot, commitlog_record_fn fn, void *data,
		 struct logread_result *ret);
