/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Copies a segment and reads the copy. Owns the descriptor and two sets of buffers (the copy of the
 * last success and the one being made). Used in any process; one thread at a time.
 *
 * pread instead of mmap: a file that its owner truncates would otherwise end the reader (SIGBUS).
 */
#include "segment/reader.h"

#include "base/cleanup.h"
#include "base/str.h"
#include "segment/layout.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define TRIES          20
#define TRIES_YIELDING 10
#define PAUSE_NS       100000

struct buffer {
	void *data;
	size_t size;
};

struct copy {
	struct segment_header h;
	struct buffer gateways, directory, heap, cells;
	/* Of the directory's moment: refreshing gateways alone leaves them as they are. */
	uint32_t series;
	uint64_t epoch;
	unsigned int generation; /* of the file, 0: nothing was copied yet */
	struct segment_view view;
};

struct segment_reader {
	char *path;
	int fd;
	dev_t dev;
	ino_t ino;
	unsigned int generation;
	struct copy now, next;
	struct segment_entry *checked; /* of the copy: the last one whose names were looked at */
};

static void copy_fini(struct copy *c)
{
	free(c->gateways.data);
	free(c->directory.data);
	free(c->heap.data);
	free(c->cells.data);
}

/* Opens what the path names now, unless it is open already. */
static int file_follow(struct segment_reader *r, struct err *e)
{
	_cleanup_close_ int fd = -1;
	struct stat st;

	if (lstat(r->path, &st) < 0)
		return err_set(e, -errno, "segment %s: %s", r->path, err_text(-errno));
	if (r->fd >= 0 && st.st_dev == r->dev && st.st_ino == r->ino)
		return 0;
	fd = open(r->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 && errno == ELOOP)
		return err_set(e, -EBADMSG, "segment %s: a symbolic link is not followed", r->path);
	if (fd < 0)
		return err_set(e, -errno, "segment %s: %s", r->path, err_text(-errno));
	if (fstat(fd, &st) < 0)
		return err_set(e, -errno, "segment %s: %s", r->path, err_text(-errno));
	if (!S_ISREG(st.st_mode))
		return err_set(e, -EBADMSG, "segment %s: no regular file", r->path);
	if (r->fd >= 0)
		close(r->fd);
	r->fd = TAKE_FD(fd);
	r->dev = st.st_dev;
	r->ino = st.st_ino;
	r->generation++;
	return 0;
}

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

static int buffer_read(struct buffer *b, int fd, size_t size, uint64_t offset)
{
	if (size > b->size) {
		void *data = malloc(size);

		if (!data)
			return -ENOMEM;
		free(b->data);
		*b = (struct buffer){data, size};
	}
	return read_at(fd, b->data, size, offset);
}

static int header_read(struct segment_reader *r, struct segment_header *h, struct err *e)
{
	struct stat st;
	int k;

	if (fstat(r->fd, &st) < 0)
		return err_set(e, -errno, "segment %s: %s", r->path, err_text(-errno));
	if (st.st_size < SEGMENT_HEADER_BYTES)
		return err_set(e, -EBADMSG, "segment %s: not a segment (%lld bytes)", r->path,
			       (long long)st.st_size);
	k = read_at(r->fd, h, sizeof(*h), 0);
	if (k == 0)
		k = segment_layout_check(h, (uint64_t)st.st_size, e);
	return k < 0 ? err_set(e, k, "segment %s", r->path) : 0;
}

/* Names of series are a third of a large segment, and as they were while the structure is. */
static bool has_heap(const struct segment_reader *r, const struct segment_header *h)
{
	return r->now.generation == r->generation && r->now.epoch == h->epoch &&
	       r->now.view.heap_used == h->heap_used;
}

static int body_read(struct segment_reader *r, struct copy *c, bool is_whole)
{
	const struct segment_header *h = &c->h;
	int k = buffer_read(&c->gateways, r->fd, h->gateways_count * sizeof(struct segment_gateway),
			    h->gateways_offset);

	if (k < 0 || !is_whole)
		return k;
	k = buffer_read(&c->directory, r->fd, h->directory_count * sizeof(struct segment_entry),
			h->directory_offset);
	if (k == 0 && !has_heap(r, h))
		k = buffer_read(&c->heap, r->fd, h->heap_used, h->heap_offset);
	if (k == 0)
		k = buffer_read(&c->cells, r->fd, h->cells_used * sizeof(uint64_t),
				h->cells_offset);
	return k;
}

/* One attempt; -EAGAIN when the writer was at work meanwhile. */
static int copy_try(struct segment_reader *r, struct copy *c, bool is_whole, struct err *e)
{
	struct segment_header after;
	int k = header_read(r, &c->h, e);

	if (k < 0)
		return k;
	if ((c->h.tick_seq | c->h.epoch) & 1)
		return -EAGAIN;
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	k = body_read(r, c, is_whole);
	if (k < 0)
		return err_set(e, k, "segment %s: %s", r->path, err_text(k));
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	k = read_at(r->fd, &after, sizeof(after), 0);
	if (k < 0)
		return err_set(e, k, "segment %s: %s", r->path, err_text(k));
	if (after.tick_seq != c->h.tick_seq || after.epoch != c->h.epoch)
		return -EAGAIN;
	return 0;
}

/* A tick of a few gateways is over within microseconds, one of many within a millisecond. */
static void pause_before(unsigned int attempt)
{
	const struct timespec short_while = {.tv_nsec = PAUSE_NS};

	if (attempt < TRIES_YIELDING)
		sched_yield();
	else if (attempt < TRIES)
		nanosleep(&short_while, NULL);
}

static int copy_read(struct segment_reader *r, bool is_whole, struct err *e)
{
	int k = file_follow(r, e);

	if (k < 0)
		return k;
	for (unsigned int i = 0; i < TRIES; i++) {
		k = copy_try(r, &r->next, is_whole, e);
		if (k != -EAGAIN)
			return k;
		pause_before(i + 1);
	}
	return err_set(e, -EAGAIN, "segment %s: its writer was at work each time", r->path);
}

int segment_reader_refresh(struct segment_reader *r, struct err *e)
{
	struct copy *c = &r->next, before;
	int k = copy_read(r, true, e);

	if (k < 0)
		return k;
	if (has_heap(r, &c->h)) {
		const struct buffer heap = r->now.heap;

		r->now.heap = c->heap;
		c->heap = heap;
	}
	c->series = c->h.directory_count;
	c->epoch = c->h.epoch;
	c->generation = r->generation;
	c->view = (struct segment_view){
		.kind = c->h.kind,
		.heap = c->heap.data,
		.heap_used = c->h.heap_used,
		.cells_used = c->h.cells_used,
	};
	before = r->now;
	r->now = r->next;
	r->next = before;
	*r->checked = (struct segment_entry){0};
	return 0;
}

int segment_reader_refresh_gateways(struct segment_reader *r, struct err *e)
{
	struct buffer records;
	int k = copy_read(r, false, e);

	if (k < 0)
		return k;
	records = r->now.gateways;
	r->now.gateways = r->next.gateways;
	r->next.gateways = records;
	r->now.h = r->next.h;
	return 0;
}

int segment_reader_open(const char *path, struct segment_reader **ret, struct err *e)
{
	struct segment_reader *r = calloc(1, sizeof(*r));
	int k;

	if (!r)
		return -ENOMEM;
	r->fd = -1;
	r->path = strdup(path);
	r->checked = calloc(1, sizeof(*r->checked));
	k = r->path && r->checked ? file_follow(r, e) : -ENOMEM;
	if (k < 0) {
		segment_reader_close(r);
		return k;
	}
	*ret = r;
	return 0;
}

struct segment_reader *segment_reader_close(struct segment_reader *r)
{
	if (!r)
		return NULL;
	if (r->fd >= 0)
		close(r->fd);
	copy_fini(&r->now);
	copy_fini(&r->next);
	free(r->checked);
	free(r->path);
	free(r);
	return NULL;
}

unsigned int segment_reader_generation(const struct segment_reader *r)
{
	return r->generation;
}

const struct segment_header *segment_reader_header(const struct segment_reader *r)
{
	return &r->now.h;
}

unsigned int segment_reader_gateways(const struct segment_reader *r)
{
	return r->now.h.gateways_count;
}

const struct segment_gateway *segment_reader_gateway(const struct segment_reader *r,
						     unsigned int index)
{
	struct segment_gateway *g = r->now.gateways.data;

	if (index >= r->now.h.gateways_count)
		return NULL;
	/* The copy is ours: ending its strings here is enough to trust them. */
	g += index;
	g->name[sizeof(g->name) - 1] = '\0';
	g->instance[sizeof(g->instance) - 1] = '\0';
	g->runtime[sizeof(g->runtime) - 1] = '\0';
	g->driver[sizeof(g->driver) - 1] = '\0';
	return g;
}

unsigned int segment_reader_series_count(const struct segment_reader *r)
{
	return r->now.series;
}

/* What segment_labels_check says, and where they are, in one look. */
static bool labels_split(const char *p, uint32_t bytes, struct segment_series *s)
{
	const char *end = p + bytes, *nul;

	s->label_count = 0;
	while (p < end) {
		struct segment_label *l = &s->labels[s->label_count];

		nul = memchr(p, '\0', (size_t)(end - p));
		if (!nul || nul == p || s->label_count++ == SEGMENT_LABELS_MAX)
			return false;
		l->key = p;
		p = nul + 1;
		nul = memchr(p, '\0', (size_t)(end - p));
		if (!nul)
			return false;
		l->value = p;
		p = nul + 1;
	}
	return true;
}

static bool series_of(const struct segment_view *v, const struct segment_entry *d,
		      struct segment_entry *checked, struct segment_series *ret)
{
	if (!segment_entry_check_after(v, d, checked) ||
	    !labels_split(v->heap + d->labels_offset, d->labels_bytes, ret))
		return false;
	ret->name = v->heap + d->name_offset;
	ret->unit = v->heap + d->unit_offset;
	ret->help = v->heap + d->help_offset;
	ret->kind = d->kind;
	ret->merge = d->merge;
	ret->scope = d->scope;
	ret->is_present = d->state == SEGMENT_ENTRY_PRESENT;
	ret->counter = 0;
	ret->gauge = 0;
	ret->cells = NULL;
	return true;
}

bool segment_series_of(const struct segment_view *v, const struct segment_entry *d,
		       struct segment_series *ret)
{
	struct segment_entry nothing = {0};

	return series_of(v, d, &nothing, ret);
}

bool segment_reader_series(const struct segment_reader *r, unsigned int index,
			   struct segment_series *ret)
{
	const struct copy *c = &r->now;
	const struct segment_entry *d = c->directory.data;
	const uint64_t *cells = c->cells.data;

	if (index >= c->series)
		return false;
	d += index;
	if (!series_of(&c->view, d, r->checked, ret))
		return false;
	ret->index = index;
	cells += d->value_cell;
	if (d->kind == METRIC_COUNTER)
		ret->counter = *cells;
	else if (d->kind == METRIC_GAUGE)
		memcpy(&ret->gauge, cells, sizeof(ret->gauge));
	else
		ret->cells = cells;
	return true;
}
