/* SPDX-License-Identifier: Apache-2.0 */
/* The pages of one gateway, and of help. Pure. */
#include "cmd/top_page.h"

#include "base/str.h"

#include <stdio.h>
#include <string.h>

#define NAME_WIDTH  28
#define CELL_WIDTH  20
#define TITLE_WIDTH 10
#define LINE_WIDTH  100 /* where the terminal's is not known */

/* ---- one gateway ---- */

static const struct segment_gateway *gateway_of(const struct top_scene *s, const struct top_ui *ui,
						const struct top_row **ret_row)
{
	for (unsigned int i = 0; i < s->view->count; i++) {
		if (ui->has_selected && s->view->rows[i].index != ui->selected)
			continue;
		*ret_row = &s->view->rows[i];
		return s->view->rows[i].gateway;
	}
	return NULL;
}

static void put_identity(struct top_page *p, const struct top_scene *s,
			 const struct segment_gateway *g)
{
	struct top_line *l = top_page_add(p);
	char raw[512], text[512];

	top_text_clean(text, sizeof(text), g->name, s->charset);
	top_line_put(l, text, 0, false, TOP_TITLE);
	snprintf(raw, sizeof(raw), "  instance %s  %s%s%s  master %u  %s%s", g->instance, g->driver,
		 *g->runtime ? "  " : "", g->runtime, g->master_pid,
		 g->state == SEGMENT_GATEWAY_LIVE ? "live" : "gone",
		 g->draining ? ", draining" : "");
	top_text_clean(text, sizeof(text), raw, s->charset);
	top_line_put(l, text, 0, false, TOP_PLAIN);
	if (!g->requests_known)
		top_line_put(l, "  requests are not seen (tidegate doctor says why)", 0, false,
			     TOP_WARN);
}

static void put_values(struct top_page *p, const struct top_scene *s, const struct top_row *row)
{
	unsigned int width = s->width ? s->width : LINE_WIDTH;
	unsigned int across = width / (CELL_WIDTH + 2), n = 0;
	struct top_line *l = NULL;

	across = across ? across : 1;
	for (unsigned int i = 0; i < TOP_VALUES; i++) {
		char cell[TOP_CELL_BYTES];

		if (!top_columns[i].width || isnan(row->values[i]))
			continue;
		if (n++ % across == 0)
			l = top_page_add(p);
		else
			top_line_put(l, "  ", 0, false, TOP_PLAIN);
		top_text_value(cell, sizeof(cell), row, (enum top_value)i, s->charset);
		top_line_put(l, top_columns[i].title, TITLE_WIDTH, false, TOP_TITLE);
		top_line_put(l, cell, CELL_WIDTH - TITLE_WIDTH, true, TOP_PLAIN);
	}
}

static void put_history(struct top_page *p, const struct top_scene *s, const struct top_row *row)
{
	static const enum top_value shown[] = {TOP_REQUESTS, TOP_P99, TOP_IN_FLIGHT, TOP_BUSY};
	unsigned int width = s->width > TITLE_WIDTH + 1 ? s->width - TITLE_WIDTH - 1 : LINE_WIDTH;
	char text[TOP_LINE_BYTES];

	if (!s->history || s->history->count < 2)
		return;
	width = width > TOP_HISTORY ? TOP_HISTORY : width;
	top_page_add(p);
	for (size_t i = 0; i < ARRAY_LEN(shown); i++) {
		struct top_line *l = top_page_add(p);
		unsigned int n = s->history->count < width ? s->history->count : width;

		text[0] = '\0';
		top_line_put(l, top_columns[shown[i]].title, TITLE_WIDTH, false, TOP_TITLE);
		top_text_spark(text, sizeof(text), s->history->values[row->index][shown[i]],
			       s->history->count, n, s->charset);
		top_line_put(l, text, 0, false, TOP_SORTED);
	}
}

/* name{key="value",…} as Prometheus shows it; the gateway's own labels say nothing here. */
static void item_name(char *dst, size_t size, const struct top_item *item, struct top_charset c)
{
	const struct top_section_desc *d = &top_sections[item->section];
	char raw[1024];
	size_t at;

	if (!d->has_labels || item->section == TOP_SECTION_LATENCY) {
		snprintf(raw, sizeof(raw), "%s%s%s", item->label, *item->detail ? " " : "",
			 item->detail);
		top_text_clean(dst, size, raw, c);
		return;
	}
	str_copy(raw, sizeof(raw), item->label);
	for (unsigned int i = 0; i < item->series.label_count; i++) {
		const struct segment_label *label = &item->series.labels[i];

		if (str_equal(label->key, "gateway") || str_equal(label->key, "instance"))
			continue;
		at = strlen(raw);
		snprintf(raw + at, sizeof(raw) - at, "%c%s=%s",
			 at == strlen(item->label) ? '{' : ',', label->key, label->value);
	}
	at = strlen(raw);
	if (at > strlen(item->label))
		snprintf(raw + at, sizeof(raw) - at, "}");
	top_text_clean(dst, size, raw, c);
}

static void item_cell(char *dst, size_t size, const struct top_item *item, enum top_field field,
		      struct top_charset c)
{
	const struct top_field_desc *d = &top_fields[field];
	const void *at = (const char *)item + d->offset;
	double x = NAN;

	if (d->form == TOP_FORM_QUANTILE) {
		top_text_quantile(dst, size, at, c);
		return;
	}
	if (field == TOP_FIELD_TOTAL)
		x = item->has_total ? (double)item->total / (item->is_ns ? 1e9 : 1) : NAN;
	else if (field == TOP_FIELD_ERRORS)
		x = (double)item->errors;
	else
		memcpy(&x, at, sizeof(x));
	if (d->form == TOP_FORM_RATIO)
		top_text_ratio(dst, size, x);
	else
		top_text_number(dst, size, x);
}

static unsigned int fields_width(const enum top_field *fields)
{
	unsigned int width = 0;

	for (; *fields; fields++)
		width += top_fields[*fields].width + 1;
	return width;
}

static void put_section_head(struct top_page *p, enum top_section section, unsigned int name_width)
{
	const struct top_section_desc *d = &top_sections[section];
	struct top_line *l;

	top_page_add(p);
	l = top_page_add(p);
	top_line_put(l, d->title, name_width, false, TOP_TITLE);
	for (const enum top_field *f = d->fields; *f; f++) {
		top_line_put(l, " ", 0, false, TOP_PLAIN);
		top_line_put(l, top_fields[*f].title, top_fields[*f].width, true, TOP_TITLE);
	}
}

static void put_items(struct top_page *p, const struct top_scene *s, const struct top_ui *ui)
{
	enum top_section last = TOP_SECTIONS;
	unsigned int name_width = NAME_WIDTH;

	for (unsigned int i = 0; i < s->detail->count; i++) {
		const struct top_item *item = &s->detail->items[i];
		const enum top_field *fields = top_sections[item->section].fields;
		char name[512], cell[TOP_CELL_BYTES];
		struct top_line *l;

		item_name(name, sizeof(name), item, s->charset);
		if (!top_ui_matches(ui, name))
			continue;
		if (item->section != last) {
			unsigned int rest = fields_width(fields);

			/* Names of applications are long: they get what the terminal has. */
			name_width = s->width > NAME_WIDTH + rest ? s->width - rest : NAME_WIDTH;
			name_width = name_width > 60 ? 60 : name_width;
			put_section_head(p, item->section, name_width);
			last = item->section;
		}
		l = top_page_add(p);
		top_line_put(l, name, name_width, false, TOP_PLAIN);
		for (const enum top_field *f = fields; *f; f++) {
			bool is_error = *f == TOP_FIELD_ERROR_RATE && item->error_rate > 0;

			item_cell(cell, sizeof(cell), item, *f, s->charset);
			top_line_put(l, " ", 0, false, TOP_PLAIN);
			top_line_put(l, cell, top_fields[*f].width, true,
				     str_equal(cell, "-") ? TOP_DIM
				     : is_error           ? TOP_WARN
							  : TOP_PLAIN);
		}
	}
}

void top_page_detail(struct top_page *p, const struct top_scene *s, struct top_ui *ui)
{
	const struct top_row *row = NULL;
	const struct segment_gateway *g = gateway_of(s, ui, &row);
	char text[96];

	p->count = 0;
	top_page_title(p, s, ui);
	if (g)
		put_identity(p, s, g);
	p->head = p->count;
	if (!g || !s->detail) {
		top_line_put(top_page_add(p), "This gateway is not there any more (Esc: back).", 0,
			     false, TOP_PLAIN);
		top_page_end(p, ui);
		return;
	}
	top_page_add(p);
	put_values(p, s, row);
	put_history(p, s, row);
	put_items(p, s, ui);
	if (s->detail->left_out) {
		snprintf(text, sizeof(text), "%u more are left out", s->detail->left_out);
		top_line_put(top_page_add(p), text, 0, false, TOP_WARN);
	}
	top_page_end(p, ui);
}

/* ---- help ---- */

void top_page_help(struct top_page *p, const struct top_scene *s, struct top_ui *ui)
{
	static const char *const keys[][2] = {
		{"q", "quit"},
		{"Enter", "details of the selected gateway"},
		{"Esc, Backspace", "back; in the list: no filter"},
		{"up, down, k, j", "select, or scroll; also Page up, Page down, Home, End"},
		{">, <, right, left", "sort by the next column, or the one before (also s, S)"},
		{"r", "reverse the order"},
		{"/", "show only what holds a text (Enter keeps it, Esc does not)"},
		{"a", "show gateways that ended, too"},
		{"space", "pause, and go on"},
		{"? or h", "this page"},
	};
	char text[256];

	p->count = 0;
	top_page_title(p, s, ui);
	p->head = p->count;
	top_page_add(p);
	top_line_put(top_page_add(p), "KEYS", 0, false, TOP_TITLE);
	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		struct top_line *l = top_page_add(p);

		top_line_put(l, keys[i][0], 20, false, TOP_SORTED);
		top_line_put(l, keys[i][1], 0, false, TOP_PLAIN);
	}
	top_page_add(p);
	top_line_put(top_page_add(p), "COLUMNS (a dash: not known)", 0, false, TOP_TITLE);
	for (unsigned int i = 0; i < TOP_VALUES; i++) {
		struct top_line *l;

		if (!top_columns[i].width)
			continue;
		l = top_page_add(p);
		top_text_clean(text, sizeof(text), top_columns[i].help, s->charset);
		top_line_put(l, top_columns[i].title, 20, false, TOP_SORTED);
		top_line_put(l, text, 0, false, TOP_PLAIN);
	}
	top_page_end(p, ui);
}
