/* SPDX-License-Identifier: Apache-2.0 */
/* Values as text. No state. */
#include "config/value.h"

#include "base/str.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <strings.h>

struct unit {
	const char *name;
	uint64_t factor;
};

/* Printing takes the first that divides the number, so the largest come first. */
static const struct unit duration_units[] = {
	{"d", 86400000000000}, {"h", 3600000000000}, {"m", 60000000000}, {"s", 1000000000},
	{"ms", 1000000},       {"us", 1000},         {"ns", 1},
};

static const struct unit bytes_units[] = {
	{"TiB", 1ULL << 40},
	{"GiB", 1ULL << 30},
	{"MiB", 1ULL << 20},
	{"KiB", 1ULL << 10},
	{"Ti", 1ULL << 40},
	{"Gi", 1ULL << 30},
	{"Mi", 1ULL << 20},
	{"Ki", 1ULL << 10},
	{"TB", 1000000000000},
	{"GB", 1000000000},
	{"MB", 1000000},
	{"kB", 1000},
	{"T", 1000000000000},
	{"G", 1000000000},
	{"M", 1000000},
	{"k", 1000},
	{"B", 1},
};

#define BYTES_UNITS_PRINTED 4

#define FRACTION_DIGITS 9

static int parse_scaled(const char *s, const struct unit *units, size_t n, uint64_t no_unit,
			uint64_t *ret)
{
	uint64_t whole = 0, fraction = 0, scale = 1, factor = 0;
	unsigned __int128 v;
	int digits = 0;

	for (; *s >= '0' && *s <= '9'; s++, digits++)
		if (__builtin_mul_overflow(whole, 10, &whole) ||
		    __builtin_add_overflow(whole, (uint64_t)(*s - '0'), &whole))
			return -ERANGE;
	if (!digits)
		return -EINVAL;
	if (*s == '.') {
		s++;
		if (*s < '0' || *s > '9')
			return -EINVAL;
		for (digits = 0; *s >= '0' && *s <= '9'; s++, digits++) {
			if (digits >= FRACTION_DIGITS)
				continue;
			fraction = fraction * 10 + (uint64_t)(*s - '0');
			scale *= 10;
		}
	}
	while (*s == ' ')
		s++;
	if (!*s)
		factor = no_unit;
	for (size_t i = 0; i < n && !factor; i++)
		if (strcasecmp(s, units[i].name) == 0)
			factor = units[i].factor;
	if (!factor)
		return -EINVAL;
	v = (unsigned __int128)whole * factor + (unsigned __int128)fraction * factor / scale;
	if (v > UINT64_MAX)
		return -ERANGE;
	*ret = (uint64_t)v;
	return 0;
}

int value_parse_duration(const char *s, uint64_t *ret_ns)
{
	return parse_scaled(s, duration_units, ARRAY_LEN(duration_units), 1000000000, ret_ns);
}

int value_parse_bytes(const char *s, uint64_t *ret_bytes)
{
	return parse_scaled(s, bytes_units, ARRAY_LEN(bytes_units), 1, ret_bytes);
}

int value_parse_ratio(const char *s, uint64_t *ret_millionths)
{
	static const struct unit percent = {"%", 10000};

	return parse_scaled(s, &percent, 1, 1000000, ret_millionths);
}

int value_parse_bool(const char *s, bool *ret)
{
	static const char *const words[][2] = {{"true", "false"}, {"yes", "no"}, {"on", "off"}};

	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		for (int no = 0; no < 2; no++) {
			if (strcasecmp(s, words[i][no]) == 0) {
				*ret = !no;
				return 0;
			}
		}
	}
	return -EINVAL;
}

static const char *print_scaled(uint64_t v, const struct unit *units, size_t n, char *buf)
{
	for (size_t i = 0; i < n; i++) {
		if (v && v % units[i].factor == 0) {
			snprintf(buf, VALUE_TEXT_BYTES, "%" PRIu64 "%s", v / units[i].factor,
				 units[i].name);
			return buf;
		}
	}
	snprintf(buf, VALUE_TEXT_BYTES, "%" PRIu64, v);
	return buf;
}

const char *value_print_duration(uint64_t ns, char buf[static VALUE_TEXT_BYTES])
{
	return print_scaled(ns, duration_units, ARRAY_LEN(duration_units), buf);
}

const char *value_print_bytes(uint64_t bytes, char buf[static VALUE_TEXT_BYTES])
{
	return print_scaled(bytes, bytes_units, BYTES_UNITS_PRINTED, buf);
}

const char *value_print_ratio(uint64_t millionths, char buf[static VALUE_TEXT_BYTES])
{
	unsigned int fraction = (unsigned int)(millionths % 10000), digits = 4;

	for (; digits && fraction % 10 == 0; fraction /= 10)
		digits--;
	if (digits)
		snprintf(buf, VALUE_TEXT_BYTES, "%" PRIu64 ".%0*u%%", millionths / 10000,
			 (int)digits, fraction);
	else
		snprintf(buf, VALUE_TEXT_BYTES, "%" PRIu64 "%%", millionths / 10000);
	return buf;
}
