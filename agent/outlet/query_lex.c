/* SPDX-License-Identifier: Apache-2.0 */
#include "outlet/query_lex.h"

#include "outlet/query.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

int query_lex_init(struct query_lex *lex, const char *text)
{
	*lex = (struct query_lex){.begin = text, .at = text, .start = text};
	/* Each token's text and its NUL: a word may be followed by another character at once, so
	 * twice the text is always enough. */
	lex->strings = lex->free = malloc(2 * strlen(text) + 2);
	return lex->strings ? 0 : -ENOMEM;
}

void query_lex_fini(struct query_lex *lex)
{
	free(lex->strings);
	lex->strings = lex->free = NULL;
}

size_t query_lex_place(const struct query_lex *lex)
{
	return (size_t)(lex->start - lex->begin) + 1;
}

static int fail(const struct query_lex *lex, struct err *e, const char *what)
{
	return err_set(e, -EINVAL, "%s at character %zu", what, query_lex_place(lex));
}

/* -------- durations -------- */

/* The longest unit that fits: "ms" is not "m". 0: none. */
static uint64_t unit_ms(const char **at)
{
	static const struct {
		char name[3];
		uint64_t ms;
	} units[] = {
		{"ms", 1},          {"s", 1000},         {"m", 60000},          {"h", 3600000},
		{"d", 86400000ull}, {"w", 604800000ull}, {"y", 31536000000ull},
	};

	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
		size_t n = strlen(units[i].name);

		if (strncmp(*at, units[i].name, n) == 0) {
			*at += n;
			return units[i].ms;
		}
	}
	return 0;
}

/* Units fall, as in Prometheus: 1h30m, not 30m1h. */
static int duration(const char **at, uint64_t *ret)
{
	uint64_t total = 0, last = UINT64_MAX;

	do {
		uint64_t v = 0, ms;

		if (!isdigit((unsigned char)**at))
			return -EINVAL;
		while (isdigit((unsigned char)**at)) {
			v = v * 10 + (uint64_t)(*(*at)++ - '0');
			if (v > QUERY_RANGE_MAX_MS)
				return -ERANGE;
		}
		ms = unit_ms(at);
		if (!ms || ms >= last)
			return -EINVAL;
		last = ms;
		if (v > QUERY_RANGE_MAX_MS / ms)
			return -ERANGE;
		total += v * ms;
		if (total > QUERY_RANGE_MAX_MS)
			return -ERANGE;
	} while (isdigit((unsigned char)**at));
	*ret = total;
	return 0;
}

int query_duration(const char *text, uint64_t *ret_ms)
{
	const char *at = text;
	char *end;
	uint64_t ms;
	double v;
	int r;

	/* strtod would also take hexadecimal, infinity and leading blanks. */
	if (text[strspn(text, "0123456789.")] == '\0' && *text) {
		v = strtod(text, &end);
		if (*end)
			return -EINVAL;
		if (!(v * 1000 <= (double)QUERY_RANGE_MAX_MS))
			return -ERANGE;
		*ret_ms = (uint64_t)llround(v * 1000);
		return 0;
	}
	r = duration(&at, &ms);
	if (r < 0)
		return r;
	if (*at)
		return -EINVAL;
	*ret_ms = ms;
	return 0;
}

/* -------- tokens -------- */

static void word(struct query_lex *lex)
{
	lex->token = QUERY_TOKEN_WORD;
	lex->text = lex->free;
	while (isalnum((unsigned char)*lex->at) || *lex->at == '_' || *lex->at == ':')
		*lex->free++ = *lex->at++;
	*lex->free++ = '\0';
}

static int string(struct query_lex *lex, struct err *e)
{
	char quote = *lex->at++;

	lex->token = QUERY_TOKEN_STRING;
	lex->text = lex->free;
	for (; *lex->at && *lex->at != quote; lex->at++) {
		if (*lex->at != '\\' || quote == '`') {
			*lex->free++ = *lex->at;
			continue;
		}
		switch (*++lex->at) {
		case 'n':
			*lex->free++ = '\n';
			break;
		case 't':
			*lex->free++ = '\t';
			break;
		case '\\':
		case '"':
		case '\'':
			*lex->free++ = *lex->at;
			break;
		default:
			return fail(lex, e, "an unknown escape in the string");
		}
	}
	if (!*lex->at)
		return fail(lex, e, "a string without end");
	lex->at++;
	*lex->free++ = '\0';
	return 0;
}

/* A number, or a duration when a unit follows its digits. */
static int number(struct query_lex *lex, struct err *e)
{
	const char *digits = lex->at, *at = lex->at;
	char *end;

	while (isdigit((unsigned char)*digits))
		digits++;
	if (digits > at && *digits && strchr("smhdwy", *digits)) {
		lex->token = QUERY_TOKEN_DURATION;
		if (duration(&at, &lex->duration_ms) < 0)
			return fail(lex, e, "no duration, or one too long");
		lex->at = at;
	} else {
		lex->token = QUERY_TOKEN_NUMBER;
		if (*at == '0' && (at[1] == 'x' || at[1] == 'X'))
			return fail(lex, e, "no decimal number");
		lex->number = strtod(at, &end);
		if (end == at || !isfinite(lex->number))
			return fail(lex, e, "no number, or one too large");
		lex->at = end;
	}
	if (isalnum((unsigned char)*lex->at) || *lex->at == '_' || *lex->at == '.')
		return fail(lex, e, "no number");
	return 0;
}

static int sign(struct query_lex *lex, struct err *e)
{
	static const struct {
		char text[3];
		enum query_token token;
	} signs[] = {
		/* Two characters before one. */
		{"=~", QUERY_TOKEN_REGEX},       {"!~", QUERY_TOKEN_NOT_REGEX},
		{"!=", QUERY_TOKEN_NOT_EQUAL},   {"=", QUERY_TOKEN_EQUAL},
		{"(", QUERY_TOKEN_LEFT},         {")", QUERY_TOKEN_RIGHT},
		{"{", QUERY_TOKEN_LEFT_BRACE},   {"}", QUERY_TOKEN_RIGHT_BRACE},
		{"[", QUERY_TOKEN_LEFT_BRACKET}, {"]", QUERY_TOKEN_RIGHT_BRACKET},
		{",", QUERY_TOKEN_COMMA},        {"+", QUERY_TOKEN_PLUS},
		{"-", QUERY_TOKEN_MINUS},        {"*", QUERY_TOKEN_STAR},
		{"/", QUERY_TOKEN_SLASH},
	};

	for (size_t i = 0; i < sizeof(signs) / sizeof(signs[0]); i++) {
		size_t n = strlen(signs[i].text);

		if (strncmp(lex->at, signs[i].text, n) == 0) {
			lex->at += n;
			lex->token = signs[i].token;
			return 0;
		}
	}
	return fail(lex, e, "a character that is not of the language");
}

int query_lex_next(struct query_lex *lex, struct err *e)
{
	char c;

	while (*lex->at && strchr(" \t\r\n", *lex->at))
		lex->at++;
	lex->start = lex->at;
	c = *lex->at;
	if (!c) {
		lex->token = QUERY_TOKEN_END;
		return 0;
	}
	if (isalpha((unsigned char)c) || c == '_' || c == ':') {
		word(lex);
		return 0;
	}
	if (c == '"' || c == '\'' || c == '`')
		return string(lex, e);
	if (isdigit((unsigned char)c) || c == '.')
		return number(lex, e);
	return sign(lex, e);
}
