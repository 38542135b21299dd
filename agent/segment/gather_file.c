/* SPDX-License-Identifier: Apache-2.0 */
/* What gather_file.h says. */
#include "segment/gather_file.h"

#include "base/cleanup.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIFE_DIGITS 16

/* All of it or -EBADMSG (the file is shorter). */
static int read_at(int fd, void *buf, size_t size, uint64_t offset)
{
	size_t got = 0;

	while (got < size) {
		ssize_t n = pread(fd, (char *)buf + got, size - got, (off_t)(offset + got));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EBADMSG;
		got += (size_t)n;
	}
	return 0;
}

static int room_read(struct gather_room *room, int fd, size_t size, uint64_t offset, struct err *e)
{
	int r;

	if (size > room->size) {
		void *data = malloc(size);

		if (!data)
			return -ENOMEM;
		free(room->data);
		*room = (struct gather_room){data, size};
	}
	r = read_at(fd, room->data, size, offset);
	return r < 0 ? err_set(e, r, "it became shorter while it was read") : 0;
}

bool gather_file_named(const char *name)
{
	size_t digits = strspn(name, "0123456789");

	if (!digits || digits > 10 || name[digits] != '-')
		return false;
	name += digits + 1;
	return strspn(name, "0123456789abcdef") == LIFE_DIGITS &&
	       str_equal(name + LIFE_DIGITS, ".seg");
}

/* What a file of a process has beyond what holds for all segments. */
static int header_check(const struct segment_header *h, uint64_t file_bytes, uint64_t bytes_max,
			struct err *e)
{
	int r = segment_layout_check(h, file_bytes, e);

	if (r < 0)
		return r;
	if (h->kind != SEGMENT_PROCESS)
		return err_set(e, -EBADMSG, "segment of kind %u", h->kind);
	if (h->total_bytes > bytes_max)
		return err_set(e, -EBADMSG, "segment of %llu bytes, the limit is %llu",
			       (unsigned long long)h->total_bytes, (unsigned long long)bytes_max);
	if (h->gateways_capacity || h->epoch || h->tick_seq || h->maps_id)
		return err_set(e, -EBADMSG, "damaged segment: not as a process writes it");
	return 0;
}

int gather_file_open(int dir, const char *name, uint64_t bytes_max, struct gather_file *ret,
		     struct err *e)
{
	/* Not blocking: neither a fifo nor its owner's lease may hold us up. */
	_cleanup_close_ int fd =
		openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	char expected[GATHER_FILE_NAME];
	struct gather_file f = {.overflow = INT32_MIN};
	struct stat st;
	int r;

	if (fd < 0)
		return errno == EMFILE || errno == ENFILE ? -errno : -ENOENT;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return -ENOENT;
	str_copy(f.name, sizeof(f.name), name);
	f.dev = st.st_dev;
	f.inode = st.st_ino;
	f.uid = st.st_uid;
	f.fd = TAKE_FD(fd);
	if (st.st_size < SEGMENT_HEADER_BYTES)
		r = err_set(e, -EBADMSG, "not a segment (%lld bytes)", (long long)st.st_size);
	else
		r = read_at(f.fd, &f.h, sizeof(f.h), 0);
	if (r == 0)
		r = header_check(&f.h, (uint64_t)st.st_size, bytes_max, e);
	snprintf(expected, sizeof(expected), "%" PRIu32 "-%016" PRIx64 ".seg", f.h.writer_pid,
		 f.h.life);
	/* So no copy and no second link of a file counts beside it. */
	if (r == 0 && (!f.h.life || !str_equal(name, expected)))
		r = err_set(e, -EBADMSG, "it belongs under the name %s", expected);
	*ret = f;
	return r;
}

void gather_file_close(struct gather_file *f)
{
	if (f->fd >= 0)
		close(f->fd);
	free(f->entries);
	*f = (struct gather_file){.fd = -1};
}

bool gather_file_has_writer(const struct gather_file *f)
{
	if (flock(f->fd, LOCK_EX | LOCK_NB) < 0)
		return true;
	flock(f->fd, LOCK_UN);
	return false;
}

static bool is_same_layout(const struct segment_header *a, const struct segment_header *b)
{
	return a->total_bytes == b->total_bytes && a->writer_pid == b->writer_pid &&
	       a->writer_parent == b->writer_parent && a->life == b->life &&
	       a->directory_offset == b->directory_offset &&
	       a->directory_capacity == b->directory_capacity && a->heap_offset == b->heap_offset &&
	       a->heap_capacity == b->heap_capacity && a->cells_offset == b->cells_offset &&
	       a->cells_capacity == b->cells_capacity;
}

int gather_file_refresh(struct gather_file *f, struct err *e)
{
	struct segment_header h;
	uint32_t count;
	struct stat st;
	int r;

	if (fstat(f->fd, &st) < 0)
		return err_set(e, -errno, "%s", err_text(-errno));
	r = read_at(f->fd, &h, sizeof(h), 0);
	count = h.directory_count;
	/* What the entries need was written before their number: so it is read after it. */
	if (r == 0 && count != f->h.directory_count)
		r = read_at(f->fd, &h, sizeof(h), 0);
	if (r < 0)
		return err_set(e, -EBADMSG, "it became shorter");
	h.directory_count = count;
	r = header_check(&h, (uint64_t)st.st_size, h.total_bytes, e);
	if (r < 0)
		return r;
	if (!is_same_layout(&h, &f->h) || h.directory_count < f->h.directory_count ||
	    h.heap_used < f->h.heap_used || h.cells_used < f->h.cells_used)
		return err_set(e, -EBADMSG, "damaged segment: its layout changed");
	f->h = h;
	return 0;
}

int gather_file_entries(const struct gather_file *f, struct gather_room *entries,
			struct gather_room *heap, uint32_t *n, struct segment_view *ret,
			struct err *e)
{
	uint32_t count = f->h.directory_count - f->entries_known;
	int r;

	count = count < *n ? count : *n;
	r = room_read(entries, f->fd, count * sizeof(struct segment_entry),
		      f->h.directory_offset +
			      (uint64_t)f->entries_known * sizeof(struct segment_entry),
		      e);
	if (r == 0)
		r = room_read(heap, f->fd, f->h.heap_used, f->h.heap_offset, e);
	if (r < 0)
		return r;
	*n = count;
	*ret = (struct segment_view){
		.kind = SEGMENT_PROCESS,
		.heap = heap->data,
		.heap_used = f->h.heap_used,
		.cells_used = f->h.cells_used,
	};
	return 0;
}

int gather_file_cells(const struct gather_file *f, struct gather_room *cells, struct err *e)
{
	return room_read(cells, f->fd, f->granted_cells * sizeof(uint64_t), f->h.cells_offset, e);
}
