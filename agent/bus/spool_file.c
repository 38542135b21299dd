/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes of the spool on disk. A reader trusts nothing that it finds there. */
#include "bus/spool_file.h"

#include "base/cleanup.h"
#include "base/crc32c.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

/* Bytes read (fewer only at the end of the file), or a negative errno. */
static ssize_t read_at(int fd, void *buf, size_t size, off_t offset)
{
	size_t got = 0;

	while (got < size) {
		ssize_t n = pread(fd, (uint8_t *)buf + got, size - got, offset + (off_t)got);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		got += (size_t)n;
	}
	return (ssize_t)got;
}

static int write_at(int fd, const void *buf, size_t size, off_t offset)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n =
			pwrite(fd, (const uint8_t *)buf + done, size - done, offset + (off_t)done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		done += (size_t)n;
	}
	return 0;
}

int spool_file_read_header(int fd, struct spool_file_header *ret)
{
	struct spool_file_header h;
	ssize_t n = read_at(fd, &h, sizeof(h), 0);

	if (n < 0)
		return (int)n;
	if ((size_t)n < sizeof(h) || h.magic != SPOOL_FILE_MAGIC || h.header_bytes != sizeof(h) ||
	    h.crc != crc32c(0, &h, offsetof(struct spool_file_header, crc)))
		return -EBADMSG;
	*ret = h;
	return 0;
}

int spool_file_write_header(int fd, const uint8_t incarnation[FRAME_INCARNATION_BYTES],
			    uint64_t first_sequence)
{
	struct spool_file_header h = {
		.magic = SPOOL_FILE_MAGIC,
		.header_bytes = sizeof(h),
		.first_sequence = first_sequence,
	};

	memcpy(h.incarnation, incarnation, sizeof(h.incarnation));
	h.crc = crc32c(0, &h, offsetof(struct spool_file_header, crc));
	return write_at(fd, &h, sizeof(h), 0);
}

static uint32_t record_crc(const struct spool_record_header *h, const void *data)
{
	uint32_t crc = crc32c(0, h, offsetof(struct spool_record_header, crc));

	return crc32c(crc, data, h->length);
}

/* 1 a valid record, 0 none, or the error of reading. */
static int record_read(int fd, off_t offset, off_t end, struct spool_record_header *h, uint8_t *buf)
{
	ssize_t n;

	if (end - offset < (off_t)sizeof(*h))
		return 0;
	n = read_at(fd, h, sizeof(*h), offset);
	if (n < 0)
		return (int)n;
	if ((size_t)n < sizeof(*h) || h->magic != SPOOL_RECORD_MAGIC || !h->length ||
	    h->length > FRAME_SEALED_MAX || !h->sequence || h->sequence == UINT64_MAX ||
	    (off_t)h->length > end - offset - (off_t)sizeof(*h))
		return 0;
	n = read_at(fd, buf, h->length, offset + (off_t)sizeof(*h));
	if (n < 0)
		return (int)n;
	return (size_t)n == h->length && h->crc == record_crc(h, buf);
}

/* Where the record magic is found next at or after offset; end when nowhere. */
static off_t magic_find(int fd, off_t offset, off_t end)
{
	const uint32_t magic = SPOOL_RECORD_MAGIC;
	uint8_t chunk[4096];

	while (offset < end) {
		ssize_t n = read_at(fd, chunk, sizeof(chunk), offset);
		uint8_t *hit;

		if (n < (ssize_t)sizeof(magic))
			return end;
		hit = memmem(chunk, (size_t)n, &magic, sizeof(magic));
		if (hit)
			return offset + (hit - chunk);
		offset += n - (ssize_t)sizeof(magic) + 1;
	}
	return end;
}

off_t spool_file_next(int fd, off_t offset, off_t end, struct spool_record_header *ret,
		      uint8_t *buf, uint64_t *ret_skipped)
{
	off_t start = offset;

	*ret_skipped = 0;
	while (offset < end) {
		int r = record_read(fd, offset, end, ret, buf);

		if (r < 0)
			return r;
		if (r) {
			*ret_skipped = (uint64_t)(offset - start);
			return offset;
		}
		offset = magic_find(fd, offset + 1, end);
	}
	*ret_skipped = (uint64_t)(end > start ? end - start : 0);
	return 0;
}

int spool_file_append(int fd, off_t offset, uint64_t sequence, uint64_t time_ms,
		      const uint8_t *data, size_t size)
{
	struct spool_record_header h = {
		.magic = SPOOL_RECORD_MAGIC,
		.length = (uint32_t)size,
		.sequence = sequence,
		.time_ms = time_ms,
	};
	uint8_t *both;
	int r;

	h.crc = record_crc(&h, data);
	both = malloc(sizeof(h) + size);
	if (!both)
		return -ENOMEM;
	memcpy(both, &h, sizeof(h));
	memcpy(both + sizeof(h), data, size);
	r = write_at(fd, both, sizeof(h) + size, offset);
	free(both);
	if (r < 0 && ftruncate(fd, offset) < 0)
		return -EIO; /* a torn record stays, which readers skip */
	return r;
}

/* -------- two-slot files -------- */

struct slot_head {
	uint64_t magic, generation;
};

static size_t slot_bytes(const struct spool_slots *s)
{
	return sizeof(struct slot_head) + s->size + sizeof(uint32_t);
}

void spool_slots_close(struct spool_slots *s)
{
	if (s->fd >= 0)
		close(s->fd);
	s->fd = -1;
}

int spool_slots_open(struct spool_slots *s, int dir_fd, const char *name, uint64_t magic,
		     size_t size, void *ret_payload)
{
	_cleanup_free_ uint8_t *slot = NULL;
	int found = 0;

	*s = (struct spool_slots){.magic = magic, .size = size};
	s->fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
	if (s->fd < 0)
		return -errno;
	slot = malloc(slot_bytes(s));
	if (!slot)
		return -ENOMEM;
	for (unsigned int i = 0; i < 2; i++) {
		size_t body = sizeof(struct slot_head) + size;
		struct slot_head head;
		uint32_t crc;

		if (read_at(s->fd, slot, slot_bytes(s), (off_t)(i * slot_bytes(s))) !=
		    (ssize_t)slot_bytes(s))
			continue;
		memcpy(&head, slot, sizeof(head));
		memcpy(&crc, slot + body, sizeof(crc));
		if (head.magic != magic || crc != crc32c(0, slot, body) ||
		    (found && head.generation <= s->generation))
			continue;
		memcpy(ret_payload, slot + sizeof(head), size);
		s->generation = head.generation;
		found = 1;
	}
	return found;
}

int spool_slots_write(struct spool_slots *s, const void *payload)
{
	struct slot_head head = {.magic = s->magic, .generation = s->generation + 1};
	size_t body = sizeof(head) + s->size;
	uint8_t *slot;
	uint32_t crc;
	int r;

	if (s->fd < 0)
		return -EBADF;
	slot = malloc(slot_bytes(s));
	if (!slot)
		return -ENOMEM;
	memcpy(slot, &head, sizeof(head));
	memcpy(slot + sizeof(head), payload, s->size);
	crc = crc32c(0, slot, body);
	memcpy(slot + body, &crc, sizeof(crc));
	r = write_at(s->fd, slot, slot_bytes(s), (off_t)((head.generation & 1) * slot_bytes(s)));
	free(slot);
	if (r == 0)
		s->generation = head.generation;
	return r;
}
