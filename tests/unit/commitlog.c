/* SPDX-License-Identifier: Apache-2.0 */
/* The commit log: what was committed comes back, whatever happened to the files. */
#include "fleet/commitlog.h"
#include "base/str.h"
#include "fleet/logread.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct got {
	uint32_t types[4096];
	uint64_t values[4096];
	size_t count;
};

static char dir[64];

static int remember(void *data, uint32_t type, const uint8_t *payload, size_t size)
{
	struct got *g = data;

	assert_true(size >= 8);
	assert_true(g->count < 4096);
	g->types[g->count] = type;
	memcpy(&g->values[g->count++], payload, 8);
	return 0;
}

static struct commitlog *log_open(struct got *g)
{
	struct commitlog *log;
	struct err e = {{0}};

	memset(g, 0, sizeof(*g));
	assert_int_equal(commitlog_open(dir, remember, g, &log, &e), 0);
	return log;
}

static void add(struct commitlog *log, uint64_t value)
{
	uint8_t filler[100] = {0};

	assert_int_equal(commitlog_reserve(log, 108), 0);
	assert_int_equal(
		commitlog_append(log, 7, (struct iovec[]){{&value, 8}, {filler, value % 100}}, 2),
		0);
}

static void expect(const struct got *g, uint64_t first, uint64_t last)
{
	assert_int_equal(g->count, last - first + 1);
	for (size_t i = 0; i < g->count; i++)
		assert_int_equal(g->values[i], first + i);
}

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/tidegate-commitlog-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static unsigned int each_file(void (*fn)(const char *path), const char *part)
{
	DIR *d = opendir(dir);
	struct dirent *entry;
	unsigned int n = 0;
	char path[400];

	assert_non_null(d);
	while ((entry = readdir(d))) {
		if (entry->d_name[0] == '.' || !strstr(entry->d_name, part))
			continue;
		n++;
		snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
		if (fn)
			fn(path);
	}
	closedir(d);
	return n;
}

static void remove_file(const char *path)
{
	unlink(path);
}

static int teardown(void **state)
{
	(void)state;
	each_file(remove_file, "");
	return rmdir(dir);
}

static void test_committed_comes_back(void **state)
{
	struct commitlog *log;
	struct got g;

	(void)state;
	log = log_open(&g);
	assert_int_equal(g.count, 0);
	for (uint64_t i = 0; i < 100; i++) {
		add(log, i);
		if (i % 7 == 0)
			assert_int_equal(commitlog_commit(log, NULL), 0);
	}
	/* 98 is in the last commit, 99 was never committed. */
	assert_true(commitlog_pending(log) > 0);
	commitlog_close(log);
	log = log_open(&g);
	expect(&g, 0, 98);
	add(log, 99);
	assert_int_equal(commitlog_commit(log, NULL), 0);
	assert_int_equal(commitlog_stats(log)->records, 1);
	commitlog_close(log);
	commitlog_close(log_open(&g));
	expect(&g, 0, 99);
}

static off_t cut_to;

static void cut(const char *path)
{
	assert_int_equal(truncate(path, cut_to), 0);
}

static off_t size_of_log(void)
{
	char path[400];
	struct stat st;

	snprintf(path, sizeof(path), "%s/commit.0.log", dir);
	assert_int_equal(stat(path, &st), 0);
	return st.st_size;
}

/* The file ends at any byte: all records before that are there, and appending goes on. */
static void test_torn_anywhere(void **state)
{
	struct commitlog *log;
	struct got g;
	off_t size;

	(void)state;
	log = log_open(&g);
	for (uint64_t i = 0; i < 12; i++)
		add(log, i);
	assert_int_equal(commitlog_commit(log, NULL), 0);
	commitlog_close(log);
	size = size_of_log();
	for (cut_to = size; cut_to >= 0; cut_to--) {
		size_t before;

		each_file(cut, "commit.");
		log = log_open(&g);
		assert_int_equal(commitlog_stats(log)->damaged_bytes, 0);
		before = g.count;
		for (size_t i = 0; i < before; i++)
			assert_int_equal(g.values[i], i);
		if (cut_to < size)
			assert_true(before < 12);
		if (cut_to % 50 == 0) {
			add(log, before);
			assert_int_equal(commitlog_commit(log, NULL), 0);
			commitlog_close(log);
			log = log_open(&g);
			expect(&g, 0, before);
			cut_to = size_of_log() < cut_to ? size_of_log() : cut_to;
		}
		commitlog_close(log);
	}
}

/* The file as a crash leaves it: with the zeros that were written ahead. */
static void test_zeros_ahead(void **state)
{
	/* The last record, and the zeros that it ends with: there a cut takes nothing away. */
	const off_t last = 16 + 8 + 11, tail = 7 + 11;
	struct commitlog *log;
	char path[400];
	struct got g;
	off_t whole;

	(void)state;
	snprintf(path, sizeof(path), "%s/commit.0.log", dir);
	log = log_open(&g);
	for (uint64_t i = 0; i < 12; i++) {
		assert_int_equal(commitlog_reserve(log, 64), 0);
		add(log, i);
		assert_int_equal(commitlog_commit(log, NULL), 0);
	}
	whole = (off_t)commitlog_stats(log)->bytes;
	assert_true(size_of_log() >= whole + (1 << 20));
	commitlog_close(log);
	assert_int_equal(size_of_log(), whole);
	/* Cut anywhere in the last record, with zeros behind it; beyond its end nothing is torn. */
	for (off_t at = whole + 3; at > whole - last; at--) {
		assert_int_equal(truncate(path, at), 0);
		assert_int_equal(truncate(path, 9 << 20), 0);
		log = log_open(&g);
		expect(&g, 0, at < whole - tail ? 10 : 11);
		assert_int_equal(commitlog_stats(log)->damaged_bytes, 0);
		assert_int_equal(commitlog_stats(log)->torn_bytes == 0, at >= whole - tail);
		assert_true((off_t)commitlog_stats(log)->torn_bytes < last);
		assert_int_equal(size_of_log(), at < whole - tail ? whole - last : whole);
		if (at >= whole - tail) {
			commitlog_close(log);
			continue;
		}
		add(log, 11);
		assert_int_equal(commitlog_commit(log, NULL), 0);
		commitlog_close(log);
		log = log_open(&g);
		expect(&g, 0, 11);
		commitlog_close(log);
	}
	assert_int_equal(each_file(NULL, ".bad"), 0);
	/* Nothing but zeros. */
	assert_int_equal(truncate(path, 0), 0);
	assert_int_equal(truncate(path, 9 << 20), 0);
	log = log_open(&g);
	assert_int_equal(g.count, 0);
	assert_int_equal(commitlog_stats(log)->torn_bytes, 0);
	assert_int_equal(size_of_log(), 0);
	commitlog_close(log);
}

/* A power cut within a commit: a page that was not written yet lies between records that were. It
 * cannot be told from damage, so it is said; what was acknowledged is there, and the log goes on. */
static void test_hole_of_zeros(void **state)
{
	static const uint8_t zeros[4096], filler[3000] = {1, 2, 3};
	const off_t record = 16 + 8 + sizeof(filler);
	struct commitlog *log;
	char path[400];
	struct got g;
	int fd;

	(void)state;
	log = log_open(&g);
	for (uint64_t i = 0; i < 12; i++) {
		struct iovec parts[] = {{&i, 8}, {(void *)(uintptr_t)filler, sizeof(filler)}};

		assert_int_equal(commitlog_reserve(log, 8 + sizeof(filler)), 0);
		assert_int_equal(commitlog_append(log, 7, parts, 2), 0);
		if (i == 3) /* these are acknowledged, the others never were */
			assert_int_equal(commitlog_commit(log, NULL), 0);
	}
	assert_int_equal(commitlog_commit(log, NULL), 0);
	snprintf(path, sizeof(path), "%s/commit.0.log", dir);
	fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	assert_true(5 * 4096 > 4 * record && 6 * 4096 < 12 * record);
	assert_int_equal(pwrite(fd, zeros, sizeof(zeros), (off_t)5 * 4096), sizeof(zeros));
	close(fd);
	commitlog_close(log);
	log = log_open(&g);
	assert_int_equal(commitlog_stats(log)->damaged_files, 1);
	assert_int_equal(commitlog_stats(log)->torn_bytes, 0);
	assert_int_equal(g.count, 10); /* the page lay in two of them */
	for (size_t i = 0; i < g.count; i++)
		assert_int_equal(g.values[i], i < 7 ? i : i + 2);
	assert_int_equal(each_file(NULL, ".bad"), 1);
	add(log, 12);
	assert_int_equal(commitlog_commit(log, NULL), 0);
	commitlog_close(log);
	log = log_open(&g);
	assert_int_equal(g.count, 11);
	assert_int_equal(g.values[10], 12);
	commitlog_close(log);
}

static void flip_byte(off_t at)
{
	char path[400];
	uint8_t byte;
	int fd;

	snprintf(path, sizeof(path), "%s/commit.0.log", dir);
	fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &byte, 1, at), 1);
	byte ^= 0x10;
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	close(fd);
}

/* One flipped bit costs one record, never the start, and the bad bytes are kept. */
static void test_flipped_anywhere(void **state)
{
	struct commitlog *log;
	struct got g;
	off_t size;

	(void)state;
	log = log_open(&g);
	for (uint64_t i = 0; i < 12; i++)
		add(log, i);
	assert_int_equal(commitlog_commit(log, NULL), 0);
	commitlog_close(log);
	size = size_of_log() - (16 + 8 + 11); /* the last record is a torn tail instead */
	for (off_t at = 0; at < size; at++) {
		flip_byte(at);
		log = log_open(&g);
		assert_int_equal(g.count, 11);
		assert_true(commitlog_stats(log)->damaged_bytes > 0);
		assert_int_equal(commitlog_stats(log)->damaged_files, 1);
		commitlog_close(log);
		flip_byte(at);
	}
	assert_int_equal(each_file(NULL, ".bad"), 1);
	commitlog_close(log_open(&g));
	expect(&g, 0, 11);
}

static int fold_value(void *data, struct commitlog_writer *w)
{
	uint64_t *values = data;

	for (uint64_t v = values[0]; v <= values[1]; v++)
		assert_int_equal(commitlog_writer_add(w, 8, &v, sizeof(v)), 0);
	return 0;
}

static int fold_fails(void *data, struct commitlog_writer *w)
{
	uint64_t v = 77;

	(void)data;
	commitlog_writer_add(w, 8, &v, sizeof(v));
	return -EIO;
}

static void test_fold(void **state)
{
	uint64_t values[2] = {0, 9};
	struct commitlog *log;
	struct got g;

	(void)state;
	log = log_open(&g);
	for (uint64_t i = 0; i < 10; i++)
		add(log, i);
	assert_int_equal(commitlog_fold(log, fold_value, values, NULL), -EBUSY);
	assert_int_equal(commitlog_commit(log, NULL), 0);
	assert_int_equal(commitlog_fold(log, fold_value, values, NULL), 0);
	assert_int_equal(each_file(NULL, ""), 2);
	add(log, 10);
	assert_int_equal(commitlog_commit(log, NULL), 0);
	/* A fold that fails leaves all that was there. */
	assert_int_equal(commitlog_fold(log, fold_fails, NULL, NULL), -EIO);
	add(log, 11);
	assert_int_equal(commitlog_commit(log, NULL), 0);
	commitlog_close(log);
	log = log_open(&g);
	expect(&g, 0, 11);
	assert_int_equal(g.types[9], 8);
	assert_int_equal(g.types[10], 7);
	values[1] = 11;
	assert_int_equal(commitlog_fold(log, fold_value, values, NULL), 0);
	commitlog_close(log);
	commitlog_close(log_open(&g));
	expect(&g, 0, 11);
	assert_int_equal(each_file(NULL, "commit."), 1);
	assert_int_equal(each_file(NULL, "snapshot."), 1);
}

static void damage_middle(const char *path)
{
	int fd = open(path, O_RDWR);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, "XXXX", 4, 40), 4);
	close(fd);
}

/* A snapshot that is not whole is put aside; the aggregator starts with what the logs hold. */
static void test_bad_snapshot(void **state)
{
	uint64_t values[2] = {0, 4};
	struct commitlog *log;
	struct got g;

	(void)state;
	log = log_open(&g);
	assert_int_equal(commitlog_fold(log, fold_value, values, NULL), 0);
	add(log, 5);
	assert_int_equal(commitlog_commit(log, NULL), 0);
	commitlog_close(log);
	each_file(damage_middle, "snapshot.");
	log = log_open(&g);
	expect(&g, 5, 5);
	assert_int_equal(commitlog_stats(log)->damaged_files, 1);
	commitlog_close(log);
	assert_int_equal(each_file(NULL, ".bad"), 1);
	commitlog_close(log_open(&g));
	expect(&g, 5, 5);
}

/* Full disk, as the kernel's file size limit: nothing is promised, nothing is lost, and when there
 * is room again the waiting records are written in their place. */
static void test_no_room(void **state)
{
	struct rlimit old, small;
	struct commitlog *log;
	uint64_t done = 0;
	struct err e = {{0}};
	struct got g;
	int r = 0;

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small = old;
	small.rlim_cur = 1000;
	log = log_open(&g);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	for (; done < 50 && !r; done++) {
		uint64_t value = done;

		assert_int_equal(commitlog_append(log, 7, &(struct iovec){&value, 8}, 1), 0);
		r = commitlog_commit(log, &e);
	}
	assert_int_equal(r, -EFBIG);
	assert_true(e.text[0]);
	assert_int_equal(commitlog_reserve(log, 10), -EAGAIN);
	assert_int_equal(commitlog_commit(log, NULL), -EFBIG);
	assert_int_equal(commitlog_stats(log)->failures, 2);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(commitlog_commit(log, NULL), 0);
	assert_int_equal(commitlog_reserve(log, 10), 0);
	add(log, done);
	assert_int_equal(commitlog_commit(log, NULL), 0);
	commitlog_close(log);
	commitlog_close(log_open(&g));
	expect(&g, 0, done);
}

static void test_missing_directory(void **state)
{
	struct commitlog *log;
	struct err e = {{0}};

	(void)state;
	assert_int_equal(commitlog_open("/nonexistent/tidegate", remember, NULL, &log, &e),
			 -ENOENT);
	assert_non_null(strstr(e.text, "/nonexistent/tidegate"));
}

static void test_record_limit(void **state)
{
	uint8_t *big = calloc(1, COMMITLOG_RECORD_MAX + 1);
	struct commitlog *log;
	struct got g;

	(void)state;
	assert_non_null(big);
	log = log_open(&g);
	assert_int_equal(
		commitlog_append(log, 1, &(struct iovec){big, COMMITLOG_RECORD_MAX + 1}, 1),
		-EMSGSIZE);
	assert_int_equal(commitlog_append(log, 1, &(struct iovec){big, COMMITLOG_RECORD_MAX}, 1),
			 0);
	assert_int_equal(commitlog_append(log, 1, &(struct iovec){big, COMMITLOG_RECORD_MAX}, 1),
			 0);
	assert_int_equal(commitlog_append(log, 1, &(struct iovec){big, 8}, 1), 0);
	assert_int_equal(commitlog_commit(log, NULL), 0);
	commitlog_close(log);
	commitlog_close(log_open(&g));
	assert_int_equal(g.count, 3);
	free(big);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_committed_comes_back), TEST(test_torn_anywhere),
		TEST(test_zeros_ahead),          TEST(test_hole_of_zeros),
		TEST(test_flipped_anywhere),     TEST(test_fold),
		TEST(test_bad_snapshot),         TEST(test_no_room),
		TEST(test_missing_directory),    TEST(test_record_limit),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
