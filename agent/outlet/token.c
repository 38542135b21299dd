/* SPDX-License-Identifier: Apache-2.0 */
/* Names, strings and numbers as the Prometheus formats spell them. Pure. */
#include "outlet/token.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define NAME_BYTES_MAX 255

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

bool token_is_name(const char *s, bool may_have_colon)
{
	size_t n = 0;

	for (; s[n]; n++) {
		bool is_digit = s[n] >= '0' && s[n] <= '9';

		if (!is_letter(s[n]) && !(is_digit && n) && !(s[n] == ':' && may_have_colon))
			return false;
		if (n == NAME_BYTES_MAX)
			return false;
	}
	return n;
}

/* One byte that is no UTF-8 would make Prometheus refuse the whole scrape. */
void token_put_escaped(struct strbuf *out, const char *s, bool escapes_quote)
{
	const char *from = s;

	while (*s) {
		size_t n = str_utf8_length(s);
		const char *instead = NULL;

		if (!n)
			instead = "\xef\xbf\xbd";
		else if (*s == '\\')
			instead = "\\\\";
		else if (*s == '\n')
			instead = "\\n";
		else if (*s == '"' && escapes_quote)
			instead = "\\\"";
		if (!instead) {
			s += n;
			continue;
		}
		strbuf_add(out, from, (size_t)(s - from));
		strbuf_puts(out, instead);
		from = ++s;
	}
	strbuf_add(out, from, (size_t)(s - from));
}

void token_put_u64(struct strbuf *out, uint64_t v)
{
	char text[20];
	size_t at = sizeof(text);

	do
		text[--at] = (char)('0' + v % 10);
	while (v /= 10);
	strbuf_add(out, text + at, sizeof(text) - at);
}

/* Exact, as a decimal fraction without trailing zeroes. */
void token_put_seconds(struct strbuf *out, uint64_t ns)
{
	char text[9];
	size_t n = sizeof(text);
	uint64_t rest = ns % 1000000000;

	token_put_u64(out, ns / 1000000000);
	if (!rest)
		return;
	for (size_t i = sizeof(text); i--; rest /= 10)
		text[i] = (char)('0' + rest % 10);
	while (text[n - 1] == '0')
		n--;
	strbuf_puts(out, ".");
	strbuf_add(out, text, n);
}

void token_put_double(struct strbuf *out, double v)
{
	char text[40];

	if (isnan(v)) {
		strbuf_puts(out, "NaN");
	} else if (isinf(v)) {
		strbuf_puts(out, v > 0 ? "+Inf" : "-Inf");
	} else {
		/* The shortest of the two that reads back as the same number. */
		snprintf(text, sizeof(text), "%.15g", v);
		if (strtod(text, NULL) != v)
			snprintf(text, sizeof(text), "%.17g", v);
		strbuf_puts(out, text);
	}
}
