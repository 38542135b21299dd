/* SPDX-License-Identifier: Apache-2.0 */
/* Bounded strings and a growing text buffer with a limit. */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

/* Copies at most size - 1 bytes and terminates. Returns false when it had to cut. */
bool str_copy(char *dst, size_t size, const char *src);

bool str_equal(const char *a, const char *b);
bool str_starts(const char *s, const char *prefix);
bool str_ends(const char *s, const char *suffix);

/* Length of the UTF-8 sequence at s, 0 when there is none (overlong, surrogate, cut). */
size_t str_utf8_length(const char *s);
/* A text of others that travels and may be shown on a terminal: '?' for each byte that is no UTF-8
 * and each control character (C1 too), cut between characters. Up to size bytes with the NUL. */
void str_clean(char *dst, size_t size, const char *src);

/* Optimal-string-alignment distance, inputs cut at 63 bytes. */
unsigned int str_distance(const char *a, const char *b);

/* The word of words[0..n) nearest to s if it is near enough to be a slip, else NULL. */
const char *str_nearest(const char *s, const char *const *words, size_t n);

/* Strict decimal parse of the whole string. -EINVAL, -ERANGE. */
int str_to_u64(const char *s, uint64_t *ret);

/* Reads a small file (proc, sysfs) whole into buf, terminates it, strips one final newline.
 * Returns the length or a negative errno (-E2BIG when it does not fit). */
int str_read_file(const char *path, char *buf, size_t size);

/* Text buffer; after a failed append (memory or limit) it stays failed and `failed` says so. */
struct strbuf {
	char *data;
	size_t len, cap, limit;
	bool failed;
};

void strbuf_init(struct strbuf *b, size_t limit);
void strbuf_fini(struct strbuf *b);
void strbuf_reset(struct strbuf *b);
void strbuf_add(struct strbuf *b, const char *s, size_t len);
void strbuf_puts(struct strbuf *b, const char *s);
void strbuf_printf(struct strbuf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
