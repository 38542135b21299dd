/* SPDX-License-Identifier: Apache-2.0 */
/* The body of a POST as a browser's form sends it: a=1&b=two+words. http.c's. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define HTTP_FORM_TYPE "application/x-www-form-urlencoded"

struct http_form {
	char *data; /* after the end: key, NUL, value, NUL, … */
	size_t size;
	bool is_refused; /* too large, or no memory */
};

void http_form_add(struct http_form *f, const char *data, size_t size);
/* Unescapes it. False: it was too large. */
bool http_form_end(struct http_form *f);
/* The nth value of the key; NULL: there is none. */
const char *http_form_find(const struct http_form *f, const char *key, size_t at);
void http_form_fini(struct http_form *f);
