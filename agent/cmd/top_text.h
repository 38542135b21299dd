/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers and foreign names as text for a terminal. Pure. Nothing that a segment holds reaches a
 * terminal but through top_text_clean(): names and labels are the gateway's, and may hold anything.
 */
#pragma once

#include "cmd/top_model.h"

#include <stdbool.h>
#include <stddef.h>

#define TOP_CELL_BYTES 64

/* What the terminal can show: UTF-8, by the locale (setlocale() was called), or only ASCII. */
struct top_charset {
	bool is_utf8;
};

/* Copies src and ends it; what is no printable character (controls, escape, what is no UTF-8, marks
 * that change the direction or have no width) becomes a question mark, and so does all beyond ASCII
 * where the terminal has no UTF-8. Cut at size - 1 bytes, never inside a character. */
void top_text_clean(char *dst, size_t size, const char *src, struct top_charset c);

/* Bytes of the first character of a clean text that is not empty, and its columns. */
size_t top_text_character(const char *s, unsigned int *ret_width);

/* Columns that a clean text takes. */
unsigned int top_text_width(const char *s);

/* Appends to dst (ended, size bytes of room in all) s in `width` columns: cut (with a ~), or filled
 * with blanks before it (is_right) or behind. */
void top_text_pad(char *dst, size_t size, const char *s, unsigned int width, bool is_right);

/* "-" for NAN. */
void top_text_seconds(char *dst, size_t size, double seconds); /* 7.4us 120ms 1.5s 3m */
void top_text_number(char *dst, size_t size, double n);        /* 0 0.3 17 8832 12.3k 4.5M */
void top_text_bytes(char *dst, size_t size, double bytes);     /* 512 1.5K 38M (powers of 1024) */
void top_text_ratio(char *dst, size_t size, double ratio);     /* 0.3% 97% */
/* With half of the bucket's width, as a share: 7.4us±4%. */
void top_text_quantile(char *dst, size_t size, const struct top_quantile *q, struct top_charset c);

/* A cell of the table: the value in its form, with its limit behind a slash where there is one. */
void top_text_value(char *dst, size_t size, const struct top_row *row, enum top_value value,
		    struct top_charset c);

/* The last `width` of n values as bars from 0 to their maximum, blanks where there is none (NAN),
 * oldest first. Appends to dst. */
void top_text_spark(char *dst, size_t size, const float *values, size_t n, unsigned int width,
		    struct top_charset c);
