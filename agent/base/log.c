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

static void line_json_string(struct line *l, const char *s, size_t len)
{
	char hex[8];

	line_char(l, '"');
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)s[i];

		if (c == '"' || c == '\\') {
			line_char(l, '\\');
			line_char(l, (char)c);
		} else if (c < 0x20 || c == 0x7f) {
			snprintf(hex, sizeof(hex), "\\u%04x", c);
			line_puts(l, hex);
		} else {
			line_char(l, (char)c);
		}
	}
	line_char(l, '"');
}

/* Splits key=value pairs; a value that begins with a quote runs to the last quote before " key=". */
static void line_json_fields(struct line *l, const char *s)
{
	while (*s) {
		const char *eq = strchr(s, '='), *end;

		if (!eq)
			return;
		line_char(l, ',');
		line_json_string(l, s, (size_t)(eq - s));
		line_char(l, ':');
		eq++;
		if (*eq == '"') {
			eq++;
			end = strchr(eq, '"');
			if (!end)
				end = eq + strlen(eq);
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
