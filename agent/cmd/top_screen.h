/* SPDX-License-Identifier: Apache-2.0 */
/* The terminal of `tidegate top`: the only place that knows ncurses. One at a time. */
#pragma once

#include "base/err.h"
#include "cmd/top_page.h"

/* Takes the terminal; colours only where it has them and has_colors asks for them. -ENOTTY without a
 * terminal, -ENOENT when nothing is known of its type; e says it in one line. */
int top_screen_open(bool has_colors, struct err *e);
/* Gives the terminal back as it was. */
void top_screen_close(void);

/* What the terminal has now; the last line is for keys. */
void top_screen_size(unsigned int *ret_width, unsigned int *ret_height);

void top_screen_draw(const struct top_page *p, const struct top_ui *ui);

/* Waits up to timeout_ms for a key, enum top_key or a character; 0 when there was none or the size
 * changed, -EINTR after SIGINT or SIGTERM, -EIO when the terminal is gone. */
int top_screen_key(int timeout_ms);
