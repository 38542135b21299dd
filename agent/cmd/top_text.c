/* SPDX-License-Identifier: Apache-2.0 */
/* Text for terminals. Pure. */
#include "cmd/top_text.h"

#include "base/str.h"

#include <stdio.h>
#include <string.h>
#include <wchar.h>

/* ---- characters ---- */

static uint32_t decode(const char *s, size_t n)
{
	const unsigned char *p = (const unsigned char *)s;
	uint32_t x = n == 1 ? p[0] : p[0] & (0xffu >> (n + 1));

	for (size_t i = 1; i < n; i++)
		x = x << 6 | (p[i] & 0x3f);
	return x;
}

/* Columns, or 0 for what must not be shown. The C library knows widths, and which are unassigned;
 * the marks that turn the direction around it gives a width in some versions. */
static unsigned int width_of(uint32_t x)
{
	int w;

	if (x < 0x80)
		return x >= 0x20 && x != 0x7f;
	if (x < 0xa0 || x == 0xad || x == 0x061c || (x >= 0x200b && x <= 0x200f) ||
	    (x >= 0x2028 && x <= 0x202e) || (x >= 0x2060 && x <= 0x206f) || x == 0xfeff ||
	    (x >= 0xfff0 && x <= 0xfffc) || (x >= 0xe0000 && x <= 0xe0fff))
		return 0;
	w = wcwidth((wchar_t)x);
	return w > 0 ? (unsigned int)w : 0;
}

void top_text_clean(char *dst, size_t size, const char *src, struct top_charset c)
{
	size_t at = 0;

	while (*src && at + 1 < size) {
		size_t n = str_utf8_length(src);
		bool is_shown = n && (n == 1 || c.is_utf8) && width_of(decode(src, n));

		if (is_shown && at + n >= size)
			break;
		if (is_shown)
			memcpy(dst + at, src, n);
		else
			dst[at] = '?';
		at += is_shown ? n : 1;
		src += n ? n : 1;
	}
	dst[at] = '\0';
}

size_t top_text_character(const char *s, unsigned int *ret_width)
{
	size_t n = str_utf8_length(s);

	*ret_width = n ? width_of(decode(s, n)) : 1;
	return n ? n : 1;
}

unsigned int top_text_width(const char *s)
{
	unsigned int width = 0, w;

	for (; *s; width += w)
		s += top_text_character(s, &w);
	return width;
}

static void append(char *dst, size_t size, const char *s, size_t n)
{
	size_t at = strlen(dst);

	if (at + n >= size)
		return;
	memcpy(dst + at, s, n);
	dst[at + n] = '\0';
}

static void fill(char *dst, size_t size, unsigned int n)
{
	while (n--)
		append(dst, size, " ", 1);
}

void top_text_pad(char *dst, size_t size, const char *s, unsigned int width, bool is_right)
{
	unsigned int whole = top_text_width(s), used = 0;

	if (whole <= width) {
		if (is_right)
			fill(dst, size, width - whole);
		append(dst, size, s, strlen(s));
		if (!is_right)
			fill(dst, size, width - whole);
		return;
	}
	while (*s && width) {
		unsigned int w;
		size_t n = top_text_character(s, &w);

		if (used + w > width - 1)
			break;
		append(dst, size, s, n);
		used += w;
		s += n;
	}
	if (width)
		append(dst, size, "~", 1);
	fill(dst, size, width > used + 1 ? width - used - 1 : 0);
}

/* ---- numbers ---- */

/* Two or three digits that count. */
static void scaled(char *dst, size_t size, double x, const char *unit)
{
	if (x < 9.95)
		snprintf(dst, size, "%.1f%s", x, unit);
	else
		snprintf(dst, size, "%.0f%s", x, unit);
}

void top_text_seconds(char *dst, size_t size, double s)
{
	if (isnan(s))
		str_copy(dst, size, "-");
	else if (isinf(s))
		str_copy(dst, size, "inf");
	else if (s < 999.5e-9)
		snprintf(dst, size, "%.0fns", s * 1e9);
	else if (s < 999.5e-6)
		scaled(dst, size, s * 1e6, "us");
	else if (s < 999.5e-3)
		scaled(dst, size, s * 1e3, "ms");
	else if (s < 119.5)
		scaled(dst, size, s, "s");
	else if (s < 119.5 * 60)
		snprintf(dst, size, "%.0fm", s / 60);
	else
		snprintf(dst, size, "%.0fh", s / 3600);
}

static void powers(char *dst, size_t size, double n, double base, const char *units)
{
	char unit[2] = "";

	while (n >= base * 0.9995 && *units) {
		n /= base;
		unit[0] = *units++;
	}
	if (!*unit && n == floor(n))
		snprintf(dst, size, "%.0f", n);
	else if (n < 99.95)
		snprintf(dst, size, "%.1f%s", n, unit);
	else
		snprintf(dst, size, "%.0f%s", n, unit);
}

void top_text_number(char *dst, size_t size, double n)
{
	if (isnan(n))
		str_copy(dst, size, "-");
	else if (n < 0 || n > 1e18)
		snprintf(dst, size, "%.3g", n);
	else if (n >= 999.5 && n < 9999.5)
		snprintf(dst, size, "%.0f", n);
	else if (n > 0 && n < 0.05)
		snprintf(dst, size, "%.2f", n);
	else
		powers(dst, size, n, 1000, "kMGTP");
}

void top_text_bytes(char *dst, size_t size, double n)
{
	if (isnan(n))
		str_copy(dst, size, "-");
	else if (n < 0 || n > 1e18)
		snprintf(dst, size, "%.3g", n);
	else
		powers(dst, size, n, 1024, "KMGTP");
}

void top_text_ratio(char *dst, size_t size, double ratio)
{
	double percent = ratio * 100;

	if (isnan(ratio))
		str_copy(dst, size, "-");
	else if (percent > 0 && percent < 9.95)
		snprintf(dst, size, "%.1f%%", percent);
	else
		snprintf(dst, size, "%.0f%%", percent);
}

void top_text_quantile(char *dst, size_t size, const struct top_quantile *q, struct top_charset c)
{
	char value[24], error[24];
	double share = (q->high - q->low) / 2 / q->value;

	if (isnan(q->value)) {
		str_copy(dst, size, "-");
		return;
	}
	top_text_seconds(value, sizeof(value), q->value);
	if (isinf(q->high)) {
		snprintf(dst, size, ">%s", value);
		return;
	}
	snprintf(error, sizeof(error), "%.0f%%", share * 100);
	snprintf(dst, size, "%s%s%s", value, c.is_utf8 ? "\302\261" : "~", error);
}

static void plain(char *dst, size_t size, double x, enum top_form form)
{
	switch (form) {
	case TOP_FORM_SECONDS:
	case TOP_FORM_QUANTILE:
		top_text_seconds(dst, size, x);
		break;
	case TOP_FORM_BYTES:
		top_text_bytes(dst, size, x);
		break;
	case TOP_FORM_RATIO:
		top_text_ratio(dst, size, x);
		break;
	case TOP_FORM_CORES:
		snprintf(dst, size, isnan(x) ? "-" : x < 9.995 ? "%.2f" : "%.1f", x);
		break;
	case TOP_FORM_COUNT:
	case TOP_FORM_RATE:
		top_text_number(dst, size, x);
		break;
	}
}

void top_text_value(char *dst, size_t size, const struct top_row *row, enum top_value value,
		    struct top_charset c)
{
	const struct top_column *column = &top_columns[value];
	char number[32], limit[32];

	if (column->form == TOP_FORM_QUANTILE) {
		top_text_quantile(dst, size, &row->quantiles[value], c);
		return;
	}
	plain(number, sizeof(number), row->values[value], column->form);
	str_copy(dst, size, number);
	if (column->of == TOP_NONE || isnan(row->values[value]) || isnan(row->values[column->of]))
		return;
	if (column->form == TOP_FORM_CORES)
		snprintf(limit, sizeof(limit), "%g", row->values[column->of]);
	else
		plain(limit, sizeof(limit), row->values[column->of], column->form);
	snprintf(dst, size, "%s/%s", number, limit);
}

/* ---- bars ---- */

void top_text_spark(char *dst, size_t size, const float *values, size_t n, unsigned int width,
		    struct top_charset c)
{
	static const char *const blocks[] = {"\342\226\201", "\342\226\202", "\342\226\203",
					     "\342\226\204", "\342\226\205", "\342\226\206",
					     "\342\226\207", "\342\226\210"};
	static const char *const letters[] = {"_", ".", ":", "-", "=", "+", "*", "#"};
	const char *const *bars = c.is_utf8 ? blocks : letters;
	size_t first = n > width ? n - width : 0;
	float most = 0;

	for (size_t i = first; i < n; i++)
		if (!isnan(values[i]) && values[i] > most)
			most = values[i];
	fill(dst, size, (unsigned int)(width - (n - first)));
	for (size_t i = first; i < n; i++) {
		int step = most > 0 && values[i] > 0 ? (int)(values[i] / most * 7.999f) : 0;

		if (isnan(values[i]))
			append(dst, size, " ", 1);
		else
			append(dst, size, bars[step], strlen(bars[step]));
	}
}
