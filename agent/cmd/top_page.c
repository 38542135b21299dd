/* SPDX-License-Identifier: Apache-2.0 */
/* Lines, title, history and the list of gateways. Pure; the caller owns page and history. */
#include "cmd/top_page.h"

#include "base/str.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NAME_WIDTH_MOST 24
#define STATE_WIDTH     5
#define SPARK_WIDTH     12
#define STALE_TICKS     3
#define STALE_LEAST_S   3.0

/* ---- lines ---- */

void top_page_fini(struct top_page *p)
{
	free(p->lines);
	*p = (struct top_page){0};
}

struct top_line *top_page_add(struct top_page *p)
{
	static struct top_line spare;

	if (p->count == p->places) {
		unsigned int places = p->places ? p->places * 2 : 64;
		struct top_line *lines = realloc(p->lines, places * sizeof(*lines));

		if (!lines) {
			spare = (struct top_line){0};
			return &spare;
		}
		p->lines = lines;
		p->places = places;
	}
	p->lines[p->count] = (struct top_line){0};
	return &p->lines[p->count++];
}

void top_line_put(struct top_line *l, const char *text, unsigned int width, bool is_right,
		  enum top_level level)
{
	size_t at = strlen(l->text);

	top_text_pad(l->text, sizeof(l->text), text, width ? width : top_text_width(text),
		     is_right);
	if (level == TOP_PLAIN || l->span_count == TOP_LINE_SPANS)
		return;
	l->spans[l->span_count].at = (unsigned short)at;
	l->spans[l->span_count].bytes = (unsigned short)(strlen(l->text) - at);
	l->spans[l->span_count++].level = level;
}

bool top_scene_is_stale(const struct top_scene *s)
{
	double limit = s->tick_s * STALE_TICKS;

	return isnan(s->heartbeat_s) || s->age_s > (limit > STALE_LEAST_S ? limit : STALE_LEAST_S);
}

void top_page_title(struct top_page *p, const struct top_scene *s, const struct top_ui *ui)
{
	struct top_line *l = top_page_add(p);
	time_t at = (time_t)(s->real_ns / 1000000000);
	char text[160], when[32], window[32] = "no rates yet", age[24];
	struct tm tm;

	localtime_r(&at, &tm);
	strftime(when, sizeof(when), "%H:%M:%S", &tm);
	if (!isnan(s->view->window_s))
		snprintf(window, sizeof(window), "rates over %.1f s", s->view->window_s);
	snprintf(text, sizeof(text), "tidegate top  %s  %s", when, window);
	top_line_put(l, text, 0, false, TOP_TITLE);
	if (top_scene_is_stale(s)) {
		top_text_seconds(age, sizeof(age), s->age_s);
		snprintf(text, sizeof(text), "  DATA IS %s OLD: is the agent (pid %u) running?",
			 age, s->writer_pid);
		top_line_put(l, text, 0, false, TOP_BAD);
	}
	if (ui->is_paused)
		top_line_put(l, "  PAUSED", 0, false, TOP_WARN);
	if (ui->is_typing || *ui->filter) {
		top_line_put(l, "  filter: ", 0, false, TOP_PLAIN);
		top_line_put(l, ui->filter, 0, false, TOP_SORTED);
		top_line_put(l, ui->is_typing ? "_" : "", 0, false, TOP_SORTED);
	}
}

void top_page_end(const struct top_page *p, struct top_ui *ui)
{
	ui->lines = p->count > p->head ? p->count - p->head : 0;
	if (ui->scroll + ui->height > ui->lines)
		ui->scroll = ui->lines > ui->height ? ui->lines - ui->height : 0;
}

/* ---- history ---- */

int top_history_init(struct top_history *h)
{
	*h = (struct top_history){.values = calloc(SEGMENT_GATEWAYS, sizeof(*h->values))};
	return h->values ? 0 : -ENOMEM;
}

void top_history_fini(struct top_history *h)
{
	free(h->values);
	*h = (struct top_history){0};
}

void top_history_add(struct top_history *h, const struct top_view *v)
{
	if (h->life != v->life)
		h->count = 0;
	h->life = v->life;
	if (h->count == TOP_HISTORY) {
		for (unsigned int g = 0; g < SEGMENT_GATEWAYS; g++)
			for (unsigned int i = 0; i < TOP_VALUES; i++)
				memmove(h->values[g][i], h->values[g][i] + 1,
					(TOP_HISTORY - 1) * sizeof(float));
		h->count--;
	}
	for (unsigned int g = 0; g < SEGMENT_GATEWAYS; g++)
		for (unsigned int i = 0; i < TOP_VALUES; i++)
			h->values[g][i][h->count] = NAN;
	for (unsigned int r = 0; r < v->count; r++)
		for (unsigned int i = 0; i < TOP_VALUES; i++)
			h->values[v->rows[r].index][i][h->count] = (float)v->rows[r].values[i];
	h->count++;
}

/* ---- the list ---- */

/* A gateway's name, with the number of its instance where there are several. */
static void row_name(char *dst, size_t size, const struct top_scene *s,
		     const struct top_order *order, const struct segment_gateway *g)
{
	const char *number = strrchr(g->instance, '/');
	unsigned int same = 0;
	char text[2 * SEGMENT_NAME_BYTES];

	for (unsigned int i = 0; i < order->count; i++)
		same += str_equal(s->view->rows[order->rows[i]].gateway->name, g->name);
	snprintf(text, sizeof(text), "%s%s", g->name, same > 1 && number ? number : "");
	top_text_clean(dst, size, text, s->charset);
}

static enum top_level value_level(const struct top_row *row, enum top_value value)
{
	double x = row->values[value], of = NAN;

	if (top_columns[value].of != TOP_NONE)
		of = x / row->values[top_columns[value].of];
	if (isnan(x))
		return TOP_DIM;
	switch (value) {
	case TOP_ERRORS_5XX:
	case TOP_LOST:
	case TOP_DROPS:
		return x > 0 ? TOP_BAD : TOP_PLAIN;
	case TOP_STALLS:
	case TOP_UPSTREAM_ERRORS:
		return x > 0 ? TOP_WARN : TOP_PLAIN;
	case TOP_BUSY:
		return x > 0.9 ? TOP_WARN : TOP_PLAIN;
	case TOP_THROTTLED:
		return x > 0.05 ? TOP_WARN : TOP_PLAIN;
	case TOP_CPU:
	case TOP_MEMORY:
	case TOP_QUEUE:
		return of >= 1 ? TOP_BAD : of > 0.8 ? TOP_WARN : TOP_PLAIN;
	default:
		return TOP_PLAIN;
	}
}

static bool is_shown(const struct top_scene *s, const struct top_ui *ui, enum top_value value,
		     unsigned int *used)
{
	const struct top_column *c = &top_columns[value];
	unsigned int sorted = ui->sort < TOP_VALUES ? top_columns[ui->sort].width + 1 : 0;

	if (!c->width)
		return false;
	/* Room is kept for the column that the order comes from. */
	if (s->width && value != ui->sort &&
	    *used + c->width + 1 + (value < ui->sort ? sorted : 0) > s->width)
		return false;
	*used += c->width + 1;
	return true;
}

/* Which columns fit: from the first on, and the one that is sorted by. */
static unsigned int choose(const struct top_scene *s, const struct top_ui *ui, unsigned int used,
			   enum top_value ret[TOP_VALUES])
{
	unsigned int n = 0;
	bool is_full = false;

	for (unsigned int i = 0; i < TOP_VALUES; i++) {
		if (is_full && i != ui->sort)
			continue;
		if (is_shown(s, ui, (enum top_value)i, &used))
			ret[n++] = (enum top_value)i;
		else if (top_columns[i].width)
			is_full = true;
	}
	return n;
}

static void put_head(struct top_page *p, const struct top_scene *s, const struct top_ui *ui,
		     unsigned int name_width, const enum top_value *columns, unsigned int n)
{
	struct top_line *l = top_page_add(p);
	const char *up = s->charset.is_utf8 ? "\342\226\264" : "^";
	const char *down = s->charset.is_utf8 ? "\342\226\276" : "v";
	char text[TOP_CELL_BYTES];
	bool is_name = ui->sort == TOP_VALUES;

	snprintf(text, sizeof(text), "GATEWAY%s", !is_name ? "" : ui->is_reverse ? down : up);
	top_line_put(l, text, name_width, false, is_name ? TOP_SORTED : TOP_TITLE);
	top_line_put(l, " ", 0, false, TOP_PLAIN);
	top_line_put(l, "STATE", STATE_WIDTH, false, TOP_TITLE);
	for (unsigned int i = 0; i < n; i++) {
		bool is_sorted = columns[i] == ui->sort;

		snprintf(text, sizeof(text), "%s%s", top_columns[columns[i]].title,
			 !is_sorted       ? ""
			 : ui->is_reverse ? up
					  : down);
		top_line_put(l, " ", 0, false, TOP_PLAIN);
		/* The arrow may take the blank before it. */
		if (top_text_width(text) > top_columns[columns[i]].width) {
			l->text[strlen(l->text) - 1] = '\0';
			top_line_put(l, text, top_columns[columns[i]].width + 1, true, TOP_SORTED);
			continue;
		}
		top_line_put(l, text, top_columns[columns[i]].width, true,
			     is_sorted ? TOP_SORTED : TOP_TITLE);
	}
	snprintf(text, sizeof(text), " %s",
		 top_columns[ui->sort < TOP_VALUES ? ui->sort : TOP_REQUESTS].title);
	if (s->history && s->history->count > 1)
		top_line_put(l, text, SPARK_WIDTH + 1, false, TOP_TITLE);
}

static struct top_line *put_row(struct top_page *p, const struct top_scene *s,
				const struct top_ui *ui, const struct top_row *row,
				const char *name, unsigned int name_width,
				const enum top_value *columns, unsigned int n)
{
	const struct segment_gateway *g = row->gateway;
	struct top_line *l = top_page_add(p);
	bool is_live = g->state == SEGMENT_GATEWAY_LIVE;
	char text[TOP_LINE_BYTES] = " ";

	top_line_put(l, name, name_width, false, is_live ? TOP_PLAIN : TOP_DIM);
	top_line_put(l, " ", 0, false, TOP_PLAIN);
	top_line_put(l,
		     !is_live      ? "gone"
		     : g->draining ? "drain"
				   : "live",
		     STATE_WIDTH, false,
		     !is_live      ? TOP_DIM
		     : g->draining ? TOP_WARN
				   : TOP_GOOD);
	for (unsigned int i = 0; i < n; i++) {
		char cell[TOP_CELL_BYTES];

		top_text_value(cell, sizeof(cell), row, columns[i], s->charset);
		top_line_put(l, " ", 0, false, TOP_PLAIN);
		top_line_put(l, cell, top_columns[columns[i]].width, true,
			     value_level(row, columns[i]));
	}
	if (!s->history || s->history->count < 2)
		return l;
	top_text_spark(
		text, sizeof(text),
		s->history->values[row->index][ui->sort < TOP_VALUES ? ui->sort : TOP_REQUESTS],
		s->history->count, SPARK_WIDTH, s->charset);
	top_line_put(l, text, 0, false, TOP_SORTED);
	return l;
}

static void put_empty(struct top_page *p, const struct top_scene *s, const struct top_ui *ui)
{
	unsigned int gone = 0;
	char text[160];

	for (unsigned int i = 0; i < s->view->count; i++)
		gone += s->view->rows[i].gateway->state != SEGMENT_GATEWAY_LIVE;
	if (s->view->count == 0)
		str_copy(text, sizeof(text),
			 "The agent has found no gateway yet: see `tidegate doctor`.");
	else if (gone == s->view->count && !ui->shows_gone)
		snprintf(text, sizeof(text), "No gateway is running; %u ended (a shows them).",
			 gone);
	else
		snprintf(text, sizeof(text), "No gateway matches the filter; %u are hidden.",
			 s->view->count);
	top_line_put(top_page_add(p), text, 0, false, TOP_PLAIN);
}

void top_page_list(struct top_page *p, const struct top_scene *s, struct top_ui *ui)
{
	char names[SEGMENT_GATEWAYS][2 * SEGMENT_NAME_BYTES];
	enum top_value columns[TOP_VALUES];
	unsigned int n, width = 7, used, position;
	struct top_order order;

	p->count = 0;
	top_page_title(p, s, ui);
	top_page_add(p);
	top_order(ui, s->view, &order);
	for (unsigned int i = 0; i < order.count; i++) {
		row_name(names[i], sizeof(names[i]), s, &order,
			 s->view->rows[order.rows[i]].gateway);
		used = top_text_width(names[i]);
		width = used > width ? used : width;
	}
	width = width > NAME_WIDTH_MOST ? NAME_WIDTH_MOST : width;
	width += ui->sort == TOP_VALUES; /* for the arrow */
	used = width + 1 + STATE_WIDTH;
	used += s->history && s->history->count > 1 ? SPARK_WIDTH + 1 : 0;
	n = choose(s, ui, used, columns);
	put_head(p, s, ui, width, columns, n);
	p->head = p->count;
	position = top_ui_position(ui, s->view, &order);
	for (unsigned int i = 0; i < order.count; i++) {
		put_row(p, s, ui, &s->view->rows[order.rows[i]], names[i], width, columns, n)
			->is_selected = i == position;
	}
	if (!order.count)
		put_empty(p, s, ui);
	top_page_end(p, ui);
}
