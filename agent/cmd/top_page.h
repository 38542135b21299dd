/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages of `tidegate top` as lines of text with levels: what a terminal shows, and what --once
 * prints. Pure: no terminal in here.
 */
#pragma once

#include "cmd/top_detail.h"
#include "cmd/top_text.h"
#include "cmd/top_ui.h"

#define TOP_LINE_BYTES 1024
#define TOP_LINE_SPANS 48
#define TOP_HISTORY    120

enum top_level { TOP_PLAIN, TOP_DIM, TOP_TITLE, TOP_SORTED, TOP_GOOD, TOP_WARN, TOP_BAD };

struct top_line {
	char text[TOP_LINE_BYTES]; /* clean */
	struct {
		unsigned short at, bytes;
		enum top_level level;
	} spans[TOP_LINE_SPANS];
	unsigned int span_count;
	bool is_selected;
};

struct top_page {
	struct top_line *lines;
	unsigned int count, places;
	unsigned int head; /* so many first lines do not scroll */
};

/* Values of the last views, by the index of the gateway's record; NAN where there was none. */
struct top_history {
	uint64_t life;
	unsigned int count;                       /* of the views remembered, oldest first */
	float (*values)[TOP_VALUES][TOP_HISTORY]; /* SEGMENT_GATEWAYS of them */
};

/* -ENOMEM. */
int top_history_init(struct top_history *h);
void top_history_fini(struct top_history *h);
void top_history_add(struct top_history *h, const struct top_view *v);

/* What pages are made from; borrows all of it. */
struct top_scene {
	const struct top_view *view;
	const struct top_detail *detail; /* of the selected gateway; NULL in the list */
	const struct top_history *history;
	struct top_charset charset;
	unsigned int width; /* columns; 0: no limit */
	double age_s;       /* of the values */
	double tick_s;      /* the agent's; 0 unknown */
	double heartbeat_s; /* since the agent's last sign of life; NAN: it never gave one */
	uint64_t real_ns;   /* the values are as of then */
	unsigned int writer_pid;
};

/* The agent writes no more, or not in time: hangs, or has ended. */
bool top_scene_is_stale(const struct top_scene *s);

void top_page_fini(struct top_page *p);

/* Each makes the page anew; ui->lines and ui->scroll follow its body. A page without memory is
 * shorter. */
void top_page_list(struct top_page *p, const struct top_scene *s, struct top_ui *ui);
void top_page_detail(struct top_page *p, const struct top_scene *s, struct top_ui *ui);
void top_page_help(struct top_page *p, const struct top_scene *s, struct top_ui *ui);

/* ---- for those that make pages ---- */

/* A new, empty line; never NULL (without memory the last one again). */
struct top_line *top_page_add(struct top_page *p);
/* Clean text, padded to width columns (0: as it is). */
void top_line_put(struct top_line *l, const char *text, unsigned int width, bool is_right,
		  enum top_level level);
/* First line of all pages: what is seen, and how old it is. */
void top_page_title(struct top_page *p, const struct top_scene *s, const struct top_ui *ui);
void top_page_end(const struct top_page *p, struct top_ui *ui);
