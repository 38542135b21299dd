/* SPDX-License-Identifier: Apache-2.0 */
/* Log lines: one write(2) each, so that lines of several processes do not mix. */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static enum log_level log_least = LOG_INFO;
static enum log_format log_format = LOG_FORMAT_TEXT;
static const char *log_process = "tidegate";

static const char *const level_names[] = {"debug", "info", "warning", "error"};

void log_setup(enum log_level least, enum log_format format)
{
	log_least = least;
	log_format = format;
}

void log_set_process(const char *name)
{
	log_process = name;
}

struct line {
	char text[2048];
	size_t len;
};

static void line_char(struct line *l, char c)
{
	if (l->len < sizeof(l->text) - 2)
		l->text[l->len++] = c;
}

static void line_puts(struct line *l, const char *s)
{
	while (*s)
		line_char(l, *s++);
}

/* A log line stays one line whatever a peer put into a value. */
static void line_plain(struct line *l, const char *s)
{
	for (; *s; s++)
		line_char(l, (unsigned char)*s < 0x20 || *s == 0x7f ? ' ' : *s);
}

/* Bytes of the character at s, of at most len: 0 when it is not UTF-8. */
static size_t utf8_length(const char *s, size_t len)
{
	unsigned char c = (unsigned char)s[0];
	size_t n = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : 4;

	if ((c >= 0x80 && c < 0xc2) || c > 0xf4 || n > len)
		return 0;
	for (size_t i = 1; i < n; i++)
		if (((unsigned char)s[i] & 0xc0) != 0x80)
			return 0;
	if ((c == 0xe0 && (unsigned char)s[1] < 0xa0) ||
	    (c == 0xed && (unsigned char)s[1] > 0x9f) ||
	    (c == 0xf0 && (unsigned char)s[1] < 0x90) || (c == 0xf4 && (unsigned char)s[1] > 0x8f))
		return 0;
	return n;
}

/* Leaves room for what closes the object: a cut line is a whole object still. */
static bool line_is_full(const struct line *l)
{
	return l->len > sizeof(l->text) - 128;
}

static void line_json_string(struct line *l, const char *s, size_t len)
{
	char hex[8];
	size_t n;

	line_char(l, '"');
	for (size_t i = 0; i < len && !line_is_full(l); i += n) {
		unsigned char c = (unsigned char)s[i];

		n = utf8_length(s + i, len - i);
		if (c == '"' || c == '\\') {
			line_char(l, '\\');
			line_char(l, (char)c);
		} else if (c < 0x20 || c == 0x7f) {
			snprintf(hex, sizeof(hex), "\\u%04x", c);
			line_puts(l, hex);
		} else if (!n) {
			line_puts(l, "\\ufffd");
			n = 1;
		} else {
			for (size_t k = 0; k < n; k++)
				line_char(l, s[i + k]);
		}
	}
	line_char(l, '"');
}

/* The quote that ends a value: the first at the end or before " key=". */
static const char *closing_quote(const char *s)
{
	for (const char *q = strchr(s, '"'); q; q = strchr(q + 1, '"')) {
		const char *key = q + 1 + strspn(q + 1, " ");
		size_t n = strspn(key, "abcdefghijklmnopqrstuvwxyz0123456789_.");

		if (!*key || (key > q + 1 && n && key[n] == '='))
			return q;
	}
	return s + strlen(s);
}

/* Splits key=value pairs. */
static void line_json_fields(struct line *l, const char *s)
{
	while (*s && !line_is_full(l)) {
		const char *eq = strchr(s, '='), *end;

		if (!eq)
			return;
		line_char(l, ',');
		line_json_string(l, s, (size_t)(eq - s));
		line_char(l, ':');
		eq++;
		if (*eq == '"') {
			eq++;
			end = closing_quote(eq);
			line_json_string(l, eq, (size_t)(end - eq));
			if (*end)
				end++;
		} else {
			end = strchr(eq, ' ');
			if (!end)
				end = eq + strlen(eq);
			line_json_string(l, eq, (size_t)(end - eq));
		}
		while (*end == ' ')
			end++;
		s = end;
	}
}

void log_line(enum log_level level, const char *module, const char *message, const char *fields,
	      ...)
{
	struct line l = {.len = 0};
	char values[1400];
	struct timespec ts;
	struct tm tm;
	char stamp[96];
	va_list ap;
	ssize_t n;

	if (level < log_least)
		return;
	va_start(ap, fields);
	vsnprintf(values, sizeof(values), fields, ap);
	va_end(ap);
	if (log_format == LOG_FORMAT_TEXT) {
		line_puts(&l, level_names[level]);
		line_char(&l, ' ');
		line_puts(&l, module);
		line_char(&l, ' ');
		line_plain(&l, message);
		if (values[0]) {
			line_char(&l, ' ');
			line_plain(&l, values);
		}
	} else {
		clock_gettime(CLOCK_REALTIME, &ts);
		gmtime_r(&ts.tv_sec, &tm);
		snprintf(stamp, sizeof(stamp), "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ",
			 tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour, tm.tm_min,
			 tm.tm_sec, ts.tv_nsec / 1000000);
		line_puts(&l, "{\"time\":");
		line_json_string(&l, stamp, strlen(stamp));
		line_puts(&l, ",\"level\":");
		line_json_string(&l, level_names[level], strlen(level_names[level]));
		line_puts(&l, ",\"process\":");
		line_json_string(&l, log_process, strlen(log_process));
		line_puts(&l, ",\"module\":");
		line_json_string(&l, module, strlen(module));
		line_puts(&l, ",\"message\":");
		line_json_string(&l, message, strlen(message));
		line_json_fields(&l, values);
		line_char(&l, '}');
	}
	l.text[l.len++] = '\n';
	n = write(STDERR_FILENO, l.text, l.len);
	(void)n;
}

bool log_allowed(struct log_limit *limit, uint64_t now_ns, uint64_t *ret_suppressed)
{
	if (limit->last_ns && now_ns - limit->last_ns < limit->interval_ns) {
		limit->suppressed++;
		return false;
	}
	*ret_suppressed = limit->suppressed;
	limit->suppressed = 0;
	limit->last_ns = now_ns ? now_ns : 1;
	return true;
}
