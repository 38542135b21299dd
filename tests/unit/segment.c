/* SPDX-License-Identifier: Apache-2.0 */
/* Segment writer and reader: what is written is read, a file is continued or replaced, damage is
 * found. Works on /dev/shm. */
#include "segment/reader.h"
#include "segment/writer.h"

#include "base/cleanup.h"
#include "base/str.h"
#include "segment/layout.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define DIRECTORY_OFFSET                                                            \
	(SEGMENT_HEADER_BYTES + SEGMENT_GATEWAYS * sizeof(struct segment_gateway) + \
	 HIST_THRESHOLDS * sizeof(uint64_t))

static char dir[64], path[96];

static const struct metric_desc counter = {
	.name = "t_total", .unit = "", .labels = "", .help = "A counter.", .kind = METRIC_COUNTER};
static const struct metric_desc gauge = {.name = "t_gauge",
					 .unit = "bytes",
					 .labels = "",
					 .help = "A gauge.",
					 .kind = METRIC_GAUGE,
					 .merge = METRIC_LAST,
					 .scope = METRIC_AGENT};
static const struct metric_desc histogram = {.name = "t_seconds",
					     .unit = "seconds",
					     .labels = "",
					     .help = "A histogram.",
					     .kind = METRIC_HISTOGRAM};

static struct segment_options options(void)
{
	return (struct segment_options){
		.path = path,
		.kind = SEGMENT_HOST,
		.group = (gid_t)-1,
		.series = 32,
		.histograms = 4,
		.heap_bytes = 4096,
	};
}

static struct segment_writer *writer_open(bool want_continued)
{
	struct segment_options o = options();
	struct segment_writer *w = NULL;
	bool continued = !want_continued;
	struct err e = {0};
	int r = segment_writer_open(&o, &w, &continued, &e);

	if (r < 0)
		fail_msg("open: %d %s", r, e.text);
	if (continued != want_continued)
		fail_msg("continued %d, reason: %s", continued, segment_writer_reason(w));
	return w;
}

static struct segment_reader *reader_open(void)
{
	struct segment_reader *r = NULL;
	struct err e = {0};

	if (segment_reader_open(path, &r, &e) < 0 || segment_reader_refresh(r, &e) < 0)
		fail_msg("%s", e.text);
	return r;
}

static struct segment_series series_read(const struct segment_reader *r, int index)
{
	struct segment_series s;

	assert_true(segment_reader_series(r, (unsigned int)index, &s));
	return s;
}

static int series(struct segment_writer *w, const struct metric_desc *m, const char *value)
{
	const char *labels[][2] = {{"gateway", "g"}, {"code", value}};

	return segment_writer_series(w, m, labels, 2);
}

static int setup(void **state)
{
	(void)state;
	unlink(path);
	return 0;
}

static void test_round_trip(void **state)
{
	struct segment_writer *w = writer_open(false);
	uint64_t cells[HIST_CELLS] = {0};
	struct segment_reader *r;
	struct segment_series s;
	struct stat st;
	int c, g, h, none;

	(void)state;
	c = series(w, &counter, "200");
	g = series(w, &gauge, "");
	h = series(w, &histogram, "2xx");
	none = segment_writer_series(w, &counter, NULL, 0);
	assert_int_equal(c, 0);
	assert_int_equal(none, 3);
	assert_int_equal(series(w, &counter, "200"), c);
	assert_int_equal(series(w, &counter, "404"), 4);
	cells[0] = 1;
	cells[322] = 7;
	segment_writer_tick_begin(w);
	segment_writer_counter(w, c, 41);
	segment_writer_gauge(w, g, -2.5);
	segment_writer_histogram(w, h, cells);
	segment_writer_tick_end(w, 11, 12, 13);

	r = reader_open();
	assert_int_equal(segment_reader_series_count(r), 5);
	s = series_read(r, c);
	assert_string_equal(s.name, "t_total");
	assert_string_equal(s.help, "A counter.");
	assert_string_equal(s.unit, "");
	assert_int_equal(s.label_count, 2);
	assert_string_equal(s.labels[0].key, "gateway");
	assert_string_equal(s.labels[0].value, "g");
	assert_string_equal(s.labels[1].value, "200");
	assert_true(s.is_present);
	assert_int_equal(s.counter, 41);
	s = series_read(r, g);
	assert_true(s.gauge == -2.5);
	assert_string_equal(s.labels[1].value, "");
	assert_int_equal(s.merge, METRIC_LAST);
	assert_int_equal(s.scope, METRIC_AGENT);
	s = series_read(r, h);
	assert_memory_equal(s.cells, cells, sizeof(cells));
	s = series_read(r, none);
	assert_false(s.is_present);
	assert_int_equal(s.label_count, 0);
	assert_int_equal(segment_reader_header(r)->tick_mono_ns, 11);
	assert_int_equal(segment_reader_header(r)->tick_real_ns, 12);
	assert_int_equal(segment_reader_header(r)->tick_interval_ns, 13);
	assert_int_equal(segment_reader_header(r)->ticks, 1);
	assert_int_equal(segment_reader_header(r)->writer_pid, getpid());
	assert_true(segment_reader_header(r)->writer_start > 0);

	/* Absent, never 0; and back. */
	segment_writer_tick_begin(w);
	segment_writer_absent(w, c);
	segment_writer_tick_end(w, 21, 22, 23);
	assert_int_equal(segment_reader_refresh(r, NULL), 0);
	assert_false(series_read(r, c).is_present);
	segment_writer_tick_begin(w);
	segment_writer_counter(w, c, 3);
	segment_writer_counter(w, -ENOSPC, 3);
	segment_writer_tick_end(w, 31, 32, 33);
	assert_int_equal(segment_reader_refresh(r, NULL), 0);
	assert_true(series_read(r, c).is_present);
	assert_int_equal(series_read(r, c).counter, 41);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	assert_true((uint64_t)st.st_blocks * 512 >= (uint64_t)st.st_size);
	segment_reader_close(r);
	segment_writer_close(w);
}

static void tick_counter(struct segment_writer *w, int c, uint64_t v)
{
	segment_writer_tick_begin(w);
	segment_writer_counter(w, c, v);
	segment_writer_tick_end(w, 1, 1, 1);
}

static void test_continue_and_rebase(void **state)
{
	struct segment_writer *w = writer_open(false);
	uint64_t cells[HIST_CELLS] = {[5] = 10};
	struct segment_reader *r;
	int c = series(w, &counter, "200"), h = series(w, &histogram, "x"), g;

	(void)state;
	segment_writer_rebase(w, 100);
	tick_counter(w, c, 50);
	segment_writer_tick_begin(w);
	segment_writer_histogram(w, h, cells);
	segment_writer_tick_end(w, 1, 1, 1);
	g = segment_writer_gateway(w, "nginx", "host/1");
	assert_int_equal(g, 0);
	segment_writer_close(w);

	/* The same maps go on: nothing is added to what they count. */
	w = writer_open(true);
	assert_string_equal(segment_writer_reason(w), "");
	assert_int_equal(series(w, &counter, "200"), c);
	assert_int_equal(segment_writer_gateway(w, "nginx", "host/1"), g);
	segment_writer_rebase(w, 100);
	tick_counter(w, c, 60);
	r = reader_open();
	assert_int_equal(series_read(r, c).counter, 60);

	/* New maps begin at zero; saying so twice changes nothing. */
	segment_writer_rebase(w, 101);
	tick_counter(w, c, 5);
	segment_writer_rebase(w, 101);
	tick_counter(w, c, 7);
	cells[5] = 1;
	segment_writer_tick_begin(w);
	segment_writer_histogram(w, h, cells);
	segment_writer_tick_end(w, 1, 1, 1);
	assert_int_equal(segment_reader_refresh(r, NULL), 0);
	assert_int_equal(series_read(r, c).counter, 67);
	assert_int_equal(series_read(r, h).cells[5], 11);
	assert_int_equal(segment_reader_header(r)->maps_id, 101);

	/* Never backwards, not even by overflow. */
	tick_counter(w, c, 6);
	tick_counter(w, c, UINT64_MAX);
	assert_int_equal(segment_reader_refresh(r, NULL), 0);
	assert_int_equal(series_read(r, c).counter, 67);
	segment_reader_close(r);
	segment_writer_close(w);
}

/* A counter without maps goes on by what is added to it, whatever is adopted or begun anew. */
static void test_increment_and_absent_all(void **state)
{
	struct segment_writer *w = writer_open(false);
	int c = series(w, &counter, "1"), a = series(w, &gauge, "a"), b = series(w, &gauge, "b");
	struct segment_reader *r;

	(void)state;
	segment_writer_rebase(w, 100);
	segment_writer_tick_begin(w);
	segment_writer_increment(w, c, 0);
	segment_writer_increment(w, c, 13);
	segment_writer_increment(w, -1, 13);
	segment_writer_gauge(w, a, 1);
	segment_writer_gauge(w, b, 2);
	segment_writer_tick_end(w, 1, 1, 1);
	segment_writer_close(w);

	w = writer_open(true);
	segment_writer_rebase(w, 101);
	segment_writer_tick_begin(w);
	segment_writer_increment(w, c, 4);
	segment_writer_increment(w, c, UINT64_MAX);
	segment_writer_absent_all(w, &gauge);
	segment_writer_gauge(w, b, 3);
	segment_writer_tick_end(w, 2, 2, 1);
	r = reader_open();
	assert_int_equal(series_read(r, c).counter, 17);
	assert_true(series_read(r, c).is_present);
	assert_false(series_read(r, a).is_present);
	assert_true(series_read(r, b).is_present);
	segment_reader_close(r);
	segment_writer_close(w);
}

/* A writer that dies in the middle of everything leaves odd numbers and half an append. */
static void test_continue_after_death(void **state)
{
	struct segment_writer *w = writer_open(false);
	struct segment_reader *r = NULL;
	int c = series(w, &counter, "200"), d;

	(void)state;
	tick_counter(w, c, 9);
	segment_writer_tick_begin(w);
	segment_writer_change_begin(w);
	segment_writer_header(w)->cells_used += 2;
	segment_writer_close(w);
	assert_int_equal(segment_reader_open(path, &r, NULL), 0);
	assert_int_equal(segment_reader_refresh(r, NULL), -EAGAIN);
	w = writer_open(true);
	assert_int_equal(segment_reader_refresh(r, NULL), 0);
	assert_int_equal(series_read(r, c).counter, 9);
	d = series(w, &counter, "500");
	tick_counter(w, d, 3);
	assert_int_equal(segment_reader_refresh(r, NULL), 0);
	assert_int_equal(series_read(r, d).counter, 3);
	segment_reader_close(r);
	segment_writer_close(w);
	segment_writer_close(writer_open(true));
}

static void patch(uint64_t offset, const void *data, size_t size)
{
	_cleanup_close_ int fd = open(path, O_WRONLY);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, data, size, (off_t)offset), size);
}

static void make_file(void)
{
	struct segment_writer *w;

	unlink(path);
	w = writer_open(false);
	tick_counter(w, series(w, &counter, "200"), 9);
	series(w, &histogram, "200");
	segment_writer_gateway(w, "a", "b");
	segment_writer_close(w);
}

/* One bad field each: the writer replaces the file and says why, the reader refuses or skips. */
static void test_damage(void **state)
{
	static const struct {
		const char *what;
		uint64_t offset, size;
		bool reader_refuses;
	} rows[] = {
#define HEADER(field, refuses)                           \
	{#field, offsetof(struct segment_header, field), \
	 sizeof(((struct segment_header *)0)->field), refuses}
		HEADER(magic, true),
		HEADER(version, true),
		HEADER(header_bytes, true),
		HEADER(endian, true),
		HEADER(kind, true),
		HEADER(total_bytes, true),
		HEADER(boot_id, false),
		HEADER(gateways_offset, true),
		HEADER(gateways_capacity, true),
		HEADER(gateways_count, true),
		HEADER(directory_offset, true),
		HEADER(thresholds_offset, true),
		HEADER(directory_capacity, true),
		HEADER(directory_count, true),
		HEADER(heap_offset, true),
		HEADER(heap_capacity, true),
		HEADER(heap_used, true),
		HEADER(cells_offset, true),
		HEADER(cells_capacity, true),
		HEADER(cells_used, true),
		HEADER(hist_cells, true),
#define ENTRY(field)                                                                \
	{"entry " #field, DIRECTORY_OFFSET + offsetof(struct segment_entry, field), \
	 sizeof(((struct segment_entry *)0)->field), false}
		ENTRY(state),
		ENTRY(kind),
		ENTRY(merge),
		ENTRY(scope),
		ENTRY(name_offset),
		ENTRY(name_bytes),
		ENTRY(unit_offset),
		ENTRY(unit_bytes),
		ENTRY(help_offset),
		ENTRY(help_bytes),
		ENTRY(labels_offset),
		ENTRY(labels_bytes),
		ENTRY(value_cell),
		ENTRY(cell_count),
		{"gateway name", SEGMENT_HEADER_BYTES, SEGMENT_NAME_BYTES, false},
		{"gateway state", SEGMENT_HEADER_BYTES + offsetof(struct segment_gateway, state), 4,
		 false},
	};
	unsigned char junk[64];

	(void)state;
	memset(junk, 0xff, sizeof(junk));
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct segment_reader *r = NULL;
		struct segment_writer *w;
		struct segment_series s;
		struct err e = {0};
		int k;

		make_file();
		patch(rows[i].offset, junk, rows[i].size);
		assert_int_equal(segment_reader_open(path, &r, NULL), 0);
		k = segment_reader_refresh(r, &e);
		if (k != (rows[i].reader_refuses ? -EBADMSG : 0))
			fail_msg("%s: reader says %d %s", rows[i].what, k, e.text);
		if (k == 0) {
			bool is_entry = str_starts(rows[i].what, "entry");

			assert_int_equal(segment_reader_series(r, 0, &s), !is_entry);
			assert_true(segment_reader_series(r, 1, &s));
			assert_true(strlen(segment_reader_gateway(r, 0)->name) <
				    SEGMENT_NAME_BYTES);
		}
		segment_reader_close(r);
		w = writer_open(false);
		if (!*segment_writer_reason(w))
			fail_msg("%s: replaced without a reason", rows[i].what);
		segment_writer_close(w);
	}
}

/* Random bytes in random places: whatever the writer makes of it, it goes on to work, and what was
 * continued never overlaps. */
static void test_random_damage(void **state)
{
	unsigned int random = 12345, continued_files = 0;

	(void)state;
	for (unsigned int i = 0; i < 3000; i++) {
		struct segment_options o = options();
		struct segment_reader *r;
		struct segment_writer *w = NULL;
		unsigned char junk[8];
		bool continued;
		int c;

		make_file();
		for (unsigned int j = 0; j < 1 + i % 3; j++) {
			/* Header, first gateway, first entries, heap: where things can go wrong. */
			static const unsigned int areas[] = {0, 4096, 4096 + 64 * 400,
							     4096 + 64 * 400 + 32 * 64};

			random = random * 1103515245 + 12345;
			memset(junk, random & 4096 ? (int)(random >> 8 & 255) : 0, sizeof(junk));
			patch(areas[random >> 16 & 3] + (random >> 18) % 248, junk, 1 + i % 8);
		}
		assert_int_equal(segment_writer_open(&o, &w, &continued, NULL), 0);
		continued_files += continued;
		assert_true(continued == !*segment_writer_reason(w));
		c = series(w, &counter, "new");
		if (c >= 0)
			tick_counter(w, c, 77);
		r = reader_open();
		if (c >= 0)
			assert_int_equal(series_read(r, c).counter, 77);
		segment_reader_close(r);
		segment_writer_close(w);
	}
	assert_in_range(continued_files, 1, 2999);
}

static void test_overlapping_cells_are_not_continued(void **state)
{
	uint64_t zero = 0;

	(void)state;
	make_file();
	patch(DIRECTORY_OFFSET + sizeof(struct segment_entry) +
		      offsetof(struct segment_entry, value_cell),
	      &zero, sizeof(zero));
	segment_writer_close(writer_open(false));
}

static void test_other_shape_and_foreign_files(void **state)
{
	struct segment_options o = options();
	struct segment_writer *w = NULL;
	bool continued = true;
	struct err e = {0};

	(void)state;
	make_file();
	o.series++;
	assert_int_equal(segment_writer_open(&o, &w, &continued, NULL), 0);
	assert_false(continued);
	assert_true(*segment_writer_reason(w));
	segment_writer_close(w);

	make_file();
	assert_int_equal(chmod(path, 0660), 0);
	w = writer_open(false);
	assert_non_null(strstr(segment_writer_reason(w), "others may write"));
	segment_writer_close(w);

	unlink(path);
	assert_int_equal(symlink("/etc/passwd", path), 0);
	segment_writer_close(writer_open(false));

	unlink(path);
	assert_int_equal(mkdir(path, 0700), 0);
	w = NULL;
	assert_true(segment_writer_open(&o, &w, &continued, &e) < 0);
	assert_null(w);
	assert_non_null(strstr(e.text, path));
	assert_int_equal(rmdir(path), 0);

	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(segment_writer_open(&o, &w, &continued, NULL), -EINVAL);

	o = options();
	o.histograms = 33;
	assert_int_equal(segment_writer_open(&o, &w, &continued, NULL), -EINVAL);
	o = options();
	o.series = o.histograms = 1u << 20;
	assert_int_equal(segment_writer_open(&o, &w, &continued, NULL), -E2BIG);
}

static void test_second_writer(void **state)
{
	struct segment_writer *w = writer_open(false), *second = NULL;
	struct segment_options o = options();
	struct err e = {0};
	bool continued;

	(void)state;
	assert_int_equal(segment_writer_open(&o, &second, &continued, &e), -EBUSY);
	assert_null(second);
	assert_non_null(strstr(e.text, path));
	/* Not even once the file is gone: the new one would have two writers. */
	unlink(path);
	assert_int_equal(segment_writer_open(&o, &second, &continued, NULL), -EBUSY);
	segment_writer_close(w);
	segment_writer_close(writer_open(false));
	segment_writer_close(writer_open(true));
}

/* Whoever may read the segment may lock it, and must not keep the agent from starting by that. */
static void test_readers_cannot_lock_out(void **state)
{
	char lock[128];
	struct segment_options o = options();
	struct segment_writer *w = NULL;
	bool continued;
	struct stat st;
	int fd;

	(void)state;
	make_file();
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
	segment_writer_close(writer_open(true));
	close(fd);
	snprintf(lock, sizeof(lock), "%s.lock", path);
	assert_int_equal(stat(lock, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	/* A lock that others can open is no lock. */
	assert_int_equal(chmod(lock, 0644), 0);
	assert_int_equal(segment_writer_open(&o, &w, &continued, NULL), -EPERM);
	unlink(lock);
	assert_int_equal(symlink("/etc/passwd", lock), 0);
	assert_int_equal(segment_writer_open(&o, &w, &continued, NULL), -ELOOP);
	unlink(lock);
}

static void test_removed_file_comes_back(void **state)
{
	struct segment_writer *w = writer_open(false);
	int i = series(w, &counter, "200");
	uint64_t life = segment_writer_header(w)->life;
	char lock[128];
	struct segment_reader *r;

	(void)state;
	segment_writer_tick_begin(w);
	segment_writer_counter(w, i, 41);
	segment_writer_tick_end(w, 1, 1, 1);
	assert_true(life != 0);
	assert_int_equal(segment_writer_keep(w, NULL), 0);
	snprintf(lock, sizeof(lock), "%s.lock", path);
	unlink(path);
	unlink(lock);
	assert_int_equal(segment_writer_keep(w, NULL), 1);
	assert_int_equal(segment_writer_keep(w, NULL), 0);
	assert_int_equal(access(lock, F_OK), 0);
	/* It is the same segment, and goes on. */
	segment_writer_tick_begin(w);
	segment_writer_counter(w, i, 42);
	segment_writer_tick_end(w, 2, 2, 1);
	r = reader_open();
	assert_int_equal(series_read(r, i).counter, 42);
	assert_true(segment_reader_header(r)->life == life);
	segment_reader_close(r);
	segment_writer_close(w);
	w = writer_open(true);
	assert_true(segment_writer_header(w)->life == life);
	segment_writer_close(w);
	unlink(path);
	w = writer_open(false);
	assert_true(segment_writer_header(w)->life != life);
	segment_writer_close(w);
}

static void test_limits(void **state)
{
	const char *many[SEGMENT_LABELS_MAX + 1][2];
	struct segment_writer *w = writer_open(false);
	struct segment_options o = options();
	char value[32], longer[3000];
	unsigned int n = 0;
	uint64_t used;

	(void)state;
	for (int i = 0; i < 5; i++) {
		snprintf(value, sizeof(value), "%d", i);
		assert_int_equal(series(w, &histogram, value), i < 4 ? i : -ENOSPC);
	}
	for (size_t i = 0; i < ARRAY_LEN(many); i++) {
		many[i][0] = "k";
		many[i][1] = "v";
	}
	assert_int_equal(segment_writer_series(w, &counter, many, ARRAY_LEN(many)), -ENOSPC);
	assert_int_equal(segment_writer_series(w, &counter, many, ARRAY_LEN(many) - 1), 4);
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	assert_int_equal(series(w, &counter, longer), 5);
	longer[0] = 'y';
	assert_int_equal(series(w, &counter, longer), -ENOSPC); /* the heap */
	assert_int_equal(segment_writer_header(w)->refused, 3);
	/* Equal strings lie in the heap once. */
	used = segment_writer_header(w)->heap_used;
	assert_int_equal(series(w, &gauge, "0"), 6);
	assert_int_equal(segment_writer_header(w)->heap_used - used,
			 sizeof("t_gauge") + sizeof("bytes") + sizeof("A gauge."));
	for (n = 7; n < o.series; n++) {
		snprintf(value, sizeof(value), "%u", n);
		assert_int_equal(series(w, &counter, value), n);
	}
	assert_int_equal(series(w, &counter, "one more"), -ENOSPC);
	assert_int_equal(series(w, &counter, value), n - 1);
	assert_int_equal(segment_writer_header(w)->epoch & 1, 0);
	for (int i = 0; i <= SEGMENT_GATEWAYS; i++) {
		snprintf(value, sizeof(value), "h/%d", i);
		assert_int_equal(segment_writer_gateway(w, "g", value),
				 i < SEGMENT_GATEWAYS ? i : -ENOSPC);
	}
	segment_writer_close(w);
}

static void test_gateways(void **state)
{
	struct segment_writer *w = writer_open(false);
	struct segment_reader *r;
	char first[201], second[201];
	int a, b;

	(void)state;
	memset(first, 'p', 200);
	memset(second, 'p', 200);
	first[199] = '1';
	second[199] = '2';
	first[200] = second[200] = '\0';
	a = segment_writer_gateway(w, "g", first);
	b = segment_writer_gateway(w, "g", second);
	assert_int_equal(a, 0);
	assert_int_equal(b, 1);
	assert_int_equal(segment_writer_gateway(w, "g", first), a);
	segment_writer_change_begin(w);
	segment_writer_gateway_at(w, 0)->state = SEGMENT_GATEWAY_LIVE;
	segment_writer_change_end(w);
	segment_writer_tick_begin(w);
	segment_writer_gateway_at(w, 0)->in_flight = 3;
	segment_writer_tick_end(w, 1, 1, 1);
	tick_counter(w, series(w, &counter, "1"), 5);
	r = reader_open();
	assert_int_equal(segment_reader_gateways(r), 2);
	assert_int_equal(segment_reader_gateway(r, 0)->in_flight, 3);
	assert_int_equal(segment_reader_gateway(r, 0)->state, SEGMENT_GATEWAY_LIVE);
	assert_int_equal(segment_reader_gateway(r, 1)->state, SEGMENT_GATEWAY_FREE);
	assert_int_equal(strlen(segment_reader_gateway(r, 0)->instance), 63);
	assert_null(segment_reader_gateway(r, 2));
	/* Gateways alone: the numbers are new, the series are those of before. */
	segment_writer_tick_begin(w);
	segment_writer_gateway_at(w, 0)->in_flight = 1;
	segment_writer_counter(w, 0, 6);
	segment_writer_tick_end(w, 77, 1, 1);
	assert_int_equal(segment_reader_refresh_gateways(r, NULL), 0);
	assert_int_equal(segment_reader_gateway(r, 0)->in_flight, 1);
	assert_int_equal(segment_reader_header(r)->tick_mono_ns, 77);
	assert_int_equal(series_read(r, 0).counter, 5);
	segment_reader_close(r);
	segment_writer_close(w);
}

static void test_reader_follows_the_path(void **state)
{
	struct segment_writer *w = writer_open(false);
	struct segment_reader *r = NULL;
	struct segment_options o = options();
	unsigned int generation;
	struct err e = {0};
	char other[128];
	bool continued;

	(void)state;
	tick_counter(w, series(w, &counter, "1"), 5);
	r = reader_open();
	generation = segment_reader_generation(r);
	assert_int_equal(segment_reader_refresh(r, NULL), 0);
	assert_int_equal(segment_reader_generation(r), generation);
	segment_writer_close(w);

	snprintf(other, sizeof(other), "%s.other", path);
	o.path = other;
	assert_int_equal(segment_writer_open(&o, &w, &continued, NULL), 0);
	tick_counter(w, series(w, &counter, "2"), 1);
	assert_int_equal(rename(other, path), 0);
	snprintf(other, sizeof(other), "%s.other.lock", path);
	unlink(other);
	assert_int_equal(segment_reader_refresh(r, NULL), 0);
	assert_int_equal(segment_reader_generation(r), generation + 1);
	assert_string_equal(series_read(r, 0).labels[1].value, "2");
	segment_writer_close(w);

	/* The copy of the last success survives every failure. */
	assert_int_equal(truncate(path, 5000), 0);
	assert_int_equal(segment_reader_refresh(r, &e), -EBADMSG);
	assert_non_null(strstr(e.text, path));
	assert_int_equal(truncate(path, 100), 0);
	assert_int_equal(segment_reader_refresh(r, NULL), -EBADMSG);
	assert_int_equal(segment_reader_refresh_gateways(r, NULL), -EBADMSG);
	unlink(path);
	assert_int_equal(segment_reader_refresh(r, NULL), -ENOENT);
	assert_string_equal(series_read(r, 0).labels[1].value, "2");
	assert_int_equal(segment_reader_open(path, &r, NULL), -ENOENT);
	segment_reader_close(r);
	r = NULL;
	assert_int_equal(symlink("/dev/zero", path), 0);
	assert_int_equal(segment_reader_open(path, &r, NULL), -EBADMSG);
	unlink(path);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(segment_reader_open(path, &r, NULL), -EBADMSG);
	assert_null(r);
}

static void test_disk_is_refused(void **state)
{
	struct segment_options o = options();
	struct segment_writer *w = NULL;
	bool continued;
	struct err e = {0};

	(void)state;
	o.path = "/proc/host.seg";
	assert_int_equal(segment_writer_open(&o, &w, &continued, &e), -ENOTSUP);
	assert_non_null(strstr(e.text, "tmpfs"));
	o.path = "/nonexistent/host.seg";
	assert_int_equal(segment_writer_open(&o, &w, &continued, NULL), -ENOENT);
}

/* Exit codes of the child that mounts a small tmpfs: 0 right, 1 wrong, 77 may not mount. */
static int full_child(void)
{
	struct segment_options o = options();
	struct segment_writer *w = NULL;
	char small[128];
	bool continued;

	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", "", MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("none", dir, "tmpfs", 0, "size=32k") < 0)
		return 77;
	snprintf(small, sizeof(small), "%s/small.seg", dir);
	o.path = small;
	if (segment_writer_open(&o, &w, &continued, NULL) != -ENOSPC)
		return 1;
	/* Nothing is left behind either. */
	return rmdir(dir) < 0 && errno == EBUSY && access(small, F_OK) < 0 ? 0 : 1;
}

static void test_full_tmpfs(void **state)
{
	int status = 0;
	pid_t pid = fork();

	(void)state;
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(full_child());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip(); /* mounting needs CAP_SYS_ADMIN */
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_round_trip, setup),
		cmocka_unit_test_setup(test_continue_and_rebase, setup),
		cmocka_unit_test_setup(test_continue_after_death, setup),
		cmocka_unit_test_setup(test_damage, setup),
		cmocka_unit_test_setup(test_random_damage, setup),
		cmocka_unit_test_setup(test_overlapping_cells_are_not_continued, setup),
		cmocka_unit_test_setup(test_other_shape_and_foreign_files, setup),
		cmocka_unit_test_setup(test_second_writer, setup),
		cmocka_unit_test_setup(test_readers_cannot_lock_out, setup),
		cmocka_unit_test_setup(test_removed_file_comes_back, setup),
		cmocka_unit_test_setup(test_limits, setup),
		cmocka_unit_test_setup(test_gateways, setup),
		cmocka_unit_test_setup(test_increment_and_absent_all, setup),
		cmocka_unit_test_setup(test_reader_follows_the_path, setup),
		cmocka_unit_test_setup(test_disk_is_refused, setup),
		cmocka_unit_test_setup(test_full_tmpfs, setup),
	};
	char lock[128];
	int failed;

	snprintf(dir, sizeof(dir), "/dev/shm/tidegate-segment-XXXXXX");
	if (!mkdtemp(dir))
		return 1;
	snprintf(path, sizeof(path), "%s/t.seg", dir);
	snprintf(lock, sizeof(lock), "%s.lock", path);
	cmocka_set_message_output(CM_OUTPUT_TAP);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(path);
	unlink(lock);
	rmdir(dir);
	return failed;
}
