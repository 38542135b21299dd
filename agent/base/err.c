/* SPDX-License-Identifier: Apache-2.0 */
/* Error text. No state; used by every process. */
#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int(err_set)(struct err *e, int r, const char *fmt, ...)
{
	char inner[sizeof(e->text)];
	va_list ap;
	int n;

	if (!e)
		return r;
	memcpy(inner, e->text, sizeof(inner));
	va_start(ap, fmt);
	n = vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	if (n < 0)
		n = 0;
	if (inner[0] && (size_t)n + 2 < sizeof(e->text))
		snprintf(e->text + n, sizeof(e->text) - (size_t)n, ": %.*s",
			 (int)(sizeof(e->text) - (size_t)n - 3), inner);
	return r;
}

void err_clear(struct err *e)
{
	if (e)
		e->text[0] = '\0';
}

const char *err_text(int r)
{
	const char *s = strerrordesc_np(r < 0 ? -r : r);

	return s ? s : "unknown error";
}

void err_check_failed(const char *cond, const char *file, int line)
{
	fprintf(stderr, "error check %s file=%s line=%d\n", cond, file, line);
	abort();
}
