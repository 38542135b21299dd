/* SPDX-License-Identifier: Apache-2.0 */
/* Spool: its files, its bounds, its memory for when the disk refuses. One process, one thread. */
#include "bus/spool.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/str.h"
#include "bus/spool_state.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#define RESERVE_SEQUENCES 65536u
#define FILE_BYTES_LEAST  (64u << 10)
#define FILE_BYTES_MOST   (4u << 20)

const char *const spool_drop_reasons[SPOOL_DROPS] = {"bytes", "age",     "memory", "damaged",
						     "lost",  "refused", "unknown"};

static void file_name(uint64_t number, char name[32])
{
	snprintf(name, 32, "%016" PRIx64 ".frames", number);
}

void spool_file_walk(struct spool *s, const struct spool_file *f,
		     void (*fn)(void *data, const struct spool_file *f,
				const struct spool_record_header *h),
		     void *data, uint64_t *ret_damaged)
{
	off_t offset = sizeof(struct spool_file_header);
	struct spool_record_header h;
	uint64_t skipped;

	*ret_damaged = 0;
	for (;;) {
		offset = spool_file_next(f->fd, offset, (off_t)f->bytes, &h, s->scratch, &skipped);
		*ret_damaged += skipped > 0;
		if (offset <= 0)
			return;
		fn(data, f, &h);
		offset += (off_t)(sizeof(h) + h.length);
	}
}

struct scan {
	struct spool_file *file;
	uint64_t end; /* behind the last whole record */
};

static void scan_record(void *data, const struct spool_file *f, const struct spool_record_header *h)
{
	struct scan *scan = data;

	(void)f;
	if (h->sequence > scan->file->last) {
		scan->file->last = h->sequence;
		scan->file->last_time_ms = h->time_ms;
	}
	if (h->sequence < scan->file->first)
		scan->file->first = h->sequence;
	scan->end += sizeof(*h) + h->length;
}

static void file_forget(struct spool *s, unsigned int i)
{
	close(s->files[i].fd);
	s->stats.disk_bytes -= s->files[i].bytes;
	memmove(&s->files[i], &s->files[i + 1], (s->file_count - i - 1) * sizeof(s->files[0]));
	s->file_count--;
}

static void file_remove(struct spool *s, unsigned int i)
{
	char name[32];

	file_name(s->files[i].number, name);
	unlinkat(s->dir_fd, name, 0);
	file_forget(s, i);
}

/* Takes in a file of an earlier process. */
static void file_adopt(struct spool *s, uint64_t number)
{
	struct spool_file *f = &s->files[s->file_count];
	struct spool_file_header header;
	char name[32], bad[40];
	uint64_t damaged;
	struct scan scan = {.file = f, .end = sizeof(header)};
	struct stat st;

	file_name(number, name);
	*f = (struct spool_file){.number = number};
	f->fd = openat(s->dir_fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (f->fd < 0 || fstat(f->fd, &st) < 0 || spool_file_read_header(f->fd, &header) < 0) {
		snprintf(bad, sizeof(bad), "%s.bad", name);
		renameat(s->dir_fd, name, s->dir_fd, bad);
		s->stats.bad_files++;
		if (f->fd >= 0)
			close(f->fd);
		return;
	}
	memcpy(f->incarnation, header.incarnation, sizeof(f->incarnation));
	f->bytes = (uint64_t)st.st_size;
	f->first = UINT64_MAX;
	spool_file_walk(s, f, scan_record, &scan, &damaged);
	if (damaged == 1 && scan.end < f->bytes) {
		/* One stretch: a torn tail if it is at the end, which ends where records do. */
		struct scan again = {.file = f, .end = sizeof(header)};
		uint64_t still, bytes = f->bytes;

		f->bytes = scan.end;
		spool_file_walk(s, f, scan_record, &again, &still);
		if (again.end == scan.end && ftruncate(f->fd, (off_t)scan.end) == 0)
			damaged = 0;
		else
			f->bytes = bytes;
	}
	s->stats.damaged_places += damaged;
	if (!f->last)
		f->first = header.first_sequence;
	s->stats.disk_bytes += f->bytes;
	s->file_count++;
	if (memcmp(f->incarnation, s->identity.incarnation, sizeof(f->incarnation)) == 0) {
		uint64_t next = f->last ? f->last + 1 : header.first_sequence;

		if (next > s->next_sequence)
			s->next_sequence = next;
	}
}

static int compare_numbers(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

/* Numbers of all frame files, ascending; the newest when there are too many. */
static unsigned int files_list(int dir_fd, uint64_t numbers[SPOOL_FILES_MAX - 1])
{
	unsigned int n = 0, most = SPOOL_FILES_MAX - 1;
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_cleanup_dir_ DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (!dir) {
		if (fd >= 0)
			close(fd);
		return 0;
	}
	while ((entry = readdir(dir))) {
		char name[32], *end;
		uint64_t number = strtoull(entry->d_name, &end, 16);

		file_name(number, name);
		if (!str_equal(entry->d_name, name))
			continue;
		if (n == most) {
			qsort(numbers, n, sizeof(numbers[0]), compare_numbers);
			if (number <= numbers[0])
				continue;
			numbers[0] = number;
			continue;
		}
		numbers[n++] = number;
	}
	qsort(numbers, n, sizeof(numbers[0]), compare_numbers);
	return n;
}

static int open_dir(struct spool *s, const struct spool_options *o, const uint8_t boot_id[16],
		    struct err *e)
{
	const char *path = o->dir;
	uint64_t numbers[SPOOL_FILES_MAX - 1];
	unsigned int n;
	int r;

	if (mkdir(path, 0750) < 0 && errno != EEXIST)
		return err_set(e, -errno, "spool: cannot make %s: %s", path, strerror(errno));
	s->dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->dir_fd < 0)
		return err_set(e, -errno, "spool: cannot open %s: %s", path, strerror(errno));
	r = spool_slots_open(&s->identity_slots, s->dir_fd, "incarnation", SPOOL_IDENTITY_MAGIC,
			     sizeof(s->identity), &s->identity);
	if (r < 0)
		return err_set(e, r, "spool: cannot open %s/incarnation: %s", path, err_text(r));
	spool_identity_choose(s, o, boot_id, r == 1);
	n = files_list(s->dir_fd, numbers);
	for (unsigned int i = 0; i < n; i++)
		file_adopt(s, numbers[i]);
	s->next_number = n ? numbers[n - 1] + 1 : 1;
	/* A lost file may have held the highest sequence. */
	if (s->is_continued && s->stats.bad_files && !s->has_twin)
		spool_identity_begin(s, boot_id);
	r = spool_slots_write(&s->identity_slots, &s->identity);
	if (r < 0)
		return err_set(e, r, "spool: cannot write %s/incarnation: %s", path, err_text(r));
	spool_twin_save(s);
	return 0;
}

static void close_dir(struct spool *s)
{
	while (s->file_count)
		file_forget(s, s->file_count - 1);
	spool_slots_close(&s->identity_slots);
	if (s->dir_fd >= 0)
		close(s->dir_fd);
	s->dir_fd = -1;
}

int spool_open(const struct spool_options *options, struct spool **ret, struct err *e)
{
	struct spool *s = calloc(1, sizeof(*s));
	uint8_t boot_id[16] = {0};
	int r;

	if (!s)
		return err_set(e, -ENOMEM, "spool: out of memory");
	s->scratch = malloc(FRAME_SEALED_MAX);
	if (!s->scratch) {
		free(s);
		return err_set(e, -ENOMEM, "spool: out of memory");
	}
	s->dir_fd = s->identity_slots.fd = s->twin_slots.fd = s->twin_dir_fd = -1;
	s->limit_bytes = options->bytes;
	s->limit_age_ns = options->age_ns;
	s->file_bytes = options->bytes / 32;
	if (s->file_bytes > FILE_BYTES_MOST)
		s->file_bytes = FILE_BYTES_MOST;
	if (s->file_bytes < FILE_BYTES_LEAST)
		s->file_bytes = FILE_BYTES_LEAST;
	spool_identity_boot(options, boot_id);
	r = open_dir(s, options, boot_id, e);
	if (r < 0) {
		close_dir(s);
		if (!s->next_sequence)
			spool_identity_choose(s, options, boot_id, false);
		else if (s->twin_dir_fd < 0) /* nobody would know what we give from here on */
			spool_identity_begin(s, boot_id);
		spool_twin_save(s);
		s->stats.is_disk_failing = true;
	}
	*ret = s;
	return r < 0 ? 1 : 0;
}

static void memory_forget(struct spool *s, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		s->memory_bytes -= s->memory[i].size;
		free(s->memory[i].data);
	}
	memmove(s->memory, s->memory + n, (s->memory_count - n) * sizeof(s->memory[0]));
	s->memory_count -= n;
}

struct spool *spool_close(struct spool *s)
{
	if (!s)
		return NULL;
	CHECK(s->cursor_count == 0);
	memory_forget(s, s->memory_count);
	close_dir(s);
	spool_slots_close(&s->twin_slots);
	if (s->twin_dir_fd >= 0)
		close(s->twin_dir_fd);
	free(s->scratch);
	free(s);
	return NULL;
}

struct drop {
	struct spool *s;
	uint64_t lost;
};

static void drop_record(void *data, const struct spool_file *f, const struct spool_record_header *h)
{
	struct drop *drop = data;
	bool waited = drop->s->cursor_count == 0;

	for (unsigned int i = 0; i < drop->s->cursor_count; i++)
		waited |= spool_cursor_lost(drop->s->cursors[i], f->incarnation, h->sequence,
					    h->length);
	drop->lost += waited;
}

/* What is given up and counted must not be counted again by the next process. */
static void cursors_save(struct spool *s)
{
	for (unsigned int c = 0; c < s->cursor_count; c++)
		spool_cursor_save(s->cursors[c]);
}

/* Gives the oldest file up; returns how many frames somebody still waited for. */
static uint64_t file_drop(struct spool *s)
{
	struct drop drop = {.s = s};
	uint64_t damaged;

	spool_file_walk(s, &s->files[0], drop_record, &drop, &damaged);
	cursors_save(s);
	if (s->file_count == 1)
		s->has_current = false;
	file_remove(s, 0);
	return drop.lost;
}

static int file_create(struct spool *s, uint64_t first_sequence)
{
	struct spool_file *f;
	char name[32];
	int r;

	if (s->file_count == SPOOL_FILES_MAX)
		s->stats.dropped_bytes += file_drop(s);
	f = &s->files[s->file_count];
	*f = (struct spool_file){.number = s->next_number, .first = first_sequence};
	memcpy(f->incarnation, s->identity.incarnation, sizeof(f->incarnation));
	file_name(f->number, name);
	f->fd = openat(s->dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0640);
	if (f->fd < 0)
		return -errno;
	r = spool_file_write_header(f->fd, s->identity.incarnation, first_sequence);
	if (r < 0) {
		close(f->fd);
		unlinkat(s->dir_fd, name, 0);
		return r;
	}
	f->bytes = sizeof(struct spool_file_header);
	s->stats.disk_bytes += f->bytes;
	s->file_count++;
	s->next_number++;
	s->has_current = true;
	return 0;
}

static int disk_append(struct spool *s, uint64_t sequence, uint64_t time_ms, const uint8_t *data,
		       size_t size)
{
	size_t bytes = sizeof(struct spool_record_header) + size;
	struct spool_file *f;
	int r;

	if (s->dir_fd < 0)
		return -EROFS;
	if (!s->has_current || s->files[s->file_count - 1].bytes + bytes > s->file_bytes) {
		r = file_create(s, sequence);
		if (r < 0)
			return r;
	}
	while (s->stats.disk_bytes + bytes > s->limit_bytes && s->file_count > 1)
		s->stats.dropped_bytes += file_drop(s);
	f = &s->files[s->file_count - 1];
	r = spool_file_append(f->fd, (off_t)f->bytes, sequence, time_ms, data, size);
	if (r < 0)
		return r;
	f->bytes += bytes;
	f->last = sequence;
	f->last_time_ms = time_ms;
	s->stats.disk_bytes += bytes;
	return 0;
}

static void memory_drop(struct spool *s, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		bool waited = s->cursor_count == 0;

		for (unsigned int c = 0; c < s->cursor_count; c++)
			waited |= spool_cursor_lost(s->cursors[c], s->identity.incarnation,
						    s->memory[i].sequence, s->memory[i].size);
		s->stats.dropped_memory += waited;
	}
	cursors_save(s);
	memory_forget(s, n);
}

static int memory_append(struct spool *s, uint64_t time_ms, const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size);
	unsigned int n = 0;
	size_t bytes = s->memory_bytes + size;

	if (!copy)
		return -ENOMEM;
	memcpy(copy, data, size);
	while (n < s->memory_count &&
	       (bytes > SPOOL_MEMORY_BYTES || s->memory_count - n == SPOOL_MEMORY_FRAMES))
		bytes -= s->memory[n++].size;
	memory_drop(s, n);
	s->memory[s->memory_count++] = (struct spool_memory_frame){
		.sequence = s->next_sequence,
		.time_ms = time_ms,
		.data = copy,
		.size = size,
	};
	s->memory_bytes += size;
	/* What is in memory may be sent and lost: no later process may give its sequence again.
	 * Written in place, which a full disk allows. */
	if (s->next_sequence >= s->identity.reserved_sequence) {
		s->identity.reserved_sequence = s->next_sequence + RESERVE_SEQUENCES;
		spool_identity_save(s);
	}
	return 0;
}

/* What waited in memory goes to disk once that takes it again. */
static int memory_to_disk(struct spool *s)
{
	unsigned int n = 0;
	int r = 0;

	while (n < s->memory_count) {
		const struct spool_memory_frame *m = &s->memory[n];

		r = disk_append(s, m->sequence, m->time_ms, m->data, m->size);
		if (r < 0)
			break;
		n++;
	}
	memory_forget(s, n);
	return r;
}

static void drop_old(struct spool *s, uint64_t now_ms)
{
	uint64_t age_ms = s->limit_age_ns / NS_PER_MS;

	while (s->file_count > 1 && now_ms > age_ms && s->files[0].last_time_ms < now_ms - age_ms)
		s->stats.dropped_age += file_drop(s);
}

int spool_append(struct spool *s, uint64_t now_ms, const uint8_t *data, size_t size, struct err *e)
{
	int r, disk;

	if (!size || size > FRAME_SEALED_MAX)
		return err_set(e, -E2BIG, "spool: a frame of %zu bytes", size);
	drop_old(s, now_ms);
	disk = memory_to_disk(s);
	if (disk == 0)
		disk = disk_append(s, s->next_sequence, now_ms, data, size);
	s->stats.is_disk_failing = disk < 0;
	if (disk < 0) {
		err_set(e, disk, "spool: cannot write: %s; keeping frames in memory",
			err_text(disk));
		r = memory_append(s, now_ms, data, size);
		if (r < 0)
			return r;
	}
	s->next_sequence++;
	spool_twin_save(s); /* before anybody can send it */
	for (unsigned int i = 0; i < s->cursor_count; i++)
		spool_cursor_appended(s->cursors[i], size);
	return disk < 0 ? 1 : 0;
}

void spool_flush(struct spool *s)
{
	unsigned int i = 0;

	cursors_save(s);
	while (s->cursor_count && i + (s->has_current ? 1 : 0) < s->file_count) {
		const struct spool_file *f = &s->files[i];
		bool done = true;

		for (unsigned int c = 0; done && f->last && c < s->cursor_count; c++)
			done = spool_set_covers(spool_cursor_set(s->cursors[c], f->incarnation),
						f->first, f->last);
		/* The newest of this incarnation says where sequences go on after a restart. */
		if (done && (s->has_current || i + 1 < s->file_count))
			file_remove(s, i);
		else
			i++;
	}
}

void spool_stats(const struct spool *s, struct spool_stats *ret)
{
	*ret = s->stats;
	ret->memory_frames = s->memory_count;
}
