/* SPDX-License-Identifier: Apache-2.0 */
/* What both ends of the frame codec check. Internal to frame_*.c. Pure. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/* [a-zA-Z_:][a-zA-Z0-9_:]*, at most max bytes: anything else would break every exposition. */
static inline bool frame_name_is_valid(const char *s, size_t max)
{
	size_t n = 0;

	for (; s[n]; n++) {
		char c = s[n];
		bool letter =
			(c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == ':';

		if (n == max || !(letter || (n && c >= '0' && c <= '9')))
			return false;
	}
	return n > 0;
}

static inline bool frame_text_fits(const char *s, size_t max)
{
	return strnlen(s, max + 1) <= max;
}
