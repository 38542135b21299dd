/* SPDX-License-Identifier: Apache-2.0 */
/* Spool: what was written is handed out until it is acknowledged, whatever happens to the files. */
#include "bus/spool.h"

#include "base/cleanup.h"
#include "base/str.h"
#include "bus/spool_set.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define ADDRESS "ipc:///a"

static char dir[64];
static const uint8_t boot_one[16] = "boot one", boot_two[16] = "boot two";

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

static int setup(void **state)
{
	(void)state;
	strcpy(dir, "/tmp/spool-test-XXXXXX");
	return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	return nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static struct spool *open_spool(const uint8_t *boot, uint64_t bytes)
{
	const struct spool_options options = {
		.dir = dir,
		.bytes = bytes,
		.age_ns = 3600 * 1000000000ULL,
		.boot_id = boot,
	};
	struct spool *s;

	assert_int_equal(spool_open(&options, &s, NULL), 0);
	return s;
}

static void append(struct spool *s, unsigned int n, size_t size)
{
	uint8_t data[4096];

	for (unsigned int i = 0; i < n; i++) {
		uint64_t sequence = spool_next_sequence(s);

		memset(data, (int)(sequence & 0xff), size);
		assert_int_equal(spool_append(s, 1000 * sequence, data, size, NULL), 0);
	}
}

static struct spool_cursor *open_cursor(struct spool *s)
{
	struct spool_cursor *c;

	assert_int_equal(spool_cursor_open(s, ADDRESS, &c), 0);
	return c;
}

/* Takes the next; its contents must be what append wrote. 0: none. */
static uint64_t take(struct spool_cursor *c, enum spool_end end, struct spool_record *ret)
{
	struct spool_record r;

	if (!spool_cursor_peek(c, end, &r))
		return 0;
	assert_true(r.size > 0);
	for (size_t i = 0; i < r.size; i++)
		assert_int_equal(r.data[i], r.sequence & 0xff);
	spool_cursor_take(c, end);
	if (ret)
		*ret = r;
	return r.sequence;
}

static void settle(struct spool_cursor *c, const struct spool_record *r)
{
	spool_cursor_settle(c, r->incarnation, r->sequence, r->size, SPOOL_ACKNOWLEDGED);
}

static unsigned int count_files(const char *suffix)
{
	_cleanup_dir_ DIR *d = opendir(dir);
	struct dirent *entry;
	unsigned int n = 0;

	assert_non_null(d);
	while ((entry = readdir(d)))
		n += str_ends(entry->d_name, suffix);
	return n;
}

/* Path of the newest (or oldest) frame file. */
static void frame_file(char path[512], bool newest)
{
	_cleanup_dir_ DIR *d = opendir(dir);
	char best[256] = "";
	struct dirent *entry;

	assert_non_null(d);
	while ((entry = readdir(d))) {
		if (!str_ends(entry->d_name, ".frames"))
			continue;
		if (!*best || (strcmp(entry->d_name, best) > 0) == newest)
			snprintf(best, sizeof(best), "%s", entry->d_name);
	}
	snprintf(path, 512, "%s/%s", dir, best);
}

static void test_set(void **state)
{
	struct spool_set *set = calloc(1, sizeof(*set));
	bool model[200] = {false};
	uint64_t seed = 12345;

	(void)state;
	for (unsigned int round = 0; round < 2000; round++) {
		uint64_t first, last;

		seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
		first = 1 + (seed >> 33) % 190;
		last = first + (seed >> 50) % 3;
		if (round % 300 == 0) {
			memset(set, 0, sizeof(*set));
			memset(model, 0, sizeof(model));
		}
		spool_set_add(set, first, last);
		for (uint64_t i = first; i <= last; i++)
			model[i] = true;
		for (unsigned int i = 1; i < 195; i++)
			assert_int_equal(spool_set_has(set, i), model[i]);
		for (unsigned int i = 0; i + 1 < set->count; i++)
			assert_true(set->ranges[i].last + 1 < set->ranges[i + 1].first);
		if (set->count)
			assert_true(set->ranges[0].first > set->watermark + 1);
	}
	memset(set, 0, sizeof(*set));
	for (uint64_t i = 0; i < SPOOL_RANGES_MAX + 50; i++)
		spool_set_add(set, 10 + 2 * i, 10 + 2 * i);
	assert_int_equal(set->count, SPOOL_RANGES_MAX);
	assert_true(spool_set_has(set, 10));
	spool_set_add(set, 4, 4); /* a lower one displaces the highest */
	assert_true(spool_set_has(set, 4));
	spool_set_add(set, 1, 1000000);
	assert_int_equal(set->count, 0);
	assert_int_equal(set->watermark, 1000000);
	free(set);
}

static void test_order_and_ends(void **state)
{
	struct spool *s = open_spool(boot_one, 1 << 20);
	struct spool_cursor *c;
	struct spool_record r;
	uint64_t frames;

	(void)state;
	append(s, 5, 100);
	c = open_cursor(s);
	append(s, 3, 100);
	for (unsigned int i = 1; i <= 5; i++)
		assert_int_equal(take(c, SPOOL_OLD, NULL), i);
	assert_int_equal(take(c, SPOOL_OLD, NULL), 0);
	for (unsigned int i = 6; i <= 8; i++)
		assert_int_equal(take(c, SPOOL_LIVE, NULL), i);
	assert_int_equal(take(c, SPOOL_LIVE, NULL), 0);
	append(s, 1, 100);
	assert_int_equal(take(c, SPOOL_LIVE, &r), 9);
	assert_int_equal(spool_cursor_pending(c, &frames), 900);
	assert_int_equal(frames, 9);
	settle(c, &r);
	settle(c, &r);
	assert_int_equal(spool_cursor_pending(c, &frames), 800);
	spool_cursor_rewind(c);
	for (unsigned int i = 1; i <= 8; i++) {
		assert_int_equal(take(c, SPOOL_OLD, &r), i);
		settle(c, &r);
	}
	assert_int_equal(take(c, SPOOL_OLD, NULL), 0);
	assert_int_equal(take(c, SPOOL_LIVE, NULL), 0);
	spool_cursor_close(c);
	spool_close(s);
}

static void test_restart_continues(void **state)
{
	uint8_t incarnation[FRAME_INCARNATION_BYTES];
	struct spool *s = open_spool(boot_one, 1 << 20);
	struct spool_cursor *c = open_cursor(s);
	struct spool_record r;

	(void)state;
	assert_false(spool_is_continued(s));
	memcpy(incarnation, spool_incarnation(s), sizeof(incarnation));
	append(s, 10, 50);
	for (unsigned int i = 0; i < 4; i++) {
		take(c, SPOOL_LIVE, &r);
		settle(c, &r);
	}
	spool_reserve_ids(s, 40);
	spool_cursor_close(c);
	spool_close(s);

	s = open_spool(boot_one, 1 << 20);
	assert_true(spool_is_continued(s));
	assert_memory_equal(spool_incarnation(s), incarnation, sizeof(incarnation));
	assert_int_equal(spool_next_sequence(s), 11);
	assert_true(spool_first_id(s) >= 40);
	c = open_cursor(s);
	for (unsigned int i = 5; i <= 10; i++) {
		assert_int_equal(take(c, SPOOL_OLD, &r), i);
		settle(c, &r);
	}
	assert_int_equal(take(c, SPOOL_OLD, NULL), 0);
	spool_flush(s);
	spool_cursor_close(c);
	spool_close(s);

	/* All acknowledged: the sequence still goes on. */
	s = open_spool(boot_one, 1 << 20);
	assert_int_equal(spool_next_sequence(s), 11);
	c = open_cursor(s);
	spool_flush(s);
	append(s, 1, 10);
	spool_flush(s);
	spool_cursor_close(c);
	spool_close(s);
	s = open_spool(boot_one, 1 << 20);
	assert_int_equal(spool_next_sequence(s), 12);
	spool_close(s);
}

static void test_new_boot_is_new_incarnation(void **state)
{
	uint8_t incarnation[FRAME_INCARNATION_BYTES];
	struct spool *s = open_spool(boot_one, 1 << 20);
	struct spool_cursor *c;
	struct spool_record r;

	(void)state;
	memcpy(incarnation, spool_incarnation(s), sizeof(incarnation));
	append(s, 3, 50);
	spool_close(s);
	s = open_spool(boot_two, 1 << 20);
	assert_false(spool_is_continued(s));
	assert_int_equal(spool_next_sequence(s), 1);
	assert_memory_not_equal(spool_incarnation(s), incarnation, sizeof(incarnation));
	append(s, 2, 50);
	c = open_cursor(s);
	for (unsigned int i = 1; i <= 3; i++) {
		assert_int_equal(take(c, SPOOL_OLD, &r), i);
		assert_memory_equal(r.incarnation, incarnation, sizeof(incarnation));
		settle(c, &r);
	}
	for (unsigned int i = 1; i <= 2; i++) {
		assert_int_equal(take(c, SPOOL_OLD, &r), i);
		assert_memory_equal(r.incarnation, spool_incarnation(s), sizeof(incarnation));
	}
	assert_int_equal(count_files(".frames"), 2);
	spool_flush(s);
	assert_int_equal(count_files(".frames"), 1);
	spool_cursor_close(c);
	spool_close(s);
}

static void test_two_cursors_keep_files(void **state)
{
	struct spool *s = open_spool(boot_one, 2 << 20); /* files of 64 KiB */
	struct spool_cursor *a, *b;
	struct spool_record r;
	unsigned int before;

	(void)state;
	append(s, 200, 1000);
	assert_int_equal(spool_cursor_open(s, "tcp://a", &a), 0);
	assert_int_equal(spool_cursor_open(s, "tcp://b", &b), 0);
	before = count_files(".frames");
	assert_true(before >= 3);
	while (take(a, SPOOL_OLD, &r))
		settle(a, &r);
	spool_flush(s);
	assert_int_equal(count_files(".frames"), before);
	while (take(b, SPOOL_OLD, &r))
		settle(b, &r);
	spool_flush(s);
	assert_int_equal(count_files(".frames"), 1);
	spool_cursor_close(a);
	spool_cursor_close(b);
	spool_close(s);
}

static void test_bound_in_bytes(void **state)
{
	struct spool *s = open_spool(boot_one, 1 << 20);
	struct spool_cursor *c = open_cursor(s);
	struct spool_stats stats;
	struct spool_record r;
	uint64_t frames, first, n = 1;

	(void)state;
	append(s, 3000, 1000);
	spool_stats(s, &stats);
	assert_true(stats.disk_bytes <= 1 << 20);
	assert_true(stats.dropped_bytes > 1500);
	spool_cursor_rewind(c);
	first = take(c, SPOOL_OLD, &r);
	assert_int_equal(first, stats.dropped_bytes + 1);
	while (take(c, SPOOL_OLD, &r))
		n++;
	assert_int_equal(n + stats.dropped_bytes, 3000);
	spool_cursor_pending(c, &frames);
	assert_int_equal(frames, n);
	spool_cursor_close(c);
	spool_close(s);
}

static void test_bound_in_age(void **state)
{
	struct spool *s = open_spool(boot_one, 2 << 20);
	struct spool_stats stats;

	(void)state;
	append(s, 200, 1000); /* at 1, 2, 3 … s */
	assert_int_equal(spool_append(s, 1000 * 3600 * 1000ULL, (const uint8_t *)"x", 1, NULL), 0);
	spool_stats(s, &stats);
	assert_true(stats.dropped_age > 100);
	assert_int_equal(stats.dropped_bytes, 0);
	spool_close(s);
}

static void test_torn_tail(void **state)
{
	_cleanup_free_ char *copy = malloc(1 << 16);
	struct spool *s = open_spool(boot_one, 1 << 20);
	char path[512];
	struct stat st;
	int fd;

	(void)state;
	append(s, 3, 200);
	spool_close(s);
	frame_file(path, true);
	fd = open(path, O_RDWR);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(read(fd, copy, 1 << 16), st.st_size);
	for (off_t size = st.st_size - 1; size > 64; size -= 7) {
		unsigned int whole = (unsigned int)(size - 64) / 232;
		struct spool_stats stats;
		struct stat after;

		assert_int_equal(pwrite(fd, copy, (size_t)st.st_size, 0), st.st_size);
		assert_int_equal(ftruncate(fd, size), 0);
		s = open_spool(boot_one, 1 << 20);
		spool_stats(s, &stats);
		assert_int_equal(stats.bad_files, 0);
		assert_int_equal(stats.damaged_places, 0);
		assert_int_equal(spool_next_sequence(s), whole + 1);
		assert_int_equal(fstat(fd, &after), 0);
		assert_int_equal(after.st_size, 64 + whole * 232);
		spool_close(s);
	}
	close(fd);
}

static void test_every_flip_in_the_middle(void **state)
{
	struct spool *s = open_spool(boot_one, 1 << 20);
	char path[512];
	uint8_t byte;
	int fd;

	(void)state;
	append(s, 3, 40);
	spool_close(s);
	frame_file(path, true);
	fd = open(path, O_RDWR);
	for (off_t at = 64 + 72; at < 64 + 144; at++) { /* the second record */
		struct spool_stats stats;
		struct spool_cursor *c;

		assert_int_equal(pread(fd, &byte, 1, at), 1);
		byte ^= 0x10;
		assert_int_equal(pwrite(fd, &byte, 1, at), 1);
		s = open_spool(boot_one, 1 << 20);
		c = open_cursor(s);
		spool_stats(s, &stats);
		assert_int_equal(stats.damaged_places, 1);
		/* A frame is given up once, whoever opens the file again. */
		assert_int_equal(stats.dropped_damaged, at == 64 + 72);
		spool_told(s);
		assert_int_equal(take(c, SPOOL_OLD, NULL), 1);
		assert_int_equal(take(c, SPOOL_OLD, NULL), 3);
		assert_int_equal(take(c, SPOOL_OLD, NULL), 0);
		spool_cursor_close(c);
		spool_close(s);
		byte ^= 0x10;
		assert_int_equal(pwrite(fd, &byte, 1, at), 1);
	}
	close(fd);
}

static void test_bad_file_is_put_aside(void **state)
{
	uint8_t incarnation[FRAME_INCARNATION_BYTES];
	struct spool *s = open_spool(boot_one, 1 << 20);
	struct spool_stats stats;
	char path[512];
	int fd;

	(void)state;
	memcpy(incarnation, spool_incarnation(s), sizeof(incarnation));
	append(s, 3, 40);
	spool_close(s);
	frame_file(path, true);
	fd = open(path, O_WRONLY);
	assert_int_equal(pwrite(fd, "garbage", 7, 20), 7);
	close(fd);
	s = open_spool(boot_one, 1 << 20);
	spool_stats(s, &stats);
	assert_int_equal(stats.bad_files, 1);
	assert_int_equal(count_files(".bad"), 1);
	/* Which sequences it held is unknown, so none of them may be given again. */
	assert_memory_not_equal(spool_incarnation(s), incarnation, sizeof(incarnation));
	append(s, 1, 10);
	spool_close(s);
}

static void test_damaged_cursor_sends_again(void **state)
{
	struct spool *s = open_spool(boot_one, 1 << 20);
	struct spool_cursor *c = open_cursor(s);
	_cleanup_dir_ DIR *d = NULL;
	struct dirent *entry;
	struct spool_record r;

	(void)state;
	append(s, 4, 40);
	while (take(c, SPOOL_LIVE, &r))
		settle(c, &r);
	spool_cursor_close(c);
	spool_close(s);
	d = opendir(dir);
	while ((entry = readdir(d))) {
		char path[512];
		int fd;

		if (!str_starts(entry->d_name, "cursor-"))
			continue;
		snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
		fd = open(path, O_WRONLY);
		assert_int_equal(pwrite(fd, "x", 1, 30), 1);
		assert_int_equal(ftruncate(fd, 100000), 0);
		assert_int_equal(pwrite(fd, "x", 1, 40000), 1);
		close(fd);
	}
	s = open_spool(boot_one, 1 << 20);
	c = open_cursor(s);
	assert_int_equal(take(c, SPOOL_OLD, NULL), 1);
	spool_cursor_close(c);
	spool_close(s);
}

/* A file size limit stands for the full disk: writes fail, then work again. */
static void test_disk_full(void **state)
{
	struct spool *s = open_spool(boot_one, 1 << 20);
	struct spool_cursor *c = open_cursor(s);
	struct rlimit old, small;
	struct spool_stats stats;
	struct spool_record r;
	uint8_t data[100];
	uint64_t next;

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	append(s, 2, 100);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small = old;
	small.rlim_cur = 64 + 2 * 132 + 50;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	for (unsigned int i = 3; i <= 6; i++) {
		memset(data, (int)i, sizeof(data));
		assert_int_equal(spool_append(s, i, data, sizeof(data), NULL), 1);
	}
	spool_stats(s, &stats);
	assert_true(stats.is_disk_failing);
	assert_int_equal(stats.memory_frames, 4);
	for (unsigned int i = 1; i <= 4; i++) /* sent from memory too */
		assert_int_equal(take(c, SPOOL_LIVE, &r), i);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	append(s, 1, 100);
	spool_stats(s, &stats);
	assert_false(stats.is_disk_failing);
	assert_int_equal(stats.memory_frames, 0);
	for (unsigned int i = 5; i <= 7; i++)
		assert_int_equal(take(c, SPOOL_LIVE, &r), i);
	assert_int_equal(take(c, SPOOL_LIVE, &r), 0);
	spool_cursor_rewind(c);
	for (unsigned int i = 1; i <= 7; i++)
		assert_int_equal(take(c, SPOOL_OLD, &r), i);
	/* Killed while frames are in memory: their sequences are never given again. */
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	assert_int_equal(spool_append(s, 8, data, sizeof(data), NULL), 1);
	next = spool_next_sequence(s);
	spool_cursor_close(c);
	spool_close(s);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	s = open_spool(boot_one, 1 << 20);
	assert_true(spool_next_sequence(s) >= next);
	c = open_cursor(s);
	next = spool_next_sequence(s);
	append(s, 1, 100);
	assert_int_equal(take(c, SPOOL_LIVE, &r), next);
	spool_cursor_close(c);
	spool_close(s);
}

/* Killed while the disk is full: what was in memory alone is counted by the next process, once; what
 * was acknowledged is not among it. */
static void test_lost_memory_is_counted(void **state)
{
	char twin[] = "/tmp/spool-twin-XXXXXX";
	const struct spool_options options = {
		.dir = dir,
		.bytes = 1 << 20,
		.age_ns = 3600 * 1000000000ULL,
		.boot_id = boot_one,
		.twin_dir = mkdtemp(twin),
	};
	struct rlimit old, small;
	struct spool_stats stats;
	struct spool_cursor *c;
	struct spool_record r;
	struct spool *s;
	uint8_t data[100];
	int status;

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	assert_non_null(options.twin_dir);
	fflush(NULL);
	if (fork() == 0) {
		spool_open(&options, &s, NULL);
		c = open_cursor(s);
		append(s, 2, 100);
		getrlimit(RLIMIT_FSIZE, &small);
		small.rlim_cur = 64 + 2 * 132 + 50;
		spool_append(s, 3, memset(data, 3, 100), 100, NULL);
		/* The files of identity and cursor have their blocks and are written in place. */
		for (unsigned int i = 4; i <= 7; i++) {
			spool_flush(s);
			setrlimit(RLIMIT_FSIZE, &small);
			if (spool_append(s, i, memset(data, (int)i, 100), 100, NULL) != 1)
				_exit(1);
			small.rlim_cur = small.rlim_max;
			setrlimit(RLIMIT_FSIZE, &small);
			small.rlim_cur = 64 + 3 * 132 + 50;
		}
		for (unsigned int i = 1; i <= 5; i++)
			if (take(c, SPOOL_LIVE, &r) != i)
				_exit(2);
		settle(c, &r); /* 5, which no file holds */
		kill(getpid(), SIGKILL);
	}
	wait(&status);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	for (unsigned int life = 0; life < 3; life++) {
		assert_int_equal(spool_open(&options, &s, NULL), 0);
		assert_int_equal(spool_next_sequence(s), 8);
		c = open_cursor(s);
		spool_stats(s, &stats);
		/* 4, 6, 7; said until somebody has told it. */
		assert_int_equal(stats.dropped_lost, life < 2 ? 3 : 0);
		if (life == 1)
			spool_told(s);
		assert_int_equal(stats.dropped_damaged, 0);
		spool_cursor_close(c);
		spool_close(s);
	}
	assert_int_equal(nftw(twin, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static void test_memory_is_bounded(void **state)
{
	const struct spool_options options = {.dir = "/proc/nowhere",
					      .bytes = 1 << 20,
					      .age_ns = UINT64_MAX,
					      .boot_id = boot_one};
	static uint8_t data[100000];
	struct spool_stats stats;
	struct spool_cursor *c;
	struct spool_record r;
	struct err e = {0};
	struct spool *s;

	(void)state;
	assert_int_equal(spool_open(&options, &s, &e), 1);
	assert_non_null(strstr(e.text, "/proc/nowhere"));
	assert_int_equal(spool_cursor_open(s, ADDRESS, &c), 0);
	for (unsigned int i = 0; i < 30; i++) {
		memset(data, (int)spool_next_sequence(s), sizeof(data));
		assert_int_equal(spool_append(s, i, data, sizeof(data), NULL), 1);
	}
	spool_stats(s, &stats);
	assert_int_equal(stats.memory_frames, 10);
	assert_int_equal(stats.dropped_memory, 20);
	assert_int_equal(take(c, SPOOL_LIVE, &r), 21);
	assert_int_equal(spool_append(s, 1, data, 0, NULL), -E2BIG);
	spool_cursor_close(c);
	spool_close(s);
}

/* Thousands of kills at any byte: no sequence twice, nothing acknowledged comes again as new. */
static void test_many_restarts(void **state)
{
	uint64_t last = 0, seed = 7;
	struct spool_record r;

	(void)state;
	for (unsigned int round = 0; round < 60; round++) {
		struct spool *s = open_spool(boot_one, 1 << 20);
		struct spool_cursor *c = open_cursor(s);
		char path[512];

		seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
		assert_true(spool_next_sequence(s) == last + 1);
		append(s, 1 + (unsigned int)(seed >> 60), 300);
		last = spool_next_sequence(s) - 1;
		while ((seed >> 40) % 3 && take(c, SPOOL_OLD, &r))
			settle(c, &r);
		if ((seed >> 45) % 2)
			spool_flush(s);
		spool_cursor_close(c);
		spool_close(s);
		frame_file(path, true);
		/* Killed in the middle of a write: a torn record follows. */
		if ((seed >> 48) % 2) {
			int fd = open(path, O_WRONLY | O_APPEND);

			assert_int_equal(write(fd, "FREC\x10\0\0\0torn", 12), 12);
			close(fd);
		}
	}
}

/* ---- a twin of the identity beside host.seg ---- */

static char twin_dir[80];

static int setup_twin(void **state)
{
	if (setup(state) < 0)
		return -1;
	snprintf(twin_dir, sizeof(twin_dir), "%s-run", dir);
	return mkdir(twin_dir, 0700);
}

static int teardown_twin(void **state)
{
	nftw(twin_dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	return teardown(state);
}

static struct spool *open_twin(const char *path, const uint8_t *boot, uint64_t life)
{
	const struct spool_options options = {
		.dir = path,
		.bytes = 1 << 20,
		.age_ns = UINT64_MAX,
		.boot_id = boot,
		.twin_dir = twin_dir,
		.life = life,
	};
	struct spool *s;

	assert_true(spool_open(&options, &s, NULL) >= 0);
	return s;
}

/* Totals are kept in host.seg, so that a second incarnation would count them twice. */
static void test_wiped_directory_continues(void **state)
{
	uint8_t incarnation[FRAME_INCARNATION_BYTES];
	struct spool *s = open_twin(dir, boot_one, 0);
	uint32_t first_id;

	assert_false(spool_is_continued(s));
	assert_int_equal(spool_set_life(s, 77), 0);
	memcpy(incarnation, spool_incarnation(s), sizeof(incarnation));
	spool_reserve_ids(s, 500);
	append(s, 5, 40);
	spool_close(s);
	teardown(state);
	for (unsigned int round = 0; round < 2; round++) {
		/* Then once more where not even a directory can be made. */
		s = open_twin(round ? "/proc/nowhere" : dir, boot_one, round ? 0 : 77);
		assert_true(spool_is_continued(s));
		assert_memory_equal(spool_incarnation(s), incarnation, sizeof(incarnation));
		assert_int_equal(spool_next_sequence(s), 6 + round);
		first_id = spool_first_id(s);
		assert_true(first_id >= 500);
		assert_true(spool_append(s, 1, (const uint8_t *)"x", 1, NULL) >= 0);
		spool_close(s);
	}
	/* What was given while there was no directory is not given again when it is back. */
	s = open_twin(dir, boot_one, 77);
	assert_memory_equal(spool_incarnation(s), incarnation, sizeof(incarnation));
	assert_int_equal(spool_next_sequence(s), 8);
	spool_close(s);
}

static void test_new_life_is_new_incarnation(void **state)
{
	uint8_t incarnation[FRAME_INCARNATION_BYTES];
	struct spool *s = open_twin(dir, boot_one, 77);

	(void)state;
	memcpy(incarnation, spool_incarnation(s), sizeof(incarnation));
	append(s, 2, 40);
	assert_int_equal(spool_set_life(s, 77), 0);
	assert_int_equal(spool_set_life(s, 0), 0);
	assert_int_equal(spool_set_life(s, 78), -ESTALE);
	spool_close(s);
	s = open_twin(dir, boot_one, 78);
	assert_false(spool_is_continued(s));
	assert_memory_not_equal(spool_incarnation(s), incarnation, sizeof(incarnation));
	assert_int_equal(spool_next_sequence(s), 1);
	assert_int_equal(spool_set_life(s, 78), 0);
	spool_close(s);
	/* Without its twin the directory knows the life as well. */
	teardown_twin(state);
	setup_twin(state);
	s = open_twin(dir, boot_one, 79);
	append(s, 1, 10);
	spool_close(s);
	nftw(twin_dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	s = open_spool(boot_one, 1 << 20);
	assert_int_equal(spool_set_life(s, 80), -ESTALE);
	assert_int_equal(spool_set_life(s, 79), 0);
	spool_close(s);
}

static void test_ids_end_with_an_incarnation(void **state)
{
	uint8_t incarnation[FRAME_INCARNATION_BYTES];

	(void)state;
	/* Also where there is a twin alone. */
	for (unsigned int round = 0; round < 2; round++) {
		const char *path = round ? "/proc/nowhere" : dir;
		struct spool *s = open_twin(path, boot_one, 77);

		memcpy(incarnation, spool_incarnation(s), sizeof(incarnation));
		spool_reserve_ids(s, FRAME_ID_MAX / 4);
		assert_false(spool_needs_anew(s));
		spool_close(s);
		s = open_twin(path, boot_one, 77);
		assert_true(spool_is_continued(s));
		spool_reserve_ids(s, FRAME_ID_MAX / 2);
		assert_true(spool_needs_anew(s));
		spool_close(s);
		s = open_twin(path, boot_one, 77);
		assert_false(spool_is_continued(s));
		assert_memory_not_equal(spool_incarnation(s), incarnation, sizeof(incarnation));
		assert_false(spool_needs_anew(s));
		assert_int_equal(spool_first_id(s), 1);
		assert_int_equal(spool_set_life(s, 78), -ESTALE);
		spool_close(s);
	}
}

static void test_twin_of_another_boot_or_user(void **state)
{
	char path[120];
	struct spool *s = open_twin(dir, boot_one, 77);

	append(s, 2, 40);
	spool_close(s);
	teardown(state);
	s = open_twin(dir, boot_two, 77);
	assert_false(spool_is_continued(s));
	append(s, 2, 40);
	spool_close(s);
	if (geteuid() != 0)
		return;
	teardown(state);
	snprintf(path, sizeof(path), "%s/incarnation", twin_dir);
	assert_int_equal(chown(path, 12345, (gid_t)-1), 0);
	s = open_twin(dir, boot_two, 77);
	assert_false(spool_is_continued(s));
	spool_close(s);
}

static void test_removed_twin_comes_back(void **state)
{
	uint8_t incarnation[FRAME_INCARNATION_BYTES];
	struct spool *s = open_twin(dir, boot_one, 77);

	memcpy(incarnation, spool_incarnation(s), sizeof(incarnation));
	append(s, 1, 40);
	nftw(twin_dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
	append(s, 1, 40); /* nowhere to put it */
	assert_int_equal(mkdir(twin_dir, 0700), 0);
	append(s, 1, 40);
	spool_close(s);
	teardown(state);
	s = open_twin(dir, boot_one, 77);
	assert_memory_equal(spool_incarnation(s), incarnation, sizeof(incarnation));
	assert_int_equal(spool_next_sequence(s), 4);
	spool_close(s);
}

static void test_bad_file_with_twin_continues(void **state)
{
	struct spool *s = open_twin(dir, boot_one, 77);
	char path[512];
	int fd;

	(void)state;
	append(s, 3, 40);
	spool_close(s);
	frame_file(path, true);
	fd = open(path, O_WRONLY);
	assert_int_equal(pwrite(fd, "garbage", 7, 20), 7);
	close(fd);
	s = open_twin(dir, boot_one, 77);
	assert_true(spool_is_continued(s));
	assert_int_equal(spool_next_sequence(s), 4);
	append(s, 1, 40);
	spool_close(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_set),
		cmocka_unit_test_setup_teardown(test_order_and_ends, setup, teardown),
		cmocka_unit_test_setup_teardown(test_restart_continues, setup, teardown),
		cmocka_unit_test_setup_teardown(test_new_boot_is_new_incarnation, setup, teardown),
		cmocka_unit_test_setup_teardown(test_two_cursors_keep_files, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bound_in_bytes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bound_in_age, setup, teardown),
		cmocka_unit_test_setup_teardown(test_torn_tail, setup, teardown),
		cmocka_unit_test_setup_teardown(test_every_flip_in_the_middle, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_file_is_put_aside, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damaged_cursor_sends_again, setup, teardown),
		cmocka_unit_test_setup_teardown(test_disk_full, setup, teardown),
		cmocka_unit_test(test_memory_is_bounded),
		cmocka_unit_test_setup_teardown(test_lost_memory_is_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many_restarts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_wiped_directory_continues, setup_twin,
						teardown_twin),
		cmocka_unit_test_setup_teardown(test_new_life_is_new_incarnation, setup_twin,
						teardown_twin),
		cmocka_unit_test_setup_teardown(test_ids_end_with_an_incarnation, setup_twin,
						teardown_twin),
		cmocka_unit_test_setup_teardown(test_twin_of_another_boot_or_user, setup_twin,
						teardown_twin),
		cmocka_unit_test_setup_teardown(test_removed_twin_comes_back, setup_twin,
						teardown_twin),
		cmocka_unit_test_setup_teardown(test_bad_file_with_twin_continues, setup_twin,
						teardown_twin),
	};

	cmocka_set_message_output(CM_OUTPUT_TAP);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
