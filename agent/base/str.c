/* SPDX-License-Identifier: Apache-2.0 */
/* Bounded strings. No state. */
#include "base/str.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool str_copy(char *dst, size_t size, const char *src)
{
	size_t n = strnlen(src, size);
	bool whole = n < size;

	if (!size)
		return false;
	if (!whole)
		n = size - 1;
	memcpy(dst, src, n);
	dst[n] = '\0';
	return whole;
}

bool str_equal(const char *a, const char *b)
{
	return strcmp(a, b) == 0;
}

bool str_starts(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool str_ends(const char *s, const char *suffix)
{
	size_t n = strlen(s), m = strlen(suffix);

	return n >= m && strcmp(s + n - m, suffix) == 0;
}

#define DISTANCE_MAX 64

static unsigned int min3(unsigned int a, unsigned int b, unsigned int c)
{
	unsigned int m = a < b ? a : b;

	return m < c ? m : c;
}

size_t str_utf8_length(const char *text)
{
	const unsigned char *s = (const unsigned char *)text;
	uint32_t c = s[0];
	size_t n;

	if (c < 0x80)
		return 1;
	if (c >= 0xc2 && c <= 0xdf)
		n = 2;
	else if (c >= 0xe0 && c <= 0xef)
		n = 3;
	else if (c >= 0xf0 && c <= 0xf4)
		n = 4;
	else
		return 0;
	for (size_t i = 1; i < n; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	if ((c == 0xe0 && s[1] < 0xa0) || (c == 0xed && s[1] > 0x9f) ||
	    (c == 0xf0 && s[1] < 0x90) || (c == 0xf4 && s[1] > 0x8f))
		return 0;
	return n;
}

/* Of n bytes at s; 0: no UTF-8. */
static bool is_shown(const char *s, size_t n)
{
	const unsigned char *p = (const unsigned char *)s;

	if (n == 2)
		return p[0] != 0xc2 || p[1] >= 0xa0;
	return n > 1 || (n == 1 && p[0] >= ' ' && p[0] != 0x7f);
}

void str_clean(char *dst, size_t size, const char *src)
{
	size_t at = 0, n, put;

	for (; *src; src += n ? n : 1) {
		n = str_utf8_length(src);
		put = is_shown(src, n) ? n : 1;
		if (at + put >= size)
			break;
		if (is_shown(src, n))
			memcpy(dst + at, src, n);
		else
			dst[at] = '?';
		at += put;
	}
	dst[at] = '\0';
}

unsigned int str_distance(const char *a, const char *b)
{
	unsigned int rows[3][DISTANCE_MAX] = {0};
	unsigned int *before = rows[0], *prev = rows[1], *row = rows[2], *spare;
	size_t n = strnlen(a, DISTANCE_MAX - 1), m = strnlen(b, DISTANCE_MAX - 1);

	for (size_t j = 0; j <= m; j++)
		prev[j] = (unsigned int)j;
	for (size_t i = 1; i <= n; i++) {
		row[0] = (unsigned int)i;
		for (size_t j = 1; j <= m; j++) {
			unsigned int swap = a[i - 1] != b[j - 1];

			row[j] = min3(prev[j] + 1, row[j - 1] + 1, prev[j - 1] + swap);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
			    before[j - 2] + 1 < row[j])
				row[j] = before[j - 2] + 1;
		}
		spare = before;
		before = prev;
		prev = row;
		row = spare;
	}
	return prev[m];
}

const char *str_nearest(const char *s, const char *const *words, size_t n)
{
	const char *best = NULL;
	unsigned int best_distance = 0;

	for (size_t i = 0; i < n; i++) {
		unsigned int d = str_distance(s, words[i]);

		if (!best || d < best_distance) {
			best = words[i];
			best_distance = d;
		}
	}
	if (!best || best_distance > 1 + strlen(best) / 3)
		return NULL;
	return best;
}

int str_to_u64(const char *s, uint64_t *ret)
{
	char *end;
	unsigned long long v;

	if (*s < '0' || *s > '9')
		return -EINVAL;
	errno = 0;
	v = strtoull(s, &end, 10);
	if (errno)
		return -errno;
	if (*end)
		return -EINVAL;
	*ret = v;
	return 0;
}

int str_read_file(const char *path, char *buf, size_t size)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t len = 0;

	if (fd < 0)
		return -errno;
	for (;;) {
		ssize_t n = read(fd, buf + len, size - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		len += (size_t)n;
		if (len == size)
			return -E2BIG;
	}
	if (len && buf[len - 1] == '\n')
		len--;
	buf[len] = '\0';
	return (int)len;
}

void strbuf_init(struct strbuf *b, size_t limit)
{
	*b = (struct strbuf){.limit = limit};
}

void strbuf_fini(struct strbuf *b)
{
	free(b->data);
	*b = (struct strbuf){0};
}

void strbuf_reset(struct strbuf *b)
{
	b->len = 0;
	b->failed = false;
	if (b->data)
		b->data[0] = '\0';
}

static bool strbuf_grow(struct strbuf *b, size_t more)
{
	size_t need = b->len + more + 1, cap = b->cap ? b->cap : 256;
	char *data;

	if (b->failed || need < more || need > b->limit) {
		b->failed = true;
		return false;
	}
	if (need <= b->cap)
		return true;
	while (cap < need)
		cap *= 2;
	if (cap > b->limit)
		cap = b->limit;
	data = realloc(b->data, cap);
	if (!data) {
		b->failed = true;
		return false;
	}
	b->data = data;
	b->cap = cap;
	return true;
}

void strbuf_add(struct strbuf *b, const char *s, size_t len)
{
	if (!strbuf_grow(b, len))
		return;
	memcpy(b->data + b->len, s, len);
	b->len += len;
	b->data[b->len] = '\0';
}

void strbuf_puts(struct strbuf *b, const char *s)
{
	strbuf_add(b, s, strlen(s));
}

void strbuf_printf(struct strbuf *b, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(NULL, 0, fmt, ap);
	va_end(ap);
	if (n < 0 || !strbuf_grow(b, (size_t)n))
		return;
	va_start(ap, fmt);
	vsnprintf(b->data + b->len, (size_t)n + 1, fmt, ap);
	va_end(ap);
	b->len += (size_t)n;
}
