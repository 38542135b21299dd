/* SPDX-License-Identifier: Apache-2.0 */
/* Keys of `tidegate top`, and the order of its rows. Pure. */
#include "cmd/top_ui.h"

#include "base/str.h"

#include <string.h>

void top_ui_init(struct top_ui *ui)
{
	*ui = (struct top_ui){.sort = TOP_REQUESTS, .height = 1};
}

/* ---- order ---- */

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

bool top_ui_matches(const struct top_ui *ui, const char *text)
{
	size_t n = strlen(ui->filter);

	for (;; text++) {
		size_t i = 0;

		while (i < n && lower(text[i]) == lower(ui->filter[i]))
			i++;
		if (i == n)
			return true;
		if (!*text)
			return false;
	}
}

/* Below 0: a comes first. What is not known comes last, in either direction. */
static int compare(const struct top_ui *ui, const struct top_row *a, const struct top_row *b)
{
	double x, y;
	int r;

	if (ui->sort < TOP_VALUES) {
		x = a->values[ui->sort];
		y = b->values[ui->sort];
		if (isnan(x) != isnan(y))
			return isnan(x) ? 1 : -1;
		r = isnan(x) ? 0 : (x < y) - (x > y);
		if (r)
			return ui->is_reverse ? -r : r;
	}
	r = strcmp(a->gateway->name, b->gateway->name);
	if (r == 0)
		r = (a->index > b->index) - (a->index < b->index);
	return ui->sort == TOP_VALUES && ui->is_reverse ? -r : r;
}

void top_order(const struct top_ui *ui, const struct top_view *v, struct top_order *ret)
{
	ret->count = 0;
	for (unsigned int i = 0; i < v->count; i++) {
		const struct segment_gateway *g = v->rows[i].gateway;
		unsigned int at = ret->count;

		if (g->state != SEGMENT_GATEWAY_LIVE && !ui->shows_gone)
			continue;
		if (!top_ui_matches(ui, g->name) && !top_ui_matches(ui, g->instance))
			continue;
		for (; at && compare(ui, &v->rows[i], &v->rows[ret->rows[at - 1]]) < 0; at--)
			ret->rows[at] = ret->rows[at - 1];
		ret->rows[at] = i;
		ret->count++;
	}
}

unsigned int top_ui_position(const struct top_ui *ui, const struct top_view *v,
			     const struct top_order *order)
{
	for (unsigned int i = 0; ui->has_selected && i < order->count; i++)
		if (v->rows[order->rows[i]].index == ui->selected)
			return i;
	return 0;
}

/* ---- keys ---- */

static void select_row(struct top_ui *ui, const struct top_view *v, long position)
{
	struct top_order order;

	top_order(ui, v, &order);
	if (!order.count)
		return;
	if (position < 0)
		position = 0;
	if (position >= (long)order.count)
		position = (long)order.count - 1;
	ui->has_selected = true;
	ui->selected = v->rows[order.rows[position]].index;
	if ((unsigned long)position < ui->scroll)
		ui->scroll = (unsigned int)position;
	if ((unsigned long)position >= ui->scroll + ui->height)
		ui->scroll = (unsigned int)position + 1 - ui->height;
}

static void move(struct top_ui *ui, const struct top_view *v, long by)
{
	long last = ui->lines > ui->height ? (long)(ui->lines - ui->height) : 0;
	struct top_order order;
	long at;

	if (ui->mode == TOP_LIST) {
		top_order(ui, v, &order);
		select_row(ui, v, (long)top_ui_position(ui, v, &order) + by);
		return;
	}
	at = (long)ui->scroll + by;
	ui->scroll = (unsigned int)(at < 0 ? 0 : at > last ? last : at);
}

static void sort_by(struct top_ui *ui, int step)
{
	int n = TOP_VALUES + 1, next = (int)ui->sort;

	/* Limits have no column of their own. */
	do {
		next = (next + step + n) % n;
	} while (next < TOP_VALUES && !top_columns[next].width);
	ui->sort = (enum top_value)next;
	ui->is_reverse = false;
}

static void type(struct top_ui *ui, int key)
{
	size_t n = strlen(ui->filter);

	if (key == TOP_KEY_ENTER) {
		ui->is_typing = false;
	} else if (key == TOP_KEY_ESCAPE) {
		str_copy(ui->filter, sizeof(ui->filter), ui->filter_before);
		ui->is_typing = false;
	} else if (key == TOP_KEY_BACKSPACE && n) {
		ui->filter[n - 1] = '\0';
	} else if (key >= 0x20 && key < 0x7f && n + 1 < sizeof(ui->filter)) {
		ui->filter[n] = (char)key;
		ui->filter[n + 1] = '\0';
	}
	ui->scroll = 0;
}

static void enter(struct top_ui *ui, const struct top_view *v, enum top_mode mode)
{
	struct top_order order;

	if (mode == TOP_HELP) {
		ui->before_help = ui->mode;
	} else if (mode == TOP_DETAIL) {
		top_order(ui, v, &order);
		if (!order.count)
			return;
		select_row(ui, v, (long)top_ui_position(ui, v, &order));
		/* It chose the gateway; of its details all are wanted first. */
		ui->filter[0] = '\0';
	}
	ui->mode = mode;
	ui->scroll = 0;
}

static void leave(struct top_ui *ui)
{
	if (ui->mode == TOP_LIST)
		ui->filter[0] = '\0';
	else if (ui->mode == TOP_HELP)
		ui->mode = ui->before_help;
	else
		ui->mode = TOP_LIST;
	ui->scroll = 0;
}

static void move_key(struct top_ui *ui, const struct top_view *v, int key)
{
	long far = 1000000, page = ui->height > 1 ? (long)ui->height - 1 : 1;

	switch (key) {
	case 'k':
	case TOP_KEY_UP:
		move(ui, v, -1);
		break;
	case 'j':
	case TOP_KEY_DOWN:
		move(ui, v, 1);
		break;
	case TOP_KEY_PAGE_UP:
		move(ui, v, -page);
		break;
	case TOP_KEY_PAGE_DOWN:
		move(ui, v, page);
		break;
	case TOP_KEY_HOME:
		move(ui, v, -far);
		break;
	case TOP_KEY_END:
		move(ui, v, far);
		break;
	default:
		break;
	}
}

void top_ui_key(struct top_ui *ui, const struct top_view *v, int key)
{
	if (ui->is_typing) {
		type(ui, key);
		return;
	}
	switch (key) {
	case 'q':
		ui->is_done = true;
		break;
	case ' ':
		ui->is_paused = !ui->is_paused;
		break;
	case 'a':
		ui->shows_gone = !ui->shows_gone;
		break;
	case 'r':
		ui->is_reverse = !ui->is_reverse;
		break;
	case '>':
	case 's':
	case TOP_KEY_RIGHT:
		sort_by(ui, 1);
		break;
	case '<':
	case 'S':
	case TOP_KEY_LEFT:
		sort_by(ui, -1);
		break;
	case '/':
		str_copy(ui->filter_before, sizeof(ui->filter_before), ui->filter);
		ui->is_typing = ui->mode != TOP_HELP;
		break;
	case '?':
	case 'h':
		if (ui->mode == TOP_HELP)
			leave(ui);
		else
			enter(ui, v, TOP_HELP);
		break;
	case TOP_KEY_ENTER:
		if (ui->mode == TOP_LIST)
			enter(ui, v, TOP_DETAIL);
		break;
	case TOP_KEY_ESCAPE:
	case TOP_KEY_BACKSPACE:
		leave(ui);
		break;
	default:
		move_key(ui, v, key);
		break;
	}
}
