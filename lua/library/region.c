/* SPDX-License-Identifier: Apache-2.0 */
/* The memory of a segment and the file behind it (proto/segment.h, SEGMENT_PROCESS). */
#include "state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define PAGE        4096u
#define HEAP_SERIES 96 /* bytes of names and labels, about, a series */
#define HEAP_LEAST  16384
#define TMPFS       0x01021994

static uint64_t align_up(uint64_t v, uint64_t to)
{
	return (v + to - 1) / to * to;
}

static void plan(struct segment_header *h, uint32_t series, uint32_t histograms)
{
	uint64_t at = SEGMENT_HEADER_BYTES;

	*h = (struct segment_header){
		.magic = SEGMENT_MAGIC,
		.version = SEGMENT_VERSION,
		.header_bytes = SEGMENT_HEADER_BYTES,
		.endian = SEGMENT_ENDIAN,
		.kind = SEGMENT_PROCESS,
		.gateways_offset = at,
		.thresholds_offset = at,
		.hist_cells = HIST_CELLS,
		.directory_capacity = series,
		.heap_capacity = align_up((uint64_t)series * HEAP_SERIES + HEAP_LEAST, 64),
	};
	at += HIST_THRESHOLDS * sizeof(uint64_t);
	h->directory_offset = at;
	at += (uint64_t)series * sizeof(struct segment_entry);
	h->heap_offset = at;
	at = align_up(at + h->heap_capacity, 64);
	h->cells_offset = at;
	/* Histograms begin on cache lines. */
	h->cells_capacity = series + (uint64_t)histograms * align_up(HIST_CELLS, 8) + 8;
	h->total_bytes = at + h->cells_capacity * sizeof(uint64_t);
}

int region_open(struct tidegate *t, uint32_t series, uint32_t histograms)
{
	struct segment_header h;
	char *base;

	plan(&h, series, histograms);
	t->region_bytes = align_up(h.total_bytes, PAGE);
	base = mmap(NULL, t->region_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		    0);
	if (base == MAP_FAILED)
		return reason_set(-errno, "no memory for %u series, %u of them histograms", series,
				  histograms);
	memcpy(base, &h, sizeof(h));
	memcpy(base + h.thresholds_offset, histogram_thresholds(),
	       HIST_THRESHOLDS * sizeof(uint64_t));
	t->h = (void *)base;
	t->directory = (void *)(base + h.directory_offset);
	t->heap = base + h.heap_offset;
	t->cells = (void *)(base + h.cells_offset);
	t->histograms_max = histograms;
	t->fd = -1;
	return 0;
}

void region_close(struct tidegate *t)
{
	if (t->h)
		munmap(t->h, t->region_bytes);
	if (t->fd >= 0)
		close(t->fd); /* and with it the lock: the agent keeps the values */
	t->h = NULL;
	t->fd = -1;
}

/* ---- who we are ---- */

static int read_text(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, buf, size - 1) : -1;

	if (fd >= 0)
		close(fd);
	buf[n > 0 ? n : 0] = '\0';
	return n > 0 ? 0 : -EIO;
}

static void boot_id(uint8_t ret[16])
{
	char text[64];
	unsigned int n = 0;

	if (read_text("/proc/sys/kernel/random/boot_id", text, sizeof(text)) < 0)
		return;
	for (const char *p = text; *p && n < 32; p++) {
		unsigned int digit = *p >= '0' && *p <= '9'   ? (unsigned int)(*p - '0')
				     : *p >= 'a' && *p <= 'f' ? (unsigned int)(*p - 'a') + 10
							      : 16;

		if (digit > 15)
			continue;
		ret[n / 2] = (uint8_t)(n % 2 ? ret[n / 2] | digit : digit << 4);
		n++;
	}
}

static uint64_t start_time(void)
{
	char text[1024], *p;
	unsigned long long start = 0;

	if (read_text("/proc/self/stat", text, sizeof(text)) < 0)
		return 0;
	p = strrchr(text, ')');
	for (unsigned int field = 2; p && field < 22; field++)
		p = strchr(p + 1, ' ');
	if (p)
		sscanf(p, "%llu", &start);
	return start;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Into a copy: where no file can be made, the one that is mapped stays what it is. */
static int identify(const struct tidegate *t, struct segment_header *h)
{
	/* A file that is made again has the life of the one that is gone: the agent then knows that
	 * its counters are the same, not others. */
	while (!h->life)
		if (getrandom(&h->life, sizeof(h->life), 0) < 0 && errno != EINTR)
			return reason_set(-errno, "no random number");
	h->writer_pid = (uint32_t)getpid();
	h->writer_parent = (uint32_t)getppid();
	h->writer_start = start_time();
	h->heartbeat_ns = now_ns();
	boot_id(h->boot_id);
	memcpy(h->gateway, t->gateway, sizeof(h->gateway));
	return 0;
}

/* ---- the file ---- */

static int write_all(int fd, const void *data, size_t size, off_t at)
{
	const char *p = data;

	while (size) {
		ssize_t n = pwrite(fd, p, size, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		p += n;
		at += n;
		size -= (size_t)n;
	}
	return 0;
}

/* A full tmpfs is an error here, never a fault at some later store; a disk would stall writers. */
static int file_fill(const struct tidegate *t, const struct segment_header *h, int fd,
		     const char *path)
{
	struct statfs fs;
	int r;

	if (fstatfs(fd, &fs) < 0 || (fs.f_type != TMPFS && !getenv("TIDEGATE_ANY_FS")))
		return reason_set(-ENOTSUP,
				  "%s: not on tmpfs, where a disk would stall the gateway", path);
	do
		r = -posix_fallocate(fd, 0, (off_t)t->region_bytes);
	while (r == -EINTR);
	if (r < 0)
		return reason_set(r,
				  "%s: no room for %zu bytes; make the tmpfs larger or allow "
				  "fewer series",
				  path, t->region_bytes);
	r = write_all(fd, t->h, t->region_bytes, 0);
	if (r == 0)
		r = write_all(fd, h, sizeof(*h), 0);
	return r < 0 ? reason_set(r, "%s: cannot write", path) : 0;
}

static int file_make(const struct tidegate *t, const struct segment_header *h, char *temporary,
		     size_t size)
{
	int fd, r;

	snprintf(temporary, size, "%s/.%d-%016llx.seg", t->dir, (int)getpid(),
		 (unsigned long long)h->life);
	fd = open(temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0640);
	if (fd < 0)
		return reason_set(-errno,
				  "%s: cannot create; is the agent installed, and this user "
				  "in group tidegate-app?",
				  temporary);
	r = flock(fd, LOCK_EX | LOCK_NB) < 0 ? reason_set(-errno, "%s: cannot lock", temporary) : 0;
	/* The umask may have taken the group's right to read. */
	if (r == 0 && fchmod(fd, 0640) < 0)
		r = reason_set(-errno, "%s: cannot set its mode", temporary);
	if (r == 0)
		r = file_fill(t, h, fd, temporary);
	if (r == 0)
		return fd;
	unlink(temporary);
	close(fd);
	return r;
}

int region_attach(struct tidegate *t)
{
	struct segment_header h = *t->h;
	char temporary[sizeof(t->path) + 16];
	int r, fd;

	t->pid = getpid();
	r = identify(t, &h);
	if (r < 0)
		return r;
	fd = file_make(t, &h, temporary, sizeof(temporary));
	if (fd < 0)
		return fd;
	snprintf(t->path, sizeof(t->path), "%s/%d-%016llx.seg", t->dir, (int)getpid(),
		 (unsigned long long)h.life);
	/* Mapped before it has its name: once the agent sees it, it counts. */
	if (mmap(t->h, t->region_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) ==
	    MAP_FAILED)
		r = reason_set(-errno, "%s: cannot map", temporary);
	else if (rename(temporary, t->path) < 0)
		r = reason_set(-errno, "%s: cannot rename to %s", temporary, t->path);
	if (r < 0) {
		unlink(temporary);
		close(fd);
		region_detach(t, true);
		return r;
	}
	/* Its lock is let go of when the new one is there: until then it counts. */
	if (t->fd >= 0)
		close(t->fd);
	t->fd = fd;
	return 0;
}

/* When even private memory cannot be had, what is there stays: a gateway must not end for its metrics. */
void region_detach(struct tidegate *t, bool keeps_values)
{
	size_t bytes = keeps_values ? t->region_bytes : t->h->cells_offset;
	void *copy = malloc(bytes);

	if (copy) {
		memcpy(copy, t->h, bytes);
		if (!keeps_values)
			((struct segment_header *)copy)->life = 0; /* other counters */
		if (mmap(t->h, t->region_bytes, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED)
			memcpy(t->h, copy, bytes);
	}
	free(copy);
	/* The lock of a file that is gone is kept with its values: another of this life may follow. */
	if (keeps_values)
		return;
	if (t->fd >= 0)
		close(t->fd);
	t->fd = -1;
	t->path[0] = '\0';
}

bool region_is_there(const struct tidegate *t)
{
	struct stat ours, there;

	if (fstat(t->fd, &ours) < 0 || !ours.st_nlink)
		return false;
	if (stat(t->path, &there) == 0)
		return ours.st_ino == there.st_ino && ours.st_dev == there.st_dev;
	/* A gateway that changed its root or its user cannot see it any more; the agent does. */
	return errno != ENOENT || stat(t->dir, &there) < 0;
}
