/* SPDX-License-Identifier: Apache-2.0 */
/* Appending side of the commit log: files, group commit, folding. Reading is in logread.c. Owned by
 * the aggregator's core. */
#include "fleet/commitlog.h"

#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/str.h"
#include "fleet/logread.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define RESERVE_BYTES (4u << 20)
#define RESERVE_LOW   (RESERVE_BYTES / 4) /* less ahead than that: time for more */
#define PENDING_MAX   (64u << 20)
#define WRITER_BUFFER (1u << 20)

struct commitlog {
	char dir[PATH_MAX - 64];
	int fd, dir_fd;
	uint64_t number;
	uint64_t reserved; /* bytes from the start of the file that have disk space */
	uint64_t zeroed;   /* bytes from the start that were written, if only with zeros */
	uint8_t *pending;
	size_t pending_size, pending_capacity;
	uint64_t pending_records;
	bool is_stuck;
	struct commitlog_stats stats;
};

struct commitlog_writer {
	int fd;
	int r; /* first failure; later calls do nothing */
	uint8_t *buffer;
	size_t used;
	uint64_t records;
};

static void name_log(char *buf, size_t size, uint64_t number)
{
	snprintf(buf, size, "commit.%" PRIu64 ".log", number);
}

static void name_snapshot(char *buf, size_t size, uint64_t number)
{
	snprintf(buf, size, "snapshot.%" PRIu64, number);
}

static int write_all_at(int fd, const uint8_t *data, size_t size, uint64_t offset)
{
	while (size) {
		ssize_t n = pwrite(fd, data, size, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		data += n;
		size -= (size_t)n;
		offset += (uint64_t)n;
	}
	return 0;
}

static int log_create(struct commitlog *log, uint64_t number)
{
	_cleanup_close_ int fd = -1;
	char name[64];

	name_log(name, sizeof(name), number);
	fd = openat(log->dir_fd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, 0) < 0 || fsync(log->dir_fd) < 0)
		return -errno;
	if (log->fd >= 0)
		close(log->fd);
	log->fd = TAKE_FD(fd);
	log->number = number;
	log->stats.bytes = 0;
	log->reserved = 0;
	log->zeroed = 0;
	return 0;
}

/* "commit.12.log" or "snapshot.12": its number, else false. */
static bool name_parse(const char *name, const char *prefix, const char *suffix, uint64_t *ret)
{
	char digits[24];
	size_t len = strlen(name), fixed = strlen(prefix) + strlen(suffix);

	if (len <= fixed || len - fixed >= sizeof(digits) || !str_starts(name, prefix) ||
	    !str_ends(name, suffix))
		return false;
	memcpy(digits, name + strlen(prefix), len - fixed);
	digits[len - fixed] = '\0';
	return str_to_u64(digits, ret) == 0 && *ret < UINT64_MAX;
}

struct numbers {
	uint64_t *items;
	size_t count;
};

static int number_compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* All numbers of files of one kind, ascending. The caller frees items. */
static int numbers_list(const char *dir, const char *prefix, const char *suffix,
			struct numbers *ret)
{
	_cleanup_dir_ DIR *d = opendir(dir);
	_cleanup_free_ uint64_t *items = NULL;
	size_t count = 0, capacity = 0;
	struct dirent *entry;

	if (!d)
		return -errno;
	while ((entry = readdir(d))) {
		uint64_t number;

		if (!name_parse(entry->d_name, prefix, suffix, &number))
			continue;
		if (count == capacity) {
			uint64_t *more;

			capacity = capacity ? capacity * 2 : 16;
			more = realloc(items, capacity * sizeof(*items));
			if (!more)
				return -ENOMEM;
			items = more;
		}
		items[count++] = number;
	}
	if (count)
		qsort(items, count, sizeof(*items), number_compare);
	ret->items = TAKE_PTR(items);
	ret->count = count;
	return 0;
}

static void files_remove(struct commitlog *log, const char *prefix, const char *suffix,
			 uint64_t below)
{
	struct numbers n = {0};
	char name[64];

	if (numbers_list(log->dir, prefix, suffix, &n) < 0)
		return;
	for (size_t i = 0; i < n.count && n.items[i] < below; i++) {
		snprintf(name, sizeof(name), "%s%" PRIu64 "%s", prefix, n.items[i], suffix);
		unlinkat(log->dir_fd, name, 0);
	}
	free(n.items);
}

static int replay_file(struct commitlog *log, const char *name, bool is_snapshot,
		       commitlog_record_fn fn, void *data, struct logread_result *ret)
{
	int r = logread_file(log->dir_fd, name, is_snapshot, fn, data, ret);

	if (r < 0)
		return r;
	log->stats.replayed += ret->records;
	log->stats.torn_bytes += ret->torn_bytes;
	log->stats.damaged_bytes += ret->damaged_bytes;
	if (ret->damaged_bytes)
		log->stats.damaged_files++;
	return 0;
}

/* What a bad disk or a strange file gives. All else (permission, descriptors, memory) is no reason
 * to begin without what the file holds. */
static bool is_damage(int r)
{
	return r == -EIO || r == -ELOOP || r == -EISDIR || r == -EBADMSG;
}

/* The newest snapshot that is whole; a snapshot is looked through before any of it is believed. */
static int replay_snapshot(struct commitlog *log, commitlog_record_fn fn, void *data,
			   uint64_t *ret_number)
{
	struct numbers n = {0};
	int r = numbers_list(log->dir, "snapshot.", "", &n);

	if (r < 0)
		return r;
	*ret_number = 0;
	for (size_t i = n.count; i-- > 0 && r >= 0 && !*ret_number;) {
		struct logread_result result = {0};
		char name[64], bad[80];

		name_snapshot(name, sizeof(name), n.items[i]);
		r = logread_file(log->dir_fd, name, true, NULL, NULL, &result);
		if (r == 0 && result.is_whole) {
			r = replay_file(log, name, true, fn, data, &result);
			*ret_number = n.items[i];
			break;
		}
		if (r < 0 && !is_damage(r))
			break;
		r = 0;
		log->stats.damaged_files++;
		snprintf(bad, sizeof(bad), "%s.bad", name);
		renameat(log->dir_fd, name, log->dir_fd, bad);
	}
	free(n.items);
	return r;
}

static int replay_all(struct commitlog *log, commitlog_record_fn fn, void *data)
{
	struct numbers n = {0};
	uint64_t snapshot;
	int r = replay_snapshot(log, fn, data, &snapshot);

	if (r < 0)
		return r;
	log->number = snapshot;
	r = numbers_list(log->dir, "commit.", ".log", &n);
	for (size_t i = 0; r >= 0 && i < n.count; i++) {
		struct logread_result result = {0};
		char name[64];

		if (n.items[i] < snapshot)
			continue;
		name_log(name, sizeof(name), n.items[i]);
		r = replay_file(log, name, false, fn, data, &result);
		if (r < 0 && is_damage(r)) {
			log->stats.damaged_files++;
			r = 0;
		}
		log->number = n.items[i];
	}
	free(n.items);
	return r < 0 ? r : 0;
}

/* Goes on in the last log when it is whole; behind a damaged place a new file begins. */
static int log_continue(struct commitlog *log)
{
	char name[64];
	struct stat st;

	name_log(name, sizeof(name), log->number);
	log->fd = openat(log->dir_fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (log->fd < 0)
		return log_create(log, log->number + (errno != ENOENT));
	if (fstat(log->fd, &st) < 0)
		return -errno;
	log->stats.bytes = (uint64_t)st.st_size;
	log->reserved = log->stats.bytes;
	log->zeroed = log->stats.bytes;
	return 0;
}

struct commitlog *commitlog_close(struct commitlog *log)
{
	if (!log)
		return NULL;
	/* Zeros ahead are no harm, if they stay. */
	if (log->fd >= 0 && log->zeroed > log->stats.bytes &&
	    ftruncate(log->fd, (off_t)log->stats.bytes) < 0)
		log->zeroed = 0;
	if (log->fd >= 0)
		close(log->fd);
	if (log->dir_fd >= 0)
		close(log->dir_fd);
	free(log->pending);
	free(log);
	return NULL;
}

DEFINE_CLEANUP(struct commitlog *, commitlog_close)

int commitlog_open(const char *dir, commitlog_record_fn fn, void *data, struct commitlog **ret,
		   struct err *e)
{
	_cleanup_(commitlog_close_p) struct commitlog *log = calloc(1, sizeof(*log));
	int r;

	if (!log)
		return -ENOMEM;
	log->fd = -1;
	log->dir_fd = -1;
	if (!str_copy(log->dir, sizeof(log->dir), dir))
		return err_set(e, -ENAMETOOLONG, "data directory %s: name too long", dir);
	log->dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (log->dir_fd < 0) {
		r = -errno;
		return err_set(e, r,
			       "data directory %s cannot be opened: %s; create it and give it "
			       "to the core's user",
			       dir, err_text(r));
	}
	unlinkat(log->dir_fd, "snapshot.new", 0);
	r = replay_all(log, fn, data);
	if (r < 0)
		return err_set(e, r,
			       "commit log in %s cannot be replayed: %s; give its files to the "
			       "core's user",
			       dir, err_text(r));
	r = log_continue(log);
	if (r < 0)
		return err_set(e, r,
			       "commit log in %s cannot be opened for writing: %s; check owner "
			       "and free space",
			       dir, err_text(r));
	*ret = TAKE_PTR(log);
	return 0;
}

static int space_take(struct commitlog *log, uint64_t upto)
{
	if (fallocate(log->fd, FALLOC_FL_KEEP_SIZE, (off_t)log->stats.bytes,
		      (off_t)(upto - log->stats.bytes)) < 0)
		return -errno;
	log->reserved = upto;
	return 0;
}

/*
 * Overwriting what the file already has needs no entry in the file system's journal: fdatasync then
 * waits for the data alone, not for everybody else's files. So zeros are written ahead, now and
 * then; only they cost a journal's commit. A reader takes zeros to the end for the end.
 */
static void zeros_write(struct commitlog *log)
{
	static const uint8_t zeros[64 << 10];

	while (log->zeroed < log->reserved) {
		size_t n = log->reserved - log->zeroed < sizeof(zeros)
				   ? (size_t)(log->reserved - log->zeroed)
				   : sizeof(zeros);

		/* Without them commits are slower, that is all. */
		if (write_all_at(log->fd, zeros, n, log->zeroed) < 0)
			return;
		log->zeroed += n;
	}
}

int commitlog_reserve(struct commitlog *log, size_t size)
{
	uint64_t need = log->stats.bytes + log->pending_size + size + LOGREAD_HEADER_BYTES;
	int r;

	if (log->is_stuck || log->pending_size + size > PENDING_MAX)
		return -EAGAIN;
	if (need + RESERVE_LOW <= log->reserved)
		return 0;
	r = space_take(log, need + RESERVE_BYTES);
	if (r == 0) {
		if (log->zeroed < log->stats.bytes)
			log->zeroed = log->stats.bytes;
		zeros_write(log);
		return 0;
	}
	if (need <= log->reserved)
		return 0;
	/* Nearly full: what is needed alone may still fit. */
	if (r == -ENOSPC && space_take(log, need) == 0)
		return 0;
	/* Not every file system can; there the commit itself finds out. */
	return r == -ENOSPC || r == -EDQUOT || r == -EFBIG ? r : 0;
}

int commitlog_append(struct commitlog *log, uint32_t type, const struct iovec *parts, size_t n)
{
	size_t size = 0, need;
	uint8_t *at;

	for (size_t i = 0; i < n; i++)
		size += parts[i].iov_len;
	if (size > COMMITLOG_RECORD_MAX)
		return -EMSGSIZE;
	need = log->pending_size + LOGREAD_HEADER_BYTES + size;
	if (need > log->pending_capacity) {
		size_t capacity = log->pending_capacity ? log->pending_capacity : 1u << 16;
		uint8_t *pending;

		while (capacity < need)
			capacity *= 2;
		pending = realloc(log->pending, capacity);
		if (!pending)
			return -ENOMEM;
		log->pending = pending;
		log->pending_capacity = capacity;
	}
	at = log->pending + log->pending_size + LOGREAD_HEADER_BYTES;
	for (size_t i = 0; i < n; i++) {
		if (parts[i].iov_len)
			memcpy(at, parts[i].iov_base, parts[i].iov_len);
		at += parts[i].iov_len;
	}
	logread_seal(log->pending + log->pending_size, type, (uint32_t)size);
	log->pending_size = need;
	log->pending_records++;
	return 0;
}

int commitlog_commit(struct commitlog *log, struct err *e)
{
	int r;

	if (!log->pending_size)
		return 0;
	r = write_all_at(log->fd, log->pending, log->pending_size, log->stats.bytes);
	if (r >= 0 && fdatasync(log->fd) < 0)
		r = -errno;
	if (r < 0) {
		log->is_stuck = true;
		log->stats.failures++;
		return err_set(e, r,
			       "commit log in %s cannot be written: %s; nothing is acknowledged "
			       "until it can",
			       log->dir, err_text(r));
	}
	log->is_stuck = false;
	log->stats.bytes += log->pending_size;
	log->stats.records += log->pending_records;
	log->stats.commits++;
	log->pending_size = 0;
	log->pending_records = 0;
	return 0;
}

size_t commitlog_pending(const struct commitlog *log)
{
	return log->pending_size;
}

static int writer_flush(struct commitlog_writer *w)
{
	const uint8_t *p = w->buffer;
	size_t left = w->used;

	while (left) {
		ssize_t n = write(w->fd, p, left);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		left -= (size_t)n;
	}
	w->used = 0;
	return 0;
}

int commitlog_writer_add(struct commitlog_writer *w, uint32_t type, const void *payload,
			 size_t size)
{
	if (w->r < 0)
		return w->r;
	if (size > COMMITLOG_RECORD_MAX)
		return w->r = -EMSGSIZE;
	if (w->used + LOGREAD_HEADER_BYTES + size > WRITER_BUFFER + COMMITLOG_RECORD_MAX) {
		w->r = writer_flush(w);
		if (w->r < 0)
			return w->r;
	}
	if (size)
		memcpy(w->buffer + w->used + LOGREAD_HEADER_BYTES, payload, size);
	logread_seal(w->buffer + w->used, type, (uint32_t)size);
	w->used += LOGREAD_HEADER_BYTES + size;
	w->records++;
	return 0;
}

static int snapshot_write(struct commitlog *log, commitlog_fold_fn fn, void *data, uint64_t number)
{
	_cleanup_free_ uint8_t *buffer =
		malloc(WRITER_BUFFER + COMMITLOG_RECORD_MAX + 2 * LOGREAD_HEADER_BYTES);
	_cleanup_close_ int fd = -1;
	struct commitlog_writer w = {.buffer = buffer};
	uint64_t records;
	char name[64];
	int r;

	if (!buffer)
		return -ENOMEM;
	fd = openat(log->dir_fd, "snapshot.new",
		    O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	w.fd = fd;
	r = fn(data, &w);
	if (r >= 0)
		r = w.r;
	records = w.records;
	if (r >= 0)
		r = commitlog_writer_add(&w, LOGREAD_TYPE_END, &records, sizeof(records));
	if (r >= 0)
		r = writer_flush(&w);
	if (r >= 0 && fsync(fd) < 0)
		r = -errno;
	name_snapshot(name, sizeof(name), number);
	if (r >= 0 && renameat(log->dir_fd, "snapshot.new", log->dir_fd, name) < 0)
		r = -errno;
	if (r >= 0 && fsync(log->dir_fd) < 0)
		r = -errno;
	if (r < 0)
		unlinkat(log->dir_fd, "snapshot.new", 0);
	return r;
}

int commitlog_fold(struct commitlog *log, commitlog_fold_fn fn, void *data, struct err *e)
{
	uint64_t number = log->number + 1;
	int r;

	if (log->pending_size)
		return -EBUSY;
	/* The new log comes first: what is committed from here on must lie above the snapshot. If
	 * the snapshot then fails, the old files and the new log together are still everything. */
	r = log_create(log, number);
	if (r >= 0)
		r = snapshot_write(log, fn, data, number);
	if (r < 0)
		return err_set(e, r, "commit log in %s cannot be folded: %s; it goes on growing",
			       log->dir, err_text(r));
	log->stats.folds++;
	files_remove(log, "commit.", ".log", number);
	files_remove(log, "snapshot.", "", number);
	return 0;
}

const struct commitlog_stats *commitlog_stats(const struct commitlog *log)
{
	return &log->stats;
}
