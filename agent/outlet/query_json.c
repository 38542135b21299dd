/* SPDX-License-Identifier: Apache-2.0 */
#include "outlet/query_json.h"

#include "outlet/token.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void query_json_string(struct strbuf *out, const char *s)
{
	strbuf_puts(out, "\"");
	while (*s) {
		size_t n = str_utf8_length(s);

		if (!n) {
			strbuf_puts(out, "\\ufffd");
			s++;
			continue;
		}
		if (*s == '"' || *s == '\\')
			strbuf_printf(out, "\\%c", *s);
		else if ((unsigned char)*s < 0x20 || *s == 0x7f)
			strbuf_printf(out, "\\u%04x", (unsigned int)(unsigned char)*s);
		else
			strbuf_add(out, s, n);
		s += n;
	}
	strbuf_puts(out, "\"");
}

void query_json_labels(struct strbuf *out, const struct segment_label *labels, size_t n)
{
	strbuf_puts(out, "{");
	for (size_t i = 0; i < n; i++) {
		if (i)
			strbuf_puts(out, ",");
		query_json_string(out, labels[i].key);
		strbuf_puts(out, ":");
		query_json_string(out, labels[i].value);
	}
	strbuf_puts(out, "}");
}

static void put_point(struct strbuf *out, uint64_t ms, double v)
{
	strbuf_printf(out, "[%" PRIu64, ms / 1000);
	if (ms % 1000)
		strbuf_printf(out, ".%03u", (unsigned int)(ms % 1000));
	strbuf_puts(out, ",\"");
	token_put_double(out, v);
	strbuf_puts(out, "\"]");
}

static bool has_values(const struct matrix_series *s, size_t steps)
{
	for (size_t i = 0; i < steps; i++)
		if (!matrix_is_none(s->values[i]))
			return true;
	return false;
}

static void put_series(struct strbuf *out, const struct matrix_series *s,
		       const struct query_times *times, bool is_range)
{
	const char *separator = "";

	strbuf_puts(out, "{\"metric\":");
	query_json_labels(out, s->labels, s->label_count);
	strbuf_puts(out, is_range ? ",\"values\":[" : ",\"value\":");
	for (size_t i = 0; i < times->steps; i++) {
		if (matrix_is_none(s->values[i]))
			continue;
		strbuf_puts(out, separator);
		put_point(out, times->start_ms + i * times->step_ms, s->values[i]);
		separator = ",";
	}
	strbuf_puts(out, is_range ? "]}" : "}");
}

int query_json_answer(struct strbuf *out, const struct matrix *m, enum query_type type,
		      const struct query_times *times, bool is_range)
{
	bool is_first = true;

	strbuf_puts(out, "{\"status\":\"success\",\"data\":{\"resultType\":");
	if (!is_range && type == QUERY_SCALAR) {
		strbuf_puts(out, "\"scalar\",\"result\":");
		put_point(out, times->start_ms, m->series[0]->values[0]);
		strbuf_puts(out, "}}\n");
		return out->failed ? -E2BIG : 0;
	}
	strbuf_puts(out, is_range ? "\"matrix\",\"result\":[" : "\"vector\",\"result\":[");
	for (size_t i = 0; i < m->count && !out->failed; i++) {
		if (!has_values(m->series[i], times->steps))
			continue;
		if (!is_first)
			strbuf_puts(out, ",\n");
		put_series(out, m->series[i], times, is_range);
		is_first = false;
	}
	strbuf_puts(out, "]}}\n");
	return out->failed ? -E2BIG : 0;
}

int query_json_error(struct strbuf *out, const char *type, const char *text)
{
	strbuf_puts(out, "{\"status\":\"error\",\"errorType\":");
	query_json_string(out, type);
	strbuf_puts(out, ",\"error\":");
	query_json_string(out, text);
	strbuf_puts(out, "}\n");
	return out->failed ? -E2BIG : 0;
}

void query_json_begin(struct strbuf *out)
{
	strbuf_puts(out, "{\"status\":\"success\",\"data\":[");
}

int query_json_end(struct strbuf *out)
{
	strbuf_puts(out, "]}\n");
	return out->failed ? -E2BIG : 0;
}

/* -------- times -------- */

/* ".5", "Z", "+02:00" after the seconds. */
static int rest_read(const char *at, double *ret_seconds)
{
	int hours, minutes, n = 0;
	char *end = NULL, sign;

	*ret_seconds = 0;
	if (*at == '.') {
		*ret_seconds = strtod(at, &end);
		at = end;
	}
	if (str_equal(at, "Z") || str_equal(at, "z"))
		return 0;
	if (sscanf(at, "%c%2d:%2d%n", &sign, &hours, &minutes, &n) != 3 || at[n] || n != 6 ||
	    !strchr("+-", sign) || hours > 23 || minutes > 59)
		return -EINVAL;
	*ret_seconds += (sign == '+' ? -60 : 60) * (hours * 60 + minutes);
	return 0;
}

int query_time(const char *text, uint64_t *ret_ms)
{
	struct tm tm = {0};
	double seconds, rest;
	char *end;
	int n = 0;

	if (sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday,
		   &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &n) == 6 &&
	    n == 19) {
		tm.tm_year -= 1900;
		tm.tm_mon--;
		if (tm.tm_mon < 0 || tm.tm_mon > 11 || tm.tm_mday < 1 || tm.tm_mday > 31 ||
		    rest_read(text + n, &rest) < 0)
			return -EINVAL;
		seconds = (double)timegm(&tm) + rest;
	} else {
		/* Not what strtod takes besides: hexadecimal, names, blanks. */
		if (!*text || strspn(text, "0123456789.eE+-") != strlen(text))
			return -EINVAL;
		seconds = strtod(text, &end);
		if (*end)
			return -EINVAL;
	}
	if (!isfinite(seconds) || seconds < 0 || seconds > 1e12)
		return -EINVAL;
	*ret_ms = (uint64_t)llround(seconds * 1000);
	return 0;
}
