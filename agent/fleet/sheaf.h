/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frames of one incarnation's minute, sealed as they came: what history keeps while every tick
 * counts. Nothing is decoded before somebody reads. Pure.
 *
 * It is a union: each frame is there once by its sequence, adding and merging are idempotent,
 * commutative and associative. So after a crash the commit log may be replayed into sheaves that
 * are on disk already, in any order and more than once, and they become what they would have been.
 */
#pragma once

#include "fleet/minute.h"

#define SHEAF_BYTES_MAX (4u << 20) /* of frames */

struct sheaf;

/* start_ms: Unix time, a multiple of MINUTE_MS. */
int sheaf_new(uint64_t start_ms, struct sheaf **ret);
struct sheaf *sheaf_free(struct sheaf *s);
int sheaf_copy(const struct sheaf *s, struct sheaf **ret);
uint64_t sheaf_start_ms(const struct sheaf *s);
size_t sheaf_frames(const struct sheaf *s);
uint64_t sheaf_sequence(const struct sheaf *s, size_t index);
bool sheaf_has(const struct sheaf *s, uint64_t sequence);
/* Of memory that it holds, about. */
size_t sheaf_bytes(const struct sheaf *s);

/* Copies a sealed frame; is_key: what it says of itself. 1: added; 0: it was there. -ERANGE: not of this minute; -EBADMSG: no bytes; -ENOSPC: beyond
 * SHEAF_BYTES_MAX or MINUTE_TICKS_MAX; -ENOMEM. */
int sheaf_add(struct sheaf *s, uint64_t sequence, uint64_t time_ms, bool is_key,
	      const uint8_t *data, size_t size);
/* Adds what only from has: frames added; what does not fit is left out. -ERANGE, -ENOMEM (then some
 * may be added). */
int sheaf_merge(struct sheaf *s, const struct sheaf *from);

/* -ENOMEM. What decode gives encodes to the same bytes. */
int sheaf_encode(struct sheaf *s, struct pack *out);
/* -EBADMSG: damaged, -EPROTONOSUPPORT: another version. */
int sheaf_decode(const uint8_t *data, size_t size, struct sheaf **ret);

/* Whether totals can be known at from_ms without the minute before. */
bool sheaf_has_key(struct sheaf *s, uint64_t from_ms);
/* Decodes the frames from the last key frame at or before from_ms (else the first) up to until_ms:
 * how many of them could not be read, -ENOMEM. */
int sheaf_minute(struct sheaf *s, uint64_t from_ms, uint64_t until_ms, struct minute **ret);
