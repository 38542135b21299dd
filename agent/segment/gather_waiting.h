/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files in app/ that are not read (yet): since when, and whether that was counted. Only a memory: a
 * file that finds no room in it is looked at all the same. Used by gather.c alone.
 */
#pragma once

#include "segment/gather.h"

#include <sys/types.h>

#define GATHER_WAITING 4096 /* files that are remembered */

struct gather_waiting;

int gather_waiting_new(struct gather_waiting **ret);
struct gather_waiting *gather_waiting_free(struct gather_waiting *w);

/* When this file was first seen: now, if it is new or there is no room. */
uint64_t gather_waiting_since(struct gather_waiting *w, ino_t inode, uint64_t now_ns);
/* Whether this is to be counted: true once a file and reason; false where there is no room. */
bool gather_waiting_count(struct gather_waiting *w, ino_t inode, enum gather_refusal why);
/* All files were looked at: what was not among them is forgotten. */
void gather_waiting_sweep(struct gather_waiting *w);
