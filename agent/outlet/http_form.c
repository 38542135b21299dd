/* SPDX-License-Identifier: Apache-2.0 */
#include "outlet/http_form.h"

#include "outlet/http.h"

#include <stdlib.h>
#include <string.h>

void http_form_add(struct http_form *f, const char *data, size_t size)
{
	char *grown;

	if (f->is_refused)
		return;
	f->is_refused = size > HTTP_FORM_BYTES - f->size;
	grown = f->is_refused ? NULL : realloc(f->data, f->size + size + 2);
	if (!grown) {
		f->is_refused = true;
		return;
	}
	memcpy(grown + f->size, data, size);
	f->data = grown;
	f->size += size;
}

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Moves [from, end) to `to`, unescaped, without any NUL; where it ends then. */
static char *unescape(char *to, const char *from, const char *end)
{
	for (; from < end; from++) {
		char c = *from == '+' ? ' ' : *from;

		if (c == '%' && end - from > 2 && hex(from[1]) >= 0 && hex(from[2]) >= 0) {
			c = (char)(hex(from[1]) * 16 + hex(from[2]));
			from += 2;
		}
		if (c)
			*to++ = c;
	}
	*to++ = '\0';
	return to;
}

bool http_form_end(struct http_form *f)
{
	char *raw, *to;

	if (f->is_refused || !f->data)
		return !f->is_refused;
	/* Each pair may become a byte longer: its value is missing, its NULs are not. */
	raw = malloc(2 * f->size + 4);
	if (!raw)
		return false;
	to = raw;
	for (const char *at = f->data, *end = f->data + f->size; at < end;) {
		const char *stop = memchr(at, '&', (size_t)(end - at)), *equals;

		stop = stop ? stop : end;
		equals = memchr(at, '=', (size_t)(stop - at));
		to = unescape(to, at, equals ? equals : stop);
		to = unescape(to, equals ? equals + 1 : stop, stop);
		at = stop + 1;
	}
	free(f->data);
	f->data = raw;
	f->size = (size_t)(to - raw);
	return true;
}

const char *http_form_find(const struct http_form *f, const char *key, size_t at)
{
	const char *end = f->data + f->size;

	for (const char *k = f->data; k && k < end;) {
		const char *value = k + strlen(k) + 1;

		if (strcmp(k, key) == 0 && !at--)
			return value;
		k = value + strlen(value) + 1;
	}
	return NULL;
}

void http_form_fini(struct http_form *f)
{
	free(f->data);
	*f = (struct http_form){0};
}
