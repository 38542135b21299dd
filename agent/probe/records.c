/* SPDX-License-Identifier: Apache-2.0 */
/* The ring buffer of records, and what is read out of a slow request's. In the keeper. */
#include "probe/records.h"

#include "base/str.h"
#include "probe/set.h"

#include <errno.h>
#include <string.h>

static const char *const methods[HTTP_METHODS] = {
	[HTTP_GET] = "GET",         [HTTP_HEAD] = "HEAD",     [HTTP_POST] = "POST",
	[HTTP_PUT] = "PUT",         [HTTP_DELETE] = "DELETE", [HTTP_CONNECT] = "CONNECT",
	[HTTP_OPTIONS] = "OPTIONS", [HTTP_TRACE] = "TRACE",   [HTTP_PATCH] = "PATCH",
	[HTTP_OTHER] = "_OTHER",
};

/* Where the word ends that begins at `at`. */
static size_t word_end(const unsigned char *text, size_t at, size_t size)
{
	while (at < size && text[at] > ' ')
		at++;
	return at;
}

/* A method without a name of its own lies before the path, up to a space. */
static size_t method_read(const unsigned char *text, size_t size, char ret[PROBE_METHOD_BYTES])
{
	size_t end = word_end(text, 0, size);

	if (end == size || end >= PROBE_METHOD_BYTES)
		return end;
	for (size_t i = 0; i < end; i++)
		if ((text[i] < 'A' || text[i] > 'Z') && text[i] != '-' && text[i] != '_')
			return end + 1;
	memcpy(ret, text, end);
	ret[end] = '\0';
	return end + 1;
}

static void path_read(const unsigned char *text, size_t at, size_t size, bool is_query_wanted,
		      struct probe_slow *ret)
{
	static const char digits[] = "0123456789ABCDEF";
	size_t n = 0;

	for (; at < size && text[at] != ' ' && text[at] != '\r' && text[at] != '\n'; at++) {
		if (text[at] == '?' && !is_query_wanted)
			break;
		if (text[at] > ' ' && text[at] < 0x7f) {
			ret->path[n++] = (char)text[at];
		} else {
			ret->path[n++] = '%';
			ret->path[n++] = digits[text[at] >> 4];
			ret->path[n++] = digits[text[at] & 15];
		}
	}
	ret->path[n] = '\0';
	ret->is_cut = at >= size && n > 0;
}

static bool is_trace(const char *text)
{
	/* 00-32 digits-16 digits-2 digits, in small letters. */
	for (unsigned int i = 0; i < PROBE_TRACE_CHARS; i++) {
		bool is_dash = i == 2 || i == 35 || i == 52;
		char c = text[i];

		if (is_dash ? c != '-' : !((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
			return false;
	}
	return true;
}

static void trace_read(const char *text, size_t size, char ret[PROBE_TRACE_CHARS + 1])
{
	size_t at = 0;

	while (at < size && (text[at] == ' ' || text[at] == '\t'))
		at++;
	if (size - at < PROBE_TRACE_CHARS || !is_trace(text + at))
		return;
	memcpy(ret, text + at, PROBE_TRACE_CHARS);
	ret[PROBE_TRACE_CHARS] = '\0';
}

void probe_slow_read(const struct record *r, bool is_query_wanted, struct probe_slow *ret)
{
	const unsigned char *path = (const unsigned char *)r->path;
	unsigned int method = r->method & (PENDING_HEALTH - 1);
	size_t size = r->path_len, at = 0;

	*ret = (struct probe_slow){
		.gateway = r->gateway,
		.code = r->code,
		.is_health = r->method & PENDING_HEALTH,
		.is_upstream = r->flags & CONNECTION_UPSTREAM,
		.is_tls = r->flags & CONNECTION_TLS,
		.is_http2 = r->flags & CONNECTION_HTTP2,
		.end_mono_ns = r->end_ns,
		.duration_ns = r->duration_ns,
		.first_byte_ns = r->first_ns,
	};
	if (method >= HTTP_METHODS)
		method = HTTP_OTHER;
	str_copy(ret->method, sizeof(ret->method), methods[method]);
	if (size > sizeof(r->path))
		size = sizeof(r->path);
	if (method == HTTP_OTHER)
		at = method_read(path, size, ret->method);
	path_read(path, at, size, is_query_wanted, ret);
	trace_read((const char *)r->trace, sizeof(r->trace), ret->traceparent);
}

struct fetch {
	probe_slow_fn fn;
	void *data;
	unsigned int left;
};

static int on_record(void *ctx, void *data, size_t size)
{
	struct probe_set *set = ctx;
	struct fetch *f = set->fetch;
	const struct record *r = data;
	struct probe_slow slow;

	if (!f || size < sizeof(*r) || r->kind != RECORD_SLOW)
		return 0;
	probe_slow_read(r, set->is_query_wanted, &slow);
	f->fn(f->data, &slow);
	/* This one counts as fetched; the others wait. */
	return --f->left ? 0 : -EAGAIN;
}

/* That it is there is all that it says. */
static int on_notice(void *ctx, void *data, size_t size)
{
	(void)ctx;
	(void)data;
	(void)size;
	return 0;
}

int records_open(struct probe_set *set)
{
	set->ring = ring_buffer__new(set->records_fd, on_record, set, NULL);
	if (set->ring)
		set->notices = ring_buffer__new(set->notices_fd, on_notice, NULL, NULL);
	return set->notices ? 0 : -errno;
}

int probe_notice_fd(const struct probe_set *set)
{
	return ring_buffer__epoll_fd(set->notices);
}

bool probe_notices(struct probe_set *set)
{
	return ring_buffer__consume(set->notices) > 0;
}

unsigned int probe_slow_each(struct probe_set *set, unsigned int most, probe_slow_fn fn, void *data)
{
	struct fetch f = {fn, data, most};

	if (!set->ring || !most)
		return 0;
	set->fetch = &f;
	ring_buffer__consume(set->ring);
	set->fetch = NULL;
	return most - f.left;
}

void probe_slow_refuse(struct probe_set *set, unsigned int n)
{
	__atomic_fetch_add(&set->control->lost[LOST_RECORDS], n, __ATOMIC_RELAXED);
}
