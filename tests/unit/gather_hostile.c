/* SPDX-License-Identifier: Apache-2.0 */
/* Files in app/ that somebody made to do harm: every field wrong, before and after it was believed,
 * files that shrink, vanish, are copied, linked and planted by the hundred. */
#include "segment/gather.h"

#include "segment/gather_file.h"
#include "tidegate.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "gatherer.h"

#define IMAGE_BYTES 65536

/* A file of a process with a counter, a gauge and a histogram, and where its name is. */
static unsigned char image[IMAGE_BYTES];
static char planted[160];

static char told_gateway[SEGMENT_NAME_BYTES];

static bool owner(void *data, const struct gather_writer *w, struct gather_owner *ret)
{
	(void)data;
	strcpy(told_gateway, w->gateway);
	if (w->uid != getuid() || strcmp(w->gateway, "nobody") == 0)
		return false;
	strcpy(ret->gateway, "nginx");
	ret->instance[0] = '\0';
	return true;
}

static void agent_start(unsigned int files)
{
	const struct gather_options g = {
		.dir = app_dir, .files = files, .bytes = 64 << 20, .owner = owner};

	gatherer_start(1024, 1 << 18, &g);
}

/* Value of a series; -1: not there. */
static double value_of(const char *name)
{
	return value_where(name, NULL, NULL);
}

static uint64_t refused(enum gather_refusal why)
{
	struct gather_stats s;

	gather_stats(gather, &s);
	return s.refused[why];
}

static struct gather_stats stats(void)
{
	struct gather_stats s;

	gather_stats(gather, &s);
	return s;
}

static struct tidegate *gateway_open(uint32_t series, const char *gateway)
{
	const struct tidegate_options o = {.size = sizeof(o),
					   .runtime_dir = dir,
					   .series = series,
					   .histograms = 2,
					   .gateway = gateway};
	struct tidegate *t;

	assert_int_equal(tidegate_open(&o, &t), 0);
	return t;
}

static uint64_t *counter(struct tidegate *t, const char *name)
{
	struct tidegate_metric *m;
	uint64_t *cell;

	assert_int_equal(tidegate_counter(t, name, "help", NULL, 0, &m), 0);
	tidegate_with(m, NULL, &cell);
	return cell;
}

static const char *name_of(const void *header, char buf[160])
{
	const struct segment_header *h = header;

	snprintf(buf, 160, "%s/%" PRIu32 "-%016" PRIx64 ".seg", app_dir, h->writer_pid, h->life);
	return buf;
}

/* The only file there is, as bytes. */
static void image_take(void)
{
	const char *const labels[] = {"route"}, *const values[] = {"/pay"};
	struct tidegate *t = gateway_open(32, "");
	struct tidegate_metric *m;
	uint64_t *cell;
	char path[160];
	int fd;

	assert_int_equal(tidegate_counter(t, "a_total", "help", labels, 1, &m), 0);
	assert_int_equal(tidegate_with(m, values, &cell), 0);
	tidegate_add(cell, 7);
	assert_int_equal(tidegate_histogram(t, "b_seconds", "help", NULL, 0, &m), 0);
	assert_int_equal(tidegate_with(m, NULL, &cell), 0);
	tidegate_observe_ns(cell, 5);
	assert_int_equal(tidegate_gauge(t, "c", "help", TIDEGATE_SUM, NULL, 0, &m), 0);
	assert_int_equal(tidegate_with(m, NULL, &cell), 0);
	tidegate_set(cell, 2.5);
	snprintf(path, sizeof(path), "cp %s/*.seg %s/image", app_dir, dir);
	assert_int_equal(system(path), 0);
	snprintf(path, sizeof(path), "%s/image", dir);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(read(fd, image, sizeof(image)) > 16384);
	close(fd);
	assert_int_equal(unlink(name_of(image, path)), 0);
	tidegate_close(t);
}

static int setup(void **state)
{
	(void)state;
	if (gatherer_setup("/dev/shm/tidegate-hostile-XXXXXX") < 0)
		return -1;
	memset(image, 0, sizeof(image));
	image_take();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	return gatherer_teardown();
}

/* Writes the image under its name, as a writer that lives (locked) or is dead (-1 then). */
static int plant(const void *bytes, bool is_alive)
{
	int fd = open(name_of(bytes, planted), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
	assert_true(pwrite(fd, bytes, IMAGE_BYTES, 0) == IMAGE_BYTES);
	if (is_alive)
		return fd;
	close(fd);
	return -1;
}

static void patch(int fd, size_t at, uint64_t value, size_t size)
{
	assert_true(pwrite(fd, &value, size, (off_t)at) == (ssize_t)size);
}

struct damage {
	const char *field;
	size_t at, size;
	uint64_t value;
	const char *why; /* what the reason must say; NULL: an entry, which is left out alone */
};

#define HEADER(f, v, w)                                                                          \
	{                                                                                        \
#f, offsetof(struct segment_header, f), sizeof(((struct segment_header *)0)->f), \
			(uint64_t)(v), w                                                         \
	}
#define ENTRY(f, v)                                                                            \
	{                                                                                      \
#f, offsetof(struct segment_entry, f), sizeof(((struct segment_entry *)0)->f), \
			(uint64_t)(v), NULL                                                    \
	}

static const struct damage header_damages[] = {
	HEADER(magic, 0, "no magic"),
	HEADER(magic, 0x5449444553454731, "no magic"),
	HEADER(version, 1, "version 1"),
	HEADER(version, 3, "version 3"),
	HEADER(version, 0x02000000, "version"),
	HEADER(header_bytes, 0, "damaged"),
	HEADER(header_bytes, 4095, "damaged"),
	HEADER(endian, 0x04030201, "other byte order"),
	HEADER(endian, 0, "byte order"),
	HEADER(kind, 0, "kind 0"),
	HEADER(kind, SEGMENT_HOST, "kind 1"),
	HEADER(kind, SEGMENT_APP, "kind 2"),
	HEADER(kind, 4, "kind 4"),
	HEADER(total_bytes, 0, "damaged"),
	HEADER(total_bytes, 4095, "damaged"),
	HEADER(total_bytes, IMAGE_BYTES + 1, "damaged"),
	HEADER(total_bytes, UINT64_MAX, "damaged"),
	HEADER(writer_pid, 0x7fffffff, "under the name"),
	HEADER(epoch, 1, "as a process writes"),
	HEADER(epoch, 2, "as a process writes"),
	HEADER(tick_seq, 1, "as a process writes"),
	HEADER(maps_id, 9, "as a process writes"),
	HEADER(gateways_offset, UINT64_MAX, "gateway records"),
	HEADER(gateways_offset, 8, "gateway records"),
	HEADER(gateways_capacity, 1, "as a process writes"),
	HEADER(gateways_capacity, 65, "gateway records"),
	HEADER(gateways_count, 1, "gateway records"),
	HEADER(directory_offset, 0, "directory"),
	HEADER(directory_offset, 4097, "directory"),
	HEADER(directory_offset, UINT64_MAX - 7, "directory"),
	HEADER(directory_offset, IMAGE_BYTES, "directory"),
	HEADER(directory_capacity, 0, "directory"),
	HEADER(directory_capacity, UINT32_MAX, "directory"),
	HEADER(directory_count, 33, "directory"),
	HEADER(directory_count, UINT32_MAX, "directory"),
	HEADER(heap_offset, 0, "heap"),
	HEADER(heap_offset, UINT64_MAX - 7, "heap"),
	HEADER(heap_capacity, 0, "heap"),
	HEADER(heap_capacity, UINT64_MAX, "heap"),
	HEADER(heap_used, UINT64_MAX, "heap"),
	HEADER(cells_offset, 3, "cells"),
	HEADER(cells_offset, UINT64_MAX - 7, "cells"),
	HEADER(cells_capacity, 0, "cells"),
	HEADER(cells_capacity, UINT64_MAX / 8 + 1, "cells"),
	HEADER(cells_used, UINT64_MAX, "cells"),
	HEADER(hist_cells, 0, "histograms of 0"),
	HEADER(hist_cells, 324, "histograms of 324"),
	HEADER(thresholds_offset, 0, "thresholds"),
	HEADER(thresholds_offset, UINT64_MAX - 7, "thresholds"),
	HEADER(life, 0, "under the name"),
	HEADER(life, 1, "under the name"),
};

static const struct damage entry_damages[] = {
	ENTRY(state, 0),
	ENTRY(state, 3),
	ENTRY(kind, 3),
	ENTRY(kind, 255),
	ENTRY(kind, METRIC_HISTOGRAM),
	ENTRY(merge, 3),
	ENTRY(scope, 200),
	ENTRY(name_offset, UINT32_MAX),
	ENTRY(name_offset, 9),
	ENTRY(name_bytes, 0),
	ENTRY(name_bytes, 3),
	ENTRY(name_bytes, UINT32_MAX),
	ENTRY(unit_offset, UINT32_MAX),
	ENTRY(unit_bytes, 1),
	ENTRY(unit_bytes, UINT32_MAX),
	ENTRY(help_offset, UINT32_MAX),
	ENTRY(help_bytes, UINT32_MAX),
	ENTRY(labels_offset, UINT32_MAX),
	ENTRY(labels_bytes, 5),
	ENTRY(labels_bytes, 1),
	ENTRY(labels_bytes, UINT32_MAX),
	ENTRY(value_cell, UINT64_MAX),
	ENTRY(value_cell, UINT64_MAX - 322),
	ENTRY(value_cell, 1 << 20),
	ENTRY(cell_count, 0),
	ENTRY(cell_count, 323),
	ENTRY(cell_count, UINT32_MAX),
};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static void copy_damaged(unsigned char *to, const struct damage *d, size_t at)
{
	memcpy(to, image, IMAGE_BYTES);
	memcpy(to + at + d->at, &d->value, d->size);
}

/* Before it is believed: refused for the right reason, counted once, taken away when its writer ends. */
static void test_header_fields(void **state)
{
	static unsigned char bytes[IMAGE_BYTES];
	struct gather_file f;

	(void)state;
	agent_start(8);
	for (size_t i = 0; i < COUNT(header_damages); i++) {
		const struct damage *d = &header_damages[i];
		uint64_t before = refused(GATHER_DAMAGED);
		struct err e = {0};
		int fd, at;

		copy_damaged(bytes, d, 0);
		fd = plant(image, true);
		patch(fd, 0, *(uint64_t *)bytes, 8);
		assert_true(pwrite(fd, bytes, IMAGE_BYTES, 0) == IMAGE_BYTES);
		at = open(app_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (gather_file_open(at, strrchr(planted, '/') + 1, 64 << 20, &f, &e) != -EBADMSG ||
		    !strstr(e.text, d->why))
			fail_msg("%s %" PRIx64 ": \"%s\"", d->field, d->value, e.text);
		gather_file_close(&f);
		close(at);
		tick();
		tick();
		if (refused(GATHER_DAMAGED) != before + 1 || stats().files)
			fail_msg("%s %" PRIx64 ": counted %" PRIu64, d->field, d->value,
				 refused(GATHER_DAMAGED) - before);
		close(fd);
		tick();
		if (access(planted, F_OK) == 0)
			fail_msg("%s: still there", d->field);
	}
	assert_true(value_of("a_total") == -1);
}

static size_t entry_at(void)
{
	struct segment_header h;

	memcpy(&h, image, sizeof(h));
	return h.directory_offset;
}

static void test_entry_fields(void **state)
{
	static unsigned char bytes[IMAGE_BYTES];

	(void)state;
	for (size_t i = 0; i < COUNT(entry_damages); i++) {
		const struct damage *d = &entry_damages[i];

		agent_start(8);
		copy_damaged(bytes, d, entry_at());
		plant(bytes, false);
		tick();
		/* Only the one that is wrong is left out. */
		if (refused(GATHER_DAMAGED) != 1 || value_of("a_total") != -1 ||
		    value_of("b_seconds") != 1)
			fail_msg("%s %" PRIx64, d->field, d->value);
		assert_int_equal(stats().folded, 1);
		agent_stop();
		unlink(app_path);
	}
	agent_start(8);
}

/* The header changes after it was believed: what it counted stays, the others go on. */
static void test_header_changes_later(void **state)
{
	static unsigned char bytes[IMAGE_BYTES];
	struct tidegate *t;
	uint64_t *cell, n = 0;

	(void)state;
	agent_start(8);
	t = gateway_open(32, "");
	cell = counter(t, "good_total");
	for (size_t i = 0; i < COUNT(header_damages); i++) {
		const struct damage *d = &header_damages[i];
		uint64_t before = refused(GATHER_DAMAGED);
		int fd;

		fd = plant(image, true);
		tick();
		assert_int_equal(stats().files, 2);
		copy_damaged(bytes, d, 0);
		assert_true(pwrite(fd, bytes, IMAGE_BYTES, 0) == IMAGE_BYTES);
		tidegate_inc(cell);
		n++;
		tick();
		if (strcmp(d->field, "writer_pid") != 0 && refused(GATHER_DAMAGED) != before + 1)
			fail_msg("%s %" PRIx64, d->field, d->value);
		assert_true(value_of("good_total") == (double)n);
		assert_true(value_of("a_total") == 7);
		close(fd);
		tick();
		assert_int_not_equal(access(planted, F_OK), 0);
	}
	tidegate_close(t);
}

/* The directory changes after it was believed: nobody looks at it again. */
static void test_entry_changes_later(void **state)
{
	size_t at = entry_at();
	int fd;

	(void)state;
	agent_start(8);
	fd = plant(image, true);
	tick();
	for (size_t i = 0; i < COUNT(entry_damages); i++) {
		const struct damage *d = &entry_damages[i];

		patch(fd, at + d->at, d->value, d->size);
		patch(fd, at + offsetof(struct segment_entry, kind), METRIC_HISTOGRAM, 1);
		patch(fd, at + offsetof(struct segment_entry, cell_count), HIST_CELLS, 4);
		tick();
		assert_true(value_of("a_total") == 7);
		assert_true(value_of("b_seconds") == 1);
		assert_true(value_of("c") == 2.5);
	}
	close(fd);
	tick();
	assert_int_equal(stats().folded, 1);
	assert_true(value_of("a_total") == 7);
	assert_true(value_of("b_seconds") == 1);
}

static void test_shrinks_while_it_is_read(void **state)
{
	static const off_t sizes[] = {IMAGE_BYTES - 1, 20000, 8192, 4096, 700, 1, 0};
	int fd;

	(void)state;
	for (size_t i = 0; i < COUNT(sizes); i++) {
		agent_start(8);
		fd = plant(image, true);
		tick();
		assert_true(value_of("a_total") == 7);
		gather_collect(gather, clock_mono_ns());
		assert_int_equal(ftruncate(fd, sizes[i]), 0);
		segment_writer_tick_begin(writer);
		gather_write(gather);
		segment_writer_tick_end(writer, 1, 1, NS_PER_S);
		tick();
		assert_true(value_of("a_total") == 7);
		close(fd);
		tick();
		tick();
		assert_int_not_equal(access(planted, F_OK), 0);
		assert_true(value_of("a_total") == 7);
		agent_stop();
		unlink(app_path);
	}
	agent_start(8);
}

/* Somebody empties app/ while a gateway counts. */
static void test_removed_file_counts_on(void **state)
{
	struct tidegate *t;
	uint64_t *cell;
	char command[160];

	(void)state;
	agent_start(8);
	t = gateway_open(32, "");
	cell = counter(t, "orders_total");
	tidegate_add(cell, 100);
	tick();
	for (unsigned int i = 0; i < 3; i++) {
		snprintf(command, sizeof(command), "rm %s/*.seg", app_dir);
		assert_int_equal(system(command), 0);
		tidegate_inc(cell);
		tick();
		assert_true(value_of("orders_total") == 101 + 2 * i);
		tidegate_inc(cell);
		assert_int_equal(tidegate_heartbeat(t), 0);
		tick();
		assert_true(value_of("orders_total") == 102 + 2 * i);
		assert_int_equal(stats().files, 1);
	}
	/* It ends without a file under its name, and while nobody looks. */
	assert_int_equal(system(command), 0);
	tidegate_inc(cell);
	tidegate_close(t);
	tick();
	assert_true(value_of("orders_total") == 107);
	assert_int_equal(stats().folded, 1);
	assert_int_equal(refused(GATHER_DAMAGED), 0);
}

/* A copy or a second link of a file counts nothing; what is no file is not looked into. */
static void test_one_file_counts_once(void **state)
{
	struct tidegate *t;
	char command[512];

	(void)state;
	agent_start(8);
	t = gateway_open(32, "");
	tidegate_add(counter(t, "orders_total"), 100);
	snprintf(
		command, sizeof(command),
		"cd %s && for f in *.seg; do cp $f 1-0123456789abcdef.seg; ln $f "
		"2-0123456789abcdef.seg; ln -s $f 3-0123456789abcdef.seg; cp $f 'x\n-1.seg'; done; "
		"mkfifo 4-0123456789abcdef.seg; mkdir 5-0123456789abcdef.seg; "
		": >6-0123456789abcdef.seg; echo hello >7-0123456789abcdef.seg",
		app_dir);
	assert_int_equal(system(command), 0);
	for (unsigned int i = 0; i < 4; i++) {
		tick();
		assert_true(value_of("orders_total") == 100);
		assert_int_equal(stats().files, 1);
	}
	tidegate_close(t);
	for (unsigned int i = 0; i < 4; i++)
		tick();
	assert_true(value_of("orders_total") == 100);
	assert_int_equal(stats().folded, 1);
	/* Each was counted once: the copy, the symbolic link, the strange name, the fifo, the
	 * folder, the empty one, the text; the link when its file was gone, and before that if it
	 * was found before it. */
	assert_in_range(refused(GATHER_DAMAGED), 8, 9);
}

/* Another user's file takes the name of ours. */
static void test_name_taken_by_another_user(void **state)
{
	struct segment_header h;
	char other[160];
	int fd, theirs;

	(void)state;
	if (geteuid() != 0)
		skip(); /* cannot make a file of another user */
	agent_start(8);
	fd = plant(image, true);
	tick();
	assert_true(value_of("a_total") == 7);
	snprintf(other, sizeof(other), "%s/other", dir);
	memcpy(&h, image, sizeof(h));
	memcpy(image + h.cells_offset, &(uint64_t){1000}, sizeof(uint64_t));
	theirs = open(other, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
	assert_true(pwrite(theirs, image, IMAGE_BYTES, 0) == IMAGE_BYTES);
	assert_int_equal(flock(theirs, LOCK_EX | LOCK_NB), 0);
	assert_int_equal(chown(other, 65534, 65534), 0);
	assert_int_equal(rename(other, planted), 0);
	tick();
	assert_true(value_of("a_total") == 7);
	close(fd);
	tick();
	tick();
	assert_true(value_of("a_total") == 7);
	assert_int_equal(stats().folded, 1);
	close(theirs);
}

/* Hundreds of living files that belong to no gateway, and a user that has more than its share. */
static void test_nobody_takes_the_places(void **state)
{
	struct tidegate *crowd[40], *ours;
	struct gather_stats s;

	(void)state;
	agent_start(4);
	for (unsigned int i = 0; i < COUNT(crowd); i++)
		crowd[i] = gateway_open(16, "nobody");
	ours = gateway_open(16, "");
	tidegate_add(counter(ours, "orders_total"), 5);
	for (unsigned int i = 0; i < 3; i++)
		tick();
	assert_true(value_of("orders_total") == 5);
	assert_int_equal(stats().files, 1);
	for (unsigned int i = 0; i < COUNT(crowd); i++)
		tidegate_close(crowd[i]);
	/* Nobody claims them: kept for a while, then counted and removed. */
	tick();
	assert_int_equal(refused(GATHER_OWNER), 0);
	tick_at(clock_mono_ns() + GATHER_OWNER_NS + NS_PER_S);
	assert_int_equal(refused(GATHER_OWNER), COUNT(crowd));
	assert_true(value_of("orders_total") == 5);
	/* One user has three of four places; the fourth is for others. */
	for (unsigned int i = 0; i < 5; i++)
		crowd[i] = gateway_open(16, "");
	for (unsigned int i = 0; i < 3; i++)
		tick();
	s = stats();
	assert_int_equal(s.files, 3);
	assert_int_equal(s.refused[GATHER_FILES], 3);
	for (unsigned int i = 0; i < 5; i++) {
		tidegate_add(counter(crowd[i], "orders_total"), 10);
		tidegate_close(crowd[i]);
	}
	/* Those that wait are dead and find a place: nothing is lost. */
	for (unsigned int i = 0; i < 4; i++)
		tick();
	assert_true(value_of("orders_total") == 55);
	tidegate_close(ours);
}

/* More series than app.seg has, than are looked at in a tick, and from a writer that is gone. */
static void test_too_many_series(void **state)
{
	const char *const labels[] = {"route"};
	struct tidegate *t;
	struct tidegate_metric *m;
	unsigned int n = GATHER_NEW_SERIES + 5000;
	struct segment_series s;
	double total = 0;

	(void)state;
	agent_start(8);
	t = gateway_open(n + n / 8, "");
	assert_int_equal(tidegate_counter(t, "a_total", "", labels, 1, &m), 0);
	for (unsigned int i = 0; i < n; i++) {
		char value[16];
		const char *const values[] = {value};
		uint64_t *cell;

		snprintf(value, sizeof(value), "/%u", i);
		assert_int_equal(tidegate_with(m, values, &cell), 0);
		tidegate_inc(cell);
	}
	tidegate_close(t);
	tick();
	assert_int_equal(stats().folded, 0);
	tick();
	assert_int_equal(stats().folded, 1);
	value_of("a_total");
	for (unsigned int i = 0; i < segment_reader_series_count(reader); i++)
		if (segment_reader_series(reader, i, &s) && strcmp(s.name, "a_total") == 0)
			total += (double)s.counter;
	assert_true(total == n);
	assert_true(segment_writer_header(writer)->directory_count < 1000);
	assert_int_equal(refused(GATHER_SERIES), n - (segment_reader_series_count(reader) - 1));
}

static void test_gauge_without_value(void **state)
{
	struct tidegate *t;
	struct tidegate_metric *m;
	uint64_t *cell;

	(void)state;
	agent_start(8);
	t = gateway_open(16, "");
	assert_int_equal(tidegate_gauge(t, "depth", "", TIDEGATE_SUM, NULL, 0, &m), 0);
	assert_int_equal(tidegate_with(m, NULL, &cell), 0);
	tidegate_set(cell, __builtin_nan(""));
	tick();
	assert_true(value_of("depth") == -1);
	tidegate_set(cell, 3);
	tick();
	assert_true(value_of("depth") == 3);
	tidegate_close(t);
}

/* What a script says is shown on terminals, and has its share of the room for names. */
static void test_texts_are_cleaned(void **state)
{
	static uint64_t bytes[IMAGE_BYTES / sizeof(uint64_t)];
	struct segment_header *h = (void *)bytes;
	struct segment_entry *d;
	struct segment_series s;
	unsigned int found = 0;
	char *help;
	int fd;

	(void)state;
	memcpy(bytes, image, sizeof(bytes));
	d = (void *)((char *)bytes + h->directory_offset);
	help = (char *)bytes + h->heap_offset + h->heap_used;
	d[0].help_offset = (uint32_t)h->heap_used;
	d[0].help_bytes = 8009;
	memset(help, 'h', 8009);
	memcpy(help, "\033\302\233\377\n\303\244", 7);
	help[8009] = '\0';
	h->heap_used += 8010;
	strcpy(h->gateway, "a\033[2J\377");
	agent_start(8);
	fd = plant(bytes, true);
	tick();
	assert_string_equal(told_gateway, "a?[2J?");
	assert_true(value_of("a_total") == 7);
	for (unsigned int i = 0; i < segment_reader_series_count(reader); i++) {
		if (!segment_reader_series(reader, i, &s) || strcmp(s.name, "a_total") != 0)
			continue;
		found++;
		assert_memory_equal(s.help, "????\303\244hhh", 9);
		assert_int_equal(strlen(s.help), 512);
	}
	assert_int_equal(found, 1);
	assert_true(segment_writer_header(writer)->heap_used < 2048);
	close(fd);
}

/* In a pid namespace of its own every gateway's worker is process 2. */
static void test_pid_namespaces(void **state)
{
	pid_t inits[3];
	int ready[2];
	char byte;

	(void)state;
	if (geteuid() != 0)
		skip(); /* cannot make a pid namespace */
	agent_start(8);
	assert_int_equal(pipe(ready), 0);
	for (unsigned int i = 0; i < COUNT(inits); i++) {
		inits[i] = fork();
		if (inits[i] == 0) {
			if (unshare(CLONE_NEWPID) < 0 || fork() != 0) {
				wait(NULL);
				_exit(0);
			}
			tidegate_add(counter(gateway_open(16, ""), "orders_total"), 10);
			if (write(ready[1], "x", 1) == 1 && fork() == 0)
				_exit(getpid() == 2 ? 0 : 1);
			pause();
			_exit(1);
		}
		assert_int_equal(read(ready[0], &byte, 1), 1);
	}
	tick();
	assert_int_equal(stats().files, 3);
	assert_true(value_of("orders_total") == 30);
	for (unsigned int i = 0; i < COUNT(inits); i++) {
		char command[64];

		/* Process 1 of the namespace ends, and all in it. */
		snprintf(command, sizeof(command), "kill -9 $(cat /proc/%d/task/%d/children)",
			 (int)inits[i], (int)inits[i]);
		assert_int_equal(system(command), 0);
		waitpid(inits[i], NULL, 0);
		tick();
		assert_int_equal(stats().files, 2 - i);
		assert_int_equal(stats().folded, i + 1);
		assert_true(value_of("orders_total") == 30);
	}
	close(ready[0]);
	close(ready[1]);
}

/* On a tmpfs that is full the writer hears of it, counts in memory of its own, and no store faults. */
static int full_child(void)
{
	uint64_t *cell;
	struct tidegate *t;
	char path[160];
	int fd;

	if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount("none", app_dir, "tmpfs", 0, "size=128k") < 0)
		return 77;
	t = gateway_open(10000, "");
	if (!strstr(tidegate_error(), "no room"))
		return 2;
	cell = counter(t, "orders_total");
	tidegate_add(cell, 3);
	if (tidegate_heartbeat(t) != -ENOSPC || *cell != 3)
		return 3;
	/* Nothing of it is left there; a small one fits, and a full tmpfs then harms it not. */
	snprintf(path, sizeof(path), "[ -z \"$(ls -A %s)\" ]", app_dir);
	if (system(path) != 0)
		return 4;
	tidegate_close(t);
	t = gateway_open(16, "");
	cell = counter(t, "orders_total");
	snprintf(path, sizeof(path), "%s/rubbish", app_dir);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	while (write(fd, image, sizeof(image)) > 0)
		continue;
	for (unsigned int i = 0; i < 40; i++) {
		char name[32];

		snprintf(name, sizeof(name), "m%u_total", i);
		struct tidegate_metric *m;

		if (tidegate_counter(t, name, "help", NULL, 0, &m) == 0)
			tidegate_with(m, NULL, &cell);
		tidegate_inc(cell);
	}
	return tidegate_heartbeat(t) == 0 ? 0 : 5;
}

static void test_full_tmpfs(void **state)
{
	int status;
	pid_t pid;

	(void)state;
	agent_start(8);
	pid = fork();
	if (pid == 0)
		_exit(full_child());
	waitpid(pid, &status, 0);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip(); /* no mount namespace here */
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_header_fields, setup, teardown),
		cmocka_unit_test_setup_teardown(test_entry_fields, setup, teardown),
		cmocka_unit_test_setup_teardown(test_header_changes_later, setup, teardown),
		cmocka_unit_test_setup_teardown(test_entry_changes_later, setup, teardown),
		cmocka_unit_test_setup_teardown(test_shrinks_while_it_is_read, setup, teardown),
		cmocka_unit_test_setup_teardown(test_removed_file_counts_on, setup, teardown),
		cmocka_unit_test_setup_teardown(test_one_file_counts_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_name_taken_by_another_user, setup, teardown),
		cmocka_unit_test_setup_teardown(test_nobody_takes_the_places, setup, teardown),
		cmocka_unit_test_setup_teardown(test_too_many_series, setup, teardown),
		cmocka_unit_test_setup_teardown(test_gauge_without_value, setup, teardown),
		cmocka_unit_test_setup_teardown(test_texts_are_cleaned, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pid_namespaces, setup, teardown),
		cmocka_unit_test_setup_teardown(test_full_tmpfs, setup, teardown),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
