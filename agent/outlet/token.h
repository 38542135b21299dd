/* SPDX-License-Identifier: Apache-2.0 */
/* Names, strings and numbers as the Prometheus formats spell them. Pure. */
#pragma once

#include "base/str.h"

/* A name of a metric (may have colons) or of a label; at most 255 bytes. */
bool token_is_name(const char *s, bool may_have_colon);

/* The inside of a label value or a help text; bytes that are no UTF-8 become U+FFFD. */
void token_put_escaped(struct strbuf *out, const char *s, bool escapes_quote);

void token_put_u64(struct strbuf *out, uint64_t v);

/* Nanoseconds as seconds: exact, as a decimal fraction without trailing zeroes. */
void token_put_seconds(struct strbuf *out, uint64_t ns);

/* Reads back as the same number; NaN, +Inf, -Inf. */
void token_put_double(struct strbuf *out, double v);
