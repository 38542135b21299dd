/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The leases on disk, so that a drain goes on after the steward was killed. Of this boot only (the
 * times in a lease are CLOCK_MONOTONIC), this layout only, with a checksum: anything else is no
 * lease at all, and traffic returns.
 */
#pragma once

#include "drain/lease.h"

#include <stddef.h>

#define LEASE_FILE_MOST 64

/* Written beside, fsynced, renamed, directory fsynced. */
int lease_file_save(const char *path, struct lease *const *leases, size_t n, struct err *e);

/* Gives up to LEASE_FILE_MOST leases, each to be freed. 0 leases and 0 when there is no file;
 * -EBADMSG when it is damaged, -ESTALE when it is of another boot or layout. */
int lease_file_load(const char *path, struct lease *ret[LEASE_FILE_MOST], size_t *ret_n,
		    struct err *e);
