/* SPDX-License-Identifier: Apache-2.0 */
/* A lease as the JSON object that `tidegate drain --json` prints and drain.end carries. */
#pragma once

#include "drain/lease.h"

#include <jansson.h>

/* A new reference, or NULL for want of memory. */
json_t *lease_report(const struct lease *l, uint64_t now_ns);
