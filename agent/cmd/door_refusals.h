/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which refused connections the door tells: each host once for each reason, and again when it goes on
 * after a minute; a few lines a second at most, whatever comes. Pure.
 */
#pragma once

#include "bus/turnstile.h"

#include <stdbool.h>
#include <stdint.h>

#define REFUSALS_KEPT     64
#define REFUSALS_AGAIN_NS 60000000000ull
#define REFUSALS_LINES    5 /* a second */

struct refusals {
	struct {
		char host[64];
		enum turnstile_reason reason;
		uint64_t said_ns;
	} said[REFUSALS_KEPT];
	uint64_t second_ns;
	unsigned int lines;
	uint64_t silent; /* since the last line */
};

/* peer: address with its port. True: tell it, and that *ret_silent were not told since. */
bool refusals_allow(struct refusals *r, enum turnstile_reason reason, const char *peer,
		    uint64_t now_ns, uint64_t *ret_silent);
