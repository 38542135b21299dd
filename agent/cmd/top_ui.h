/* SPDX-License-Identifier: Apache-2.0 */
/* What the user of `tidegate top` asked for, by keys. Pure. */
#pragma once

#include "cmd/top_model.h"

enum top_key {
	TOP_KEY_UP = 0x110000, /* beyond all characters */
	TOP_KEY_DOWN,
	TOP_KEY_LEFT,
	TOP_KEY_RIGHT,
	TOP_KEY_PAGE_UP,
	TOP_KEY_PAGE_DOWN,
	TOP_KEY_HOME,
	TOP_KEY_END,
	TOP_KEY_ENTER,
	TOP_KEY_ESCAPE,
	TOP_KEY_BACKSPACE,
};

enum top_mode { TOP_LIST, TOP_DETAIL, TOP_HELP };

struct top_ui {
	enum top_mode mode, before_help;
	enum top_value sort; /* TOP_VALUES: by name */
	bool is_reverse;     /* of the column's own order: numbers fall, names rise */
	bool is_paused, shows_gone, is_typing, is_done;
	char filter[64], filter_before[64]; /* what is typed; printable ASCII */
	bool has_selected;
	unsigned int selected; /* row.index: stays with its gateway when the order changes */
	unsigned int scroll;   /* first line of the body that is seen */
	unsigned int height;   /* lines of the body that fit; the screen sets it */
	unsigned int lines;    /* lines of the body; the page sets it */
};

void top_ui_init(struct top_ui *ui);

/* Rows that are shown, in their order: indices into v->rows. */
struct top_order {
	unsigned int count, rows[SEGMENT_GATEWAYS];
};
void top_order(const struct top_ui *ui, const struct top_view *v, struct top_order *ret);

/* Where the selected gateway is in that order; the first when it is not there any more. */
unsigned int top_ui_position(const struct top_ui *ui, const struct top_view *v,
			     const struct top_order *order);

/* Whether text holds the filter, whatever the case. */
bool top_ui_matches(const struct top_ui *ui, const char *text);

/* key is a character or an enum top_key; others are ignored. */
void top_ui_key(struct top_ui *ui, const struct top_view *v, int key);
