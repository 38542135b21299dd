/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stacks as a flame graph: one SVG that needs nothing else. A browser that runs its script zooms
 * (click), searches (Ctrl-F) and resets (Esc); any other viewer shows the picture. Pure.
 */
#pragma once

#include "outlet/stacks.h"

#define FLAME_BYTES (64u << 20) /* a buffer for it: one of a gateway has some hundred KB */

/* The same stacks give the same bytes. -ENOMEM, -E2BIG when out is full. */
int flame_print(struct stacks *s, const char *title, struct strbuf *out);
