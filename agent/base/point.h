/* SPDX-License-Identifier: Apache-2.0 */
/* A value of a series at a time: what history gives and queries calculate with. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct point {
	uint64_t time_ms; /* Unix */
	double value;
	bool is_absent; /* from here on it has none */
	bool is_minute; /* the last value of a minute, not of a tick */
};
