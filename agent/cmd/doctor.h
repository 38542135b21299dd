/* SPDX-License-Identifier: Apache-2.0 */
/* What doctor's files share: the answer while it is being put together. */
#pragma once

#include "probe/probe.h"

#include <jansson.h>

struct doctor {
	json_t *checks, *gateways;
	bool is_needed_missing;
};

/* Texts are copied. */
void doctor_add(struct doctor *d, const char *name, enum probe_state state, const char *how,
		const char *why);

/* doctor_system.c: what the system level is read from, and the kernel's statistics of BPF. */
void doctor_system(struct doctor *d);
