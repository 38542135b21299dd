/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any files of processes in app/, changed between ticks by who owns them: gathering must refuse or
 * sum them, and app.seg stays sound. An input is a program of steps, each a byte and what it needs:
 *   0 n       begin the file n (of 4), a whole one, alive
 *   1 n o v   change 8 bytes at offset o * 8 of file n to v (u16, u64)
 *   2 n s     its size becomes s * 64 (u16)
 *   3 n       its writer dies
 *   4 n       its name goes
 *   5         a tick
 *   6         another agent, which goes on with app.seg
 *   7 n e k   its entry e becomes of kind k, with so many cells
 */
#include "segment/gather.h"
#include "segment/layout.h"
#include "segment/reader.h"

#include "base/clock.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILES   4
#define ENTRIES 6
#define STEPS   200

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char dir[64], app_dir[80], app_path[80];
static int fds[FILES];
static char names[FILES][160];
static struct segment_writer *writer;
static struct gather *gather;

struct input {
	const uint8_t *at;
	size_t left;
};

static uint64_t take(struct input *in, size_t bytes)
{
	uint64_t v = 0;

	bytes = bytes < in->left ? bytes : in->left;
	memcpy(&v, in->at, bytes);
	in->at += bytes;
	in->left -= bytes;
	return v;
}

static bool owner(void *data, const struct gather_writer *w, struct gather_owner *ret)
{
	(void)data;
	if (*w->gateway == '!')
		return false;
	strcpy(ret->gateway, "nginx");
	strcpy(ret->instance, w->pid % 2 ? "host/1" : "");
	return true;
}

static void agent_open(void)
{
	const struct segment_options o = {
		.path = app_path,
		.kind = SEGMENT_APP,
		.group = (gid_t)-1,
		.series = 48,
		.histograms = 4,
		.heap_bytes = 4096,
	};
	const struct gather_options g = {
		.dir = app_dir, .files = 3, .bytes = 1 << 20, .owner = owner};
	bool is_continued;

	if (segment_writer_open(&o, &writer, &is_continued, NULL) < 0 ||
	    gather_new(&g, writer, &gather) < 0)
		abort();
}

static void agent_close(void)
{
	gather = gather_free(gather);
	writer = segment_writer_close(writer);
}

static void remove_all(void)
{
	char command[128];

	agent_close();
	snprintf(command, sizeof(command), "rm -rf %s", dir);
	if (system(command) != 0)
		perror("rm");
}

/* A file as a process writes it: two entries of each kind. */
static void file_begin(unsigned int n)
{
	static const char heap[] =
		"\0\0\0\0\0\0\0\0a_total\0b\0c_seconds\0help\0route\0/pay\0seconds";
	static const uint32_t name_at[] = {8, 16, 18}, name_bytes[] = {7, 1, 9};
	static uint64_t lives;
	struct segment_header h = {0};
	uint64_t cell = 0;

	if (fds[n] >= 0)
		close(fds[n]);
	if (segment_layout_plan(&h, SEGMENT_PROCESS, 16, 4, 512, NULL) < 0)
		abort();
	h.life = ++lives;
	h.writer_pid = 100 + n;
	snprintf(names[n], sizeof(names[n]), "%s/%" PRIu32 "-%016" PRIx64 ".seg", app_dir,
		 h.writer_pid, h.life);
	fds[n] = open(names[n], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fds[n] < 0 || flock(fds[n], LOCK_EX | LOCK_NB) < 0 ||
	    ftruncate(fds[n], (off_t)h.total_bytes) < 0)
		abort();
	for (uint32_t i = 0; i < ENTRIES; i++) {
		const uint32_t kind = i % 3;
		const struct segment_entry d = {
			.state = SEGMENT_ENTRY_PRESENT,
			.kind = (uint8_t)kind,
			.name_offset = name_at[kind],
			.name_bytes = name_bytes[kind],
			.help_offset = 28,
			.help_bytes = 4,
			.unit_offset = 0,
			.labels_offset = i < 3 ? 0 : 33,
			.labels_bytes = i < 3 ? 0 : 11,
			.value_cell = cell,
			.cell_count = kind == METRIC_HISTOGRAM ? HIST_CELLS : 1,
		};
		const uint64_t value = 1 + i;

		pwrite(fds[n], &d, sizeof(d), (off_t)(h.directory_offset + i * sizeof(d)));
		pwrite(fds[n], &value, sizeof(value), (off_t)(h.cells_offset + cell * 8));
		cell += d.cell_count;
	}
	pwrite(fds[n], heap, sizeof(heap), (off_t)h.heap_offset);
	h.heap_used = sizeof(heap);
	h.cells_used = cell;
	h.directory_count = ENTRIES;
	pwrite(fds[n], &h, sizeof(h), 0);
}

static void kind_change(unsigned int n, unsigned int entry, uint8_t kind)
{
	const uint32_t count = kind == METRIC_HISTOGRAM ? HIST_CELLS : 1;
	struct segment_header h;
	uint64_t at;

	if (pread(fds[n], &h, sizeof(h), 0) != sizeof(h))
		return;
	at = (h.directory_offset + entry * sizeof(struct segment_entry)) % (1 << 20);
	pwrite(fds[n], &kind, 1, (off_t)(at + offsetof(struct segment_entry, kind)));
	pwrite(fds[n], &count, 4, (off_t)(at + offsetof(struct segment_entry, cell_count)));
}

static void tick(uint64_t now)
{
	gather_collect(gather, now);
	segment_writer_tick_begin(writer);
	gather_write(gather);
	segment_writer_tick_end(writer, now, now, NS_PER_S);
}

static void step(struct input *in, uint64_t *now)
{
	const unsigned int what = (unsigned int)take(in, 1) % 8;
	const unsigned int n = what == 5 || what == 6 ? 0 : (unsigned int)take(in, 1) % FILES;
	uint64_t at, value;

	if (what != 0 && what != 5 && what != 6 && fds[n] < 0)
		return;
	switch (what) {
	case 0:
		file_begin(n);
		break;
	case 1:
		at = take(in, 2) * 8 % (64 * 1024);
		value = take(in, 8);
		pwrite(fds[n], &value, 8, (off_t)at);
		break;
	case 2:
		if (ftruncate(fds[n], (off_t)take(in, 2) * 64 % (2 << 20)) < 0)
			abort();
		break;
	case 3:
		close(fds[n]);
		fds[n] = -1;
		break;
	case 4:
		unlink(names[n]);
		break;
	case 5:
		*now += (1 + take(in, 1) * 7) * NS_PER_S;
		tick(*now);
		break;
	case 6:
		agent_close();
		agent_open();
		break;
	case 7:
		at = take(in, 1);
		kind_change(n, (unsigned int)at % ENTRIES, (uint8_t)take(in, 1));
		break;
	}
}

/* What is left reads as a sound segment, and another agent goes on with it. */
static void check(void)
{
	struct segment_reader *r = NULL;
	struct segment_series s;
	bool is_continued;
	const struct segment_options o = {
		.path = app_path,
		.kind = SEGMENT_APP,
		.group = (gid_t)-1,
		.series = 48,
		.histograms = 4,
		.heap_bytes = 4096,
	};

	if (segment_reader_open(app_path, &r, NULL) < 0 || segment_reader_refresh(r, NULL) < 0)
		abort();
	for (unsigned int i = 0; i < segment_reader_series_count(r); i++)
		if (!segment_reader_series(r, i, &s))
			abort();
	segment_reader_close(r);
	agent_close();
	if (segment_writer_open(&o, &writer, &is_continued, NULL) < 0 || !is_continued)
		abort();
	agent_close();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	uint64_t now = 1000 * NS_PER_S;

	if (!*dir) {
		strcpy(dir, "/dev/shm/tidegate-fuzz-XXXXXX");
		if (!mkdtemp(dir))
			abort();
		snprintf(app_dir, sizeof(app_dir), "%s/app", dir);
		snprintf(app_path, sizeof(app_path), "%s/app.seg", dir);
		if (mkdir(app_dir, 0700) < 0)
			abort();
		atexit(remove_all);
	}
	memset(fds, 0xff, sizeof(fds));
	memset(names, 0, sizeof(names));
	agent_open();
	tick(now);
	for (unsigned int i = 0; in.left && i < STEPS; i++)
		step(&in, &now);
	tick(now + NS_PER_S);
	check();
	for (unsigned int i = 0; i < FILES; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
		if (*names[i])
			unlink(names[i]);
	}
	unlink(app_path);
	return 0;
}
