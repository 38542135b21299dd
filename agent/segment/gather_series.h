/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which series of app.seg a series of a process becomes: names and labels checked, gateway and
 * instance put before them, _overflow where there is no room. Used by gather.c alone.
 */
#pragma once

#include "segment/gather.h"
#include "segment/reader.h"

#define GATHER_NAMES      4096 /* metric names, all gateways together */
#define GATHER_OWN        2    /* labels that are put before those of the script */
#define GATHER_NAME_MAX   128
#define GATHER_VALUE_MAX  256
#define GATHER_HELP_BYTES 513

struct gather_names;

/* With the names that app.seg has. */
int gather_names_new(const struct segment_writer *w, struct gather_names **ret);
struct gather_names *gather_names_free(struct gather_names *n);

/* Index in app.seg, or negative; *ret_refusal (GATHER_REFUSALS: none) says why it is not its own. */
int gather_series_find(struct gather_names *n, struct segment_writer *w,
		       const struct gather_owner *owner, const struct segment_series *s,
		       enum gather_refusal *ret_refusal);
