/* SPDX-License-Identifier: Apache-2.0 */
/* Streams a file of records through one window, so that a log of any size costs the same memory. */
#include "fleet/logread.h"

#include "base/cleanup.h"
#include "base/crc32c.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define WINDOW_BYTES (COMMITLOG_RECORD_MAX * 2 + LOGREAD_HEADER_BYTES)

struct window {
	int fd;
	uint64_t offset; /* in the file, of data[0] */
	size_t size;     /* bytes there */
	bool is_end;
	uint64_t limit; /* nothing but zeros from here on */
	uint8_t *data;
};

static void put_u32(uint8_t *p, uint32_t v)
{
	for (int i = 0; i < 4; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

static uint32_t get_u32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint32_t record_crc(const uint8_t *record, uint32_t size)
{
	return crc32c(crc32c(0, record + 4, 8), record + LOGREAD_HEADER_BYTES, size);
}

void logread_seal(uint8_t *record, uint32_t type, uint32_t size)
{
	put_u32(record, LOGREAD_MAGIC);
	put_u32(record + 4, type);
	put_u32(record + 8, size);
	put_u32(record + 12, record_crc(record, size));
}

static int window_fill(struct window *w, size_t want)
{
	while (w->size < want && !w->is_end) {
		uint64_t from = w->offset + w->size;
		size_t most = WINDOW_BYTES - w->size;
		ssize_t n;

		if (from >= w->limit)
			most = 0;
		else if (w->limit - from < most)
			most = (size_t)(w->limit - from);
		n = pread(w->fd, w->data + w->size, most, (off_t)from);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			w->is_end = true;
		w->size += (size_t)n;
	}
	return 0;
}

static void window_drop(struct window *w, size_t n)
{
	memmove(w->data, w->data + n, w->size - n);
	w->size -= n;
	w->offset += n;
}

/* Bytes of the whole record at data + at; 0 when there is none. */
static size_t record_at(struct window *w, size_t at)
{
	const uint8_t *p = w->data + at;
	uint32_t size;

	if (w->size - at < LOGREAD_HEADER_BYTES || get_u32(p) != LOGREAD_MAGIC)
		return 0;
	size = get_u32(p + 8);
	if (size > COMMITLOG_RECORD_MAX || w->size - at - LOGREAD_HEADER_BYTES < size ||
	    record_crc(p, size) != get_u32(p + 12))
		return 0;
	return LOGREAD_HEADER_BYTES + size;
}

/* Keeps what is being skipped for a later look; failing to is no reason to stop. */
static void keep_bad(int dir_fd, const char *name, const uint8_t *data, size_t size)
{
	_cleanup_close_ int fd = -1;
	char bad[128];

	snprintf(bad, sizeof(bad), "%s.bad", name);
	fd = openat(dir_fd, bad, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd >= 0 && write(fd, data, size) < 0)
		return;
}

/* Where the next whole record begins after a bad place at data[0]: moves the window there. False
 * when the file holds none; *ret_skipped says how many bytes were passed. */
static int resync(struct window *w, int keep_fd, const char *name, bool *ret_found,
		  uint64_t *ret_skipped)
{
	uint64_t from = w->offset;
	size_t at = 1;
	int r;

	*ret_found = false;
	for (;;) {
		r = window_fill(w, WINDOW_BYTES);
		if (r < 0)
			return r;
		for (; at < w->size && (w->is_end || at <= COMMITLOG_RECORD_MAX); at++) {
			if (!record_at(w, at))
				continue;
			*ret_found = true;
			break;
		}
		if (*ret_found || w->is_end)
			break;
		if (keep_fd >= 0)
			keep_bad(keep_fd, name, w->data, at);
		window_drop(w, at);
		at = 0;
	}
	if (*ret_found) {
		if (keep_fd >= 0)
			keep_bad(keep_fd, name, w->data, at);
		window_drop(w, at);
	}
	*ret_skipped = (*ret_found ? w->offset : w->offset + w->size) - from;
	return 0;
}

/* Where the zeros begin that were written ahead. A record may end with zeros, too. */
static int content_end(int fd, uint64_t *ret_size, uint64_t *ret_end)
{
	uint8_t block[4096];
	struct stat st;
	uint64_t end;

	if (fstat(fd, &st) < 0)
		return -errno;
	*ret_size = end = (uint64_t)st.st_size;
	while (end) {
		size_t n = end % sizeof(block) ? end % sizeof(block) : sizeof(block);
		ssize_t got = pread(fd, block, n, (off_t)(end - n));

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -errno;
		if ((size_t)got < n)
			return -EIO;
		for (; n && !block[n - 1]; n--)
			end--;
		if (n)
			break;
	}
	*ret_end = end;
	return 0;
}

int logread_file(int dir_fd, const char *name, bool is_snapshot, commitlog_record_fn fn, void *data,
		 struct logread_result *ret)
{
	_cleanup_free_ uint8_t *buffer = malloc(WINDOW_BYTES);
	_cleanup_close_ int fd = -1;
	struct window w = {.data = buffer};
	uint64_t file_end, end = 0;
	size_t at = 0;
	int r;

	*ret = (struct logread_result){.is_whole = !is_snapshot};
	if (!buffer)
		return -ENOMEM;
	fd = openat(dir_fd, name, (fn ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	w.fd = fd;
	r = content_end(fd, &file_end, &end);
	if (r < 0)
		return r;
	/* No record that ends with zeros is longer. */
	w.limit = end + LOGREAD_HEADER_BYTES + COMMITLOG_RECORD_MAX;
	for (;;) {
		uint64_t start, skipped;
		bool found;
		size_t size;

		if (w.size - at < LOGREAD_HEADER_BYTES + COMMITLOG_RECORD_MAX) {
			window_drop(&w, at);
			at = 0;
			r = window_fill(&w, LOGREAD_HEADER_BYTES + COMMITLOG_RECORD_MAX);
			if (r < 0)
				return r;
		}
		if (at == w.size)
			return 0;
		size = record_at(&w, at);
		if (size) {
			uint32_t type = get_u32(w.data + at + 4);
			const uint8_t *payload = w.data + at + LOGREAD_HEADER_BYTES;

			if (type == LOGREAD_TYPE_END) {
				uint64_t records = 0;

				if (size == LOGREAD_HEADER_BYTES + sizeof(records))
					memcpy(&records, payload, sizeof(records));
				if (!ret->damaged_bytes)
					ret->is_whole = records == ret->records;
				return 0;
			}
			ret->records++;
			if (fn && fn(data, type, payload, size - LOGREAD_HEADER_BYTES) == -ENOMEM)
				return -ENOMEM;
			at += size;
			continue;
		}
		window_drop(&w, at);
		at = 0;
		start = w.offset;
		if (start >= end && !is_snapshot)
			return fn && start < file_end && ftruncate(fd, (off_t)start) < 0 ? -errno
											 : 0;
		r = resync(&w, fn && !is_snapshot ? dir_fd : -1, name, &found, &skipped);
		if (r < 0)
			return r;
		ret->is_whole = false;
		if (found) {
			ret->damaged_bytes += skipped;
			continue;
		}
		ret->torn_bytes += start + skipped < end ? skipped : end - start;
		if (fn && !is_snapshot && ftruncate(fd, (off_t)start) < 0)
			return -errno;
		return 0;
	}
}
